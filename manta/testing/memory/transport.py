"""The memory transport of one process, and its links and listeners."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from manta.transports import frames
from manta.transports.errors import (
    AddressInUse,
    DownReason,
    LinkDown,
    LinkOverflow,
    LocalTransportError,
    RemoteProtocolError,
)
from manta.transports.security.admission import Decision
from manta.transports.security.keys import check_key

if TYPE_CHECKING:
    from manta.testing.memory.medium import Medium
    from manta.transports.frames import Limits
    from manta.transports.interface import Buffer, LinkHandler, Message
    from manta.transports.security.admission import Admission

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class MemoryListener:
    """A bound address."""

    transport: MemoryTransport
    handler: LinkHandler
    admission: Admission
    address: str = ""
    closed: bool = False

    def links(self, peer_key: str) -> list[MemoryLink]:
        with self.transport.medium.lock:
            return [link for link in self._accepted() if link.peer_key == peer_key]

    def cut(self, peer_key: str) -> int:
        self.admission.deny(peer_key)
        with self.transport.medium.lock:
            cut = self.links(peer_key)
            for link in cut:
                link.end(DownReason.REVOKED, DownReason.LOST)
        return len(cut)

    def close(self) -> None:
        with self.transport.medium.lock:
            if self.closed:
                return
            self.closed = True
            self.transport.unbind(self)
            for link in self._accepted():
                link.close()

    def _accepted(self) -> list[MemoryLink]:
        return [link for link in self.transport.links if link.listener is self]


class MemoryConnection:
    """One connection between the two ends of a link."""

    def __init__(self, dialler: MemoryLink, listener: MemoryLink) -> None:
        self.dialler = dialler
        self.listener = listener
        self.medium = dialler.transport.medium
        self.alive = True
        self._last_arrival = {dialler: 0.0, listener: 0.0}
        self._held: list[Callable[[], None]] = []

    def other(self, end: MemoryLink) -> MemoryLink:
        return self.listener if end is self.dialler else self.dialler

    def carry(self, sender: MemoryLink, what: Callable[[], None], *, faulty: bool = False) -> None:
        """Run `what` at the other end, after all that `sender` sent before."""
        medium, faults = self.medium, self.medium.faults
        if faulty and medium.chance(faults.loss):
            self.snap(DownReason.LOST)
            return
        if faulty and medium.chance(faults.drop):
            medium.log(f"drop {sender}")
            return
        for _ in range(2 if faulty and medium.chance(faults.duplicate) else 1):
            arrival = medium.clock.now() + medium.draw(faults.delay)
            if faulty and medium.chance(faults.reorder):
                arrival += medium.rng.uniform(0.0, 5 * faults.delay[1])
            else:
                arrival = max(arrival, self._last_arrival[sender])
                self._last_arrival[sender] = arrival
            medium.call_later(arrival - medium.clock.now(), lambda: self._arrive(what))

    def _arrive(self, what: Callable[[], None]) -> None:
        if not self.alive:
            return
        if self.medium.is_partitioned(self.dialler.key, self.listener.key):
            self._held.append(what)
        else:
            what()

    def release(self) -> None:
        """Deliver what a partition held back."""
        held, self._held = self._held, []
        for what in held:
            self.medium.call_later(0.0, lambda what=what: self._arrive(what))  # type: ignore[misc]

    def snap(self, reason: DownReason, delay: float | None = None) -> None:
        """Break: nothing arrives any more, and each end is told after a delay of its own."""
        if not self.alive:
            return
        self.alive = False
        medium = self.medium
        medium.log(f"break {self.dialler} {reason}")
        for end in (self.dialler, self.listener):
            after = medium.draw(medium.faults.delay) if delay is None else delay
            medium.call_later(after, lambda end=end: end.lost(self, reason))  # type: ignore[misc]


@dataclass(eq=False, repr=False)
class MemoryLink:
    """One end of a link. A dialled one has many connections, an accepted one a single one."""

    transport: MemoryTransport
    peer_key: str
    address: str
    handler: LinkHandler
    listener: MemoryListener | None = None
    connection: MemoryConnection | None = None
    state: DownReason | None = DownReason.CONNECTING
    peer_version: str = ""
    peer_address: str = ""
    _ended: bool = False
    _in_flight: int = 0

    def __post_init__(self) -> None:
        self.key, self._medium = self.transport.public_key, self.transport.medium
        self._limits, self._window = self.transport.limits, self.transport.window

    def __repr__(self) -> str:
        return f"<{self.transport.name} {'->' if self.address else '<-'} {self.peer_key[:8]}>"

    @property
    def is_half_full(self) -> bool:
        return self._in_flight > self._window // 2

    def send(self, message: Message) -> None:
        with self._medium.lock:
            if self.state is not None or self.transport.closed:
                reason = self.state or DownReason.CLOSED
                raise LinkDown(f"the link to {self.peer_key} is down: {reason}", reason)
            # Encoded, so that both transports refuse the same and the sender's buffers are free.
            encoded, size = frames.encode(message, self._limits)
            if self._in_flight + size > self._window:
                raise LinkOverflow(
                    f"the peer {self.peer_key} has not taken {self._in_flight} bytes: "
                    "it reads slower than this side sends"
                )
            connection = self.connection
            if connection is None or not connection.alive:
                return  # `lost` is on its way
            self._in_flight += size
            parts: list[Buffer] = [bytes(part) for part in message]
            peer = connection.other(self)
            self._medium.log(f"send {self} {len(encoded)} {size}")

            def arrived() -> None:
                if self.connection is connection:
                    self._in_flight = max(0, self._in_flight - size)
                peer.deliver(connection, list(parts))

            connection.carry(self, arrived, faulty=True)

    def excuse(self, decided: Callable[[], bool]) -> None:
        """Does nothing: guests stay."""

    def close(self) -> None:
        with self._medium.lock:
            self.end(DownReason.CLOSED, DownReason.CLOSED)

    # --- events ----------------------------------------------------------------

    def attempt(self) -> None:
        """Dial once."""
        if self._ended or self.transport.closed:
            return
        listener = self.transport.listener_at(self.address)
        if listener is None:
            self._failed(DownReason.UNREACHABLE)
            return
        if self._medium.is_partitioned(self.key, listener.transport.public_key):
            self._medium.call_later(
                self._medium.faults.unreachable, lambda: self._failed(DownReason.UNREACHABLE)
            )
            return
        refusal = self._refusal(listener)
        if refusal is not None:
            self._failed(refusal)
            return
        accepted = MemoryLink(listener.transport, self.key, "", listener.handler, listener)
        listener.transport.links[accepted] = None
        connection = MemoryConnection(self, accepted)
        self.connection = accepted.connection = connection
        limits = frames.common(self.transport.limits, listener.transport.limits)
        window = min(self.transport.window, listener.transport.window)
        for end in (self, accepted):
            end._limits, end._window, end._in_flight = limits, window, 0

        def answered() -> None:
            self._up(connection)

        def greeted() -> None:
            connection.carry(accepted, answered)
            accepted._up(connection)

        connection.carry(self, greeted)

    def deliver(self, connection: MemoryConnection, parts: list[Buffer]) -> None:
        if self.state is None and self.connection is connection and not self.transport.closed:
            self._medium.log(f"receive {self} {sum(map(len, parts))}")
            self._call(lambda: self.handler.received(self, parts))

    def lost(self, connection: MemoryConnection, reason: DownReason) -> None:
        """The connection is lost; a dialled link tries again."""
        if self.connection is not connection or self._ended or self.transport.closed:
            return
        if self.address:
            self._failed(reason)
        else:
            self.end(reason, reason)

    def end(self, reason: DownReason, told: DownReason) -> None:
        """End the link; the other end gets `told` as the reason."""
        if self._ended:
            return
        self._ended = True
        self.transport.links.pop(self, None)
        connection, self.connection = self.connection, None
        if connection is not None and connection.alive:
            peer = connection.other(self)

            def hung_up() -> None:
                connection.alive = False
                peer.lost(connection, told)

            connection.carry(self, hung_up)
        self._down(reason, later=True)

    def _refusal(self, listener: MemoryListener) -> DownReason | None:
        if listener.transport.public_key != self.peer_key:
            return DownReason.WRONG_KEY
        decision = listener.admission.decide(self.key)
        if decision is Decision.DENY:
            return DownReason.DENIED
        if decision is Decision.BUSY:
            return DownReason.BUSY
        if listener.transport.major != self.transport.major:
            self.peer_version = f"{listener.transport.major}.0"
            return DownReason.VERSION
        return None

    def _failed(self, reason: DownReason) -> None:
        if self._ended or self.transport.closed:
            return
        self.connection = None
        self._medium.call_later(self._medium.draw(self._medium.faults.retry), self.attempt)
        self._down(reason)

    def _up(self, connection: MemoryConnection) -> None:
        if self.connection is connection and not self._ended and not self.transport.closed:
            self.state = None
            self._medium.log(f"up {self}")
            self._call(lambda: self.handler.link_up(self))

    def _down(self, reason: DownReason, *, later: bool = False) -> None:
        told = self.state is reason
        self.state = reason
        if told or self.transport.closed:
            return
        self._medium.log(f"down {self} {reason}")

        def tell() -> None:
            self._call(lambda: self.handler.link_down(self, reason))

        if later:  # this is inside a call of the owner's
            self._medium.call_later(0.0, tell)
        else:
            tell()

    def _call(self, call: Callable[[], None]) -> None:
        if self.transport.crashed:
            return
        try:
            call()
        except Exception as error:
            if self._medium.raise_errors and not isinstance(error, RemoteProtocolError):
                raise
            _log.exception("a handler of %r failed: it loses the link", self)
            if self.address:
                if self.connection is not None:
                    self.connection.snap(DownReason.PROTOCOL)
            else:
                self.end(DownReason.PROTOCOL, DownReason.PROTOCOL)


@dataclass(eq=False)
class MemoryTransport:
    """One process's transport; `bound` are the listeners of all, by address."""

    medium: Medium
    bound: dict[str, MemoryListener]
    name: str
    public_key: str
    limits: Limits
    window: int
    major: int
    closed: bool = False
    crashed: bool = False
    links: dict[MemoryLink, None] = field(default_factory=dict)  # ordered, unlike a set
    listeners: dict[MemoryListener, None] = field(default_factory=dict)

    def listen(
        self,
        address: str,
        handler: LinkHandler,
        admission: Admission,
        *,
        fd: int | None = None,
    ) -> MemoryListener:
        self._check_open()
        listener = MemoryListener(self, handler, admission)
        listener.address = self._bind(address, listener)
        self.listeners[listener] = None
        return listener

    def dial(self, address: str, server_key: str, handler: LinkHandler) -> MemoryLink:
        self._check_open()
        check_key(server_key, "server's public key")
        with self.medium.lock:
            link = MemoryLink(self, server_key, address, handler)
            self.links[link] = None
            self.medium.call_later(self.medium.draw(self.medium.faults.delay), link.attempt)
        return link

    def close(self) -> None:
        with self.medium.lock:
            if self.closed:
                return
            for listener in list(self.listeners):
                listener.close()
            for link in list(self.links):
                link.close()
            self.closed = True

    def listener_at(self, address: str) -> MemoryListener | None:
        return self.bound.get(address)

    def unbind(self, listener: MemoryListener) -> None:
        with self.medium.lock:
            self.bound.pop(listener.address, None)
            self.listeners.pop(listener, None)

    def _bind(self, address: str, listener: MemoryListener) -> str:
        with self.medium.lock:
            host, _, port = address.rpartition(":")
            if port in ("0", "*"):
                address = f"{host}:{next(self.medium.ports)}"
            if address in self.bound:
                raise AddressInUse(
                    f"cannot listen on {address}: another process listens there; stop it, or "
                    "choose another port"
                )
            self.bound[address] = listener
            return address

    def _check_open(self) -> None:
        if self.closed:
            raise LocalTransportError("this transport is closed: make a new one")
