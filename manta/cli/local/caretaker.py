"""Cleans up after a killed `manta run` or `up`: `python -m manta.cli.local.caretaker FOLDER HOME`.

A process is not told when its parent is ended by SIGKILL, but a pipe shows it: the reading end
sees the end of the file when the last writer is gone. If that comes without the word `done`,
this process ends everything that was started with FOLDER as its MANTA_HOME, and removes the folder.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import BinaryIO

from manta.light.runtime.processes import end_marked

DONE = b"done"
GRACE = 8.0
"""Seconds after which a process that was asked to end is killed."""


def main(folder: str, home: str, pipe: BinaryIO) -> None:
    if pipe.read() == DONE:
        return
    end_marked(f"MANTA_HOME={folder}", GRACE)
    shutil.rmtree(folder, ignore_errors=True)
    if home:
        from manta.cli.local import up_state

        if (held := up_state.lock(Path(home))) is not None:  # else there is a successor by now
            up_state.clear(Path(home), folder)
            up_state.leave(Path(home))
            os.close(held)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.stdin.buffer)
