"""The sums over connections, and what looking at them costs."""

from __future__ import annotations

import os
import socket
import struct
import sys

import pytest

from manta.transports.security.admission import Admission
from manta.transports.security.strangers import StrangerLimits
from manta.transports.zeromq.connections import (
    Breach,
    Connection,
    Connections,
    IntakeOptions,
    Lookout,
)
from manta.transports.zeromq.intake import Bounds

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="TCP_INFO is Linux's")

KIB = 1 << 10
MUCH = Bounds(100 * KIB, 100 * KIB, 60.0)
OPTIONS = IntakeOptions(
    MUCH, guest=MUCH, stranger=MUCH, strangers=20 * KIB, key=30 * KIB, total=50 * KIB
)


class Port:
    """Accepts connections as zmq would, and holds what they send."""

    def __init__(self, *known, **limits):
        self.ended: dict[Connection, Breach | None] = {}
        self.admission = Admission(
            known,
            guests=True,
            limits=StrangerLimits(**limits),
            owner_of=lambda key: key.split("@")[-1],
        )
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._listening.getsockname()[1]}"
        self.connections = Connections(
            self.admission, OPTIONS, self.ended.__setitem__, self.address
        )
        self._sockets = [self._listening]

    def connect(self, key="", at="127.0.0.1"):
        ours = socket.create_connection(self._listening.getsockname(), source_address=(at, 0))
        theirs, _ = self._listening.accept()
        self._sockets += [ours, theirs]
        self.connections.accepted(theirs.fileno())
        made = self.connections.at(theirs.fileno())
        assert made is not None
        if key:
            self.connections.heard(made, key)
        return made, ours, theirs

    def send(self, size, key="", at="127.0.0.1"):
        """A connection that sent so much, all of which is held."""
        made, ours, theirs = self.connect(key, at)
        self.add(size, ours, theirs)
        return made

    def add(self, size, ours, theirs):
        ours.sendall(bytes(size))
        while size:
            size -= len(theirs.recv(size))

    def look(self, passed=0.1):
        """Those that it ended, and why."""
        self.ended.clear()
        self.connections.look(passed, lambda: True)
        return dict(self.ended)

    def close(self):
        for one in self._sockets:
            one.close()


@pytest.fixture
def port():
    many = (f"{number}@user" for number in range(10))
    made = Port("known", *(f"known-{number}" for number in range(10)), *many)
    yield made
    made.close()


def test_strangers_share_what_they_may_hold_and_the_oldest_of_who_holds_most_goes(port):
    first, *others = [port.send(4 * KIB, at="127.0.0.2") for _ in range(3)]
    large = port.send(7 * KIB, "a stranger who was heard")
    assert port.look() == {}
    last = port.send(2 * KIB, at="127.0.0.2")
    found = port.look()
    assert list(found) == [first], "not the largest, who is alone at its address"
    assert "unknown here" in found[first].why
    assert not found[first].is_own
    known = port.send(25 * KIB, "known")
    assert set(port.look()) == {first}
    assert not {known, large, last, *others} & set(port.look())


def test_a_key_shares_among_its_connections(port):
    few, many = port.send(9 * KIB, "known"), port.send(15 * KIB, "known")
    port.send(20 * KIB, "known-1")
    assert port.look() == {}
    port.send(7 * KIB, "known")
    found = port.look()
    assert list(found) == [many]
    assert "of its key" in found[many].why
    assert found[many].is_own
    assert few not in found


def test_all_together_share_what_this_side_holds(port):
    made = [port.send((8 + number) * KIB, f"known-{number}") for number in range(5)]
    assert port.look() == {}
    more = port.send(2 * KIB)
    found = port.look()
    assert list(found) == [made[-1]]
    assert "all peers together" in found[made[-1]].why
    assert not found[made[-1]].is_own
    assert more not in found


