"""The connections of attempts to the plane."""

from __future__ import annotations

import contextlib
import math
import socket
from collections.abc import Callable
from typing import Any

import msgspec

from manta.light.wire import MAX_TO_NODE, BrokenFrame, Frames, frame, receive_bytes, send_frame
from manta.node.plane.requests import Handed, PlaneRequest
from manta.protocol.base import Instance
from manta.transports.codec.decoders import MALFORMED
from manta.transports.exchange.letters import Remote, Value
from manta.transports.exchange.messages import Parcel

_READ = 256 * 1024
_ANSWER = 512 * 1024  # bytes: one answer fits into the socket's buffer

_decode = msgspec.msgpack.Decoder(PlaneRequest).decode


class Gone(Exception):
    """The attempt has closed its end."""


class Channel:
    """One connection: one request at a time, at most one answer on its way."""

    def __init__(self, fd: int, at: Instance) -> None:
        self.at = at
        self.socket = socket.socket(fileno=fd)
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _ANSWER)
        self.current: Ask | None = None
        """The request that has no answer yet."""
        self._frames = Frames(MAX_TO_NODE, fds=1)  # one request at a time, with one at most

    @property
    def is_open(self) -> bool:
        return self.socket.fileno() >= 0

    def fileno(self) -> int:
        return self.socket.fileno()

    def read(self) -> None:
        """Takes in what has come. Raises Gone, BrokenFrame."""
        try:
            data, fds = receive_bytes(self.socket, _READ)
        except BlockingIOError:
            return
        except OSError as error:
            raise Gone from error
        if not data:
            raise Gone
        self._frames.feed(data, fds)

    def next(self) -> tuple[PlaneRequest, int | None] | None:
        """The next request that has come in full, with the descriptor of its value if it has one,
        which the caller must close. Raises BrokenFrame."""
        body = self._frames.next()
        if body is None:
            return None
        if self.current is not None:
            raise BrokenFrame("a request before the one before it was answered.")
        try:
            request: PlaneRequest = _decode(body)
        except MALFORMED as error:
            raise BrokenFrame(f"{type(error).__name__}: {error}") from error
        if not isinstance(getattr(request, "value", None), Handed):
            return request, None
        (fd,) = self._frames.take(1)
        return request, fd

    def send(self, message: dict[str, Any], fds: list[int]) -> None:
        """Sends an answer. Raises Gone, also where the attempt does not read what it asked for."""
        data = memoryview(frame(message))
        try:
            while data:
                data = data[send_frame(self.socket, data, fds) :]
                fds = []
        except OSError as error:
            raise Gone from error

    def refuse(self, sentence: str) -> None:
        """Says why it is closed."""
        with contextlib.suppress(Gone):
            self.send({"k": "refused", "sentence": sentence}, [])
        self.close()

    def close(self) -> None:
        self._frames.close()
        self.socket.close()


class Ask:
    """A request of an attempt. `give` sends a value along with the answer to it."""

    def __init__(
        self,
        channel: Channel,
        body: PlaneRequest,
        value: Value | None,
        done: Callable[[Ask, dict[str, Any], Parcel | Remote | None], None],
        reply: Callable[[Ask, dict[str, Any], list[int]], None],
    ) -> None:
        self.at = channel.at
        self.channel = channel
        self.connection = channel.fileno()
        self.body = body
        self.value = value
        self.refusal = ""
        """Why there is no room for the value that it comes with, if so."""
        self.nodes = 0
        """How many nodes a call that brings a value must have, at least."""
        self.failed: Callable[[str], object] = lambda _: None
        """Is told the sentence, if it fails."""
        self.until = math.inf
        """When its time is over."""
        self._done = done
        self._reply = reply

    def reply(self, told: dict[str, Any], fds: list[int]) -> None:
        """Sends an answer as it is, with its descriptors."""
        self._reply(self, told, fds)

    def tell(self, plain: str | None) -> None:
        self._done(self, {"k": "answer", "n": self.body.n, "plain": plain}, None)

    def answer(self, value: Value | None) -> None:
        head: dict[str, Any] = {"k": "answer", "n": self.body.n}
        if value is None:
            self._done(self, {**head, "plain": None}, None)
        elif isinstance(value, bytes):
            self._done(self, {**head, "data": value}, None)
        else:
            size = value.size if isinstance(value, Parcel) else value.parcel.size
            self._done(self, {**head, "size": size, "fds": 1}, value)

    def fail(self, kind: str, sentence: str) -> None:
        self.failed(sentence)
        told = {"k": "error", "n": self.body.n, "kind": kind, "sentence": sentence}
        self._done(self, told, None)
