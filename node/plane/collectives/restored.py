"""What a plane before kept of a swarm's collectives, for calls that are begun here.

What lies in files is read on the disk's thread, before the call is begun: a disk that is slow, as
it may well be where all begin anew, holds up that call alone.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Protocol

from manta.node.plane.collectives import pieces as sizes
from manta.node.plane.collectives.calls import Call
from manta.node.plane.collectives.given import Given
from manta.node.plane.collectives.lasting_records import CHECK, Came, Failed, Gave, What
from manta.node.plane.collectives.memory import Pool
from manta.node.plane.collectives.messages import CallName
from manta.node.plane.collectives.pieces import Piece
from manta.node.plane.parcels import NoRoom
from manta.node.reduction.forms import Leaf
from manta.protocol.roster import RosterTask
from manta.protocol.states import AttemptState
from manta.transports.collectives.calls import Placement
from manta.transports.collectives.holder import Holder
from manta.transports.collectives.plans import Buffer
from manta.transports.collectives.refusal import NO_ROOM
from manta.transports.exchange.kept import KeptCall
from manta.transports.exchange.messages import Value

if TYPE_CHECKING:
    from manta.node.reduction.kernel import Kernel

Values = dict[Buffer, Piece]

log = logging.getLogger("manta.node.plane")


class Outside(Protocol):
    def read(self, value: Value, into: memoryview, at: int) -> None:
        """Bytes of a value that was kept, from `at` on. On any thread. Raises OSError."""

    def on_disk(self, job: Callable[[], None], then: Callable[[Exception | None], None]) -> None:
        """Has a job done that waits for the disk, on another thread; `then` on this one."""


@dataclass
class Found:
    """What was kept of a call that is begun."""

    came: Came | None = None
    values: Mapping[Buffer, Piece] = field(default_factory=dict)
    given: dict[int, Given] = field(default_factory=dict)
    failure: tuple[str, str] | None = None

    def holder(self, placement: Placement, me: int) -> Holder | None:
        """What gives the outcome to all, if it was kept."""
        if (came := self.came) is None:
            return None
        return Holder(placement, me, came.call, came.done, came.outcome, came.entries)

    def begin(self, call: Call) -> None:
        """The call goes on with it. Who gave has finished."""
        call.had.update(self.given)
        if self.failure is not None:
            call.meeting.abort(*self.failure)
        call.meeting.begin(self.given, self.values)


@dataclass(eq=False)
class _Kept:
    what: What
    item: KeptCall
    attempt: int
    """Whose end it was."""
    values: Values | None = None
    """Of one that was read."""
    is_reading: bool = False
    is_dropped: bool = False
    """It counts no more."""
    refusal: str = ""
    """Why there was no room for it when it was to be read, if so."""

    @property
    def stands(self) -> bool:
        """Can others have come to nothing else, whether this plane was lost or not?"""
        return isinstance(self.what, Came) and self.what.call.on_lost != "continue"

    def counts(self, task: RosterTask) -> bool:
        """Is it so that others would ask this plane for it, or that they can have nothing else?"""
        if self.what.rank >= len(task.instances):
            return False
        member = task.instances[self.what.rank]
        has_finished = (member.attempt, member.state) == (self.attempt, AttemptState.FINISHED)
        return member.stay == self.what.stay or (self.stands and has_finished)


class Restored:
    """Of one desk. `read` is told of each call of which something has been read, `lost` of each of
    which something can't be."""

    def __init__(
        self,
        swarm_id: str,
        pool: Pool,
        outside: Outside,
        read: Callable[[CallName], None],
        lost: Callable[[CallName], None],
    ) -> None:
        self._swarm_id = swarm_id
        self._pool = pool
        self._outside = outside
        self._has_read = read
        self._is_lost = lost
        self._kept: dict[CallName, list[_Kept]] = {}

    def add(self, name: CallName, what: What, item: KeptCall, attempt: int) -> None:
        self._kept.setdefault(name, []).append(_Kept(what, item, attempt))

    def is_reading(self, name: CallName) -> bool:
        return any(one.is_reading for one in self._kept.get(name, ()))

    def is_here(self, name: CallName, task: RosterTask, placement: Placement, me: int) -> bool:
        """Is all in memory that there is of a call, to be begun at this placement? Else it is read,
        and `read` follows."""
        wanted = list(self._wanted(name, task, placement, me))
        for one in wanted:
            if one.values is None and not one.is_reading:
                self._read(name, one)
        return not any(one.is_reading for one in wanted)

    def take(self, name: CallName, task: RosterTask, placement: Placement, me: int) -> Found:
        """Of a call that is begun at this placement, once it `is_here`."""
        found = Found()
        for one in list(self._wanted(name, task, placement, me)):
            values, one.values = one.values, None
            if one.refusal:
                found.failure, one.refusal = (NO_ROOM, one.refusal), ""
                continue
            assert values is not None, "it is here"
            match one.what:
                case Failed(error=error, sentence=sentence):
                    found.failure = error, sentence
                case Came():
                    self._drop(found.values)
                    found.came, found.values = one.what, values
                case Gave(rank=rank, entry=entry, op=op, leaves=leaves, nodes=nodes):
                    if rank in found.given:
                        self._drop(values)
                    else:
                        kernel = _kernel(op, leaves, placement.size) if op else None
                        found.given[rank] = Given(entry, values, kernel, nodes=nodes)
        return found

    def _wanted(
        self, name: CallName, task: RosterTask, placement: Placement, me: int
    ) -> Iterator[_Kept]:
        for one in self._kept.get(name, ()):
            is_elsewhere = isinstance(one.what, Gave) and one.what.rank not in placement.ranks[me]
            if one.counts(task) and not is_elsewhere:  # else others may have gone on without it
                yield one

    def lost(self) -> None:
        """Others have gone on without this plane: they may have come to something else."""
        for name in list(self._kept):
            self._keep_only(name, lambda one: one.stands or not isinstance(one.what, Came))

    def end_eras(self, now: int) -> None:
        """Those before this one are over."""
        for name in [name for name in self._kept if name.era < now]:
            self._keep_only(name, lambda _: False)

    def close(self) -> None:
        for name in list(self._kept):
            self._keep_only(name, lambda _: False)

    def _keep_only(self, name: CallName, which: Callable[[_Kept], bool]) -> None:
        kept = self._kept.pop(name)
        for one in kept:
            if not which(one):
                one.is_dropped = True
                self._drop(one.values or {})
        if still := [one for one in kept if not one.is_dropped]:
            self._kept[name] = still

    # --- from disk --------------------------------------------------------------------------------

    def _read(self, name: CallName, one: _Kept) -> None:
        try:
            values = self._room_for(one.what.buffers)
        except NoRoom as error:
            one.values, one.refusal = {}, str(error)
            return
        job = partial(self._fill, values, one.item)
        if not values or isinstance(one.item.value, bytes):
            try:
                job()
            except OSError as error:
                self._was_read(name, one, values, error)
            else:
                one.values = values
            return
        one.is_reading = True
        self._outside.on_disk(job, partial(self._was_read_there, name, one, values))

    def _was_read_there(
        self, name: CallName, one: _Kept, values: Values, error: Exception | None
    ) -> None:
        one.is_reading = False
        self._was_read(name, one, values, error)
        self._has_read(name)

    def _was_read(
        self, name: CallName, one: _Kept, values: Values, error: Exception | None
    ) -> None:
        if one.is_dropped:
            self._drop(values)
        elif error is None:
            one.values = values
        else:
            self._drop(values)
            self._keep_only(name, lambda other: other is not one)
            lost = f"collective {name.number} of {name.task!r}"
            log.error("What was kept of %s is lost: %s.", lost, str(error))
            self._is_lost(name)

    def _room_for(self, buffers: Iterable[Buffer]) -> Values:
        """Raises NoRoom."""
        values = Values()
        try:
            for buffer in buffers:
                if buffer.size <= sizes.INLINE:
                    values[buffer] = Piece(memoryview(bytearray(buffer.size)))
                else:
                    block = self._pool.take(buffer.size, self._swarm_id)
                    values[buffer] = Piece(block.view[: buffer.size], block)
        except NoRoom:
            self._drop(values)
            raise
        return values

    def _fill(self, values: Values, item: KeptCall) -> None:
        """On any thread. Raises OSError."""
        at, check = item.at, 0
        for buffer, piece in values.items():
            self._outside.read(item.value, piece.view, at)
            check, at = zlib.crc32(piece.view, check), at + buffer.size
        if at > item.at:
            found = memoryview(bytearray(CHECK))
            self._outside.read(item.value, found, at)
            if found != check.to_bytes(CHECK, "little"):
                raise OSError(5, "its checksum is another than that of its values")

    def _drop(self, values: Mapping[Buffer, Piece]) -> None:
        for piece in values.values():
            if piece.block is not None:
                self._pool.drop(piece.block)


def _kernel(op: str, leaves: Sequence[Leaf], members: int) -> Kernel:
    from manta.node.reduction.kernel import Kernel  # numpy, which takes 0.1 s

    return Kernel(op, leaves, members)
