"""Memory of collectives: pages that have been written before, kept for the next call.

To get a page from the system costs as much as to copy it. So what a collective is done with goes
to the next one of its swarm; no other swarm is ever given it. Two kinds of memory are told apart:

* *Rooms* are written by one attempt, which keeps the last few mapped, and are read here: its
  arrays that are to be reduced. They are used again by that attempt, one at a time for each of its
  connections, and once its process has ended, by the next one of the same instance, of whatever
  iteration. One that is given back takes its pages along, though it be mapped there.
* *Blocks* are written here. A task that is given one maps it for itself (MAP_PRIVATE) and can't
  change it. It says when nothing refers to its mapping any more, or its process ends; until that
  is so of all, and transfers and the call itself are done with it, the block is in use.

All of it counts as values that tasks send to each other, and swarms share it as they share those
(`node/plane/shares.py`). Where room is short, what is idle goes first, then what was lent and is
still mapped: its pages stay with the tasks alone; then what members gave to calls that are over,
which only planes that forgot it may need (`spare.py`). A block for which there is no room in memory
is a file, and one beyond half of that is, so that what is kept leaves some for rooms; a room never
is, as a task could cut it short. Small values lie in this process. They have room of their own, a
quarter as much, so that no call fails for what others keep; where that is taken, those of calls
that are over go into files.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections import Counter
from collections.abc import Callable
from functools import partial
from operator import attrgetter
from typing import Protocol

from manta.node.plane import value_files
from manta.node.plane.collectives.block import (
    Block,
    Which,
    is_any,
    is_file,
    is_for,
    is_kept,
    is_memory,
    rounded_up,
)
from manta.node.plane.collectives.spare import Keeps, Nothing, Size
from manta.node.plane.parcels import FUTURE_WRITE, NoRoom
from manta.node.plane.shares import Cost, SharedRoom, Spare, Whose
from manta.node.plane.value_room import mib, share
from manta.protocol.base import Instance
from manta.transports.descriptors import descriptor_limit

IDLE = 20.0
"""Seconds after which idle memory is given back to the system."""
LEAST_SMALL = 64 << 20
"""Bytes of small values for which there is room in any case."""
WRITING = 30.0
"""Seconds for which an attempt may write into a room while others want memory: 10 GB take so long
to write."""
SHARE = 0.75
"""Of all memory: what may be in rooms that one swarm's attempts are writing into."""


class Budget(Protocol):
    """What all memory is counted against."""

    memory: SharedRoom
    """Bytes of values in memory."""
    disk: SharedRoom

    def take_room(self, size: int, swarm_id: str) -> None:
        """In memory. Raises NoRoom."""

    def take_file(self, size: int, swarm_id: str) -> int:
        """A descriptor of a new file, whose room on disk counts until it is given. Raises
        NoRoom."""

    def takes(self, parcel: bytes) -> tuple[int, int]:
        """Bytes in memory and on disk of a value that was handed in and that nobody reads."""


