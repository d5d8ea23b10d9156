"""Blobs and the depots that keep them: in a folder, or in sealed memory.

A blob is known by its digest, BLAKE3 of its bytes as 64 hexadecimal characters, and
never changes. A depot publishes a blob whole or not at all. Both depots may be used
from any thread; one folder may serve several processes.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING

from manta.transports.blobs.io import (
    DIGEST,
    PIECE,
    BlobWriter,
    ViewSource,
    check_digest,
    digest_of,
    mapped,
    write_all,
)
from manta.transports.errors import (
    BlobCorrupt,
    BlobMissing,
    BlobRefused,
    DepotFull,
    LocalTransportError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from manta.transports.bulk.interface import Sink, Source
    from manta.transports.interface import Buffer

__all__ = ["FileDepot", "MemoryDepot", "check_digest", "digest_of"]


class FileDepot:
    """Blobs as files of one folder: `ab/abcd...`, and drafts in `incoming`.

    With `sync` a blob that was published survives a loss of power. Drafts that a
    crashed process left are deleted by the next one that opens the folder.
    """

    def __init__(self, folder: str | os.PathLike[str], *, sync: bool = True) -> None:
        self._folder = Path(folder)
        self._drafts = self._folder / "incoming"
        self._sync = sync
        self._drafts.mkdir(mode=0o700, parents=True, exist_ok=True)
        for draft in self._drafts.iterdir():
            self._delete_abandoned(draft)

    def path(self, digest: str) -> Path:
        """Where the blob is, or would be."""
        return self._folder / check_digest(digest)[:2] / digest

    @property
    def free(self) -> int:
        """Bytes that its disk has left."""
        found = os.statvfs(self._drafts)
        return found.f_bavail * found.f_frsize

    def __contains__(self, digest: str) -> bool:
        return self.path(digest).exists()

    def __iter__(self) -> Iterator[str]:
        """The digests of all blobs."""
        for shard in sorted(self._folder.glob("[0-9a-f][0-9a-f]")):
            for path in sorted(shard.iterdir()):
                if DIGEST.fullmatch(path.name):
                    yield path.name

    def size(self, digest: str) -> int:
        """In bytes. Raises BlobMissing."""
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            raise _missing(digest, self._folder) from None

    def source(self, digest: str) -> Source:
        fd = self.open(digest)
        try:
            return ViewSource(mapped(fd, os.fstat(fd).st_size))
        finally:
            os.close(fd)

    def open(self, digest: str) -> int:
        """A descriptor to read; the caller closes it. Raises BlobMissing."""
        try:
            return os.open(self.path(digest), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise _missing(digest, self._folder) from None

    def sink(self, digest: str, size: int) -> Sink | None:
        return None if digest in self else self._draft(digest, size)

    def put(self, *parts: Buffer) -> str:
        """Keep a blob made of these buffers; returns its digest. Raises BlobRefused."""
        digest = digest_of(*parts)
        write_all(self.sink(digest, sum(memoryview(part).nbytes for part in parts)), parts)
        return digest

    def put_file(self, path: str | os.PathLike[str]) -> str:
        """Keep a copy of a file; returns the digest of what was copied. Raises BlobRefused."""
        with open(path, "rb", buffering=0) as file:
            return self.put_stream(file.read, os.fstat(file.fileno()).st_size)

    def put_stream(self, read: Callable[[int], bytes | None], size: int) -> str:
        """Keep the `size` bytes that `read(most)` gives; returns their digest.

        Raises BlobRefused, and BlobCorrupt where there are fewer.
        """
        draft = self._draft("", size)
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
        """Keep a copy of a sealed descriptor's bytes, whose digest is known to be right.

        The kernel copies. Raises BlobRefused.
        """
        if digest in self:
            return
        draft = self._draft(digest, size)
        try:
            offset = 0
            while offset < size:
                copied = os.sendfile(draft.fd, fd, offset, size - offset)
                if not copied:
                    raise BlobCorrupt(f"the blob {digest[:12]} has fewer than its {size} bytes")
                offset += copied
        except OSError as error:
            draft.abort()
            raise self.refusal(digest, size, error) from error
        except BaseException:
            draft.abort()
            raise
        draft.publish()

    def put_link(self, other: FileDepot, digest: str) -> None:
        """Keep another depot's blob as well: the same file, where the file system allows it.

        Raises BlobMissing, BlobRefused.
        """
        target = self.path(digest)
        target.parent.mkdir(mode=0o700, exist_ok=True)
        try:
            os.link(other.path(digest), target)
        except FileExistsError:
            return
        except FileNotFoundError:
            raise _missing(digest, other.path(digest).parent) from None
        except OSError:  # on another disk, or one that knows no links
            self.put_file(other.path(digest))

    def delete(self, digest: str) -> bool:
        """Whether the blob was there. Whoever reads it now may read on."""
        try:
            self.path(digest).unlink()
        except FileNotFoundError:
            return False
        return True

    def _draft(self, digest: str, size: int) -> BlobWriter:
        import tempfile  # dear to import, and not needed to start a daemon

        if size > self.free:
            raise BlobRefused(
                f"no room for a blob of {size} bytes in {self._folder}: {self.free} bytes are "
                "free; make room there"
            )
        while True:
            try:
                fd, path = tempfile.mkstemp(dir=self._drafts)
            except OSError as error:
                raise self.refusal(digest, size, error) from error
            # Held as long as it is written; a process that opens the folder in between may
            # have deleted the file before it was locked.
            fcntl.flock(fd, fcntl.LOCK_EX)
            if os.fstat(fd).st_nlink:
                writer = BlobWriter(self, fd, digest, size)
                writer.path = path
                return writer
            os.close(fd)

    @staticmethod
    def _delete_abandoned(draft: Path) -> None:
        try:
            fd = os.open(draft, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            draft.unlink(missing_ok=True)
        except BlockingIOError:
            pass  # another process is writing it
        finally:
            os.close(fd)

    def publish(self, writer: BlobWriter) -> None:
        """The writer's side; not for others."""
        target = self.path(writer.digest)
        try:
            if self._sync:
                os.fsync(writer.fd)
            is_new = not target.parent.exists()
            target.parent.mkdir(mode=0o700, exist_ok=True)
            os.replace(writer.path, target)
            if self._sync:
                _sync_folder(target.parent)
                if is_new:
                    _sync_folder(self._folder)
        except OSError as error:
            raise self.refusal(writer.digest, writer.size, error) from error
        writer.path = ""
        os.close(writer.fd)
        writer.fd = -1

    def discard(self, writer: BlobWriter) -> None:
        """The writer's side; not for others."""
        if writer.path:
            Path(writer.path).unlink(missing_ok=True)

    def refusal(self, digest: str, size: int, error: OSError) -> BlobRefused:
        """The writer's side; not for others."""
        return BlobRefused(
            f"could not keep the blob {digest[:12]} of {size} bytes in {self._folder}: "
            f"{error.strerror}; make room there, or choose another folder"
        )


