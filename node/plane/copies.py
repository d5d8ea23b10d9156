"""Copies of values that other nodes hold: memory or files of this node's, into which they come.

One that no task has asked for yet is fetched ahead as far as that takes little of the memory. One
that was given to whoever asked can be had again from its holder, so it gives way to others.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

from manta.node.plane import value_files
from manta.node.plane.shares import Cost, Spare, Whose
from manta.node.plane.value_room import NoRoom, ValueRoom
from manta.transports.exchange.letters import Remote
from manta.transports.sealed.in_file import InFile

FUTURE_WRITE = 0x10
"""F_SEAL_FUTURE_WRITE of Linux 5.1: the mapping that bulk wrote through may last a while."""
AHEAD_OF_PEER, AHEAD = 4, 2
"""Of the memory, and of all copies, those that no task has asked for yet take at most one part in
so many: of one node, and together. The others stay with their senders until they are asked for."""
_WRITTEN = FUTURE_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW

log = logging.getLogger("manta.node.plane")


class ValueGone(Exception):
    """Its holder has it no more: a later one has taken its place, or will."""

    def __init__(self) -> None:
        super().__init__("its sender has it no more")


class ValueLost(Exception):
    """It does not come; says why."""


class Stalled(ValueLost):
    """Nothing of it came for long, and no task waited for it."""


class NoPlace(Exception):
    """It comes, and there is nowhere to put it; says why."""


Then = Callable[[int, "Exception | None"], None]
"""Takes a descriptor, which stays the store's own, or -1 and why there is none."""


Place = Callable[[int], InFile | None]

Fetched = Callable[["Exception | None"], None]


class Carrier(Protocol):
    """What moves values from other nodes."""

    def fetch(
        self, swarm_id: str, remote: Remote, place: Place, done: Fetched, *, is_asked: bool
    ) -> None:
        """Calls `place` when it begins to come, on any thread, with a memfd that holds it or -1,
        for what to write it into, or None where the memfd is taken over; again if it breaks off.
        Calls `done` once, later: with nothing, ValueGone, ValueLost, or what `place` raised."""

    def asked(self, remote: Remote, is_asked: bool) -> None:
        """Whether tasks wait for it."""

    def give_up(self, remote: Remote) -> None:
        """Ends a fetch; `done` is called all the same."""

    def state(self, remote: Remote) -> str:
        """How far a fetch is, and what is in its way, as a part of a sentence."""


@dataclass(eq=False)
class Copy:
    """Of one remote value."""

    swarm_id: str
    remote: Remote
    in_memory: bool
    """Where its room is."""
    folder: Path
    is_ahead: bool
    """No task has asked for it yet."""
    fd: int = -1
    """Once it begins to come."""
    is_file: bool = False
    is_adopted: bool = False
    """It is memory of the other node's task, on this machine; nobody can change it."""
    is_whole: bool = False
    is_wanted: bool = True
    is_dropped: bool = False
    waiting: list[Then] = field(default_factory=list)

    @property
    def size(self) -> int:
        return self.remote.parcel.size

    def place(self, memfd: int) -> InFile | None:
        """Of Carrier.fetch; again if what began to come did not come whole. Raises NoPlace."""
        if not self.is_wanted:
            raise NoPlace("nobody asks for it any more")
        self.close()
        self.is_file = self.is_adopted = False
        try:
            if memfd >= 0 and os.fstat(memfd).st_size >= self.size:
                self.fd, self.is_adopted = os.dup(memfd), True
                return None
            self.fd = self._memory() if self.in_memory else self._file()
            return InFile(self.fd, self.size)
        except (OSError, ValueError, OverflowError) as error:
            raise NoPlace(f"there is no room for a value of {self.size} bytes: {error}") from error

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
        """It is whole: nobody changes it any more. Raises OSError."""
        if self.is_file:
            fd, self.fd = self.fd, -1
            self.fd = value_files.read_only(fd)
        elif not self.is_adopted:
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, _WRITTEN)
        self.is_whole = True

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


