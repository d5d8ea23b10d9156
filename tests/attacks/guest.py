"""A peer that speaks as a client or a node does, over a connection written by hand."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from manta.actors import wire
from manta.protocol.paths import GATEWAY
from manta.testing.curve import CurveClient, Hangup, NotWelcome
from manta.transports import frames
from manta.transports.frames import Hello, Kind, Limits
from manta.transports.security.keys import KeyPair

LIMITS = Limits()
WINDOW = 1 << 22
HELLO = frames.encode_hello(Hello(LIMITS, WINDOW, 60_000))
REFUSALS = (NotWelcome, Hangup, TimeoutError, OSError)
"""What meets who is not served."""
_pack = msgspec.msgpack.Encoder().encode


class Guest:
    """One connection; by default of a key that nobody knows."""

    def __init__(
        self,
        address: str,
        key: str,
        keys: KeyPair | None = None,
        *,
        source: str = "",
        timeout: float = 5.0,
    ) -> None:
        """Comes from the address `source` of this machine; who is put off is told nothing.

        Raises NotWelcome, Hangup or OSError.
        """
        client = CurveClient(address, key, keys, source=source, timeout=timeout)
        try:
            self.client = client.connect()
        except BaseException:
            client.close()
            raise
        self._ids = itertools.count(1)
        self._timeout = timeout
        self._received = self._reported = 0
        """What came so far, and what of it was said, as the window counts it."""

    def greet(self) -> None:
        """Becomes a link. Raises Hangup."""
        self.client.send(HELLO)
        self.client.receive()

    def ask(self, message: Any) -> wire.Answer | wire.Failure:
        """Raises Hangup, or TimeoutError where the answer doesn't come in time."""
        number = next(self._ids)
        deadline = time.monotonic() + self._timeout
        asked = wire.Ask(number, GATEWAY, 0, 10.0, msgspec.Raw(_pack(message)))
        encoded, _ = frames.encode([wire.encode(asked)], LIMITS)
        self.client.send(*map(bytes, encoded))
        while time.monotonic() < deadline:
            parts = self.client.receive()
            head = frames.decode_head(parts[0], LIMITS)
            if head.kind == Kind.PING:
                self.client.send(frames.encode_pong(self._received))
            if head.kind != Kind.DATA:
                continue
            self._take(frames.cost(head.sizes))
            said = wire.decode(b"".join(head.parts if head.parts is not None else parts[1:]))
            if isinstance(said, (wire.Answer, wire.Failure)) and said.id == number:
                return said
        raise TimeoutError

    def _take(self, size: int) -> None:
        """Says what came, before there is a window of it: who says nothing is sent no more."""
        self._received += size
        if self._received - self._reported >= WINDOW // 4:
            self._reported = self._received
            self.client.send(frames.encode_pong(self._received))

    def close(self) -> None:
        self.client.close()


def noise(size: int) -> bytes:
    return random.randbytes(size)


def cut(clients: Sequence[CurveClient], within: float = 0.0) -> int:
    """How many of the connections the server has ended, as soon as all are, or within that time."""
    deadline = time.monotonic() + within
    left = list(clients)
    while True:
        left = [client for client in left if not client.wait_cut(0)]
        if not left or time.monotonic() >= deadline:
            return len(clients) - len(left)
        time.sleep(0.1)
