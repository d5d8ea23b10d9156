"""`python -m manta.node.isolation.adopt PROGRAM...`: runs the program, and ends all that it leaves.

It is the parent of every orphan among what the program starts (PR_SET_CHILD_SUBREAPER, prctl(2)),
whatever session or environment that has. When the program has ended, or the thread that has started
this one, it ends the rest, and exits as the program did.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable
from typing import NoReturn

from manta.light.runtime.processes import adopt_orphans, die_with_parent, kill_descendants

_SIGNALLED = 128  # what shells add to the number of a signal


def command(program: Iterable[str]) -> list[str]:
    """What is started instead of a program."""
    return [sys.executable, "-m", "manta.node.isolation.adopt", *program]


def _stop(number: int, _: object) -> NoReturn:
    raise SystemExit(_SIGNALLED + number)


def _run(program: list[str]) -> int:
    child = os.posix_spawnp(program[0], program, os.environ)
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else _SIGNALLED - code


def main(program: list[str]) -> int:
    signal.signal(signal.SIGTERM, _stop)
    adopt_orphans()
    die_with_parent(signal.SIGTERM, os.getppid())
    try:
        return _run(program)
    except OSError as error:
        sys.stderr.write(f"{program[0]} could not be started: {error}\n")
        return _SIGNALLED - 1
    finally:
        kill_descendants()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
