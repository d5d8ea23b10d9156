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
import os
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from manta.node.plane import spool_records, value_files
from manta.node.plane.copies import FUTURE_WRITE, Carrier, Copies, ValueGone
from manta.node.plane.mapped import Mapped
from manta.node.plane.shares import Cost, Spare, Whose
from manta.node.plane.spool import Spool, Timeline
from manta.node.plane.value_room import NoRoom, ValueRoom, mib, share
from manta.transports.descriptors import descriptor_limit
from manta.transports.exchange.kept import Kept
from manta.transports.exchange.letters import Remote
from manta.transports.exchange.messages import Parcel

__all__ = ["FUTURE_WRITE", "SEALS", "NoRoom", "Own", "Parcels", "Transfer", "Unsealed"]

SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW

MOST_OPEN = 16_384
"""Values that are open at most: each may be mapped, and the system maps so many."""
Parts = Callable[[], Iterable[bytes | memoryview]]
"""What a value consists of, from its start each time; on any thread. Raises OSError."""
DESCRIPTORS = 4
"""Of the process's there are so many for each value that may be open: its own, its mapping's, one
to file it, and one for links and attempts."""

log = logging.getLogger("manta.node.plane")


class Unsealed(Exception):
    """The task could still change what it has handed in."""


class Transfer(Protocol):
    """What sends a parcel to another node."""

    def cancel(self, why: str) -> None:
        """Ends it; `Parcels.unused` follows, later."""


@dataclass(eq=False)
class Own:
    """A value of this node's tasks. `is_filed`: it is, or is to be, a file of its own."""

    swarm_id: str
    size: int
    path: str
    """Of its file, if it is one."""
    fd: int = -1
    """None is open of a file that nobody reads."""
    in_memory: bool = False
    is_filed: bool = True
    is_kept: bool = True
    is_held: bool = False
    """It stays open until it is released."""
    parts: Parts | None = None
    """Of one that is nowhere yet: what its file is to consist of."""
    transfers: set[Transfer] = field(default_factory=set)
    """Which read it: until they have ended it takes its room."""
    has_it: set[str] = field(default_factory=set)
    """The keys of nodes that it was sent to, whole."""
    _memory: Mapped | None = None

    def mapped(self) -> Mapped:
        """Its bytes, mapped once for all who read it. Raises OSError."""
        if self._memory is None:
            self._memory = Mapped(self.fd, self.size)
        return self._memory

    def close(self) -> None:
        self._memory = None  # it is unmapped when nothing refers to it any more
        fd, self.fd = self.fd, -1
        os.close(fd)


