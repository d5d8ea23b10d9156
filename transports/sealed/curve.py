"""Bulk over a link between the peers that is there already: sealed by CURVE, at no port of its own.

It is slower than a connection of its own, goes behind what else the link carries, and has one
secret channel fewer to argue for. Its messages have two parts; all else on such a link has one. The
first part says what it is (1 byte, never 0) and names a *session*, one connection of the two peers,
by 8 random bytes of who begins it:

    BEGIN   a session, to be answered before anything of it is sent
    BEGUN   the answer
    HEAD    a head of `records`; the second part is its payload
    END     of the session

Where both begin one at a time, that of the smaller key is used. What comes of another session than
the last is of one that is over, and is ignored.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from enum import IntEnum
from typing import TYPE_CHECKING

from manta.transports.errors import (
    DownReason,
    LinkDown,
    LinkOverflow,
    LocalTransportError,
    RemoteProtocolError,
)
from manta.transports.sealed.options import MIB, Pace
from manta.transports.sealed.records import Head, Kind, text_of
from manta.transports.security.admission import Buckets, Standing

if TYPE_CHECKING:
    from manta.transports.interface import Buffer, Link, Message
    from manta.transports.sealed.endpoint import BulkEndpoint
    from manta.transports.sealed.peer import BulkPeer
    from manta.transports.sealed.sources import Source
    from manta.transports.sealed.transfers import Said
    from manta.transports.security.admission import Admission

_PACE = Pace(chunk=MIB // 4, report=0, allowance=2 * MIB)
"""A quarter of a link's window, so that there is room for what else it carries."""
_TICK = 0.5
"""Seconds until a session looks what is overdue."""
_SOON = 0.01
"""Seconds until a link that had no room is tried again."""
_BEGUN, _BEGUN_BURST, _MOST = 1.0, 20.0, 4096
"""Sessions that a peer may begin a second, and at once; of how many peers that is counted."""
_ID = 8


class _Mark(IntEnum):
    BEGIN = 1
    BEGUN = 2
    HEAD = 3
    END = 4


class LinkBulk:
    """Sessions over links, for the peers of an endpoint. For the I/O thread of the links."""

    def __init__(self, bulk: BulkEndpoint, admission: Admission, own_key: str) -> None:
        self._bulk = bulk
        self._admission = admission
        self._own_key = own_key
        self._sessions: dict[str, LinkConnection] = {}
        """By key: the last with each peer."""
        self._begun = Buckets(_BEGUN, _BEGUN_BURST, _MOST)
        """What peers have begun: each session costs a thread."""

    def begin(self, link: Link, *, makeshift: bool = False) -> None:
        """Use a link that is up for bulk with its peer. With `makeshift`, until a connection of its
        own can be made. Raises LocalTransportError for a key that is not known."""
        self._start(link, os.urandom(_ID), begins=True, makeshift=makeshift)

    def left(self, link: Link) -> None:
        """The link is down."""
        session = self._sessions.get(link.peer_key)
        if session is not None and session.link is link:
            del self._sessions[link.peer_key]
            session.over(DownReason.LOST)

    def received(self, link: Link, message: Message) -> None:
        """A message of two parts. Raises RemoteProtocolError, which is to cost the link."""
        first, key = bytes(message[0]), link.peer_key
        if len(message) != 2 or len(first) <= _ID or first[0] not in set(_Mark):
            raise RemoteProtocolError("no message of bulk over a link")
        if self._admission.standing(key) is not Standing.KNOWN:
            return  # the link is about to end
        mark, id_, session = _Mark(first[0]), first[1 : 1 + _ID], self._sessions.get(key)
        if mark is _Mark.BEGIN:
            if not self._begun.of(key).take(time.monotonic()):
                raise RemoteProtocolError("too many sessions of bulk over a link")
            if session is None or not session.awaits_answer or key < self._own_key:
                makeshift = bytes(message[1]) == b"\1"
                with suppress(LocalTransportError):  # it was withdrawn in this moment
                    self._start(link, id_, begins=False, makeshift=makeshift)
            return
        if session is None or session.link is not link or session.id != id_:
            return
        if mark is _Mark.BEGUN:
            session.begun()
        elif mark is _Mark.HEAD:
            session.received(Head.unpack(first[_ID + 1 :]), message[1])
        else:
            del self._sessions[key]
            session.over(DownReason.CLOSED)

    def _start(self, link: Link, id_: bytes, *, begins: bool, makeshift: bool) -> None:
        before = self._sessions.pop(link.peer_key, None)
        if before is not None:
            before.over(DownReason.CLOSED)
        peer = self._bulk.peer(link.peer_key)
        session = LinkConnection(link, id_, peer, begins=begins, makeshift=makeshift)
        self._bulk.start(link.peer_key, session.run)
        self._sessions[link.peer_key] = session


