"""Which folder the commands of `manta manager` mean."""

from __future__ import annotations

from pathlib import Path

import click

from manta.console.exit_codes import Exit


class ManagerError(click.ClickException):
    exit_code = Exit.LOCAL


def folder_of(path: str | None) -> Path:
    from manta.apis.connect.profiles import home

    return Path(path).absolute() if path else home() / "manager"


home_option = click.option("--home", help="Its folder; ~/.manta/manager if left out.")
