"""The control plane in memory, in virtual time, with faults: for tests and simulations.

The same seed and the same calls give the same run. What can go wrong is what goes wrong
over TCP: connections break, lag, stall in a partition and vanish in a crash; loss,
duplication and reordering of single messages exist to stress the layers above.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator

from manta.testing.memory.medium import Medium
from manta.testing.memory.transport import Connection, MemoryListener, MemoryTransport
from manta.transports import frames
from manta.transports.errors import DownReason
from manta.transports.frames import Limits
from manta.transports.security.keys import KeyPair

_B85 = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~"
_Z85 = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
_TO_Z85 = bytes.maketrans(_B85, _Z85)


def public_key_of(name: str) -> str:
    """A key that a test can name: the same for the same name, and nobody's."""
    digest = hashlib.blake2b(name.encode(), digest_size=32).digest()
    return base64.b85encode(digest).translate(_TO_Z85).decode("ascii")


class MemoryNetwork(Medium):
    """Makes transports that reach each other, and comes between them."""

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
        """A process's transport; a second one with the same name is the same process restarted."""
        key = who.public if isinstance(who, KeyPair) else public_key_of(who)
        name = key[:8] if isinstance(who, KeyPair) else who
        transport = MemoryTransport(self, self._bound, name, key, limits or Limits(), window, major)
        self._transports.append(transport)
        return transport

    # --- faults --------------------------------------------------------------------------

    def partition(self, a: MemoryTransport, b: MemoryTransport) -> None:
        """Nothing passes between the two any more; both notice after `faults.silence`."""
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
        """End a partition: what it held back is delivered."""
        with self.lock:
            pair = frozenset((a.public_key, b.public_key))
            if self.partitions.pop(pair, None) is None:
                return
            self.log(f"heal {a.name} | {b.name}")
            for connection in list(self._connections()):
                if {connection.dialler.key, connection.listener.key} == pair:
                    connection.release()

    def isolate(self, transport: MemoryTransport) -> None:
        """Partition one from all others that are there now."""
        for other in list(self._transports):
            if other is not transport and not other.closed:
                self.partition(transport, other)

    def rejoin(self, transport: MemoryTransport) -> None:
        for other in list(self._transports):
            if other is not transport:
                self.heal(transport, other)

    def break_links(self, a: MemoryTransport, b: MemoryTransport | None = None) -> None:
        """Break the connections of one, or between two: what is on its way is lost."""
        for connection in list(self._connections()):
            keys = {connection.dialler.key, connection.listener.key}
            if a.public_key in keys and (b is None or b.public_key in keys):
                connection.snap(DownReason.LOST)

    def crash(self, transport: MemoryTransport) -> None:
        """Kill a process: its own handlers hear nothing, its peers that the connection broke."""
        with self.lock:
            self.log(f"crash {transport.name}")
            transport.closed = transport.crashed = True
            for listener in list(transport.listeners):
                self._bound.pop(listener.address, None)
            for connection in list(self._connections()):
                if transport in (connection.dialler.transport, connection.listener.transport):
                    connection.snap(DownReason.LOST, self.faults.notice)

    def _connections(self) -> Iterator[Connection]:
        for transport in self._transports:
            for link in transport.links:
                if link.connection is not None and link.connection.dialler is link:
                    yield link.connection
