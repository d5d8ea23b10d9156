"""Asking, telling, deferring, overflowing, and what becomes of it at the end of an actor."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import wait
from typing import Any

import pytest

from manta.actors import (
    Actor,
    ActorCrashed,
    ActorDead,
    ActorSystem,
    AskTimeout,
    ChildSpec,
    LocalRef,
    MailboxFull,
    MailboxPolicy,
    NameTaken,
    Refused,
    Reply,
    StartChild,
    Supervisor,
    Unanswered,
    WouldDeadlock,
)
from manta.testing import FakeClock, crash, run_for, settle, wait_for_successor


class Slow(Actor):
    """Blocks in its handler until it is let go."""

    mailbox = MailboxPolicy(bound=3)

    def __init__(self) -> None:
        self.replies: list[Reply] = []
        self.handled: list[Any] = []

    def receive(self, message: Any) -> Any:
        self.handled.append(message)
        match message:
            case threading.Event():
                message.wait(60)
            case "defer":
                self.replies.append(self.defer())
                return "ignored"
            case ("answer", value):
                self.replies.pop().set(value)
            case "refuse":
                raise Refused("no_room", "There is no room: come back later.", {"seats": 0})
            case "crash":
                raise ValueError("boom")
            case "handled":
                return [item for item in self.handled if isinstance(item, str)]
        return message


class Root(Supervisor):
    intensity = 100

    def children(self) -> list[ChildSpec]:
        return [ChildSpec("slow", Slow)]

    def receive(self, message: Any) -> Any:
        return message


@pytest.fixture
def system() -> Iterator[ActorSystem]:
    with ActorSystem("test") as system:
        system.spawn(ChildSpec("root", Root))
        yield system


def until_taken(ref: LocalRef) -> None:
    """What was sent is being handled from here on."""
    while len(ref._cell.inbox):
        time.sleep(0.001)


@pytest.fixture
def slow(system: ActorSystem) -> LocalRef:
    return system.find("root/slow")


def test_an_ask_is_answered(slow: LocalRef) -> None:
    assert slow.ask("hello", timeout=60) == "hello"
    assert slow.ask_future("hello", timeout=5).result() == "hello"


def test_a_refusal_reaches_the_asker_whole_and_harms_nobody(
    slow: LocalRef, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(Refused, match="no room") as refused:
        slow.ask("refuse", timeout=5)
    assert (refused.value.code, refused.value.data) == ("no_room", {"seats": 0})
    slow.tell("refuse")
    assert slow.ask("there?", timeout=60) == "there?"
    assert "refused str: There is no room" in caplog.text


def test_a_deferred_answer_comes_from_any_thread(slow: LocalRef) -> None:
    future = slow.ask_future("defer", timeout=5)
    slow.tell(("answer", 42))
    assert future.result() == 42
    slow.tell("defer")  # nobody waits: the answer goes nowhere
    slow.tell(("answer", 42))
    assert slow.ask("there?", timeout=60) == "there?"


def test_the_first_answer_counts(system: ActorSystem) -> None:
    said: list[bool] = []

    class Twice(Actor):
        def receive(self, message: Any) -> Any:
            reply = self.defer()
            said.extend([reply.set(1), reply.set(2), reply.fail(ValueError())])

    assert system.spawn(ChildSpec("twice", Twice)).ask("go", timeout=60) == 1
    assert said == [True, False, False]


@pytest.mark.parametrize("timeout", [-1, float("inf"), float("nan"), 1e9])
def test_a_timeout_is_a_number_of_seconds(slow: LocalRef, timeout: float) -> None:
    with pytest.raises(ValueError, match="A timeout is between"):
        slow.ask("hello", timeout=timeout)
    with pytest.raises(ValueError, match="A timeout is between"):
        slow.ask_future("hello", timeout=timeout)
    with pytest.raises(TypeError):
        slow.ask("hello")  # type: ignore[call-arg]


def test_an_ask_that_timed_out_is_not_carried_out_later(slow: LocalRef) -> None:
    gate = threading.Event()
    slow.tell(gate)
    with pytest.raises(AskTimeout, match=r"root/slow#\w+ did not answer within 0\.05 s"):
        slow.ask("late", timeout=0.05)
    with pytest.raises(AskTimeout):
        slow.ask_future("late too", timeout=0.05).result()
    gate.set()
    assert slow.ask("handled", timeout=60) == ["handled"]


def test_a_full_mailbox_is_an_error_to_the_sender_and_blocks_nobody(slow: LocalRef) -> None:
    gate = threading.Event()
    slow.ask("ready?", timeout=60)
    slow.tell(gate)
    until_taken(slow)
    for _ in range(3):
        slow.tell("x")
    with pytest.raises(MailboxFull, match="3 messages waiting"):
        slow.tell("x")
    with pytest.raises(MailboxFull):
        slow.ask("x", timeout=5)
    with pytest.raises(MailboxFull):
        slow.ask_future("x", timeout=5).result()
    gate.set()


@pytest.mark.parametrize("how", ["crash", "inject", "stop"])
def test_whoever_waits_is_told_of_the_end_at_once(slow: LocalRef, how: str) -> None:
    gate = threading.Event()
    deferred = slow.ask_future("defer", timeout=60)
    slow.ask("ready?", timeout=60)
    current = slow.ask_future(gate, timeout=60)
    until_taken(slow)
    if how == "crash":
        queued = [slow.ask_future("crash", timeout=60), slow.ask_future("queued", timeout=60)]
    else:
        queued = [slow.ask_future("queued", timeout=60)]
    if how == "inject":
        crash(slow)
    elif how == "stop":
        slow.stop()
    gate.set()
    _done, not_done = wait([deferred, current, *queued], timeout=60)
    assert not not_done
    assert current.result() is gate
    kind = Unanswered if how == "stop" else ActorCrashed
    assert type(deferred.exception()) is kind
    assert type(queued[-1].exception()) is ActorDead  # it was not carried out
    if how == "crash":
        with pytest.raises(ActorCrashed, match=r"root/slow#\w+ crashed: ValueError: boom"):
            queued[0].result()


def test_a_dead_incarnation_is_never_mistaken_for_its_successor(
    system: ActorSystem, slow: LocalRef
) -> None:
    crash(slow)
    successor = wait_for_successor(system, slow)
    assert successor.address.path == slow.address.path
    assert successor.address.incarnation != slow.address.incarnation
    for send in (slow.tell, lambda m: slow.ask(m, timeout=60)):
        with pytest.raises(ActorDead, match="is another incarnation"):
            send("for the first")
    assert isinstance(slow.ask_future("x", timeout=5).exception(), ActorDead)
    assert successor.ask("handled", timeout=60) == ["handled"]
    by_path = system.ref("root/slow")
    assert by_path.ask("for whoever lives", timeout=60) == "for whoever lives"
    assert by_path.ask_future("x", timeout=5).result() == "x"
    by_path.tell("x")


def test_a_path_where_nobody_lives(system: ActorSystem) -> None:
    by_path = system.ref("root/nobody")
    with pytest.raises(ActorDead, match="nobody lives at test:root/nobody"):
        by_path.tell("x")
    with pytest.raises(ActorDead):
        by_path.ask("x", timeout=1)
    assert isinstance(by_path.ask_future("x", timeout=1).exception(), ActorDead)


def test_no_blocking_ask_of_oneself_or_ones_supervisors(system: ActorSystem) -> None:
    seen: list[str] = []

    class Child(Actor):
        def receive(self, message: Any) -> Any:
            for path in ("root/child", "root"):
                try:
                    self.system.find(path).ask("x", timeout=60)
                except WouldDeadlock as error:
                    seen.append(str(error))
            return self.system.find("root").ask_future("x", timeout=5)

    child = system.find("root").ask(StartChild(ChildSpec("child", Child)), timeout=60)
    assert child.ask("go", timeout=60).result() == "x"
    assert len(seen) == 2
    assert "use ask_future" in seen[0]


def test_two_systems_in_one_process_do_not_disturb_each_other() -> None:
    with ActorSystem("one") as one, ActorSystem("two") as two:
        first, second = (each.spawn(ChildSpec("same", Slow)) for each in (one, two))
        assert first != second
        crash(first, SystemExit(1))
        assert first.wait(60) is not None
        one.stop()
        assert second.ask("there?", timeout=60) == "there?"


def test_a_name_is_taken_once(system: ActorSystem) -> None:
    with pytest.raises(NameTaken, match="lives already"):
        system.spawn(ChildSpec("root", Slow))


def test_a_stopping_system_takes_no_more_roots() -> None:
    system = ActorSystem("test")
    system.stop()
    with pytest.raises(ActorDead, match="is stopping"):
        system.spawn(ChildSpec("late", Slow))


def test_stop_overtakes_what_waits(slow: LocalRef, caplog: pytest.LogCaptureFixture) -> None:
    gate = threading.Event()
    slow.tell(gate)
    until_taken(slow)
    slow.tell("never")
    slow.stop()
    gate.set()
    assert slow.wait(60) is not None
    assert "messages unread" in caplog.text


class Ticker(Actor):
    def on_start(self) -> None:
        self.ticks: list[float] = []
        self.after(1.0, "tick")
        self.doomed = self.after(2.5, "never")

    def receive(self, message: Any) -> Any:
        match message:
            case "tick":
                self.ticks.append(self.clock.now())
                self.after(1.0, "tick")
                if self.clock.now() == 2.0:
                    self.doomed.cancel()
            case "ticks":
                return self.ticks
            case "never":
                raise AssertionError("it was cancelled")
        return None


def test_timers_follow_the_injected_clock() -> None:
    clock = FakeClock()
    before = threading.active_count()
    with ActorSystem("test", clock=clock) as system:
        ticker = system.spawn(ChildSpec("ticker", Ticker))
        assert threading.active_count() == before + 1
        run_for(5.0, system)
        assert ticker.ask("ticks", timeout=60) == [1.0, 2.0, 3.0, 4.0, 5.0]
        assert clock.now() == 5.0
        future = ticker.ask_future("defer", timeout=5)
        assert future.result() is None
        run_for(100.0, system)
        assert len(ticker.ask("ticks", timeout=60)) == 105


def test_a_future_expires_on_the_injected_clock() -> None:
    clock = FakeClock()
    with ActorSystem("test", clock=clock) as system:
        slow = system.spawn(ChildSpec("slow", Slow))
        future = slow.ask_future("defer", timeout=300)
        run_for(299, system)
        assert not future.done()
        run_for(1, system)
        assert isinstance(future.exception(0), AskTimeout)


def test_settle_says_who_is_busy(slow: LocalRef, system: ActorSystem) -> None:
    gate = threading.Event()
    slow.tell(gate)
    with pytest.raises(TimeoutError, match="root/slow"):
        settle(system, timeout=0.05)
    gate.set()


class Herald(Actor):
    """Notifies whom it is told to, and answers whether it was taken."""

    def receive(self, message: Any) -> Any:
        return self.notify(*message)


def test_a_notification_is_a_tell_by_reference_or_path(system: ActorSystem, slow: LocalRef) -> None:
    herald = system.spawn(ChildSpec("herald", Herald))
    for number, target in enumerate((slow, "root/slow", system.ref("root/slow"))):
        assert herald.ask((target, f"news {number}"), timeout=60)
        assert f"news {number}" in slow.ask("handled", timeout=60)


def test_a_notification_that_nobody_takes_is_no_error(
    system: ActorSystem, slow: LocalRef, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    herald = system.spawn(ChildSpec("herald", Herald))
    gate = threading.Event()
    slow.tell(gate)
    until_taken(slow)
    for _ in range(3):
        slow.tell("x")
    assert not herald.ask((slow, "one too many"), timeout=5)
    assert "herald: str was not delivered: test:root/slow" in caplog.text
    gate.set()
    crash(slow)
    slow.wait(60)
    assert not herald.ask((slow, "for the dead"), timeout=5)
    assert not herald.ask(("root/nobody", "anyone?"), timeout=5)
    assert "nobody lives at test:root/nobody" in caplog.text
