"""Connects to one peer whenever there is no connection: a thread that dials, and then reads."""

from __future__ import annotations

import logging
import os
import random
import socket
import time
from typing import TYPE_CHECKING

from manta.transports.addresses import resolve, split_address
from manta.transports.errors import DownReason, LocalTransportError
from manta.transports.sealed.local import LocalConnection
from manta.transports.sealed.stream import StreamConnection
from manta.transports.sealed.tickets import GREETING, REPLY, Caller, Denied
from manta.transports.sealed.user import check_user
from manta.transports.security.admission import TokenBucket
from manta.transports.zeromq.attempts import backoff

if TYPE_CHECKING:
    from manta.transports.sealed.peer import BulkPeer
    from manta.transports.sealed.tickets import Session, Ticket
    from manta.transports.security.admission import Admission
    from manta.transports.security.keys import KeyPair

LOCAL = "unix://"
AT_ONCE, AT_ONCE_BURST = 0.2, 5.0
"""How often a peer that says anew where it listens is dialled there at once; else in its turn."""
SELDOM = 15.0
"""Seconds until a better connection is tried for, where there is a makeshift."""

_log = logging.getLogger(__name__)


class Dialler:
    """Dials again whenever the peer has no connection, from either side, until it is closed."""

    def __init__(
        self, keys: KeyPair, peer: BulkPeer, admission: Admission, address: str, ticket: Ticket
    ) -> None:
        self._keys = keys
        self.peer = peer
        self._admission = admission
        self._target = address, ticket
        self._failures = 0
        self._at_once = TokenBucket(AT_ONCE, AT_ONCE_BURST)
        self._hurries = False

    def retarget(self, address: str, ticket: Ticket) -> None:
        """Dial there from now on, with that ticket; at once, if there is no connection, unless that
        was asked for too often."""
        with self.peer.lock:
            self._target = address, ticket
            if self._at_once.take(time.monotonic()):
                self._failures = 0
                self._hurries = True
                self.peer.lock.notify_all()

    def run(self) -> None:
        """Until the peer is closed; a thread's whole life."""
        peer = self.peer
        pause = 0.0
        while self._wait(pause):
            address, ticket = self._target
            try:
                stream, session = self._connect(address, ticket)
            except Denied as denied:
                reason = denied.reason
            except socket.gaierror as error:
                _log.info("the name in %s is not known: %s", address, error)
                reason = DownReason.UNKNOWN_HOST
            except OSError as error:
                _log.info("cannot connect to %s for bulk: %s", address, error)
                reason = DownReason.UNREACHABLE
            except LocalTransportError as error:
                _log.warning("%s", error)
                reason = DownReason.DENIED
            else:
                kind = LocalConnection if address.startswith(LOCAL) else StreamConnection
                began = time.monotonic()
                reason = kind(stream, session, peer, self._admission).run()
                if time.monotonic() - began > peer.options.silence:
                    self._failures = 0
            peer.down(reason)
            self._failures += 1
            pause = backoff(reason, self._failures, random.random())

    def _wait(self, pause: float) -> bool:
        """Until it is time to dial; False when never again."""
        peer, began = self.peer, time.monotonic()
        with peer.lock:
            while not peer.closed:
                least = max(pause, SELDOM) if peer.is_makeshift else pause
                left = began + least - time.monotonic()
                if peer.connected and not peer.is_makeshift:
                    peer.lock.wait()
                elif left > 0 and not self._hurries:
                    peer.lock.wait(left)
                else:
                    self._hurries = False
                    return True
        return False

    def _connect(self, address: str, ticket: Ticket) -> tuple[socket.socket, Session]:
        """Raises Denied, OSError, LocalTransportError."""
        stream = self._dial(address)
        form = "plain" if address.startswith(LOCAL) else "sealed"
        return stream, shake_hands(stream, self._keys, self.peer, ticket, form)

    def _dial(self, address: str) -> socket.socket:
        patience = self.peer.options.connect
        if address.startswith(LOCAL):
            stream = socket.socket(socket.AF_UNIX)
            try:
                stream.settimeout(patience)
                stream.connect(address.removeprefix(LOCAL))
                check_user(stream)
            except BaseException:
                stream.close()
                raise
            return stream
        host, port = split_address(address)
        found = resolve(host)
        stream = socket.create_connection((found[self._failures % len(found)], port), patience)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return stream


def shake_hands(
    stream: socket.socket, keys: KeyPair, peer: BulkPeer, ticket: Ticket, form: str
) -> Session:
    """The caller's side on a new stream, which is closed if it raises: Denied, or OSError."""
    try:
        caller = Caller(keys, peer.key, ticket, form, os.urandom(32))
        until = time.monotonic() + peer.options.handshake
        stream.sendall(caller.call(_receive(stream, GREETING, until)))
        return caller.finish(_receive(stream, REPLY, until))
    except BaseException:
        stream.close()
        raise


def _receive(stream: socket.socket, size: int, until: float) -> bytes:
    """Exactly so much. Raises Denied when it does not come in time, or never."""
    got = b""
    while len(got) < size:
        stream.settimeout(max(0.001, until - time.monotonic()))
        try:
            new = stream.recv(size - len(got))
        except TimeoutError:
            raise Denied(DownReason.SILENT) from None
        if not new:
            raise Denied(DownReason.LOST)
        got += new
    return got