class Pool:
    """For the plane's thread."""

    def __init__(self, budget: Budget, clock: Callable[[], float]) -> None:
        self._budget = budget
        self._clock = clock
        self._count = 0
        self._blocks: dict[int, Block] = {}
        """All that have memory, by number."""
        self._idle: list[Block] = []
        """Longest idle first."""
        self._lent: dict[int, Block] = {}
        """By number: what nothing here uses."""
        self._written: dict[tuple[Instance, int], Block] = {}
        """By attempt and connection: rooms that are being written into, the oldest first."""
        self._by_attempt: dict[Instance, dict[int, Block]] = {}
        """By number: its rooms, and what it was lent."""
        self._open = SharedRoom(descriptor_limit() // 4)
        """How many blocks: each has two descriptors, its own and that of its mapping."""
        self._small = SharedRoom(max(LEAST_SMALL, budget.memory.most // 4))
        """Bytes of small values."""
        self._kept = SharedRoom(budget.memory.most // 2)
        """Bytes of blocks in memory that are no rooms; beyond it they are files."""
        self.keeps: Keeps = Nothing()
        self.unwritten = 0
        """Bytes that are in memory until they are on disk, though they do not count any more."""
        self._offer()

    def _offer(self) -> None:
        """What can be given back where room is short."""
        for room, which, size in (
            (self._budget.memory, is_memory, attrgetter("memory")),
            (self._budget.disk, is_file, attrgetter("disk")),
            (self._open, is_any, attrgetter("blocks")),
        ):
            counts = room is self._open
            unused = partial(self._unused_sizes, which, counts=counts)
            room.offer(Cost.LITTLE, Spare(unused, partial(self._end_one, which)))
            given = partial(self._given_sizes, size)
            room.offer(Cost.SOME, Spare(given, partial(self._let_go, which, size)))
        self._budget.memory.offer(Cost.SOME, Spare(self._overdue_sizes, self._take_back))
        self._kept.offer(Cost.LITTLE, Spare(self._idle_sizes, partial(self._end_idle, is_kept)))
        spill = Spare(lambda: self.keeps.small(), lambda whose: self.keeps.spill(whose))
        self._small.offer(Cost.LITTLE, spill)
        small = attrgetter("small")
        given = partial(self._given_sizes, small)
        self._small.offer(Cost.SOME, Spare(given, lambda whose: self.keeps.let_go(whose, small)))

    # --- to get and to give back -------------------------------------------------------------

    def take(self, size: int, swarm_id: str) -> Block:
        """A block that is held once, whose bytes beyond `size` are 0. Raises NoRoom."""
        block = self._take(rounded_up(size), swarm_id, None)
        if size < block.written:
            block.view[size : block.written] = bytes(block.written - size)
        block.written = size
        return block

    def adopt(self, fd: int, size: int, swarm_id: str) -> Block:
        """Memory of another node's, which nobody can change any more, as a block that is held once.
        It takes the place of one that was made for it, and is idle now. The descriptor is the
        pool's from now on. Raises NoRoom; then it is closed."""
        try:
            self._make_way(swarm_id)
            self._kept.make(swarm_id, size)
            self._budget.take_room(size, swarm_id)
        except NoRoom:
            os.close(fd)
            raise
        try:
            block = self._made(fd, size, swarm_id, is_adopted=True)
        except OSError as error:
            os.close(fd)
            self._budget.memory.give(swarm_id, size)
            raise NoRoom(f"The node can't map a value of {size} bytes: {error}.") from error
        return self._added(block)

    @property
    def most_small(self) -> int:
        """Bytes that small values may have."""
        return self._small.most

    @property
    def most_small_of_one(self) -> int:
        """Of those, what a swarm may have that is alone."""
        return SharedRoom(self._small.most).allows("")

    def take_small(self, size: int, swarm_id: str) -> None:
        """Counts small values, which lie in no block. Raises NoRoom."""
        small = self._small
        if not small.make(swarm_id, size):
            raise NoRoom(
                f"The node keeps {mib(small.used)} MiB of small values and of what was called, of "
                f"at most {mib(small.most)} MiB{share(small, swarm_id)}. {size:,} bytes more do "
                "not fit: make fewer calls in an iteration, or give the node more "
                "(value_memory_mb, of which it is a quarter)."
            )
        self.count_small(size, swarm_id)

    def count_small(self, size: int, swarm_id: str) -> None:
        """Counts what is small and there in any case, as what others have yet to hear: where it
        takes the room, nothing further is begun."""
        self._small.take(swarm_id, size)
        self._budget.memory.take(swarm_id, size)

    def give_small(self, size: int, swarm_id: str) -> None:
        self._small.give(swarm_id, size)
        self._budget.memory.give(swarm_id, size)

    def take_file(self, size: int, swarm_id: str) -> int:
        """A descriptor of a new file. Raises NoRoom."""
        return self._budget.take_file(size, swarm_id)

    def give_disk(self, size: int, swarm_id: str) -> None:
        self._budget.disk.give(swarm_id, size)

    def takes(self, parcel: bytes) -> tuple[int, int]:
        """As of the budget."""
        return self._budget.takes(parcel)

    def room(self, at: Instance, connection: int, size: int) -> Block:
        """A room that the attempt may write into. It takes the place of one that came over this
        connection and of which no call was made. Raises NoRoom."""
        self.leave(at, connection)
        rounded = rounded_up(size)
        theirs = (one.size for one in self._written.values() if one.swarm_id == at.swarm_id)
        whole = self._budget.memory.most
        being_written, most = sum(theirs), int(whole * SHARE)
        if being_written + rounded > most and rounded <= whole:
            raise NoRoom(
                f"Tasks of this swarm are writing {mib(being_written)} MiB of arrays that are to "
                f"be reduced on this node, of at most {mib(most)} MiB, and {mib(rounded)} MiB do "
                "not fit: reduce them one after the other, or give the node more "
                "(value_memory_mb)."
            )
        block = self._take(rounded, at.swarm_id, at)
        block.written = block.size
        self._by_attempt.setdefault(at, {})[block.number] = block
        block.room_of, block.is_left = at, False
        self._written[at, connection] = block
        block.given_at = self._clock()
        return block

    def has_room(self, at: Instance, number: int) -> bool:
        """Is it one of the attempt's rooms?"""
        block = self._by_attempt.get(at, {}).get(number)
        return block is not None and block.room_of == at

    def enter(self, at: Instance, number: int) -> Block | None:
        """The attempt has written into that room; None if it was given no such room, or it was
        taken back since."""
        for key, block in self._written.items():
            if key[0] == at and block.number == number:
                del self._written[key]
                return block
        return None

    def leave(self, at: Instance, connection: int) -> None:
        """No call is made with the room that came over this connection."""
        if (block := self._written.pop((at, connection), None)) is not None:
            self.drop(block)

    def hold(self, block: Block) -> None:
        block.holds += 1

    def drop(self, block: Block) -> None:
        block.holds -= 1
        if not block.holds:
            self._unused(block)

    def lend(self, block: Block, at: Instance) -> None:
        """The attempt is given its descriptor."""
        block.lent[at] = block.lent.get(at, 0) + 1
        self._by_attempt.setdefault(at, {})[block.number] = block

    def returned(self, at: Instance, number: int) -> None:
        """Nothing refers to one of the attempt's mappings any more."""
        block = self._by_attempt.get(at, {}).get(number)
        if block is None or at not in block.lent:
            return
        block.lent[at] -= 1
        if not block.lent[at]:
            del block.lent[at], self._by_attempt[at][number]
        if not block.holds:
            self._unused(block)

    def forget(self, at: Instance, *, is_gone: bool = False) -> None:
        """The attempt is over. What it has mapped stays so for as long as its process lives; it
        may, unless it `is_gone`."""
        for key in [key for key in self._written if key[0] == at]:
            self.leave(*key)
        for block in self._by_attempt.pop(at, {}).values():
            block.is_left = is_gone and block.room_of == at
            block.is_fit = block.is_fit and is_gone
            block.lent.pop(at, None)
            if not block.holds:
                self._unused(block)

    def _unused(self, block: Block) -> None:
        self._lent.pop(block.number, None)
        if block in self._idle:
            self._idle.remove(block)
        if block.lent:
            self._lent[block.number] = block
        elif block.is_fit:
            self._give_idle(block)
        else:
            self._end(block)

    def _give_idle(self, block: Block) -> None:
        block.holds = 0
        block.idle_since = self._clock()
        self._idle.append(block)

    # --- from and to the system --------------------------------------------------------------

    def _take(self, size: int, swarm_id: str, at: Instance | None) -> Block:
        for block in reversed(self._idle):
            is_its = block.swarm_id == swarm_id and is_for(block, at)
            if is_its and size <= block.size <= size + size // 4:
                self._idle.remove(block)
                block.holds = 1
                return block
        self._make_way(swarm_id)
        if at is not None:
            return self._memory(size, swarm_id, at)
        if self._kept.make(swarm_id, size):
            with contextlib.suppress(NoRoom):
                return self._memory(size, swarm_id, None)
            return self._file(size, swarm_id)
        try:
            return self._file(size, swarm_id)
        except NoRoom:
            with contextlib.suppress(NoRoom):
                return self._memory(size, swarm_id, None)
            raise

    def _memory(self, size: int, swarm_id: str, at: Instance | None) -> Block:
        """Raises NoRoom."""
        self._budget.take_room(size, swarm_id)
        try:
            fd = os.memfd_create("manta-block", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            try:
                os.ftruncate(fd, size)
                block = self._made(fd, size, swarm_id, at)
                seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
                if at is None:
                    seals |= FUTURE_WRITE  # but through the mapping that is there
                fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
            except BaseException:
                os.close(fd)
                raise
        except OSError as error:
            self._budget.memory.give(swarm_id, size)
            raise NoRoom(f"The node has no memory for a value of {size} bytes: {error}.") from error
        return self._added(block)

    def _file(self, size: int, swarm_id: str) -> Block:
        """Raises NoRoom."""
        fd = self.take_file(size, swarm_id)
        reader = -1
        try:
            reader = value_files.read_only(os.dup(fd))
            block = self._made(fd, size, swarm_id, is_file=True)
        except OSError as error:
            if reader >= 0:
                os.close(reader)
            self.give_disk(size, swarm_id)
            raise NoRoom(f"The node can't map a value of {size} bytes: {error}.") from error
        finally:
            os.close(fd)
        block.fd = reader  # tasks are handed it
        return self._added(block)

    def _made(
        self,
        fd: int,
        size: int,
        swarm_id: str,
        at: Instance | None = None,
        *,
        is_file: bool = False,
        is_adopted: bool = False,
    ) -> Block:
        """Raises OSError."""
        number = self._count + 1
        block = Block(number, fd, size, swarm_id, at, is_file=is_file, is_adopted=is_adopted)
        self._count = number
        return block

    def _added(self, block: Block) -> Block:
        self._blocks[block.number] = block
        self._open.take(block.swarm_id, 1)
        self._kept.take(block.swarm_id, block.size if block.is_kept else 0)
        return block

    def _make_way(self, swarm_id: str) -> None:
        """For one block more. Raises NoRoom."""
        room = self._open
        if not room.make(swarm_id, 1):
            raise NoRoom(
                f"The node keeps {room.used:,} large values of collectives, of at most "
                f"{room.most:,}, which take half of the files that it may have open; "
                f"{room.of(swarm_id):,} of them for this swarm, which may have "
                f"{room.allows(swarm_id):,} beside the others: raise that limit (ulimit -Hn, "
                "LimitNOFILE=), or end the iteration sooner."
            )

    def _end(self, block: Block) -> None:
        """Its pages are the system's again, as soon as nobody has them mapped."""
        if self._blocks.pop(block.number, None) is None:
            return  # it came to an end with the pool
        for at in list(block.lent):
            self._by_attempt.get(at, {}).pop(block.number, None)
        if block.room_of is not None:
            self._by_attempt.get(block.room_of, {}).pop(block.number, None)
            if not block.holds:
                block.empty()
        block.view = memoryview(b"")
        os.close(block.fd)
        self._open.give(block.swarm_id, 1)
        self._kept.give(block.swarm_id, block.size if block.is_kept else 0)
        room = self._budget.disk if block.is_file else self._budget.memory
        room.give(block.swarm_id, block.size)

    def end_swarm(self, swarm_id: str) -> None:
        """It is over: none of its memory will be used again."""
        for block in [one for one in self._idle if one.swarm_id == swarm_id]:
            self._idle.remove(block)
            self._end(block)

    # --- what can be given back ---------------------------------------------------------------

    def _unused_sizes(self, which: Which, *, counts: bool) -> Counter[str]:
        """Of blocks that nothing here uses, or how many they are."""
        found = Counter[str]()
        for block in (*self._idle, *self._lent.values()):
            found[block.swarm_id] += (1 if counts else block.size) if which(block) else 0
        return found

    def _idle_sizes(self) -> Counter[str]:
        """Of blocks that count as kept, and are not."""
        found = Counter[str]()
        for block in self._idle:
            found[block.swarm_id] += block.size if block.is_kept else 0
        return found

    def _end_idle(self, which: Which, whose: Whose) -> bool:
        """Gives back the block that is idle for longest; false if there is none."""
        for block in self._idle:
            if which(block) and whose(block.swarm_id):
                self._idle.remove(block)
                self._end(block)
                return True
        return False

    def _end_one(self, which: Which, whose: Whose) -> bool:
        """Gives back one that nothing here uses; false if there is none."""
        if self._end_idle(which, whose):
            return True
        for block in self._lent.values():
            if which(block) and whose(block.swarm_id):
                del self._lent[block.number]
                self._end(block)
                return True
        return False

    def _given_sizes(self, size: Size) -> dict[str, int]:
        return {swarm_id: size(given) for swarm_id, given in self.keeps.given().items()}

    def _let_go(self, which: Which, size: Size, whose: Whose) -> bool:
        """Of what members gave to a call; false if there is no such thing."""
        if not self.keeps.let_go(whose, size):
            return False
        while self._end_one(which, whose):  # what that lay in is not used any more
            pass
        return True

    def _overdue(self) -> list[tuple[tuple[Instance, int], Block]]:
        """Rooms that should have been written by now, the oldest first."""
        latest = self._clock() - WRITING
        return [(key, block) for key, block in self._written.items() if block.given_at <= latest]

    def _overdue_sizes(self) -> Counter[str]:
        found = Counter[str]()
        for _, block in self._overdue():
            found[block.swarm_id] += block.size
        return found

    def _take_back(self, whose: Whose) -> bool:
        """Of an overdue room; false if there is none."""
        for key, block in self._overdue():
            if whose(block.swarm_id):
                block.is_fit = False
                self.leave(*key)
                return True
        return False

    @property
    def due(self) -> float | None:
        """When `tick` has something to do."""
        return self._idle[0].idle_since + IDLE if self._idle else None

    def tick(self, now: float) -> None:
        while self._idle and self._idle[0].idle_since + IDLE <= now:
            self._end(self._idle.pop(0))

    def close(self) -> None:
        """Also what transfers still use: these end with their plane."""
        for block in list(self._blocks.values()):
            self._end(block)
        self._idle.clear()
        self._lent.clear()
