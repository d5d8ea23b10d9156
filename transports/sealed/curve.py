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
the last is of one that is over, and is ignored. Who breaks the rules of transfers loses the
session, as elsewhere the connection; a message that is none of these costs the link.

A link's thread serves all links, and what comes may belong into a file on a slow disk. So it is
only put aside there, and a thread of the session's puts it in its place. Credit is given after
that, so no more comes than the sender's allowance; where more does, the session ends, and the next
one goes on where it was.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
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
from manta.transports.sealed.copying import copy
from manta.transports.sealed.in_file import NotWritten
from manta.transports.sealed.options import MIB, Pace
from manta.transports.sealed.records import Head, Kind, as_text, text_of
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
_MOST_ASIDE = 4 * _PACE.allowance
"""Bytes that may have come and not be in their places: what is under way when transfers are
cancelled counts no more in the sender's allowance."""
_MESSAGE = 512
"""What one takes besides its payload."""
_TICK = 0.5
"""Seconds until a session looks what is overdue."""
_SOON = 0.01
"""Seconds until a link that had no room is tried again."""
_BEGUN, _BEGUN_BURST, _MOST = 1.0, 20.0, 4096
"""Sessions that a peer may begin a second, and at once; of how many peers that is counted."""
_ID = 8

_log = logging.getLogger(__name__)


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
        """What peers have begun: each session costs two threads."""

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
        session = LinkConnection(
            link, id_, peer, self._admission, begins=begins, makeshift=makeshift
        )
        self._bulk.start(link.peer_key, session.run)
        self._sessions[link.peer_key] = session


class _Aside:
    """What has come of a session and is yet to be put in its place, in order. Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._all: deque[tuple[Head, Buffer]] = deque()
        self._size = 0
        self._is_closed = False

    def put(self, head: Head, payload: Buffer) -> bool:
        """False if there is no room for it."""
        with self._changed:
            if self._is_closed:
                return True  # what comes of a session that is over is ignored
            if self._size + _MESSAGE + len(payload) > _MOST_ASIDE:
                return False
            self._size += _MESSAGE + len(payload)
            self._all.append((head, payload))
            self._changed.notify()
        return True

    def take(self) -> tuple[Head, Buffer] | None:
        """The next one, once there is one; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._all or self._is_closed)
            if self._is_closed:
                return None
            head, payload = self._all.popleft()
            self._size -= _MESSAGE + len(payload)
            return head, payload

    def close(self) -> None:
        """Nothing is taken any more."""
        with self._changed:
            self._is_closed = True
            self._all.clear()
            self._size = 0
            self._changed.notify()


class LinkConnection:
    """A session as the connection of a peer. What comes is put in its place in `run`; what is sent
    is read and sent on another thread."""

    def __init__(
        self,
        link: Link,
        id_: bytes,
        peer: BulkPeer,
        admission: Admission,
        *,
        begins: bool,
        makeshift: bool,
    ) -> None:
        self.link = link
        self.id = id_
        self.pace = _PACE
        self.is_makeshift = makeshift
        self._peer = peer
        self._admission = admission
        self._begins = begins
        self._is_begun = not begins
        self._reason: DownReason | None = None
        self._aside = _Aside()
        self._out = memoryview(bytearray(_PACE.chunk))
        """A chunk that is sent: a link copies it while all that send wait."""

    @property
    def awaits_answer(self) -> bool:
        return self._begins and not self._is_begun and self._reason is None

    def run(self) -> None:
        """Its whole life."""
        if not self._peer.attach(self):
            self.end(DownReason.CLOSED)
            self._say(_Mark.END)
            return
        name = f"manta-bulk-out-{self._peer.key[:8]}"
        sender = threading.Thread(target=self._send_all, name=name, daemon=True)
        try:
            sender.start()
            self._put_all()
        finally:
            self.over(DownReason.LOST)
            if sender.ident is not None:  # it was begun
                sender.join()
            assert self._reason is not None
            self._peer.detach(self, self._reason)
            self._say(_Mark.END)

    # --- for any thread ----------------------------------------------------------------------

    def wake(self) -> None:
        """With the peer's lock."""
        self._peer.lock.notify_all()

    def end(self, reason: DownReason) -> None:
        self._reason = self._reason or reason
        self._aside.close()

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
        if self._reason is not None or not self._is_begun:
            return
        if not self._aside.put(head, payload):
            _log.warning("%r sends faster than it may: its session of bulk ends", self._peer)
            self.over(DownReason.LOST)

    # --- on its own thread -------------------------------------------------------------------

    def _put_all(self) -> None:
        try:
            while (came := self._aside.take()) is not None:
                self._handle(*came)
        except RemoteProtocolError as error:
            if self._reason is None:  # else this side had already ended what it speaks of
                self._broken(str(error))

    def _handle(self, head: Head, payload: Buffer) -> None:
        """Raises RemoteProtocolError."""
        if head.kind is Kind.CHUNK:
            self._put(head, payload)
        elif head.kind is Kind.BYE:
            why = text_of(payload)
            _log.warning("%r says that this side broke its rules: %s", self._peer, why)
            self.over(DownReason.PROTOCOL)
        else:
            self._peer.heard(head, text_of(payload), time.monotonic())

    def _put(self, head: Head, chunk: Buffer) -> None:
        """Raises RemoteProtocolError."""
        landing, whole, trouble = self._peer.place(head), False, ""
        if not landing.wanted:
            return
        try:
            if landing.memory is not None:
                copy(landing.memory, chunk)
            elif landing.file is not None:
                landing.file.write(memoryview(chunk), head.offset)
            whole = True
        except NotWritten as error:
            trouble = str(error)
        finally:
            self._peer.landed(head, whole=whole)
        if trouble:
            self._peer.refuse(head.transfer, trouble)

    def _broken(self, why: str) -> None:
        """The peer broke the protocol: it is told, and the session has to go."""
        _log.warning("the peer %s loses its session of bulk: %s", self._peer.key, why)
        self._admission.offended(self._peer.key)
        text = as_text(why)
        with suppress(LinkDown, LinkOverflow):
            self.link.send(self._message(Head(Kind.BYE, length=len(text)), text))
        self.over(DownReason.PROTOCOL)

    # --- on the thread that sends --------------------------------------------------------------

    def _send_all(self) -> None:
        try:
            mark = _Mark.BEGIN if self._begins else _Mark.BEGUN
            if self._say(mark, b"\1" if self.is_makeshift else b""):
                self._send_what_there_is()
        finally:
            self.end(DownReason.LOST)

    def _send_what_there_is(self) -> None:
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
            payload = self._out[: head.length]
            try:
                copy(payload, source.read(head.offset, head.length))
            except (IndexError, ValueError) as error:  # it was released, say
                self._peer.cancel(head.transfer, f"its memory cannot be read: {error}")
                return
        message = self._message(head, payload)
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

    def _message(self, head: Head, payload: Buffer) -> list[Buffer]:
        return [bytes([_Mark.HEAD]) + self.id + head.pack(), payload]

    def _say(self, mark: _Mark, what: bytes = b"") -> bool:
        try:
            self.link.send([bytes([mark]) + self.id, what])
        except (LinkDown, LinkOverflow):
            return False
        return True
