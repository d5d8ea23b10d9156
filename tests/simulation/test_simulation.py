"""Whole clusters under faults, in virtual time.

Fifty seeds in every run; MANTA_SIMULATION_FIRST and MANTA_SIMULATION_SEEDS choose others.
A failing seed prints the end of its trace, and `pytest tests/simulation --seed N` replays
it identically.
"""

from __future__ import annotations

from collections import Counter

import pytest

from tests.simulation import seeds
from tests.simulation.scenario import Scenario


@pytest.fixture(scope="module")
def seen() -> Counter[str]:
    """What the seeds of this run went through."""
    return Counter()


def test_a_seed(seed: int, seen: Counter[str]) -> None:
    ran = seeds.run(Scenario, seed)
    seen["runs"] += 1
    seen.update(ran.checker.counts)


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


@pytest.mark.parametrize("replayed", [2, 9])
def test_a_seed_replays_the_identical_trace(replayed: int) -> None:
    """Also in another process, whose sets and dictionaries hash otherwise."""
    first = seeds.digest(Scenario, replayed)
    assert seeds.digest(Scenario, replayed) == first
    assert seeds.digest_elsewhere(Scenario, replayed) == first
