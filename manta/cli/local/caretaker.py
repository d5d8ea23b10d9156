"""Cleans up after a killed `manta run` or `up`: `python -m manta.cli.local.caretaker FOLDER HOME`.

A process is not told when its parent is ended by SIGKILL, but a pipe shows it: the reading end
sees the end of the file when the last writer is gone. If that comes without the word `done`,
this process ends everything that was started with FOLDER as its MANTA_HOME, and removes the folder.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import BinaryIO

from manta.light.runtime.processes import kill_tree, marked, send

DONE = b"done"
GRACE = 8.0
"""Seconds after which a process that was asked to end is killed."""


def main(folder: str, home: str, pipe: BinaryIO) -> None:
    if pipe.read() == DONE:
        return
    mark = f"MANTA_HOME={folder}"
    for pid in marked(mark):
        send(pid, signal.SIGTERM)
    deadline = time.monotonic() + GRACE
    while left := marked(mark):
        if time.monotonic() > deadline:
            kill_tree(left)
        time.sleep(0.05)
    shutil.rmtree(folder, ignore_errors=True)
    if home:
        from manta.cli.local import up_state

        if (held := up_state.lock(Path(home))) is not None:  # else there is a successor by now
            up_state.clear(Path(home), folder)
            up_state.leave(Path(home))
            os.close(held)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.stdin.buffer)
