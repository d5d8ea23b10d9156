"""An encrypted file that grows: frames of records behind a head.

The head is that of encrypted blobs (`manta.transports.blobs.sealing`): the file's own key, wrapped,
and bound to the file's name. A frame is a length (4 bytes), a nonce (12 bytes), and records,
encrypted by AES-256-GCM and bound to the frame's place in the file. Nonces are random (NIST SP
800-38D, 8.2.2), as a frame that a loss of power has torn is written again at its place; a file is
written anew, with another key, long before 2^32 of them. Where a frame is torn, changed, or not the
one that belongs there, the file ends, as it does at a torn record of a plain one. That whole frames
were cut off the end is not seen, there or here: what is numbered tells.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from manta.transports.blobs.sealing import HEAD, TAG, Sealer, is_sealed
from manta.transports.errors import BlobCorrupt

_LENGTH = struct.Struct("<I")
_NONCE = 12
_GROUP = 64 * 1024
"""Bytes of records, about, in a frame of a file that is written anew."""

__all__ = ["SealedRecords", "is_sealed"]


class SealedRecords:
    """What encrypts the frames of one file."""

    def __init__(self, key: bytes, head: bytes) -> None:
        self.head = head
        self._aead = AESGCM(key)

    @classmethod
    def new(cls, sealer: Sealer, name: str) -> SealedRecords:
        key = AESGCM.generate_key(256)
        return cls(key, sealer.wrap(key, name, 0))

    @classmethod
    def of(cls, sealer: Sealer, name: str, data: bytes) -> SealedRecords:
        """Of a file with this content. Raises BlobCorrupt."""
        head = data[:HEAD]
        return cls(sealer.unwrap(head, name, 0), head)

    def frame(self, records: bytes, at: int) -> bytes:
        """For the place `at` in the file."""
        nonce = os.urandom(_NONCE)
        sealed = self._aead.encrypt(nonce, records, _LENGTH.pack(len(records)) + _place(at))
        return _LENGTH.pack(len(records)) + nonce + sealed

    def file(self, records: Iterable[bytes]) -> Iterator[bytes]:
        """The content of a file that holds just these records, piece by piece."""
        yield self.head
        at, group = len(self.head), bytearray()
        for record in records:
            group += record
            if len(group) >= _GROUP:
                yield (piece := self.frame(bytes(group), at))
                at, group = at + len(piece), bytearray()
        if group:
            yield self.frame(bytes(group), at)

    def frames(self, data: bytes) -> Iterator[tuple[bytes, int]]:
        """The records in each frame of a file, and where it ends. Raises BlobCorrupt at the first
        that is torn or changed."""
        at = HEAD
        while at < len(data):
            begin = at + _LENGTH.size + _NONCE
            if begin > len(data):
                raise BlobCorrupt("it ends within a frame")
            (length,) = _LENGTH.unpack_from(data, at)
            end = begin + length + TAG
            if end > len(data):
                raise BlobCorrupt("it ends within a frame")
            bound = _LENGTH.pack(length) + _place(at)
            try:
                records = self._aead.decrypt(data[begin - _NONCE : begin], data[begin:end], bound)
            except InvalidTag:
                raise BlobCorrupt("an encrypted frame was changed") from None
            yield records, end
            at = end


def _place(at: int) -> bytes:
    return at.to_bytes(8, "big")
