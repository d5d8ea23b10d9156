"""The keeper of planes that end or cannot be begun, and of what they have kept."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from manta.actors import (
    Actor,
    ActorSystem,
    ChildSpec,
    LocalRef,
    Refused,
    Supervisor,
)
from manta.node.peers.book import PeerBook, PeersAnew
from manta.node.peers.directory import DirectoryChanged
from manta.node.plane import keeper as keepers
from manta.node.plane import orders
from manta.node.plane.folder_lock import take_over
from manta.node.plane.keeper import PlaneKeeper
from manta.node.plane.pauses import LONGEST
from manta.node.plane.process import PlaneGone
from manta.node.plane.spool import Spool, Timeline
from manta.node.shared.messages import AwaitWrites, Connect, EndExchange, ExchangeLost
from manta.protocol.base import Instance
from manta.protocol.node import HeartbeatReply
from manta.protocol.paths import MANAGER_LINK
from manta.testing import FakeClock, run_for, settle
from manta.transports.exchange.kept import Kept, KeptLetter
from manta.transports.exchange.messages import Parcel

AT = Instance("swarm-1", "t", 0, 0, 0)
NODE, _, LINK = MANAGER_LINK.partition("/")
VALUE = bytes(range(16))


class Process:
    """What a PlaneProcess is to its keeper."""

    pid = 1

    def __init__(self, bench: Bench, gone: Callable[[str], None]) -> None:
        self.gone = gone
        self._bench = bench
        self.orders: list[Any] = []
        self.is_closed = False

    def send(self, order: Any, fds: Any = ()) -> None:
        for fd in fds:
            os.close(fd)
        if self._bench.is_stuck:
            raise PlaneGone("the plane has left 20,000 orders unread")
        self.orders.append(order)

    def close(self) -> None:
        self.is_closed = True


class Owner(Actor):
    def __init__(self, heard: list[Any]) -> None:
        self._heard = heard

    def receive(self, message: Any) -> None:
        self._heard.append(message)


class Bench:
    """A keeper, and time."""

    def __init__(self, folder: Path, system: ActorSystem, clock: FakeClock) -> None:
        self.folder, self.system, self.clock = folder, system, clock
        self.begun: list[float] = []
        self.planes: list[Process] = []
        self.heard: list[Any] = []
        self.error: Exception | None = None
        self.is_stuck = False
        self.context: Any = SimpleNamespace(
            state=SimpleNamespace(plane=folder),
            identity=SimpleNamespace(node_id="id-1"),
            peers=PeerBook(),
            peer_socket=None,
            bulk_socket=None,
            keys=SimpleNamespace(public="", secret=""),
            value_memory=1,
            config=SimpleNamespace(
                peers_bulk_cipher="aes", peers_links="tcp", manager_address="tcp://127.0.0.1:1"
            ),
            manager_key="",
            spools=(),
        )

    def start(self) -> None:
        self.owner = self.system.spawn(ChildSpec("owner", lambda: Owner(self.heard)))
        self.keeper: LocalRef = self.system.spawn(
            ChildSpec("plane", lambda: PlaneKeeper(self.context))
        )
        settle(self.system)

    def begins(self, serve: object, fds: object, hear: object, gone: Any) -> Process:
        self.begun.append(self.clock.now())
        if self.error is not None:
            raise self.error
        self.planes.append(Process(self, gone))
        return self.planes[-1]

    def tell(self, message: Any) -> None:
        self.keeper.tell(message)
        settle(self.system)

    def connect(self) -> Future[Any]:
        asked = self.keeper.ask_future(Connect(AT, self.owner.address.path), timeout=1000)
        settle(self.system)
        return asked

    def end_plane(self) -> None:
        self.planes[-1].gone("closed its connection")
        settle(self.system)

    def run_for(self, seconds: float) -> None:
        run_for(seconds, self.system)

    def named(self, *swarm_ids: str) -> None:
        found = tuple(DirectoryChanged(swarm_id, "e", True) for swarm_id in swarm_ids)
        self.tell(PeersAnew(found, ()))

    def files(self) -> set[str]:
        return {path.name for path in self.folder.rglob("*") if path.is_file()} - {"lock"}


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    clock = FakeClock(now=1000.0)
    with ActorSystem("test", clock=clock) as system:
        bench = Bench(tmp_path / "plane", system, clock)
        monkeypatch.setattr(keepers, "PlaneProcess", bench.begins)
        yield bench


def keep(folder: Path, *swarm_ids: str) -> None:
    """As a plane does of an attempt that has ended: a letter, and a large value in a file."""
    spool = Spool(folder, "id-1", lambda call: call())
    for number, swarm_id in enumerate(swarm_ids):
        done, id_ = threading.Event(), bytes([number]) + VALUE[1:]
        letters = KeptLetter("id-2", "x", 0, b"small"), KeptLetter("id-2", "x", 1, Parcel(id_, 5))
        path = spool.values / id_.hex()
        kept = Kept(0, "t", 0, 0, letters)
        spool.keep(Timeline(swarm_id, "e"), kept, [partial(path.write_bytes, b"large")], done.set)
        assert done.wait(20)
    spool.close()


def test_a_plane_that_ends_at_once_again_and_again_is_begun_after_growing_pauses(
    bench: Bench,
) -> None:
    keep(bench.folder, "swarm-1")
    bench.start()
    keeper = bench.keeper
    for _ in range(60):
        bench.named("swarm-1")  # as is told on request after each pause
        if bench.planes and not bench.planes[-1].is_closed:
            bench.end_plane()
        bench.run_for(1.0)
    assert bench.system.find(keeper.address.path) is keeper
    gaps = [later - one for one, later in zip(bench.begun, bench.begun[1:], strict=False)]
    assert gaps[:5] == sorted(gaps[:5])
    assert gaps[0] <= 1.0
    assert gaps[-1] >= 16.0
    assert all(plane.is_closed for plane in bench.planes)


@pytest.mark.parametrize(
    "error", [OSError(11, "Resource temporarily unavailable"), RuntimeError("can't start a thread")]
)
def test_a_plane_that_cannot_be_begun_for_what_is_kept_is_tried_again(
    bench: Bench, error: Exception
) -> None:
    keep(bench.folder, "swarm-1")
    bench.error = error
    bench.start()
    for _ in range(30):
        bench.named("swarm-1")
        bench.run_for(1.0)
    assert 4 <= len(bench.begun) <= 7
    bench.error = None
    bench.run_for(LONGEST)
    bench.named("swarm-1")
    assert len(bench.planes) == 1


def test_attempts_of_a_plane_that_has_ended_are_told(bench: Bench) -> None:
    bench.start()
    assert bench.connect().result(5).fd >= 0
    ending = bench.keeper.ask_future(EndExchange(AT, counts=True), timeout=1000)
    settle(bench.system)
    bench.end_plane()
    assert ending.result(5) is False
    assert bench.heard == [ExchangeLost(AT)]
    assert bench.connect().result(5).fd >= 0
    assert len(bench.planes) == 2


def test_who_wants_a_connection_during_a_pause_is_given_it_afterwards(bench: Bench) -> None:
    bench.start()
    for _ in range(4):
        bench.connect()
        bench.run_for(5.0)
        bench.end_plane()
    count, asked = len(bench.planes), bench.connect()
    assert not asked.done()
    bench.run_for(5.0)
    assert asked.result(5).fd >= 0
    assert len(bench.planes) == count + 1


def test_who_wants_a_connection_of_a_plane_that_cannot_be_begun_is_refused(bench: Bench) -> None:
    bench.start()
    bench.error = OSError(24, "Too many open files")
    with pytest.raises(Refused, match="no connection to others: Too many open files"):
        bench.connect().result(5)
    bench.error = None
    assert bench.connect().result(5).fd >= 0


def test_a_plane_that_takes_no_orders_is_ended_and_another_is_begun(bench: Bench) -> None:
    bench.start()
    bench.connect().result(5)
    bench.is_stuck = True
    bench.named("swarm-1")
    assert bench.planes[0].is_closed
    assert bench.heard == [ExchangeLost(AT)]
    bench.planes[0].gone("closed its connection")  # of a plane that is known to be gone
    bench.is_stuck = False
    bench.connect().result(5)
    bench.planes[0].gone("closed its connection")
    settle(bench.system)
    assert not bench.planes[1].is_closed


class ManagerLink(Actor):
    """Answers who waits for what an attempt wrote when it is told to."""

    def __init__(self, waiting: list[Any]) -> None:
        self._waiting = waiting

    def receive(self, message: Any) -> None:
        if message == "crash":
            raise RuntimeError("of a test")
        assert message == AwaitWrites(AT)
        self._waiting.append(self.defer())


@pytest.fixture
def waiting(bench: Bench) -> list[Any]:
    """Replies of a manager's link."""
    found: list[Any] = []

    class Node(Supervisor):
        def children(self) -> list[ChildSpec]:
            return [ChildSpec(LINK, lambda: ManagerLink(found))]

    bench.system.spawn(ChildSpec(NODE, Node))
    bench.start()
    return found


