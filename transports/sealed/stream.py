"""A connection on a stream socket: one thread reads, one writes, both wait in the system.

The reader decrypts each chunk into its place, or for one in a file; what it holds of a peer is one
chunk. The writer
encrypts from where the bytes lie into one buffer of a chunk. So memory does not grow, whatever the
peer sends, and however little it reads.
"""

from __future__ import annotations

import logging
import socket
import struct
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from manta.transports.errors import DownReason, RemoteProtocolError
from manta.transports.sealed.in_file import NotWritten
from manta.transports.sealed.records import MAX_CHUNK, Head, Kind, SealedRecords, as_text, text_of
from manta.transports.sealed.transfers import Said
from manta.transports.security.admission import Standing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from manta.transports.interface import Buffer
    from manta.transports.sealed.options import Pace
    from manta.transports.sealed.peer import BulkPeer, Landing
    from manta.transports.sealed.records import Records
    from manta.transports.sealed.sources import Source
    from manta.transports.sealed.tickets import Session
    from manta.transports.security.admission import Admission

    Passed = tuple[int, int, Any]  # level, type, data (cmsg(3))

_TOGETHER = 64  # small messages in one system call
WAIT = 1.0  # seconds in the system, until a thread looks whether the connection is to end

_log = logging.getLogger(__name__)


class _Over(Exception):
    def __init__(self, reason: DownReason) -> None:
        super().__init__(str(reason))
        self.reason = reason


