"""Tasks that meet in collectives while tasks, planes, nodes and links fail.

As in `test_simulation.py`: fifty seeds in every run, and `--seed N` replays one identically.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from hashlib import blake2b

import pytest

from manta.node.plane.collectives import pieces
from tests.simulation.collectives import Scenario
from tests.support.collective_calls import INLINE, small_sizes

SHOWN = 80
"""Lines of a failing seed's trace."""


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(pieces, "INLINE", 8 * INLINE)
    with small_sizes():
        yield


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


def test_all_get_the_same_or_an_error_whatever_fails(seed: int, seen: Counter[str]) -> None:
    scenario = run(seed)
    seen["runs"] += 1
    seen.update(scenario.clock.seen)


@pytest.mark.parametrize("failed", [47, 100, 160, 165, 458, 536, 563, 572, 1557, 1691, 1934])
def test_a_seed_that_once_failed(failed: int) -> None:
    run(failed)


def test_the_seeds_went_through_everything(seen: Counter[str]) -> None:
    """A simulation in which nothing goes wrong proves nothing."""
    if seen["runs"] < 50:
        pytest.skip("asks for fifty seeds")
    for what in ("cuts", "plane crashes", "node crashes", "lost", "moved away", "moved"):
        assert seen[what] >= 10, f"hardly a seed saw {what}"
    for what in ("FINISHED", "FAILED", "INTERRUPTED", "PeerLost"):
        assert seen[what], f"no seed saw {what}"


@pytest.mark.parametrize("replayed", [3])
def test_a_seed_replays_the_identical_trace(replayed: int) -> None:
    traces = ["\n".join(run(replayed).clock.trace) for _ in range(2)]
    first, second = (blake2b(one.encode(), digest_size=16).hexdigest() for one in traces)
    assert first == second