def test_a_plane_hears_when_the_manager_has_what_an_attempt_wrote(
    bench: Bench, waiting: list[Any]
) -> None:
    bench.connect().result(5)
    bench.tell(orders.Settle(AT))
    assert len(waiting) == 1
    assert orders.Settled(AT) not in bench.planes[0].orders
    waiting[0].set(None)
    settle(bench.system)
    assert bench.planes[0].orders[-1] == orders.Settled(AT)


def test_it_is_asked_again_of_a_link_that_has_failed(bench: Bench, waiting: list[Any]) -> None:
    bench.connect().result(5)
    bench.tell(orders.Settle(AT))
    bench.system.ref(MANAGER_LINK).tell("crash")
    settle(bench.system)
    bench.run_for(2.0)
    assert len(waiting) == 2
    waiting[1].set(None)
    settle(bench.system)
    assert bench.planes[0].orders[-1] == orders.Settled(AT)


def test_another_plane_is_not_told_what_the_one_before_asked(
    bench: Bench, waiting: list[Any]
) -> None:
    bench.connect().result(5)
    bench.tell(orders.Settle(AT))
    bench.end_plane()
    bench.connect().result(5)
    waiting[0].set(None)
    settle(bench.system)
    assert orders.Settled(AT) not in bench.planes[1].orders


