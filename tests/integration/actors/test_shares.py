"""What peers may have waiting in a mailbox here: none fills it for the others."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from typing import Any, ClassVar

import msgspec
import pytest

from manta.actors import (
    Actor,
    ActorSystem,
    ChildSpec,
    MailboxFull,
    MailboxPolicy,
    SystemClock,
    remote,
    shares,
)
from manta.actors.shares import GUEST_MESSAGES, Share
from manta.testing import wait_until
from manta.testing.memory.network import MemoryNetwork
from manta.transports.interface import Transport
from manta.transports.security.admission import Admission
from manta.transports.security.keys import KeyPair


class Count(msgspec.Struct, frozen=True, tag=True):
    number: int
    padding: bytes = b""
    reply: ClassVar[type] = int


class Server(Actor):
    accepts = Count
    mailbox = MailboxPolicy(bound=200)

    def __init__(self, gate: threading.Event, busy: threading.Event) -> None:
        self._gate, self.busy = gate, busy

    def receive(self, message: Any) -> Any:
        self.busy.set()
        self._gate.wait(60)
        return message.number


class House:
    """A server whose actor waits for a gate, and those who dial it."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self._network = MemoryNetwork(SystemClock())
        self._stop = threading.Event()
        self._runner = threading.Thread(target=self._run)
        self._runner.start()
        self._undo = contextlib.ExitStack()
        self.admission = Admission(guests=True, owner_of=lambda key: self.owners.get(key, key))
        self.owners: dict[str, str] = {}
        self.keys = KeyPair.generate()
        system = self._system(self._network.transport(self.keys))
        busy = threading.Event()
        server = system.spawn(ChildSpec("server", lambda: Server(self.gate, busy)))
        server.tell(Count(0))
        assert busy.wait(60), "it handles one message, and all others wait"
        listener = system.listen("tcp://127.0.0.1:0", self.admission, published={"server"})
        self._address = listener.address

    def _run(self) -> None:
        while not self._stop.wait(0.0005):
            self._network.run_for(0)

    def _system(self, transport: Transport) -> ActorSystem:
        made = ActorSystem("s", transport=transport)
        self._undo.callback(made.stop)
        return made

    def dial(self, keys: KeyPair | None = None, owner: str = "") -> Any:
        """The server's actor; with an owner, the key is known."""
        keys = keys or KeyPair.generate()
        if owner:
            self.owners[keys.public] = owner
            self.admission.allow(keys.public)
        system = self._system(self._network.transport(keys))
        return system.dial(self._address, self.keys.public).wait_up(timeout=60).ref("server")

    def close(self) -> None:
        self.gate.set()
        self._undo.close()
        self._stop.set()
        self._runner.join()


@pytest.fixture
def house() -> Iterator[House]:
    made = House()
    yield made
    made.close()


def ask(ref: Any, count: int, padding: bytes = b"") -> list[Future[Any]]:
    return [ref.ask_future(Count(number, padding), timeout=30) for number in range(count)]


def refused(futures: list[Future[Any]], at_least: int) -> Callable[[], bool]:
    def are() -> bool:
        found = [one for one in futures if one.done() and one.exception() is not None]
        return len(found) >= at_least

    return are


def test_a_guest_has_few_asks_at_a_time_and_others_have_room(house: House) -> None:
    guests = [ask(house.dial(), 100) for _ in range(5)]
    for futures in guests:
        wait_until(refused(futures, 100 - GUEST_MESSAGES))
        assert all(isinstance(one.exception(0), MailboxFull) for one in futures if one.done())
    known = ask(house.dial(owner="node 1"), 50)
    house.gate.set()
    wait(known, timeout=60)
    assert [one.result(0) for one in known] == list(range(50))
    for futures in guests:
        wait(futures, timeout=60)
        assert sum(one.exception(0) is None for one in futures) == GUEST_MESSAGES


def test_a_guest_has_few_bytes_at_a_time(house: House) -> None:
    futures = ask(house.dial(), 5, bytes(100_000))
    wait_until(refused(futures, 3))
    house.gate.set()
    wait(futures, timeout=60)
    kept = [one.result(0) for one in futures if one.exception(0) is None]
    assert kept == [0, 1]


def test_keys_of_one_user_share_what_a_user_may(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "MESSAGES", 60)
    futures = [one for _ in range(4) for one in ask(house.dial(owner="user 1"), 50)]
    wait_until(refused(futures, 200 - 60))
    other = ask(house.dial(owner="user 2"), 40)
    house.gate.set()
    wait(other, timeout=60)
    assert [one.result(0) for one in other] == list(range(40))
    wait(futures, timeout=60)


def test_who_has_signed_in_has_a_user_s_share_on_the_same_link(house: House) -> None:
    keys = KeyPair.generate()
    ref = house.dial(keys)
    wait_until(refused(ask(ref, 50), 50 - GUEST_MESSAGES))
    house.owners[keys.public] = "user 1"
    house.admission.allow(keys.public)
    more = ask(ref, 50)
    house.gate.set()
    wait(more, timeout=60)
    assert [one.result(0) for one in more] == list(range(50))


def test_what_was_taken_makes_room_for_more(house: House) -> None:
    house.gate.set()
    ref = house.dial()
    for number in range(10 * GUEST_MESSAGES):
        assert ref.ask(Count(number), timeout=60) == number


def test_a_large_message_may_wait_alone() -> None:
    share, most = Share(), (shares.MESSAGES, shares.BYTES)
    assert not share.put_if_few(shares.BYTES + 1)
    assert share.put(shares.BYTES + 1, *most)
    assert not share.put_if_few(1)
    assert not share.put(1, *most)
    share.take(shares.BYTES + 1)
    assert share.put(1, *most)
    assert share.put_if_few(1)
