"""A connection between two processes of one user on one machine: over a Unix socket, not sealed.

Where the sender has its bytes in a memfd, its descriptor is passed when the transfer is opened,
with the offset at which they begin; chunks then say only how far the receiver may read. The kernel
vouches for the user at the other end.
"""

from __future__ import annotations

import array
import fcntl
import os
import socket
import struct
from typing import TYPE_CHECKING

from manta.transports.errors import RemoteProtocolError
from manta.transports.sealed.options import MIB, Pace
from manta.transports.sealed.records import MAX_CHUNK, Head, Kind, PlainRecords
from manta.transports.sealed.stream import StreamConnection

if TYPE_CHECKING:
    from manta.transports.sealed.peer import Landing
    from manta.transports.sealed.records import Records
    from manta.transports.sealed.sources import Source
    from manta.transports.sealed.tickets import Session
    from manta.transports.sealed.transfers import Said

_PACE = Pace(chunk=MAX_CHUNK, window=16 * MIB, report=4 * MIB, allowance=1 << 62)
"""A chunk costs a system call or two, and little else."""
_SHARED = 1  # code of OPEN and CHUNK: the bytes are in a memfd
_IMMUTABLE = getattr(fcntl, "F_SEAL_SHRINK", 0) | getattr(fcntl, "F_SEAL_WRITE", 0)
_ROOM = socket.CMSG_SPACE(struct.calcsize("i"))


class LocalConnection(StreamConnection):
    """As a stream's, but nothing is sealed."""

    @property
    def pace(self) -> Pace:
        return _PACE

    def _made(self, session: Session) -> Records:
        self._shared: dict[bytes, tuple[int, int]] = {}
        """By transfer: the descriptor of the peer's memfd, and where in it the bytes begin."""
        return PlainRecords()

    def _close(self) -> None:
        super()._close()
        for transfer in [*self._shared]:
            self._forget(transfer)

    def _send(self, said: Said, source: Source | None) -> None:
        head = said.head
        if head.kind is not Kind.OPEN or source is None or source.memfd < 0:
            super()._send(said, source)
            return
        self._flush()
        data = head._replace(code=_SHARED, offset=source.at).pack()
        rights = array.array("i", [source.memfd])
        passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)]
        self._send_all([data], passed)

    def _send_chunk(self, head: Head, source: Source) -> None:
        if source.memfd < 0:
            super()._send_chunk(head, source)
        else:
            self._send_record(head._replace(code=_SHARED), None)

    def _read_head(self) -> Head:
        found: list[int] = []
        try:
            self._fill(self._head, found)
            head = self._records.head(self._head)
            shared = head.code == _SHARED and head.kind is Kind.OPEN
            if len(found) != shared:
                raise RemoteProtocolError("a descriptor without its transfer, or the reverse")
            if shared:
                self._keep(head, found.pop())
        finally:
            for fd in found:
                os.close(fd)
        if head.kind is Kind.CANCEL:
            self._forget(head.transfer)
        return head

    def _receive(self, view: memoryview, descriptors: list[int]) -> int:
        got, passed, flags, _ = self._stream.recvmsg_into(
            [view], _ROOM, socket.MSG_WAITALL | socket.MSG_CMSG_CLOEXEC
        )
        for level, kind, data in passed:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                descriptors.extend(array.array("i", data))
        if flags & socket.MSG_CTRUNC:
            raise RemoteProtocolError("more descriptors than one")
        return got

    def _keep(self, head: Head, fd: int) -> None:
        try:
            fcntl.fcntl(fd, fcntl.F_GET_SEALS)
        except OSError:
            os.close(fd)
            raise RemoteProtocolError("a descriptor that is not of a memfd") from None
        if len(self._shared) >= self._options.open:
            for transfer in [*self._shared]:
                if not self._peer.has_open(transfer):
                    self._forget(transfer)
        self._forget(head.transfer)
        self._shared[head.transfer] = fd, head.offset

    def _forget(self, transfer: bytes) -> None:
        shared = self._shared.pop(transfer, None)
        if shared is not None:
            os.close(shared[0])

    def _place(self, head: Head) -> Landing:
        if head.code != _SHARED:
            return super()._place(head)
        if head.transfer not in self._shared:
            raise RemoteProtocolError("a chunk of a memfd that was not passed")
        fd, at = self._shared[head.transfer]
        return self._peer.place(head, fd if not at and _is_immutable(fd) else -1)

    def _read_chunk(self, head: Head) -> None:
        super()._read_chunk(head)
        if head.code == _SHARED and head.offset + head.length == head.limit:
            self._forget(head.transfer)

    def _read_payload(self, head: Head, into: memoryview) -> None:
        if head.kind is not Kind.CHUNK or head.code != _SHARED:
            super()._read_payload(head, into)
            return
        fd, at = self._shared[head.transfer]
        offset, left = at + head.offset, into
        while left:
            got = os.preadv(fd, [left], offset)
            if not got:
                raise RemoteProtocolError("a memfd is shorter than its transfer")
            offset, left = offset + got, left[got:]


def _is_immutable(fd: int) -> bool:
    return fcntl.fcntl(fd, fcntl.F_GET_SEALS) & _IMMUTABLE == _IMMUTABLE
