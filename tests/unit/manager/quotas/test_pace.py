"""Reports have a share of a core, and no more."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manta.manager.quotas import pace as quotas_pace
from manta.manager.quotas.pace import ALL, LITTLE, Pace, cost

PIECE = 256 * cost(100)


def flooded(owner: str, now: float) -> Pace:
    """A pace at which the owner has taken all that is taken at once."""
    pace = Pace()
    while pace.book(owner, PIECE, now) == 0:
        pass
    return pace


def test_ten_thousand_lines_and_a_thousand_metrics_are_taken_as_they_come() -> None:
    pace = Pace()
    assert {pace.book("ada", 256 * cost(150), 5.0) for _ in range(40)} == {0.0}
    assert pace.book("ada", 1000 * cost(150), 5.0) == 0.0


def test_beyond_that_pieces_come_at_the_share() -> None:
    pace = Pace()
    delays = [pace.book("ada", PIECE, 5.0) for _ in range(1000)]
    at_once = delays.count(0.0)
    assert at_once * PIECE < ALL.burst + LITTLE.burst + 2 * PIECE
    for earlier, later in zip(delays[at_once:], delays[at_once + 1 :], strict=False):
        assert later - earlier == pytest.approx(PIECE / ALL.a_second)


def test_swarms_that_flood_take_turns() -> None:
    pace, now = flooded("ada", 5.0), 5.0
    due = [(now + pace.book("ada", PIECE, now), swarm) for swarm in range(10)]
    taken = list[int]()
    for _ in range(1000):  # each books its next piece when it takes one
        due.sort()
        now, swarm = due.pop(0)
        taken.append(swarm)
        due.append((now + pace.book("ada", PIECE, now), swarm))
    assert all(90 < taken.count(swarm) < 110 for swarm in range(10))


def test_whose_tasks_report_little_do_not_wait_for_those_who_flood() -> None:
    now, pace = 5.0, flooded("ada", 5.0)
    pace.book("ada", 1000.0, now)
    assert pace.book("ada", cost(20), now) > 3000
    for _ in range(1000):
        now += 1.0
        assert pace.book("bob", 100 * cost(100), now) == 0


def test_nobody_takes_much_at_once_while_others_flood() -> None:
    pace = flooded("ada", 5.0)
    taken = 0.0
    while pace.book("bob", PIECE, 5.0) == 0:
        taken += PIECE
    assert 0 < taken < LITTLE.burst + 2 * PIECE


def test_what_costs_nothing_is_not_paced() -> None:
    pace = flooded("ada", 5.0)
    assert pace.book("ada", 0.0, 5.0) == 0.0


def test_who_took_nothing_lately_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quotas_pace, "OWNERS", 10)
    pace, now = flooded("ada", 5.0), 5.0
    pace.book("ada", 1000.0, now)
    for number in range(1000):
        now += 0.5
        assert pace.book(str(number), cost(20), now) == 0
    assert len(pace._due_of) <= 10


@given(st.lists(st.tuples(st.floats(0, 3), st.floats(0.001, 0.1)), max_size=60))
def test_never_more_than_the_share_and_a_burst(asked: list[tuple[float, float]]) -> None:
    """However long nobody reported before."""
    pace, now, taken = Pace(), 100.0, []
    for pause, seconds in asked:
        now += pause
        taken.append((now + pace.book("ada", seconds, now), seconds))
    burst, share = ALL.burst + LITTLE.burst, ALL.a_second + LITTLE.a_second
    for first, (begin, _) in enumerate(taken):
        used = 0.0
        for at, seconds in sorted(taken[first:]):
            if at >= begin:
                assert used <= burst + share * (at - begin) + 0.2 + 1e-6
                used += seconds
