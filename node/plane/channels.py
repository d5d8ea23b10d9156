"""The connections of attempts to the plane."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import msgspec

from manta.light.wire import MAX_TO_NODE, BrokenFrame, Frames, frame, receive_bytes, send_frame
from manta.node.plane.requests import Handed, PlaneRequest
from manta.protocol.base import Instance
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
        self._frames = Frames(MAX_TO_NODE)

    def fileno(self) -> int:
        return self.socket.fileno()

    def read(self) -> list[tuple[PlaneRequest, list[int]]]:
        """The requests that have come, with their descriptors, which the caller must close.

        Raises Gone, BrokenFrame.
        """
        try:
            data, fds = receive_bytes(self.socket, _READ)
        except BlockingIOError:
            return []
        except OSError as error:
            raise Gone from error
        if not data:
            raise Gone
        self._frames.feed(data, fds)
        found = []
        while (body := self._frames.next()) is not None:
            try:
                request: PlaneRequest = _decode(body)
            except (msgspec.MsgspecError, ValueError, RecursionError) as error:
                raise BrokenFrame(f"{type(error).__name__}: {error}") from error
            value = getattr(request, "value", None)
            found.append((request, self._frames.take(1 if isinstance(value, Handed) else 0)))
        return found

    def send(self, message: dict[str, Any], fds: list[int]) -> None:
        """Sends an answer. Raises Gone, also where the attempt does not read what it asked for."""
        data = memoryview(frame(message))
        try:
            while data:
                data = data[send_frame(self.socket, data, fds) :]
                fds = []
        except OSError as error:
            raise Gone from error

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
        self.body = body
        self.value = value
        self._done = done
        self._reply = reply

    def reply(self, told: dict[str, Any], fds: list[int]) -> None:
        """Sends an answer as it is, with its descriptors."""
        self._reply(self, told, fds)

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
        told = {"k": "error", "n": self.body.n, "kind": kind, "sentence": sentence}
        self._done(self, told, None)