class LinkConnection:
    """A session as the connection of a peer. What is sent is read and sent on a thread of its own,
    in `run`; what comes is put in its place on the link's."""

    def __init__(
        self, link: Link, id_: bytes, peer: BulkPeer, *, begins: bool, makeshift: bool
    ) -> None:
        self.link = link
        self.id = id_
        self.pace = _PACE
        self.is_makeshift = makeshift
        self._peer = peer
        self._begins = begins
        self._is_begun = not begins
        self._reason: DownReason | None = None
        self._handling = threading.Lock()
        """Held while something that came is handled."""

    @property
    def awaits_answer(self) -> bool:
        return self._begins and not self._is_begun and self._reason is None

    def run(self) -> None:
        """Its whole life."""
        if not self._peer.attach(self):
            self.end(DownReason.CLOSED)
            self._say(_Mark.END)
            return
        try:
            mark = _Mark.BEGIN if self._begins else _Mark.BEGUN
            if self._say(mark, b"\1" if self.is_makeshift else b""):
                self._send_all()
        finally:
            self.end(DownReason.LOST)
            with self._handling:  # nothing that came is in hand any more
                pass
            assert self._reason is not None
            self._peer.detach(self, self._reason)
            self._say(_Mark.END)

    # --- for any thread ----------------------------------------------------------------------

    def wake(self) -> None:
        """With the peer's lock."""
        self._peer.lock.notify_all()

    def end(self, reason: DownReason) -> None:
        self._reason = self._reason or reason

    def over(self, reason: DownReason) -> None:
        """As `end`, without the peer's lock."""
        with self._peer.lock:
            self.end(reason)
            self._peer.lock.notify_all()

    # --- on the link's thread ----------------------------------------------------------------

    def begun(self) -> None:
        with self._peer.lock:
            self._is_begun = True
            self._peer.lock.notify_all()

    def received(self, head: Head, payload: Buffer) -> None:
        """Raises RemoteProtocolError."""
        if len(payload) != head.length:
            raise RemoteProtocolError("a message of bulk has not the bytes that its head says")
        with self._handling:
            if self._reason is not None or not self._is_begun:
                return
            if head.kind is Kind.CHUNK:
                landing = self._peer.place(head)
                if landing.memory is not None:
                    landing.memory[:] = payload
                    self._peer.landed(head, whole=True)
            elif head.kind is not Kind.BYE:
                self._peer.heard(head, text_of(payload), time.monotonic())

    # --- on its own thread -------------------------------------------------------------------

    def _send_all(self) -> None:
        peer, until = self._peer, time.monotonic() + self._peer.options.handshake
        while self._reason is None:
            if not self._is_begun and time.monotonic() > until:
                self.end(DownReason.SILENT)
                return
            with peer.lock:
                item = peer.take() if self._is_begun else None
                if item is None and self._reason is None:
                    peer.lock.wait(_TICK)
            if item is None:
                peer.tick(time.monotonic())
                continue
            said, source = item
            try:
                self._send(said, source)
            finally:
                if said.head.kind is Kind.CHUNK:
                    with peer.lock:
                        peer.gone(said.head)

    def _send(self, said: Said, source: Source | None) -> None:
        head = said.head
        payload: Buffer = said.text or b""
        if head.kind is Kind.CHUNK:
            assert source is not None
            try:
                payload = source.read(head.offset, head.length)
            except (IndexError, ValueError) as error:  # it was released, say
                self._peer.cancel(head.transfer, f"its memory cannot be read: {error}")
                return
        message: list[Buffer] = [bytes([_Mark.HEAD]) + self.id + head.pack(), payload]
        while self._reason is None:
            try:
                self.link.send(message)
            except LinkOverflow:
                with self._peer.lock:
                    self._peer.lock.wait(_SOON)
            except LinkDown:
                self.end(DownReason.LOST)
            else:
                return

    def _say(self, mark: _Mark, what: bytes = b"") -> bool:
        try:
            self.link.send([bytes([mark]) + self.id, what])
        except (LinkDown, LinkOverflow):
            return False
        return True
