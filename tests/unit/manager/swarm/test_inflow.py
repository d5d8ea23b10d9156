"""What nodes tell waits in order, in turns, and not without end."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from manta.manager.quotas.coming import Coming
from manta.manager.quotas.pace import ALL, REPORT, Pace
from manta.manager.swarm.events import NodeLost
from manta.manager.swarm.inflow import BOUND, BYTES, PIECE, Inflow
from manta.protocol.base import Instance
from manta.protocol.exchange import Contributed
from manta.protocol.node import (
    JournalBatch,
    LogBatch,
    LogLine,
    MetricsLogged,
    Progressed,
    ResultWritten,
)
from manta.protocol.values import Inline

AT = Instance("s", "worker", 0, 0)


def inflow_of(coming: Coming | None = None, owner: str = "ada", pace: Pace | None = None) -> Inflow:
    return Inflow("s", coming or Coming(1 << 40, 1 << 40), pace or Pace(), owner)


def entries(first: int, count: int, size: int = 1) -> JournalBatch:
    made = (ResultWritten(AT, str(first + n), Inline(b"x" * size)) for n in range(count))
    return JournalBatch("s", first, tuple(made))


def lines(first: int, count: int) -> LogBatch:
    made = (LogLine(AT, 0.0, "stdout", str(first + n)) for n in range(count))
    return LogBatch("s", first, tuple(made))


def taken(inflow: Inflow) -> list:
    found: list[tuple] = []
    while inflow:
        node_id, piece = inflow.take()
        if isinstance(piece, NodeLost):
            found.append((node_id, NodeLost, 0, 0))
            continue
        items = piece.entries if isinstance(piece, JournalBatch) else piece.lines
        found.append((node_id, type(piece), piece.first, len(items)))
    return found


def test_small_batches_are_joined_and_large_ones_cut() -> None:
    inflow = inflow_of()
    for number in range(1, 301):
        assert inflow.add("id1", entries(number, 1))
    assert taken(inflow) == [("id1", JournalBatch, 1, PIECE), ("id1", JournalBatch, 257, 44)]
    assert not inflow


def test_a_piece_of_large_entries_has_fewer() -> None:
    inflow = inflow_of()
    inflow.add("id1", entries(1, 40, 60_000))
    assert [count for *_, count in taken(inflow)] == [18, 18, 4]


def test_entries_and_lines_of_a_node_stay_in_order_and_nodes_take_turns() -> None:
    inflow = inflow_of()
    inflow.add("id1", lines(1, 2))
    inflow.add("id1", entries(1, 2))
    inflow.add("id1", lines(3, 600))
    inflow.add("id2", entries(1, 1))
    assert taken(inflow) == [
        ("id1", LogBatch, 1, 2),
        ("id2", JournalBatch, 1, 1),
        ("id1", JournalBatch, 1, 2),
        ("id1", LogBatch, 3, PIECE),
        ("id1", LogBatch, 3 + PIECE, PIECE),
        ("id1", LogBatch, 3 + 2 * PIECE, 600 - 2 * PIECE),
    ]


class Booked(Pace):
    """A pace at which nothing is taken at once, and that says what was booked."""

    def book(self, owner: str, seconds: float, now: float) -> float:
        return seconds


def test_a_piece_books_what_its_reports_cost_and_nothing_else() -> None:
    inflow = inflow_of(pace=Booked())
    inflow.add("id1", entries(1, 1000))
    assert inflow.book(0.0) == 0
    inflow.add("id2", lines(1, PIECE + 1))
    assert inflow.take()[0] == "id1"
    assert PIECE * REPORT < inflow.book(0.0) < 2 * PIECE * REPORT
    assert inflow.take()[0] == "id2"
    inflow.take()
    assert 0 < inflow.book(0.0) < 2 * REPORT, "one line is left"
    inflow.clear()
    metrics = MetricsLogged(AT, {"loss": 1.0}, 1, 0.0), Progressed(AT, 0.5, "", 0.0)
    inflow.add("id1", JournalBatch("s", 1, (*entries(1, 100).entries, *metrics)))
    assert 2 * REPORT < inflow.book(0.0) < 3 * REPORT
    inflow.lose(NodeLost("id1", "it is silent"))
    inflow.take()
    assert inflow.book(0.0) == 0, "the loss of a node is no report"


def test_long_lines_cost_more() -> None:
    short, long = inflow_of(pace=Booked()), inflow_of(pace=Booked())
    long.add("id1", LogBatch("s", 1, (LogLine(AT, 0.0, "stdout", "x" * 16_000),)))
    short.add("id1", lines(1, 1))
    assert long.book(0.0) > 10 * short.book(0.0)


def test_all_swarms_report_at_one_pace() -> None:
    pace = Pace()
    swarms = [inflow_of(pace=pace, owner=name) for name in ("ada", "bob")]
    for one in swarms:
        one.add("id1", lines(1, 10))
        assert one.book(0.0) == 0
    pace.book("bob", 2 * ALL.burst, 0.0)
    assert swarms[0].book(0.0) == 0, "she has reported little"
    while swarms[1].book(0.0) == 0:
        pass
    assert swarms[1].book(0.0) > 0


def test_what_is_sent_again_or_leaves_a_gap_or_is_empty_is_passed_on_as_it_is() -> None:
    inflow = inflow_of()
    for batch in (entries(1, 3), entries(1, 3), entries(9, 1), JournalBatch("s", 4, ())):
        assert inflow.add("id1", batch)
    assert [(first, count) for _, _, first, count in taken(inflow)] == [
        (1, 3),
        (1, 3),
        (9, 1),
        (4, 0),
    ]


def test_what_one_node_sends_beyond_its_bounds_is_left_out_and_others_are_not() -> None:
    inflow = inflow_of()
    for first in range(1, BOUND, 1000):
        assert inflow.add("id1", entries(first, 1000))
    assert not inflow.add("id1", entries(BOUND + 1, 1))
    assert inflow.add("id2", entries(1, 1))
    inflow.take()
    assert inflow.add("id1", entries(BOUND + 1, 1))
    large = inflow_of()
    assert large.add("id1", entries(1, BYTES // 2**16, 2**16))
    assert not large.add("id1", entries(BYTES // 2**16 + 1, 1, 2**16))
    while large:
        large.take()
    assert large.add("id1", entries(1, BYTES // 2**16, 2**16)), "all of it was counted out again"


def test_the_loss_of_a_node_waits_behind_what_it_said_and_before_what_it_says_later() -> None:
    inflow, lost = inflow_of(), NodeLost("id2", "it is silent")
    assert not inflow.lose(lost), "nothing waits: it can be handled at once"
    inflow.add("id1", entries(1, 300))
    inflow.add("id2", entries(1, 300))
    assert inflow.lose(lost)
    assert inflow.lose(lost)
    inflow.add("id2", entries(301, 1))
    assert taken(inflow) == [
        ("id1", JournalBatch, 1, PIECE),
        ("id2", JournalBatch, 1, PIECE),
        ("id1", JournalBatch, 257, 44),
        ("id2", JournalBatch, 257, 44),
        ("id2", NodeLost, 0, 0),
        ("id2", JournalBatch, 301, 1),
    ]


def test_all_swarms_together_have_so_much_waiting_and_those_of_an_owner_a_share() -> None:
    coming, size = Coming(50_000, 20_000), 5000
    swarms = [inflow_of(coming) for _ in range(9)]
    for inflow in swarms:  # each has one batch in any case
        assert inflow.add("id1", entries(1, 1, size))
    assert not swarms[0].add("id1", entries(2, 1, size))
    assert not swarms[0].add("id2", entries(1, 1, size))
    other = inflow_of(coming, "bob")
    assert other.add("id1", entries(1, 1, size))
    assert not other.add("id1", entries(2, 1, size)), "of all together"
    for inflow in swarms[3:]:
        inflow.take()
    assert other.add("id1", entries(2, 1, size))
    assert swarms[0].add("id1", entries(2, 1, 100))
    for inflow in (*swarms, other):
        inflow.clear()
        assert not inflow
    assert coming.all == 0


def test_what_is_small_or_has_a_long_name_counts_as_well() -> None:
    inflow = inflow_of(Coming(40_000, 40_000))
    small = [n for n in range(1, 1000) if inflow.add("id1", entries(n, 1))]
    assert small == list(range(1, len(small) + 1))
    assert len(small) < 80
    inflow = inflow_of(Coming(40_000, 40_000))
    assert inflow.add("id1", entries(1, 1))
    named = Contributed(AT, 0, "k" * 40_000)
    assert not inflow.add("id1", JournalBatch("s", 2, (named,)))


@given(
    st.lists(st.tuples(st.sampled_from(["id1", "id2"]), st.booleans(), st.integers(1, 700))),
    st.randoms(use_true_random=False),
)
def test_nothing_is_lost_or_comes_twice(batches: list, random) -> None:
    inflow = inflow_of()
    numbers: dict[tuple[str, bool], int] = {}
    got: dict[tuple[str, type], list] = {}

    def take() -> None:
        node_id, piece = inflow.take()
        assert isinstance(piece, JournalBatch | LogBatch)
        items = piece.entries if isinstance(piece, JournalBatch) else piece.lines
        told = got.setdefault((node_id, type(piece)), [])
        assert piece.first == len(told) + 1
        told += items

    for node_id, is_journal, count in batches:
        first = numbers.get((node_id, is_journal), 1)
        made = entries(first, count) if is_journal else lines(first, count)
        if inflow.add(node_id, made):
            numbers[node_id, is_journal] = first + count
        while inflow and random.random() < 0.3:
            take()
    while inflow:
        take()
    assert {
        (n, kind is JournalBatch): len(items) + 1 for (n, kind), items in got.items()
    } == numbers
