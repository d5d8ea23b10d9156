"""The calls that a desk knows: those that go on, and those that are kept for next attempts."""

from __future__ import annotations

import heapq
import logging
from collections import Counter
from typing import NamedTuple

from manta.node.plane.collectives.calls import Call
from manta.node.plane.collectives.meeting import Meeting
from manta.node.plane.collectives.messages import CallName, Places
from manta.node.plane.collectives.pieces import COST
from manta.node.plane.collectives.spare import Footprint, Size
from manta.node.plane.parcels import NoRoom

AHEAD = 1_000
"""Numbers that an instance may be ahead of the oldest call that goes on."""
FAR = 4 * AHEAD
"""Numbers ahead of it from which on no call is begun for what other nodes say. A call goes on at
the root's node until all have come to it, elsewhere until the root has got what it wants: so who
breaks no rule is ahead of who has not come by AHEAD, or by as much again of a root that is."""
FAILED = 2_000
"""Calls that failed or were refused, which are kept though there may be no room for them."""
LONGEST = 2_000
"""Characters of why a call was refused."""

log = logging.getLogger("manta.node.plane")


class Refused(NamedTuple):
    """What is kept of a call for which a node had no room."""

    places: Places
    """Those at which it was refused last."""
    why: str


class Calls:
    def __init__(self) -> None:
        self._open: dict[CallName, Call] = {}
        self._over: dict[CallName, Call] = {}
        """The oldest first."""
        self._by_meeting: dict[Meeting, Call] = {}
        self._numbers: dict[tuple[int, str], list[int]] = {}
        """By era and task: a heap with those that go on, and some that do no longer."""
        self._next: dict[tuple[int, str], int] = {}
        """By era and task: the number after all that are over."""
        self._failed: set[CallName] = set()
        self._refused: dict[CallName, Refused] = {}
        """Nothing else is known of these: there is always room for that, as FAILED bounds it."""
        self._open_of: dict[tuple[int, str], dict[CallName, Call]] = {}
        """By era and task: those that go on."""
        self._announced: Counter[str] = Counter()
        """By node: bytes that it said of those that no member here has made."""
        self._last: dict[tuple[int, str, int], int] = {}
        """By era, task and rank: the number of the last call that a member here made of those that
        are over."""
        self._in_memory: dict[CallName, Call] = {}
        """Those that are over and may have small values in memory, the oldest first."""
        self._giving: dict[CallName, Footprint] = {}
        """Those that are over and keep what members gave, and what that takes; the oldest first."""
        self.given = Footprint()
        """What that takes, of all."""
        self._stays = False
        """Did the disk take no small values when it was tried last?"""

    def add(self, call: Call) -> None:
        self._refused.pop(call.name, None)
        self._open[call.name] = call
        self._by_meeting[call.meeting] = call
        task = call.name.era, call.name.task
        self._open_of.setdefault(task, {})[call.name] = call
        heapq.heappush(self._numbers.setdefault(task, []), call.name.number)

    def replace(self, call: Call, new: Call) -> None:
        """It was begun anew."""
        had = {rank for rank in call.own if call.meeting.machine.has_delivered(rank)}
        new.had = (call.had | had).intersection(new.own)
        self._forget(call)
        self.add(new)

    def get(self, name: CallName) -> Call | None:
        return self._open.get(name) or self._over.get(name)

    def refused(self, name: CallName) -> Refused | None:
        """None of one that is known otherwise: it was begun anew since."""
        return self._refused.get(name)

    def of(self, meeting: Meeting) -> Call | None:
        """None if it is kept no longer."""
        return self._by_meeting.get(meeting)

    @property
    def open(self) -> list[Call]:
        return list(self._open.values())

    @property
    def all(self) -> list[Call]:
        return [*self._open.values(), *self._over.values()]

    @property
    def is_full(self) -> bool:
        """Have so many failed that no more are begun?"""
        return len(self._failed) + len(self._refused) >= FAILED

    def is_ahead(self, name: CallName, most: int) -> bool:
        """Is it more than that ahead of the oldest call of its task that goes on, or of the next
        one?"""
        task = name.era, name.task
        numbers = self._numbers.get(task, [])
        while numbers and CallName(name.era, name.task, numbers[0]) not in self._open:
            heapq.heappop(numbers)
        first = numbers[0] if numbers else self._next.get(task, 0)
        return name.number - first > most

    def announce(self, call: Call, node: str, size: int, most: int) -> bool:
        """A node says so much of a call. False if that makes more than `most` bytes of calls that
        go on and that no member here has made."""
        if call.is_over or call.is_joined:
            return True
        size += 0 if node in call.announced else COST
        if self._announced[node] + size > most:
            return False
        self._announced[node] += size
        call.announced[node] += size
        return True

    def joined(self, call: Call, rank: int = -1) -> None:
        """A member here makes it, or nobody is to any more."""
        call.is_joined = True
        call.had.discard(rank)
        for node, size in call.announced.items():
            self._announced[node] -= size
            if not self._announced[node]:
                del self._announced[node]
        call.announced.clear()

    def of_task(self, era: int, task: str) -> list[Call]:
        """All of a task."""
        return [call for call in self.all if (call.name.era, call.name.task) == (era, task)]

    def open_of(self, era: int, task: str) -> list[Call]:
        """Those of a task that go on."""
        return list(self._open_of.get((era, task), {}).values())

    def came(self, call: Call, rank: int) -> None:
        """A member here has made a call that is over."""
        member = call.name.era, call.name.task, rank
        self._last[member] = max(call.name.number, self._last.get(member, 0))

    def is_followed(self, name: CallName, rank: int) -> bool:
        """Has the member made a later call that is over?"""
        return self._last.get((name.era, name.task, rank), 0) > name.number

    def took_part(self, name: CallName) -> None:
        """A member here came to it, as a plane before knew."""
        task = name.era, name.task
        self._next[task] = max(self._next.get(task, 0), name.number)

    def lay_aside(self, call: Call) -> None:
        """It is over."""
        call.is_over = True
        call.told.clear()
        self._close(call)
        for rank in call.own:
            if rank in call.meeting.machine.come:
                self.came(call, rank)
        self._over[call.name] = self._in_memory[call.name] = call
        if any(given := call.meeting.given):
            self._giving[call.name] = given
            self.given = self.given.plus(given)
        if call.meeting.machine.has_failed:
            self._failed.add(call.name)
        task = call.name.era, call.name.task
        self._next[task] = max(self._next.get(task, 0), call.name.number + 1)

    def refuse(self, call: Call, why: str) -> None:
        """It is over, and has come to nothing for any member here."""
        self.remove(call)
        self._refused[call.name] = Refused(call.places, why[:LONGEST])

    def refused_before(self, name: CallName, why: str) -> None:
        """A plane before refused it, at places that nobody knows any more."""
        self._refused[name] = Refused(Places(0, b""), why[:LONGEST])

    def refused_of(self, era: int, task: str) -> dict[int, str]:
        """By number: why those of the task were refused."""
        names = [name for name in self._refused if (name.era, name.task) == (era, task)]
        return {name.number: self._refused[name].why for name in names}

    def small(self) -> int:
        """Bytes of small values of calls that are over, in memory."""
        found = 0
        for name, call in list(self._in_memory.items()):
            if call.meeting.arranging.goes_on:
                continue
            if not (size := call.meeting.small):
                del self._in_memory[name]
            found += size
        return found

    def spill_oldest(self) -> bool:
        """Moves small values of one that is over onto disk; false if there are none."""
        while True:
            idle = (one for one in self._in_memory.values() if not one.meeting.arranging.goes_on)
            if (call := next(idle, None)) is None:
                return False
            try:
                if call.meeting.spill():
                    self._stays = False
                    return True
            except NoRoom as error:
                if not self._stays:
                    log.warning("What came of collectives stays in memory: %s", error)
                self._stays = True
                return False
            self._in_memory.pop(call.name, None)

    def let_go_oldest(self, size: Size) -> bool:
        """Lets go of what members gave to one that is over, which others may need again, and which
        takes such room; false if nothing of that is kept."""
        while (
            name := next((one for one, it in self._giving.items() if size(it)), None)
        ) is not None:
            self._gives_no_longer(name)
            if self._over[name].meeting.let_go():
                return True
        return False

    def _gives_no_longer(self, name: CallName) -> None:
        if (given := self._giving.pop(name, None)) is not None:
            self.given = self.given.minus(given)

    def remove(self, call: Call) -> None:
        """It is of no use any more."""
        call.meeting.end()
        self._forget(call)

    def _close(self, call: Call) -> None:
        self.joined(call)
        if self._open.pop(call.name, None) is not None:
            task = call.name.era, call.name.task
            del self._open_of[task][call.name]
            if not self._open_of[task]:
                del self._open_of[task]

    def _forget(self, call: Call) -> None:
        self._close(call)
        self._in_memory.pop(call.name, None)
        self._gives_no_longer(call.name)
        self._over.pop(call.name, None)
        self._failed.discard(call.name)
        del self._by_meeting[call.meeting]

    def end_eras(self, now: int) -> None:
        """Those before this one are over, and their calls removed."""
        for counted in (self._numbers, self._next):
            for task in [task for task in counted if task[0] < now]:
                del counted[task]
        self._last = {member: number for member, number in self._last.items() if member[0] >= now}
        self._refused = {name: why for name, why in self._refused.items() if name.era >= now}
