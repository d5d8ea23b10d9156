"""Where configurations and state of this user's nodes lie; `MANTA_HOME` moves both."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from manta.node.errors import UnknownName

if TYPE_CHECKING:
    from manta.node.config import NodeConfig
    from manta.node.state import Member, StateFolder


def home() -> Path:
    return Path(os.environ.get("MANTA_HOME") or Path.home() / ".manta")


def config_path(name: str) -> Path:
    from manta.node.config import NAME

    if not NAME.fullmatch(name):
        raise click.BadParameter(
            f"{name!r} is no name of a configuration: letters, digits, dots, dashes, underscores."
        )
    return home() / "nodes" / f"{name}.toml"


def state_folder(name: str) -> StateFolder:
    from manta.node.state import StateFolder

    config_path(name)
    return StateFolder(home() / "state" / "nodes" / name)


def config_of(name: str) -> NodeConfig:
    """Its own, or its part of one that the nodes of a cluster share. Raises ConfigError."""
    from manta.node.config import instance, load

    path = config_path(name)
    member = state_folder(name).read_member()
    if member is not None and member.is_shared and not path.exists():
        return instance(load(config_path(member.config)), member.number)
    return load(path)


def must_be_known(name: str) -> None:
    """Raises UnknownName for a node that has neither a configuration nor a state."""
    config_path(name)
    if name not in names() and name not in members():
        raise UnknownName(
            f"There is no node {name!r} on this machine: `manta_node status --all` lists those "
            f"that are, `manta_node config init {name}` makes it."
        )


def names() -> list[str]:
    """Of all nodes of this user's that are configured or have a state.

    Raises PermissionError in the home of another user.
    """
    configured = {path.stem for path in _within(home() / "nodes") if path.suffix == ".toml"}
    folders = _within(home() / "state" / "nodes")
    started = {path.name for path in folders if (path / "node.key").exists()}
    return sorted(configured | started, key=_by_number)


def members(cluster: str | None = None) -> dict[str, Member]:
    """The nodes of that cluster, or of all clusters, by name, in the order of their numbers."""
    from manta.node.state import StateFolder

    found = {}
    for path in _within(home() / "state" / "nodes"):
        member = StateFolder(path).read_member() if path.is_dir() else None
        if member is not None and cluster in (None, member.cluster):
            found[path.name] = member
    return dict(sorted(found.items(), key=lambda item: (item[1].cluster, item[1].number)))


def _within(folder: Path) -> list[Path]:
    """`Path.glob` would take what may not be read for what is not there."""
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []


def _by_number(name: str) -> tuple[str, int]:
    stem, dash, number = name.rpartition("-")
    return (stem, int(number)) if dash and number.isdecimal() else (name, 0)
