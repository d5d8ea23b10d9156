"""Commands at a terminal of their own: a real one, of a width."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import sys
import termios
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tests.support.children import Child

TIMEOUT = 60.0


@dataclass
class Shown:
    code: int
    text: str
    """With `\\n` for each line's end, and colours."""


def at_terminal(
    *arguments: object,
    typed: Sequence[tuple[str, str]] = (),
    columns: int = 80,
    module: str = "manta",
    **environment: object,
) -> Shown:
    """Run a module; `typed` is what is typed once something is shown: (shown, typed)."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return program_at_terminal(command, typed, columns, **environment)


def program_at_terminal(
    command: Sequence[str],
    typed: Sequence[tuple[str, str]] = (),
    columns: int = 80,
    **environment: object,
) -> Shown:
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith("MANTA_") and key not in ("COLUMNS", "LINES")
    }
    kept |= {"TERM": "xterm", **{key: str(value) for key, value in environment.items()}}
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    try:
        with Child(
            # The terminal is its own, so that Ctrl-C reaches it.
            ["setsid", "--ctty", *command],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=kept,
        ) as process:
            os.close(slave)
            slave = -1
            try:
                text = _talk(master, list(typed))
                return Shown(process.wait(TIMEOUT), text)
            finally:
                process.kill()
    finally:
        os.close(master)
        if slave >= 0:
            os.close(slave)


def _talk(master: int, typed: list[tuple[str, str]]) -> str:
    deadline, said, seen = time.monotonic() + TIMEOUT, "", 0
    while time.monotonic() < deadline:
        if not select.select([master], [], [], 0.1)[0]:
            continue
        try:
            said += os.read(master, 65536).decode(errors="replace").replace("\r\n", "\n")
        except OSError:  # the last one that had it open has ended
            break
        while typed and typed[0][0] in said[seen:]:
            seen += said[seen:].index(typed[0][0]) + len(typed[0][0])
            os.write(master, typed.pop(0)[1].encode())
    return said
