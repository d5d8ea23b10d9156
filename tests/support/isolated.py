"""Run a daemon's module as `python -m` would, with tasks at a level of isolation.

python isolated.py LEVEL manta.node --config ...
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

from manta.console.home import home_folder
from manta.node.config import NodeConfig
from manta.node.isolation.holding import Holder
from manta.node.isolation.limits import Limits
from manta.node.runners import selection
from manta.node.runners.interface import Runner
from manta.node.runners.landlock import LandlockRunner
from manta.node.runners.process import ProcessRunner
from manta.node.state import StateFolder

ROOT = str(Path(__file__).parents[2])
if __name__ == "__main__" and ROOT not in sys.path:
    sys.path.append(ROOT)

from tests.support.escape import outside  # noqa: E402

RUNNERS: dict[str, Callable[[Holder, StateFolder], Runner]] = {
    "limits": lambda holder, _: ProcessRunner(holder),
    "landlock": lambda holder, state: LandlockRunner(holder, [state.path, home_folder()]),
}


def choose(level: str) -> Callable[[NodeConfig, StateFolder, str], Runner]:
    """What takes the place of `selection.choose_runner`."""

    def choose_runner(config: NodeConfig, state: StateFolder, public_key: str) -> Runner:
        holder = Holder(selection.label_of(public_key), Limits(processes=outside.PROCESSES))
        return RUNNERS[level](holder, state)

    return choose_runner


if __name__ == "__main__":
    selection.choose_runner = choose(sys.argv[1])  # type: ignore[assignment]
    module = sys.argv[2]
    sys.argv[:] = sys.argv[2:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
