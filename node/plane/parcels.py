"""Values too large for a message: sealed memory of this node's tasks, and copies of other nodes'.

A task hands in a memfd that nobody can change any more. Another node's plane asks for it when it is
wanted, as a bulk transfer that is written into a memfd here, or whose memfd is taken over from a
node on the same machine. Tasks are handed descriptors.

Where the memory for values is taken, they are files: one that a task hands in is then written into
one. A value of an attempt that ends is written into one as well while it may be asked for, so each
of this node's takes its room on disk from the first.
"""

from __future__ import annotations

import fcntl
import logging
import mmap
import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

from manta.node.plane import spool_records, value_files
from manta.node.plane.spool import Spool, Timeline
from manta.transports.exchange.kept import Kept
from manta.transports.exchange.letters import Remote
from manta.transports.exchange.messages import Parcel

SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
FUTURE_WRITE = 0x10
"""F_SEAL_FUTURE_WRITE of Linux 5.1: the mapping that bulk wrote through may last a while."""
_WRITTEN = FUTURE_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
MIB = 1 << 20

GONE = "its sender has it no more"
"""Why a value of another node's is not there: a later one has taken its place, or will."""

log = logging.getLogger("manta.node.plane")

Place = Callable[[int], memoryview | None]

Then = Callable[[int, str], None]
"""Takes a descriptor, which stays the store's own, or -1 and why there is none."""


class NoRoom(Exception):
    """The node keeps no more values; says how much it may and holds."""


class Unsealed(Exception):
    """The task could still change what it has handed in."""


class Carrier(Protocol):
    """What moves parcels between nodes."""

    def fetch(
        self,
        swarm_id: str,
        remote: Remote,
        transfer: bytes,
        place: Place,
        done: Callable[[str], None],
    ) -> None:
        """Calls `place` when it begins to come, on any thread, with a memfd that holds it or -1,
        for memory to write it into, or None where the memfd is taken over; and `done` once, later,
        with why it failed or nothing."""

    def give_up(self, transfer: bytes) -> None:
        """Ends a fetch; `done` is called all the same."""


@dataclass(eq=False)
class Own:
    """A value of this node's tasks. `is_filed`: it is, or is to be, a file of its own."""

    fd: int
    size: int
    in_memory: bool
    is_filed: bool = False


@dataclass(eq=False)
class _Copy:
    """What came, or comes, of another node's parcel."""

    size: int
    in_memory: bool
    """Where its room is."""
    folder: Path
    transfer: bytes
    fd: int = -1
    """Once it begins to come."""
    is_file: bool = False
    is_adopted: bool = False
    """It is memory of the other node's task, on this machine; nobody can change it."""
    is_whole: bool = False
    waiting: list[Then] = field(default_factory=list)
    is_wanted: bool = True

    def place(self, memfd: int) -> memoryview | None:
        """Of Carrier.fetch. Raises NoRoom."""
        if not self.is_wanted:
            raise NoRoom(GONE)
        if memfd >= 0 and os.fstat(memfd).st_size >= self.size:
            self.fd, self.is_adopted = os.dup(memfd), True
            return None
        try:
            self.fd = self._memory() if self.in_memory else self._file()
            return memoryview(mmap.mmap(self.fd, self.size))
        except (OSError, ValueError) as error:
            raise NoRoom(f"there is no room for a value of {self.size} bytes: {error}") from error

    def _memory(self) -> int:
        try:
            fd = os.memfd_create("manta-parcel", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            try:
                os.ftruncate(fd, self.size)
            except OSError:
                os.close(fd)
                raise
        except OSError as error:
            log.info("There is no memory for a value of %d bytes: %s", self.size, error)
            return self._file()
        return fd

    def _file(self) -> int:
        self.is_file = True
        return value_files.nameless(self.folder, self.size)

    def seal(self) -> None:
        """It is whole: nobody changes it any more."""
        if self.is_file:
            self.fd = value_files.read_only(self.fd)
        elif not self.is_adopted:
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, _WRITTEN)
        self.is_whole = True


