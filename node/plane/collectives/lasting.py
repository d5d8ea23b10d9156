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
waits for each call of this kind before it makes the next one. Once a plane is heard to have begun
anew, each that has outcomes to which finished members gave keeps them, unless a third one has them:
what one had left to the other is lost if both end before either hears of that, and not otherwise.
Nothing is kept once all other members have finished or were given up.

What comes back (`restored.py`) takes its place when the call is begun here: an outcome is given to
all, and what a member gave counts as given.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol

from manta.light.wire import INLINE_LIMIT
from manta.node.plane.collectives import placing, restored
from manta.node.plane.collectives.calls import Call
from manta.node.plane.collectives.kept import Calls
from manta.node.plane.collectives.lasting_records import (
    CHECK,
    Came,
    Failed,
    Gave,
    What,
    decode,
    encode,
)
from manta.node.plane.collectives.losses import has_finished
from manta.node.plane.collectives.memory import Pool
from manta.node.plane.collectives.messages import CallName
from manta.node.plane.collectives.pieces import Reading
from manta.node.plane.collectives.restored import Restored
from manta.node.plane.parcels import NoRoom, Parts
from manta.protocol.base import Instance
from manta.protocol.roster import Roster, RosterTask
from manta.roster import waits
from manta.transports.codec.decoders import MALFORMED
from manta.transports.collectives import messages
from manta.transports.collectives.calls import Kind
from manta.transports.collectives.refusal import NO_ROOM
from manta.transports.exchange.kept import Kept, KeptCall
from manta.transports.exchange.messages import Parcel

AT_ONCE = 1 << 20
"""Bytes that are copied at once."""

log = logging.getLogger("manta.node.plane")


class Outside(restored.Outside, Protocol):
    def file(self, swarm_id: str, size: int, parts: Parts) -> Parcel:
        """A value that becomes a file when what names it is kept. Raises NoRoom."""

    def keep(self, at: Instance, items: tuple[KeptCall, ...], then: Callable[[], object]) -> None:
        """Calls `then` when that outlives this process, as of an attempt that has ended."""


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


class Lasting:
    """Of one desk, whose calls these are."""

    def __init__(
        self,
        swarm_id: str,
        calls: Calls,
        pool: Pool,
        outside: Outside,
        read: Callable[[CallName], None],
    ) -> None:
        """`read`: see `Restored`."""
        self._swarm_id = swarm_id
        self._calls = calls
        self._outside = outside
        self.restored = Restored(swarm_id, pool, outside, read, self._is_lost)
        """What a plane before kept."""
        self._known: dict[CallName, tuple[int, int]] = {}
        """Calls of which what came is on disk, or on its way there: the rank and the stay of the
        member for whose end it was."""
        self._passed: dict[str, dict[tuple[int, str], int]] = {}
        """By node, era and task: the last call that a member on it was heard to make."""
        self._lacks_room = False
        self._ended: set[tuple[int, str, int]] = set()
        """By era, task and rank: members that have finished here."""
        self._seen: frozenset[tuple[int, str, int]] | None = None
        """Members that had finished when it was last looked at what no other plane may have; None
        while no plane has begun anew."""

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
        self._seen = frozenset()

    def _is_elsewhere(self, name: CallName) -> bool:
        task = name.era, name.task
        return any(passed.get(task, 0) > name.number for passed in self._passed.values())

    # --- an attempt has ended ---------------------------------------------------------------------

    def ends(self, at: Instance, roster: Roster, then: Callable[[], object]) -> Ending:
        self._ended.add((at.iteration, at.alias, at.index))
        return self._ending(at, list(self._records(at, roster)), then)

    def look(self, roster: Roster) -> None:
        """What came of calls to which members gave that have finished is kept, where this plane may
        be the only one that has it, as others have begun anew."""
        if self._seen is None:
            return
        finished = {one for one in self._ended if one[0] == roster.iteration}
        for alias, task in roster.tasks.items():
            ranks = [rank for rank in range(len(task.instances)) if has_finished(task, rank)]
            finished.update((roster.iteration, alias, rank) for rank in ranks)
        if self._seen == finished:
            return
        self._seen = frozenset(finished)
        for alias, task in roster.tasks.items():
            ranks = [rank for _, of, rank in finished if of == alias]
            if ranks and not set(ranks).issuperset(_open(task)):
                self._keep(roster, task, ranks)

    def _keep(self, roster: Roster, task: RosterTask, finished: Collection[int]) -> None:
        by_member: dict[int, list[_Record]] = {}
        stays = _stays(task)
        for call in self._calls.of_task(roster.iteration, task.alias):
            machine = call.meeting.machine
            here = [rank for rank in call.own if rank in machine.come and rank in stays]
            gave = any(rank in machine.come for rank in finished)
            if not (here and gave) or call.name in self._known:
                continue
            if (record := self._record(call, (here[0], stays[here[0]]), ())) is not None:
                by_member.setdefault(here[0], []).append(record)
        for rank, records in by_member.items():
            attempt = task.instances[rank].attempt
            at = Instance(self._swarm_id, task.alias, rank, roster.iteration, attempt)
            ending = self._ending(at, records, _nothing)
            self._outside.keep(at, ending.items, ending.kept)

    def _ending(self, at: Instance, records: list[_Record], then: Callable[[], object]) -> Ending:
        ending = Ending(then, records=records)
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
        if machine.has_failed and placing.is_hopeless(call):
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
        kernel = known.kernel
        how = ("", ()) if kernel is None else (kernel.op, kernel.leaves)
        gave = Gave(*member, known.entry, known.buffers, *how, known.nodes)
        return _Record(gave, readings)

    def _packed(self, records: Sequence[_Record]) -> Iterator[KeptCall]:
        """With the values of all in one file, unless they are small. Raises NoRoom, OSError."""
        size = sum(record.size for record in records)
        if size <= INLINE_LIMIT:
            for record in records:
                yield KeptCall(encode(record.what), b"".join(map(bytes, record.parts())))
            return
        value = self._outside.file(self._swarm_id, size, partial(_parts_of, records))
        at = 0
        for record in records:
            yield KeptCall(encode(record.what), value, at)
            at += record.size

    def _tell_lack(self, at: Instance, error: Exception) -> None:
        if not self._lacks_room:
            self._lacks_room = True
            log.warning(
                "What others may need of the collectives of %s is kept in memory alone: if the "
                "plane ends, they raise PeerLost. %s",
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
            what = decode(item.what)
        except MALFORMED as error:
            log.error("What was kept of a collective of %r is lost: %s.", kept.task, str(error))
            return
        name = CallName(kept.era, kept.task, what.number)
        self._calls.took_part(name)
        if isinstance(what, Failed) and what.error == NO_ROOM:
            self._calls.refused_before(name, what.sentence)
        else:
            self.restored.add(name, what, item, kept.number)
        if not isinstance(what, Gave):
            self._known[name] = what.rank, what.stay

    def _is_lost(self, name: CallName) -> None:
        """What was kept of it can't be read."""
        self._known.pop(name, None)

    def end_eras(self, now: int) -> None:
        """Those before this one are over."""
        self._known = {name: by for name, by in self._known.items() if name.era >= now}
        self.restored.end_eras(now)
        self._ended = {member for member in self._ended if member[0] >= now}
        self._seen = None
        for passed in self._passed.values():
            for task in [task for task in passed if task[0] < now]:
                del passed[task]


def _nothing() -> None:
    pass


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
