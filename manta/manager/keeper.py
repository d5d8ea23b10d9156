"""Keeps a manager running: `python -m manta.manager.keeper FOLDER COMMAND...`.

A library beneath may abort the manager's process, and the system may kill it for want of memory.
This process, its parent, does little, and starts it again; `Respawn` decides. COMMAND is the
manager's, and FOLDER its folder.
"""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from manta.console.exit_codes import Exit
from manta.console.rotating_file import follow, is_stderr
from manta.console.stopping import Stopping
from manta.manager.home import Home, KeeperFile, take_lock
from manta.manager.respawn import Again, Over, Respawn, RespawnLimits, how
from manta.transports.codec.stored import Damaged

log = logging.getLogger("manta.manager.keeper")

STARTING = 15.0
"""Seconds after which a manager that has not ended counts as started."""


class Keeper:
    def __init__(
        self, home: Home, command: Sequence[str], limits: RespawnLimits | None = None
    ) -> None:
        self._home = home
        self._command = command
        self._limits = limits or RespawnLimits()
        self._logs = is_stderr(home.log)
        self._child: subprocess.Popen[bytes] | None = None
        self._last_end = ""
        self._last_end_at = 0.0

    def run(self) -> int:
        """Returns the exit code: that of the manager when it ended for the last time."""
        try:
            lock = take_lock(self._home.keeper_lock)
        except BlockingIOError:
            log.error("another process keeps a manager running in %s", self._home.path)
            return Exit.LOCAL
        try:
            return self._keep(Stopping(self._end_manager))
        finally:
            os.close(lock)

    def _end_manager(self) -> None:
        if self._child is not None and self._child.returncode is None:
            self._child.terminate()

    def _keep(self, stopping: Stopping) -> int:
        respawn = Respawn(self._limits)
        while True:
            started = time.monotonic()
            code, was_up = self._run_once(respawn.starts_again, stopping)
            lived = time.monotonic() - started
            self._last_end, self._last_end_at = how(code), time.time()
            said = f"the manager {how(code)} {lived:.1f} s after its start"
            told = stopping.is_told
            match respawn.ended(code, lived, was_up=was_up or lived > STARTING, told=told):
                case Again(pause):
                    log.error("%s: it is started again in %g s", said, pause)
                    self._note(respawn.starts_again)
                    if stopping.is_told_within(pause):
                        self._forget()
                        return Exit.OK
                case Over(gave_up):
                    if gave_up:
                        log.critical(
                            "%s, the %dth time in a row that it ended within %g s: it is not "
                            "started again; see above why it ended, and start it when that is "
                            "mended (manta manager start --background)",
                            said, self._limits.most + 1, self._limits.quick,
                        )  # fmt: skip
                        self._note(respawn.starts_again, gave_up=True)
                    else:
                        self._forget()
                    return code if code >= 0 else 128 - code

    def _run_once(self, starts_again: int, stopping: Stopping) -> tuple[int, bool]:
        """Runs the manager until it ends; returns its exit code and whether it got to listen."""
        try:
            child = self._child = subprocess.Popen(self._command, stdin=subprocess.DEVNULL)
        except OSError as error:  # no memory, say
            log.error("the manager cannot be started: %s", error)
            return Exit.LOCAL, False
        # The first manager says the first password there, and who reads it waits for the end.
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        if stopping.is_told:  # before there was a child
            child.terminate()
        self._note(starts_again, manager=child.pid)
        code = child.wait()
        if self._logs:
            with contextlib.suppress(OSError):  # then what follows is in one of the older files
                follow(self._home.log)
        try:
            file = self._home.read_manager_file()
        except (Damaged, OSError) as error:
            log.warning("whether the manager had got to listen is not known: %s", error)
            return code, False
        return code, file is not None and file.pid == child.pid

    def _forget(self) -> None:
        """Nothing is left to be said of a manager that ended on purpose."""
        with contextlib.suppress(OSError):
            self._home.keeper_file.unlink(missing_ok=True)

    def _note(self, starts_again: int, *, manager: int = 0, gave_up: bool = False) -> None:
        note = KeeperFile(
            os.getpid(), manager, starts_again, self._last_end, self._last_end_at, gave_up
        )
        with contextlib.suppress(OSError):  # a full disk costs the words of `manta manager status`
            self._home.write_keeper_file(note)


def main() -> int:
    logging.basicConfig(
        level="INFO", stream=sys.stderr, format="%(asctime)s %(levelname)-7s %(message)s"
    )
    _, folder, *command = sys.argv
    return Keeper(Home(Path(folder)), command).run()


if __name__ == "__main__":
    sys.exit(main())
