"""One process's bulk with its peers: listens, dials, and has an object for each peer."""

from __future__ import annotations

import errno
import os
import socket
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from manta.transports.addresses import join_address, resolve, split_address
from manta.transports.errors import (
    AddressInUse,
    BulkError,
    DownReason,
    LocalTransportError,
    remedied,
)
from manta.transports.sealed.dialler import LOCAL, Dialler, shake_hands
from manta.transports.sealed.listener import Arrivals, StreamListener
from manta.transports.sealed.local import LocalConnection
from manta.transports.sealed.options import PeerOptions
from manta.transports.sealed.peer import BulkPeer
from manta.transports.sealed.stream import StreamConnection
from manta.transports.sealed.tickets import Denied, Tickets
from manta.transports.security.admission import Standing
from manta.transports.security.keys import check_key, check_private_folder
from manta.transports.zeromq.io_thread import IoThread

if TYPE_CHECKING:
    from collections.abc import Callable

    from manta.transports.sealed.peer import Changed
    from manta.transports.sealed.tickets import Session, Ticket
    from manta.transports.security.admission import Admission
    from manta.transports.security.keys import KeyPair

_BACKLOG = 512
_CLOSE_TIMEOUT = 10.0  # seconds


class BulkEndpoint:
    """Sealed bulk over TCP, and plain bulk between this user's processes over Unix sockets.

    A peer is known by its public key, and is one as long as `admission` knows that: when it ceases
    to, its connections end and its transfers fail before the call that did it returns. Of two peers
    either may dial, or both; bytes go both ways over the connection that came last. Thread-safe.
    """

    def __init__(
        self,
        keys: KeyPair,
        admission: Admission,
        *,
        options: PeerOptions | None = None,
        changed: Changed | None = None,
    ) -> None:
        """`changed(peer)` is called after `peer.state` has changed."""
        self._keys = keys
        self._admission = admission
        self._options = options or PeerOptions()
        self._changed = changed
        self._tickets = Tickets()
        self._changing = threading.Lock()
        self._peers: dict[str, BulkPeer] = {}
        self._diallers: dict[str, Dialler] = {}
        self._threads: set[threading.Thread] = set()
        self._listeners: list[StreamListener] = []
        self._paths: list[str] = []
        self._closed = False
        self._io = IoThread("manta-peers")
        self._io.start()
        self._arrivals = Arrivals(
            self._io, keys, self._tickets, admission, self._options, self._admitted
        )
        self._io.call(self._arrivals.start)
        self._unwatch = admission.watch(self._withdrawn)

    def listen(self, address: str, *, fd: int | None = None) -> str:
        """Accept peers at `tcp://HOST:PORT` or `unix://PATH`; returns the address that was taken.

        A path's folder must be this user's alone. `fd` is a TCP socket that already listens.
        Raises AddressInUse, LocalTransportError, and KeyFileError for the folder.
        """
        if fd is not None:
            listening = socket.socket(fileno=os.dup(fd))
        elif address.startswith(LOCAL):
            listening = _listen_here(address.removeprefix(LOCAL))
        else:
            listening = _listen_at(address)
        listener = StreamListener(self._io, listening, self._arrivals)
        with self._changing:
            if self._closed:
                listening.close()
                raise LocalTransportError("this endpoint is closed: make a new one")
            self._listeners.append(listener)
            if listening.family == socket.AF_UNIX:
                self._paths.append(address.removeprefix(LOCAL))
        self._io.run(listener.start, _CLOSE_TIMEOUT)
        if listening.family == socket.AF_UNIX:
            return address
        return join_address(*listening.getsockname()[:2])

    def ticket(self, key: str) -> Ticket:
        """What the peer with this key needs to dial here: for a link that proves that key only.

        The peer's former ticket ends, its connection does not. Raises LocalTransportError for a key
        that is not known here.
        """
        with self._changing:
            self._check(key)
            return self._tickets.issue(key, os.urandom(48))

    def peer(self, key: str) -> BulkPeer:
        """The peer with this key, connected or not. Raises LocalTransportError if it is unknown."""
        with self._changing:
            self._check(key)
            peer = self._peers.get(key)
            if peer is None or peer.closed:
                peer = self._peers[key] = BulkPeer(key, self._options, self._io.call, self._changed)
            return peer

    def dial(self, key: str, address: str, ticket: Ticket) -> BulkPeer:
        """Connect to a peer that listens there, and again whenever the connection is lost.

        Called again, it goes on with the new address and ticket: after `DownReason.DENIED`, which
        says that the peer no longer knows the ticket.
        """
        if not address.startswith(LOCAL):
            split_address(address)
        peer = self.peer(key)
        with self._changing:
            self._check(key)
            dialler = self._diallers.get(key)
            if dialler is not None and dialler.peer is peer:
                dialler.retarget(address, ticket)
            else:
                made = Dialler(self._keys, peer, self._admission, address, ticket)
                self._diallers[key] = made
                self._start(made.run, key)
        return peer

    def accept(self, stream: socket.socket) -> None:
        """Serve a connected stream as if it had been accepted here, sealed.

        So connections come that others relay, who see ciphertext only: the stream is one end of a
        socket pair, and whoever relays moves bytes between the other end and the peer.
        """
        if not self._io.call(partial(self._arrivals.greet, stream, "sealed", "relayed")):
            stream.close()

    def call(self, key: str, stream: socket.socket, ticket: Ticket) -> BulkPeer:
        """Use a connected stream, whose other end the peer was given to `accept`, until it ends."""
        peer = self.peer(key)

        def run() -> None:
            try:
                session = shake_hands(stream, self._keys, peer, ticket, "sealed")
            except Denied as denied:
                peer.down(denied.reason)
            except OSError:
                peer.down(DownReason.LOST)
            else:
                StreamConnection(stream, session, peer, self._admission).run()

        self.start(key, run)
        return peer

    def start(self, key: str, run: Callable[[], object]) -> None:
        """Have a connection with a peer run on a thread of its own, which `close` waits for.

        Raises LocalTransportError for a key that is not known here.
        """
        with self._changing:
            self._check(key)
            self._start(run, key)

    def close(self) -> None:
        """End everything; what is in progress fails with BulkError. Idempotent.

        Raises LocalTransportError within a callback, whose thread it would wait for.
        """
        with self._changing:
            if threading.current_thread() in self._threads or self._io.is_current():
                raise LocalTransportError(
                    "a callback cannot close its own endpoint: use another thread"
                )
            if self._closed:
                return
            self._closed = True
            peers, listeners = [*self._peers.values()], [*self._listeners]
        self._unwatch()
        for peer in peers:
            peer.close("the endpoint was closed")
        with self._changing:
            threads = [*self._threads]
        for thread in threads:
            thread.join()
        for listener in listeners:
            self._io.call(listener.close)
        self._io.call(self._arrivals.close)
        self._io.call(self._io.end)
        self._io.join(_CLOSE_TIMEOUT)
        for path in self._paths:
            Path(path).unlink(missing_ok=True)

    def _check(self, key: str) -> None:
        check_key(key)
        if self._closed:
            raise LocalTransportError("this endpoint is closed: make a new one")
        if self._admission.standing(key) is not Standing.KNOWN:
            raise LocalTransportError(f"the key {key} is not known here: admit it first")

    def _withdrawn(self, key: str) -> None:
        """The key is known no longer. On any thread."""
        with self._changing:
            self._tickets.withdraw(key)
            peer = self._peers.pop(key, None)
            self._diallers.pop(key, None)
        if peer is not None:
            peer.end(BulkError("the peer's key is known here no longer"), DownReason.REVOKED)

    def _admitted(self, key: str, stream: socket.socket, session: Session, form: str) -> None:
        """On the I/O thread."""
        try:
            peer = self.peer(key)
        except LocalTransportError:  # it was withdrawn in this moment
            stream.close()
            return
        kind = LocalConnection if form == "plain" else StreamConnection
        connection = kind(stream, session, peer, self._admission)

        with self._changing:
            self._start(connection.run, key)

    def _start(self, run: Callable[[], object], key: str) -> None:
        """A thread that is joined at the end. With the lock."""

        def whole() -> None:
            try:
                run()
            finally:
                with self._changing:
                    self._threads.discard(threading.current_thread())

        thread = threading.Thread(target=whole, name=f"manta-bulk-in-{key[:8]}", daemon=True)
        self._threads.add(thread)
        thread.start()


def _listen_at(address: str) -> socket.socket:
    host, port = split_address(address)
    try:
        found = "0.0.0.0" if host == "*" else resolve(host)[0]
        family = socket.AF_INET6 if ":" in found else socket.AF_INET
        return socket.create_server((found, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        kind = AddressInUse if _is_taken(error) else LocalTransportError
        raise kind(f"cannot listen on {address}: {remedied(error)}; choose another") from error


def _listen_here(path: str) -> socket.socket:
    check_private_folder(os.path.dirname(path) or ".")
    listening = socket.socket(socket.AF_UNIX)
    try:
        try:
            listening.bind(path)
        except OSError as error:
            if not _is_taken(error) or _answers(path):
                raise
            os.unlink(path)  # of a process that was killed
            listening.bind(path)
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        kind = AddressInUse if _is_taken(error) else LocalTransportError
        raise kind(f"cannot listen on {LOCAL}{path}: {remedied(error)}; choose another") from error
    return listening


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except OSError:
            return False
    return True


def _is_taken(error: OSError) -> bool:
    return error.errno == errno.EADDRINUSE
