"""What of a swarm's collectives outlives the plane, and comes back with the next one.

An attempt that has ended in good order gives nothing again. So when it ends, what others may yet
need of this plane because of it is to be on disk before anybody is told of the end, as its letters
are (output commit: Strom and Yemini 1985). Of each call that it took part in that is

| the call | what is kept |
|---|---|
| failed, or was refused, however often it is begun | the error |
| has an outcome here that is the same for all | that, once for all members here |
| else | what the member gave, if it gave anything that some who may run again are to get |

An outcome that another plane has need not be kept, as that plane gives it to all. It has it if one
of its members was heard to call a later collective, and its process is still the same: a member
waits for each call of this kind before it makes the next one. Nothing is kept once all other
members have finished or were given up.

What comes back takes its place when the call is begun here: an outcome is given to all, and what a
member gave counts as given.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, Protocol

import msgspec

from manta.light.wire import INLINE_LIMIT
from manta.node.plane.collectives import pieces as sizes
from manta.node.plane.collectives.calls import Call
from manta.node.plane.collectives.given import Given
from manta.node.plane.collectives.kept import Calls
from manta.node.plane.collectives.meeting import Meeting
from manta.node.plane.collectives.memory import Pool
from manta.node.plane.collectives.messages import CallName
from manta.node.plane.collectives.pieces import Piece, Reading
from manta.node.plane.parcels import NoRoom, Parts
from manta.node.reduction.kernel import Kernel, Leaf
from manta.protocol.base import Instance
from manta.protocol.roster import Roster, RosterTask
from manta.protocol.states import AttemptState
from manta.roster import waits
from manta.transports.collectives import calls, messages
from manta.transports.collectives.actions import Outcome
from manta.transports.collectives.calls import Entry, Kind, Placement
from manta.transports.collectives.holder import Holder
from manta.transports.collectives.plans import Buffer
from manta.transports.collectives.refusal import NO_ROOM
from manta.transports.exchange.kept import Kept, KeptCall
from manta.transports.exchange.messages import Parcel, Value

AT_ONCE = 1 << 20
"""Bytes that are copied at once."""
CHECK = 4
"""Bytes of the CRC-32 that follows values."""

log = logging.getLogger("manta.node.plane")


class Outside(Protocol):
    def file(self, swarm_id: str, size: int, parts: Parts) -> Parcel:
        """A value that becomes a file when what names it is kept. Raises NoRoom."""

    def read(self, value: Value, into: memoryview, at: int) -> None:
        """Bytes of a value that was kept, from `at` on. Raises OSError."""


# What is written. Buffers say what the values are that follow each other.


class _OfMember(msgspec.Struct, frozen=True, array_like=True):
    """Written when this member's attempt ended: it counts for as long as the member stays, and what
    came of a call that needs all for as long as the attempt counts."""

    number: int
    rank: int
    stay: int


class Gave(_OfMember, frozen=True, tag=1):
    """A member's contribution; `op` and `leaves` make its kernel."""

    entry: Entry
    buffers: tuple[Buffer, ...]
    op: str = ""
    leaves: tuple[Leaf, ...] = ()


class Came(_OfMember, frozen=True, tag=2):
    """What all members get."""

    call: calls.Call
    done: messages.Done
    outcome: Outcome
    entries: dict[int, Entry]

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        return self.outcome.buffers


class Failed(_OfMember, frozen=True, tag=3):
    error: str
    sentence: str
    buffers: tuple[Buffer, ...] = ()


What = Gave | Came | Failed

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(What).decode


class _Found(NamedTuple):
    what: What
    item: KeptCall
    attempt: int
    """Whose end it was."""

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


class _Record(NamedTuple):
    what: What
    readings: Sequence[Reading] = ()

    @property
    def size(self) -> int:
        """Bytes of its values."""
        size = sum(buffer.size for buffer in self.what.buffers)
        return size + CHECK if size else 0

    def parts(self) -> Iterator[memoryview | bytes]:
        """The values, each part to be used before the next one. Raises OSError."""
        check, copied = 0, memoryview(bytearray(min(self.size, AT_ONCE)))
        for buffer, reading in zip(self.what.buffers, self.readings, strict=True):
            for at in range(0, buffer.size, AT_ONCE):
                part = copied[: min(AT_ONCE, buffer.size - at)]
                reading.read(part, at)
                check = zlib.crc32(part, check)
                yield part
        if self.size:
            yield check.to_bytes(CHECK, "little")


@dataclass
class Ending:
    """What is to be kept of an attempt's calls."""

    then: Callable[[], object]
    items: tuple[KeptCall, ...] = ()
    records: Sequence[_Record] = ()

    def kept(self) -> None:
        """It is on disk."""
        for record in self.records:
            for reading in record.readings:
                reading.end()
        self.then()


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

    def begin(self, meeting: Meeting) -> None:
        """The meeting goes on with it."""
        if self.failure is not None:
            meeting.abort(*self.failure)
        meeting.begin(self.given, self.values)


