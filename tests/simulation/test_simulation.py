"""Whole clusters under faults, in virtual time.

Fifty seeds in every run; MANTA_SIMULATION_FIRST and MANTA_SIMULATION_SEEDS choose others.
A failing seed prints the end of its trace, and `pytest tests/simulation --seed N` replays
it identically.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.simulation.scenario import Scenario

ROOT = Path(__file__).parents[2]
SHOWN = 80
"""Lines of a failing seed's trace."""


@pytest.fixture(scope="module")
def seen() -> Counter[str]:
    """What the seeds of this run went through."""
    return Counter()


def test_a_seed(seed: int, seen: Counter[str]) -> None:
    scenario = Scenario(seed)
    try:
        scenario.run()
    except Exception:
        print(f"\nThe end of seed {seed}; replay it: pytest tests/simulation --seed {seed}")
        print("\n".join(scenario.world.trace[-SHOWN:]))
        raise
    seen["runs"] += 1
    seen.update(scenario.checker.counts)


def test_the_seeds_went_through_everything(seen: Counter[str]) -> None:
    """A simulation in which nothing goes wrong proves nothing."""
    if seen["runs"] < 50:
        pytest.skip("asks for fifty seeds")
    wanted = "cut crash manager flap goodbye pause torn lost repeats superseded counted FAILED"
    for what in (*wanted.split(), "deleted", "blobs", "full boxes"):
        assert seen[what], f"no seed saw {what}"
    assert seen["manager crashes"] >= 20
    assert seen["agreed"] >= 20
    assert seen["COMPLETED"] >= 20


def digest(seed: int) -> str:
    scenario = Scenario(seed)
    scenario.run()
    return scenario.world.digest()


@pytest.mark.parametrize("replayed", [2, 9])
def test_a_seed_replays_the_identical_trace(replayed: int) -> None:
    """Also in another process, whose sets and dictionaries hash otherwise."""
    first = digest(replayed)
    assert digest(replayed) == first
    program = f"from {__name__} import digest; print(digest({replayed}))"
    environment = {**os.environ, "PYTHONHASHSEED": "77", "PYTHONPATH": str(ROOT)}
    other = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert other.stdout.strip() == first
