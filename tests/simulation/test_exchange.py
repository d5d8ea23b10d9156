"""Tasks that exchange directly while tasks, planes, nodes, links and the manager fail.

As in `test_simulation.py`: fifty seeds in every run, and `--seed N` replays one identically.
"""

from __future__ import annotations

from collections import Counter

import pytest

from tests.simulation import seeds
from tests.simulation.exchange import Scenario


@pytest.fixture(scope="module")
def seen() -> Counter[str]:
    """What the seeds of this run went through."""
    return Counter()


def test_each_letter_comes_once_whatever_fails(seed: int, seen: Counter[str]) -> None:
    scenario = seeds.run(Scenario, seed)
    seen["runs"] += 1
    seen.update(scenario.clock.seen)


@pytest.mark.parametrize("failed", [8, 13, 155, 159, 184, 242, 1023, 1098, 1618, 2301, 3002])
def test_a_seed_that_once_failed(failed: int) -> None:
    seeds.run(Scenario, failed)


def test_the_seeds_went_through_everything(seen: Counter[str]) -> None:
    """A simulation in which nothing goes wrong proves nothing."""
    if seen["runs"] < 50:
        pytest.skip("asks for fifty seeds")
    for what in ("cuts", "plane crashes", "node crashes", "manager crashes", "restored"):
        assert seen[what] >= 10, f"hardly a seed saw {what}"
    for what in (
        "values refused",
        "transfers broken",
        "before its roster",
        "told what was known",
        "placed late",
    ):
        assert seen[what] >= 10, f"hardly a seed saw {what}"
    for what in ("FINISHED", "FAILED", "INTERRUPTED", "values gone", "before its timeline"):
        assert seen[what], f"no seed saw {what}"


@pytest.mark.parametrize("replayed", [0, 3])
def test_a_seed_replays_the_identical_trace(replayed: int) -> None:
    """Also in another process, whose sets and dictionaries hash otherwise."""
    first = seeds.digest(Scenario, replayed)
    assert seeds.digest_elsewhere(Scenario, replayed) == first