class Lasting:
    """Of one desk, whose calls these are."""

    def __init__(self, swarm_id: str, calls: Calls, pool: Pool, outside: Outside) -> None:
        self._swarm_id = swarm_id
        self._calls = calls
        self._pool = pool
        self._outside = outside
        self._known: dict[CallName, tuple[int, int]] = {}
        """Calls of which what came is on disk, or on its way there: the rank and the stay of the
        member for whose end it was."""
        self._found: dict[CallName, list[_Found]] = {}
        """What a plane before kept."""
        self._passed: dict[str, dict[tuple[int, str], int]] = {}
        """By node, era and task: the last call that a member on it was heard to make."""
        self._lacks_room = False

    # --- what others have -------------------------------------------------------------------------

    def heard(self, node: str, call: Call, message: messages.Message) -> None:
        """A node has said this of a call."""
        peer = call.peers[node]
        match message:
            case messages.Announcement(source, members) if members and source == peer:
                pass
            case messages.Relayed(_, told) if any(one.peer == peer and one.members for one in told):
                pass
            case messages.Probe():
                pass
            case _:
                return
        passed, task = self._passed.setdefault(node, {}), (call.name.era, call.name.task)
        passed[task] = max(call.name.number, passed.get(task, 0))

    def forgot(self, node: str) -> None:
        """What it had may be gone."""
        self._passed.pop(node, None)

    def _is_elsewhere(self, name: CallName) -> bool:
        task = name.era, name.task
        return any(passed.get(task, 0) > name.number for passed in self._passed.values())

    # --- an attempt has ended ---------------------------------------------------------------------

    def ends(self, at: Instance, roster: Roster, then: Callable[[], object]) -> Ending:
        ending = Ending(then, records=list(self._records(at, roster)))
        try:
            ending.items = tuple(self._packed(ending.records))
        except (NoRoom, OSError) as error:  # what others may need of it is here for all that
            self._tell_lack(at, error)
            return ending
        self._lacks_room = False
        for what in (record.what for record in ending.records):
            if not isinstance(what, Gave):
                name = CallName(at.iteration, at.alias, what.number)
                self._known[name] = what.rank, what.stay
        return ending

    def _records(self, at: Instance, roster: Roster) -> Iterator[_Record]:
        task = roster.tasks.get(at.alias)
        if task is None or roster.iteration != at.iteration:
            return
        others = {rank for rank in _open(task) if rank != at.index}
        stays = _stays(task)
        known = {name for name, (rank, stay) in self._known.items() if stays.get(rank) == stay}
        member = at.index, stays.get(at.index, 0)
        refused = self._calls.refused_of(at.iteration, at.alias) if others else {}
        for number, why in refused.items():
            if CallName(at.iteration, at.alias, number) not in known:
                yield _Record(Failed(number, *member, NO_ROOM, why))
        for call in self._calls.of_task(at.iteration, at.alias) if others else ():
            has_come = at.index in call.own and at.index in call.meeting.machine.come
            if not has_come or call.name in known:
                continue
            if (record := self._record(call, member, others)) is not None:
                yield record

    def _record(self, call: Call, by: tuple[int, int], others: Collection[int]) -> _Record | None:
        meeting, machine = call.meeting, call.meeting.machine
        member, rank = (call.name.number, *by), by[0]
        if machine.has_failed and machine.failure[0] == "CollectiveError":
            return _Record(Failed(*member, *machine.failure))
        if (holder := machine.holder(meeting.placement, call.me)) is not None:
            if self._is_elsewhere(call.name):
                return None
            outcome = holder.outcome
            came = Came(*member, holder.call, holder.done, outcome, holder.entries)
            return _Record(came, meeting.readings(outcome.buffers))
        if not _serves(call, rank, others) or (found := meeting.giving.reading(rank)) is None:
            return None
        known, readings = found
        gave = Gave(*member, known.entry, known.buffers)
        if (kernel := known.kernel) is not None:
            gave = Gave(*member, known.entry, known.buffers, kernel.op, kernel.leaves)
        return _Record(gave, readings)

    def _packed(self, records: Sequence[_Record]) -> Iterator[KeptCall]:
        """With the values of all in one file, unless they are small. Raises NoRoom, OSError."""
        size = sum(record.size for record in records)
        if size <= INLINE_LIMIT:
            for record in records:
                yield KeptCall(_encode(record.what), b"".join(map(bytes, record.parts())))
            return
        value = self._outside.file(self._swarm_id, size, partial(_parts_of, records))
        at = 0
        for record in records:
            yield KeptCall(_encode(record.what), value, at)
            at += record.size

    def _tell_lack(self, at: Instance, error: Exception) -> None:
        if not self._lacks_room:
            self._lacks_room = True
            log.warning(
                "What others may need of the collectives of %s, which has ended, is kept in memory "
                "alone: if the plane ends, they raise PeerLost. %s",
                *(at, str(error)),
            )

    # --- what was kept ----------------------------------------------------------------------------

    def restore(self, kept: Iterable[Kept]) -> None:
        """What a plane before kept of attempts."""
        for one in kept:
            for item in one.items:
                if isinstance(item, KeptCall):
                    self._restore(one, item)

    def _restore(self, kept: Kept, item: KeptCall) -> None:
        try:
            what: What = _decode(item.what)
        except msgspec.MsgspecError as error:
            log.error("What was kept of a collective of %r is lost: %s.", kept.task, str(error))
            return
        name = CallName(kept.era, kept.task, what.number)
        self._calls.took_part(name)
        if isinstance(what, Failed) and what.error == NO_ROOM:
            self._calls.refused_before(name, what.sentence)
        else:
            self._found.setdefault(name, []).append(_Found(what, item, kept.number))
        if not isinstance(what, Gave):
            self._known[name] = what.rank, what.stay

    def found(self, name: CallName, task: RosterTask, placement: Placement, me: int) -> Found:
        """Of a call that is begun at this placement."""
        found = Found()
        for one in self._found.get(name, ()):
            if not one.counts(task):  # others may have gone on without it
                continue
            try:
                self._add(found, one.what, one.item, placement, me)
            except NoRoom as error:
                found.failure = NO_ROOM, str(error)
            except OSError as error:
                lost = f"collective {name.number} of {name.task!r}"
                log.error("What was kept of %s is lost: %s.", lost, str(error))
                self._known.pop(name, None)
        return found

    def _add(self, found: Found, what: What, item: KeptCall, placement: Placement, me: int) -> None:
        """Raises NoRoom, OSError."""
        match what:
            case Failed(error=error, sentence=sentence):
                found.failure = error, sentence
            case Came():
                found.values = self._values(what, item)
                found.came = what
            case Gave(rank=rank, entry=entry) if rank in placement.ranks[me]:
                if rank not in found.given:
                    kernel = Kernel(what.op, what.leaves, placement.size) if what.op else None
                    found.given[rank] = Given(entry, self._values(what, item), kernel)

    def _values(self, what: What, item: KeptCall) -> dict[Buffer, Piece]:
        """Raises NoRoom, OSError."""
        values, at, check = dict[Buffer, Piece](), item.at, 0
        try:
            for buffer in what.buffers:
                piece = values[buffer] = self._made(buffer.size)
                self._outside.read(item.value, piece.view, at)
                check, at = zlib.crc32(piece.view, check), at + buffer.size
            if at > item.at:
                found = memoryview(bytearray(CHECK))
                self._outside.read(item.value, found, at)
                if found != check.to_bytes(CHECK, "little"):
                    raise OSError(5, "its checksum is another than that of its values")
        except (NoRoom, OSError):
            for piece in values.values():
                if piece.block is not None:
                    self._pool.drop(piece.block)
            raise
        return values

    def _made(self, size: int) -> Piece:
        """Raises NoRoom."""
        if size <= sizes.INLINE:
            return Piece(memoryview(bytearray(size)))
        block = self._pool.take(size, self._swarm_id)
        return Piece(block.view[:size], block)

    def lost(self) -> None:
        """Others have gone on without this plane: they may have come to something else."""
        self._found = {
            name: [one for one in found if one.stands or not isinstance(one.what, Came)]
            for name, found in self._found.items()
        }

    def end_eras(self, now: int) -> None:
        """Those before this one are over."""
        self._known = {name: by for name, by in self._known.items() if name.era >= now}
        self._found = {name: kept for name, kept in self._found.items() if name.era >= now}
        for passed in self._passed.values():
            for task in [task for task in passed if task[0] < now]:
                del passed[task]


def _open(task: RosterTask) -> list[int]:
    """The ranks whose instances may yet run."""
    there = [rank for rank, one in enumerate(task.instances) if waits.is_open(one)]
    return [*there, *range(len(task.instances), task.size)]


def _stays(task: RosterTask) -> dict[int, int]:
    return {one.rank: one.stay for one in task.instances}


def _serves(call: Call, rank: int, others: Collection[int]) -> bool:
    """May one of these others need what the member gave of this plane, should it forget it?"""
    machine = call.meeting.machine
    if machine.call is None:
        return False
    kind, root = machine.call.kind, machine.call.root
    takers = set(others)
    if kind is Kind.GATHER:
        takers &= {root}
    elif kind is Kind.SCATTER and rank != root:
        return False
    if call.is_over and not machine.has_failed:  # on other planes they have got it
        takers.intersection_update(call.own)
    return bool(takers)


def _parts_of(records: Iterable[_Record]) -> Iterator[memoryview | bytes]:
    for record in records:
        yield from record.parts()
