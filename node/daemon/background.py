"""Starts and stops daemons in the background, and reads how they stand."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from msgspec.structs import replace

from manta.console.exit_codes import Exit
from manta.console.interrupts import Interrupted, Interrupts
from manta.console.modules import module_command
from manta.console.terminal import say_note
from manta.node.errors import DaemonEnded, OperatorError
from manta.transports.codec.stored import Damaged

if TYPE_CHECKING:
    from manta.node.config import NodeConfig
    from manta.node.state import StateFolder, Status

START_PATIENCE = 6.0
"""Seconds to wait for a daemon to connect; after them it goes on trying by itself."""
SILENCE = 6.0
"""More seconds after which a daemon without any status counts as failed."""
STOP_PATIENCE = 30.0
ENDING = ("stopping", "refused", "failed")
"""States of a daemon that is about to end, though its process still holds the folder."""


@dataclass
class Started:
    """A daemon that was launched a moment ago."""

    name: str
    folder: StateFolder
    process: subprocess.Popen[bytes]
    errors: IO[bytes]
    """Its standard error, in memory because a full disk is one reason to fail."""
    launched_at: float

    def wait(self, patience: float = START_PATIENCE) -> Status:
        """Returns its status once it is connected, or after `patience` seconds.

        Raises DaemonEnded.
        """
        deadline = self.launched_at + patience
        with self.errors:
            while True:
                code = self.process.poll()
                status = current_status(self.folder)
                if code is not None:
                    raise DaemonEnded(
                        f"The node {self.name} did not start: {self._last_words()}", code
                    )
                now = time.monotonic()
                if status is not None and (status.state == "connected" or now > deadline):
                    self.process.returncode = 0  # it lives on by itself
                    return status
                if now > deadline + SILENCE:
                    self.process.returncode = 0
                    raise DaemonEnded(
                        f"The node {self.name} (process {self.process.pid}) does not report "
                        f"how it stands; see {self.folder.log_file}.",
                        Exit.TIMEOUT,
                    )
                time.sleep(0.05)

    def _last_words(self) -> str:
        self.errors.seek(0)
        said = self.errors.read().decode(errors="replace").strip()
        return said or f"exit code {self.process.returncode}."

    def abandon(self) -> None:
        """End the daemon and wait until it has ended."""
        self.process.returncode = None
        self.process.terminate()
        self.process.wait()


def start(config: NodeConfig, folder: StateFolder) -> Status:
    """Launch a daemon and wait for it. An interrupt ends the daemon as well.

    Raises what `await_end`, `launch` and `wait` raise.
    """
    await_end(config.name, folder)
    with Interrupts() as interrupts:
        started = launch(config, folder)
        try:
            interrupts.begin()
            return started.wait()
        except Interrupted:
            interrupts.finish()
            started.abandon()
            raise


def launch(config: NodeConfig, folder: StateFolder) -> Started:
    """Start a daemon that outlives this process. Raises OperatorError, KeyFileError, OSError."""
    from manta.node.config import hand_over
    from manta.transports.security.keys import make_private_folder

    must_not_run(config.name, folder)
    make_private_folder(folder.path)
    arguments = ["--config", str(config.path), "--state", str(folder.path)]
    if config.number is not None:
        arguments += ["--number", str(config.number)]
    errors = open(os.memfd_create("errors"), "w+b")  # noqa: SIM115
    cleaned, variables = hand_over(config.token_variables)
    try:
        process = subprocess.Popen(
            module_command("manta.node", *arguments, "--log", str(folder.log_file)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env=cleaned,
            pass_fds=(variables,),
            start_new_session=True,
        )
    finally:
        os.close(variables)
    return Started(config.name, folder, process, errors, time.monotonic())


def await_end(name: str, folder: StateFolder) -> None:
    """Wait for a daemon that is about to end; return at once if there is none, or one that stays.

    Raises OperatorError if it takes too long.
    """
    status = current_status(folder)
    if status is not None and status.state in ENDING:
        say_note(f"The node {name} (process {status.pid}) is ending; waiting for that.")
        wait_for_end(name, folder, status.pid)


def must_not_run(name: str, folder: StateFolder) -> None:
    """Raises OperatorError."""
    if (pid := folder.running_pid()) is not None:
        raise OperatorError(
            f"The node {name} runs already (process {pid}): `manta_node stop {name}` stops it."
        )


def ask_to_stop(folder: StateFolder) -> int | None:
    """Returns its process id, or None if no daemon runs.

    Signals only the process that holds the folder's lock: after a crash the recorded id may
    belong to another process.
    Raises OperatorError.
    """
    pid = folder.running_pid()
    if pid is None:
        return None
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    try:
        if folder.running_pid() != pid:  # it ended, and its id may be another's by now
            return None
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            signal.pidfd_send_signal(process, signal.SIGTERM)
    except PermissionError:
        raise OperatorError(f"Process {pid} is another user's: ask that user.") from None
    finally:
        os.close(process)
    return pid


def wait_for_end(name: str, folder: StateFolder, pid: int) -> None:
    """Raises OperatorError if it takes too long."""
    deadline = time.monotonic() + STOP_PATIENCE
    while folder.running_pid() == pid:
        if time.monotonic() > deadline:
            raise OperatorError(
                f"The node {name} (process {pid}) did not stop within {STOP_PATIENCE:g} s; see "
                f"{folder.log_file}, or end it with `kill -9 {pid}`."
            )
        time.sleep(0.02)


def current_status(folder: StateFolder) -> Status | None:
    """Returns the status of the daemon that runs; None if there is none, none yet, or none that
    can be read. One that has parted from its manager, and still holds its folder, is stopping."""
    try:
        found = folder.read_status()
    except Damaged:
        return None
    if found is None or found.pid != folder.running_pid():
        return None
    if found.state == "stopped":
        return replace(found, state="stopping", sentence="The daemon is stopping.")
    return found


def _killed(name: str, folder: StateFolder, last: Status) -> str:
    """What is said of a daemon that had no time to say that it stops."""
    return (
        f"The node {name} (process {last.pid}) ended without being stopped: it was killed, or its "
        f"machine went down. Its last state was {last.state}; see {folder.log_file}, and start it "
        f"again with `manta_node start {name}`."
    )


def _without_status(name: str, folder: StateFolder, pid: int | None) -> tuple[str, str]:
    """The state, and a sentence, of a node whose status is not a running daemon's."""
    try:
        last = folder.read_status()
    except Damaged as error:
        return "unknown", str(error)
    if pid is not None:
        return "starting", f"The node {name} is starting."
    if last is not None and last.state in ("refused", "failed"):
        return last.state, f"The node {name} ended: {last.sentence}"
    if last is not None and last.state != "stopped":
        return "killed", _killed(name, folder, last)
    return "stopped", f"The node {name} is stopped."


def record(name: str, folder: StateFolder) -> dict[str, Any]:
    """Returns a node's state as a dict with all fields of a Status, whether or not it runs."""
    from manta.node.state import Status

    pid = folder.running_pid()
    found = current_status(folder)
    if found is None:
        state, sentence = _without_status(name, folder, pid)
        found = Status(pid or 0, name, state, sentence, "", "", 0.0)
    fields = {field: getattr(found, field) for field in Status.__struct_fields__}
    absent = {field: None for field, value in fields.items() if value in ("", 0.0) or value == 0}
    counts = {"tasks_running": found.tasks_running, "tasks_queued": found.tasks_queued}
    return {**fields, **absent, **counts, "name": name}
