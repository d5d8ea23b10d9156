"""Encrypted files: each with a key of its own, in chunks that can be read one by one.

A file begins with a head: the format's name and version, and the file's key, wrapped by that of its
folder. Then come chunks of 64 KiB, each with its tag. All is AES-256-GCM (NIST SP 800-38D).

The wrapped key is bound to the file's name and to the length of what is in it, and a chunk to its
number, which is its nonce: so a file that was changed, cut short, reordered or put in the place of
another does not open. (The STREAM construction of Hoang, Reyhanitabar, Rogaway and Vizár, "Online
Authenticated-Encryption and its Nonce-Reuse Misuse-Resistance", 2015, marks the last chunk to the
same end; here the length is known before the first.) No nonce is used twice with a key: that of a
file is random and encrypts each of its chunks once. The folder's key wraps others under random
nonces of 96 bits, which is sound for 2^32 files.

Who overwrites the head has shredded the file: nobody can read the rest, whatever keys they have. On
flash memory, and in file systems that copy what they write, the medium may keep the old head for a
while.
"""

from __future__ import annotations

import contextlib
import logging
import os
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from manta.transports.blobs.sources import is_whole
from manta.transports.errors import BlobCorrupt, remedied

if TYPE_CHECKING:
    from manta.transports.interface import Buffer

log = logging.getLogger(__name__)

CHUNK = 64 * 1024
TAG = 16
_MAGIC = b"MANTAENC\x01"
_NONCE = 12
HEAD = len(_MAGIC) + _NONCE + 32 + TAG
"""Bytes."""


class Sealer:
    """Makes and reads encrypted files with a folder's key. From any thread."""

    def __init__(self, key: bytes, *, lasting: bool = True) -> None:
        """`lasting`: the key is kept; what it has encrypted is shredded where it is deleted."""
        self.lasting = lasting
        self._aead = AESGCM(key)

    @classmethod
    def shredder(cls) -> Sealer:
        """For who has no key: it opens no file, and tells and deletes what is there."""
        return cls(AESGCM.generate_key(256))

    @classmethod
    def passing(cls) -> Sealer:
        """With a key that is in this process's memory alone, and that ends with it."""
        return cls(AESGCM.generate_key(256), lasting=False)

    def wrap(self, key: bytes, name: str, size: int) -> bytes:
        """The head of a file."""
        nonce = os.urandom(_NONCE)
        return _MAGIC + nonce + self._aead.encrypt(nonce, key, _bound(name, size))

    def is_whole(self, path: str | os.PathLike[str], digest: str) -> bool:
        """Whether an encrypted file opens, and what is in it has its digest. Raises OSError."""
        try:
            return is_whole(self.open(os.open(path, os.O_RDONLY | os.O_CLOEXEC), digest), digest)
        except BlobCorrupt:
            return False

    def content(self, fd: int, size: int) -> SealedContent:
        """What writes a file of so many bytes."""
        return SealedContent(fd, size)

    def has_sealed(self, fd: int) -> bool:
        """Whether an open file is encrypted. Raises OSError."""
        return is_sealed(os.pread(fd, len(_MAGIC), 0))

    def erase(self, fd: int, path: str | os.PathLike[str]) -> None:
        """Shreds an open file that is deleted or replaced, and closes it; what the disk does not
        take is told."""
        try:
            shred_open(fd)
        except OSError as error:
            log.warning("what %s held could not be overwritten: %s", path, remedied(error))
        finally:
            os.close(fd)

    def erase_all(self, folder: str | os.PathLike[str]) -> None:
        """Shreds the encrypted files in a folder that is about to be deleted."""
        for place, _, names in os.walk(folder):
            for name in names:
                path = os.path.join(place, name)
                with contextlib.suppress(FileNotFoundError):
                    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
                    if self.has_sealed(fd):
                        self.erase(fd, path)
                    else:
                        os.close(fd)

    def unwrap(self, head: bytes, name: str, size: int) -> bytes:
        """The key of a file with this head. Raises BlobCorrupt."""
        nonce, wrapped = head[len(_MAGIC) :][:_NONCE], head[len(_MAGIC) + _NONCE :]
        try:
            if not is_sealed(head) or len(head) < HEAD:
                raise InvalidTag
            return self._aead.decrypt(nonce, wrapped, _bound(name, size))
        except InvalidTag:
            raise BlobCorrupt(
                f"the encrypted file of {name[:12]} was changed, cut short or put in the place "
                "of another: fetch the blob from elsewhere, or restore a backup"
            ) from None

    def open(self, fd: int, name: str) -> SealedSource:
        """Owns the descriptor from here on, even on an error. Raises BlobCorrupt, OSError."""
        try:
            head, size = os.pread(fd, HEAD, 0), plain_size(os.fstat(fd).st_size)
            return SealedSource(fd, self.unwrap(head, name, size), size)
        except BaseException:
            os.close(fd)
            raise


