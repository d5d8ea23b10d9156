"""One task's connection, at the node's end."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from collections import deque
from typing import TYPE_CHECKING

from manta.light.wire import MAX_TO_NODE, Frames, frame, receive_bytes
from manta.node.task_server.answers import failure
from manta.node.task_server.sessions import Channel, Message, Session
from manta.protocol.values import BlobRef
from manta.transports.errors import BlobMissing

if TYPE_CHECKING:
    from manta.node.blobs.tiered_depot import TieredDepot

_READ = 256 * 1024
_LATER = (errno.EAGAIN, errno.ETOOMANYREFS, errno.ENOBUFS)


class Gone(Exception):
    """The task's end is closed."""


class Peer:
    """Bytes, descriptors and frames; what they mean is the server's business."""

    def __init__(self, sock: socket.socket, depot: TieredDepot) -> None:
        self.socket = sock
        self.since = time.monotonic()
        self.role: Session | Channel | None = None
        """Who it is, once its token was accepted."""
        self.closing = False
        """To be closed as soon as all is sent."""
        self.is_throttled = False
        """The kernel takes no more descriptors for now: try again soon."""
        self._frames = Frames(MAX_TO_NODE)
        self._depot = depot
        self._queue: deque[Message] = deque()
        self._rest: memoryview | None = None

    def fileno(self) -> int:
        return self.socket.fileno()

    def read(self) -> None:
        """Raises Gone, and BrokenFrame."""
        try:
            data, fds = receive_bytes(self.socket, _READ)
        except BlockingIOError:
            return
        except OSError as error:
            raise Gone from error
        for fd in fds:  # tasks have no business sending any
            os.close(fd)
        if not data:
            raise Gone
        self._frames.feed(data, [])

    def next(self) -> bytes | None:
        """Raises BrokenFrame."""
        return self._frames.next()

    def send(self, *messages: Message) -> None:
        """Queue them; `flush` sends."""
        self._queue.extend(messages)

    def flush(self) -> bool:
        """Send what the socket takes; False when something is left. Raises Gone."""
        self.is_throttled = False
        try:
            while self._rest is not None or self._queue:
                if self._rest is not None:
                    sent = self.socket.send(self._rest, socket.MSG_DONTWAIT)
                    self._rest = self._rest[sent:] if sent < len(self._rest) else None
                else:
                    self._send_next()
        except OSError as error:
            if error.errno not in _LATER:
                raise Gone from error
            self.is_throttled = error.errno != errno.EAGAIN
            return False
        return True

    def _send_next(self) -> None:
        message, along = self._queue[0]
        fds: list[int] = []
        opened = -1
        try:
            if isinstance(along, BlobRef):
                opened = self._depot.open(along.digest)
                fds = [opened]
            elif along:
                fds = along
            data = memoryview(frame({**message, "fds": len(fds)} if fds else message))
            sent = self._send_first(data, fds)
        except BlobMissing as error:
            number = message["n"]
            self._queue = deque(item for item in self._queue if item[0].get("n") != number)
            self._queue.appendleft(failure(number, ("RequestFailed", f"{error}.")))
            return
        finally:
            if opened >= 0:
                os.close(opened)
        self._queue.popleft()
        self._rest = data[sent:] if sent < len(data) else None

    def _send_first(self, data: memoryview, fds: list[int]) -> int:
        if not fds:
            return self.socket.send(data, socket.MSG_DONTWAIT)
        rights = (
            socket.SOL_SOCKET,
            socket.SCM_RIGHTS,
            b"".join(fd.to_bytes(4, "little") for fd in fds),
        )
        return self.socket.sendmsg([data], [rights], socket.MSG_DONTWAIT)

    def close(self) -> None:
        self._frames.close()
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
