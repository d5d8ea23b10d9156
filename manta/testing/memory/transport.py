"""The control plane in memory, in virtual time, with faults: for tests and simulations.

All deliveries lie in one heap and are run, in order of time, by whoever calls
`MemoryNetwork.step`, `run_until` or `run_while`; there are no threads. The same
seed and the same calls give the same run. What can go wrong is what goes wrong
over TCP: connections break, lag, stall in a partition and vanish in a crash; loss,
duplication and reordering of single messages exist to stress the layers above.
"""

from __future__ import annotations

import base64
import hashlib
import heapq
import itertools
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from manta.testing.memory.links import Connection, MemoryLink, MemoryListener
from manta.transports import frames
from manta.transports.errors import AddressInUse, DownReason, LocalTransportError
from manta.transports.frames import Limits
from manta.transports.security.keys import KeyPair, check_key

if TYPE_CHECKING:
    from manta.transports.interface import LinkHandler
    from manta.transports.security.admission import Admission

_B85 = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~"
_Z85 = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
_TO_Z85 = bytes.maketrans(_B85, _Z85)


class Clock(Protocol):
    def now(self) -> float: ...


class VirtualClock:
    """Stands still but when the network moves it. Any clock with `advance` will do instead."""

    def __init__(self, now: float = 0.0) -> None:
        self._now = now

    def now(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        self._now += seconds


@dataclass
class Faults:
    """What the network does to messages; may be changed while it runs. Times in seconds."""

    delay: tuple[float, float] = (0.0005, 0.0005)  # one way, from .. to
    loss: float = 0.0  # share of messages at which the connection breaks
    drop: float = 0.0  # share of messages that vanish: TCP does not do this
    duplicate: float = 0.0  # share of messages that arrive twice: nor this
    reorder: float = 0.0  # share of messages that may be overtaken: nor this
    retry: tuple[float, float] = (0.1, 0.5)  # between two attempts of a dialled link
    silence: float = 5.0  # until a partition, or a frozen peer, is noticed
    unreachable: float = 4.0  # until an attempt into a partition is given up
    notice: float = 0.01  # until the crash of a process is noticed


def public_key_of(name: str) -> str:
    """A key that a test can name: the same for the same name, and nobody's."""
    digest = hashlib.blake2b(name.encode(), digest_size=32).digest()
    return base64.b85encode(digest).translate(_TO_Z85).decode("ascii")


class MemoryNetwork:
    """The world that its transports share.

    `clock` may have `advance(seconds)`: then the network moves time itself,
    else it runs what is due and leaves time to its owner.
    """

    def __init__(
        self,
        clock: Clock | None = None,
        rng: random.Random | None = None,
        faults: Faults | None = None,
        *,
        trace: Callable[[float, str], None] | None = None,
        raise_errors: bool = False,
    ) -> None:
        self.clock: Clock = clock or VirtualClock()
        self.rng = rng or random.Random(0)
        self.faults = faults or Faults()
        self.raise_errors = raise_errors  # of handlers, to the caller of `step`
        self.lock = threading.RLock()
        self._advance: Callable[[float], None] | None = getattr(self.clock, "advance", None)
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._ports = itertools.count(40000)
        self._trace = trace
        self._partitions: dict[frozenset[str], int] = {}
        self._listeners: dict[str, MemoryListener] = {}
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
        transport = MemoryTransport(self, name, key, limits or Limits(), window, major)
        self._transports.append(transport)
        return transport

    # --- time ----------------------------------------------------------------------------

    def call_later(self, delay: float, call: Callable[[], None]) -> None:
        """Run `call` in `delay` seconds, in order with the deliveries."""
        with self.lock:
            entry = (self.clock.now() + max(0.0, delay), next(self._numbers), call)
            heapq.heappush(self._heap, entry)

    @property
    def next_time(self) -> float | None:
        """When the next event is due."""
        with self.lock:
            return self._heap[0][0] if self._heap else None

    def step(self, until: float | None = None) -> bool:
        """Run the next event, moving time to it; False if there is none (before `until`)."""
        with self.lock:
            if not self._heap:
                return False
            at = self._heap[0][0]
            if (until is not None and at > until) or not self._move_to(at):
                return False
            call = heapq.heappop(self._heap)[2]
        call()
        return True

    def run_until(self, time: float) -> None:
        """Run all that is due until then, and leave the clock at that time."""
        while self.step(time):
            pass
        self._move_to(time)

    def run_for(self, seconds: float) -> None:
        self.run_until(self.clock.now() + seconds)

    def run_while(self, condition: Callable[[], bool], timeout: float = 60.0) -> bool:
        """Run until `condition` is false; False if it still holds after `timeout` seconds."""
        end = self.clock.now() + timeout
        while condition():
            if not self.step(end):
                self._move_to(end)
                return not condition()
        return True

    def _move_to(self, time: float) -> bool:
        ahead = time - self.clock.now()
        if ahead <= 0:
            return True
        if self._advance is None:
            return False
        self._advance(ahead)
        return True

    def log(self, text: str) -> None:
        if self._trace is not None:
            self._trace(self.clock.now(), text)

    def draw(self, span: tuple[float, float]) -> float:
        low, high = span
        return low if low == high else self.rng.uniform(low, high)

    def chance(self, share: float) -> bool:
        return share > 0 and self.rng.random() < share

    # --- faults --------------------------------------------------------------------------

    def partition(self, a: MemoryTransport, b: MemoryTransport) -> None:
        """Nothing passes between the two any more; both notice after `faults.silence`."""
        with self.lock:
            pair = frozenset((a.public_key, b.public_key))
            if pair in self._partitions:
                return
            mark = self._partitions[pair] = next(self._numbers)
            self.log(f"partition {a.name} | {b.name}")

        def noticed() -> None:
            if self._partitions.get(pair) == mark:
                for connection in list(self._connections()):
                    if {connection.dialler.key, connection.listener.key} == pair:
                        connection.snap(DownReason.SILENT)

        self.call_later(self.faults.silence, noticed)

    def heal(self, a: MemoryTransport, b: MemoryTransport) -> None:
        """End a partition: what it held back is delivered."""
        with self.lock:
            pair = frozenset((a.public_key, b.public_key))
            if self._partitions.pop(pair, None) is None:
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

    def is_partitioned(self, a: str, b: str) -> bool:
        """Of two public keys."""
        return frozenset((a, b)) in self._partitions

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
                self._listeners.pop(listener.address, None)
            for connection in list(self._connections()):
                if transport in (connection.dialler.transport, connection.listener.transport):
                    connection.snap(DownReason.LOST, self.faults.notice)

    def _connections(self) -> Iterator[Connection]:
        for transport in self._transports:
            for link in transport.links:
                if link.connection is not None and link.connection.dialler is link:
                    yield link.connection

    # --- names ---------------------------------------------------------------------------

    def bind(self, address: str, listener: MemoryListener) -> str:
        with self.lock:
            host, _, port = address.rpartition(":")
            if port in ("0", "*"):
                address = f"{host}:{next(self._ports)}"
            if address in self._listeners:
                raise AddressInUse(
                    f"cannot listen on {address}: another process listens there; stop it, or "
                    "choose another port"
                )
            self._listeners[address] = listener
            return address

    def unbind(self, address: str) -> None:
        with self.lock:
            self._listeners.pop(address, None)

    def listener_at(self, address: str) -> MemoryListener | None:
        return self._listeners.get(address)


class MemoryTransport:
    """One process's control plane in a `MemoryNetwork`."""

    def __init__(
        self,
        network: MemoryNetwork,
        name: str,
        key: str,
        limits: Limits,
        window: int,
        major: int,
    ) -> None:
        self.network = network
        self.name = name
        self.limits = limits
        self.window = window
        self.major = major
        self.closed = False
        self.crashed = False
        self.links: dict[MemoryLink, None] = {}  # ordered, unlike a set
        self.listeners: dict[MemoryListener, None] = {}
        self._key = key

    @property
    def public_key(self) -> str:
        return self._key

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
        listener.address = self.network.bind(address, listener)
        self.listeners[listener] = None
        return listener

    def dial(self, address: str, server_key: str, handler: LinkHandler) -> MemoryLink:
        self._check_open()
        check_key(server_key, "server's public key")
        with self.network.lock:
            link = MemoryLink(self, server_key, address, handler)
            self.links[link] = None
            self.network.call_later(self.network.draw(self.network.faults.delay), link.attempt)
        return link

    def close(self) -> None:
        with self.network.lock:
            if self.closed:
                return
            for listener in list(self.listeners):
                listener.close()
            for link in list(self.links):
                link.close()
            self.closed = True

    def call_soon(self, call: Callable[[], None]) -> None:
        """Run `call` as the network does the handlers: soon, in order."""
        self.network.call_later(0.0, call)

    def _check_open(self) -> None:
        if self.closed:
            raise LocalTransportError("this transport is closed: make a new one")
