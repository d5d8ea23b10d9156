"""When a wait ends for want of time, and what looking at many of them costs."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from manta.transports.exchange.arrivals import Arrivals
from manta.transports.exchange.channels import Member
from manta.transports.exchange.letters import Attempt, Value
from manta.transports.exchange.messages import Flush, Flushed, Message
from manta.transports.exchange.waits import ROOM, Outlook, Wait, Waits

AT = Attempt(0, Member("t", 0), 0)


class Around:
    """Shell and names."""

    def __init__(self) -> None:
        self.told: list[Message] = []

    def tell(self, peer: str, message: Message) -> None:
        self.told.append(message)

    def release(self, value: Value) -> None:
        raise AssertionError

    arrived = release

    def settle(self, then: Callable[[], None]) -> None:
        raise AssertionError

    def name(self, peer: str) -> str:
        return f"node {peer}"

    def is_lost(self, peer: str) -> bool:
        return False


class Asked:
    def __init__(self) -> None:
        self.failures: list[tuple[str, str]] = []

    def answer(self, value: Value | None) -> None:
        raise AssertionError

    def fail(self, kind: str, sentence: str) -> None:
        self.failures.append((kind, sentence))


def waits() -> tuple[Waits, Around]:
    around = Around()
    return Waits("me", around, lambda: around), around


def wait(
    deadline: float = 9.0,
    topic: tuple[str, ...] = ("letter", "p", "t"),
    is_there: Callable[[], bool] = lambda: False,
    has_hope: Callable[[], bool] = lambda: True,
    outlook: Callable[[], Outlook] = lambda: Outlook("", "nothing has come."),
) -> tuple[Wait, Asked]:
    asked = Asked()
    return (
        Wait(
            asked,
            AT,
            5.0,
            deadline,
            topic,
            is_there,
            outlook,
            has_hope,
            peer="p",
            sources=lambda: ("p",),
        ),
        asked,
    )


@given(st.lists(st.tuples(st.sampled_from(["begin", "end", "tick"]), st.integers(0, 20))))
def test_each_ends_when_its_time_is_over_and_not_before(steps: list[tuple[str, int]]) -> None:
    waits_, _ = waits()
    open_: list[tuple[Wait, Asked]] = []
    for what, number in steps:
        if what == "begin":
            one = wait(float(number))
            open_.append(one)
            waits_.begin(one[0])
        elif what == "end" and open_:
            assert waits_.abandon(open_.pop(number % len(open_))[1])
        elif what == "tick":
            waits_.tick(float(number))
            for one in [one for one in open_ if one[0].deadline <= number]:
                assert len(one[1].failures) == 1
                open_.remove(one)
        assert waits_.due == min((one[0].deadline for one in open_), default=None)
        assert not any(asked.failures for _, asked in open_)
    assert len(waits_.all()) == len(open_)


def test_those_that_ended_long_before_their_time_are_not_kept() -> None:
    waits_, _ = waits()
    for _ in range(5_000):
        one, asked = wait()
        waits_.begin(one)
        waits_.abandon(asked)
    assert len(waits_._deadlines) < 2_000
    assert waits_.due is None


def test_no_sentence_is_built_for_a_wait_that_has_hope() -> None:
    def outlook() -> Outlook:
        raise AssertionError

    waits_, _ = waits()
    waits_.begin(wait(outlook=outlook)[0])
    waits_.look()
    waits_.wake("letter", "p", "t")


def test_a_wait_without_hope_ends_when_all_has_come_that_was_sent() -> None:
    waits_, around = waits()
    waits_.up.add("p")
    one, asked = wait(has_hope=lambda: False, outlook=lambda: Outlook("PeerLost", "it is gone."))
    waits_.begin(one)
    (flush,) = around.told
    assert isinstance(flush, Flush)
    assert asked.failures == []
    waits_.flushed("another", flush.number)  # which was not asked
    assert asked.failures == []
    waits_.flushed("p", flush.number)
    assert asked.failures == [("PeerLost", "it is gone.")]
    waits_.flushed("p", Flushed(flush.number).number)  # it is said twice


def test_only_a_peer_itself_says_that_all_has_come_to_it() -> None:
    numbers = {"p": 1, "q": 2}
    arrivals = Arrivals(numbers.__getitem__)
    arrivals.flush("p")
    arrivals.flushed("q", 1)
    assert arrivals.lacking(["p"]) == {"p"}
    arrivals.flushed("p", 1)
    assert arrivals.lacking(["p"]) == set()


def test_a_wait_that_ends_for_want_of_time_says_whether_there_was_a_link() -> None:
    waits_, _ = waits()
    one, asked = wait(deadline=1.0)
    waits_.begin(one)
    waits_.tick(1.0)
    why = "Waited 5 s in vain: nothing has come; no link to node p could be made."
    assert asked.failures == [("Timeout", why)]


def test_those_who_wait_for_room_are_tried_and_no_others() -> None:
    tried: list[str] = []

    def trying(name: str) -> Callable[[], bool]:
        def attempt() -> bool:
            tried.append(name)
            return len(tried) > 4

        return attempt

    waits_, _ = waits()
    for name, topic in (("a", (ROOM, "p", "a")), ("b", ("letter", "p", "t")), ("c", (ROOM, "q"))):
        waits_.begin(wait(topic=topic, is_there=trying(name))[0])
    tried.clear()
    waits_.wake_senders()
    assert tried == ["a", "c"]
    for _ in range(3):
        waits_.wake_senders()
    assert set(tried) == {"a", "c"}
    assert [one.topic for one in waits_.all()] == [("letter", "p", "t")]
