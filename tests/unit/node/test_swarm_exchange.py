"""What a swarm's attempts on a node exchange, whatever comes first: they, their roster or another
timeline."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from manta.node.peers.directory import DirectoryChanged
from manta.node.peers.known import KnownPeers
from manta.node.plane import swarm
from manta.node.plane.requests import (
    FindNode,
    HearBroadcast,
    PlaneRequest,
    ReceiveLetter,
    ReturnLetters,
    SayToAll,
    SendLetter,
)
from manta.node.plane.spool import Timeline
from manta.node.plane.swarm import PATIENCE, SwarmExchange
from manta.protocol.base import Instance
from manta.protocol.peers import Peer
from manta.protocol.roster import Roster, RosterInstance, RosterTask
from manta.protocol.spec import NetworkSpec
from manta.transports.exchange import messages
from manta.transports.exchange.kept import Kept
from manta.transports.exchange.letters import Value

NET = {"n": NetworkSpec("n", "full")}
RECEIVE = ReceiveLetter(n=1, source="A", tag="t", number=0, timeout=5.0)
SEND = SendLetter(n=1, to="A", tag="t", value=b"", timeout=5.0)
SAY = SayToAll(n=1, tag="t", value=b"")
HEAR = HearBroadcast(n=1, tag="t", timeout=5.0)


class Asked:
    def __init__(self, at: Instance, body: PlaneRequest, value: Value | None, now: float) -> None:
        self.at, self.body, self.value = at, body, value
        self.until = now + getattr(body, "timeout", math.inf)
        self._outcomes: list[tuple[str, Any]] = []

    @property
    def outcome(self) -> Any:
        """Its answer, or the kind of error and its sentence; None if there is none yet."""
        return self._outcomes[0] if self._outcomes else None

    @property
    def waits(self) -> bool:
        return not self._outcomes

    def _end(self, outcome: tuple[str, Any]) -> None:
        assert not self._outcomes
        self._outcomes.append(outcome)

    def tell(self, plain: str | None) -> None:
        self._end(("plain", plain))

    def answer(self, value: Value | None) -> None:
        self._end(("value", value))

    def fail(self, kind: str, sentence: str) -> None:
        self._end((kind, sentence))


class Node:
    """The exchange of the node A, with B and C linked."""

    def __init__(self, epoch: str = "e", known: bool = True) -> None:
        self.known = KnownPeers()
        self.told: list[tuple[str, messages.Message]] = []
        self.calls: list[Callable[[], None]] = []
        self.epoch = epoch
        if known:
            peers = tuple(Peer(name, name.lower(), f"key-{name}") for name in "ABC")
            self.known.apply(DirectoryChanged("s", epoch, True, peers))
        self.swarm = SwarmExchange("s", "A", self.known, self)

    def ask(
        self, at: Instance, body: PlaneRequest, value: Value | None = None, now: float = 0.0
    ) -> Asked:
        asked = Asked(at, body, value, now)
        self.swarm.ask(asked, now)
        return asked

    def enroll(
        self,
        *placed: str,
        iteration: int = 0,
        network: str | None = None,
        now: float = 0.0,
        of_a: tuple[int, str] = (0, "RUNNING"),
    ) -> None:
        """Task a on A, whose attempt and state are `of_a`, and a member of b on each of these."""
        first = RosterInstance(0, "A", "a", *of_a)
        others = tuple(RosterInstance(at, on, on, 0, "RUNNING") for at, on in enumerate(placed))
        tasks = {
            "a": RosterTask("a", "RUNNING", 1, network=network, instances=(first,)),
            "b": RosterTask("b", "RUNNING", 3, (), False, False, True, network, others),
        }
        roster = Roster(self.epoch, iteration, tasks, NET if network else {})
        self.swarm.roster_changed(roster, Timeline("s", self.epoch), now)

    def said_to(self, peer: str) -> list[Value]:
        told, self.told = self.told, []
        found = [one for to, one in told if to == peer]
        return [one.value for one in found if isinstance(one, messages.SentBroadcast)]

    # --- Outside ----------------------------------------------------------------------------

    def tell(self, swarm_id: str, peer: str, message: messages.Message) -> None:
        self.told.append((peer, message))

    def release(self, value: Value) -> None:
        pass

    def arrived(self, swarm_id: str, value: Value) -> None:
        pass

    def is_up(self, swarm_id: str, peer: str) -> bool:
        return True

    def soon(self, call: Callable[[], None]) -> None:
        self.calls.append(call)

    def restored(self, timeline: Timeline) -> list[Kept]:
        return []

    def keep(self, timeline: Timeline, kept: Kept, then: Callable[[], object]) -> None:
        then()

    def keep_only(
        self, timeline: Timeline, still: Sequence[Kept], then: Callable[[], object]
    ) -> None:
        then()


def attempt(alias: str = "a", iteration: int = 0, rank: int = 0) -> Instance:
    return Instance("s", alias, rank, iteration, 0)


def test_a_member_that_is_placed_after_a_broadcast_is_told_it() -> None:
    node = Node()
    node.enroll(network="n")
    node.swarm.begin(attempt())
    node.ask(attempt(), SAY, b"said")
    assert node.said_to("C") == []
    node.enroll("C", network="n")
    assert node.said_to("C") == [b"said"]
    node.enroll("B", "C", network="n")  # the next attempt of the one on C is on B
    assert node.said_to("B") == [b"said"]


def test_what_is_said_by_a_task_that_the_roster_does_not_have_yet_is_told_with_the_next() -> None:
    node = Node()
    node.enroll("B")
    at = attempt("late", iteration=1)
    node.swarm.begin(at)
    asked = node.ask(at, SAY, b"said")
    assert node.said_to("B") == []
    assert asked.waits
    instances = (RosterInstance(0, "A", "a", 0, "RUNNING"),)
    task = RosterTask("late", "RUNNING", 1, instances=instances)
    roster = Roster("e", 1, {"late": task}, {})
    node.swarm.roster_changed(roster, Timeline("s", "e"), 0.0)
    assert asked.outcome == ("value", None)
    assert node.said_to("B") == [b"said"]


@pytest.mark.parametrize("body", [SEND, RECEIVE, HEAR])
def test_a_request_waits_no_longer_for_its_roster_than_it_may(body: PlaneRequest) -> None:
    node = Node()
    node.swarm.begin(attempt())
    asked = node.ask(attempt(), body, b"1" if body is SEND else None, now=10.0)
    assert node.swarm.due == 15.0
    node.swarm.tick(14.9)
    assert asked.waits
    node.swarm.tick(15.0)
    kind, sentence = asked.outcome
    assert kind == "Timeout"
    assert "Waited 5 s in vain: the node was not told yet who takes part" in sentence
    assert node.swarm.due is None


def test_what_has_no_time_of_its_own_waits_for_a_roster_so_long_and_rosters_give_it_no_more() -> (
    None
):
    node = Node()
    node.swarm.begin(attempt("late"))
    asked = node.ask(attempt("late"), SAY, b"1", now=10.0)
    assert node.swarm.due == 10.0 + PATIENCE
    node.enroll("B", now=200.0)
    assert node.swarm.due == 10.0 + PATIENCE
    node.swarm.tick(10.0 + PATIENCE)
    assert asked.outcome[0] == "Timeout"


def test_a_request_that_waited_for_its_roster_has_the_rest_of_its_time() -> None:
    node = Node()
    node.swarm.begin(attempt())
    asked = node.ask(attempt(), RECEIVE, now=10.0)
    node.enroll("B", now=14.0)
    assert node.swarm.due == 15.0
    node.swarm.tick(15.0)
    assert asked.outcome[0] == "Timeout"


def test_a_request_that_is_asked_again_has_no_more_time_than_before() -> None:
    node = Node()
    node.enroll("B")
    node.swarm.begin(attempt())
    asked = node.ask(attempt(), RECEIVE, now=10.0)
    node.swarm.abandon(asked)
    node.swarm.ask(asked, 14.0)
    assert node.swarm.due == 15.0


def test_the_first_of_many_that_wait_for_a_roster_ends_first() -> None:
    node = Node()
    node.swarm.begin(attempt())
    asked = [node.ask(attempt(), RECEIVE, now=float(now)) for now in (3, 1, 2)]
    node.swarm.abandon(asked[1])
    node.swarm.tick(6.5)
    node.swarm.tick(7.0)
    assert [one.waits for one in asked] == [True, True, False]
    assert node.swarm.due == 8.0


def test_too_many_that_wait_for_a_roster_are_refused_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(swarm, "MOST_EARLY", 2)
    node = Node()
    node.swarm.begin(attempt())
    asked = [node.ask(attempt(), RECEIVE) for _ in range(3)]
    assert [one.waits for one in asked] == [True, True, False]
    kind, sentence = asked[2].outcome
    assert kind == "ResourceExhaustionError"
    assert "try again" in sentence


def test_a_name_is_found_without_a_roster_and_what_was_not_given_is_not_waited_for() -> None:
    node = Node()
    node.swarm.begin(attempt())
    assert node.ask(attempt(), FindNode(n=1, name="b")).outcome == ("plain", "B")
    assert Node(known=False).ask(attempt(), FindNode(n=1, name="b")).outcome[0] == "SwarmStopped"
    given_back = ReturnLetters(n=1, source="B", tag="t", received=0)
    assert node.ask(attempt(), given_back).outcome == ("value", None)


def test_attempts_that_came_before_their_timeline_go_on_in_it() -> None:
    node = Node()
    node.enroll("B")
    spoke, silent, waits = attempt(), attempt("b"), attempt("late")
    for at in (spoke, silent, waits):
        node.swarm.begin(at)
    node.ask(spoke, SAY, b"of before")
    receiving = node.ask(spoke, RECEIVE)
    waiting = node.ask(waits, HEAR, now=1.0)
    former, node.epoch = node.swarm, "e2"
    node.swarm = SwarmExchange("s", "A", node.known, node)
    assert node.swarm.take_over(former, 2.0) == [spoke]
    former.close()
    assert receiving.outcome[0] == "SwarmStopped"
    assert waiting.waits
    assert node.swarm.due == 6.0
    assert node.ask(spoke, RECEIVE).outcome[0] == "SwarmStopped"
    node.enroll("A")
    sent = node.ask(silent, SEND, b"1")
    assert sent.outcome == ("value", None)
    assert node.ask(silent, RECEIVE).outcome == ("value", b"1")


def test_an_attempt_of_a_past_iteration_waits_until_it_is_ended_or_its_timeline_comes() -> None:
    node = Node()
    node.enroll("B", iteration=5)
    first, second = attempt(), attempt("b")
    for at in (first, second):
        node.swarm.begin(at)
    asked = [node.ask(at, SEND, b"1", now=1.0) for at in (first, second)]
    node.enroll("B", iteration=6)
    assert [one.outcome for one in asked] == [None, None]
    node.swarm.end(first, counts=False, then=lambda: None)
    assert asked[0].outcome[0] == "SwarmStopped"
    former, node.epoch = node.swarm, "e2"
    node.swarm = SwarmExchange("s", "A", node.known, node)
    assert node.swarm.take_over(former, 2.0) == []
    former.close()
    node.enroll("A")
    assert asked[1].outcome == ("value", None)


@pytest.mark.parametrize("of_a", [(0, "FINISHED"), (1, "RUNNING")])
def test_so_does_one_that_the_roster_says_is_over(of_a: tuple[int, str]) -> None:
    node = Node()
    node.enroll("B", of_a=of_a)
    node.swarm.begin(attempt())
    assert node.ask(attempt(), SEND, b"1").waits


def test_so_does_one_that_begins_again_after_its_end() -> None:
    node = Node()
    node.enroll("B")
    node.swarm.begin(attempt())
    assert node.ask(attempt(), SEND, b"1").outcome == ("value", None)
    node.swarm.end(attempt(), counts=False, then=lambda: None)
    node.swarm.begin(attempt())
    asked = node.ask(attempt(), SEND, b"1")
    assert asked.waits
    node.swarm.end(attempt(), counts=False, then=lambda: None)
    assert asked.outcome[0] == "SwarmStopped"


def test_one_that_ended_before_anything_was_known_may_begin_again() -> None:
    node = Node()
    node.swarm.begin(attempt())
    node.swarm.end(attempt(), counts=False, then=lambda: None)
    node.swarm.begin(attempt())
    node.enroll("B")
    assert node.ask(attempt(), SEND, b"1").outcome == ("value", None)


def test_an_attempt_of_the_next_iteration_receives_each_letter_once() -> None:
    """It ends before the roster tells of it; that of the iteration before has another attempt."""
    node = Node()
    node.enroll("B", of_a=(1, "FINISHED"))
    node.swarm.begin(attempt(iteration=1))
    node.swarm.handle("B", messages.SentLetter(1, "b", 0, "t", 0, b"hello"))
    receive = ReceiveLetter(n=1, source="B", tag="t", number=0, timeout=5.0)
    assert node.ask(attempt(iteration=1), receive).outcome == ("value", b"hello")
    node.swarm.end(attempt(iteration=1), counts=True, then=lambda: None)
    node.enroll("B", iteration=1)
    node.enroll("B", iteration=2)
    node.swarm.begin(attempt(iteration=2))
    assert node.ask(attempt(iteration=2), receive).waits
