"""A task's connection, at the node's end."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from collections import deque
from typing import TYPE_CHECKING

from manta.light.wire import MAX_TO_NODE, NOT_TEXT, Frames, frame, receive_bytes, send_frame
from manta.node.task_server.answers import failure
from manta.node.task_server.messages import Descriptor
from manta.node.task_server.sessions import Message, RequestChannel, RuntimeSession
from manta.protocol.values import BlobRef
from manta.transports.errors import BlobMissing, BulkError, remedied

if TYPE_CHECKING:
    from manta.node.blobs.tiered_depot import TieredDepot

_READ = 256 * 1024
_LATER = (errno.EAGAIN, errno.ETOOMANYREFS, errno.ENOBUFS)


class Gone(Exception):
    """The task has closed its end."""


class TaskConnection:
    """Moves bytes, descriptors and frames; the server knows what they mean."""

    def __init__(self, sock: socket.socket, depot: TieredDepot) -> None:
        sock.setblocking(False)
        self.socket = sock
        self.since = time.monotonic()
        self.role: RuntimeSession | RequestChannel | None = None
        """Who is at the other end, once its token was accepted."""
        self.closing = False
        """Whether to close as soon as all is sent."""
        self.is_throttled = False
        """Whether the kernel takes no more descriptors for now: try again soon."""
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
        for fd in fds:  # tasks have none to send
            os.close(fd)
        if not data:
            raise Gone
        self._frames.feed(data, [])

    def next(self) -> bytes | None:
        """Raises BrokenFrame."""
        return self._frames.next()

    def send(self, *messages: Message) -> None:
        """Queues messages; `flush` sends them."""
        self._queue.extend(messages)

    def flush(self) -> bool:
        """Sends what the socket takes; False when something is left. Raises Gone."""
        self.is_throttled = False
        try:
            while self._rest is not None or self._queue:
                if self._rest is not None:
                    sent = self.socket.send(self._rest)
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
                try:
                    opened = self._depot.open(along.digest)
                except OSError as error:  # not of the connection
                    raise BlobMissing(f"a value could not be opened: {remedied(error)}") from error
                fds = [opened]
            elif isinstance(along, Descriptor):
                fds = [along.fd]
            elif along:
                fds = along
            whole = {**message, "fds": len(fds)} if fds else message
            data = memoryview(frame(whole, NOT_TEXT))
            sent = send_frame(self.socket, data, fds)
        except BulkError as error:
            number = message["n"]
            self._queue = deque(item for item in self._queue if item[0].get("n") != number)
            self._queue.appendleft(failure(number, ("RequestFailed", f"{error}.")))
            return
        finally:
            if opened >= 0:
                os.close(opened)
        self._queue.popleft()
        if isinstance(along, Descriptor):
            along.close()
        self._rest = data[sent:] if sent < len(data) else None

    def close(self) -> None:
        self._frames.close()
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
