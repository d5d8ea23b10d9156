"""`manta manager ...`: a manager on this machine."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from manta.cli.commands.backups import backup, restore, verify
from manta.cli.common import Command, as_json_option, say, show_fields
from manta.cli.exit_codes import Exit
from manta.cli.manager_home import ManagerError, folder_of, home_option
from manta.console import early, json_form, text
from manta.console.commands import Group
from manta.console.interrupts import Interrupts

if TYPE_CHECKING:
    from manta.manager.home import Home, ManagerFile

NODES, USERS, BULK = 50051, 50052, 50053
STARTED = 15.0
STOPPED = 15.0


def _port(name: str, default: int, words: str) -> Callable[[Command], Command]:
    port = click.IntRange(1, 65535)
    return click.option(name, default=default, show_default=True, type=port, help=words)


@click.group(cls=Group)
def manager() -> None:
    """Start, stop, back up and restore a manager on this machine."""


for command in (backup, restore, verify):
    manager.add_command(command)


@manager.command(short_help="Start a manager; the first start creates the first user.")
@home_option
@click.option("--host", default="0.0.0.0", show_default=True, help="The address to listen on.")
@_port("--node-port", NODES, "Where nodes connect.")
@_port("--user-port", USERS, "Where users connect.")
@_port("--bulk-port", BULK, "Where large values move.")
@click.option("--background", is_flag=True, help="Return once it serves; it logs to a file.")
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
    """Start a manager; the first start creates the first user and says how to sign in, once."""
    folder = folder_of(home)
    running = _running(folder)
    if running is not None:
        raise ManagerError(
            f"A manager runs in {folder} already (process {running.pid}): stop it first."
        )
    command = daemon_command(folder, host, node_port, user_port, bulk_port)
    if not background:
        sys.stdout.flush()
        early.hold()
        os.execv(sys.executable, command)
    started = start_in_background(folder, command)
    if as_json:
        password = {"first_password": started.first_password} if started.first_password else {}
        json_form.show({**_record(started.file, folder), "log": started.log, **password})
        return
    click.echo(started.logged)
    if started.said:
        click.echo(started.said)
    click.echo(f"It runs in the background as process {started.file.pid}, logs to {started.log}.")


def daemon_command(
    folder: Path, host: str, node_port: int, user_port: int, bulk_port: int
) -> list[str]:
    host = f"[{host}]" if ":" in host else host
    command = [sys.executable, "-m", "manta.manager", "--home", str(folder)]
    for name, port in (("nodes", node_port), ("users", user_port), ("bulk", bulk_port)):
        command += [f"--{name}", f"tcp://{host}:{port}"]
    return command


@dataclass
class Started:
    """A manager in the background; `said` holds the first password, if this was its first start."""

    file: ManagerFile
    log: Path
    logged: str
    said: str

    @property
    def first_password(self) -> str | None:
        found = re.search(r"password\s+(\S+)", self.said)
        return found[1] if found else None


def start_in_background(folder: Path, command: list[str]) -> Started:
    """Return when it serves. Raises ManagerError."""
    from manta.transports.security.keys import make_private_folder

    make_private_folder(folder)
    log = folder / "manager.log"
    with Interrupts() as interrupts:
        with open(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as output:
            begin = output.tell()
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,  # for the first password, which no file may keep
                stderr=output,
                start_new_session=True,
                text=True,
            )
        try:
            interrupts.begin()
            found = _wait_for_start(folder, process, log, begin)
            assert process.stdout is not None
            with process.stdout:
                said = process.stdout.read()  # to its end: once it has started, it lets go of it
        except BaseException:
            interrupts.finish()
            process.terminate()
            # Should it have made its first user by now: that is said only this once.
            click.echo(process.communicate()[0].rstrip(), nl=False)
            raise
        process.returncode = 0  # it goes on without us: no warning that it was not waited for
    return Started(found, log, _since(log, begin), said.rstrip())


def _wait_for_start(
    folder: Path, process: subprocess.Popen[str], log: Path, begin: int
) -> ManagerFile:
    deadline = time.monotonic() + STARTED
    while (found := _running(folder)) is None or found.pid != process.pid:
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            process.wait()
            raise ManagerError(f"The manager did not start:\n{_since(log, begin)}")
        time.sleep(0.02)
    return found


def _since(log: Path, begin: int) -> str:
    return log.read_bytes()[begin:].decode(errors="replace").rstrip()


@manager.command(short_help="Say whether a manager runs here, and where it listens.")
@home_option
@as_json_option
def status(home: str | None, as_json: bool) -> int:
    """Say whether a manager runs here, and where it listens; exit code 7 if none does."""
    folder = folder_of(home)
    found = _running(folder)
    if found is None:
        say({"running": False, "home": folder}, f"No manager runs in {folder}.", as_json=as_json)
        return Exit.UNREACHABLE
    rows = [
        ("process", str(found.pid)),
        ("up for", text.seconds(time.time() - found.started_at)),
        ("nodes", found.nodes),
        ("users", found.users),
        ("bulk", found.bulk),
        ("public key", found.public_key),
        ("version", found.version),
        ("folder", str(folder)),
    ]
    show_fields(_record(found, folder), rows, as_json=as_json)
    return Exit.OK


def _record(found: ManagerFile, folder: Path) -> dict[str, object]:
    from msgspec.structs import asdict

    return {"running": True, "home": folder, **asdict(found)}


@manager.command(short_help="Stop the manager that runs here.")
@home_option
@as_json_option
def stop(home: str | None, as_json: bool) -> None:
    """Stop the manager that runs here; nodes keep their tasks and wait for its return."""
    folder = folder_of(home)
    found = _running(folder)
    if found is None:
        raise ManagerError(f"No manager runs in {folder}.")
    try:
        os.kill(found.pid, signal.SIGTERM)
    except PermissionError:
        raise ManagerError(f"Process {found.pid} is another user's: ask that user.") from None
    deadline = time.monotonic() + STOPPED
    while _home(folder).is_in_use():
        if time.monotonic() > deadline:
            raise ManagerError(
                f"The manager (process {found.pid}) has not ended after {STOPPED:g} s: "
                f"see its log, or end it with `kill -9 {found.pid}`."
            )
        time.sleep(0.02)
    stopped = {"running": False, "home": folder, "pid": found.pid}
    say(stopped, "The manager has stopped.", as_json=as_json)


def _running(folder: Path) -> ManagerFile | None:
    try:
        return _home(folder).running()
    except ValueError as error:
        raise ManagerError(str(error)) from None
    except PermissionError as error:
        raise ManagerError(_forbidden(Path(error.filename))) from None


def _forbidden(path: Path) -> str:
    try:
        theirs = path.stat().st_uid != os.getuid()
    except PermissionError:  # the folder is not ours to look into
        theirs = True
    if theirs:
        return f"{path} is another user's: ask that user."
    return f"{path} cannot be read: give yourself the right to (chmod u+rw)."


def _home(folder: Path) -> Home:
    from manta.manager.home import Home

    return Home(folder)
