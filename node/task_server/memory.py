"""Memory that tasks write their large values into."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING

from manta.transports.blobs.writer import PIECE

if TYPE_CHECKING:
    from manta.node.blobs.tiered_depot import TieredDepot


class Memory:
    """A memfd that the task writes its value into."""

    def __init__(self, size: int) -> None:
        """Raises OSError."""
        self.fd = _memfd(size)
        self.size = size

    def close(self) -> None:
        os.close(self.fd)


class Incoming:
    """A value that memory should not hold: the task writes it to a socket, a thread to a file.

    A file of the task's own would have to be copied, as nobody could keep it from changing it.
    """

    def __init__(self, depot: TieredDepot, size: int) -> None:
        self._ours, theirs = socket.socketpair()
        self.fd = theirs.detach()
        self.size = size
        self._depot = depot
        self._digest: Future[str] = Future()
        threading.Thread(target=self._receive, name="manta-light-value", daemon=True).start()

    def finish(self) -> Future[str]:
        """The task has written all: the digest, of a blob that is pinned."""
        os.close(self.fd)
        self.fd = -1
        return self._digest

    def close(self) -> None:
        """The round is over."""
        if self.fd >= 0:  # and nobody wants it
            os.close(self.fd)
            self._digest.add_done_callback(self._let_go)
        with contextlib.suppress(OSError):
            self._ours.shutdown(socket.SHUT_RDWR)

    def _let_go(self, digest: Future[str]) -> None:
        if digest.exception() is None:
            self._depot.unpin(digest.result())

    def _receive(self) -> None:
        with self._ours:
            try:
                digest = self._depot.put_stream(self._ours.recv, self.size)
                self._depot.pin(digest)
            except BaseException as error:
                while self._drop():
                    continue
                self._digest.set_exception(error)
            else:
                self._digest.set_result(digest)

    def _drop(self) -> bool:
        """What the task still writes of a value that finds no room: it hears when it asks."""
        try:
            return bool(self._ours.recv(PIECE))
        except OSError:
            return False


def _memfd(size: int) -> int:
    """A memfd of that size that nobody can cut short: whoever maps it would die of it.

    Raises OSError.
    """
    if size > os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"):
        raise OSError("it is larger than this machine's memory")
    fd = os.memfd_create("manta-value", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, size)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    except BaseException:
        os.close(fd)
        raise
    return fd