def test_who_fills_what_all_share_with_many_keys_is_cut_and_not_who_has_the_largest(port):
    """Each connection of the user holds less than the honest one's, and so does each key."""
    honest = port.send(9 * KIB, "known")
    filling = [port.send(6 * KIB, f"{number}@user") for number in range(8)]
    found = port.look()
    assert list(found) == filling[:2], "its oldest, until the rest fits"
    assert honest not in found
    assert not any(breach.is_own for breach in found.values())


def test_many_strangers_together_do_not_push_out_who_is_known(port):
    honest = [port.send(9 * KIB, f"known-{number}") for number in range(4)]
    strangers = [port.send(6 * KIB) for _ in range(3)]
    assert set(port.look()) <= set(strangers)
    assert not set(honest) & set(port.look())


def test_another_thread_sees_what_is_too_much_while_this_one_is_busy(port):
    idle, reading, flooding = (port.connect("known")[0] for _ in range(3))
    (one, *its), (other, *theirs) = port.connect("known-1"), port.connect("known-2")
    port.look()
    assert port.connections.glance() == []
    port.add(101 * KIB, *its)
    port.add(90 * KIB, *theirs)
    other.intake.read += 85 * KIB  # by the thread that was not busy then
    ((found, breach),) = port.connections.glance()
    assert found is one
    assert "at once" in breach.why
    assert breach.is_own
    assert port.connections.glance(), "it changes nothing"
    one.ended = True
    assert port.connections.glance() == []
    port.add(26 * KIB, *theirs)
    ((found, breach),) = port.connections.glance()
    assert (found, breach.is_own) == (other, True), "more than its key may hold"
    assert not {idle, reading, flooding} & {found}


def test_a_descriptor_that_another_port_has_by_now_is_none_of_this_ones(port):
    other = Port("known")
    try:
        _, _, theirs = other.connect("known")
        assert port.connections.accepted(theirs.fileno()) is None
        assert len(port.connections) == 0
        own, _, had = port.connect("known")
        _, _, newer = other.connect("known")
        os.dup2(newer.fileno(), had.fileno())  # closed, and taken again before this port heard
        assert port.connections.accepted(had.fileno()) is None
        assert own not in port.look()
        assert len(port.connections) == 0
        newer.sendall(b"it was left alone")
    finally:
        other.close()


def test_it_is_told_by_the_address_where_that_has_one():
    ports = [Port("known"), Port("known")]
    try:
        _, _, theirs = ports[0].connect()
        number = int(ports[0].address.rsplit(":", 1)[1])
        for host, is_own in (
            ("127.0.0.1", True),
            ("0.0.0.0", True),
            ("[::]", True),
            ("127.0.0.2", False),
            ("[::1]", False),
        ):
            admission = Admission()
            made = Connections(admission, OPTIONS, lambda *_: None, f"tcp://{host}:{number}")
            made.accepted(theirs.fileno())
            assert len(made) == is_own, host
    finally:
        for one in ports:
            one.close()


def test_a_connection_from_the_same_address_over_the_same_descriptor_inherits_nothing(port):
    """As one that was reset and dialled again at once."""
    first, ours, theirs = port.connect("known")
    name = ours.getsockname()
    fd = theirs.fileno()
    linger = struct.pack("ii", 1, 0)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    ours.close()
    theirs.close()
    again = socket.socket()
    again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    again.bind(name)
    again.connect(port._listening.getsockname())
    port._sockets.append(again)
    accepted, _ = port._listening.accept()
    port._sockets.append(accepted)
    if accepted.fileno() != fd:
        os.dup2(accepted.fileno(), fd)
    assert first.tcp.traffic() is None
    assert port.connections.accepted(fd) is first, "which is gone"
    now = port.connections.at(fd)
    assert (now.key, now.served) == ("", False)
    if accepted.fileno() != fd:
        os.close(fd)


def test_who_says_nothing_has_some_seconds(port):
    silent, served = port.connect()[0], port.connect("known")[0]
    for _ in range(10):
        assert port.look(1.0) == {}
    assert list(port.look(1.0)) == [silent]
    port.connections.unserved(served)  # its link has ended
    for _ in range(10):
        assert served not in port.look(1.0)
    assert served in port.look(1.0)