def test_a_plane_begins_for_what_is_kept_of_a_swarm_whose_nodes_are_named(bench: Bench) -> None:
    keep(bench.folder, "swarm-1", "swarm-2")
    bench.start()
    assert bench.context.spools == ("swarm-1", "swarm-2")
    bench.named("swarm-3")
    bench.tell(DirectoryChanged("swarm-4", "e", True))
    bench.tell(HeartbeatReply(0))
    assert not bench.planes
    bench.tell(DirectoryChanged("swarm-2", "e", True))
    assert len(bench.planes) == 1


def test_what_is_kept_of_a_swarm_that_is_over_is_deleted_though_no_plane_runs(
    bench: Bench,
) -> None:
    keep(bench.folder, "swarm-1", "swarm-2")
    bench.start()
    before = bench.files()
    assert len(before) == 4
    bench.tell(HeartbeatReply(0))  # it knows neither to be over
    assert bench.files() == before
    bench.tell(HeartbeatReply(0, ended=("swarm-2", "swarm-3")))
    while bench.context.spools != ("swarm-1",):
        bench.tell(HeartbeatReply(0))
    assert len(bench.files()) == 2
    assert VALUE.hex() in bench.files()
    assert not bench.planes


def test_what_another_process_has_is_deleted_once_that_is_gone(bench: Bench) -> None:
    keep(bench.folder, "swarm-1")
    lock = take_over(bench.folder)
    assert lock is not None
    bench.start()
    before, over = bench.files(), HeartbeatReply(0, ended=("swarm-1",))
    for _ in range(10):
        bench.tell(over)
    assert bench.files() == before
    os.close(lock)
    while bench.context.spools:
        bench.tell(over)
    assert not bench.files()


def test_a_plane_that_runs_is_told_of_what_is_over(bench: Bench) -> None:
    keep(bench.folder, "swarm-1", "swarm-2")
    bench.start()
    bench.named("swarm-1")
    bench.tell(HeartbeatReply(0, ended=("swarm-2", "swarm-3")))
    assert [one for one in bench.planes[0].orders if isinstance(one, orders.Forget)] == [
        orders.Forget(("swarm-2",))
    ]
    assert len(bench.files()) == 4  # they are the plane's


def test_a_file_that_is_damaged_names_no_swarm(bench: Bench) -> None:
    bench.folder.mkdir()
    for number, data in enumerate((b"", b"garbage", bytes(5000))):
        (bench.folder / f"{number}.spool").write_bytes(data)
    bench.start()
    assert bench.context.spools == ()
    bench.tell(HeartbeatReply(0, ended=("swarm-1",)))
    assert len(bench.files()) == 3
