"""Large values of other nodes come whatever is lost on the way, or are waited for no longer than
was asked; and what peers tell of and ask for costs the others nothing."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from manta.node.peers.book import PeersAnew
from manta.node.peers.directory import DirectoryChanged
from manta.node.plane import envelope
from manta.node.plane.envelope import WantParcel
from manta.node.plane.lending import MOST
from manta.node.plane.parcels import Own
from manta.protocol.peers import Departed, Departure
from manta.transports.exchange.messages import Parcel, SentLetter
from tests.integration.node.test_plane_links import wait
from tests.support.planes import SWARM, Node, Planes, TaskEnd, planes

OTHER = "swarm-2"
SIZE = 3_000_000
FEW = 8 << 20
"""Memory of a node that fetches no value of that size before a task asks for it."""


def tell(lab: Planes, node: Node, *swarm_ids: str) -> None:
    """All nodes have a part in those swarms, and the node is told so."""
    peers = tuple(one.peer for one in lab.nodes)
    told = tuple(DirectoryChanged(one, lab.epoch, True, peers) for one in swarm_ids)
    node.run(node.plane.told, PeersAnew(told, ()))


def begin_receiving(end: TaskEnd, timeout: float = 60.0, tag: str = "x") -> None:
    end.begin("receive_letter", source="id-1", tag=tag, number=0, timeout=timeout)


def receive(end: TaskEnd, timeout: float = 20.0, tag: str = "x") -> bytes:
    begin_receiving(end, timeout, tag)
    value: bytes = end.end()
    return value


@contextmanager
def sent(value: bytes, *, has_bulk: bool = True) -> Iterator[tuple[Planes, TaskEnd, TaskEnd]]:
    """Two nodes of two swarms, where the letter that tells of the value has come, not the value;
    unless `has_bulk`, nothing connects for values."""
    with planes(2, most=FEW) as lab:
        for node in lab.nodes:
            if not has_bulk:
                node.plane.paths.told = lambda key, at: None  # type: ignore[method-assign]
        for node in lab.nodes:
            tell(lab, node, SWARM, OTHER)
        lab.enroll()
        one, two = (node.attempt(lab.at(rank)) for rank, node in enumerate(lab.nodes))
        one.call("send_letter", to="id-2", tag="x", value=value, timeout=20.0)
        one.call("send_letter", to="id-2", tag="then", value=b"then", timeout=20.0)
        assert receive(two, tag="then") == b"then"
        yield lab, one, two
        for end in (one, two):
            end.close()


def is_fetching(node: Node) -> bool:
    return node.run(lambda: node.plane._carrier.due) is not None


def test_a_holder_that_learns_of_the_swarm_late_is_asked_again() -> None:
    value = os.urandom(SIZE)
    with sent(value) as (lab, one, two):
        lab.nodes[0].end(lab.at(0))
        one.close()
        holder = lab.nodes[0] = lab.nodes[0].again()
        tell(lab, lab.nodes[1], SWARM, OTHER)
        tell(lab, holder, OTHER)
        wait(lambda: holder.run(holder.plane.links.is_up, lab.nodes[1].peer.key))
        heard: list[type] = []
        received = holder.plane.received

        def note(key: str, data: Any) -> None:
            heard.append(type(envelope.unpack(data).body))
            received(key, data)

        holder.run(setattr, holder.plane, "received", note)
        begin_receiving(two)
        wait(lambda: heard.count(WantParcel) >= 2)  # it was asked in vain
        tell(lab, holder, SWARM, OTHER)
        assert two.end() == value


def test_a_value_that_does_not_come_is_waited_for_as_long_as_was_asked() -> None:
    value = os.urandom(SIZE)
    with sent(value, has_bulk=False) as (lab, _, two):
        for _ in range(2):
            with pytest.raises(LookupError) as raised:
                receive(two, timeout=0.7)
            kind, sentence = raised.value.args
            assert kind == "Timeout"
            assert sentence.startswith("Waited 0.7 s in vain: node-1 has sent a value, and 0.0 of")
            assert "no connection for large values: connecting" in sentence
        for node in lab.nodes:
            del node.plane.paths.told
        lab.nodes[0].run(lab.nodes[0].plane.links.end, lab.nodes[1].peer.key, "to be made anew")
        assert receive(two) == value


def test_who_waits_for_a_value_of_a_node_that_leaves_the_swarm_is_told_so() -> None:
    """The nodes share another swarm: their link, and its key, stay."""
    with sent(os.urandom(SIZE), has_bulk=False) as (lab, _, two):
        begin_receiving(two, timeout=3600.0)
        node = lab.nodes[1]
        wait(lambda: is_fetching(node))
        gone = Departed("id-1", "node-1", lab.nodes[0].peer.key, Departure.LOST)
        told = DirectoryChanged(SWARM, lab.epoch, False, (), (gone,))
        node.run(node.plane.told, told)
        with pytest.raises(LookupError, match=r"PeerLost.*node-1 is gone"):
            two.end()
        assert not is_fetching(node)


def test_a_value_that_its_node_cannot_send_now_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    value = os.urandom(SIZE)
    mapped = Own.mapped

    def refused(own: Own) -> memoryview:
        raise OSError(24, "Too many open files")

    with sent(value) as (_, _, two):
        monkeypatch.setattr(Own, "mapped", refused)
        with pytest.raises(LookupError, match=r"Timeout.*its node says: .*Too many open files"):
            receive(two, timeout=1.5)
        monkeypatch.setattr(Own, "mapped", mapped)
        assert receive(two) == value


def test_an_attempt_that_ends_while_a_value_comes_leaves_nothing_behind() -> None:
    value = os.urandom(SIZE)
    with sent(value, has_bulk=False) as (lab, _, two):
        node = lab.nodes[1]
        begin_receiving(two)
        wait(lambda: is_fetching(node))
        node.end(lab.at(1), counts=False)
        assert two.socket.receive() is None
        assert node.run(lambda: node.plane._deliveries.due) is None


def test_a_peer_that_asks_without_end_costs_a_bounded_number_of_transfers() -> None:
    value = os.urandom(SIZE)
    with sent(value) as (lab, _, two):
        holder, asker = lab.nodes
        (parcel, own), *_ = holder.run(lambda: list(holder.plane._parcels._own.items()))
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(2_000):
            want = WantParcel(parcel, secrets.token_bytes(16))
            asker.run(_send, asker, holder, want)
        assert receive(two) == value  # after them all
        assert len(own.transfers) <= MOST
        assert len(os.listdir("/proc/self/fd")) <= before + 20
        holder.run(holder.plane._parcels.release, Parcel(parcel, SIZE))
        wait(lambda: not own.transfers and holder.plane._parcels.memory.used == 0)


def _send(asker: Node, holder: Node, want: WantParcel) -> None:
    asker.plane.links.send(holder.peer.key, envelope.pack(SWARM, "epoch-1", want))


@pytest.mark.parametrize("size", [1 << 40, FEW])
def test_a_value_that_a_peer_tells_of_takes_no_room_from_others(size: int) -> None:
    with sent(os.urandom(100_000)) as (lab, one, two):
        told = SentLetter(0, "worker", 1, "y", 0, Parcel(secrets.token_bytes(16), size))
        lab.nodes[1].run(lab.nodes[1].plane.say, SWARM, "id-1", told)
        two.call("send_letter", to="id-1", tag="z", value=b"then", timeout=20.0)
        got: Any = one.call("receive_letter", source="id-2", tag="z", number=0, timeout=20.0)
        assert got == b"then"
        parcels = lab.nodes[0].plane._parcels
        assert parcels.memory.used < 200_000
        one.call("send_letter", to="id-1", tag="own", value=bytes(FEW // 2), timeout=20.0)
        if size > FEW:
            with pytest.raises(LookupError, match="ResourceExhaustionError"):
                one.call("receive_letter", source="id-2", tag="y", number=0, timeout=20.0)
