"""However an actor ends, exactly one Down and one ChildExited, and bystanders live on."""

from __future__ import annotations

import gc
import logging
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from manta.actors import (
    NORMAL,
    Actor,
    ActorCrashed,
    ActorDead,
    ActorSystem,
    ChildSpec,
    Down,
    ExitKind,
    ExitReason,
    LocalRef,
    Refused,
    Restart,
    StartChild,
    StartFailed,
    Supervisor,
)
from manta.testing import crash, settle, wait_until


class Fragile(Actor):
    """Breaks where it is told to."""

    def __init__(self, where: str, error: BaseException) -> None:
        self.where = where
        self.error = error
        self.break_at("constructor")

    def break_at(self, place: str) -> None:
        if self.where == place:
            raise self.error

    def on_start(self) -> None:
        self.break_at("start")

    def on_stop(self, reason: ExitReason) -> None:
        self.break_at("stop")

    def receive(self, message: Any) -> Any:
        if message == "break":
            raise self.error
        return message


class Bystander(Actor):
    def receive(self, message: Any) -> Any:
        return message


class Watcher(Actor):
    def __init__(self) -> None:
        self.downs: list[Down] = []

    def receive(self, message: Any) -> Any:
        match message:
            case Down():
                self.downs.append(message)
            case ("watch", ref):
                self.monitor(ref)
            case "downs":
                return list(self.downs)
        return None


class Tree(Supervisor):
    intensity = 0

    def children(self) -> list[ChildSpec]:
        return [ChildSpec("bystander", Bystander), ChildSpec("watcher", Watcher)]


@pytest.fixture
def system() -> Iterator[ActorSystem]:
    with ActorSystem("test") as system:
        yield system


@pytest.fixture
def tree(system: ActorSystem) -> LocalRef:
    return system.spawn(ChildSpec("tree", Tree))


ERRORS: list[Callable[[], BaseException]] = [
    lambda: ValueError("boom"),
    lambda: SystemExit(3),
    lambda: KeyboardInterrupt(),
]


def break_by_tell(ref: LocalRef) -> None:
    ref.tell("break")


def break_by_ask(ref: LocalRef) -> None:
    with pytest.raises(ActorCrashed):
        ref.ask("break", timeout=5)


def break_by_stop(ref: LocalRef) -> None:
    ref.stop()


