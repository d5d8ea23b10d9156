"""The datasets that the operator maps: their paths, sizes and formats."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from blake3 import blake3

from manta.actors import Actor, Refused
from manta.node.config import Described, NodeConfig, line_of
from manta.node.errors import ConfigError, Flaw
from manta.protocol.machine import DatasetInfo, DatasetUsed

if TYPE_CHECKING:
    from manta.node.shared.context import NodeContext

CHUNK = 1 << 20
SURVEY_BOUND = 100_000
"""Files of a folder that are counted at most: its size is a lower bound if it has more."""


class FindDatasets(msgspec.Struct, frozen=True):
    """Answered with {name: path}, or refused in a sentence that names what is missing."""

    names: tuple[str, ...]


class SurveyDatasets(msgspec.Struct, frozen=True):
    """Answered with a tuple of DatasetInfo for the datasets that exist now."""


class Datasets(Actor):
    def __init__(self, context: NodeContext) -> None:
        self._context = context

    def receive(self, message: Any) -> Any:
        match message:
            case FindDatasets(names):
                return find(self._context.config.datasets, names)
            case SurveyDatasets():
                config = self._context.config
                return survey(config.datasets, config.described)
            case _:
                return super().receive(message)


def check(config: NodeConfig) -> None:
    """Raises ConfigError, which lists every mapping that leads nowhere."""
    if found := flaws(config):
        raise ConfigError(config.path, *found)


def flaws(config: NodeConfig) -> list[Flaw]:
    found = []
    for name, path in config.datasets.items():
        if not (problem := problem_of(path)):
            continue
        text = config.path.read_text(encoding="utf-8") if config.path.exists() else ""
        where = ("datasets", "mappings", name)
        remedy = "correct the path, or take the mapping out"
        if config.number is None and ("{i}" in str(path) or "{alias}" in str(path)):
            remedy = (
                f"its nodes are started with `manta_node cluster start N --config {config.name}`"
            )
        found.append(
            Flaw(
                f"the dataset {name!r} is mapped to {path}, which {problem}",
                remedy,
                where,
                line_of(text, where),
            )
        )
    return found


def find(mappings: Mapping[str, Path], names: Iterable[str]) -> dict[str, Path]:
    """Raises Refused."""
    found = {}
    for name in names:
        path = mappings.get(name)
        if path is None:
            known = ", ".join(sorted(mappings)) or "none"
            raise Refused(
                "dataset-missing",
                f"This node has no dataset {name!r} (it has: {known}): map it in [datasets] of "
                "its configuration.",
            )
        if problem := problem_of(path):
            raise Refused(
                "dataset-missing", f"The dataset {name!r} of this node, {path}, {problem}."
            )
        found[name] = path
    return found


def survey(
    mappings: Mapping[str, Path], described: Mapping[str, Described] | None = None
) -> tuple[DatasetInfo, ...]:
    """Those that are there now, with what is said of them."""
    said = described or {}
    return tuple(
        _info(name, path, said.get(name, Described()))
        for name, path in mappings.items()
        if not problem_of(path)
    )


def _info(name: str, path: Path, said: Described) -> DatasetInfo:
    kind = said.format or _format(path)
    rest = (dict(said.schema), said.rows, said.digest, said.version)
    return DatasetInfo(name, _size(path), kind, *rest)


def used(names: Iterable[str], described: Mapping[str, Described]) -> tuple[DatasetUsed, ...]:
    """What is recorded of the datasets that an attempt is given."""
    none = Described()
    found = ((name, described.get(name, none)) for name in names)
    return tuple(DatasetUsed(name, said.digest, said.version) for name, said in found)


def other_digest(path: Path, said: Described) -> str:
    """The digest of a file, if it is not what is said of it. Raises OSError."""
    if not said.digest or path.is_dir():
        return ""
    hasher = blake3()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            hasher.update(chunk)
    found = hasher.hexdigest()
    return "" if found == said.digest else found


def problem_of(path: Path) -> str:
    if not path.exists():
        return "does not exist"
    if not (path.is_file() or path.is_dir()):
        return "is neither a file nor a folder"
    if not os.access(path, os.R_OK | (os.X_OK if path.is_dir() else 0)):
        return "this user may not read"
    return ""


def _format(path: Path) -> str:
    return "folder" if path.is_dir() else path.suffix[1:].lower() or "file"


def _size(path: Path) -> int:
    if not path.is_dir():
        return path.stat().st_size
    size = count = 0
    for folder, _, names in os.walk(path):
        for name in names:
            count += 1
            if count > SURVEY_BOUND:
                return size
            try:
                size += os.lstat(os.path.join(folder, name)).st_size
            except FileNotFoundError:
                continue  # it went while we counted
    return size
