"""Run a daemon's module as `python -m` would, with tasks at a level of isolation.

python isolated.py LEVEL manta.node --config ...
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from manta.node.config import NodeConfig
from manta.node.isolation.holding import Holder
from manta.node.isolation.limits import Limits
from manta.node.runners import hardening, selection
from manta.node.runners.docker import DockerRunner
from manta.node.runners.interface import Runner
from manta.node.runners.pulled import Pulled
from manta.node.runners.runtime_copy import runtime_copy
from manta.node.state import StateFolder
from manta.protocol.isolation import BWRAP, IMAGES, LANDLOCK, LIMITS

ROOT = str(Path(__file__).parents[2])
if __name__ == "__main__" and ROOT not in sys.path:
    sys.path.append(ROOT)

from tests.support.escape import outside  # noqa: E402

LEVELS = (LIMITS, LANDLOCK, BWRAP)
"""Without images."""


def choose(level: str) -> Callable[..., Runner]:
    """What takes the place of `selection.choose_runner`."""

    def choose_runner(
        config: NodeConfig, state: StateFolder, public_key: str, give_up: Callable[[str], None]
    ) -> Runner:
        label = selection.label_of(public_key, state.path)
        if level in IMAGES:
            engine = hardening.find(level, state.path)
            engine = msgspec.structs.replace(engine, processes=outside.PROCESSES)
            assert config.default_image is not None
            copy = runtime_copy(state.runtime)
            pulled = Pulled(state.images_file, config.images_disk)
            return DockerRunner(engine, label, config.alias, config.default_image, copy, pulled)
        holder = Holder(label, Limits(processes=outside.PROCESSES))
        wanted = () if level == LIMITS else (level,)
        found = selection.local(selection.private(config, state.path), wanted)
        assert found.level == level, found.why
        hidden = selection.keys(config, state.path)
        return selection.local_runner(found, hidden, holder, give_up)

    return choose_runner


if __name__ == "__main__":
    selection.choose_runner = choose(sys.argv[1])
    module = sys.argv[2]
    sys.argv[:] = sys.argv[2:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
