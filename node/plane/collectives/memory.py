"""Memory of collectives: pages that have been written before, kept for the next call.

To get a page from the system costs as much as to copy it. So what a collective is done with goes
to the next one of its swarm; no other swarm is ever given it. Two kinds of memory are told apart:

* *Rooms* are written by one attempt, which keeps them mapped, and are read here: its arrays that
  are to be reduced. They are used again by that attempt only, one at a time for each of its
  connections.
* *Blocks* are written here. A task that is given one maps it for itself (MAP_PRIVATE) and can't
  change it. It says when nothing refers to its mapping any more; until all have, and transfers
  and the call itself are done with it, the block is in use.

All of it counts as values that tasks send to each other. Where room is short, what is idle goes
first, then what was lent and is still mapped: its pages stay with the tasks alone; then what
members gave to calls that are over, which only planes that forgot it may need (`let_go`). A block
for which there is no room in memory is a file, and one beyond half of that is, so that what is kept
leaves some for rooms; a room never is, as a task could cut it short. Small values lie in this
process. They have room of their own, a quarter as much, so that no call fails for what others keep;
where that is taken, those of calls that are over go into files (`spill`).
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
from collections.abc import Callable
from typing import Protocol

from manta.node.plane import value_files
from manta.node.plane.parcels import FUTURE_WRITE, NoRoom
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
MIB = 1 << 20
_PAGE = mmap.PAGESIZE


class Budget(Protocol):
    """What all memory is counted against."""

    @property
    def most(self) -> int:
        """Bytes of values in memory."""

    def count(self, size: int) -> None:
        """Counts memory for which others have to make room."""

    def take_room(self, size: int) -> None:
        """Raises NoRoom."""

    def give_room(self, size: int) -> None: ...

    def take_file(self, size: int) -> int:
        """A descriptor of a new file, whose room on disk counts until `give_disk`. Raises
        NoRoom."""

    def give_disk(self, size: int) -> None: ...


class Block:
    """Of whole pages."""

    def __init__(
        self,
        number: int,
        fd: int,
        size: int,
        swarm_id: str,
        room_of: Instance | None = None,
        *,
        is_file: bool = False,
        is_adopted: bool = False,
    ) -> None:
        self.number = number
        self.swarm_id = swarm_id
        self.fd = fd
        self.size = size
        self.room_of = room_of
        """The attempt that writes it, if it is a room."""
        self.is_file = is_file
        self.view = memoryview(
            mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ)
            if is_adopted
            else mmap.mmap(fd, size)
        )
        self.written = 0
        """Bytes from the start on that may be other than 0."""
        self.holds = 1
        """How many use it here."""
        self.lent: dict[Instance, int] = {}
        """How many mappings of it each attempt has."""
        self.is_fit = not is_adopted
        """May it be used again?"""
        self.idle_since = 0.0
        self.given_at = 0.0
        """When the attempt was given it, if it is a room."""


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
        self._small = 0
        """Bytes of small values."""
        self._in_memory = 0
        """Bytes of those that are neither rooms nor files."""
        self.spill: Callable[[], bool] = bool
        """Has some small values that are kept go into files; false if there are none."""
        self.let_go: Callable[[], bool] = bool
        """Lets go of something that others may need again; false if there is nothing."""

    # --- to get and to give back -------------------------------------------------------------

    def take(self, size: int, swarm_id: str) -> Block:
        """A block that is held once, whose bytes beyond `size` are 0. Raises NoRoom."""
        block = self._take(_rounded(size), swarm_id, None)
        if size < block.written:
            block.view[size : block.written] = bytes(block.written - size)
        block.written = size
        return block

    def adopt(self, fd: int, size: int, swarm_id: str) -> Block:
        """Memory of another node's, which nobody can change any more, as a block that is held once.
        The descriptor is the pool's from now on. Raises NoRoom; then it is closed."""
        try:
            self._budget.take_room(size)
        except NoRoom:
            os.close(fd)
            raise
        try:
            block = self._made(fd, size, swarm_id, is_adopted=True)
        except OSError as error:
            os.close(fd)
            self._budget.give_room(size)
            raise NoRoom(f"The node can't map a value of {size} bytes: {error}.") from error
        self._blocks[block.number] = block
        self._in_memory += size
        return block

    @property
    def most_small(self) -> int:
        """Bytes that small values may have."""
        return max(LEAST_SMALL, self._budget.most // 4)

    def take_small(self, size: int) -> None:
        """Counts small values, which lie in no block. Raises NoRoom."""
        most = self.most_small
        while self._small + size > most:
            if not self.spill() and not self.let_go():
                raise NoRoom(
                    f"The node keeps {self._small / MIB:,.1f} MiB of small values and of what was "
                    f"called, of at most {most / MIB:,.1f} MiB, and {size / MIB:,.3f} MiB more do "
                    "not fit: make fewer calls in an iteration, or give the node more "
                    "(value_memory_mb, of which it is a quarter)."
                )
        self._small += size
        self._budget.count(size)

    def count_small(self, size: int) -> None:
        """Counts what is small and there in any case, as what others have yet to hear: where it
        takes the room, nothing further is begun."""
        self._small += size
        self._budget.count(size)

    def give_small(self, size: int) -> None:
        self._small -= size
        self._budget.give_room(size)

    def take_file(self, size: int) -> int:
        """A descriptor of a new file. Raises NoRoom."""
        while True:
            try:
                return self._budget.take_file(size)
            except NoRoom:
                if not self._end_one(lambda block: block.is_file) and not self.let_go():
                    raise

    def give_disk(self, size: int) -> None:
        self._budget.give_disk(size)

    def room(self, at: Instance, connection: int, size: int) -> tuple[Block, bool]:
        """A room that the attempt may write into, and whether it is new. It takes the place of one
        that came over this connection and of which no call was made. Raises NoRoom."""
        self.leave(at, connection)
        rounded = _rounded(size)
        theirs = (one.size for one in self._written.values() if one.swarm_id == at.swarm_id)
        being_written, most = sum(theirs), int(self._budget.most * SHARE)
        if being_written + rounded > most and rounded <= self._budget.most:
            raise NoRoom(
                f"Tasks of this swarm are writing {being_written / MIB:,.1f} MiB of arrays that "
                f"are to be reduced on this node, of at most {most / MIB:,.1f} MiB, and "
                f"{rounded / MIB:,.1f} MiB do not fit: reduce them one after the other, or give "
                "the node more (value_memory_mb)."
            )
        before = self._count
        block = self._take(rounded, at.swarm_id, at)
        block.written = block.size
        self._by_attempt.setdefault(at, {})[block.number] = block
        self._written[at, connection] = block
        block.given_at = self._clock()
        return block, self._count != before

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

    def forget(self, at: Instance) -> None:
        """The attempt is over. What it has mapped may be mapped for as long as its process is."""
        for key in [key for key in self._written if key[0] == at]:
            self.leave(*key)
        for block in self._by_attempt.pop(at, {}).values():
            block.is_fit = False
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
            is_its = block.swarm_id == swarm_id and block.room_of == at
            if is_its and size <= block.size <= size + size // 4:
                self._idle.remove(block)
                block.holds = 1
                return block
        self._make_way()
        if at is not None:
            return self._memory(size, swarm_id, at)
        if self._in_memory + size <= self._budget.most // 2:
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
        self._budget.take_room(size)
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
            self._budget.give_room(size)
            raise NoRoom(f"The node has no memory for a value of {size} bytes: {error}.") from error
        self._blocks[block.number] = block
        self._in_memory += size if at is None else 0
        return block

    def _file(self, size: int, swarm_id: str) -> Block:
        """Raises NoRoom."""
        fd = self.take_file(size)
        reader = -1
        try:
            reader = value_files.read_only(os.dup(fd))
            block = self._made(fd, size, swarm_id, is_file=True)
        except OSError as error:
            if reader >= 0:
                os.close(reader)
            self._budget.give_disk(size)
            raise NoRoom(f"The node can't map a value of {size} bytes: {error}.") from error
        finally:
            os.close(fd)
        block.fd = reader  # tasks are handed it
        self._blocks[block.number] = block
        return block

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

    def _make_way(self) -> None:
        """For one block more. Raises NoRoom."""
        most = descriptor_limit() // 4  # each has two, its own and that of its mapping
        while len(self._blocks) >= most:
            if not self._end_one(lambda _: True) and not self.let_go():
                raise NoRoom(
                    f"The node keeps {len(self._blocks):,} large values of collectives, of at most "
                    f"{most:,}, which take half of the files that it may have open: raise that "
                    "limit (ulimit -Hn, LimitNOFILE=), or end the iteration sooner."
                )

    def _end_one(self, which: Callable[[Block], bool]) -> bool:
        """Gives back one that nothing here uses; false if there is none."""
        for block in self._idle:
            if which(block):
                self._idle.remove(block)
                self._end(block)
                return True
        for block in self._lent.values():
            if which(block):
                del self._lent[block.number]
                self._end(block)
                return True
        return False

    def _end(self, block: Block) -> None:
        """Its pages are the system's again, as soon as nobody has them mapped."""
        if self._blocks.pop(block.number, None) is None:
            return  # it came to an end with the pool
        for at in list(block.lent):
            self._by_attempt.get(at, {}).pop(block.number, None)
        if block.room_of is not None:
            self._by_attempt.get(block.room_of, {}).pop(block.number, None)
        block.view = memoryview(b"")
        os.close(block.fd)
        self._in_memory -= block.size if block.room_of is None and not block.is_file else 0
        (self._budget.give_disk if block.is_file else self._budget.give_room)(block.size)

    def reclaim(self, wanted: Callable[[], bool]) -> None:
        """Gives memory back that nothing here uses, or others alone may need again, for as long as
        some is wanted."""
        while wanted():
            if self._end_one(lambda block: not block.is_file) or self.let_go():
                continue
            if not self._take_back():
                return

    def end_swarm(self, swarm_id: str) -> None:
        """It is over: none of its memory will be used again."""
        for block in [one for one in self._idle if one.swarm_id == swarm_id]:
            self._idle.remove(block)
            self._end(block)

    def _take_back(self) -> bool:
        """Of the oldest room that should have been written by now."""
        for key, block in self._written.items():
            if block.given_at + WRITING <= self._clock():
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


def _rounded(size: int) -> int:
    """Upwards, so that sizes that are nearly alike are alike: by an eighth at most."""
    step = max(_PAGE, 1 << max(0, (size - 1).bit_length() - 4))
    return max(step, -(-size // step) * step)
