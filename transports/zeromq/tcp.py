"""The TCP connections under zmq's sockets: how to end one, and how much it receives.

zmq can neither disconnect one peer of a ROUTER nor report what arrives before a
message is complete. The descriptors come from zmq (monitor events, SRCFD) and
remain its own; they are only used through a copy that is closed at once.
"""

from __future__ import annotations

import os
import socket
import struct
from contextlib import suppress
from typing import NamedTuple

import zmq

_RECEIVED = struct.Struct("=Q")
_RECEIVED_AT = 128  # tcpi_bytes_received in struct tcp_info (linux/tcp.h), since Linux 4.1


def _copy(fd: int) -> socket.socket:
    """Raises OSError when it is not a socket."""
    own = os.dup(fd)
    try:
        return socket.socket(fileno=own)
    except OSError:
        os.close(own)
        raise


class TcpConnection(NamedTuple):
    """One connection, distinguished from a later one with the same descriptor."""

    fd: int
    peer: object

    @classmethod
    def of(cls, fd: int) -> TcpConnection | None:
        """The connection behind a descriptor; None if there is none any more."""
        with suppress(OSError), _copy(fd) as copy:
            return cls(fd, copy.getpeername())
        return None

    @property
    def is_open(self) -> bool:
        return TcpConnection.of(self.fd) == self

    def kill(self) -> None:
        """End the connection, whatever is in flight."""
        with suppress(OSError), _copy(self.fd) as copy:
            # Compared on the copy, which remains this connection whatever zmq closes.
            if copy.getpeername() == self.peer:
                copy.shutdown(socket.SHUT_RDWR)

    def received(self) -> int | None:
        """Bytes received so far; None where the system does not say."""
        with suppress(OSError), _copy(self.fd) as copy:
            if copy.getpeername() == self.peer:
                return received_by(copy)
        return None

    def copy(self) -> socket.socket | None:
        """A descriptor of the caller's own, who closes it: it outlives zmq's."""
        with suppress(OSError):
            return _copy(self.fd)
        return None


def connection_of(frame: zmq.Frame) -> TcpConnection | None:
    """That on which the frame came; None if there is none any more."""
    try:
        fd = int(frame.get(zmq.SRCFD))
    except zmq.ZMQError:
        return None
    return TcpConnection.of(fd) if fd >= 0 else None


def received_by(connection: socket.socket) -> int | None:
    """Bytes received so far; None where the system does not say."""
    if not hasattr(socket, "TCP_INFO"):
        return None
    with suppress(OSError, struct.error):
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        return int(_RECEIVED.unpack_from(info, _RECEIVED_AT)[0])
    return None


class Progress:
    """What a connection receives while no message becomes complete.

    A large message on a slow line is a sign of life. An endless one is an attack: zmq
    would hold all of it, beyond every limit.
    """

    def __init__(self, limit: int, least: int = 1024) -> None:
        self._limit = limit
        self._least = least  # in a tick; zmq's own heartbeats, which prove nothing, are fewer
        self._first: int | None = None
        self._last = 0

    def reset(self) -> None:
        """A message became complete."""
        self._first = None

    def advance(self, received: int | None) -> bool:
        """Is a message arriving? `received` counts all bytes so far."""
        if received is None:
            return False
        if self._first is None:
            self._first = self._last = received
            return False
        moving = received - self._last >= self._least
        self._last = received
        return moving

    @property
    def excessive(self) -> bool:
        """Did more arrive than any message may have?"""
        return self._first is not None and self._last - self._first > self._limit
