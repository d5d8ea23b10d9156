"""Supervisors with real threads: restarts, escalation, shutdown in a storm, abandoned children."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from manta.actors import (
    Actor,
    ActorDead,
    ActorSystem,
    AutoShutdown,
    ChildInfo,
    ChildSpec,
    ChildType,
    Down,
    ExitKind,
    ExitReason,
    LocalRef,
    Phase,
    Refused,
    Restart,
    RestartChild,
    StartChild,
    StartFailed,
    StopChild,
    Strategy,
    Supervisor,
    TreeNode,
    WhichChildren,
)
from manta.testing import FakeClock, crash, run_for, settle, wait_for_successor, wait_until


@pytest.fixture
def system() -> Iterator[ActorSystem]:
    with ActorSystem("test") as system:
        yield system


def until_served(ref: LocalRef) -> None:
    """Something that was sent is being handled; a stop would have overtaken it."""
    while not ref._cell.inbox.served:
        time.sleep(0.001)


class Journal(list):
    """What happened, in order, from any thread."""


class Worker(Actor):
    def __init__(self, id: str, journal: Journal, hang: threading.Event | None = None) -> None:
        self.id = id
        self.journal = journal
        self.hang = hang

    def on_start(self) -> None:
        self.journal.append(("start", self.id))

    def on_stop(self, reason: ExitReason) -> None:
        self.journal.append(("stop", self.id))

    def receive(self, message: Any) -> Any:
        if message == "hang":
            assert self.hang is not None
            self.hang.wait(60)
            self.ref.tell("I am dead and must not send")
        return message


def tree_of(journal: Journal, *ids: str, **flags: Any) -> type[Supervisor]:
    class Tree(Supervisor):
        strategy = flags.get("strategy", Strategy.ONE_FOR_ONE)
        intensity = flags.get("intensity", 3)
        auto_shutdown = flags.get("auto_shutdown", AutoShutdown.NEVER)

        def children(self) -> list[ChildSpec]:
            return [ChildSpec(id, partial(Worker, id, journal)) for id in ids]

    return Tree


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        (Strategy.ONE_FOR_ONE, ["-b", "+b"]),
        (Strategy.REST_FOR_ONE, ["-b", "-c", "+b", "+c"]),
        (Strategy.ONE_FOR_ALL, ["-b", "-c", "-a", "+a", "+b", "+c"]),
    ],
)
def test_strategies_in_earnest(
    system: ActorSystem, strategy: Strategy, expected: list[str]
) -> None:
    journal = Journal()
    system.spawn(ChildSpec("tree", tree_of(journal, "a", "b", "c", strategy=strategy)))
    assert journal == [("start", id) for id in "abc"]
    journal.clear()
    b = system.find("tree/b")
    crash(b)
    wait_for_successor(system, b)
    settle(system)
    assert [("+" if what == "start" else "-") + id for what, id in journal] == expected
    journal.clear()
    system.stop()
    assert journal == [("stop", id) for id in "cba"]


def test_escalation_goes_up_until_somebody_copes(system: ActorSystem) -> None:
    journal = Journal()

    class Upper(Supervisor):
        intensity = 1

        def children(self) -> list[ChildSpec]:
            lower = tree_of(journal, "a", "b", intensity=0)
            return [ChildSpec("lower", lower, type=ChildType.SUPERVISOR)]

    upper = system.spawn(ChildSpec("upper", Upper))
    lower, a = system.find("upper/lower"), system.find("upper/lower/a")
    crash(a)
    successor = wait_for_successor(system, lower)
    assert upper.is_alive
    assert lower.exit_reason is not None
    assert lower.exit_reason.kind is ExitKind.GAVE_UP
    assert journal == [
        ("start", "a"), ("start", "b"), ("stop", "a"), ("stop", "b"), ("start", "a"), ("start", "b")
    ]  # fmt: skip
    crash(system.find("upper/lower/b"))
    reason = upper.wait(60)
    assert reason is not None
    assert reason.kind is ExitKind.GAVE_UP
    assert "'lower'" in reason.sentence
    assert not successor.is_alive
    assert journal.count(("stop", "a")) == journal.count(("start", "a"))


def test_children_come_and_go(system: ActorSystem) -> None:
    journal = Journal()
    tree = system.spawn(ChildSpec("tree", tree_of(journal, "a")))
    ref = tree.ask(StartChild(ChildSpec("b", lambda: Worker("b", journal))), timeout=60)
    assert ref == system.find("tree/b")
    with pytest.raises(Refused, match="'b' exists already") as refused:
        tree.ask(StartChild(ChildSpec("b", lambda: Worker("b", journal))), timeout=5)
    assert (refused.value.code, refused.value.data) == ("already_started", {"id": "b"})
    infos = tree.ask(WhichChildren(), timeout=60)
    assert [(info.id, info.phase) for info in infos] == [("a", "running"), ("b", "running")]
    tree.ask(StopChild("b"), timeout=60)
    assert not ref.is_alive
    with pytest.raises(Refused, match="There is no child 'b'"):
        tree.ask(StopChild("b"), timeout=5)
    tree.ask(StartChild(ChildSpec("b", lambda: Worker("b", journal))), timeout=60)


def test_a_transient_child_that_was_done_can_be_revived(system: ActorSystem) -> None:
    class Brief(Actor):
        def receive(self, message: Any) -> Any:
            self.stop()

    tree = system.spawn(ChildSpec("tree", tree_of(Journal())))
    brief = tree.ask(StartChild(ChildSpec("brief", Brief, Restart.TRANSIENT)), timeout=60)
    brief.tell("done")
    brief.wait(60)
    settle(system)
    (info,) = tree.ask(WhichChildren(), timeout=60)
    assert (info.phase, info.last_exit.kind) == (Phase.DOWN, ExitKind.NORMAL)
    again = tree.ask(RestartChild("brief"), timeout=60)
    assert again.is_alive
    with pytest.raises(Refused, match="running already"):
        tree.ask(RestartChild("brief"), timeout=5)


def test_significant_children_end_their_supervisor(system: ActorSystem) -> None:
    journal = Journal()
    flags = {"auto_shutdown": AutoShutdown.ANY_SIGNIFICANT}
    tree = system.spawn(ChildSpec("tree", tree_of(journal, "a", **flags)))
    spec = ChildSpec("job", lambda: Worker("job", journal), Restart.TEMPORARY, significant=True)
    tree.ask(StartChild(spec), timeout=60).stop()
    reason = tree.wait(60)
    assert reason == ExitReason(ExitKind.SHUTDOWN, "significant child 'job' ended")
    assert journal[-1] == ("stop", "a")


def test_a_supervisor_manages_children_from_inside(system: ActorSystem) -> None:
    news: list[Any] = []

    class Manager(Supervisor):
        def receive(self, message: Any) -> Any:
            match message:
                case ("start", id):
                    self.start_child(
                        ChildSpec(id, lambda: Worker(id, Journal()), Restart.TEMPORARY),
                        lambda ref, refusal: news.append((ref is not None, refusal)),
                    )
                case ("stop", id):
                    self.stop_child(id)
                case ("child", id):
                    return self.child(id)
            return None

        def on_child_started(self, id: str, ref: LocalRef) -> None:
            news.append(("started", id, ref == self.child(id)))

        def on_child_exited(self, id: str, reason: ExitReason) -> None:
            news.append(("exited", id, reason.kind))
            if id == "x":
                self.start_child(ChildSpec("y", lambda: Worker("y", Journal())))

    manager = system.spawn(ChildSpec("manager", Manager))
    manager.tell(("start", "x"))
    settle(system)
    assert news == [(True, None), ("started", "x", True)]
    news.clear()
    manager.tell(("start", "x"))
    settle(system)
    assert news[0][0] is True
    assert news[0][1].code == "already_started"
    news.clear()
    manager.tell(("stop", "x"))
    settle(system)
    assert news == [("exited", "x", ExitKind.SHUTDOWN), ("started", "y", True)]
    assert manager.ask(("child", "x"), timeout=60) is None


def test_there_are_no_children_before_on_start_returned(system: ActorSystem) -> None:
    class Early(Supervisor):
        def on_start(self) -> None:
            assert self.child("x") is None
            self.start_child(ChildSpec("x", Hopeless))

    with pytest.raises(StartFailed, match=r"name those to start with in children\(\)"):
        system.spawn(ChildSpec("early", Early))


def test_the_hook_hears_of_the_last_exit_too(system: ActorSystem) -> None:
    heard: list[str] = []

    class Tree(tree_of(Journal(), "a", "b")):  # type: ignore[misc]
        def on_child_exited(self, id: str, reason: ExitReason) -> None:
            heard.append(id)

    system.spawn(ChildSpec("tree", Tree))
    system.stop()
    assert heard == ["b", "a"]


def test_a_crash_in_a_hook_takes_the_supervisor_and_its_children_down(
    system: ActorSystem,
) -> None:
    journal = Journal()

    class Clumsy(tree_of(journal, "a", "b")):  # type: ignore[misc]
        def on_child_exited(self, id: str, reason: ExitReason) -> None:
            raise ValueError("boom")

    clumsy = system.spawn(ChildSpec("clumsy", Clumsy))
    a, b = system.find("clumsy/a"), system.find("clumsy/b")
    crash(a)
    reason = clumsy.wait(60)
    assert reason is not None
    assert reason.kind is ExitKind.CRASHED
    assert not b.is_alive
    with pytest.raises(ActorDead):
        system.find("clumsy/a")
    assert journal[-1] == ("stop", "b")


class Hopeless(Actor):
    """Starts now and then."""

    starts = 0

    def on_start(self) -> None:
        Hopeless.starts += 1
        if Hopeless.starts > 1:
            raise ValueError("not today")


def test_a_shutdown_interleaves_with_a_restart_storm(system: ActorSystem) -> None:
    Hopeless.starts = 0

    class Patient(Supervisor):
        intensity = 10**9

        def children(self) -> list[ChildSpec]:
            return [ChildSpec("calm", lambda: Worker("calm", Journal())), ChildSpec("x", Hopeless)]

    patient = system.spawn(ChildSpec("patient", Patient))
    crash(system.find("patient/x"))
    wait_until(lambda: Hopeless.starts >= 20)
    infos = patient.ask(WhichChildren(), timeout=60)  # it still listens
    assert [info.id for info in infos] == ["calm", "x"]
    began = time.monotonic()
    assert system.stop(timeout=5) == []
    assert time.monotonic() - began < 4
    starts = Hopeless.starts
    assert starts >= 20
    time.sleep(0.01)
    assert Hopeless.starts == starts


def test_a_storm_ends_where_the_intensity_says(system: ActorSystem) -> None:
    Hopeless.starts = 0

    class Strict(Supervisor):
        intensity = 5

        def children(self) -> list[ChildSpec]:
            return [ChildSpec("x", Hopeless)]

    strict = system.spawn(ChildSpec("strict", Strict))
    crash(system.find("strict/x"))
    reason = strict.wait(60)
    assert reason is not None
    assert reason.kind is ExitKind.GAVE_UP
    assert Hopeless.starts == 1 + 5


def test_a_child_that_does_not_stop_is_abandoned_and_replaced(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gate, journal, downs = threading.Event(), Journal(), []

    class Tree(Supervisor):
        strategy = Strategy.ONE_FOR_ALL

        def children(self) -> list[ChildSpec]:
            hanging = ChildSpec("hangs", lambda: Worker("hangs", journal, gate), shutdown=0.05)
            return [hanging, ChildSpec("other", lambda: Worker("other", journal))]

    class Watcher(Actor):
        def receive(self, message: Any) -> Any:
            if isinstance(message, Down):
                downs.append(message)
            else:
                self.monitor(message)

    with ActorSystem("test") as system:
        system.spawn(ChildSpec("tree", Tree))
        hangs = system.find("tree/hangs")
        system.spawn(ChildSpec("watcher", Watcher)).ask(hangs, timeout=60)
        waiting = hangs.ask_future("hang", timeout=60)
        until_served(hangs)
        queued = hangs.ask_future("queued", timeout=60)
        crash(system.find("tree/other"))
        successor = wait_for_successor(system, hangs)
        assert successor.ask("hello", timeout=60) == "hello"
        assert isinstance(waiting.exception(60), ActorDead)
        assert isinstance(queued.exception(60), ActorDead)
        with pytest.raises(ActorDead, match=r"abandoned: it did not stop within 0\.05 s"):
            hangs.tell("x")
        assert "tree/hangs" in caplog.text
        assert "is abandoned" in caplog.text
        settle(system)
        zombie = hangs._cell.thread
        assert zombie is not None
        assert zombie.is_alive()
        before = list(journal)
        gate.set()
        zombie.join(60)
        assert not zombie.is_alive()
        assert successor.ask("hello", timeout=60) == "hello"
        assert journal == before, "an abandoned actor's on_stop is not run beside its successor"
    (down,) = downs
    assert (down.ref, down.reason.kind) == (hangs, ExitKind.ABANDONED)


def test_stop_reports_whom_it_abandoned() -> None:
    gate = threading.Event()
    system = ActorSystem("test")
    ref = system.spawn(ChildSpec("root", lambda: Worker("root", Journal(), gate)))
    ref.tell("hang")
    until_served(ref)
    ref.ask_future("x", timeout=60)
    began = time.monotonic()
    assert system.stop(timeout=0.1) == [ref.address]
    assert time.monotonic() - began < 3
    gate.set()
    assert ref._cell.thread is not None
    ref._cell.thread.join(60)


def test_an_abandoned_supervisor_leaves_no_orphans() -> None:
    gate = threading.Event()

    class Stuck(tree_of(Journal(), "a", "b")):  # type: ignore[misc]
        def receive(self, message: Any) -> Any:
            gate.wait(60)

    class Upper(Supervisor):
        def children(self) -> list[ChildSpec]:
            return [ChildSpec("stuck", Stuck, shutdown=0.05)]

    with ActorSystem("test") as system:
        upper = system.spawn(ChildSpec("upper", Upper))
        stuck, a = system.find("upper/stuck"), system.find("upper/stuck/a")
        stuck.tell("get stuck")
        upper.ask(StopChild("stuck"), timeout=60)
        assert not a.is_alive
        with pytest.raises(ActorDead):
            system.find("upper/stuck/b")
        gate.set()
        assert stuck._cell.thread is not None
        stuck._cell.thread.join(60)


def test_a_slow_start_holds_up_siblings_but_not_the_supervisor(system: ActorSystem) -> None:
    gate = threading.Event()

    class SlowStarter(Actor):
        def on_start(self) -> None:
            gate.wait(60)

    tree = system.spawn(ChildSpec("tree", tree_of(Journal(), "a")))
    pending = tree.ask_future(StartChild(ChildSpec("slow", SlowStarter)), timeout=20)
    after = tree.ask_future(StartChild(ChildSpec("b", lambda: Worker("b", Journal()))), timeout=20)
    infos: list[ChildInfo] = tree.ask(WhichChildren(), timeout=60)
    assert [(info.id, str(info.phase)) for info in infos] == [
        ("a", "running"),
        ("slow", "starting"),
    ]
    assert not pending.done()
    gate.set()
    assert pending.result(60) == system.find("tree/slow")
    assert after.result(60) == system.find("tree/b")


def test_restarts_within_the_period_go_by_the_injected_clock() -> None:
    clock = FakeClock()
    with ActorSystem("test", clock=clock) as system:
        tree = system.spawn(ChildSpec("tree", tree_of(Journal(), "a", intensity=1)))
        for _ in range(5):
            a = system.find("tree/a")
            crash(a)
            wait_for_successor(system, a)
            run_for(6, system)
        assert tree.is_alive


def test_the_tree_is_there_to_be_shown(system: ActorSystem) -> None:
    class Upper(Supervisor):
        def children(self) -> list[ChildSpec]:
            return [
                ChildSpec("lower", tree_of(Journal(), "a"), type=ChildType.SUPERVISOR),
                ChildSpec("done", Done, Restart.TRANSIENT),
            ]

    class Done(Actor):
        def on_start(self) -> None:
            self.ref.stop()

    system.spawn(ChildSpec("upper", Upper))
    settle(system)
    (upper,) = system.tree()
    lower, done = upper.children
    assert isinstance(lower, TreeNode)
    assert lower.info is not None
    assert (lower.actor_class, lower.info.type, lower.info.phase) == (
        "Tree",
        ChildType.SUPERVISOR,
        Phase.RUNNING,
    )
    assert [str(child.address.path) for child in lower.children if child.address] == [
        "upper/lower/a"
    ]
    assert isinstance(done, ChildInfo)
    assert done.phase is Phase.DOWN


@pytest.mark.timeout(600)
def test_many_kills_leave_everything_as_it_was() -> None:
    """In full with MANTA_FULL=1: 1,000 actors and 10,000 kills."""
    actors, kills = (1_000, 10_000) if os.environ.get("MANTA_FULL") else (100, 1_000)

    class Many(Supervisor):
        intensity = kills + 1
        period = 3600

        def children(self) -> list[ChildSpec]:
            return [ChildSpec(f"a{number}", Plain) for number in range(actors)]

    class Plain(Actor):
        def receive(self, message: Any) -> Any:
            return message

    with ActorSystem("test") as system:
        many = system.spawn(ChildSpec("many", Many))
        gc.collect()
        threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))
        for number in range(kills):
            ref = system.find(f"many/a{number % actors}")
            crash(ref)
            if number % actors == actors - 1:
                for other in range(actors):
                    _alive(system, f"many/a{other}")
        settle(system)
        infos = many.ask(WhichChildren(), timeout=60)
        assert [info.phase for info in infos] == [Phase.RUNNING] * actors
        assert sum(info.restarts for info in infos) == kills
        for number in range(actors):
            assert system.find(f"many/a{number}").ask(number, timeout=60) == number
        assert threading.active_count() == threads
        assert len(os.listdir("/proc/self/fd")) == files


def _alive(system: ActorSystem, path: str) -> LocalRef:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            ref = system.find(path)
            if ref._cell.started and ref.ask(1, timeout=60) == 1:
                return ref
        except ActorDead:
            time.sleep(0.001)
    raise TimeoutError(path)
