"""The processes of several peers, of one that has imported what they need: `manta mesh run`'s.

`python -m manta.mesh.peer.several FOLDER PLACES` is told a JSON list of a socket, a descriptor for
output and a folder of each, and by a line of its standard input the secret that all will prove, as
JSON, which is stretched once for all. It forks a process for each. Once another line has come it
ends after them; where its input ends before, the command was killed, and it ends the scripts.

They draw no chance from what was drawn before: libsodium and OpenSSL take theirs from the system,
and Python seeds `random` after a fork.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import shutil
import sys
from typing import NoReturn

from manta.light.runtime.forksafe import obstacle
from manta.light.runtime.processes import end_marked
from manta.mesh.peer.join import Place
from manta.mesh.peer.process import run
from manta.mesh.settings import RUN
from manta.mesh.spake import scalar_of

GRACE = 8.0
"""Seconds after which a script that was asked to end is killed."""


def main() -> None:
    """Raises RuntimeError where this process must not be forked."""
    folder, places = sys.argv[1:]
    scalar_of(json.loads(sys.stdin.readline()))
    importlib.import_module("manta.node.reduction.kernel")  # numpy, which most peers will need
    if (why := obstacle()) is not None:
        raise RuntimeError(f"No peers can be forked from a process that needs threads: {why}.")
    gc.freeze()  # so that looking for garbage does not copy what all share
    processes = []
    for fd, out, its_folder in json.loads(places):
        if (pid := os.fork()) == 0:
            _be(fd, out, its_folder)
        processes.append(pid)
    os.closerange(3, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    if is_killed := not sys.stdin.readline():
        end_marked(f"{RUN}={folder}", GRACE)
    for pid in processes:
        os.waitpid(pid, 0)
    if is_killed:
        shutil.rmtree(folder, ignore_errors=True)


def _be(fd: int, out: int, folder: str) -> NoReturn:
    """One of them."""
    code = 1
    try:
        os.setsid()
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.closerange(3, fd)  # among them what the others have
        os.closerange(fd + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        run(fd, Place(folder))
        code = 0
    except Exception:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
