"""Tasks that exchange directly while tasks, planes, nodes, links and the manager fail.

As in `test_simulation.py`: fifty seeds in every run, and `--seed N` replays one identically.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from hashlib import blake2b
from pathlib import Path

import pytest

from tests.simulation.exchange import Scenario

ROOT = Path(__file__).parents[2]
SHOWN = 80
"""Lines of a failing seed's trace."""


@pytest.fixture(scope="module")
def seen() -> Counter[str]:
    """What the seeds of this run went through."""
    return Counter()


def run(seed: int) -> Scenario:
    scenario = Scenario(seed)
    try:
        scenario.run()
    except Exception:
        print(f"\nThe end of seed {seed}; replay it: pytest tests/simulation --seed {seed}")
        print("\n".join(scenario.clock.trace[-SHOWN:]))
        raise
    return scenario


def test_each_letter_comes_once_whatever_fails(seed: int, seen: Counter[str]) -> None:
    scenario = run(seed)
    seen["runs"] += 1
    seen.update(scenario.clock.seen)


@pytest.mark.parametrize("failed", [8, 13, 155, 159, 184, 242, 1023, 1098, 1618, 2301, 3002])
def test_a_seed_that_once_failed(failed: int) -> None:
    run(failed)


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


def digest(seed: int) -> str:
    return blake2b("\n".join(run(seed).clock.trace).encode(), digest_size=16).hexdigest()


@pytest.mark.parametrize("replayed", [3])
def test_a_seed_replays_the_identical_trace(replayed: int) -> None:
    """Also in another process, whose sets and dictionaries hash otherwise."""
    first = digest(replayed)
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
