"""Tasks that meet in collectives while tasks, planes, nodes, links and the manager fail.

As in `test_simulation.py`: fifty seeds in every run, and `--seed N` replays one identically.
"""

from __future__ import annotations

from collections import Counter
from functools import partial

import pytest

from tests.simulation import seeds
from tests.simulation.collectives import Scenario


@pytest.fixture(scope="module")
def seen() -> Counter[str]:
    """What the seeds of this run went through."""
    return Counter()


def test_all_get_the_same_or_an_error_whatever_fails(seed: int, seen: Counter[str]) -> None:
    scenario = seeds.run(Scenario, seed)
    seen["runs"] += 1
    seen.update(scenario.clock.seen)


@pytest.mark.parametrize("number", [*range(30), 112, 127, 163, 171, 198, 245, 249])
def test_a_call_is_refused_to_all_or_to_nobody_whatever_fails(
    number: int, seen: Counter[str]
) -> None:
    scenario = seeds.run(partial(Scenario, lacks_room=True), number)
    seen["refused"] += scenario.clock.seen["refused"]


@pytest.mark.parametrize("number", [*range(20), 50])
def test_all_get_the_same_where_instances_leave_nodes_and_come_back(number: int) -> None:
    seeds.run(partial(Scenario, moves=True), number)


@pytest.mark.parametrize("number", [*range(5), 123])
def test_a_call_is_refused_to_all_or_to_nobody_though_instances_leave_nodes(number: int) -> None:
    seeds.run(partial(Scenario, lacks_room=True, moves=True), number)


FAILED = [60, 67, 70, 73, 421, 616, 942, 1066, 1338, 2039, 3068, 3263, 5291, 10252, 10434, 10663]
FAILED += [11109, 30223, 31301, 50698, 51957, 52478]
FAILED += [1222, 1371, 1543, 1721, 3027, 3472, 3754, 3875, 60007]


@pytest.mark.parametrize("failed", FAILED)
def test_a_seed_that_once_failed(failed: int) -> None:
    seeds.run(Scenario, failed)


def test_the_seeds_went_through_everything(seen: Counter[str]) -> None:
    """A simulation in which nothing goes wrong proves nothing."""
    if seen["runs"] < 50:
        pytest.skip("asks for fifty seeds")
    for what in ("cuts", "flaps", "plane crashes", "node crashes", "manager crashes", "lost"):
        assert seen[what] >= 10, f"hardly a seed saw {what}"
    for what in ("moved away", "moved from a live node", "given up", "moved", "PeerLost"):
        assert seen[what] >= 10, f"hardly a seed saw {what}"
    for what in ("spills", "parts", "asked for again", "full links", "settled", "refused"):
        assert seen[what] >= 10, f"hardly a seed saw {what}"
    for what in ("FINISHED", "FAILED", "INTERRUPTED"):
        assert seen[what], f"no seed saw {what}"


@pytest.mark.parametrize("replayed", [3, 7])
def test_a_seed_replays_the_identical_trace(replayed: int) -> None:
    """Also in another process, whose sets and dictionaries hash otherwise."""
    first = seeds.digest(Scenario, replayed)
    assert seeds.digest_elsewhere(Scenario, replayed) == first
