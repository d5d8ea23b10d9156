"""What may be on its way to a reader, and what is too much."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from manta.transports.zeromq.intake import Bounds, Intake, excess, overflow

BOUNDS = Bounds(window=10_000, message=4_000, seconds=5.0)


def look(intake: Intake, received: int, unread: int = 0, *, drained=True, passed=0.1) -> str:
    intake.look(received, unread, drained=drained, passed=passed)
    return intake.breach(BOUNDS)


def test_a_message_without_an_end_is_found_by_its_bytes() -> None:
    intake = Intake()
    assert look(intake, 4_000) == ""
    assert "without an end" in look(intake, 4_001)


def test_what_was_read_counts_no_more() -> None:
    intake = Intake()
    for received in range(0, 100_000, 4_000):
        intake.read += 1
        assert look(intake, received) == ""
    assert look(intake, received + 4_000) == ""
    assert "without an end" in look(intake, received + 4_001)


def test_what_the_system_holds_is_not_in_memory_but_on_its_way() -> None:
    intake = Intake()
    assert look(intake, 10_000, unread=7_000) == ""
    assert (intake.pending, intake.held) == (10_000, 3_000)
    assert "at once" in look(intake, 10_001, unread=7_000)


def test_whole_messages_that_wait_may_fill_the_window() -> None:
    """The reader is busy: what waits need not be one message."""
    intake = Intake()
    assert look(intake, 10_000, drained=False) == ""
    assert "at once" in look(intake, 10_001, drained=False)


def test_a_reader_that_never_catches_up_finds_what_was_sent_beyond_the_window() -> None:
    intake = Intake()
    received = 0
    for _ in range(100):  # an honest peer: no more than the window beyond what was read
        received += 9_000
        assert look(intake, received, drained=False) == ""
        intake.read += 9_000
    found = []
    for _ in range(3):
        received += 9_000
        intake.read += 4_000
        found.append(look(intake, received, drained=False))
    assert "at once" in found[-1]


def test_a_message_must_end_in_time() -> None:
    intake = Intake()
    for tick in range(50):
        assert look(intake, 60 * tick) == "", tick
    assert "did not end in 5 s" in look(intake, 3_000)


def test_heartbeats_of_an_idle_connection_are_no_message() -> None:
    intake = Intake()
    for tick in range(1, 80):
        assert look(intake, 45 * tick, passed=2.0) == ""


def test_a_peer_that_is_heard_has_all_the_time_again() -> None:
    intake = Intake()
    for tick in range(1, 500):
        if tick % 40 == 0:
            intake.read += 2_000
        assert look(intake, 60 * tick) == ""


def test_where_the_system_does_not_tell_nothing_is_wrong() -> None:
    intake = Intake()
    for _ in range(100):
        intake.read += 1_000_000
        assert look(intake, 0) == ""


@given(st.lists(st.integers(0, 100)), st.integers(0, 300))
def test_the_largest_go_until_the_rest_fit(sizes: list[int], total: int) -> None:
    gone = excess([(size, number) for number, size in enumerate(sizes)], total)
    left = [size for number, size in enumerate(sizes) if number not in gone]
    assert sum(left) <= total
    assert all(sizes[number] >= max(left, default=0) for number in gone)
    if gone:
        assert sum(left) + min(sizes[number] for number in gone) > total


@given(st.lists(st.lists(st.integers(0, 100), max_size=6), max_size=8), st.integers(0, 400))
def test_who_holds_most_loses_its_first_until_the_rest_fits(groups, total) -> None:
    named = [
        [(size, (who, at)) for at, size in enumerate(group)] for who, group in enumerate(groups)
    ]
    left, sums = sum(map(sum, groups)), [sum(group) for group in groups]
    taken = [0] * len(groups)
    for who, at in overflow(named, total):
        assert left > total
        assert sums[who] == max(sums)
        assert at == taken[who]
        taken[who] += 1
        sums[who] -= groups[who][at]
        left -= groups[who][at]
    assert left <= total


def test_of_what_was_not_read_is_idle_until_much_is_pending() -> None:
    intake = Intake()
    assert intake.is_idle()
    look(intake, 1_000)
    assert intake.is_idle()
    intake.read += 10
    assert not intake.is_idle()
    look(intake, 1_000)
    assert intake.is_idle()
    look(intake, 3_000)
    assert not intake.is_idle()


def test_what_is_pending_now_is_what_came_beyond_what_was_read() -> None:
    intake = Intake()
    intake.read += 5_000
    look(intake, 5_000)
    assert intake.pending_of(9_000) == 4_000
    intake.read += 3_000
    assert intake.pending_of(9_000) == 1_000
    intake.read += 3_000
    assert intake.pending_of(9_000) == 0
