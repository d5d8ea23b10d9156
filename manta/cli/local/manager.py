"""The manager of this machine: its folder, and its process in the background."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from manta.cli.exit_codes import LocalError
from manta.console.interrupts import Interrupts
from manta.console.modules import module_command
from manta.console.terminal import print_lines
from manta.transports.files import read_end

if TYPE_CHECKING:
    from manta.manager.home import Home, KeeperFile, ManagerFile, StrangersFile

T = TypeVar("T")

STARTED = 15.0
"""Seconds within which a manager must start."""


def home_of(path: str | None) -> Home:
    """Returns the manager's folder, by default ~/.manta/manager."""
    from manta.apis.connect.profiles import home
    from manta.manager.home import Home

    return Home(Path(path).absolute() if path else home() / "manager")


def daemon_command(
    home: Home,
    host: str | None,
    node_port: int | None,
    user_port: int | None,
    bulk_port: int | None,
    lease: float | None = None,
    encryption_key_from: str | None = None,
) -> list[str]:
    """What is None is as at the last start. Raises LocalError."""
    from manta.transports.addresses import join_address, split_address

    last = _told(home.read_settings)
    command = module_command("manta.manager", "--home", str(home.path))
    for name, port, address in (
        ("nodes", node_port, last.nodes),
        ("users", user_port, last.users),
        ("bulk", bulk_port, last.bulk),
    ):
        old_host, old_port = split_address(address)
        command += [f"--{name}", join_address(host or old_host, port or old_port)]
    source = last.encryption_key_from if encryption_key_from is None else encryption_key_from
    command += ["--encryption-key-from", source] if source else []
    return [*command, "--lease", f"{lease or last.lease}"]


def daemon_environment(command: list[str]) -> dict[str, str]:
    """Without what is a user's or a node's: a daemon's environment can be read while it runs."""
    kept = {"MANTA_HOME", *(one[4:] for one in command if one.startswith("env:"))}
    return {
        name: value
        for name, value in os.environ.items()
        if name in kept or not name.startswith("MANTA_")
    }


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


def start_in_background(home: Home, command: list[str]) -> Started:
    """Starts a manager, and a process that keeps it running; returns once it is ready.

    Raises LocalError.
    """
    from manta.transports.security.keys import make_private_folder

    make_private_folder(home.path)
    log = home.log
    with Interrupts() as interrupts:
        with open(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as output:
            begin = output.tell()
            process = subprocess.Popen(
                module_command(
                    "manta.manager.keeper", str(home.path), *command, "--log", str(home.log)
                ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,  # has the first password, which must not go to a file
                stderr=output,
                env=daemon_environment(command),
                start_new_session=True,
                encoding="utf-8",
                errors="replace",
            )
        try:
            interrupts.begin()
            found = _wait_for_start(home, process, log, begin)
            assert process.stdout is not None
            with process.stdout:
                said = process.stdout.read()  # it closes its stdout once it has started
        except BaseException:
            interrupts.finish()
            process.terminate()
            # It may have created its first user, whose password is shown only this once.
            print_lines(*process.communicate()[0].rstrip().splitlines())
            raise
        process.returncode = 0  # it outlives us: no ResourceWarning
    return Started(found, log, _since(log, begin), said.rstrip())


def _wait_for_start(
    home: Home, process: subprocess.Popen[str], log: Path, begin: int
) -> ManagerFile:
    deadline = time.monotonic() + STARTED
    while (found := running(home)) is None or not _keeps(home, process.pid, found.pid):
        if process.poll() is not None or time.monotonic() > deadline:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # it, and the manager
            process.wait()
            said = _since(log, begin)
            if not said and process.stdout is not None:  # the log is on a full disk
                said = process.stdout.read().rstrip()
            whole = said.startswith("The manager cannot start: ") and "\n" not in said
            raise LocalError(said if whole else f"The manager did not start:\n{said}")
        time.sleep(0.02)
    return found


def _keeps(home: Home, keeper: int, manager: int) -> bool:
    note = kept(home)
    return note is not None and (note.pid, note.manager) == (keeper, manager)


def _since(log: Path, begin: int) -> str:
    """What was logged; the file may have been rotated meanwhile."""
    return read_end(log, begin).decode(errors="replace").rstrip()


def running(home: Home) -> ManagerFile | None:
    """Returns where the manager listens; None if none runs. Raises LocalError."""
    return _told(home.running)


def kept(home: Home) -> KeeperFile | None:
    """Returns the note of the process that keeps a manager running; None if none does.

    Raises LocalError.
    """
    return _told(home.keeper)


def given_up(home: Home) -> KeeperFile | None:
    """Returns the last note of such a process that gave up. Raises LocalError."""
    note = _told(home.read_keeper_file)
    return note if note is not None and note.gave_up else None


def strangers(home: Home) -> StrangersFile:
    """Returns what became of strangers since the manager started. Raises LocalError."""
    return _told(home.read_strangers_file)


def _told(read: Callable[[], T]) -> T:
    """Reads a file of the manager's folder. Raises LocalError."""
    try:
        return read()
    except ValueError as error:
        raise LocalError(str(error)) from None
    except PermissionError as error:
        raise LocalError(_forbidden(Path(error.filename))) from None


def _forbidden(path: Path) -> str:
    try:
        theirs = path.stat().st_uid != os.getuid()
    except PermissionError:  # not even the folder can be read
        theirs = True
    if theirs:
        return f"{path} is another user's: ask that user."
    return f"{path} cannot be read: give yourself the right to (chmod u+rw)."