class Parcels:
    """`most` and `disk`: bytes that are kept in memory and on disk, of this node's tasks and of
    others together."""

    def __init__(self, carrier: Carrier, most: int, spool: Spool, disk: int) -> None:
        self._carrier = carrier
        self._most = most
        self._spool = spool
        self._most_on_disk = disk
        self.size = 0
        """Bytes that are kept in memory."""
        self.on_disk = 0
        """Bytes for which there has to be room on disk."""
        self._own: dict[bytes, Own] = {}
        """By id."""
        self._copies: dict[Remote, _Copy] = {}
        self.reclaim: Callable[[Callable[[], bool]], None] | None = None
        """Has others that count here give back what they can do without, while more is wanted."""
        for timeline, kept in spool.untaken.items():
            spool.untaken[timeline] = self._restored(kept)

    @property
    def most(self) -> int:
        """Bytes that are kept in memory."""
        return self._most

    # --- of this node's tasks ---------------------------------------------------------------

    def take_in(self, fd: int, size: int, then: Callable[[Parcel | None, str], None]) -> None:
        """Keeps what a task handed in, as a descriptor that becomes the store's own, and calls
        `then` with it, or with why it could not be kept: at once, unless it goes to the disk.

        Raises Unsealed, NoRoom; then it is closed.
        """
        try:
            if fcntl.fcntl(fd, fcntl.F_GET_SEALS) & SEALS != SEALS or os.fstat(fd).st_size != size:
                raise Unsealed(f"its memory of {size} bytes is not sealed, or is of another size")
            self._take_disk(size)
        except (OSError, Unsealed, NoRoom) as error:
            os.close(fd)
            if isinstance(error, OSError):
                raise Unsealed(f"its descriptor is no memory: {error.strerror}") from error
            raise
        parcel = Parcel(secrets.token_bytes(16), size)
        if self._fits_memory(size):
            self.size += size
            self._own[parcel.id] = Own(fd, size, in_memory=True)
            then(parcel, "")
        else:
            self._spill(fd, parcel, then)

    def _spill(self, fd: int, parcel: Parcel, then: Callable[[Parcel | None, str], None]) -> None:
        path, failed = self._path(parcel.id), list[OSError]()

        def write() -> None:
            try:
                value_files.copy(fd, parcel.size, path)
            except OSError as error:
                failed.append(error)

        def written() -> None:
            os.close(fd)
            try:
                if failed:
                    raise failed[0]
                file = value_files.open_whole(path, parcel.size)
            except OSError as error:
                self.on_disk -= parcel.size
                then(None, f"The node's disk takes no value of {parcel.size} bytes: {error}.")
                return
            self._own[parcel.id] = Own(file, parcel.size, in_memory=False, is_filed=True)
            then(parcel, "")

        self._spool.do(write, written)

    def own(self, id_: bytes) -> Own | None:
        """A parcel of this node, whose descriptor stays the store's own."""
        return self._own.get(id_)

    def filed(self, kept: Kept) -> list[Callable[[], None]]:
        """What writes those values into files that it names and that are none yet."""
        return [
            self._filing(parcel, own)
            for parcel in spool_records.parcels((kept,))
            if (own := self._own.get(parcel.id)) is not None and not own.is_filed
        ]

    def _filing(self, parcel: Parcel, own: Own) -> Callable[[], None]:
        own.is_filed = True
        path, held = self._path(parcel.id), [os.dup(own.fd)]

        def write() -> None:
            """On the spool's thread; again after an OSError."""
            while held:
                if parcel.id in self._own:  # else nobody asks for it any more
                    value_files.copy(held[0], parcel.size, path)
                os.close(held.pop())

        return write

    def _restored(self, kept: Sequence[Kept]) -> list[Kept]:
        """What was kept, without what names a file that is not there any more."""
        found = []
        for one in kept:
            items = tuple(item for item in one.items if self._is_here(getattr(item, "value", b"")))
            found.append(Kept(one.era, one.task, one.rank, one.number, items))
        return found

    def _is_here(self, value: bytes | Parcel) -> bool:
        if isinstance(value, bytes) or value.id in self._own:
            return True
        try:
            fd = value_files.open_whole(self._path(value.id), value.size)
        except OSError as error:
            log.info("A value of %d bytes is not there any more: %s", value.size, error)
            return False
        self._own[value.id] = Own(fd, value.size, in_memory=False, is_filed=True)
        self.on_disk += value.size
        return True

    def _path(self, id_: bytes) -> Path:
        return self._spool.values / id_.hex()

    # --- of other nodes' --------------------------------------------------------------------

    def want(self, swarm_id: str, remote: Remote, then: Then | None = None) -> None:
        """Has `then` be called with a copy, at once if it is here."""
        copy = self._copies.get(remote)
        if copy is None:
            try:
                copy = self._begin(swarm_id, remote)
            except NoRoom as error:
                if then is not None:
                    then(-1, str(error))
                return
        if copy.is_whole and then is not None:
            then(copy.fd, "")
        elif then is not None:
            copy.waiting.append(then)

    def _begin(self, swarm_id: str, remote: Remote) -> _Copy:
        """Raises NoRoom."""
        size = remote.parcel.size
        in_memory = self._fits_memory(size)
        if in_memory:
            self.size += size
        else:
            self._take_disk(size)
        copy = _Copy(size, in_memory, self._spool.values, secrets.token_bytes(16))
        self._copies[remote] = copy
        done = partial(self._came, remote, copy)
        self._carrier.fetch(swarm_id, remote, copy.transfer, copy.place, done)
        return copy

    def _came(self, remote: Remote, copy: _Copy, why: str) -> None:
        if not why and copy.is_wanted:
            copy.seal()
        else:
            self._copies.pop(remote, None)
            self._drop_copy(copy)
            why = why if copy.is_wanted else GONE
        waiting, copy.waiting = copy.waiting, []
        for then in waiting:
            then(copy.fd if copy.is_whole else -1, why)

    # --- both -------------------------------------------------------------------------------

    def release(self, value: Parcel | Remote) -> None:
        """Nobody asks for it any more."""
        if isinstance(value, Parcel):
            if (own := self._own.pop(value.id, None)) is not None:
                os.close(own.fd)
                self.on_disk -= own.size
                self.size -= own.size if own.in_memory else 0
                if own.is_filed:
                    path = self._path(value.id)
                    self._spool.do(lambda: path.unlink(missing_ok=True))
            return
        copy = self._copies.get(value)
        if copy is None:
            return
        if copy.is_whole:
            del self._copies[value]
            self._drop_copy(copy)
        elif copy.is_wanted:
            copy.is_wanted = False
            self._carrier.give_up(copy.transfer)

    def close(self) -> None:
        """Files stay for those who begin after this process."""
        for own in self._own.values():
            os.close(own.fd)
        self._own.clear()
        for remote, copy in list(self._copies.items()):
            self.release(remote)
            if not copy.is_whole:  # nobody may be there any more to say that it has ended
                del self._copies[remote]
                self._drop_copy(copy)
                copy.fd, copy.size = -1, 0

    def take_room(self, size: int) -> None:
        """Counts memory of that size. Raises NoRoom."""
        if not self._fits_memory(size):
            raise NoRoom(
                f"This node keeps {self.size / MIB:,.1f} MiB of values that tasks send to each "
                f"other in memory, of at most {self._most / MIB:,.1f} MiB, and a value of "
                f"{size / MIB:,.1f} MiB does not fit: receive more of them first, or give the node "
                "more (value_memory_mb)."
            )
        self.size += size

    def give_room(self, size: int) -> None:
        self.size -= size

    def _fits_memory(self, size: int) -> bool:
        if self.reclaim is not None:
            self.reclaim(lambda: self.size + size > self._most)
        return self.size + size <= self._most

    def _take_disk(self, size: int) -> None:
        """Raises NoRoom."""
        while self.on_disk + size > self._most_on_disk:
            if not self._spool.untaken:
                raise NoRoom(self._refusal(size))
            self.drop(next(iter(self._spool.untaken)))
        self.on_disk += size

    def drop(self, timeline: Timeline) -> None:
        """Of what was kept before this process began nobody asks for that any more."""
        for parcel in list(spool_records.parcels(self._spool.untaken.get(timeline, ()))):
            self.release(parcel)
        self._spool.drop(timeline)

    def _refusal(self, size: int) -> str:
        return (
            f"This node keeps {self.on_disk / MIB:,.1f} MiB of values that tasks send to each "
            f"other, of at most {self._most_on_disk / MIB:,.1f} MiB for which there is room on its "
            f"disk, and {self.size / MIB:,.1f} of at most {self._most / MIB:,.1f} MiB of them in "
            f"memory, and a value of {size / MIB:,.1f} MiB does not fit: receive more of them "
            f"first, or give the node more (room on the disk of {self._spool.values})."
        )

    def _drop_copy(self, copy: _Copy) -> None:
        if copy.fd >= 0:
            os.close(copy.fd)
        if copy.in_memory:
            self.size -= copy.size
        else:
            self.on_disk -= copy.size