class SealedContent:
    """What is written into an encrypted file, from front to back."""

    def __init__(self, fd: int, size: int) -> None:
        self._fd = fd
        self._size = size
        self._key = AESGCM.generate_key(256)
        self._aead = AESGCM(self._key)
        self._pending = bytearray()
        """Less than a chunk."""
        self.stored = 0
        """Bytes from the front that are in the file: whole chunks, or all."""

    def write(self, data: Buffer) -> None:
        """Never more than the size in all. Raises OSError."""
        view = memoryview(data).cast("B")
        if self._pending:
            taken = min(CHUNK - len(self._pending), len(view))
            self._pending += view[:taken]
            view = view[taken:]
            if self._is_chunk(len(self._pending)):
                self._store(self._pending)
                self._pending = bytearray()
        while view and self._is_chunk(min(len(view), CHUNK)):
            self._store(view[:CHUNK])
            view = view[CHUNK:]
        self._pending += view

    def _is_chunk(self, length: int) -> bool:
        return length == CHUNK or (length > 0 and self.stored + length == self._size)

    def _store(self, plain: Buffer) -> None:
        index = self.stored // CHUNK
        _write(self._fd, self._aead.encrypt(_nonce(index), plain, None), _place(index))
        self.stored += len(plain)

    def finish(self, sealer: Sealer, name: str) -> None:
        """Write the head, after which the file can be opened. Raises OSError."""
        _write(self._fd, sealer.wrap(self._key, name, self._size), 0)

    def source(self) -> SealedSource:
        """What is stored and will be, whether or not the file gets its head."""
        return SealedSource(os.dup(self._fd), self._key, self._size)


class SealedSource:
    """A Source that owns and reads the descriptor of an encrypted file."""

    def __init__(self, fd: int, key: bytes, size: int) -> None:
        self._fd = fd
        self._aead = AESGCM(key)
        self.size = self.ready = size

    def read(self, offset: int, length: int) -> Buffer:
        """Raises BlobCorrupt where the file was changed or cut short, OSError."""
        end = min(offset + length, self.size)
        if offset >= end:
            return b""
        first, last = offset // CHUNK, (end - 1) // CHUNK
        begin = first * CHUNK
        plain = bytearray(min((last + 1) * CHUNK, self.size) - begin)
        count = last - first + 1
        sealed = memoryview(_read(self._fd, len(plain) + count * TAG, _place(first)))
        out = memoryview(plain)
        try:
            for number in range(count):
                part = out[number * CHUNK :][:CHUNK]
                record = sealed[number * (CHUNK + TAG) :][: len(part) + TAG]
                self._aead.decrypt_into(_nonce(first + number), record, None, part)
        except InvalidTag:
            raise BlobCorrupt(
                f"an encrypted blob of {self.size} bytes was changed in the file, between its "
                f"bytes {begin} and {begin + len(plain)}"
            ) from None
        return out[offset - begin : end - begin].toreadonly()

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    __del__ = close


def is_sealed(data: bytes) -> bool:
    """Whether a file that begins so is encrypted."""
    return data.startswith(_MAGIC)


def plain_size(stored: int) -> int:
    """The bytes in an encrypted file that has so many."""
    whole, rest = divmod(max(0, stored - HEAD), CHUNK + TAG)
    return whole * CHUNK + max(0, rest - TAG)


def shred(path: str) -> None:
    """Overwrite the head of an encrypted file, on the disk when this returns. Raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        shred_open(fd)
    finally:
        os.close(fd)


def shred_open(fd: int) -> None:
    """The same, of a file that is open for writing, and may have no name any more."""
    _write(fd, bytes(HEAD), 0)
    os.fsync(fd)


def _bound(name: str, size: int) -> bytes:
    """What a file's key is bound to."""
    return _MAGIC + size.to_bytes(8, "big") + name.encode()


def _nonce(index: int) -> bytes:
    return index.to_bytes(_NONCE, "big")


def _place(index: int) -> int:
    return HEAD + index * (CHUNK + TAG)


def _write(fd: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, at)
        view, at = view[count:], at + count


def _read(fd: int, length: int, at: int) -> bytes:
    """Raises BlobCorrupt where the file ends before."""
    data = os.pread(fd, length, at)
    while len(data) < length:
        if not (more := os.pread(fd, length - len(data), at + len(data))):
            raise BlobCorrupt("an encrypted blob was cut short: fetch it from elsewhere")
        data += more
    return data
