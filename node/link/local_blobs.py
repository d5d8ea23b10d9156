"""Blobs between nodes of one user on one machine: the descriptor is passed, and no byte is copied.

Each node listens at an abstract Unix socket that its key names. Whoever is at the other end must
be of the same user, as the kernel says (SO_PEERCRED, unix(7)), on either side; the key that who
asks names need not be proven, as such a process could read the node's files as well.

    request   digest, key of who asks                   104 bytes
    answer    1, with the descriptor; else 0            1 byte
"""

from __future__ import annotations

import array
import contextlib
import logging
import os
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING

from manta.node.blobs.arriving import ArrivesLater
from manta.transports.errors import BlobCorrupt, BlobMissing, BulkError, LocalTransportError
from manta.transports.sealed.user import check_user

if TYPE_CHECKING:
    from manta.node.blobs.arriving import Arriving
    from manta.node.blobs.tiered_depot import TieredDepot
    from manta.node.link.node_depot import NodeDepot
    from manta.protocol.values import BlobRef

log = logging.getLogger(__name__)

DIGEST, KEY = 64, 40
MOST = 64
"""Requests that are served, or wait for what arrives, at a time; further ones are sent away."""
PATIENCE = 60.0
"""Seconds for which what arrives is waited for; who asks goes elsewhere a little later."""
BRIEF = 5.0
"""Seconds for anything else."""


def _name(key: str) -> str:
    return f"\0manta-blobs-{key}"


class LocalBlobs:
    """Passes blobs to other nodes on this machine, with a thread for each while it is served."""

    def __init__(
        self, key: str, depot: NodeDepot, given: Callable[[str, str], Arriving | None]
    ) -> None:
        """`given(key, digest)`: what the node with that key is given, what comes or None for what
        is here; it raises BlobMissing."""
        self._depot = depot
        self._given = given
        self._served = threading.BoundedSemaphore(MOST)
        self._closed = threading.Event()
        self._threads: set[threading.Thread] = set()
        self._listening = socket.socket(socket.AF_UNIX)
        try:
            self._listening.bind(_name(key))
            self._listening.listen(MOST)
        except OSError as error:
            self._listening.close()
            raise LocalTransportError(f"no local socket for blobs: {error}") from error
        self._thread = threading.Thread(target=self._run, name="manta-local-blobs", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Idempotent."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._listening.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listening.close()
        for thread in list(self._threads):
            thread.join()

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                stream, _ = self._listening.accept()
            except OSError:
                continue
            if self._closed.is_set() or not self._served.acquire(blocking=False):
                stream.close()
                continue
            thread = threading.Thread(target=self._serve, args=(stream,), daemon=True)
            self._threads.add(thread)
            thread.start()

    def _serve(self, stream: socket.socket) -> None:
        try:
            with stream:
                stream.settimeout(BRIEF)
                self._answer(stream)
        except (OSError, ValueError, LocalTransportError) as error:
            log.info("another node on this machine was not served: %s", error)
        finally:
            self._served.release()
            self._threads.discard(threading.current_thread())

    def _answer(self, stream: socket.socket) -> None:
        check_user(stream)
        asked = b""
        while len(asked) < DIGEST + KEY:
            if not (more := stream.recv(DIGEST + KEY - len(asked))):
                raise ValueError("it asked for nothing")
            asked += more
        digest, key = asked[:DIGEST].decode("ascii"), asked[DIGEST:].decode("ascii")
        try:
            fd = self._whole(key, digest)
        except BulkError:
            stream.sendall(b"0")
            return
        try:
            rights = array.array("i", [fd])
            stream.sendmsg([b"1"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        finally:
            os.close(fd)

    def _whole(self, key: str, digest: str) -> int:
        """Raises BlobMissing."""
        arriving, waited = self._given(key, digest), 0.0
        if arriving is None:
            return self._depot.open(digest)
        while not self._closed.is_set():
            try:
                return arriving.when_whole(0.5)
            except ArrivesLater:
                waited += 0.5
                if waited >= PATIENCE:
                    raise
        raise BlobMissing("this node ends")


class LocalFetches:
    """Has other nodes on this machine pass blobs to the values, each on a thread of its own."""

    def __init__(self, key: str, values: TieredDepot) -> None:
        self._key = key
        self._values = values
        self._lock = threading.Lock()
        self._under_way: dict[socket.socket, threading.Thread] = {}
        self._closed = False

    def fetch(self, source: str, blob: BlobRef) -> Future[None]:
        """Done when the blob is among the values, pinned. Fails with BlobMissing where the node
        with the key `source` is not on this machine, or does not give it; with BlobCorrupt,
        BlobRefused."""
        future: Future[None] = Future()
        stream = socket.socket(socket.AF_UNIX)
        stream.setblocking(False)  # it is taken at once, or that node is too busy
        try:
            stream.connect(_name(source))
            stream.settimeout(PATIENCE + BRIEF)
        except OSError:
            stream.close()
            future.set_exception(BlobMissing("that node is not on this machine"))
            return future
        thread = threading.Thread(
            target=self._run, args=(stream, blob, future), name="manta-local-fetch", daemon=True
        )
        with self._lock:
            if not self._closed:
                self._under_way[stream] = thread
                thread.start()
                return future
        stream.close()
        future.set_exception(BlobMissing("this node ends"))
        return future

    def close(self) -> None:
        """What is under way fails."""
        with self._lock:
            self._closed = True
            under_way = dict(self._under_way)
        for stream, thread in under_way.items():
            with contextlib.suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)
            thread.join()

    def _run(self, stream: socket.socket, blob: BlobRef, future: Future[None]) -> None:
        try:
            self._take(stream, blob)
        except Exception as error:
            future.set_exception(error)
        else:
            future.set_result(None)
        finally:
            with self._lock:
                del self._under_way[stream]
                stream.close()

    def _take(self, stream: socket.socket, blob: BlobRef) -> None:
        try:
            check_user(stream)
            stream.sendall(f"{blob.digest}{self._key}".encode())
            fd = _passed(stream)
        except (OSError, LocalTransportError) as error:
            raise BlobMissing(f"that node does not pass it: {error}") from error
        found = _kept(fd, blob, self._values)
        if found != blob.digest:
            self._values.let_go(found)
            raise BlobCorrupt(f"the blob {blob.digest[:12]} was passed as {found[:12]}")
        self._values.pin(found)


def _passed(stream: socket.socket) -> int:
    """Raises BlobMissing."""
    room = socket.CMSG_SPACE(array.array("i").itemsize)
    answer, passed, _, _ = stream.recvmsg(1, room, socket.MSG_CMSG_CLOEXEC)
    found = array.array("i")
    for level, kind, data in passed:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    if answer == b"1" and len(found) == 1:
        return found[0]
    for fd in found:
        with contextlib.suppress(OSError):
            os.close(fd)
    raise BlobMissing("that node does not have it")


def _kept(fd: int, blob: BlobRef, values: TieredDepot) -> str:
    """The digest of what was passed: a memfd is shared, a file copied."""
    with open(fd, "rb", buffering=0) as file:
        if os.fstat(fd).st_size != blob.size:
            raise BlobCorrupt(f"the blob {blob.digest[:12]} was passed with another size")
        if os.readlink(f"/proc/self/fd/{fd}").startswith("/memfd:"):
            return values.adopt(os.dup(fd), blob.size)
        return values.put_stream(file.read, blob.size)
