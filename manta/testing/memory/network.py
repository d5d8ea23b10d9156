"""A transport in memory, in virtual time, with faults: for tests and simulations.

The same seed and the same calls give the same run. What can go wrong is what goes wrong
over TCP: connections break, lag, stall in a partition and vanish in a crash; loss,
duplication and reordering of single messages exist to stress the layers above.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from zmq.utils import z85

from manta.testing.memory.medium import Medium
from manta.testing.memory.transport import MemoryConnection, MemoryListener, MemoryTransport
from manta.transports import frames
from manta.transports.errors import DownReason
from manta.transports.frames import Limits
from manta.transports.security.keys import KeyPair


def public_key_of(name: str) -> str:
    """A public key made from a name, whose secret key nobody has."""
    digest = hashlib.blake2b(name.encode(), digest_size=32).digest()
    return z85.encode(digest).decode("ascii")


class MemoryNetwork(Medium):
    """Makes transports that reach each other, and breaks what is between them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._bound: dict[str, MemoryListener] = {}
        self._transports: list[MemoryTransport] = []

    def transport(
        self,
        who: str | KeyPair,
        *,
        limits: Limits | None = None,
        window: int = 8 * 1024 * 1024,
        major: int = frames.MAJOR,
    ) -> MemoryTransport:
        """A process's transport; a second one of the same name is that process restarted."""
        key = who.public if isinstance(who, KeyPair) else public_key_of(who)
        name = key[:8] if isinstance(who, KeyPair) else who
        transport = MemoryTransport(self, self._bound, name, key, limits or Limits(), window, major)
        self._transports.append(transport)
        return transport

    # --- faults --------------------------------------------------------------------------

    def partition(self, a: MemoryTransport, b: MemoryTransport) -> None:
        """Hold back everything between the two; both notice after `faults.silence` seconds."""
        with self.lock:
            pair = frozenset((a.public_key, b.public_key))
            if pair in self.partitions:
                return
            mark = self.partitions[pair] = next(self.numbers)
            self.log(f"partition {a.name} | {b.name}")

        def noticed() -> None:
            if self.partitions.get(pair) == mark:
                for connection in list(self._connections()):
                    if {connection.dialler.key, connection.listener.key} == pair:
                        connection.snap(DownReason.SILENT)

        self.call_later(self.faults.silence, noticed)

    def heal(self, a: MemoryTransport, b: MemoryTransport) -> None:
        """End a partition, and deliver what it held back."""
        with self.lock:
            pair = frozenset((a.public_key, b.public_key))
            if self.partitions.pop(pair, None) is None:
                return
            self.log(f"heal {a.name} | {b.name}")
            for connection in list(self._connections()):
                if {connection.dialler.key, connection.listener.key} == pair:
                    connection.release()

    def isolate(self, transport: MemoryTransport) -> None:
        """Partition one from all others that exist now."""
        for other in list(self._transports):
            if other is not transport and not other.closed:
                self.partition(transport, other)

    def rejoin(self, transport: MemoryTransport) -> None:
        for other in list(self._transports):
            if other is not transport:
                self.heal(transport, other)

    def break_links(self, a: MemoryTransport, b: MemoryTransport | None = None) -> None:
        """Break the connections of one, or between two: what is in flight is lost."""
        for connection in list(self._connections()):
            keys = {connection.dialler.key, connection.listener.key}
            if a.public_key in keys and (b is None or b.public_key in keys):
                connection.snap(DownReason.LOST)

    def crash(self, transport: MemoryTransport) -> None:
        """Kill a process: its handlers hear nothing more, its peers that the connection broke."""
        with self.lock:
            self.log(f"crash {transport.name}")
            transport.closed = transport.crashed = True
            for listener in list(transport.listeners):
                self._bound.pop(listener.address, None)
            for connection in list(self._connections()):
                if transport in (connection.dialler.transport, connection.listener.transport):
                    connection.snap(DownReason.LOST, self.faults.notice)

    def _connections(self) -> Iterator[MemoryConnection]:
        for transport in self._transports:
            for link in transport.links:
                if link.connection is not None and link.connection.dialler is link:
                    yield link.connection
