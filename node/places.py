"""Where configurations and state of this user's nodes lie; `MANTA_HOME` moves both."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from manta.node.state import StateFolder


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
