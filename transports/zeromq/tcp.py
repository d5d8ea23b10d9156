"""The TCP connections under zmq's sockets: how to end one, and how much it receives.

zmq can neither disconnect one peer of a ROUTER nor report what arrives before a
message is complete. The descriptors come from zmq (monitor events, SRCFD) and
remain its own: as long as there are others, what changes a connection is done through a copy
that is closed at once.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import socket
import struct
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import zmq

_COOKIE = 57  # SO_COOKIE (asm-generic/socket.h), since Linux 4.12
_TCP_INFO: int | None = getattr(socket, "TCP_INFO", None)
_RECEIVED = struct.Struct("=Q")
_RECEIVED_AT = 128  # tcpi_bytes_received in struct tcp_info (linux/tcp.h), since Linux 4.1


@contextmanager
def _at(fd: int) -> Iterator[socket.socket]:
    """The socket behind a descriptor, through a copy. Raises OSError when it is none.

    Where no descriptor is left for a copy, connections must be ended all the same: then it is
    the very one of zmq, which is never closed here.
    """
    try:
        own = os.dup(fd)
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE):
            raise
        lent = socket.socket(fileno=fd)
        try:
            yield lent
        finally:
            lent.detach()
    else:
        with _own(own) as copy:
            yield copy


def _own(fd: int) -> socket.socket:
    """Raises OSError when it is not a socket, and closes it."""
    try:
        return socket.socket(fileno=fd)
    except OSError:
        os.close(fd)
        raise


class Traffic(NamedTuple):
    """Bytes that a connection received, 0 where the system does not say."""

    received: int
    unread: int  # of these, what zmq has not read yet


class TcpConnection(NamedTuple):
    """One connection, distinguished from a later one with the same descriptor."""

    fd: int
    peer: Any
    local: Any
    name: object
    """As `_name_of` it."""

    @classmethod
    def of(cls, fd: int) -> TcpConnection | None:
        """The connection behind a descriptor; None if there is none any more."""
        with suppress(OSError), _at(fd) as copy:
            return cls(fd, copy.getpeername(), copy.getsockname(), _name_of(copy))
        return None

    @property
    def host(self) -> str:
        """The peer's IP address, "" for what is no IP connection."""
        return str(self.peer[0]) if isinstance(self.peer, tuple) else ""

    def is_at(self, host: str, port: int) -> bool:
        """Was it accepted at this address? `host` is "" for any of this machine."""
        if not isinstance(self.local, tuple) or self.local[1] != port:
            return False
        return not host or self.local[0].partition("%")[0] == host.partition("%")[0]

    def is_to(self, port: int) -> bool:
        """Was it dialled to this port of its peer?"""
        return isinstance(self.peer, tuple) and bool(self.peer[1] == port)

    @property
    def is_open(self) -> bool:
        return TcpConnection.of(self.fd) == self

    def kill(self) -> None:
        """End the connection, whatever is in flight."""
        with suppress(OSError), _at(self.fd) as copy:
            # Compared on the copy, which remains this connection whatever zmq closes.
            if _name_of(copy) == self.name:
                copy.shutdown(socket.SHUT_RDWR)

    def received(self) -> int | None:
        """Bytes that it received so far; None when it is closed. Cheap: it is asked of all."""
        try:
            borrowed = self._borrowed()
            try:
                received = received_by(borrowed) or 0
                # Its name is compared last: then it was this connection before, too.
                return received if _name_of(borrowed) == self.name else None
            finally:
                borrowed.detach()
        except OSError:
            return None

    def traffic(self) -> Traffic | None:
        """What it received so far; None when it is closed."""
        try:
            borrowed = self._borrowed()
            try:
                received = received_by(borrowed) or 0
                unread = array.array("i", [0])
                fcntl.ioctl(self.fd, termios.FIONREAD, unread)
                return Traffic(received, unread[0]) if _name_of(borrowed) == self.name else None
            finally:
                borrowed.detach()
        except OSError:
            return None

    def _borrowed(self) -> socket.SocketType:
        """Its socket without a copy, to be detached: three times as fast."""
        family = socket.AF_INET6 if len(self.peer) > 2 else socket.AF_INET
        return socket.SocketType(family, socket.SOCK_STREAM, 0, self.fd)

    def copy(self) -> socket.socket | None:
        """A descriptor of the caller's own, who closes it: it outlives zmq's."""
        with suppress(OSError):
            return _own(os.dup(self.fd))
        return None


def _name_of(connection: socket.SocketType) -> object:
    """What no other connection has: its peer's address may come again."""
    try:
        return connection.getsockopt(socket.SOL_SOCKET, _COOKIE, 8)
    except OSError as error:
        if error.errno not in (errno.ENOPROTOOPT, errno.EINVAL):
            raise
        return connection.getpeername()


def descriptor_of(frame: zmq.Frame) -> int:
    """The descriptor of the connection on which the frame came; -1 if there is none."""
    try:
        return int(frame.get(zmq.SRCFD))
    except zmq.ZMQError:
        return -1


def received_by(connection: socket.SocketType) -> int | None:
    """Bytes received so far; None where the system does not say."""
    if _TCP_INFO is None:
        return None
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, 256)
        return _RECEIVED.unpack_from(info, _RECEIVED_AT)[0]  # type: ignore[no-any-return]
    except (OSError, struct.error):
        return None
