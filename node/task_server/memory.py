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
    """A memfd that the task writes its value into.

    It is sealed against shrinking: a reader of a truncated mapping would be killed.
    """

    def __init__(self, size: int) -> None:
        """Raises OSError."""
        if size > os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"):
            raise OSError("it is larger than this machine's memory")
        self.size = size
        self.fd = os.memfd_create("manta-value", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.fd, size)
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        os.close(self.fd)


class Incoming:
    """A value too large for memory: the task writes it into a socket, and a thread into a file.

    A file that the task wrote itself would have to be copied, since the task could change it.
    """

    def __init__(self, depot: TieredDepot, size: int) -> None:
        self._ours, theirs = socket.socketpair()
        self.fd = theirs.detach()
        self.size = size
        self._depot = depot
        self._digest: Future[str] = Future()
        threading.Thread(target=self._receive, name="manta-light-value", daemon=True).start()

    def finish(self) -> Future[str]:
        """Called when the task has written all; the digest is that of a pinned blob."""
        os.close(self.fd)
        self.fd = -1
        return self._digest

    def close(self) -> None:
        """Called when the attempt is over."""
        if self.fd >= 0:  # it was never handed in
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
                with contextlib.suppress(OSError):
                    while self._ours.recv(PIECE):
                        continue  # though there is no room: the task hears so when it hands it in
                self._digest.set_exception(error)
            else:
                self._digest.set_result(digest)
