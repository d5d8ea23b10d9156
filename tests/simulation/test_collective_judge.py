"""The judge of a simulation of collectives: one that accepts everything proves nothing."""

from __future__ import annotations

from typing import Any

import pytest

from manta.node.plane.collectives.losses import LOST
from manta.protocol.base import Instance
from manta.protocol.roster import Roster, RosterInstance, RosterTask
from manta.protocol.states import AttemptState
from manta.transports.collectives.calls import Kind
from tests.simulation.collective_judge import FINISHED, Judge
from tests.simulation.collective_programs import Outcome, Planned
from tests.simulation.network import SWARM, Clock

RUNNING = AttemptState.RUNNING
ALL = Planned(Kind.ALL_REDUCE, 0, False, "int32", 1)
CONTINUES = Planned(Kind.ALL_REDUCE, 0, True, "int32", 1)
GATHER = Planned(Kind.GATHER, 0, False, "int32", 1)


class Desk:
    roster: Roster | None = None


class Plane:
    """Stands for one of that name, with a roster."""

    def __init__(self, name: str) -> None:
        self.name, self.desk = name, Desk()


class Case:
    """Members 0 and 1 on `a`, member 2 on `b`, which all have made call 0."""

    def __init__(self) -> None:
        self.era = 0
        self.places = ["a", "a", "b"]
        self.numbers = [0, 0, 0]
        self.states = [RUNNING] * 3
        self.given_up: dict[int, str] = {}
        self.planes: dict[str, Any] = {name: Plane(name) for name in "ab"}
        self.judge = Judge(Clock(1), self)
        self.tell("a", "b")
        for rank in range(3):
            self.asks(rank)

    def counts(self, at: Instance) -> bool:
        return self.has_result(at) and not self.states[at.index].final

    def has_result(self, at: Instance) -> bool:
        return at.attempt == self.numbers[at.index]

    def tell(self, *names: str) -> None:
        instances = tuple(
            RosterInstance(rank, place, place, number, RUNNING)
            for rank, (place, number) in enumerate(zip(self.places, self.numbers, strict=True))
        )
        for name in names:
            task = RosterTask("t", "RUNNING", 3, instances=instances)
            self.planes[name].desk.roster = Roster("e", 0, {"t": task}, {})

    def again(self, rank: int, place: str) -> None:
        before, self.places[rank] = self.places[rank], place
        self.numbers[rank] += 1
        if before != place:
            self.judge.moves(rank, before)

    def at(self, rank: int, attempt: int | None = None) -> Instance:
        return Instance(SWARM, "t", rank, 0, self.numbers[rank] if attempt is None else attempt)

    def asks(self, rank: int) -> None:
        self.judge.asks(self.at(rank), 0, self.planes[self.places[rank]])

    def answered(
        self, rank: int, *given: tuple[int, int], lost: tuple[int, ...] = (), planned: Planned = ALL
    ) -> None:
        """`given`: rank and attempt."""
        outcome = Outcome((repr(given).encode(),), lost, given)
        self.judge.answered(self.at(rank), 0, planned, self.planes[self.places[rank]], outcome)

    def failed(
        self, rank: int, sentence: str, planned: Planned = ALL, attempt: int | None = None
    ) -> None:
        plane, at = self.planes[self.places[rank]], self.at(rank, attempt)
        self.judge.failed(at, 0, planned, plane, f"PeerLost: {sentence}")


WAITS = f"all_reduce waits for t.2 on b ({LOST}) in vain."
ALL_GIVE = (0, 0), (1, 0), (2, 0)


@pytest.fixture
def case() -> Case:
    return Case()


def test_a_loss_that_happened_may_be_told(case: Case) -> None:
    case.judge.node_lost("b", for_good=False)
    case.again(2, "a")
    case.failed(0, WAITS)