class StreamConnection:
    """With one peer that was admitted. `run` is its reader's whole life."""

    is_makeshift = False

    def __init__(
        self, stream: socket.socket, session: Session, peer: BulkPeer, admission: Admission
    ) -> None:
        self._stream = stream
        self._peer = peer
        self._admission = admission
        self._options = peer.options
        self._records = self._made(session)
        self._head = memoryview(bytearray(self._records.head_bytes))
        self._aside: memoryview | None = None
        """Where chunks go that are wanted no longer, or are to be written into a file."""
        self._reason: DownReason | None = None
        self._closing = threading.Lock()
        self._small: list[Buffer] = []  # what the writer has to say besides chunks
        self._last: Said | None = None  # the last word, before the writer ends
        self._heard = self._ticked = time.monotonic()

    @property
    def pace(self) -> Pace:
        return self._options.pace

    def _made(self, session: Session) -> Records:
        return SealedRecords(session.send, session.receive)

    # --- for any thread ----------------------------------------------------------------------

    def wake(self) -> None:
        self._peer.lock.notify_all()

    def end(self, reason: DownReason) -> None:
        with self._closing:
            self._reason = self._reason or reason
            with suppress(OSError):  # it was closed, or the peer was faster
                self._stream.shutdown(socket.SHUT_RDWR)

    def run(self) -> DownReason:
        """Serve the connection until its end; returns why it ended."""
        self._configure()
        if not self._peer.attach(self):
            self._close()
            return self._reason or DownReason.CLOSED
        writer = threading.Thread(
            target=self._write, name=f"manta-bulk-out-{self._peer.key[:8]}", daemon=True
        )
        writer.start()
        try:
            self._read()
        except _Over as over:
            self.end(over.reason)
        except RemoteProtocolError as error:
            if self._reason is None:  # else this side had already ended what it speaks of
                self._broken(error, writer)
        except OSError:
            self.end(DownReason.LOST)
        except Exception:
            _log.exception("reading from %r failed; the connection is made anew", self._peer)
            self.end(DownReason.LOST)
        finally:
            self.end(DownReason.LOST)
            with self._peer.lock:
                self._peer.lock.notify_all()
            writer.join()
            self._close()
            assert self._reason is not None
            self._peer.detach(self, self._reason)
        return self._reason

    def _configure(self) -> None:
        seconds, rest = divmod(WAIT, 1.0)
        wait = struct.pack("@ll", int(seconds), int(rest * 1e6))
        self._stream.setblocking(True)
        self._stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, wait)
        self._stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, wait)

    def _close(self) -> None:
        with self._closing:
            self._stream.close()

    def _broken(self, error: RemoteProtocolError, writer: threading.Thread) -> None:
        """The peer broke the protocol: it is told, if it reads at all, and has to go."""
        why = str(error)  # the error itself would keep the memory that was read into
        _log.warning("the peer %s loses its connection for bulk: %s", self._peer.key, why)
        self._admission.offended(self._peer.key)
        text = as_text(str(error))
        with self._peer.lock:
            self._last = Said(Head(Kind.BYE, length=len(text)), text)
            self._peer.lock.notify_all()
        writer.join(WAIT)
        self.end(DownReason.PROTOCOL)

    # --- the reader --------------------------------------------------------------------------

    def _read(self) -> None:
        peer = self._peer
        while True:
            head = self._read_head()
            if self._admission.standing(peer.key) is not Standing.KNOWN:
                raise _Over(DownReason.REVOKED)
            if head.kind is Kind.CHUNK:
                self._read_chunk(head)
                continue
            text = memoryview(bytearray(head.length))
            if head.length:
                self._read_payload(head, text)
            if head.kind is Kind.BYE:
                _log.warning("%r says that this side broke its rules: %s", peer, text_of(text))
                raise _Over(DownReason.PROTOCOL)
            peer.heard(head, text_of(text), self._heard)
            self._tick()

    def _read_chunk(self, head: Head) -> None:
        landing = self._place(head)
        if not landing.wanted:
            self._read_aside(head)
            return
        whole, trouble = False, ""
        try:
            if landing.memory is not None:
                self._read_payload(head, landing.memory)
            elif landing.file is not None:
                landing.file.write(self._read_aside(head), head.offset)
            whole = True
        except NotWritten as error:
            trouble = str(error)
        finally:
            self._peer.landed(head, whole=whole)
        if trouble:
            self._peer.refuse(head.transfer, trouble)

    def _read_aside(self, head: Head) -> memoryview:
        if self._aside is None:
            self._aside = memoryview(bytearray(MAX_CHUNK))
        into = self._aside[: head.length]
        self._read_payload(head, into)
        return into

    def _place(self, head: Head) -> Landing:
        return self._peer.place(head)

    def _read_head(self) -> Head:
        self._fill(self._head)
        return self._records.head(self._head)

    def _read_payload(self, head: Head, into: memoryview) -> None:
        self._records.payload(head, into, self._fill)

    def _fill(self, view: memoryview, descriptors: list[int] | None = None) -> None:
        """Receive exactly this much, and the descriptors that come with it where any may come.

        Raises _Over, OSError, RemoteProtocolError.
        """
        began, got = 0.0, 0
        while True:
            try:
                if descriptors is None:
                    new = self._stream.recv_into(view[got:], 0, socket.MSG_WAITALL)
                else:
                    new = self._receive(view[got:], descriptors)
            except BlockingIOError:
                self._silent()
                continue
            if not new:
                raise _Over(DownReason.LOST)
            got += new
            now = self._heard = time.monotonic()
            if got == len(view):
                return
            began = began or now
            if now - began > self._options.message:
                raise RemoteProtocolError(
                    f"a message that did not end in {self._options.message:g} s"
                )

    def _receive(self, view: memoryview, descriptors: list[int]) -> int:
        raise NotImplementedError

    def _silent(self) -> None:
        if self._reason is not None:
            raise _Over(self._reason)
        if time.monotonic() - self._heard > self._options.silence:
            raise _Over(DownReason.SILENT)
        self._tick()

    def _tick(self) -> None:
        now = time.monotonic()
        if now - self._ticked > WAIT:
            self._ticked = now
            self._peer.tick(now)

    # --- the writer --------------------------------------------------------------------------

    def _write(self) -> None:
        try:
            while (item := self._next()) is not None:
                said, source = item
                self._send(said, source)
                if said is self._last:
                    self._flush()
                    return
        except _Over as over:
            self.end(over.reason)
        except OSError:
            self.end(DownReason.LOST)
        except Exception:
            _log.exception("writing to %r failed; the connection is made anew", self._peer)
            self.end(DownReason.LOST)

    def _next(self) -> tuple[Said, Source | None] | None:
        """What is to be sent, once there is something; None at the end."""
        peer, until = self._peer, time.monotonic() + self._options.heartbeat
        while self._reason is None:
            with peer.lock:
                item = (self._last, None) if self._last is not None else peer.take()
                if item is None and not self._small and self._reason is None:
                    left = until - time.monotonic()
                    if left > 0:
                        peer.lock.wait(left)
                        continue
                    item = Said(Head(Kind.PING)), None
            if item is not None:
                return item
            self._flush()
        return None

    def _send(self, said: Said, source: Source | None) -> None:
        head, payload = said.head, said.text
        if head.kind is not Kind.CHUNK:
            self._send_record(head, payload)
            return
        assert source is not None
        try:
            self._send_chunk(head, source)
        finally:
            with self._peer.lock:
                self._peer.gone(head)

    def _send_record(self, head: Head, payload: Buffer | None) -> None:
        """At once with a chunk; else with what else is to be said now."""
        frames = self._records.frames(head, payload)
        if head.kind is not Kind.CHUNK and len(self._small) < _TOGETHER:
            self._small += [bytes(frame) for frame in frames]
        else:
            self._flush(frames)

    def _flush(self, frames: Sequence[Buffer] = ()) -> None:
        small, self._small = self._small, []
        if small or frames:
            self._send_all([*small, *frames])

    def _send_chunk(self, head: Head, source: Source) -> None:
        try:
            data = source.read(head.offset, head.length)
        except (IndexError, ValueError) as error:  # it was released, say
            _log.error("the memory of a transfer to %r cannot be read: %s", self._peer, error)
            self._peer.cancel(head.transfer, f"its memory cannot be read: {error}")
            return
        self._send_record(head, data)

    def _send_all(self, buffers: Sequence[Buffer], passed: Sequence[Passed] = ()) -> None:
        """What is `passed`, as descriptors are, goes with the first byte. Raises _Over, OSError."""
        left = [memoryview(buffer) for buffer in buffers]
        moved_at = 0.0
        while left:
            try:
                sent = self._stream.sendmsg(left, passed)
            except BlockingIOError:
                sent = 0
                if self._reason is not None:
                    raise _Over(self._reason) from None
                now = time.monotonic()
                moved_at = moved_at or now
                if now - moved_at > self._options.silence:
                    raise _Over(DownReason.SILENT) from None
            else:
                moved_at, passed = 0.0, ()
            while left and sent >= len(left[0]):
                sent -= len(left.pop(0))
            if left and sent:
                left[0] = left[0][sent:]
