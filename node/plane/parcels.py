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
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

from manta.node.plane import spool_records, value_files
from manta.node.plane.copies import Copy, Stalled, Then, ValueGone, ValueLost
from manta.node.plane.shares import MULTIPLE, SharedRoom
from manta.node.plane.spool import Spool, Timeline
from manta.transports.exchange.kept import Kept
from manta.transports.exchange.letters import Remote
from manta.transports.exchange.messages import Parcel

SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
MIB = 1 << 20

MOST_VALUES = 16_384
"""Values that are kept at most: each takes descriptors, and may be mapped."""
DESCRIPTORS = 4
"""What a value takes at most of the process's: itself, its mapping, and while it is filed."""
AHEAD_OF_PEER, AHEAD = 4, 2
"""Of the memory, values that no task has asked for yet take at most one part in so many: those of
one node, and all together. The others stay with their senders until they are asked for."""

log = logging.getLogger("manta.node.plane")

Place = Callable[[int], memoryview | None]

Fetched = Callable[[Exception | None], None]


class NoRoom(Exception):
    """The node keeps no more values; says how much it may and holds."""


class Unsealed(Exception):
    """The task could still change what it has handed in."""


class Carrier(Protocol):
    """What moves parcels from other nodes."""

    def fetch(
        self, swarm_id: str, remote: Remote, place: Place, done: Fetched, *, is_asked: bool
    ) -> None:
        """Calls `place` when it begins to come, on any thread, with a memfd that holds it or -1,
        for memory to write it into, or None where the memfd is taken over; again if it breaks off.
        Calls `done` once, later: with nothing, ValueGone, ValueLost, or what `place` raised."""

    def asked(self, remote: Remote, is_asked: bool) -> None:
        """Whether tasks wait for it."""

    def give_up(self, remote: Remote) -> None:
        """Ends a fetch; `done` is called all the same."""

    def state(self, remote: Remote) -> str:
        """How far a fetch is, and what is in its way."""


class Transfer(Protocol):
    """What sends a parcel to another node."""

    def cancel(self, why: str) -> None:
        """Ends it; `Parcels.unused` follows, later."""


@dataclass(eq=False)
class Own:
    """A value of this node's tasks. `is_filed`: it is, or is to be, a file of its own."""

    swarm_id: str
    fd: int
    size: int
    in_memory: bool
    is_filed: bool = False
    is_kept: bool = True
    transfers: set[Transfer] = field(default_factory=set)
    """Which read it: until they have ended it takes its room."""
    _memory: mmap.mmap | None = None

    def mapped(self) -> memoryview:
        """Its bytes, mapped once for all who read it. Raises OSError."""
        if self._memory is None:
            self._memory = mmap.mmap(self.fd, self.size, mmap.MAP_SHARED, mmap.PROT_READ)
        return memoryview(self._memory)

    def close(self) -> None:
        self._memory = None  # it is unmapped when nothing refers to it any more
        os.close(self.fd)


