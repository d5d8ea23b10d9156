"""Run a daemon's module as `python -m` would, and crash its actors on demand.

    python crashable.py ORDERS manta.node --config ...

Each line of the file ORDERS is a pattern of actor paths: one actor that matches has an
exception raised inside it, once, as soon as there is one.
"""

from __future__ import annotations

import runpy
import sys
import threading
import time
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from manta.actors import ActorSystem
from manta.testing import crash

systems: list[ActorSystem] = []


def remember(system: ActorSystem, *args: Any, **kwargs: Any) -> None:
    construct(system, *args, **kwargs)
    systems.append(system)


construct = ActorSystem.__init__
ActorSystem.__init__ = remember  # type: ignore[method-assign, assignment]


def obey(orders: Path) -> None:
    done = 0
    while True:
        lines = orders.read_text().splitlines() if orders.exists() else []
        for pattern in lines[done:]:
            while not strike(pattern):
                time.sleep(0.005)
            done += 1
        time.sleep(0.02)


def strike(pattern: str) -> bool:
    for system in systems:
        for cell in system._cells_now():
            path = cell.address.path
            if path.count("/") == pattern.count("/") and fnmatchcase(path, pattern):
                print(f"crashing {cell.address}", file=sys.stderr, flush=True)
                crash(cell.ref)
                return True
    return False


threading.Thread(target=obey, args=[Path(sys.argv[1])], daemon=True, name="crasher").start()
module = sys.argv[2]
sys.argv[:] = sys.argv[2:]
runpy.run_module(module, run_name="__main__", alter_sys=True)
