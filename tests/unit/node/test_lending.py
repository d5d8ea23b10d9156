"""Which values a plane sends to its peers, and what they can have it do."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from manta.node.plane import envelope
from manta.node.plane.envelope import Envelope, NoParcel, NotNow, WantParcel
from manta.node.plane.lending import MOST, ParcelLending
from manta.transports.errors import BulkError, LocalTransportError


class Own:
    """Implements what is used of `parcels.Own`."""

    def __init__(self, swarm_id: str = "s") -> None:
        self.swarm_id = swarm_id
        self.fd = 99
        self.in_memory = True
        self.transfers: set[Any] = set()
        self.has_it: set[str] = set()
        self.error: OSError | None = None

    def mapped(self) -> Any:
        if self.error is not None:
            raise self.error
        return SimpleNamespace(view=memoryview(b"value"), followed=lambda: print)


class Bulk:
    """One peer for each key; `under_way` holds who is to be told that a transfer has ended."""

    def __init__(self) -> None:
        self.under_way: dict[bytes, Callable[[BulkError | None], None]] = {}
        self.cancelled: list[bytes] = []
        self.error: Exception | None = None

    def peer(self, key: str) -> Bulk:
        if key == "unknown":
            raise LocalTransportError("the key is not known here")
        return self

    def send(self, transfer: bytes, parts: Any, *, done: Any, progress: Any, memfd: int) -> None:
        assert bytes(parts[0]) == b"value"
        assert memfd == 99
        if self.error is not None:
            raise self.error
        self.under_way[transfer] = done

    def cancel(self, transfer: bytes, why: str) -> None:
        self.cancelled.append(transfer)


class Lab:
    def __init__(self) -> None:
        self.bulk = Bulk()
        self.own = {number.to_bytes(16, "big"): Own() for number in range(MOST + 10)}
        self.said: list[tuple[str, Any]] = []
        self.unused: list[Own] = []
        self.members = {"a", "b"}
        io: Any = SimpleNamespace(call=lambda call: (call(), True)[1])
        links: Any = SimpleNamespace(send=self._send)
        known: Any = SimpleNamespace(peer=lambda swarm, key: key if key in self.members else None)
        parcels: Any = SimpleNamespace(
            own=self.own.get,
            unused=self.unused.append,
            opened=lambda own: own.fd,
            most_at_once=1000,
        )
        bulk: Any = self.bulk
        self.lending = ParcelLending(io, bulk, links, known, parcels)

    def _send(self, key: str, data: bytes) -> None:
        self.said.append((key, envelope.unpack(data).body))

    def want(self, parcel: int, transfer: int, key: str = "a", swarm_id: str = "s") -> None:
        want = WantParcel(parcel.to_bytes(16, "big"), transfer.to_bytes(16, "big"))
        self.lending.serve(key, Envelope(envelope.VERSION, swarm_id, "e", want), want)

    def ended(self, transfer: int, error: BulkError | None = None) -> None:
        self.bulk.under_way.pop(transfer.to_bytes(16, "big"))(error)


@pytest.fixture
def lab() -> Lab:
    return Lab()


def named(number: int) -> bytes:
    return number.to_bytes(16, "big")


def test_a_value_is_sent_once_however_often_it_is_asked_for(lab: Lab) -> None:
    for _ in range(5):
        lab.want(0, 1)
    assert list(lab.bulk.under_way) == [named(1)]
    assert len(lab.own[named(0)].transfers) == 1
    lab.ended(1)
    assert not lab.own[named(0)].transfers
    assert lab.unused == [lab.own[named(0)]]
    lab.want(0, 1)  # the peer has begun anew
    assert list(lab.bulk.under_way) == [named(1)]
    assert not lab.said


def test_a_transfer_under_another_id_takes_the_place_of_the_one_before(lab: Lab) -> None:
    lab.want(0, 1)
    lab.want(0, 2)
    assert lab.bulk.cancelled == [named(1)]
    lab.ended(1, BulkError("cancelled"))
    lab.want(0, 2)
    assert list(lab.bulk.under_way) == [named(2)]
    lab.want(0, 2, "b")  # each peer has its own
    assert lab.bulk.cancelled == [named(1)]


def test_a_peer_has_so_many_under_way_whatever_it_asks(lab: Lab) -> None:
    for number in range(10 * MOST):
        lab.want(0, number)
    assert len(lab.own[named(0)].transfers) == MOST
    assert all(isinstance(body, NotNow) for _, body in lab.said)
    assert "on their way to that node already" in lab.said[0][1].why
    lab.want(1, 1, "b")
    assert len(lab.own[named(1)].transfers) == 1
    lab.ended(0, BulkError("cancelled"))
    lab.want(2, 100_000)
    assert len(lab.own[named(2)].transfers) == 1


def test_nothing_of_another_swarm_is_sent(lab: Lab) -> None:
    lab.own[named(0)].swarm_id = "another"
    lab.want(0, 1)
    lab.want(100_000, 2)
    assert [body for _, body in lab.said] == [NoParcel(named(1)), NoParcel(named(2))]
    assert not lab.bulk.under_way


def test_what_cannot_be_sent_now_is_said_with_the_reason(lab: Lab) -> None:
    lab.own[named(0)].error = OSError(24, "Too many open files")
    lab.want(0, 1)
    lab.bulk.error = BulkError("9 transfers wait for this peer already")
    lab.want(1, 2)
    lab.want(1, 3, "unknown")
    sentences = [body.why for _, body in lab.said if isinstance(body, NotNow)]
    for part in ("Too many open files", "wait for this peer", "not known"):
        assert part in sentences.pop(0)
    assert len(lab.unused) == 3
    lab.bulk.error = None
    lab.want(1, 2)
    assert list(lab.bulk.under_way) == [named(2)]


def test_who_leaves_the_swarm_gets_no_more_of_it(lab: Lab) -> None:
    lab.want(0, 1, "a")
    lab.want(0, 2, "b")
    lab.lending.directories_changed()
    assert not lab.bulk.cancelled
    lab.members.discard("b")
    lab.lending.directories_changed()
    assert lab.bulk.cancelled == [named(2)]