class Parcels:
    """`most` and `disk`: bytes that are kept in memory and on disk, of this node's tasks and of
    others together; `values`: how many. See `SharedRoom` for how swarms divide each of them."""

    def __init__(
        self, carrier: Carrier, most: int, spool: Spool, disk: int, values: int = MOST_VALUES
    ) -> None:
        self._carrier = carrier
        self._spool = spool
        self._memory = SharedRoom(most)
        self._disk = SharedRoom(disk)
        self._values = SharedRoom(values)
        self._own: dict[bytes, Own] = {}
        """By id."""
        self._copies: dict[Remote, Copy] = {}
        self._ahead: Counter[str] = Counter()
        """By peer: bytes of copies that no task has asked for yet."""
        self.reclaim: Callable[[Callable[[], bool]], None] | None = None
        """Has others that count here give back what they can do without, while more is wanted."""
        for timeline, kept in spool.untaken.items():
            spool.untaken[timeline] = self._restored(timeline.swarm_id, kept)

    @property
    def size(self) -> int:
        """Bytes that are kept in memory."""
        return self._memory.used

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
            self._take_value(swarm_id)
            try:
                self._take_disk(swarm_id, size)
            except NoRoom:
                self._values.give(swarm_id, 1)
                raise
        except (OSError, Unsealed, NoRoom) as error:
            os.close(fd)
            if isinstance(error, OSError):
                raise Unsealed(f"its descriptor is no memory: {error.strerror}") from error
            raise
        parcel = Parcel(secrets.token_bytes(16), size)
        if self._fits_memory(swarm_id, size):
            self._memory.take(swarm_id, size)
            self._own[parcel.id] = Own(swarm_id, fd, size, in_memory=True)
            then(parcel, "")
        else:
            self._spill(swarm_id, fd, parcel, then)

    def _spill(
        self,
        swarm_id: str,
        fd: int,
        parcel: Parcel,
        then: Callable[[Parcel | None, str], None],
    ) -> None:
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
                self._disk.give(swarm_id, parcel.size)
                self._values.give(swarm_id, 1)
                then(None, f"The node's disk takes no value of {parcel.size} bytes: {error}.")
                return
            self._own[parcel.id] = Own(swarm_id, file, parcel.size, in_memory=False, is_filed=True)
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
        try:
            fd = value_files.open_whole(self._path(value.id), value.size)
        except OSError as error:
            log.info("A value of %d bytes is not there any more: %s", value.size, error)
            return False
        self._own[value.id] = Own(swarm_id, fd, value.size, in_memory=False, is_filed=True)
        self._disk.take(swarm_id, value.size)
        self._values.take(swarm_id, 1)
        return True

    def _path(self, id_: bytes) -> Path:
        return self._spool.values / id_.hex()

    # --- of other nodes' --------------------------------------------------------------------

    def want(self, swarm_id: str, remote: Remote, then: Then | None = None) -> None:
        """Has `then` be called with a copy, at once if it is here. Without `then` no task waits for
        it yet: it is fetched ahead if there is room for that."""
        copy = self._copies.get(remote)
        if copy is None:
            try:
                copy = self._begin(swarm_id, remote, is_ahead=then is None)
            except NoRoom as error:
                if then is not None:
                    then(-1, error)
                return
        if then is None:
            return
        self._is_asked(copy)
        if copy.is_whole:
            then(copy.fd, None)
        else:
            copy.waiting.append(then)
            self._carrier.asked(remote, True)

    def forgo(self, remote: Remote, then: Then) -> None:
        """Who wanted it waits no longer."""
        copy = self._copies.get(remote)
        if copy is not None and then in copy.waiting:
            copy.waiting.remove(then)
            if not copy.waiting:
                self._carrier.asked(remote, False)

    def state(self, remote: Remote) -> str:
        """How far it has come, as a part of a sentence."""
        return self._carrier.state(remote)

    def _begin(self, swarm_id: str, remote: Remote, *, is_ahead: bool) -> Copy:
        """Raises NoRoom."""
        size, peer = remote.parcel.size, remote.peer
        if is_ahead and not self._may_come_ahead(swarm_id, remote):
            raise NoRoom("There is no room for what no task has asked for.")
        self._take_value(swarm_id)
        in_memory = is_ahead or self._fits_memory(swarm_id, size)
        if in_memory:
            self._memory.take(swarm_id, size)
        else:
            try:
                self._take_disk(swarm_id, size)
            except NoRoom:
                self._values.give(swarm_id, 1)
                raise
        if is_ahead:
            self._ahead[peer] += size
        copy = self._copies[remote] = Copy(
            swarm_id, remote, in_memory, self._spool.values, is_ahead
        )
        self._fetch(copy)
        return copy

    def _may_come_ahead(self, swarm_id: str, remote: Remote) -> bool:
        """Whoever told of it may not even have it: so it takes from nobody what they may need."""
        size, most = remote.parcel.size, self._memory.most
        return (
            self._ahead[remote.peer] + size <= most // AHEAD_OF_PEER
            and self._ahead.total() + size <= most // AHEAD
            and self._memory.fits(swarm_id, size)
        )

    def _is_asked(self, copy: Copy) -> None:
        """It is not ahead any more."""
        if copy.is_ahead:
            copy.is_ahead = False
            peer = copy.remote.peer
            self._ahead[peer] -= copy.size
            if not self._ahead[peer]:
                del self._ahead[peer]

    def _fetch(self, copy: Copy) -> None:
        done = partial(self._came, copy)
        self._carrier.fetch(
            copy.swarm_id, copy.remote, copy.place, done, is_asked=not copy.is_ahead
        )

    def _came(self, copy: Copy, error: Exception | None) -> None:
        if isinstance(error, Stalled) and copy.waiting and copy.is_wanted:
            self._fetch(copy)  # a task asked for it in this moment
            return
        if not copy.is_wanted:
            error = ValueGone()
        elif error is None:
            error = self._seal(copy)
        if error is not None:
            self._drop_copy(copy)
        waiting, copy.waiting = copy.waiting, []
        for then in waiting:
            then(copy.fd if error is None else -1, error)

    def _seal(self, copy: Copy) -> Exception | None:
        """Why it cannot be handed out."""
        try:
            copy.seal()
        except OSError as error:
            return ValueLost(
                f"the node's system does not protect it from changes ({error}): Linux 5.1 or later "
                "and /proc are needed"
            )
        return None

    # --- both -------------------------------------------------------------------------------

    def release(self, value: Parcel | Remote) -> None:
        """Nobody asks for it any more."""
        if isinstance(value, Parcel):
            if (own := self._own.pop(value.id, None)) is not None:
                if own.is_filed:
                    path = self._path(value.id)
                    self._spool.do(lambda: path.unlink(missing_ok=True))
                self._let_go(own)
            return
        copy = self._copies.get(value)
        if copy is None:
            return
        if copy.is_whole:
            self._drop_copy(copy)
        elif copy.is_wanted:
            copy.is_wanted = False
            self._carrier.give_up(value)

    def _let_go(self, own: Own) -> None:
        own.is_kept = False
        for transfer in list(own.transfers):
            transfer.cancel(str(ValueGone()))
        self.unused(own)

    def unused(self, own: Own) -> None:
        """A transfer of it has ended."""
        if own.is_kept or own.transfers:
            return
        own.close()
        self._disk.give(own.swarm_id, own.size)
        self._values.give(own.swarm_id, 1)
        if own.in_memory:
            self._memory.give(own.swarm_id, own.size)

    def close(self) -> None:
        """Files stay for those who begin after this process."""
        for own in self._own.values():
            self._let_go(own)
        self._own.clear()
        for remote, copy in list(self._copies.items()):
            self.release(remote)
            self._drop_copy(copy)  # nobody may be there any more to say that it has ended

    def take_room(self, size: int, swarm_id: str = "") -> None:
        """Counts memory of that size. Raises NoRoom."""
        if not self._fits_memory(swarm_id, size):
            raise NoRoom(
                f"This node keeps {_mib(self._memory)} MiB of values that tasks send to each other "
                f"in memory, of at most {self._memory.most / MIB:,.1f} MiB{_share(swarm_id)}, and "
                f"a value of {size / MIB:,.1f} MiB does not fit: receive more of them first, or "
                "give the node more (value_memory_mb)."
            )
        self._memory.take(swarm_id, size)

    def give_room(self, size: int, swarm_id: str = "") -> None:
        self._memory.give(swarm_id, size)

    def _fits_memory(self, swarm_id: str, size: int) -> bool:
        if self.reclaim is not None:
            self.reclaim(lambda: not self._memory.fits(swarm_id, size))
        return self._memory.fits(swarm_id, size)

    def _take_value(self, swarm_id: str) -> None:
        """Raises NoRoom."""
        if not self._values.fits(swarm_id, 1):
            raise NoRoom(
                f"This node keeps {self._values.used:,} large values that tasks send to each "
                f"other, of at most {self._values.most:,}{_share(swarm_id)}: receive more of them "
                "first, or let the node open more files (ulimit -n)."
            )
        self._values.take(swarm_id, 1)

    def _take_disk(self, swarm_id: str, size: int) -> None:
        """Raises NoRoom, and then all stays that is there."""
        disk, untaken = self._disk, self._spool.untaken
        if not disk.fits(swarm_id, size):
            named = {one.id for kept in untaken.values() for one in spool_records.parcels(kept)}
            found = [own for id_ in named if (own := self._own.get(id_)) and not own.transfers]
            spare = sum(own.size for own in found)
            if not disk.fits(swarm_id, size, spare=spare):
                raise NoRoom(self._refusal(swarm_id, size))
        while not disk.fits(swarm_id, size):
            self.drop(next(iter(untaken)))
        disk.take(swarm_id, size)

    def drop(self, timeline: Timeline) -> None:
        """Of what was kept before this process began nobody asks for that any more."""
        for parcel in list(spool_records.parcels(self._spool.untaken.get(timeline, ()))):
            self.release(parcel)
        self._spool.drop(timeline)

    def _refusal(self, swarm_id: str, size: int) -> str:
        return (
            f"This node keeps {_mib(self._disk)} MiB of values that tasks send to each other, of "
            f"at most {self._disk.most / MIB:,.1f} MiB for which there is room on its disk, and "
            f"{_mib(self._memory)} of at most {self._memory.most / MIB:,.1f} MiB of them in memory"
            f"{_share(swarm_id)}, and a value of {size / MIB:,.1f} MiB does not fit: receive more "
            f"of them first, or give the node more (room on the disk of {self._spool.values})."
        )

    def _drop_copy(self, copy: Copy) -> None:
        if copy.is_dropped:
            return
        copy.is_dropped = True
        self._copies.pop(copy.remote, None)
        self._is_asked(copy)
        copy.close()
        room = self._memory if copy.in_memory else self._disk
        room.give(copy.swarm_id, copy.size)
        self._values.give(copy.swarm_id, 1)


def _mib(room: SharedRoom) -> str:
    return f"{room.used / MIB:,.1f}"


def _share(swarm_id: str) -> str:
    return f", of which one swarm may take {MULTIPLE} times what it leaves" if swarm_id else ""