@pytest.mark.parametrize(
    "sentence",
    [
        WAITS,
        "all_reduce waits in vain.",
        f"all_reduce waits for t.2 on b ({FINISHED}) in vain.",
        "all_reduce goes on without t.0 on a: others have lost its node.",
    ],
)
def test_a_loss_is_told_only_if_one_happened(case: Case, sentence: str) -> None:
    with pytest.raises(AssertionError):
        case.failed(0, sentence)


@pytest.mark.parametrize(
    "sentence",
    [
        f"all_reduce waits for t.1 on a ({LOST}) in vain.",
        f"all_reduce waits for t.2 on a ({LOST}) in vain.",
        f"all_reduce waits for t.2 on b ({FINISHED}) in vain.",
        f"all_reduce waits for t.1 on a ({LOST}), t.2 on b ({LOST}) in vain.",
    ],
)
def test_it_names_the_member_that_was_lost_and_nobody_else(case: Case, sentence: str) -> None:
    case.judge.node_lost("b", for_good=False)
    with pytest.raises(AssertionError, match="was not lost"):
        case.failed(0, sentence)


def test_a_call_that_is_made_where_the_next_attempt_is_known_saw_no_loss(case: Case) -> None:
    case.judge.node_lost("b", for_good=False)
    case.again(2, "a")
    case.tell("a")
    case.again(0, "a")
    case.asks(0)
    with pytest.raises(AssertionError, match="was not lost"):
        case.failed(0, WAITS)


def test_a_call_that_goes_on_tells_of_no_loss_unless_it_was_begun_anew(case: Case) -> None:
    case.judge.node_lost("b", for_good=True)
    with pytest.raises(AssertionError, match="goes on without whoever is lost"):
        case.failed(0, WAITS, CONTINUES)
    case.answered(0, (0, 0), (1, 0), lost=(2,), planned=CONTINUES)


def test_an_outcome_is_without_a_member_only_if_the_call_goes_on_and_that_was_lost(
    case: Case,
) -> None:
    with pytest.raises(AssertionError, match="not all were lost"):
        case.answered(0, (0, 0), (1, 0), lost=(2,), planned=CONTINUES)
    case.judge.node_lost("b", for_good=True)
    with pytest.raises(AssertionError, match="goes on without"):
        case.answered(0, (0, 0), (1, 0), lost=(2,))


def test_all_get_the_same(case: Case) -> None:
    case.answered(0, *ALL_GIVE)
    case.again(2, "b")
    case.asks(2)
    with pytest.raises(AssertionError, match="got of call 0 what"):
        case.answered(2, (0, 0), (1, 0), (2, 1))


def test_what_a_plane_gave_that_was_lost_is_no_measure(case: Case) -> None:
    case.answered(2, *ALL_GIVE)
    case.judge.node_lost("b", for_good=False)
    case.again(2, "a")
    case.asks(2)
    case.answered(0, (0, 0), (1, 0), (2, 1))


def test_a_value_is_of_an_attempt_that_made_the_call(case: Case) -> None:
    with pytest.raises(AssertionError, match="never made call 0"):
        case.answered(0, (0, 0), (1, 0), (2, 1))


def test_a_member_gives_once(case: Case) -> None:
    case.answered(1, *ALL_GIVE, planned=GATHER)
    case.again(1, "a")
    case.asks(1)
    with pytest.raises(AssertionError, match="gave twice"):
        case.answered(0, (0, 0), (1, 1), (2, 0), planned=GATHER)


def test_what_a_plane_has_it_gives(case: Case) -> None:
    case.answered(0, *ALL_GIVE)
    case.judge.node_lost("b", for_good=False)
    with pytest.raises(AssertionError, match="it is there"):
        case.failed(1, WAITS)


def test_an_attempt_that_was_replaced_may_be_left_out(case: Case) -> None:
    sentence = "all_reduce goes on without t.2 on b: others have lost its node."
    case.again(2, "b")
    case.failed(2, sentence, attempt=0)
    case.asks(2)
    with pytest.raises(AssertionError, match="was never lost"):
        case.failed(2, sentence)
