"""Does a server speak ZMTP? One that does sends its greeting unasked (RFC 23).

A server that cannot decide now (ZAP 300) and a frozen one look the same to a zmq
client. The greeting tells them apart: only the first sends one.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Callable

from manta.transports.zeromq.io_thread import IoThread

_SIGNATURE = b"\xff"


class GreetingProbe:
    """Connects, reads one byte, hangs up; never blocks. Lives on the I/O thread."""

    def __init__(self, io: IoThread, host: str, port: int, greeted: Callable[[], None]) -> None:
        self._io = io
        self._greeted = greeted
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket: socket.socket | None = socket.socket(family, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        failed = self._socket.connect_ex((host, port))
        if failed not in (0, errno.EINPROGRESS):
            self.close()
            return
        io.add_reader(self._socket.fileno(), self._read)

    def close(self) -> None:
        """Idempotent."""
        if self._socket is None:
            return
        self._io.remove_reader(self._socket.fileno())
        self._socket.close()
        self._socket = None

    def _read(self) -> None:
        if self._socket is None:
            return
        first = b""
        with contextlib.suppress(OSError):  # the server hung up
            first = self._socket.recv(1)
        self.close()
        if first == _SIGNATURE:
            self._greeted()
