"""The sums over connections, and what looking at them costs."""

from __future__ import annotations

import socket
import sys

import pytest

from manta.transports.security.admission import Admission
from manta.transports.zeromq.connections import Connection, Connections, IntakeOptions, Lookout
from manta.transports.zeromq.intake import Bounds

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="TCP_INFO is Linux's")

KIB = 1 << 10
MUCH = Bounds(100 * KIB, 100 * KIB, 60.0)
OPTIONS = IntakeOptions(
    MUCH, guest=MUCH, stranger=MUCH, strangers=20 * KIB, key=30 * KIB, total=50 * KIB
)


class Port:
    """Accepts connections as zmq would, and holds what they send."""

    def __init__(self, *known):
        self.ended: dict[Connection, str] = {}
        self.admission = Admission(known, guests=True)
        self.connections = Connections(self.admission, OPTIONS, self.ended.__setitem__)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._sockets = [self._listening]

    def connect(self, key=""):
        ours = socket.create_connection(self._listening.getsockname())
        theirs, _ = self._listening.accept()
        self._sockets += [ours, theirs]
        self.connections.accepted(theirs.fileno())
        made = self.connections.at(theirs.fileno())
        assert made is not None
        if key:
            self.connections.heard(made, key)
        return made, ours, theirs

    def send(self, size, key=""):
        """A connection that sent so much, all of which is held."""
        made, ours, theirs = self.connect(key)
        ours.sendall(bytes(size))
        while size:
            size -= len(theirs.recv(size))
        return made

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
    made = Port("known", *(f"known-{number}" for number in range(10)))
    yield made
    made.close()


def test_strangers_share_what_they_may_hold(port):
    first = [port.send(4 * KIB) for _ in range(4)]
    assert port.look() == {}
    most = port.send(5 * KIB, "a stranger who was heard")
    found = port.look()
    assert list(found) == [most]
    assert "unknown here" in found[most]
    known = port.send(25 * KIB, "known")
    assert set(port.look()) == {most}
    assert not {known, *first} & set(port.look())


def test_a_key_shares_among_its_connections(port):
    few, many = port.send(9 * KIB, "known"), port.send(15 * KIB, "known")
    port.send(20 * KIB, "known-1")
    assert port.look() == {}
    port.send(7 * KIB, "known")
    found = port.look()
    assert list(found) == [many]
    assert "of its key" in found[many]
    assert few not in found


def test_all_together_share_what_this_side_holds(port):
    made = [port.send((8 + number) * KIB, f"known-{number}") for number in range(5)]
    assert port.look() == {}
    more = port.send(2 * KIB)
    found = port.look()
    assert list(found) == [made[-1]]
    assert "all peers together" in found[made[-1]]
    assert more not in found


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
    assert port.look(1.0) == {guest: ""}
    assert port.look(1.0) == {}, "it is told once"
    port.admission.forget("other")
    for _ in range(10):
        assert port.look(1.0) == {}
    assert port.look(1.0) == {other: ""}
    assert port.admission.tally.counts()["late"] == 2


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


def test_one_looks_more_often_while_memory_grows(monkeypatch):
    memory = 0
    monkeypatch.setattr("manta.transports.zeromq.connections._memory", lambda: memory)
    lookout = Lookout()
    looks = {}
    for tick in range(1, 21):
        if 10 <= tick < 15:
            memory += 2 << 20
        if (passed := lookout.passed(tick / 10)) is not None:
            looks[tick] = round(passed, 3)
    assert looks == {6: 0.5, 10: 0.4, 11: 0.1, 12: 0.1, 13: 0.1, 14: 0.1, 19: 0.5}


def test_after_a_pause_of_the_process_no_peer_is_late():
    lookout = Lookout()
    lookout.passed(0.0)
    assert lookout.passed(3600.0) == 1.0
