"""Tasks that meet in collectives while tasks, planes, nodes and links fail.

As in `test_simulation.py`: fifty seeds in every run, and `--seed N` replays one identically.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from itertools import combinations
from typing import Any

import pytest

from manta.node.plane.collectives import early, peers, pieces, post
from manta.node.plane.requests import CallCollective
from manta.protocol.base import Instance
from manta.protocol.roster import Roster, RosterInstance, RosterTask
from manta.protocol.states import AttemptState
from manta.transports.collectives.calls import Kind
from tests.simulation.collective_planes import EPOCH, Asked, Plane
from tests.simulation.collectives import Scenario
from tests.simulation.exchange_planes import SWARM, Clock
from tests.support.collective_calls import INLINE, small_sizes

SHOWN = 80
"""Lines of a failing seed's trace."""


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(pieces, "INLINE", 8 * INLINE)
    # What is said goes in parts, waits for room at its receiver, and has calls wait.
    monkeypatch.setattr(post, "PART", 150)
    monkeypatch.setattr(post, "WINDOW", 1_200)
    monkeypatch.setattr(peers, "FULL", 1_900)
    monkeypatch.setattr(early, "OF_A_NODE", 500)
    monkeypatch.setattr(early, "OF_ALL", 900)
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
    went_through = ("cuts", "plane crashes", "node crashes", "lost", "moved away", "moved")
    for what in (*went_through, "parts", "asked for again", "full links"):
        assert seen[what] >= 10, f"hardly a seed saw {what}"
    for what in ("FINISHED", "FAILED", "INTERRUPTED", "PeerLost"):
        assert seen[what], f"no seed saw {what}"


@pytest.mark.parametrize("replayed", [3])
def test_a_seed_replays_the_identical_trace(replayed: int) -> None:
    traces = ["\n".join(run(replayed).clock.trace) for _ in range(2)]
    first, second = (blake2b(one.encode(), digest_size=16).hexdigest() for one in traces)
    assert first == second


def test_a_gather_that_its_root_repeats_elsewhere_has_what_the_one_beside_it_gave() -> None:
    clock, net = Clock(1), dict[str, Plane]()
    planes = [Plane(clock, name, net) for name in ("a", "b", "c")]
    for plane in planes:
        plane.introduced(list(net))
    for one, other in combinations(net, 2):
        net[one].dial(other)
    outcomes = dict[tuple[int, int], Any]()

    def told(nodes: Sequence[str], attempts: Sequence[int]) -> None:
        running = AttemptState.RUNNING
        placed = zip(nodes, attempts, strict=True)
        instances = (
            RosterInstance(rank, node, node, attempt, running)
            for rank, (node, attempt) in enumerate(placed)
        )
        task = RosterTask("t", "RUNNING", len(nodes), instances=tuple(instances))
        for plane in planes:
            plane.told(Roster(EPOCH, 0, {"t": task}, {}))

    def calls(node: str, rank: int, attempt: int) -> None:
        body = CallCollective(
            n=1, number=0, kind=Kind.GATHER, words="gather()", timeout=60.0, root=0, sizes=(2,)
        )
        at = Instance(SWARM, "t", rank, 0, attempt)

        def answered(*answer: Any) -> None:
            outcomes[rank, attempt] = answer

        net[node].ask(Asked(at, body, f"{rank}{attempt}".encode(), answered))

    told("aab", (0, 0, 0))
    for node, rank in ("a", 0), ("a", 1), ("b", 2):
        calls(node, rank, 0)
    clock.run(lambda: len(outcomes) == 3)
    told("cab", (1, 0, 0))
    calls("c", 0, 1)
    clock.run(lambda: len(outcomes) == 4)
    values, _, error = outcomes[0, 1]
    assert (values, error) == ([(0, b"01"), (1, b"10"), (2, b"20")], "")
