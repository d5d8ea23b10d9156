"""The ways out of one task: it connects to its own loopback, and the node to where that leads.

The task's sandbox listens there for each target, and hands the node the sockets
(`manta.node.isolation.listen`). The node resolves the name for each connection, connects to an
address that the owner's list allows, and moves bytes both ways. A name may resolve to another
address each time: what counts is the address that is connected to.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import selectors
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from manta.protocol.outbound import Address, Target, reachable

log = logging.getLogger("manta.node.outbound")

MOST: Final = 64
"""Connections of a task at a time."""
_CONNECTING = 10.0  # seconds, for each address
_TRIES = 4
"""Addresses of a name that are tried."""
_LOOK = 0.5  # seconds between looks at whether the task has ended
_HALF = 64 * 1024  # bytes that are on their way in a direction
_STARTING = 120.0  # seconds until a sandbox has listened
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: what is closed says that it failed


@dataclass
class Totals:
    """Of one target."""

    connections: int = 0
    failed: int = 0
    sent: int = 0
    """Bytes that left the task."""
    received: int = 0


class Ways:
    """`tell` takes a sentence for the task's user, each once; `opened` a target and the address
    that was connected to; `ended` the totals. All are called from threads of these ways."""

    def __init__(
        self,
        targets: Sequence[Target],
        patterns: Sequence[str],
        tell: Callable[[str], None],
        opened: Callable[[Target, str], None],
        ended: Callable[[dict[Target, Totals]], None],
    ) -> None:
        self.targets = tuple(targets)
        self._patterns = tuple(patterns)
        self._tell = tell
        self._opened = opened
        self._ended = ended
        self._totals = {target: Totals() for target in self.targets}
        self._told: set[str] = set()
        self._lock = threading.Lock()
        self._connections: set[threading.Thread] = set()
        self._stop = threading.Event()

    @property
    def inside(self) -> list[tuple[str, int]]:
        """Where a task's sandbox listens, for each target."""
        hosts = dict.fromkeys(target.host for target in self.targets)
        own = {host: f"127.9.{number}.1" for number, host in enumerate(hosts, 1)}
        own["localhost"] = "127.0.0.1"  # where what the task itself starts is looked for, too
        return [(str(target.address or own[target.host]), target.port) for target in self.targets]

    @property
    def names(self) -> dict[str, str]:
        """By which names a task finds these addresses, but localhost, which is there."""
        pairs = zip(self.targets, self.inside, strict=True)
        return {
            target.host: at[0]
            for target, at in pairs
            if target.address is None and target.host != "localhost"
        }

    @property
    def hosts(self) -> str:
        """The same, as lines of `/etc/hosts`."""
        return "".join(f"{address} {name}\n" for name, address in self.names.items())

    def take(self, other: socket.socket) -> None:
        """Serves what a sandbox hands over on this socket, which is closed."""
        threading.Thread(
            target=self._serve, args=(other,), name="manta-outbound", daemon=True
        ).start()

    def take_at(self, listening: socket.socket, over: Callable[[], None]) -> None:
        """The same with what the first hands over that connects to this socket, which is closed
        then. `over` is called when nobody is to connect any more."""
        threading.Thread(
            target=self._await, args=(listening, over), name="manta-outbound", daemon=True
        ).start()

    def close(self) -> None:
        """Ends all connections, soon. Idempotent."""
        self._stop.set()

    # Threads: one that accepts, and one for each connection.

    def _await(self, listening: socket.socket, over: Callable[[], None]) -> None:
        other: socket.socket | None = None
        with listening:
            listening.settimeout(_LOOK)
            while other is None and not self._stop.is_set():
                with contextlib.suppress(TimeoutError):
                    other, _ = listening.accept()
        over()
        if other is not None:
            self._serve(other)

    def _serve(self, other: socket.socket) -> None:
        with contextlib.ExitStack() as undo:
            undo.callback(self._count)
            undo.enter_context(other)
            other.settimeout(_STARTING)
            try:
                _, fds, _, _ = socket.recv_fds(other, 1, len(self.targets))
            except OSError:
                return  # the sandbox has ended, which its runner tells
            listening = [undo.enter_context(socket.socket(fileno=fd)) for fd in fds]
            if len(listening) != len(self.targets):
                return
            with selectors.DefaultSelector() as ready:
                for one, target in zip(listening, self.targets, strict=True):
                    one.setblocking(False)
                    ready.register(one, selectors.EVENT_READ, target)
                while not self._stop.is_set():
                    for key, _ in ready.select(_LOOK):
                        self._accept(key.fileobj, key.data)  # type: ignore[arg-type]

    def _count(self) -> None:
        """Tells the totals once all connections have ended."""
        for one in self._connections:
            one.join()
        self._ended(dict(self._totals))

    def _accept(self, listening: socket.socket, target: Target) -> None:
        try:
            inner, _ = listening.accept()
        except OSError:
            return  # it has given up meanwhile
        self._connections = {one for one in self._connections if one.is_alive()}
        if len(self._connections) >= MOST:
            self._fail(inner, target, f"the task has {MOST} connections, and may have no more")
            return
        made = threading.Thread(
            target=self._connect, args=(inner, target), name="manta-outbound", daemon=True
        )
        self._connections.add(made)
        made.start()

    def _connect(self, inner: socket.socket, target: Target) -> None:
        try:
            outer, address = self._reached(target)
        except OSError as error:
            self._fail(inner, target, error.strerror or str(error))
            return
        with self._lock:
            self._totals[target].connections += 1
        with inner, outer:
            self._opened(target, address)
            self._move(inner, outer, self._totals[target])

    def _reached(self, target: Target) -> tuple[socket.socket, str]:
        """A connection to the first address that is allowed and answers. Raises OSError."""
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
        addresses = [(family, str(where[0])) for family, _, _, _, where in found]
        fitting = [each for each in addresses if self._may_reach(each[1], target)]
        if not fitting:
            shown = ", ".join(dict.fromkeys(address for _, address in addresses))
            raise PermissionError(
                f"it resolves to {shown}, which is no public address and not among those that the "
                "node's owner allows (network.allow)"
            )
        problem: OSError | None = None
        for family, address in fitting[:_TRIES]:
            outer = socket.socket(family, socket.SOCK_STREAM)
            try:
                outer.settimeout(_CONNECTING)
                outer.connect((address, target.port))
            except OSError as error:
                outer.close()
                problem = error
            else:
                return outer, address
        assert problem is not None
        raise problem

    def _may_reach(self, address: str, target: Target) -> bool:
        found: Address = ipaddress.ip_address(address.partition("%")[0])
        return reachable(found, target, self._patterns)

    def _fail(self, inner: socket.socket, target: Target, why: str) -> None:
        """What the task sees is a connection that is reset; why is told in its log, once."""
        with contextlib.suppress(OSError), inner:
            inner.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        sentence = f"No connection to {target} was made for the task: {why}."
        with self._lock:
            self._totals[target].failed += 1
            is_new = sentence not in self._told and len(self._told) < MOST
            if is_new:
                self._told.add(sentence)
        if is_new:
            self._tell(sentence)

    def _move(self, inner: socket.socket, outer: socket.socket, totals: Totals) -> None:
        """Until both sides have said all, one fails, or the task ends."""
        flows = {inner: Flow(inner, outer), outer: Flow(outer, inner)}
        for one in flows:
            one.setblocking(False)
        with selectors.DefaultSelector() as ready:
            try:
                while not self._stop.is_set() and not all(each.is_over for each in flows.values()):
                    _wait_for(ready, flows)
                    for key, events in ready.select(_LOOK):
                        flow: Flow = key.data
                        if events & selectors.EVENT_READ:
                            flow.read()
                        if events & selectors.EVENT_WRITE:
                            flows[flow.target].write()
            except OSError as error:  # reset by one: so it is for the other
                log.debug("a connection of a task ended: %s", error)
                for one in flows:
                    with contextlib.suppress(OSError):
                        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        with self._lock:
            totals.sent += flows[inner].moved
            totals.received += flows[outer].moved


