"""The TCP connections of a ROUTER: whose each is, what it has on its way, and which go.

zmq tells of a connection when it accepts it, when it ends, and with each message, but not when its
handshake is over: that is seen from the bytes that came. What strangers may take, and for how long,
is decided by `Strangers`; what may be on its way, by `Intake`.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import zmq

from manta.transports.addresses import split_address
from manta.transports.descriptors import descriptors_in_use
from manta.transports.security.admission import Standing
from manta.transports.security.strangers import Cut, Fate, Strangers, source_of
from manta.transports.zeromq.intake import Bounds, Intake, at_once, excess, overflow
from manta.transports.zeromq.sockets import parse_event
from manta.transports.zeromq.tcp import TcpConnection, descriptor_of

if TYPE_CHECKING:
    from manta.transports.security.admission import Admission
    from manta.transports.zeromq.sockets import Socket
    from manta.transports.zeromq.tcp import Traffic

MONITORED = int(zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED)
_EVENTS = 32  # of a monitor, before messages have their turn
_HANDSHAKE = 400  # bytes received: more than a greeting and a HELLO, fewer than with an INITIATE
LOOK = 0.04  # seconds from look to look while this process grows
SELDOM = 0.25  # the same where nobody listens
_CALM = 0.5  # seconds, while it does not: a look costs some microseconds for each connection
_GROWTH = 16 << 20  # bytes: a sixteenth of what all peers may hold
_WORK = 0.01  # seconds of CPU, in which some MiB are decrypted; memory that was used before is
# filled again without growth
_KIB, _MIB = 1 << 10, 1 << 20
GUEST_BYTES = 128 * _KIB  # of a message from a key that is not known
_GUEST = Bounds(512 * _KIB, GUEST_BYTES + 64 * _KIB, 30.0)
_STRANGER = Bounds(64 * _KIB, 64 * _KIB, 10.0)
_ANY_HOST = ("0.0.0.0", "::", "*")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class IntakeOptions:
    """What the connections of one ROUTER may have on their way; bytes and seconds."""

    known: Bounds
    guest: Bounds = _GUEST
    stranger: Bounds = _STRANGER  # before the first message
    handshake: float = 5.0  # in which zmq ends one that does not finish it
    hello: float = 5.0  # from then to the first message
    silence: float = math.inf  # between messages
    strangers: int = 16 * _MIB  # of all who are not known
    key: int = 32 * _MIB  # of all connections of one key
    total: int = 256 * _MIB


class Breach(NamedTuple):
    """Too much came."""

    why: str
    is_own: bool
    """Of this connection or its key, not of many peers together: it counts as an offence."""


_SILENT = Breach("it says nothing", is_own=True)


class Connection:
    """One connection of a ROUTER."""

    def __init__(self, tcp: TcpConnection, since: float) -> None:
        self.tcp = tcp
        self.intake = Intake()
        self.key = ""  # of the peer, once it was heard
        self.routing_id = b""
        self.served = False  # it was heard, and what it says is for somebody
        self.since = since  # when it came, or was served for the last time
        self.settled = False  # it counts as one of a known key
        self.decided: Callable[[], bool] | None = None  # has this side decided on its guest?
        self.ended = False
        """What comes of it from now on is ignored."""

    def end(self) -> None:
        """At once, with what is in flight; from any thread."""
        self.ended = True
        self.tcp.kill()


class Connections:
    """Lives on the ROUTER's thread; `of_key` and `glance` are for any.

    `end(connection, breach)` ends one: for what it did, or with None since it is too late, or one
    too many, which is counted and told in sum. A descriptor that was told may be that of a
    connection to another port by now: those are not accepted at `address`.
    """

    def __init__(
        self,
        admission: Admission,
        options: IntakeOptions,
        end: Callable[[Connection, Breach | None], object],
        address: str,
    ) -> None:
        host, self._port = split_address(address)
        self._host = "" if host in _ANY_HOST else host
        self._admission = admission
        self._options = options
        self._end = end
        self._strangers = Strangers(
            admission.limits, handshake=options.handshake, hello=options.hello
        )
        self._by_fd: dict[int, Connection] = {}  # in the order in which they came
        self._changes = 0  # of the admission, when this looked
        self._now = 0.0
        """Seconds that passed from look to look: while this process is suspended, none do."""

    def __len__(self) -> int:
        return len(self._by_fd)

    def at(self, fd: int) -> Connection | None:
        return self._by_fd.get(fd)

    def of_key(self, key: str) -> list[Connection]:
        return [one for one in list(self._by_fd.values()) if one.key == key]

    def observe(self, monitor: Socket) -> list[Connection]:
        """Read what the ROUTER's monitor tells; returns those that are gone, or soon will be."""
        gone: list[Connection | None] = []
        with suppress(zmq.Again):
            for _ in range(_EVENTS):
                event, fd = parse_event(monitor.recv_multipart(zmq.NOBLOCK))
                if event == zmq.EVENT_ACCEPTED:
                    gone.append(self.accepted(fd))
                elif event == zmq.EVENT_DISCONNECTED:
                    gone.append(self.ended(fd))
        return [one for one in gone if one is not None]

    def accepted(self, fd: int) -> Connection | None:
        """A connection was accepted; returns the one that had its descriptor and is gone."""
        tcp = self._at(fd)
        before = self._by_fd.get(fd)
        if tcp is None:
            return None
        if before is not None and before.tcp == tcp:
            # A message came first: then the end of the one before it may have been taken for its.
            self._place(before, is_known=self._is_known(before))
            return None
        self._add(tcp)
        return before

    def ended(self, fd: int) -> Connection | None:
        """The connection with this descriptor ends; returns it. The next look forgets it, since
        what it said may be yet to be read, and another may have its descriptor already."""
        self._leave(fd)
        return self._by_fd.get(fd)

    def of(self, name: zmq.Frame) -> Connection | None:
        """The one on which a message came, by its first frame; None if it is gone."""
        fd, routing_id = descriptor_of(name), name.bytes
        found = self._by_fd.get(fd)
        if found is not None and found.routing_id == routing_id:
            return found
        tcp = self._at(fd)
        if tcp is None:
            return None
        if found is None or found.tcp != tcp:  # the event of its acceptance is yet to be read
            found = self._add(tcp)
        found.routing_id = routing_id
        return found

    def heard(self, connection: Connection, key: str) -> bool:
        """A message came that is to be served; False if too much came before it.

        libzmq keeps what a handshake said as long as the connection lives.
        """
        if connection.served and connection.key == key:
            return True
        if not connection.key:
            received = connection.tcp.received()
            if received is not None and received > self._options.stranger.window:
                return False
        connection.key = key
        connection.served = True
        self._place(connection, is_known=self._is_known(connection))
        return True

    def unserved(self, connection: Connection) -> None:
        """Nobody is there any more for what it says: it has to begin anew, or to go."""
        connection.served = connection.settled = False
        connection.since = self._now

    def look(self, passed: float, drained: Callable[[], bool]) -> None:
        """End those that are to be ended now. `drained`: was every whole message read?"""
        scarce = max(self._by_fd, default=0) > self._admission.limits.last_descriptor
        self._strangers.in_use = descriptors_in_use() if scarce else 0
        changed = self._changes != self._admission.changes
        self._changes = self._admission.changes
        found: dict[Connection, Breach] = {}
        loud: list[tuple[Connection, Traffic]] = []
        for one in list(self._by_fd.values()):
            intake = one.intake
            if intake.is_idle() and one.tcp.received() == intake.received:
                intake.age += passed
                if intake.age > self._options.silence:
                    found[one] = _SILENT
                elif changed or not one.settled:
                    self._place(one, is_known=self._is_known(one))
            elif (traffic := one.tcp.traffic()) is not None:
                loud.append((one, traffic))
            else:
                self._forget(one)
        # After them: what they count was read, or belongs to no message.
        is_drained = bool(loud) and drained()
        held: list[tuple[int, Connection]] = []
        for one, traffic in loud:
            one.intake.look(*traffic, drained=is_drained, passed=passed)
            is_known = self._is_known(one)
            self._place(one, is_known=is_known)
            if breach := self._breach(one, is_known=is_known):
                found[one] = breach
            elif one.intake.held:
                held.append((one.intake.held, one))
        found.update(self._in_sum(held))
        for one, breach in found.items():
            self._end(one, breach)
        self._now += passed
        self._turn_away(self._strangers.overdue(self._now, self._waits))
        for sentence in self._admission.tally.sentences(time.monotonic()):
            _log.warning("%s", sentence)

    def glance(self) -> list[tuple[Connection, Breach]]:
        """Those that hold too much, seen by another thread while this one is busy. Changes nothing
        and takes the whole messages that wait for the beginning of one."""
        found: list[tuple[Connection, Breach]] = []
        held: list[tuple[int, Connection]] = []
        for one in list(self._by_fd.values()):
            traffic = None if one.ended else one.tcp.traffic()
            if traffic is None:
                continue
            pending = one.intake.pending_of(traffic.received)
            bounds = self._bounds(one, is_known=self._is_known(one))
            if pending > bounds.window:
                found.append((one, Breach(at_once(pending, bounds), is_own=True)))
            elif pending > traffic.unread:
                held.append((pending - traffic.unread, one))
        return found + list(self._in_sum(held).items())

    def _in_sum(self, held: list[tuple[int, Connection]]) -> dict[Connection, Breach]:
        """Those that go since several hold too much together."""
        options, found = self._options, dict[Connection, Breach]()
        sources: dict[str, list[tuple[int, Connection]]] = {}
        keys: dict[str, list[tuple[int, Connection]]] = {}
        for entry in held:
            one = entry[1]
            if self._is_known(one):
                keys.setdefault(one.key, []).append(entry)
            else:
                sources.setdefault(source_of(one.tcp.host), []).append(entry)
        for group in keys.values():
            for one in excess(group, options.key):
                why = f"the connections of its key hold more than {options.key} bytes"
                found[one] = Breach(why, is_own=True)
        for one in overflow(sources.values(), options.strangers):
            why = f"peers unknown here hold more than {options.strangers} bytes"
            found[one] = Breach(why, is_own=False)
        owners: dict[str, list[tuple[int, Connection]]] = {}
        for size, one in held:
            if one not in found:
                owner = self._admission.owner_of(one.key) if one.key in keys else ""
                owners.setdefault(owner, []).append((size, one))
        for one in overflow(owners.values(), options.total):
            why = f"all peers together hold more than {options.total} bytes"
            found[one] = Breach(why, is_own=False)
        return found

    def _at(self, fd: int) -> TcpConnection | None:
        """The connection with this descriptor, if it was accepted here."""
        tcp = TcpConnection.of(fd)
        return tcp if tcp is not None and tcp.is_at(self._host, self._port) else None

    def _add(self, tcp: TcpConnection) -> Connection:
        self._strangers.gone(tcp.fd)  # the one that had this descriptor
        self._by_fd.pop(tcp.fd, None)
        made = self._by_fd[tcp.fd] = Connection(tcp, self._now)
        self._place(made, is_known=False)
        return made

    def _forget(self, connection: Connection) -> None:
        if self._by_fd.get(connection.tcp.fd) is connection:
            del self._by_fd[connection.tcp.fd]
            self._leave(connection.tcp.fd)

    def _leave(self, fd: int) -> None:
        found = self._by_fd.get(fd)
        if found is not None:
            found.settled = False
        ended = self._strangers.ended(fd, self._now)
        if ended is not None:
            self._admission.tally.count(ended.fate, ended.source)

    def _is_known(self, connection: Connection) -> bool:
        return bool(connection.key) and (self._admission.standing(connection.key) is Standing.KNOWN)

    def _place(self, connection: Connection, *, is_known: bool) -> None:
        """Put a connection where it belongs: it may be new, or have signed in since, or out."""
        fd, strangers = connection.tcp.fd, self._strangers
        if connection.ended:
            return
        if connection.served and is_known:
            if not connection.settled:
                connection.settled = True
                strangers.known(fd, self._admission.owner_of(connection.key))
            return
        connection.settled = False
        source = source_of(connection.tcp.host)
        if connection.served:
            self._turn_away(strangers.guest(fd, source, self._now))
        else:
            if fd not in strangers:
                self._turn_away(strangers.accepted(fd, source, connection.since))
            if connection.intake.received > _HANDSHAKE:
                strangers.handshaken(fd, self._now)

    def _turn_away(self, cuts: Iterable[Cut]) -> None:
        for cut in cuts:
            one = self._by_fd[cut.connection]
            if cut.fate is not Fate.SURPLUS and one.served and self._is_known(one):
                self._place(one, is_known=True)  # it has signed in since
                continue
            one.ended = True
            self._admission.tally.count(cut.fate, cut.source)
            self._end(one, None)

    def _waits(self, guest: int) -> bool:
        """Is it this side that a guest waits for?"""
        decided = self._by_fd[guest].decided
        return decided is not None and not decided()

    def _bounds(self, one: Connection, *, is_known: bool) -> Bounds:
        if is_known:
            return self._options.known
        return self._options.guest if one.key else self._options.stranger

    def _breach(self, one: Connection, *, is_known: bool) -> Breach | None:
        if one.intake.age > self._options.silence:
            return _SILENT
        why = one.intake.breach(self._bounds(one, is_known=is_known))
        return Breach(why, is_own=True) if why else None


class Lookout:
    """When to look."""

    def __init__(self) -> None:
        self._looked_at: float | None = None
        self._memory = 0
        self._worked = 0.0

    def passed(self, now: float) -> float | None:
        """Seconds since the last look if it is time for one, else None. To be asked every LOOK, or
        SELDOM."""
        if self._looked_at is None:
            self._looked_at = now
        passed = now - self._looked_at
        memory, worked = _memory(), time.process_time()
        is_calm = memory - self._memory < _GROWTH and worked - self._worked < _WORK
        if passed < _CALM and is_calm:
            return None
        self._looked_at, self._memory, self._worked = now, memory, worked
        return min(passed, 2 * _CALM)  # what was suspended has yet to read what came meanwhile


def _memory() -> int:
    """Bytes of this process in memory; 0 where the system does not say."""
    with suppress(OSError):
        fd = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return int(os.read(fd, 128).split()[1]) * os.sysconf("SC_PAGE_SIZE")
        finally:
            os.close(fd)
    return 0
