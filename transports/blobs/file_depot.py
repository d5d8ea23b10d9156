"""Blobs as files of a folder."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from manta.transports.blobs.digests import DIGEST, check_digest
from manta.transports.blobs.sources import FileSource, ViewSource, is_whole, mapped
from manta.transports.blobs.writer import PIECE, BlobWriter, copy, put
from manta.transports.errors import BlobCorrupt, BlobMissing, BlobRefused, remedied

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

    from manta.transports.blobs.interface import Sink, Source
    from manta.transports.blobs.sealing import Sealer
    from manta.transports.interface import Buffer


log = logging.getLogger(__name__)

SEALED = ".sealed"
"""How the names of encrypted files end."""
_SHARD = re.compile("[0-9a-f]{2}")


class FileDepot:
    """Blobs as files of one folder: `ab/abcd...`, and drafts in `incoming`.

    May be used from any thread, and one folder by several processes. With `sync` a published
    blob survives a loss of power. Drafts that a crashed process left are deleted by the next
    one that opens the folder. `reserve` bytes of the disk stay free for other uses.

    With a `sealer` what is written is encrypted (`manta.transports.blobs.sealing`), in files
    `ab/abcd....sealed`; what lies there from before can be read as it is. An encrypted file is
    shredded before it is deleted.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        sync: bool = True,
        reserve: int = 0,
        sealer: Sealer | None = None,
    ) -> None:
        self._folder = Path(folder)
        self.sealer = sealer
        self._reserve = reserve
        self._drafts = self._folder / "incoming"
        self._replacing = threading.Lock()
        self._sync = sync
        self.on_refused: Callable[[str], object] = lambda _: None
        """Called, on any thread, with the reason whenever there is no room for a blob."""
        self._drafts.mkdir(mode=0o700, parents=True, exist_ok=True)
        for draft in self._drafts.iterdir():
            self._delete_abandoned(draft)

    def path(self, digest: str) -> Path:
        """Where the blob is, or would be."""
        return Path(self.place(digest))

    def place(self, digest: str) -> str:
        """The same as text. What comes and goes is named so: a Path interns its parts, and ever new
        ones have the table of interned strings, about a megabyte, allocated anew again and again,
        by whichever thread is at it, which leaves holes in the heap of each."""
        plain = f"{self._folder}/{check_digest(digest)[:2]}/{digest}"
        return plain if self.sealer is None or os.path.exists(plain) else plain + SEALED

    @property
    def free(self) -> int:
        """Bytes of its disk that blobs may take."""
        found = os.statvfs(self._drafts)
        return max(0, found.f_bavail * found.f_frsize - self._reserve)

    def __contains__(self, digest: str) -> bool:
        return os.path.exists(self.place(digest))

    def __iter__(self) -> Iterator[str]:
        """The digests of all blobs."""
        for shard in sorted(os.listdir(self._folder)):
            if _SHARD.fullmatch(shard):
                names = os.listdir(f"{self._folder}/{shard}")
                found = {name.removesuffix(SEALED) for name in names}
                yield from (name for name in sorted(found) if DIGEST.fullmatch(name))

    def size(self, digest: str) -> int:
        """In bytes. Raises BlobMissing."""
        place = self.place(digest)
        try:
            size = os.stat(place).st_size
        except FileNotFoundError:
            raise self._missing(digest) from None
        return size if not place.endswith(SEALED) else _sealing().plain_size(size)

    def size_here(self, digest: str) -> int:
        """In bytes; 0 if the blob is not here, or it is no digest."""
        try:
            return self.size(digest)
        except (BlobMissing, BlobRefused):
            return 0

    def source(self, digest: str) -> Source:
        """Raises BlobMissing; BlobCorrupt for an encrypted file that was changed."""
        source = self.unmapped(digest)
        if not isinstance(source, FileSource):
            return source
        with contextlib.closing(source):
            return ViewSource(mapped(source.fd, source.size))

    def unmapped(self, digest: str) -> Source:
        """One that survives it when its file is cut short. Raises BlobMissing; BlobCorrupt for an
        encrypted file that was changed."""
        place = self.place(digest)
        fd = self._open(place, digest)
        if self.sealer is None or not place.endswith(SEALED):
            return FileSource(fd)
        return self.sealer.open(fd, digest)

    def open(self, digest: str) -> int:
        """A descriptor of a file that is not encrypted, for reading, which the caller closes.
        Raises BlobMissing."""
        return self._open(self.place(digest), digest)

    def _open(self, place: str, digest: str) -> int:
        try:
            return os.open(place, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise self._missing(digest) from None

    def sink(self, digest: str, size: int) -> Sink | None:
        return None if digest in self else self.draft(digest, size)

    def draft(self, digest: str, size: int) -> BlobWriter:
        """A sink, also where the blob is here: then the same bytes take its place. Raises
        BlobRefused."""
        import tempfile  # slow to import, and not needed to start a daemon

        if size > self.free:
            raise self._no_room(size)
        while True:
            try:
                fd, path = tempfile.mkstemp(dir=self._drafts)
            except OSError as error:
                raise self.refusal(digest, size, error) from error
            # Locked while it is written; a process that opened the folder meanwhile may have
            # deleted the file before it was locked.
            fcntl.flock(fd, fcntl.LOCK_EX)
            if os.fstat(fd).st_nlink:
                sealed = self.sealer is not None
                content = _sealing().SealedContent(fd, size) if sealed else None
                writer = BlobWriter(self, fd, digest, size, content)
                writer.path = path
                if self._reserve:
                    writer.check_room = partial(self._check_room, size)
                return writer
            os.close(fd)

    def put(self, *parts: Buffer) -> str:
        """Keep the concatenated buffers as a blob; returns its digest. Raises BlobRefused."""
        return put(self, parts)

    def put_file(self, path: str | os.PathLike[str]) -> str:
        """Keep a copy of a file; returns the digest of what was copied. Raises BlobRefused."""
        with open(path, "rb", buffering=0) as file:
            return self.put_stream(file.read, os.fstat(file.fileno()).st_size)

    def put_stream(self, read: Callable[[int], bytes | None], size: int) -> str:
        """Keep the `size` bytes that `read(most)` returns, piece by piece; returns their digest.

        Raises BlobRefused, and BlobCorrupt when there are fewer.
        """
        draft = self.draft("", size)
        try:
            left = size
            while left:
                piece = read(min(PIECE, left))
                if not piece:
                    raise BlobCorrupt(f"a blob of {size} bytes ended {left} bytes too soon")
                draft.write(piece)
                left -= len(piece)
        except BaseException:
            draft.abort()
            raise
        draft.digest = draft.hashed
        if draft.digest in self:
            draft.abort()
        else:
            draft.publish()
        return draft.digest

    def put_sealed(self, fd: int, digest: str, size: int) -> None:
        """Have the kernel copy a sealed descriptor, whose digest is known to be right.

        Raises BlobRefused.
        """
        if digest in self:
            return
        draft = self.draft(digest, size)
        try:
            offset = 0
            while offset < size:
                if draft.content is not None:
                    piece = os.pread(fd, min(PIECE, size - offset), offset)
                    copied = len(piece)
                    draft.write(piece)
                else:
                    copied = os.sendfile(draft.fd, fd, offset, size - offset)
                if not copied:
                    raise BlobCorrupt(f"the blob {digest[:12]} has fewer than its {size} bytes")
                offset += copied
        except BaseException as error:
            draft.abort()
            if isinstance(error, OSError):
                raise self.refusal(digest, size, error) from error
            raise
        draft.publish()

    def put_link(self, other: FileDepot, digest: str) -> None:
        """Keep another depot's blob too: as a hard link, where the file system allows it and
        neither encrypts.

        Raises BlobMissing, BlobRefused.
        """
        if self.sealer is not None or other.sealer is not None:
            self._put_copy(other, digest)
            return
        target = self.place(digest)
        try:
            is_new = self._make_shard(target)
            os.link(other.place(digest), target)
            if self._sync:  # the other one may not
                _sync_file(target)
                self._sync_folders(target, is_new=is_new)
        except FileExistsError:
            return
        except FileNotFoundError:
            raise other._missing(digest) from None
        except OSError:  # on another disk, or one that knows no links
            self.put_file(other.place(digest))

    def _put_copy(self, other: FileDepot, digest: str) -> None:
        """Raises BlobMissing, BlobRefused."""
        try:
            with contextlib.closing(other.unmapped(digest)) as source:
                sink = self.sink(digest, source.size)
                if sink is not None:
                    copy(source, sink)
        except BlobCorrupt as error:
            raise BlobRefused(f"the blob {digest[:12]} is damaged here: {error}") from error

    def is_whole(self, digest: str) -> bool:
        """Whether the blob can be read and its bytes have its digest. Raises BlobMissing."""
        try:
            return is_whole(self.unmapped(digest), digest)
        except (BlobCorrupt, OSError):
            return False

    def delete(self, digest: str) -> bool:
        """Delete a blob; False when it was not here, or the disk does not let it go, which is
        logged. Open sources stay readable."""
        try:
            self._erase(self.place(digest))
        except FileNotFoundError:
            return False
        except OSError as error:
            log.warning("the blob %s cannot be deleted: %s", digest[:12], remedied(error))
            return False
        return True

    def _missing(self, digest: str) -> BlobMissing:
        return BlobMissing(f"the blob {digest[:12]} is not in {self._folder}")

    def _erase(self, place: str) -> None:
        """Delete a file, one that is encrypted so that nobody can read what remains of it. Raises
        OSError."""
        if not place.endswith(SEALED) or (self.sealer is not None and not self.sealer.lasting):
            os.unlink(place)
            return
        # Under another name, so that nobody begins to read it; who reads it has its key.
        passing = self._passing()
        with self._replacing:
            os.rename(place, passing)
        self._shred(passing)

    def _passing(self) -> str:
        """A name for what is about to be shredded; whoever opens the folder next goes on with it,
        if this process does not."""
        return f"{self._drafts}/{os.urandom(8).hex()}{SEALED}"

    def _replace(self, path: str, target: str) -> None:
        """Publishes a file; what it takes the place of is erased. Raises OSError."""
        former = ""
        if self.sealer is not None and self.sealer.lasting and os.path.exists(target):
            former = self._passing()
            os.link(target, former)
        os.replace(path, target)
        if former:
            self._shred(former)
        if self.sealer is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(target.removesuffix(SEALED))

    @staticmethod
    def _shred(place: str) -> None:
        """Raises OSError."""
        try:
            if os.stat(place).st_nlink == 1:  # else it is not the last name
                _sealing().shred(place)
        except OSError as error:
            log.warning(
                "%s is deleted and could not be overwritten before: %s; who has its owner's key "
                "may be able to read what the disk keeps of it",
                place, remedied(error),
            )  # fmt: skip
        os.unlink(place)

    def _delete_abandoned(self, draft: Path) -> None:
        try:
            fd = os.open(draft, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if draft.suffix == SEALED:
                self._shred(f"{draft}")
            else:
                draft.unlink(missing_ok=True)
        except BlockingIOError:
            pass  # another process is writing it
        finally:
            os.close(fd)

    def publish(self, writer: BlobWriter) -> None:
        """For the writer only."""
        target = f"{self._folder}/{check_digest(writer.digest)[:2]}/{writer.digest}"
        target = target if self.sealer is None else target + SEALED
        try:
            if self.sealer is not None and writer.content is not None:
                writer.content.finish(self.sealer, writer.digest)
            if self._sync:
                os.fsync(writer.fd)
            is_new = self._make_shard(target)
            with self._replacing:
                self._replace(writer.path, target)
            if self._sync:
                self._sync_folders(target, is_new=is_new)
        except OSError as error:
            raise self.refusal(writer.digest, writer.size, error) from error
        writer.path = ""
        os.close(writer.fd)
        writer.fd = -1

    @staticmethod
    def _make_shard(target: str) -> bool:
        """The folder of a blob; whether it is new. Raises OSError."""
        shard = os.path.dirname(target)
        if os.path.isdir(shard):
            return False
        os.makedirs(shard, 0o700, exist_ok=True)
        return True

    def _sync_folders(self, target: str, *, is_new: bool) -> None:
        _sync_file(os.path.dirname(target))
        if is_new:
            _sync_file(self._folder)

    def discard(self, writer: BlobWriter) -> None:
        """For the writer only."""
        if writer.path:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(writer.path)

    def refusal(self, digest: str, size: int, error: OSError) -> BlobRefused:
        """For the writer only."""
        return self._refused(
            f"could not keep the blob {digest[:12]} of {size} bytes in {self._folder}: "
            f"{error.strerror}; make room there, or choose another folder"
        )

    def _check_room(self, size: int) -> None:
        if not self.free:  # others have taken the room that there was at the start
            raise self._no_room(size)

    def _no_room(self, size: int) -> BlobRefused:
        kept = f" beside {self._reserve} that are kept" if self._reserve else ""
        return self._refused(
            f"no room for a blob of {size} bytes in {self._folder}: {self.free} bytes are "
            f"free{kept}; make room there"
        )

    def _refused(self, why: str) -> BlobRefused:
        self.on_refused(why)
        return BlobRefused(why)


def _sealing() -> ModuleType:
    """Imported where it is needed: what it needs is not in every installation."""
    from manta.transports.blobs import sealing

    return sealing


def _sync_file(path: str | Path) -> None:
    """Or a folder."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
