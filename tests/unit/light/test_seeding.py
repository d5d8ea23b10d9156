"""Seeds: the same numbers for an instance in an iteration, others for every other."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import numpy as np

from manta.light.runtime.seeding import seed, seed_of
from tests.unit.light.test_api import Recorder


def test_seeds_differ_by_what_they_are_made_of_and_by_nothing_else(tmp_path: Path) -> None:
    def made(**changes: Any) -> int:
        brief = Recorder(tmp_path).brief
        for name, value in changes.items():
            setattr(brief, name, value)
        return seed_of(brief)

    differing = [
        made(),
        made(seed=8),
        made(alias="other"),
        made(index=0),
        made(node_id="other"),
        made(iteration=5),
    ]
    assert len(set(differing)) == len(differing)
    assert made() == made(attempt=3) == made(task_id="x", size=9, swarm_id="y")
    assert 0 <= made() < 2**64


def test_seeding_reaches_what_is_imported_later(tmp_path: Path) -> None:
    finders = list(sys.meta_path)
    state = random.getstate()
    try:
        seed(Recorder(tmp_path).brief)
        first = random.random(), float(np.random.rand())
        seed(Recorder(tmp_path).brief)
        assert (random.random(), float(np.random.rand())) == first
        assert len(sys.meta_path) == len(finders) + 1
    finally:
        sys.meta_path[:] = finders
        random.setstate(state)