class Flow:
    """Bytes from one socket to another."""

    def __init__(self, source: socket.socket, target: socket.socket) -> None:
        self.target = target
        self.moved = 0
        self.is_over = False
        """All was said, and passed on."""
        self._source = source
        self._waiting = b""
        self._is_said = False

    @property
    def wants(self) -> bool:
        """Whether more can be read."""
        return not self._is_said and not self._waiting

    @property
    def has(self) -> bool:
        """Whether there is something to write."""
        return bool(self._waiting)

    def read(self) -> None:
        """Raises OSError."""
        self._waiting = self._source.recv(_HALF)
        if self._waiting:
            self.write()
        else:
            self._is_said = self.is_over = True
            self.target.shutdown(socket.SHUT_WR)

    def write(self) -> None:
        """Raises OSError."""
        with contextlib.suppress(BlockingIOError):
            count = self.target.send(self._waiting)
            self.moved += count
            self._waiting = self._waiting[count:]


def _wait_for(ready: selectors.BaseSelector, flows: dict[socket.socket, Flow]) -> None:
    for one, flow in flows.items():
        back = flows[flow.target]
        wanted = selectors.EVENT_READ * flow.wants | selectors.EVENT_WRITE * back.has
        known = ready.get_map().get(one)
        if known is not None and known.events == wanted:
            continue
        if known is not None:
            ready.unregister(one)
        if wanted:
            ready.register(one, wanted, flow)