def test_who_says_nothing_after_the_handshake_has_fewer(port):
    silent = port.send(500)
    for _ in range(5):
        assert port.look(1.0) == {}
    assert list(port.look(1.0)) == [silent]


def test_a_guest_has_some_seconds_to_become_known(port):
    guest, other = port.connect("guest")[0], port.connect("other")[0]
    for _ in range(10):
        assert port.look(1.0) == {}
    port.admission.allow("other")
    assert port.look(1.0) == {guest: None}
    assert port.look(1.0) == {}, "it is told once"
    port.admission.forget("other")
    for _ in range(10):
        assert port.look(1.0) == {}
    assert port.look(1.0) == {other: None}
    assert port.admission.tally.counts()["late"] == 2


def test_a_guest_on_whom_this_side_has_yet_to_decide_has_longer_but_not_for_ever():
    port = Port(patience=10.0, longest=20.0)
    try:
        waiting, decided, other = (port.connect(key)[0] for key in ("one", "two", "one"))
        waiting.decided = lambda: False
        decided.decided = lambda: True
        for _ in range(10):
            assert port.look(1.0) == {}
        assert port.look(1.0) == {decided: None, other: None}, "it is not excused for its key"
        for _ in range(9):
            assert port.look(1.0) == {}
        assert port.look(1.0) == {waiting: None}
        assert port.look(1.0) == {}
    finally:
        port.close()


def test_guests_that_wait_for_this_side_are_no_more_than_others():
    port = Port(guests=8, guests_per_source=4)
    try:
        ended: set[Connection] = set()
        for _ in range(30):
            one = port.connect("one key")[0]
            one.decided = lambda: False
            ended |= set(port.ended)
        assert len(ended) == 26
        assert port.admission.tally.counts()["crowded"] == 26
    finally:
        port.close()


def test_a_guest_whose_link_has_ended_gains_no_time(port):
    guest = port.connect("guest")[0]
    for _ in range(10):
        port.connections.unserved(guest)
        assert port.look(1.0) == {}
        port.connections.heard(guest, "guest")
    assert list(port.look(1.0)) == [guest]


def test_the_end_of_who_had_the_descriptor_before_is_not_taken_for_that_of_who_has_it(port):
    silent, _, theirs = port.connect()
    port.connections.ended(theirs.fileno())  # told after the first message of the later one
    port.connections.accepted(theirs.fileno())
    for _ in range(10):
        assert port.look(1.0) == {}
    assert list(port.look(1.0)) == [silent]
    assert port.admission.tally.counts()["unfinished"] == 1


def test_a_connection_that_was_closed_is_forgotten(port):
    _, ours, theirs = port.connect()
    assert len(port.connections) == 1
    ours.close()
    theirs.close()
    assert port.look() == {}
    assert len(port.connections) == 0


@pytest.mark.parametrize("what", ["memory", "work"])
def test_one_looks_more_often_while_memory_grows_or_is_filled_again(monkeypatch, what):
    memory, worked = 0, 0.0
    monkeypatch.setattr("manta.transports.zeromq.connections._memory", lambda: memory)
    monkeypatch.setattr("time.process_time", lambda: worked)
    lookout = Lookout()
    looks = {}
    for tick in range(1, 21):
        if 10 <= tick < 15 and what == "memory":
            memory += 17 << 20
        elif 10 <= tick < 15:
            worked += 0.05
        if (passed := lookout.passed(tick / 10)) is not None:
            looks[tick] = round(passed, 3)
    assert looks == {6: 0.5, 10: 0.4, 11: 0.1, 12: 0.1, 13: 0.1, 14: 0.1, 19: 0.5}


def test_after_a_pause_of_the_process_no_peer_is_late():
    lookout = Lookout()
    lookout.passed(0.0)
    assert lookout.passed(3600.0) == 1.0
