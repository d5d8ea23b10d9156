"""For tests of transports: a recording handler, and one harness over zmq and memory."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from manta.testing.memory.medium import Faults
from manta.testing.memory.network import MemoryNetwork
from manta.testing.memory.transport import MemoryTransport
from manta.testing.waiting import PATIENCE, wait_until
from manta.transports.errors import DownReason
from manta.transports.security.keys import KeyPair

if TYPE_CHECKING:
    from manta.transports.interface import Buffer, Link, Transport
    from manta.transports.zeromq.links import LinkOptions
    from manta.transports.zeromq.transport import ZmqTransport


class RecordingHandler:
    """A LinkHandler that records its calls, and passes messages to `on_message`."""

    def __init__(self, on_message: Callable[[Link, list[Buffer]], None] | None = None) -> None:
        self.links: list[Link] = []  # one for each time that a link came up
        self.downs: list[tuple[Link, DownReason]] = []
        self.messages: list[list[bytes]] = []
        self.on_message = on_message

    def link_up(self, link: Link) -> None:
        self.links.append(link)

    def link_down(self, link: Link, reason: DownReason) -> None:
        self.downs.append((link, reason))

    def received(self, link: Link, message: list[Buffer]) -> None:
        self.messages.append([bytes(part) for part in message])
        if self.on_message is not None:
            self.on_message(link, message)

    @property
    def link(self) -> Link:
        """The link that came up last."""
        return self.links[-1]

    @property
    def reasons(self) -> list[DownReason]:
        return [reason for _, reason in self.downs]


def echo(link: Link, message: list[Buffer]) -> None:
    """An `on_message` that sends messages back."""
    link.send(message)


class Harness(Protocol):
    """The environment of the transports under test."""

    def transport(self, keys: KeyPair | None = None) -> Transport:
        """The transport of a new process, with this identity."""

    def wait(self, condition: Callable[[], bool], timeout: float = PATIENCE) -> None:
        """Run until `condition`; fails after `timeout` seconds."""

    def rest(self, seconds: float) -> None:
        """Run for `seconds`."""

    @contextmanager
    def frozen(self, transport: Transport) -> Iterator[None]:
        """Freeze the process, its connections intact."""

    def close(self) -> None:
        """Close all transports."""


class ZmqHarness:
    """Real sockets on this machine."""

    def __init__(self, options: LinkOptions | None = None) -> None:
        self._options = options
        self._made: list[ZmqTransport] = []

    def transport(self, keys: KeyPair | None = None) -> ZmqTransport:
        from manta.transports.zeromq.transport import ZmqTransport

        transport = ZmqTransport(keys or KeyPair.generate(), options=self._options)
        self._made.append(transport)
        return transport

    def wait(self, condition: Callable[[], bool], timeout: float = PATIENCE) -> None:
        wait_until(condition, timeout)

    def rest(self, seconds: float) -> None:
        time.sleep(seconds)

    @contextmanager
    def frozen(self, transport: Transport) -> Iterator[None]:
        thawed = threading.Event()
        held = next(made for made in self._made if made is transport)

        def freeze() -> None:
            thawed.wait(30)

        held.call_soon(freeze)
        try:
            yield
        finally:
            thawed.set()

    def close(self) -> None:
        for transport in self._made:
            transport.close()


class MemoryHarness:
    """Virtual time."""

    def __init__(self, faults: Faults | None = None, seed: int = 0) -> None:
        self.network = MemoryNetwork(rng=random.Random(seed), faults=faults or Faults())
        self._made: list[MemoryTransport] = []

    def transport(self, keys: KeyPair | None = None) -> MemoryTransport:
        transport = self.network.transport(keys or f"process-{len(self._made)}")
        self._made.append(transport)
        return transport

    def wait(self, condition: Callable[[], bool], timeout: float = PATIENCE) -> None:
        if not self.network.run_while(lambda: not condition(), timeout):
            raise AssertionError(f"did not come about in {timeout:g} s")

    def rest(self, seconds: float) -> None:
        self.network.run_for(seconds)

    @contextmanager
    def frozen(self, transport: Transport) -> Iterator[None]:
        held = next(made for made in self._made if made is transport)
        self.network.isolate(held)
        try:
            yield
        finally:
            self.network.rejoin(held)

    def close(self) -> None:
        for transport in self._made:
            transport.close()
        self.network.run_for(1.0)