def break_by_injection(ref: LocalRef) -> None:
    crash(ref)


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize(
    ("where", "act"),
    [
        ("tell", break_by_tell),
        ("ask", break_by_ask),
        ("stop", break_by_stop),
        ("injection", break_by_injection),
    ],
)
def test_one_down_one_child_exited_bystanders_alive(
    system: ActorSystem,
    tree: LocalRef,
    where: str,
    act: Callable[[LocalRef], None],
    error: Callable[[], BaseException],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    spec = ChildSpec("fragile", lambda: Fragile(where, error()), Restart.TEMPORARY)
    ref = tree.ask(StartChild(spec), timeout=60)
    watcher, bystander = system.find("tree/watcher"), system.find("tree/bystander")
    watcher.tell(("watch", ref))
    settle(system)
    threads = threading.active_count()

    act(ref)

    reason = ref.wait(60)
    assert reason is not None
    assert reason.kind is ExitKind.CRASHED
    settle(system)
    (down,) = watcher.ask("downs", timeout=60)
    assert down == Down(ref, reason)
    exits = [line for line in caplog.messages if f"ChildExited({ref.address}" in line]
    assert len(exits) == 1
    assert bystander.ask("still there", timeout=60) == "still there"
    with pytest.raises(ActorDead):
        ref.tell("anyone?")
    with pytest.raises(ActorDead):
        ref.ask("anyone?", timeout=5)
    ref._cell.thread.join(60)
    assert threading.active_count() == threads - 1


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("where", ["constructor", "start"])
def test_a_failed_start_is_one_child_exited_and_the_asker_is_told(
    system: ActorSystem,
    tree: LocalRef,
    where: str,
    error: Callable[[], BaseException],
    caplog: pytest.LogCaptureFixture,
) -> None:
    spec = ChildSpec("fragile", lambda: Fragile(where, error()))
    with pytest.raises(Refused, match="'fragile' failed to start: crashed") as refused:
        tree.ask(StartChild(spec), timeout=5)
    assert refused.value.code == "start_failed"
    settle(system)
    assert len([line for line in caplog.messages if "ChildExited(test:tree/fragile" in line]) == 1
    assert system.find("tree/bystander").ask(1, timeout=60) == 1


def test_a_root_that_does_not_start_says_so(system: ActorSystem) -> None:
    with pytest.raises(StartFailed, match="ValueError: boom") as failed:
        system.spawn(ChildSpec("root", lambda: Fragile("start", ValueError("boom"))))
    assert isinstance(failed.value.__cause__, ValueError)
    with pytest.raises(ActorDead, match="nobody lives at test:root"):
        system.find("root")


@pytest.mark.parametrize("junk", [None, 3, Actor], ids=["None", "int", "class"])
def test_a_start_that_makes_no_actor_says_so(system: ActorSystem, junk: Any) -> None:
    with pytest.raises(StartFailed, match="where a new Actor is wanted"):
        system.spawn(ChildSpec("root", lambda: junk))


def test_an_actor_object_lives_once(system: ActorSystem) -> None:
    one = Bystander()
    first = system.spawn(ChildSpec("one", lambda: one))
    first.stop()
    first.wait(60)
    with pytest.raises(StartFailed, match="must make a new one each time"):
        system.spawn(ChildSpec("one", lambda: one))


def test_monitoring_the_dead_brings_one_down_with_the_reason(
    system: ActorSystem, tree: LocalRef
) -> None:
    spec = ChildSpec("fragile", lambda: Fragile("tell", ValueError("boom")), Restart.TEMPORARY)
    ref = tree.ask(StartChild(spec), timeout=60)
    ref.tell("break")
    ref.wait(60)
    watcher = system.find("tree/watcher")
    watcher.tell(("watch", ref))
    watcher.tell(("watch", system.ref("tree/nobody")))
    settle(system)
    first, second = watcher.ask("downs", timeout=60)
    assert first.reason == ExitReason(ExitKind.CRASHED, "ValueError: boom")
    assert second.reason.kind is ExitKind.UNKNOWN


class Talker(Actor):
    def __init__(self, to: LocalRef) -> None:
        self.to = to

    def receive(self, message: Any) -> Any:
        for number in range(100):
            self.to.tell(number)
        self.stop()


def test_what_it_said_before_it_ended_comes_before_its_down(system: ActorSystem) -> None:
    heard: list[Any] = []

    class Listener(Actor):
        def receive(self, message: Any) -> Any:
            if isinstance(message, LocalRef):
                self.monitor(message)
                message.tell("talk")
            else:
                heard.append(message)

    listener = system.spawn(ChildSpec("listener", Listener))
    talker = system.spawn(ChildSpec("talker", lambda: Talker(listener)))
    listener.tell(talker)
    talker.wait(60)
    settle(system)
    assert heard == [*range(100), Down(talker, NORMAL)]


def test_a_cancelled_monitor_is_silent(system: ActorSystem, tree: LocalRef) -> None:
    heard: list[Any] = []

    class Listener(Actor):
        def receive(self, message: Any) -> Any:
            match message:
                case ("watch", ref, then):
                    monitor = self.monitor(ref)
                    if then == "first":
                        monitor.cancel()
                        ref.stop()
                        ref.wait(60)
                    else:  # its Down is in the mailbox by then
                        ref.stop()
                        ref.wait(60)
                        monitor.cancel()
                case Down():
                    heard.append(message)

    listener = system.spawn(ChildSpec("listener", Listener))
    for then in ("first", "late"):
        ref = system.spawn(ChildSpec(then, Bystander))
        listener.tell(("watch", ref, then))
    settle(system)
    assert heard == []


class Linked(Actor):
    def receive(self, message: Any) -> Any:
        match message:
            case LocalRef():
                self.link(message)
            case ("unlink", ref):
                self.unlink(ref)
            case "stop":
                self.stop()
            case "crash":
                raise ValueError("boom")


@pytest.mark.parametrize("who", [0, 1])
@pytest.mark.parametrize(
    ("how", "dies"), [("crash", True), ("shutdown", True), ("stop", False), ("unlink", False)]
)
def test_linked_actors_share_their_fate_both_ways(
    system: ActorSystem, who: int, how: str, dies: bool
) -> None:
    pair = [system.spawn(ChildSpec(id, Linked)) for id in "ab"]
    pair[0].ask(pair[1], timeout=60)
    ends, other = pair[who], pair[1 - who]
    if how == "shutdown":
        ends.stop()
    elif how == "unlink":
        pair[1].ask(("unlink", pair[0]), timeout=60)
        ends.tell("crash")
    else:
        ends.tell(how)
    ends.wait(60)
    if dies:
        reason = other.wait(60)
        assert reason is not None
        assert str(ends.address) in reason.sentence
    else:
        settle(system)
        assert other.is_alive


class Passing(Actor):
    """Looks at one that lives longer, and ends."""

    def receive(self, message: Any) -> Any:
        match message:
            case ("monitor", ref):
                self.monitor(ref)
            case ("link", ref):
                self.link(ref)
            case "end":
                self.stop()


@pytest.mark.parametrize("how", ["monitor", "link"])
def test_one_that_lives_longer_keeps_nothing_of_an_actor_that_has_ended(
    system: ActorSystem, tree: LocalRef, how: str
) -> None:
    lasting, cells = system.find("tree/bystander"), []
    for number in range(5):
        spec = ChildSpec(f"passing-{number}", Passing, restart=Restart.TEMPORARY)
        passing = tree.ask(StartChild(spec), timeout=60)
        passing.tell((how, lasting))
        passing.tell("end")
        passing.wait(60)
        cells.append(weakref.ref(passing._cell))

    def kept() -> int:
        gc.collect()
        return sum(cell() is not None for cell in cells)

    wait_until(lambda: kept() <= 1)  # the last one is what the supervisor has answered last
    assert lasting.is_alive


def test_an_actor_keeps_nothing_of_those_whose_end_it_was_told(
    system: ActorSystem, tree: LocalRef
) -> None:
    watcher = system.find("tree/watcher")
    before = len(watcher._cell._owned)
    for number in range(5):
        ref = system.spawn(ChildSpec(f"short-{number}", Bystander))
        watcher.tell(("watch", ref))
        ref.stop()
    wait_until(lambda: len(watcher.ask("downs", timeout=60)) == 5)
    assert len(watcher._cell._owned) == before


def test_linking_with_the_dead_is_sharing_its_fate(system: ActorSystem) -> None:
    a, b = (system.spawn(ChildSpec(id, Linked)) for id in "ab")
    a.tell("crash")
    a.wait(60)
    b.tell(a)
    reason = b.wait(60)
    assert reason is not None
    assert reason.kind is ExitKind.CRASHED


def test_links_are_local(system: ActorSystem) -> None:
    a = system.spawn(ChildSpec("a", lambda: _Links(system)))
    with pytest.raises(ActorCrashed, match="links are local, monitor it instead"):
        a.ask("link", timeout=5)


class _Links(Actor):
    def __init__(self, system: ActorSystem) -> None:
        self.to: Any = system.ref("a")

    def receive(self, message: Any) -> Any:
        self.link(self.to)
