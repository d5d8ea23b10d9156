"""`manta manager ...`: a manager on this machine."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from manta.cli.commands.backups import backup, restore, verify
from manta.cli.exit_codes import LocalError
from manta.cli.local.manager import daemon_command, home_of, running, start_in_background
from manta.cli.options import Command, manager_home_option
from manta.cli.tables import show_fields
from manta.console import early, json_form, text
from manta.console.commands import Group, as_json_option, say
from manta.console.exit_codes import Exit

if TYPE_CHECKING:
    from manta.manager.home import Home, ManagerFile

NODES, USERS, BULK = 50051, 50052, 50053
STOPPED = 15.0
"""Seconds that a manager has to stop."""


def _port(name: str, default: int, words: str) -> Callable[[Command], Command]:
    port = click.IntRange(1, 65535)
    return click.option(name, default=default, show_default=True, type=port, help=words)


@click.group(cls=Group)
def manager() -> None:
    """Start, stop, back up and restore a manager on this machine."""


for command in (backup, restore, verify):
    manager.add_command(command)


@manager.command(short_help="Start a manager; the first start creates the first user.")
@manager_home_option
@click.option("--host", default="0.0.0.0", show_default=True, help="The address to listen on.")
@_port("--node-port", NODES, "Where nodes connect.")
@_port("--user-port", USERS, "Where users connect.")
@_port("--bulk-port", BULK, "Where large values move.")
@click.option("--background", is_flag=True, help="Return once it is ready; it logs to a file.")
@click.option("--json", "as_json", is_flag=True, help="With --background: print JSON.")
def start(
    home: str | None,
    host: str,
    node_port: int,
    user_port: int,
    bulk_port: int,
    background: bool,
    as_json: bool,
) -> None:
    """Start a manager; the first start creates the first user and shows how to sign in, once."""
    place = home_of(home)
    if (found := running(place)) is not None:
        raise LocalError(
            f"A manager already runs in {place.path} (process {found.pid}): stop it first."
        )
    command = daemon_command(place, host, node_port, user_port, bulk_port)
    if not background:
        sys.stdout.flush()
        early.hold()
        os.execv(command[0], command)
    started = start_in_background(place, command)
    if as_json:
        password = {"first_password": started.first_password} if started.first_password else {}
        json_form.show({**_record(started.file, place), "log": started.log, **password})
        return
    click.echo(started.logged)
    if started.said:
        click.echo(started.said)
    click.echo(
        f"It runs in the background as process {started.file.pid}, logging to {started.log}."
    )


@manager.command(short_help="Show whether a manager runs here, and where it listens.")
@manager_home_option
@as_json_option
def status(home: str | None, as_json: bool) -> int:
    """Show whether a manager runs here, and where it listens; the exit code is 7 if none does."""
    place = home_of(home)
    found = running(place)
    if found is None:
        nothing = f"No manager runs in {place.path}."
        say({"running": False, "home": place.path}, nothing, as_json=as_json)
        return Exit.UNREACHABLE
    rows = [
        ("process", str(found.pid)),
        ("up for", text.seconds(time.time() - found.started_at)),
        ("nodes", found.nodes),
        ("users", found.users),
        ("bulk", found.bulk),
        ("public key", found.public_key),
        ("version", found.version),
        ("folder", str(place.path)),
    ]
    show_fields(_record(found, place), rows, as_json=as_json)
    return Exit.OK


def _record(found: ManagerFile, home: Home) -> dict[str, object]:
    from msgspec.structs import asdict

    return {"running": True, "home": home.path, **asdict(found)}


@manager.command(short_help="Stop the manager that runs here.")
@manager_home_option
@as_json_option
def stop(home: str | None, as_json: bool) -> None:
    """Stop the manager that runs here; nodes keep their tasks running and wait for it."""
    place = home_of(home)
    found = running(place)
    if found is None:
        raise LocalError(f"No manager runs in {place.path}.")
    try:
        os.kill(found.pid, signal.SIGTERM)
    except PermissionError:
        raise LocalError(f"Process {found.pid} is another user's: ask that user.") from None
    deadline = time.monotonic() + STOPPED
    while place.is_in_use():
        if time.monotonic() > deadline:
            raise LocalError(
                f"The manager (process {found.pid}) has not ended after {STOPPED:g} s: "
                f"see its log, or end it with `kill -9 {found.pid}`."
            )
        time.sleep(0.02)
    stopped = {"running": False, "home": place.path, "pid": found.pid}
    say(stopped, "Stopped the manager.", as_json=as_json)
