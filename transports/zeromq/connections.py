"""The TCP connections of a ROUTER: whose each is, what it has on its way, and which are to be cut.

zmq tells of a connection when it accepts it, and with each message, but not when its handshake is
over: that is seen from the bytes that came.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from manta.transports.security.admission import Standing
from manta.transports.zeromq.intake import Bounds, Intake, excess
from manta.transports.zeromq.tcp import TcpConnection, source_of

if TYPE_CHECKING:
    import zmq

    from manta.transports.security.admission import Admission
    from manta.transports.zeromq.tcp import Traffic

_HANDSHAKE = 400  # bytes received: more than a greeting and a HELLO, fewer than with an INITIATE
LOOK = 0.1  # seconds from look to look while this process grows
_CALM = 0.5  # seconds, while it does not: a look costs some microseconds for each connection
_GROWTH = 1 << 20  # bytes
_KIB, _MIB = 1 << 10, 1 << 20
GUEST_BYTES = 128 * _KIB  # of a message from a key that is not known
_GUEST = Bounds(512 * _KIB, GUEST_BYTES + 64 * _KIB, 30.0)
_STRANGER = Bounds(64 * _KIB, 64 * _KIB, 10.0)


@dataclass(frozen=True)
class IntakeOptions:
    """What the connections of one ROUTER may have on their way; bytes and seconds."""

    known: Bounds
    guest: Bounds = _GUEST
    stranger: Bounds = _STRANGER  # before the first message
    patience: float = 10.0  # in which that must have come
    first: float = 5.0  # the same, once the handshake is over
    silence: float = math.inf  # between messages
    strangers: int = 16 * _MIB  # of all who are not known
    key: int = 32 * _MIB  # of all connections of one key
    total: int = 256 * _MIB


class Connection:
    """One connection of a ROUTER."""

    def __init__(self, tcp: TcpConnection) -> None:
        self.tcp = tcp
        self.intake = Intake()
        self.key = ""  # of the peer, once it was heard
        self.awaited: float | None = 0.0
        """Seconds in which nobody served it; None: it is served."""
        self.handshaken = False
        self.routing_id = b""
        self.ended = False
        """What comes of it from now on is ignored."""

    def end(self) -> None:
        """At once, with what is in flight; from any thread."""
        self.ended = True
        self.tcp.kill()


class Connections:
    """Lives on the ROUTER's thread; `of_key` is for any."""

    def __init__(self, admission: Admission, options: IntakeOptions) -> None:
        self._admission = admission
        self._options = options
        self._by_fd: dict[int, Connection] = {}

    def __len__(self) -> int:
        return len(self._by_fd)

    def at(self, fd: int) -> Connection | None:
        return self._by_fd.get(fd)

    def of_key(self, key: str) -> list[Connection]:
        return [one for one in list(self._by_fd.values()) if one.key == key]

    def accepted(self, fd: int) -> Connection | None:
        """A connection was accepted; returns the one that had its descriptor and is gone."""
        tcp = TcpConnection.of(fd)
        before = self._by_fd.get(fd)
        if tcp is None or (before is not None and before.tcp == tcp):  # a message came first
            return None
        self._by_fd[fd] = Connection(tcp)
        return before

    def of(self, name: zmq.Frame) -> Connection | None:
        """The one on which a message came, by its first frame; None if it is gone."""
        fd, routing_id = source_of(name), name.bytes
        found = self._by_fd.get(fd)
        if found is not None and found.routing_id == routing_id:
            return found
        tcp = TcpConnection.of(fd)
        if tcp is None:
            return None
        if found is None or found.tcp != tcp:  # the event of its acceptance is yet to be read
            found = self._by_fd[fd] = Connection(tcp)
        found.routing_id = routing_id
        return found

    def heard(self, connection: Connection, key: str) -> bool:
        """A message came that is to be served; False if too much came before it.

        libzmq keeps what a handshake said as long as the connection lives.
        """
        if not connection.key:
            traffic = connection.tcp.traffic()
            if traffic is not None and traffic.received > self._options.stranger.window:
                return False
        connection.key = key
        connection.awaited = None
        return True

    def look(self, passed: float, drained: Callable[[], bool]) -> list[tuple[Connection, str]]:
        """Those that are to be cut now, and why. `drained`: was every whole message read?"""
        traffic = {one: one.tcp.traffic() for one in list(self._by_fd.values())}
        is_drained = drained()  # after them: what they count was read, or belongs to no message
        found: dict[Connection, str] = {}
        strangers: list[tuple[int, Connection]] = []
        known: dict[str, list[tuple[int, Connection]]] = {}
        for one, counted in traffic.items():
            if counted is None:
                del self._by_fd[one.tcp.fd]
                continue
            is_known = bool(one.key) and self._admission.standing(one.key) is Standing.KNOWN
            if why := self._breach(one, counted, passed, is_drained, is_known=is_known):
                found[one] = why
            elif one.intake.held:
                group = known.setdefault(one.key, []) if is_known else strangers
                group.append((one.intake.held, one))
        options = self._options
        every = [*strangers]
        for group in known.values():
            every += group
            for one in excess(group, options.key):
                found[one] = f"the connections of its key hold more than {options.key} bytes"
        for one in excess(strangers, options.strangers):
            found.setdefault(one, f"peers unknown here hold more than {options.strangers} bytes")
        for one in excess([(n, one) for n, one in every if one not in found], options.total):
            found[one] = f"all peers together hold more than {options.total} bytes"
        return list(found.items())

    def _breach(
        self, one: Connection, traffic: Traffic, passed: float, drained: bool, *, is_known: bool
    ) -> str:
        options, intake = self._options, one.intake
        intake.look(*traffic, drained=drained, passed=passed)
        if one.awaited is not None:
            one.awaited += passed
            if not one.handshaken and intake.received > _HANDSHAKE:
                one.handshaken, one.awaited = True, passed
            if one.awaited > (options.first if one.handshaken else options.patience):
                return "it says nothing"
        if intake.age > options.silence:
            return "it says nothing"
        if is_known:
            return intake.breach(options.known)
        return intake.breach(options.guest if one.key else options.stranger)


class Lookout:
    """When to look."""

    def __init__(self) -> None:
        self._looked_at: float | None = None
        self._memory = 0

    def passed(self, now: float) -> float | None:
        """Seconds since the last look if it is time for one, else None. To be asked every LOOK."""
        if self._looked_at is None:
            self._looked_at = now
        passed = now - self._looked_at
        memory = _memory()
        if passed < _CALM and memory - self._memory < _GROWTH:
            return None
        self._looked_at, self._memory = now, memory
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
