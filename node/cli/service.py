"""`manta_node service`: a node as a service of systemd's."""

from __future__ import annotations

import getpass
from typing import TYPE_CHECKING

import click

from manta.console.commands import Group, as_json_option, say, show_example
from manta.node.cli.config import NAME

if TYPE_CHECKING:
    from collections.abc import Callable

    from manta.node.daemon.units import Unit


@click.group(cls=Group)
def service() -> None:
    """Have systemd run the node: from the start of the machine, or of your session, on."""


def _whose(command: Callable[..., None]) -> Callable[..., None]:
    system = click.option(
        "--system", is_flag=True, help="The machine's service, not one of your own."
    )
    user = click.option("--as", "user", metavar="USER", help="With --system: as whom it runs.")
    return system(user(command))


def _unit(name: str, user: str | None, *, system: bool) -> Unit:
    from manta.node.daemon.units import Unit

    if user and not system:
        raise click.UsageError("--as needs --system: your own service runs as you.")
    return Unit(name, (user or getpass.getuser()) if system else "")


def _record(unit: Unit, state: str) -> dict[str, object]:
    installed = unit.path.exists()
    return {
        "name": unit.node,
        "unit": unit.name,
        "path": unit.path,
        "installed": installed,
        "systemd": state or None,
    }


def _systemctl(unit: Unit) -> str:
    return "systemctl" if unit.user else "systemctl --user"


@service.command()
@NAME
@_whose
@as_json_option
def install(name: str, system: bool, user: str | None, as_json: bool) -> None:
    """Write the unit, so that the node starts with the machine, or with your session.

    A token that it is yet to enrol with goes into ~/.manta/nodes/NAME.env, as
    MANTA_NODE_TOKEN=...
    """
    from manta.node.daemon import units

    unit = _unit(name, user, system=system)
    units.install(unit)
    start = f"`{_systemctl(unit)} start {unit.name}` starts it now."
    if not units.runs():
        start = "systemd does not run here: it takes effect where it does."
    say(_record(unit, units.state(unit)), f"{unit.path} written. {start}", as_json=as_json)


@service.command()
@NAME
@_whose
@as_json_option
def uninstall(name: str, system: bool, user: str | None, as_json: bool) -> None:
    """Stop the service and remove its unit; the node's configuration and state stay."""
    from manta.node.daemon import units

    unit = _unit(name, user, system=system)
    was = units.uninstall(unit)
    sentence = f"{unit.path} {'was removed' if was else 'is not there'}."
    say(_record(unit, ""), sentence, as_json=as_json)


@service.command()
@NAME
@_whose
@as_json_option
def status(name: str, system: bool, user: str | None, as_json: bool) -> None:
    """Show whether the unit is there, and what systemd says of it."""
    from manta.node.daemon import units

    unit = _unit(name, user, system=system)
    state = units.state(unit)
    there = f"{unit.path} is {'there' if unit.path.exists() else 'not there'}."
    says = f" {unit.name} is {state}." if state else ""
    if not units.runs():
        says = " systemd does not run here."
    say(_record(unit, state), there + says, as_json=as_json)


for _command, _example in {
    install: "manta_node service install edge",
    uninstall: "manta_node service uninstall edge",
    status: "manta_node service status edge --json",
}.items():
    show_example(_command, _example)
