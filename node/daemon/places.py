"""Where this user's nodes have their configurations and state; `MANTA_HOME` moves both."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from manta.console.home import NoHome, home_folder
from manta.console.terminal import say_note
from manta.node.errors import OperatorError, UnknownName

if TYPE_CHECKING:
    from manta.node.config import NodeConfig
    from manta.node.state import Member, StateFolder


def home() -> Path:
    """Raises OperatorError."""
    try:
        return home_folder()
    except NoHome as error:
        raise OperatorError(str(error)) from None


def config_path(name: str) -> Path:
    from manta.node.config import NAME

    if not NAME.fullmatch(name):
        raise click.BadParameter(
            f"{name!r} is not a name for a configuration: use letters, digits, dots, dashes "
            "and underscores."
        )
    return home() / "nodes" / f"{name}.toml"


def state_folder(name: str) -> StateFolder:
    from manta.node.state import StateFolder

    config_path(name)
    return StateFolder(home() / "state" / "nodes" / name)


def config_of(name: str) -> NodeConfig:
    """Returns the node's own configuration, or its share of a cluster's.

    Raises ConfigError, Damaged.
    """
    from manta.node.config import instance, load

    path = config_path(name)
    if not path.exists():
        member = state_folder(name).read_member()
        if member is not None and member.is_shared:
            return instance(load(config_path(member.config)), member.number)
    return load(path)


def must_be_known(name: str) -> None:
    """Raises UnknownName if the node has neither a configuration nor a state."""
    config_path(name)
    if name not in names() and name not in members():
        raise UnknownName(
            f"There is no node {name!r} on this machine: `manta_node status --all` lists those "
            f"that are, `manta_node config init {name}` makes it."
        )


def names() -> list[str]:
    """Returns the names of this user's nodes that are configured or have a state.

    Raises PermissionError in the home of another user.
    """
    configured = {path.stem for path in _within(home() / "nodes") if path.suffix == ".toml"}
    folders = _within(home() / "state" / "nodes")
    started = {path.name for path in folders if (path / "node.key").exists()}
    return sorted(configured | started, key=_by_number)


def members(cluster: str | None = None) -> dict[str, Member]:
    """Returns the nodes of a cluster, or of all clusters, in the order of their numbers.

    One whose membership is damaged is left out, which is said on stderr.
    """
    from manta.node.state import StateFolder
    from manta.transports.codec.stored import Damaged

    found = {}
    for path in _within(home() / "state" / "nodes"):
        try:
            member = StateFolder(path).read_member() if path.is_dir() else None
        except Damaged as error:
            say_note(str(error))
            continue
        if member is not None and cluster in (None, member.cluster):
            found[path.name] = member
    return dict(sorted(found.items(), key=lambda item: (item[1].cluster, item[1].number)))


def _within(folder: Path) -> list[Path]:
    """Unlike `Path.glob`, raises PermissionError for a folder that may not be read."""
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []


def _by_number(name: str) -> tuple[str, int]:
    stem, dash, number = name.rpartition("-")
    return (stem, int(number)) if dash and number.isdecimal() else (name, 0)
