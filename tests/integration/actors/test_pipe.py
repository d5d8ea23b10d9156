"""What an actor does in its own thread once a future is done."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any

import pytest

from manta.actors import (
    Actor,
    ActorCrashed,
    ActorSystem,
    AskTimeout,
    ChildSpec,
    LocalRef,
    MailboxPolicy,
    Refused,
    Reply,
    Supervisor,
)
from manta.testing import FakeClock, run_for, settle


class Waiting(Actor):
    """Pipes the futures that it is told, and says what came of them."""

    mailbox = MailboxPolicy(bound=4)

    def __init__(self, heard: list[Any]) -> None:
        self.heard = heard

    def receive(self, message: Any) -> Any:
        match message:
            case Future():
                self.pipe(message, self.done)
            case ("ask", future):
                reply = self.defer()
                self.pipe(future, lambda value: self.answer(value, reply), reply=reply)
            case ("then", future, then):
                self.pipe(future, then)
            case threading.Event():
                message.wait(60)
            case _:
                self.heard.append(message)

    def done(self, value: Any, error: BaseException | None) -> None:
        self.heard.append((value, error, threading.current_thread().name, self.origin))

    def answer(self, value: Any, reply: Reply) -> None:
        if value == "refuse":
            raise Refused("no", "No: ask for less.")
        if value == "crash":
            raise ValueError("boom")
        reply.set(value)


@pytest.fixture
def heard() -> list[Any]:
    return []


@pytest.fixture
def system() -> Iterator[ActorSystem]:
    with ActorSystem("test", clock=FakeClock()) as system:
        yield system


@pytest.fixture
def actor(system: ActorSystem, heard: list[Any]) -> LocalRef:
    return system.spawn(ChildSpec("waiting", lambda: Waiting(heard)))


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def test_a_result_arrives_in_the_actors_own_thread(
    system: ActorSystem, actor: LocalRef, heard: list[Any]
) -> None:
    future: Future[int] = Future()
    actor.tell(future)
    settle(system)
    assert heard == []
    future.set_result(7)
    settle(system)
    assert heard == [(7, None, "waiting", None)]


def test_a_future_that_was_done_before_is_told_of_too(
    system: ActorSystem, actor: LocalRef, heard: list[Any]
) -> None:
    future: Future[None] = Future()
    future.set_result(None)
    actor.tell(future)
    settle(system)
    assert heard == [(None, None, "waiting", None)]


@pytest.mark.parametrize("cancelled", [False, True])
def test_an_error_is_handed_over(
    system: ActorSystem, actor: LocalRef, heard: list[Any], cancelled: bool
) -> None:
    future: Future[int] = Future()
    actor.tell(future)
    settle(system)
    if cancelled:
        assert future.cancel()
    else:
        future.set_exception(KeyError("x"))
    settle(system)
    [(value, error, *_)] = heard
    assert value is None
    assert type(error) is (CancelledError if cancelled else KeyError)


def test_the_outcome_waits_its_turn_and_is_counted(
    system: ActorSystem, actor: LocalRef, heard: list[Any]
) -> None:
    future: Future[int] = Future()
    gate = threading.Event()
    actor.tell(future)
    settle(system)
    actor.tell(gate)
    actor.tell("before")
    future.set_result(1)
    actor.tell("after")
    assert next(node.waiting for node in system.tree()) >= 3
    with pytest.raises(TimeoutError, match="waiting"):
        settle(system, timeout=0.05)
    gate.set()
    settle(system)
    assert heard == ["before", (1, None, "waiting", None), "after"]


def test_a_full_mailbox_loses_no_outcome(
    system: ActorSystem, actor: LocalRef, heard: list[Any]
) -> None:
    futures: list[Future[int]] = [Future() for _ in range(20)]
    for future in futures:
        actor.tell(future)
        settle(system)
    gate = threading.Event()
    actor.tell(gate)
    for number, future in enumerate(futures):
        future.set_result(number)
    gate.set()
    settle(system)
    assert [value for value, *_ in heard] == list(range(20))


def test_what_comes_after_the_end_is_dropped(
    system: ActorSystem, actor: LocalRef, heard: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    future: Future[int] = Future()
    actor.tell(future)
    settle(system)
    actor.stop()
    actor.wait(60)
    future.set_result(7)
    assert heard == []
    assert "exception" not in caplog.text


def test_an_ask_that_expires_in_virtual_time_is_an_outcome(
    system: ActorSystem, actor: LocalRef, heard: list[Any]
) -> None:
    class Silent(Actor):
        def receive(self, message: Any) -> Any:
            self.defer()

    silent = system.spawn(ChildSpec("silent", Silent))
    actor.tell(silent.ask_future("hello", timeout=30))
    run_for(29, system)
    assert heard == []
    run_for(1, system)
    assert isinstance(heard[0][1], AskTimeout)


def test_a_job_answers_a_deferred_ask(actor: LocalRef, pool: ThreadPoolExecutor) -> None:
    assert actor.ask(("ask", pool.submit(lambda: 42)), timeout=60) == 42


@pytest.mark.parametrize("where", ["job", "then"])
def test_a_refusal_reaches_the_asker_and_harms_nobody(
    actor: LocalRef, pool: ThreadPoolExecutor, where: str
) -> None:
    def job() -> str:
        if where == "then":
            return "refuse"
        raise Refused("no", "No: ask for less.")

    with pytest.raises(Refused, match="ask for less"):
        actor.ask(("ask", pool.submit(job)), timeout=5)
    assert actor.is_alive


@pytest.mark.parametrize("where", ["job", "then"])
def test_any_other_error_is_a_crash_that_the_asker_hears_of(
    actor: LocalRef, pool: ThreadPoolExecutor, where: str
) -> None:
    def job() -> str:
        if where == "then":
            return "crash"
        raise ValueError("boom")

    with pytest.raises(ActorCrashed, match="ValueError: boom"):
        actor.ask(("ask", pool.submit(job)), timeout=5)
    assert isinstance(actor.exit_reason and actor.exit_reason.error, ValueError)


def test_a_refusal_that_nobody_asked_for_is_logged(
    system: ActorSystem, actor: LocalRef, caplog: pytest.LogCaptureFixture
) -> None:
    def then(value: Any, error: BaseException | None) -> None:
        raise Refused("no", "No: ask for less.")

    future: Future[None] = Future()
    future.set_result(None)
    actor.tell(("then", future, then))
    settle(system)
    assert actor.is_alive
    assert "No: ask for less." in caplog.text


def test_nobody_waits_for_what_is_deferred_then(
    system: ActorSystem, actor: LocalRef, heard: list[Any]
) -> None:
    """Also while an ask is deferred: it belongs to the message that it came with."""

    class Asked(Actor):
        def receive(self, message: Any) -> Any:
            self.first = self.defer()
            self.pipe(message, self.then)

        def then(self, value: Any, error: BaseException | None) -> None:
            self.defer().set("nobody hears this")
            self.first.set(value)

    asked = system.spawn(ChildSpec("asked", Asked))
    future: Future[int] = Future()
    answer = asked.ask_future(future, timeout=5)
    future.set_result(3)
    settle(system)
    assert answer.result(0) == 3


def test_a_supervisor_pipes_as_well(system: ActorSystem, heard: list[Any]) -> None:
    class Root(Supervisor):
        def receive(self, message: Any) -> Any:
            self.pipe(message, lambda value, error: heard.append((value, error)))

    future: Future[int] = Future()
    system.spawn(ChildSpec("root", Root)).tell(future)
    future.set_result(3)
    settle(system)
    assert heard == [(3, None)]


def test_a_future_that_is_done_in_on_start_is_heard_of_afterwards(
    system: ActorSystem, heard: list[Any]
) -> None:
    class Starting(Actor):
        def on_start(self) -> None:
            future: Future[int] = Future()
            self.pipe(future, lambda value, _: heard.append(value))
            future.set_result(1)
            heard.append("started")

    system.spawn(ChildSpec("starting", Starting))
    settle(system)
    assert heard == ["started", 1]
