"""Tasks that meet in collectives while tasks, planes, nodes and links fail.

As in `test_simulation.py`: fifty seeds in every run, and `--seed N` replays one identically.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from hashlib import blake2b
from itertools import combinations
from typing import Any

import pytest

from manta.node.plane.collectives import early, peers, pieces, post
from manta.node.plane.collectives.messages import CallName
from manta.node.plane.requests import CallCollective
from manta.protocol.base import Instance
from manta.protocol.roster import Roster, RosterInstance, RosterTask
from manta.protocol.states import AttemptState
from manta.transports.collectives.calls import Kind
from tests.simulation.collective_planes import EPOCH, Asked, Plane
from tests.simulation.collectives import Scenario
from tests.simulation.exchange_planes import SWARM, Clock
from tests.support.collective_calls import INLINE, small_sizes

Key = tuple[int, int]
"""A rank, and an attempt of it."""
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


def run(
    seed: int, *, settles: bool = False, lacks_room: bool = False, moves: bool = False
) -> Scenario:
    scenario = Scenario(seed, settles=settles, lacks_room=lacks_room, moves=moves)
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


@pytest.mark.parametrize("number", range(20))
def test_who_has_written_comes_once_the_manager_has_it_whatever_fails(number: int) -> None:
    run(number, settles=True)


@pytest.mark.parametrize("number", range(30))
def test_a_call_is_refused_to_all_or_to_nobody_whatever_fails(
    number: int, seen: Counter[str]
) -> None:
    seen["refused"] += run(number, lacks_room=True).clock.seen["refused"]


@pytest.mark.parametrize("number", range(20))
def test_all_get_the_same_where_instances_leave_nodes_and_come_back(number: int) -> None:
    run(number, moves=True)


@pytest.mark.parametrize("failed", [47, 100, 160, 165, 458, 536, 563, 572, 1557, 1691, 1934, 2435])
def test_a_seed_that_once_failed(failed: int) -> None:
    run(failed)


def test_the_seeds_went_through_everything(seen: Counter[str]) -> None:
    """A simulation in which nothing goes wrong proves nothing."""
    if seen["runs"] < 50:
        pytest.skip("asks for fifty seeds")
    went_through = ("cuts", "plane crashes", "node crashes", "lost", "moved away", "moved")
    for what in (*went_through, "refused", "spills", "parts", "asked for again", "full links"):
        assert seen[what] >= 10, f"hardly a seed saw {what}"
    for what in ("FINISHED", "FAILED", "INTERRUPTED", "PeerLost"):
        assert seen[what], f"no seed saw {what}"


@pytest.mark.parametrize("replayed", [3])
def test_a_seed_replays_the_identical_trace(replayed: int) -> None:
    traces = ["\n".join(run(replayed).clock.trace) for _ in range(2)]
    first, second = (blake2b(one.encode(), digest_size=16).hexdigest() for one in traces)
    assert first == second


class Lab:
    """Planes of nodes that are all linked, and members of one task that call when they are told."""

    def __init__(self, seed: int, *names: str) -> None:
        self.clock, self.net = Clock(seed), dict[str, Plane]()
        self.outcomes = dict[Key, Any]()
        for name in names:
            Plane(self.clock, name, self.net)
        for plane in self.net.values():
            plane.introduced(list(self.net))
        for one, other in combinations(self.net, 2):
            self.net[one].dial(other)

    def told(
        self,
        nodes: Sequence[str],
        attempts: Sequence[int],
        finished: Collection[int] = (),
        by: Collection[str] = (),
        stays: Sequence[int] = (),
    ) -> None:
        """The roster, by rank; all planes are told it, or these."""
        instances = tuple(
            RosterInstance(
                rank,
                node,
                node,
                attempt,
                AttemptState.FINISHED if rank in finished else AttemptState.RUNNING,
                stay=stays[rank] if stays else 0,
            )
            for rank, (node, attempt) in enumerate(zip(nodes, attempts, strict=True))
        )
        task = RosterTask("t", "RUNNING", len(nodes), instances=instances)
        for name in by or self.net:
            self.net[name].told(Roster(EPOCH, 0, {"t": task}, {}))

    def calls(
        self,
        node: str,
        rank: int,
        attempt: int,
        kind: Kind,
        size: int = 2,
        root: int = 0,
        refusal: str = "",
    ) -> None:
        """`refusal`: why the node does not take the value."""
        value = f"{rank}{attempt}".encode().ljust(size, b".") if size else b""
        sizes: tuple[int, ...] = (size,) if size else ()
        if kind is Kind.SCATTER:
            sizes = (0, size) if rank == root else ()
            value = value if rank == root else b""
        body = CallCollective(
            n=1, number=0, kind=kind, words="call()", timeout=60.0, root=root, sizes=sizes
        )

        def answered(*answer: Any) -> None:
            self.outcomes[rank, attempt] = answer

        asked = Asked(Instance(SWARM, "t", rank, 0, attempt), body, value, answered)
        asked.refusal = refusal
        self.net[node].ask(asked)

    def begins_anew(self, node: str) -> None:
        """Its plane crashes, and is told who is there; it is yet to be told of the roster."""
        self.net[node].crash()
        plane = Plane(self.clock, node, self.net, self.net[node].disk)
        plane.introduced(list(self.net))
        for other in self.net:
            if other != node:
                plane.dial(other)

    def close(self) -> None:
        for plane in self.net.values():
            plane.desk.close()
            plane.pool.close()
            plane.sending.clear()
            plane.expecting.clear()


Make = Callable[..., Lab]


@pytest.fixture
def lab() -> Iterator[Make]:
    made: list[Lab] = []

    def make(seed: int, *names: str) -> Lab:
        made.append(Lab(seed, *names))
        return made[-1]

    yield make
    while made:
        made.pop().close()


def test_a_gather_that_its_root_repeats_elsewhere_has_what_the_one_beside_it_gave(
    lab: Make,
) -> None:
    made = lab(1, "a", "b", "c")
    made.told("aab", (0, 0, 0))
    for node, rank in ("a", 0), ("a", 1), ("b", 2):
        made.calls(node, rank, 0, Kind.GATHER)
    made.clock.run(lambda: len(made.outcomes) == 3)
    made.told("cab", (1, 0, 0))
    made.calls("c", 0, 1, Kind.GATHER)
    made.clock.run(lambda: len(made.outcomes) == 4)
    values, _, error = made.outcomes[0, 1]
    assert (values, error) == ([(0, b"01"), (1, b"10"), (2, b"20")], "")


def test_what_a_plane_had_before_its_instance_was_elsewhere_does_not_count(lab: Make) -> None:
    """Those that went on without it have crashed since, and what came of the call is another."""
    made = lab(1, "a", "b", "c")
    made.told("ab", (0, 0))
    for rank, node in enumerate("ab"):
        made.calls(node, rank, 0, Kind.ALL_GATHER)
    made.clock.run(lambda: len(made.outcomes) == 2)
    made.begins_anew("b")
    made.told("cb", (1, 1), by="bc", stays=(1, 0))  # a is told later what it is by then
    for rank, node in enumerate("cb"):
        made.calls(node, rank, 1, Kind.ALL_GATHER)
    made.clock.run(lambda: len(made.outcomes) == 4)
    made.told("ab", (2, 1), stays=(2, 0))
    made.calls("a", 0, 2, Kind.ALL_GATHER)
    made.clock.run(lambda: (0, 2) in made.outcomes)
    assert made.outcomes[0, 2] == made.outcomes[1, 1]
    assert [data for _, data in made.outcomes[0, 2][0]] == [b"01", b"11"]


def test_what_a_node_had_before_it_was_lost_does_not_count(lab: Make) -> None:
    """Another instance on it has stayed in the roster all the time."""
    made = lab(1, "a", "b")
    made.told("aab", (0, 0, 0))
    for rank, node in enumerate("aab"):
        made.calls(node, rank, 0, Kind.ALL_GATHER)
    made.clock.run(lambda: len(made.outcomes) == 3)
    made.net["b"].introduced(["b"])
    made.begins_anew("b")
    made.net["b"].introduced(["b"])
    made.told("bbb", (1, 1, 1), by="b", stays=(1, 1, 0))
    for rank in range(3):
        made.calls("b", rank, 1, Kind.ALL_GATHER)
    made.clock.run(lambda: len(made.outcomes) == 6)
    made.net["b"].introduced(["a", "b"])
    made.told("aab", (2, 2, 1), stays=(2, 2, 0))
    made.calls("a", 0, 2, Kind.ALL_GATHER)
    made.clock.run(lambda: (0, 2) in made.outcomes)
    assert made.outcomes[0, 2] == made.outcomes[2, 1]


def test_a_node_that_was_lost_has_nothing_of_instances_that_finished_on_it(lab: Make) -> None:
    """No next attempt of them says so."""
    made = lab(1, "a", "b")
    made.told("aab", (0, 0, 0))
    for rank, node in enumerate("aab"):
        made.calls(node, rank, 0, Kind.ALL_GATHER)
    made.clock.run(lambda: len(made.outcomes) == 3)
    made.told("aab", (0, 1, 0), finished=[0, 2], stays=(1, 1, 0))
    assert not made.net["a"].desk.calls.all
    made.calls("a", 1, 1, Kind.ALL_GATHER)
    made.clock.run(lambda: (1, 1) in made.outcomes)
    assert made.outcomes[1, 1] == made.outcomes[1, 0]  # which the other node has


def test_what_a_lost_node_was_given_to_keep_is_not_waited_for(lab: Make) -> None:
    """Who waits for it on another node has heard nothing of that node meanwhile."""
    made = lab(1, "a", "b")
    made.told("bab", (0, 0, 0))
    made.calls("a", 1, 0, Kind.GATHER, LARGE)
    made.calls("b", 0, 0, Kind.GATHER, LARGE)
    made.calls("b", 2, 0, Kind.GATHER, LARGE)
    made.clock.run(lambda: any(one.ready for one in made.net["a"].sending.values()))
    made.told("bab", (0, 0, 0), finished=[1], stays=(0, 1, 0))
    made.clock.run(lambda: (0, 0) in made.outcomes)
    assert made.outcomes[0, 0][2].startswith("PeerLost: "), made.outcomes[0, 0]
    assert "t.1" in made.outcomes[0, 0][2]


LARGE = 5_000


def test_what_came_of_a_call_is_taken_from_any_plane_that_has_it(lab: Make) -> None:
    """One of its members has finished, its plane crashes, and others lack what it gave."""
    made = lone_straggler(lab)
    made.begins_anew("a")
    made.told("abc", (0, 0, 0), finished=[0])
    made.clock.run(lambda: (1, 0) in made.outcomes)
    values, _, error = made.outcomes[1, 0]
    assert (error, [data[:2] for _, data in values]) == ("", [b"00", b"10", b"20"])


@pytest.mark.parametrize("kind", [Kind.ALL_GATHER, Kind.GATHER, Kind.SCATTER])
def test_what_a_finished_member_had_or_gave_comes_from_its_disk(lab: Make, kind: Kind) -> None:
    """Its plane crashes while another one lacks it, of which no attempt begins anew."""
    made = straggler(lab, kind)
    made.net["a"].end(Instance(SWARM, "t", 0, 0, 0), counts=True)
    made.begins_anew("a")
    made.told("ab", (0, 0), finished=[0])
    made.clock.run(lambda: (1, 0) in made.outcomes)
    values, _, error = made.outcomes[1, 0]
    wanted = [b"00"] if kind is Kind.SCATTER else [b"00", b"10"]
    assert (error, [data[:2] for _, data in values]) == ("", wanted)


def test_what_was_refused_stays_so_though_all_planes_that_knew_are_gone(lab: Make) -> None:
    made = lab(1, "a")
    made.told("aa", (0, 0))
    full(made.net["a"])
    for rank in (0, 1):
        made.calls("a", rank, 0, Kind.ALL_GATHER)
    made.clock.run(lambda: len(made.outcomes) == 2)
    emptied(made.net["a"])
    made.net["a"].end(Instance(SWARM, "t", 0, 0, 0), counts=True)
    made.begins_anew("a")
    made.told("aa", (0, 1), finished=[0])
    made.calls("a", 1, 1, Kind.ALL_GATHER)
    made.clock.run(lambda: (1, 1) in made.outcomes)
    assert set(errors(made).values()) == {"ResourceExhaustionError"}


def test_what_was_given_is_kept_until_what_came_before_is_here(lab: Make) -> None:
    """The plane that gives what came of the call crashes before all of it has come."""
    made = lab(1, "a", "b")
    outcomes = made.outcomes
    made.told("ab", (0, 0))
    for rank, node in enumerate("ab"):
        made.calls(node, rank, 0, Kind.ALL_GATHER, LARGE)
    made.clock.run(lambda: len(outcomes) == 2)
    made.begins_anew("b")
    made.told("ab", (0, 1))
    made.calls("b", 1, 1, Kind.ALL_GATHER, LARGE)
    made.clock.run(lambda: bool(made.net["b"].expecting))
    made.begins_anew("a")
    made.told("ab", (1, 1))
    made.calls("a", 0, 1, Kind.ALL_GATHER, LARGE)
    made.clock.run(lambda: len(outcomes) == 4)
    for rank in (0, 1):
        values, _, error = outcomes[rank, 1]
        assert (error, [data[:2] for _, data in values]) == ("", [b"01", b"11"])


FIRST = CallName(0, "t", 0)


def full(plane: Plane) -> None:
    """It takes nothing more that is small."""
    room = plane.pool._small
    room.take("another", room.most)


def emptied(plane: Plane) -> None:
    room = plane.pool._small
    room.give("another", room.of("another"))


def errors(made: Lab) -> dict[Key, str]:
    return {key: answer[2].partition(":")[0] for key, answer in made.outcomes.items()}


@pytest.mark.parametrize("kind", [Kind.BARRIER, Kind.ALL_GATHER])
@pytest.mark.parametrize("again", [0, 1])
def test_what_was_refused_stays_so_for_a_next_attempt_though_there_is_room_by_then(
    lab: Make, kind: Kind, again: int
) -> None:
    made = lab(1, "a", "b")
    made.told("ab", (0, 0))
    full(made.net["a"])
    for rank, node in enumerate("ab"):
        made.calls(node, rank, 0, kind, 0 if kind is Kind.BARRIER else 2)
    made.clock.run(lambda: len(made.outcomes) == 2)
    emptied(made.net["a"])
    made.told("ab", [int(rank == again) for rank in (0, 1)])
    made.calls("ab"[again], again, 1, kind, 0 if kind is Kind.BARRIER else 2)
    made.clock.run(lambda: len(made.outcomes) == 3)
    assert set(errors(made).values()) == {"ResourceExhaustionError"}
    planes = made.net.values()
    assert not any(plane.desk.calls.all for plane in planes)
    made.clock.run(lambda: all(plane.budget.sizes == (0, 0) for plane in planes))


@pytest.mark.parametrize("restarts", ["a", "b"])
def test_what_was_refused_stays_so_though_one_plane_forgot_it(lab: Make, restarts: str) -> None:
    made = lab(1, "a", "b", "c")
    made.told("abc", (0, 0, 0))
    full(made.net["a"])
    for rank, node in enumerate("abc"):
        made.calls(node, rank, 0, Kind.ALL_GATHER)
    made.clock.run(lambda: len(made.outcomes) == 3)
    emptied(made.net["a"])
    made.begins_anew(restarts)
    attempts = [int(node == restarts) for node in "abc"]
    made.told("abc", attempts)
    rank = "abc".index(restarts)
    made.calls(restarts, rank, 1, Kind.ALL_GATHER)
    made.clock.run(lambda: (rank, 1) in made.outcomes)
    assert set(errors(made).values()) == {"ResourceExhaustionError"}


def test_who_has_no_room_for_a_call_that_others_have_been_served_is_given_what_came_of_it(
    lab: Make,
) -> None:
    """Its plane had begun anew meanwhile, and others fill its node."""
    made = lab(1, "a", "b")
    made.told("ab", (0, 0))
    for rank, node in enumerate("ab"):
        made.calls(node, rank, 0, Kind.ALL_GATHER)
    made.clock.run(lambda: len(made.outcomes) == 2)
    made.begins_anew("b")
    full(made.net["b"])
    made.told("ab", (0, 1))
    made.calls("b", 1, 1, Kind.ALL_GATHER)
    made.clock.run(lambda: len(made.outcomes) == 3)
    emptied(made.net["b"])
    assert made.outcomes[1, 1][0] == made.outcomes[0, 0][0]


def test_a_refusal_at_the_root_is_told_to_who_gives_later_and_to_a_next_attempt(lab: Make) -> None:
    made = lab(1, "a", "b", "c")
    made.told("abc", (0, 0, 0))
    full(made.net["a"])
    made.calls("b", 1, 0, Kind.GATHER)  # it has given, and goes on
    made.calls("a", 0, 0, Kind.GATHER)
    made.clock.run(lambda: len(made.outcomes) == 2)
    emptied(made.net["a"])
    made.told("abc", (1, 1, 0))
    made.calls("a", 0, 1, Kind.GATHER)
    heard = made.net["c"].desk.calls
    made.clock.run(lambda: (0, 1) in made.outcomes and heard.refused(FIRST) is not None)
    made.calls("b", 1, 1, Kind.GATHER)
    made.calls("c", 2, 0, Kind.GATHER)
    made.clock.run(lambda: len(made.outcomes) == 5)
    refused = "ResourceExhaustionError"
    assert errors(made) == {
        (0, 0): refused,
        (0, 1): refused,
        (1, 0): "",
        (1, 1): "",
        (2, 0): refused,
    }


def test_a_value_that_a_node_takes_no_more_is_refused_to_all(lab: Make) -> None:
    """It never came to the plane; who waits for it hears why."""
    made = lab(1, "a", "b")
    made.told("ab", (0, 0))
    made.calls("a", 0, 0, Kind.ALL_GATHER, refusal="no room here")
    made.calls("b", 1, 0, Kind.ALL_GATHER)
    made.clock.run(lambda: len(made.outcomes) == 2)
    assert all("no room here" in answer[2] for answer in made.outcomes.values())


def straggler(lab: Make, kind: Kind) -> Lab:
    """Of two members the second one waits for what comes of the call, or what the first gave."""
    for seed in range(100):
        made = lab(seed, "a", "b")
        made.told("ab", (0, 0))
        for rank, node in enumerate("ab"):
            made.calls(node, rank, 0, kind, LARGE, root=int(kind is Kind.GATHER))
        made.clock.run(partial(_has_one_of, made.outcomes, {(0, 0)}, {(1, 0)}))
        if (1, 0) not in made.outcomes:
            return made
    raise AssertionError("it waited in none")


def lone_straggler(lab: Make) -> Lab:
    """Of three members the second alone waits for what comes of the call."""
    for seed in range(100):
        made = lab(seed, "a", "b", "c")
        made.told("abc", (0, 0, 0))
        for rank, node in enumerate("abc"):
            made.calls(node, rank, 0, Kind.ALL_GATHER, LARGE)
        made.clock.run(partial(_has_one_of, made.outcomes, {(0, 0), (2, 0)}, {(1, 0)}))
        if "a" in (source for source, _ in made.net["b"].expecting):
            return made
    raise AssertionError("none was left behind")


def _has_one_of(outcomes: Collection[Key], *wanted: set[Key]) -> bool:
    return any(one.issubset(outcomes) for one in wanted)