class _Entry:
    __slots__ = ("fd", "pins", "size", "view")

    def __init__(self, fd: int, size: int) -> None:
        self.fd = fd
        self.size = size
        self.pins = 0
        self.view: memoryview | None = None


class MemoryDepot:
    """Blobs in sealed memfds, at most `budget` bytes of them; Linux only.

    The one that was used longest ago makes room for a new one, unless it is pinned.
    Whoever has a blob open or mapped keeps its memory, evicted or not.
    """

    def __init__(self, budget: int) -> None:
        if not hasattr(os, "memfd_create"):
            raise LocalTransportError("a MemoryDepot needs Linux: use a FileDepot here")
        self._budget = budget
        self._used = 0  # with what is being written
        self._entries: OrderedDict[str, _Entry] = OrderedDict()  # the longest unused first
        self._lock = threading.Lock()

    def __contains__(self, digest: str) -> bool:
        return digest in self._entries

    def __iter__(self) -> Iterator[str]:
        """The digests of all blobs."""
        with self._lock:
            return iter(list(self._entries))

    @property
    def used(self) -> int:
        """Bytes of all blobs, and of those that are being written."""
        return self._used

    def size(self, digest: str) -> int:
        """In bytes. Raises BlobMissing."""
        with self._lock:
            return self._entry(digest).size

    def source(self, digest: str) -> Source:
        with self._lock:
            entry = self._entry(digest)
            if entry.view is None:  # kept, because each mapping faults its pages in anew
                entry.view = mapped(entry.fd, entry.size)
            return ViewSource(entry.view)

    def sink(self, digest: str, size: int) -> Sink | None:
        check_digest(digest)
        with self._lock:
            if digest in self._entries:
                self._entries.move_to_end(digest)
                return None
            self._make_room(size)
            self._used += size
        try:
            fd = os.memfd_create("manta-blob", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        except OSError as error:
            with self._lock:
                self._used -= size
            raise self.refusal(digest, size, error) from error
        return BlobWriter(self, fd, digest, size)

    def put(self, *parts: Buffer) -> str:
        """Keep a blob made of these buffers; returns its digest. Raises BlobRefused."""
        digest = digest_of(*parts)
        write_all(self.sink(digest, sum(memoryview(part).nbytes for part in parts)), parts)
        return digest

    def adopt(self, fd: int, size: int) -> str:
        """Seal a memfd that somebody else filled and keep it; returns its digest.

        Takes the descriptor over, whatever happens. Raises BlobRefused when it is no memfd of
        that size, when somebody still has it mapped for writing, or when there is no room.
        """
        try:
            try:
                fcntl.fcntl(fd, fcntl.F_GET_SEALS)
            except OSError as error:
                raise BlobRefused("the descriptor is not of a memfd: share another") from error
            _seal(fd)
            if os.fstat(fd).st_size != size:
                raise BlobRefused(
                    f"the memfd has {os.fstat(fd).st_size} bytes, and {size} were announced"
                )
            digest = digest_of(mapped(fd, size))
            with self._lock:
                if digest in self._entries:
                    self._entries.move_to_end(digest)
                    return digest
                self._make_room(size)
                self._used += size
                self._entries[digest] = _Entry(fd, size)
                fd = -1
            return digest
        finally:
            if fd >= 0:
                os.close(fd)

    def open(self, digest: str) -> int:
        """A descriptor of the sealed memfd, for a Unix socket; the caller closes it.

        Raises BlobMissing.
        """
        with self._lock:
            return os.dup(self._entry(digest).fd)

    def pin(self, digest: str) -> None:
        """Keep the blob until as many calls of `unpin`. Raises BlobMissing."""
        with self._lock:
            self._entry(digest).pins += 1

    def unpin(self, digest: str) -> None:
        """Raises BlobMissing."""
        with self._lock:
            self._entry(digest).pins -= 1

    def delete(self, digest: str) -> bool:
        """Whether the blob was there. Pinned or not, it goes."""
        with self._lock:
            if digest not in self._entries:
                return False
            self._drop(digest)
            return True

    def trim(self, size: int) -> None:
        """Forget what is not pinned, the longest unused first, until `size` bytes are left."""
        with self._lock:
            for digest in [digest for digest, entry in self._entries.items() if not entry.pins]:
                if self._used <= size:
                    return
                self._drop(digest)

    def copy_to(self, depot: FileDepot, digest: str) -> None:
        """Keep the blob in a folder as well. Raises BlobMissing, BlobRefused."""
        fd = self.open(digest)
        try:
            depot.put_sealed(fd, digest, os.fstat(fd).st_size)
        finally:
            os.close(fd)

    def close(self) -> None:
        """Forget all blobs."""
        with self._lock:
            for digest in list(self._entries):
                self._drop(digest)

    def _entry(self, digest: str) -> _Entry:
        entry = self._entries.get(digest)
        if entry is None:
            raise _missing(digest, "memory")
        self._entries.move_to_end(digest)
        return entry

    def _make_room(self, size: int) -> None:
        while self._used + size > self._budget:
            victim = next((d for d, entry in self._entries.items() if not entry.pins), None)
            if victim is None:
                raise DepotFull(
                    f"no room for a blob of {size} bytes in memory: {self._used} of "
                    f"{self._budget} bytes are in use; try again later, or raise the limit"
                )
            self._drop(victim)

    def _drop(self, digest: str) -> None:
        entry = self._entries.pop(digest)
        self._used -= entry.size
        os.close(entry.fd)

    def publish(self, writer: BlobWriter) -> None:
        """The writer's side; not for others."""
        _seal(writer.fd)
        with self._lock:
            if writer.digest in self._entries:  # somebody else was faster
                os.close(writer.fd)
                self._used -= writer.size
            else:
                self._entries[writer.digest] = _Entry(writer.fd, writer.size)
            writer.fd = -1

    def discard(self, writer: BlobWriter) -> None:
        """The writer's side; not for others."""
        with self._lock:
            self._used -= writer.size

    def refusal(self, digest: str, size: int, error: OSError) -> BlobRefused:
        """The writer's side; not for others."""
        return BlobRefused(
            f"could not keep the blob {digest[:12]} of {size} bytes in memory: {error.strerror}"
        )


def _seal(fd: int) -> None:
    """Nobody changes the memory from here on. Raises BlobRefused."""
    seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
    if fcntl.fcntl(fd, fcntl.F_GET_SEALS) & seals == seals:
        return
    try:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals | fcntl.F_SEAL_SEAL)
    except OSError as error:
        raise BlobRefused(
            f"the memfd cannot be sealed ({error.strerror}): whoever filled it must unmap it "
            "first, and the memfd must allow sealing"
        ) from error


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _missing(digest: str, where: object) -> BlobMissing:
    return BlobMissing(f"the blob {digest[:12]} is not in {where}")