class Parcels:
    """`most` and `disk`: bytes that are kept in memory and on disk, of this node's tasks and of
    others together; `most_open`: how many values may be open, by default as this process may.
    See `SharedRoom` for how swarms divide each of them. Implements `memory.Budget`."""

    def __init__(
        self, carrier: Carrier, most: int, spool: Spool, disk: int, most_open: int | None = None
    ) -> None:
        if most_open is None:
            most_open = min(MOST_OPEN, descriptor_limit() // DESCRIPTORS)
        self._spool = spool
        self._room = ValueRoom(most, disk, most_open, str(spool.values))
        self.memory, self.disk = self._room.memory, self._room.disk
        self._copies = Copies(carrier, self._room, spool.values)
        self.want, self.forgo = self._copies.want, self._copies.forgo
        self.state = self._copies.state
        self._own: dict[bytes, Own] = {}
        """By id."""
        for timeline, kept in spool.untaken.items():
            spool.untaken[timeline] = self._restored(timeline.swarm_id, kept)
        self.disk.offer(Cost.MUCH, Spare(self._untaken, self._drop_untaken))

    @property
    def most_at_once(self) -> int:
        """Of one peer's transfers, so that no peer takes all the files that may be read."""
        return max(1, self._room.reading.most // 4)

    # --- of this node's tasks ---------------------------------------------------------------

    def take_in(
        self, swarm_id: str, fd: int, size: int, then: Callable[[Parcel | None, str], None]
    ) -> None:
        """Keeps what a task handed in, as a descriptor that becomes the store's own, and calls
        `then` with it, or with why it could not be kept: at once, unless it goes to the disk.

        Raises Unsealed, NoRoom; then it is closed.
        """
        try:
            if fcntl.fcntl(fd, fcntl.F_GET_SEALS) & SEALS != SEALS or os.fstat(fd).st_size != size:
                raise Unsealed(f"its memory of {size} bytes is not sealed, or is of another size")
            self._room.take_disk(swarm_id, size)
        except (OSError, Unsealed, NoRoom) as error:
            os.close(fd)
            if isinstance(error, OSError):
                raise Unsealed(f"its descriptor is no memory: {error.strerror}") from error
            raise
        parcel = Parcel(secrets.token_bytes(16), size)
        own = Own(swarm_id, size, self._path(parcel.id))
        room = self._room
        if room.own.fits(swarm_id, 1) and room.memory.make(swarm_id, size):
            room.memory.take(swarm_id, size)
            room.own.take(swarm_id, 1)
            own.fd, own.in_memory, own.is_filed = fd, True, False
            self._own[parcel.id] = own
            then(parcel, "")
        else:
            self._spill(fd, parcel, own, then)

    def _spill(
        self, fd: int, parcel: Parcel, own: Own, then: Callable[[Parcel | None, str], None]
    ) -> None:
        failed = list[OSError]()

        def write() -> None:
            try:
                value_files.copy(fd, own.size, own.path)
            except OSError as error:
                failed.append(error)

        def written() -> None:
            os.close(fd)
            if failed:
                self._room.disk.give(own.swarm_id, own.size)
                then(None, f"The node's disk takes no value of {own.size} bytes: {failed[0]}.")
            else:
                self._own[parcel.id] = own
                then(parcel, "")

        self._spool.do(write, written)

    def own(self, id_: bytes) -> Own | None:
        """A parcel of this node."""
        return self._own.get(id_)

    def opened(self, own: Own) -> int:
        """Its descriptor, which stays the store's own, until `unused`. Raises NoRoom, OSError."""
        if own.fd < 0:
            self._room.take_reading(own.swarm_id)
            try:
                own.fd = value_files.open_whole(own.path, own.size)
            except OSError:
                self._room.reading.give(own.swarm_id, 1)
                raise
        return own.fd

    def held(self, id_: bytes) -> int | None:
        """Of a parcel of this node, its descriptor until it is released. Raises NoRoom, OSError."""
        own = self._own.get(id_)
        if own is None:
            return None
        own.is_held = True
        return self.opened(own)

    def unused(self, own: Own) -> None:
        """One who read it has done so."""
        if own.transfers or (own.is_kept and (own.in_memory or own.is_held)):
            return
        if own.fd >= 0:
            own.close()
            room = self._room.own if own.in_memory else self._room.reading
            room.give(own.swarm_id, 1)
        if not own.is_kept:
            self._room.disk.give(own.swarm_id, own.size)
            if own.in_memory:
                self._room.memory.give(own.swarm_id, own.size)

    def _let_go(self, own: Own) -> None:
        own.is_kept = False
        for transfer in list(own.transfers):
            transfer.cancel(str(ValueGone()))
        self.unused(own)

    def filed(self, kept: Kept) -> list[Callable[[], None]]:
        """What writes those values into files that it names and that are none yet."""
        return [
            self._filing(parcel, own)
            for parcel in spool_records.parcels((kept,))
            if (own := self._own.get(parcel.id)) is not None and not own.is_filed
        ]

    def file(self, swarm_id: str, size: int, parts: Parts) -> Parcel:
        """A value that becomes a file when what names it is kept (`filed`). Nothing gives way to
        it. Raises NoRoom."""
        if not self.disk.fits(swarm_id, size):
            raise NoRoom(
                f"This node keeps {mib(self.disk.used)} MiB of values on its disk, of at most "
                f"{mib(self.disk.most)} MiB{share(self.disk, swarm_id)}: {mib(size)} MiB do not "
                "fit."
            )
        self.disk.take(swarm_id, size)
        parcel = Parcel(secrets.token_bytes(16), size)
        path = self._path(parcel.id)
        self._own[parcel.id] = Own(swarm_id, size, path, is_filed=False, parts=parts)
        return parcel

    def read(self, value: bytes | Parcel, into: memoryview, at: int) -> None:
        """Bytes of what was kept, from `at` on. On any thread. Raises OSError."""
        if isinstance(value, Parcel):
            value_files.read(self._path(value.id), value.size, into, at)
        elif len(value) < at + len(into):
            raise OSError(5, "It is shorter than it was")
        else:
            into[:] = value[at : at + len(into)]

    def on_disk(self, job: Callable[[], None]) -> None:
        """Has a job done that raises nothing, on the spool's thread."""
        self._spool.do(job)

    def _filing(self, parcel: Parcel, own: Own) -> Callable[[], None]:
        own.is_filed = True
        if own.parts is not None:
            return self._writing(parcel, own, own.parts)
        held = [os.dup(own.fd)]

        def write() -> None:
            """On the spool's thread; again after an OSError."""
            while held:
                if parcel.id in self._own:  # else nobody asks for it any more
                    value_files.copy(held[0], parcel.size, own.path)
                os.close(held.pop())

        return write

    def _writing(self, parcel: Parcel, own: Own, parts: Parts) -> Callable[[], None]:
        own.parts = None

        def write() -> None:
            """On the spool's thread; again after an OSError."""
            if parcel.id in self._own:
                value_files.write(parts(), own.path)

        return write

    def _restored(self, swarm_id: str, kept: Sequence[Kept]) -> list[Kept]:
        """What was kept, without what names a file that is not there any more."""
        found = []
        for one in kept:
            items = tuple(
                item for item in one.items if self._is_here(swarm_id, getattr(item, "value", b""))
            )
            found.append(Kept(one.era, one.task, one.rank, one.number, items))
        return found

    def _is_here(self, swarm_id: str, value: bytes | Parcel) -> bool:
        if isinstance(value, bytes) or value.id in self._own:
            return True
        path = self._path(value.id)
        try:
            value_files.check(path, value.size)
        except OSError as error:
            log.info("A value of %d bytes is not there any more: %s", value.size, error)
            return False
        self._own[value.id] = Own(swarm_id, value.size, path)
        self._room.disk.take(swarm_id, value.size)
        return True

    def _path(self, id_: bytes) -> str:
        return f"{self._spool.values}/{id_.hex()}"

    # --- both -------------------------------------------------------------------------------

    def release(self, value: Parcel | Remote) -> None:
        """Nobody asks for it any more."""
        if isinstance(value, Remote):
            self._copies.release(value)
        elif (own := self._own.pop(value.id, None)) is not None:
            if own.is_filed:
                self._spool.do(partial(value_files.delete, own.path))
            self._let_go(own)

    def close(self) -> None:
        """Files stay for those who begin after this process."""
        for own in self._own.values():
            self._let_go(own)
        self._own.clear()
        self._copies.close()

    def drop(self, timeline: Timeline) -> None:
        """Of what was kept before this process began nobody asks for that any more."""
        for parcel in list(spool_records.parcels(self._spool.untaken.get(timeline, ()))):
            self.release(parcel)
        self._spool.drop(timeline)

    # --- room -------------------------------------------------------------------------------

    def take_room(self, size: int, swarm_id: str) -> None:
        """Counts memory of that size. Raises NoRoom."""
        self._room.take_memory(swarm_id, size)

    def take_file(self, size: int, swarm_id: str) -> int:
        """A descriptor of a new file to write into, which goes with its last one. Its room on disk
        counts until it is given. Raises NoRoom."""
        self._room.take_disk(swarm_id, size)
        try:
            return value_files.nameless(self._spool.values, size)
        except OSError as error:
            self.disk.give(swarm_id, size)
            raise NoRoom(f"The disk takes no value of {size} bytes: {error}.") from error

    def takes(self, parcel: bytes) -> tuple[int, int]:
        """Bytes in memory and on disk of a value that was handed in and that nobody reads."""
        own = self._own.get(parcel)
        if own is None or own.transfers:
            return 0, 0
        return own.size if own.in_memory else 0, own.size

    def _untaken(self) -> Counter[str]:
        """Bytes on disk that nobody has asked for since this process began, by swarm."""
        found = Counter[str]()
        for timeline in self._spool.untaken:
            found[timeline.swarm_id] += self._untaken_of(timeline)
        return found

    def _untaken_of(self, timeline: Timeline) -> int:
        named = {one.id for one in spool_records.parcels(self._spool.untaken[timeline])}
        found = [own for id_ in named if (own := self._own.get(id_)) and not own.transfers]
        return sum(own.size for own in found)

    def _drop_untaken(self, whose: Whose) -> bool:
        """The oldest of that."""
        for timeline in self._spool.untaken:
            if whose(timeline.swarm_id) and self._untaken_of(timeline):
                self.drop(timeline)
                return True
        return False
