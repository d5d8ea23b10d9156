"""Group commit, and the hand that writes: nothing acknowledged is lost, nothing is out of order."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from manta.actors import Actor, ActorSystem, ChildSpec, Supervisor
from manta.manager.errors import StorageUnavailable, StoreError
from manta.manager.store import actor
from manta.manager.store.actor import GetHealth, StoreActor, Writer
from manta.manager.store.interface import AppendEvents, Put, RemoveSwarm, Write
from manta.manager.store.records import ClusterRecord
from manta.testing.actors import crash, wait_for_successor
from manta.testing.stores.faulty import FaultyStore
from manta.testing.stores.memory import MemoryStore

STORE = "root/store"


@dataclass
class WriteThis:
    writes: tuple[Write, ...]
    keep: bool = False


class Scribe(Actor):
    def on_start(self) -> None:
        self.writer = Writer(self, STORE)
        self.heard: list[StoreError | None] = []

    def receive(self, message: Any) -> Any:
        if self.writer.handle(message):
            return None
        match message:
            case WriteThis(writes, keep):
                reply = self.defer()

                def then(error: StoreError | None) -> None:
                    self.heard.append(error)
                    if error is None or not keep:
                        reply.set(error)

                self.writer.write(*writes, then=then, keep=keep)
                return None
            case "heard":
                return list(self.heard)
            case "trouble":
                return self.writer.trouble
            case _:
                return super().receive(message)


class Root(Supervisor):
    intensity = 100

    def __init__(self, store: FaultyStore, workers: ThreadPoolExecutor) -> None:
        self.store = store
        self.workers = workers

    def children(self) -> list[ChildSpec]:
        return [
            ChildSpec("store", lambda: StoreActor(lambda: self.store, self.workers)),
            *(ChildSpec(name, Scribe) for name in ("a", "b")),
        ]


@pytest.fixture
def store() -> FaultyStore:
    return FaultyStore(MemoryStore())


@pytest.fixture
def system(store: FaultyStore) -> Iterator[ActorSystem]:
    with ThreadPoolExecutor(1) as workers, ActorSystem("test") as system:
        system.spawn(ChildSpec("root", lambda: Root(store, workers)))
        yield system


def event(number: int, swarm_id: str = "s") -> AppendEvents:
    return AppendEvents(swarm_id, number, (str(number).encode(),))


def numbers(store: FaultyStore, swarm_id: str = "s") -> list[int]:
    return [number for number, _ in store.events(swarm_id)]


def test_what_gathers_is_one_commit(system: ActorSystem, store: FaultyStore) -> None:
    entered, leave = threading.Event(), threading.Event()
    commit = store.store.commit

    def slow(writes: Any) -> None:
        entered.set()
        leave.wait(60)
        commit(writes)

    store.store.commit = slow  # type: ignore[method-assign]
    scribe = system.find("root/a")
    first = scribe.ask_future(WriteThis((event(1),)), timeout=5)
    assert entered.wait(60)
    rest = [scribe.ask_future(WriteThis((event(n),)), timeout=5) for n in range(2, 102)]
    while len(system.find(STORE)._cell.inbox) < 100:
        pass
    leave.set()
    for future in (first, *rest):
        assert future.result(60) is None
    assert numbers(store) == list(range(1, 102))
    assert store.commits == 2


@pytest.mark.parametrize("fault", ["crash_before_commit", "crash_after_commit"])
def test_a_crash_of_the_store_loses_nothing(
    system: ActorSystem, store: FaultyStore, fault: str
) -> None:
    setattr(store.faults, fault, True)
    futures = [
        system.find(f"root/{who}").ask_future(WriteThis((event(n, who),), keep=True), timeout=5)
        for n in range(1, 21)
        for who in ("a", "b")
    ]
    for future in futures:
        assert future.result(60) is None
    for who in ("a", "b"):
        assert numbers(store, who) == list(range(1, 21))


def test_a_store_that_crashes_again_and_again_loses_nothing(
    system: ActorSystem, store: FaultyStore
) -> None:
    futures = []
    for n in range(1, 201):
        future = system.find("root/a").ask_future(WriteThis((event(n),), keep=True), timeout=10)
        futures.append(future)
        if n % 50 == 0:
            ref = system.find(STORE)
            crash(ref)
            wait_for_successor(system, ref)
    for future in futures:
        assert future.result(60) is None
    assert numbers(store) == list(range(1, 201))


def test_a_full_disk_is_told_and_what_must_be_kept_is_kept(
    system: ActorSystem, store: FaultyStore
) -> None:
    scribe = system.find("root/a")
    store.faults.full = True
    refused = scribe.ask(WriteThis((Put(ClusterRecord("c", "n", "u", 0.0)),)), timeout=60)
    assert isinstance(refused, StorageUnavailable)
    assert "disk is full" in system.find(STORE).ask(GetHealth(), timeout=60)
    kept = [scribe.ask_future(WriteThis((event(n),), keep=True), timeout=10) for n in (1, 2, 3)]
    while len(scribe.ask("heard", timeout=60)) < 4:
        pass
    assert isinstance(scribe.ask("trouble", timeout=60), StorageUnavailable)
    assert numbers(store) == []
    store.faults.full = False
    for future in kept:
        assert future.result(60) is None
    assert numbers(store) == [1, 2, 3]
    assert store.all(ClusterRecord) == []
    assert scribe.ask("trouble", timeout=60) is None
    assert system.find(STORE).ask(GetHealth(), timeout=60) == ""


def test_what_was_refused_alone_leaves_no_trouble(system: ActorSystem, store: FaultyStore) -> None:
    """Nothing would be written that could end it: who asks next must be able to try."""
    scribe = system.find("root/a")
    store.faults.full = True
    refused = scribe.ask(WriteThis((Put(ClusterRecord("c", "n", "u", 0.0)),)), timeout=60)
    assert isinstance(refused, StorageUnavailable)
    assert scribe.ask("trouble", timeout=60) is None


def test_that_there_is_room_again_is_seen_though_nobody_writes(
    system: ActorSystem, store: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actor, "PROBE", 0.01)
    store.faults.full = True
    system.find("root/a").ask(WriteThis((Put(ClusterRecord("c", "n", "u", 0.0)),)), timeout=60)
    assert "disk is full" in system.find(STORE).ask(GetHealth(), timeout=60)
    store.faults.full = False
    while system.find(STORE).ask(GetHealth(), timeout=60):
        pass


def test_who_writes_what_cannot_be_does_not_harm_the_others(
    system: ActorSystem, store: FaultyStore
) -> None:
    a, b = system.find("root/a"), system.find("root/b")
    wrong = a.ask_future(WriteThis((event(7),), keep=True), timeout=1)
    right = b.ask_future(WriteThis((event(1, "b"),)), timeout=5)
    assert right.result(60) is None
    # Its state is not what is stored: it starts anew.
    assert wrong.exception(60) is not None
    wait_for_successor(system, a)


def test_removed_swarms_are_cleared_away_in_steps(
    system: ActorSystem, store: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = iter([True, True, False])
    done = threading.Event()

    def purge(limit: int = 1000) -> bool:
        more = next(steps)
        if not more:
            done.set()
        return more

    monkeypatch.setattr(store, "purge", purge)
    assert system.find("root/a").ask(WriteThis((RemoveSwarm("s"),)), timeout=60) is None
    assert done.wait(60)


def test_what_could_not_be_cleared_away_is_tried_again(
    system: ActorSystem, store: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though no other swarm is removed."""
    monkeypatch.setattr(actor, "PURGE_AGAIN", 0.01)
    outcomes = iter([StorageUnavailable("the disk is full")] * 3)
    done = threading.Event()

    def purge(limit: int = 1000) -> bool:
        if error := next(outcomes, None):
            raise error
        done.set()
        return False

    monkeypatch.setattr(store, "purge", purge)
    assert system.find("root/a").ask(WriteThis((RemoveSwarm("s"),)), timeout=60) is None
    assert done.wait(60)


def test_housekeeping_is_done_beside_commits(
    system: ActorSystem, store: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actor, "TIDY_AFTER", 0.05)
    begun, go_on = threading.Event(), threading.Event()

    def tidy() -> None:
        begun.set()
        go_on.wait(60)
        raise StorageUnavailable("the disk is full")  # may fail: it is tried again later

    monkeypatch.setattr(store, "tidy", tidy)
    scribe = system.find("root/a")
    scribe.ask(WriteThis((AppendEvents("s", 1, (bytes(200),)),)), timeout=60)
    assert begun.wait(60)
    for number in range(2, 10):
        assert scribe.ask(WriteThis((event(number),)), timeout=60) is None
    go_on.set()
    assert scribe.ask(WriteThis((event(10),)), timeout=60) is None