class Copies:
    def __init__(self, carrier: Carrier, room: ValueRoom, folder: Path) -> None:
        self._carrier = carrier
        self._room = room
        self._folder = folder
        self._all: dict[Remote, Copy] = {}
        self._given: dict[Remote, Copy] = {}
        """Those that all who asked were given; for the longest time first."""
        self._ahead: Counter[str] = Counter()
        self._ahead_count: Counter[str] = Counter()
        """By peer: bytes of copies that no task has asked for yet, and how many."""
        for part, in_memory in ((room.memory, True), (room.disk, False)):
            sizes, give_back = partial(self._given_in, in_memory), partial(self._drop_in, in_memory)
            part.offer(Cost.LITTLE, Spare(sizes, give_back))
        room.copies.offer(Cost.LITTLE, Spare(self._given_by_swarm, self._drop_given))

    def want(self, swarm_id: str, remote: Remote, then: Then | None = None) -> None:
        """Has `then` be called with a copy, at once if it is here. Without `then` no task waits for
        it yet: it is fetched ahead if there is room for that."""
        copy = self._all.get(remote)
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
            self._was_given(copy)
        else:
            copy.waiting.append(then)
            self._carrier.asked(remote, True)

    def forgo(self, remote: Remote, then: Then) -> None:
        """Who wanted it waits no longer."""
        copy = self._all.get(remote)
        if copy is not None and then in copy.waiting:
            copy.waiting.remove(then)
            if not copy.waiting:
                self._carrier.asked(remote, False)

    def state(self, remote: Remote) -> str:
        return self._carrier.state(remote)

    def release(self, remote: Remote) -> None:
        """Nobody asks for it any more."""
        copy = self._all.get(remote)
        if copy is None:
            return
        if copy.is_whole:
            self._drop(copy)
        elif copy.is_wanted:
            copy.is_wanted = False
            self._carrier.give_up(remote)

    def close(self) -> None:
        for copy in list(self._all.values()):
            self.release(copy.remote)
            self._drop(copy)  # nobody may be there any more to say that it has ended

    # --- what can be had again ----------------------------------------------------------------

    def _given_in(self, in_memory: bool) -> Counter[str]:
        """Their bytes, by swarm."""
        found = Counter[str]()
        for copy in self._given.values():
            found[copy.swarm_id] += copy.size if copy.in_memory == in_memory else 0
        return found

    def _drop_in(self, in_memory: bool, whose: Whose) -> bool:
        return self._drop_first(lambda copy: copy.in_memory == in_memory and whose(copy.swarm_id))

    def _given_by_swarm(self) -> Counter[str]:
        return Counter(copy.swarm_id for copy in self._given.values())

    def _drop_given(self, whose: Whose) -> bool:
        return self._drop_first(lambda copy: whose(copy.swarm_id))

    def _drop_first(self, which: Callable[[Copy], bool]) -> bool:
        """That was given for the longest time. False if there is none."""
        found = next(filter(which, self._given.values()), None)
        if found is not None:
            self._drop(found)
        return found is not None

    # --- inside -------------------------------------------------------------------------------

    def _begin(self, swarm_id: str, remote: Remote, *, is_ahead: bool) -> Copy:
        """Raises NoRoom."""
        size, room = remote.parcel.size, self._room
        if is_ahead and not self._may_come_ahead(swarm_id, remote):
            raise NoRoom("There is no room for what no task has asked for.")
        room.take_copy(swarm_id)
        in_memory = is_ahead or room.memory.make(swarm_id, size)
        if in_memory:
            room.memory.take(swarm_id, size)
        else:
            try:
                room.take_disk(swarm_id, size)
            except NoRoom:
                room.copies.give(swarm_id, 1)
                raise
        if is_ahead:
            self._ahead[remote.peer] += size
            self._ahead_count[remote.peer] += 1
        copy = self._all[remote] = Copy(swarm_id, remote, in_memory, self._folder, is_ahead)
        self._fetch(copy)
        return copy

    def _may_come_ahead(self, swarm_id: str, remote: Remote) -> bool:
        """Whoever told of it may not even have it: so nothing gives way to it."""
        room, peer = self._room, remote.peer
        for whole, ahead, one in (
            (room.memory, self._ahead, remote.parcel.size),
            (room.copies, self._ahead_count, 1),
        ):
            if (
                ahead[peer] + one > whole.most // AHEAD_OF_PEER
                or ahead.total() + one > whole.most // AHEAD
                or not whole.fits(swarm_id, one)
            ):
                return False
        return True

    def _is_asked(self, copy: Copy) -> None:
        """It is not ahead any more."""
        if copy.is_ahead:
            copy.is_ahead = False
            peer = copy.remote.peer
            self._ahead[peer] -= copy.size
            self._ahead_count[peer] -= 1
            if not self._ahead_count[peer]:
                del self._ahead[peer], self._ahead_count[peer]

    def _was_given(self, copy: Copy) -> None:
        self._given.pop(copy.remote, None)
        if not copy.is_dropped:
            self._given[copy.remote] = copy

    def _fetch(self, copy: Copy) -> None:
        done, is_asked = partial(self._came, copy), not copy.is_ahead
        self._carrier.fetch(copy.swarm_id, copy.remote, copy.place, done, is_asked=is_asked)

    def _came(self, copy: Copy, error: Exception | None) -> None:
        if isinstance(error, Stalled) and copy.waiting and copy.is_wanted:
            self._fetch(copy)  # a task asked for it in this moment
            return
        if not copy.is_wanted:
            error = ValueGone()
        elif error is None:
            error = _sealed(copy)
        if error is not None:
            self._drop(copy)
        waiting, copy.waiting = copy.waiting, []
        for then in waiting:
            then(copy.fd if error is None else -1, error)
        if waiting and error is None:
            self._was_given(copy)

    def _drop(self, copy: Copy) -> None:
        if copy.is_dropped:
            return
        copy.is_dropped = True
        self._all.pop(copy.remote, None)
        self._given.pop(copy.remote, None)
        self._is_asked(copy)
        copy.close()
        room = self._room.memory if copy.in_memory else self._room.disk
        room.give(copy.swarm_id, copy.size)
        self._room.copies.give(copy.swarm_id, 1)


def _sealed(copy: Copy) -> Exception | None:
    """Why it cannot be handed out."""
    try:
        copy.seal()
    except OSError as error:
        return ValueLost(
            f"the node's system does not protect it from changes ({error}): Linux 5.1 or later "
            "and /proc are needed"
        )
    return None
