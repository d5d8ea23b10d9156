"""Whole clusters under faults, in virtual time.

Fifty seeds in every run. A failing seed prints the end of its trace, and
`pytest tests/simulation --seed N` replays it identically.
"""

from __future__ import annotations

from collections import Counter

from tests.simulation.scenario import Scenario

SEEN: Counter[str] = Counter()


def test_a_seed(seed: int) -> None:
    scenario = Scenario(seed)
    try:
        scenario.run()
    except Exception:
        print(f"\nThe last of seed {seed}; replay it: pytest tests/simulation --seed {seed}")
        print("\n".join(scenario.world.trace[-60:]))
        raise
    SEEN["runs"] += 1
    SEEN.update(scenario.checker.counts)
