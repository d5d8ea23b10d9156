"""What a listener bears of strangers: connections whose key nobody knows, or not yet. Pure.

    a connection is   it leaves that when
    arriving          a known key is proved: known; an unknown one: guest; or it is cut
    guest             its key enrols or signs in: known; or it is cut
    known             its key is forgotten: guest; nobody serves it any more: arriving; or it is
                      cut where descriptors run out

An arriving connection or a guest is cut when its time is over, and when too many others came
after it. A guest on whom this side has yet to decide has longer, unless too many come. Of those
that are too many, the oldest of the source with the most goes: whoever floods pushes out what is
its own, and the newest, which may prove a known key in a moment, stays. So known keys do not wait
behind strangers, not even behind those of their own address.

Where descriptors run out, strangers give way; and when there are none left, the user or node that
has most connections, with whatever keys, if it has several.

How many strangers a second may finish a handshake is decided by `Admission`.
"""

from __future__ import annotations

import math
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import NamedTuple

MINUTE = 60.0
_ANY = 1 << 62
_MAPPED = bytes(10) + b"\xff\xff"
"""How the IPv6 form of an IPv4 address begins."""


@dataclass(frozen=True)
class StrangerLimits:
    """Of one listener. Times in seconds, rates per second."""

    patience: float = 10.0  # until a guest has enrolled or signed in
    longest: float = 30.0  # until it goes though this side has yet to decide on it
    arriving: int = 2048  # connections at a time that have proved no key yet
    arriving_per_source: int = 1536
    guests: int = 256  # connections at a time whose key is not known
    guests_per_source: int = 64
    rate: float = 100.0  # of handshakes of unknown keys, after a first `burst`
    burst: float = 200.0
    rate_per_source: float = 20.0
    burst_per_source: float = 50.0
    sources: int = 4096  # that are told apart; the one that was quiet for longest is forgotten
    last_descriptor: int = 1 << 30  # beyond it, one stranger has to go for each that comes
    last_of_known: int = 1 << 30  # beyond it, one of a user or node that has several has to go

    def within(self, descriptors: int) -> StrangerLimits:
        """The same for one of three listeners of a process that may have so many descriptors.

        Strangers take a quarter of them at most, and leave the last eighth to who is known.
        """
        arriving, guests = max(16, descriptors // 16), max(8, descriptors // 64)
        return replace(
            self,
            arriving=min(self.arriving, arriving),
            arriving_per_source=min(self.arriving_per_source, arriving * 3 // 4),
            guests=min(self.guests, guests),
            guests_per_source=min(self.guests_per_source, guests * 3 // 4),
            last_descriptor=descriptors - descriptors // 8,
            last_of_known=descriptors - descriptors // 16,
        )


def source_of(address: str) -> str:
    """What counts as one source: an IPv4 address, or the /64 network of an IPv6 address."""
    if ":" not in address:
        return address[:64]
    try:
        packed = socket.inet_pton(socket.AF_INET6, address.partition("%")[0])
    except OSError:
        return address[:64]
    if packed.startswith(_MAPPED):
        return socket.inet_ntop(socket.AF_INET, packed[12:])
    return f"{socket.inet_ntop(socket.AF_INET6, packed[:8] + bytes(8))}/64"


class Fate(str, Enum):
    """What became of a stranger. The values are the names in the manager's folder and in JSON."""

    LATE = "late"
    UNFINISHED = "unfinished"
    CROWDED = "crowded"
    SURPLUS = "surplus"
    PUT_OFF = "put_off"


class Cut(NamedTuple):
    """A connection that has to go."""

    connection: int
    fate: Fate
    source: str  # of SURPLUS, whose it is


class _Waiting(NamedTuple):
    source: str
    since: float
    until: float


class _Room:
    """Connections in the order in which they came, so many in total and of one source."""

    def __init__(self, most: int, most_per_source: int) -> None:
        self._most = most
        self._most_per_source = most_per_source
        self._waiting: dict[int, _Waiting] = {}
        self._by_source: dict[str, dict[int, None]] = {}
        self._by_count: dict[int, dict[str, None]] = {}
        """The sources that have so many, so that none has to be looked for."""
        self._highest = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, connection: int) -> bool:
        return connection in self._waiting

    @property
    def connections(self) -> list[int]:
        return list(self._waiting)

    def enter(self, connection: int, waiting: _Waiting) -> list[Cut]:
        """Returns those that have to go for it."""
        self._waiting[connection] = waiting
        theirs = self._by_source.setdefault(waiting.source, {})
        theirs[connection] = None
        self._move(waiting.source, len(theirs) - 1, len(theirs))
        if len(theirs) > self._most_per_source:
            return [self._evict(waiting.source, Fate.CROWDED)]
        if len(self) > self._most:
            return self.evict(Fate.CROWDED)
        return []

    def evict(self, fate: Fate, *, least: int = 1) -> list[Cut]:
        """The oldest of the source with most, if that has at least so many."""
        if self._highest < least:
            return []
        return [self._evict(next(iter(self._by_count[self._highest])), fate)]

    def _evict(self, source: str, fate: Fate) -> Cut:
        oldest = next(iter(self._by_source[source]))
        self.leave(oldest)
        return Cut(oldest, fate, source)

    def leave(self, connection: int) -> _Waiting | None:
        waiting = self._waiting.pop(connection, None)
        if waiting is not None:
            theirs = self._by_source[waiting.source]
            del theirs[connection]
            self._move(waiting.source, len(theirs) + 1, len(theirs))
            if not theirs:
                del self._by_source[waiting.source]
        return waiting

    def _move(self, source: str, before: int, now: int) -> None:
        """A source has one more or one less."""
        if before:
            same = self._by_count[before]
            del same[source]
            if not same:
                del self._by_count[before]
        if now:
            self._by_count.setdefault(now, {})[source] = None
        if now > self._highest or (before == self._highest and before not in self._by_count):
            self._highest = now

    def hurry(self, connection: int, until: float) -> None:
        """It has no longer than until then."""
        waiting = self._waiting.get(connection)
        if waiting is not None and waiting.until > until:
            self._waiting[connection] = waiting._replace(until=until)

    def overdue(
        self, now: float, fate: Fate, spared: Callable[[int, _Waiting], bool] = lambda *_: False
    ) -> list[Cut]:
        waiting = self._waiting.items()
        over = [(one, of) for one, of in waiting if now > of.until]
        cut = [Cut(one, fate, of.source) for one, of in over if not spared(one, of)]
        for late in cut:
            self.leave(late.connection)
        return cut


class Strangers:
    """The connections of one listener, by number: a descriptor.

    `handshake`: seconds after which the library beneath ends a connection without a handshake;
    `hello`: seconds that are left to its first message then.
    """

    def __init__(self, limits: StrangerLimits, *, handshake: float, hello: float) -> None:
        self._limits = limits
        self._handshake = handshake
        self._hello = hello
        self._arrival = min(limits.patience, handshake + hello)
        self._arriving = _Room(limits.arriving, limits.arriving_per_source)
        self._guests = _Room(limits.guests, limits.guests_per_source)
        self._known = _Room(_ANY, _ANY)
        """Their source is the user or node whose they are."""
        self.in_use = 0
        """Descriptors of this process, where they may run out: the next one need not be higher,
        since those that were cut leave low ones."""

    def __len__(self) -> int:
        """How many strangers there are."""
        return len(self._arriving) + len(self._guests)

    def __contains__(self, connection: int) -> bool:
        """Is it a stranger's?"""
        return connection in self._arriving or connection in self._guests

    @property
    def arriving(self) -> list[int]:
        return self._arriving.connections

    @property
    def guests(self) -> list[int]:
        return self._guests.connections

    def accepted(self, connection: int, source: str, now: float) -> list[Cut]:
        """A connection came. Returns those that have to go for it."""
        self.gone(connection)  # the one before with this descriptor
        cut = self._arriving.enter(connection, _Waiting(source, now, now + self._arrival))
        reached = max(connection, self.in_use)
        if not cut and reached > self._limits.last_descriptor:
            if len(self) > 1:
                room = self._guests if len(self._arriving) == 1 else self._arriving
                cut = room.evict(Fate.CROWDED)
            elif reached > self._limits.last_of_known:
                cut = self._known.evict(Fate.SURPLUS, least=2)
        return cut

    def handshaken(self, connection: int, now: float) -> None:
        """Its handshake is over: what is left is the time to its first message."""
        self._arriving.hurry(connection, now + self._hello)

    def guest(self, connection: int, source: str, now: float) -> list[Cut]:
        """Its key is not known: that it was proved gives it no more time."""
        if connection in self._guests:
            return []
        self._known.leave(connection)
        arrived = self._arriving.leave(connection)
        if arrived is not None:
            source, now = arrived.source, arrived.since
        waiting = _Waiting(source, now, now + self._limits.patience)
        return self._guests.enter(connection, waiting)

    def known(self, connection: int, owner: str) -> None:
        """Its key is known, and this user's or node's."""
        if connection not in self._known:
            self.gone(connection)
            self._known.enter(connection, _Waiting(owner, 0.0, math.inf))

    def gone(self, connection: int) -> None:
        for room in (self._arriving, self._guests, self._known):
            room.leave(connection)

    def ended(self, connection: int, now: float) -> Cut | None:
        """It ended by itself. Returns what to count: the library below cuts some."""
        waiting = self._arriving.leave(connection)
        self.gone(connection)
        # The library counts from a moment that is a little later or earlier than ours.
        if waiting is None or now - waiting.since < 0.8 * self._handshake:
            return None
        return Cut(connection, Fate.UNFINISHED, waiting.source)

    def overdue(self, now: float, waits: Callable[[int], bool] = lambda guest: False) -> list[Cut]:
        """Those whose time is over. `waits(guest)`: this side has yet to decide on a guest."""

        def spared(guest: int, waiting: _Waiting) -> bool:
            return now <= waiting.since + self._limits.longest and waits(guest)

        return [
            *self._arriving.overdue(now, Fate.UNFINISHED),
            *self._guests.overdue(now, Fate.LATE, spared),
        ]


_SENTENCES = {
    Fate.LATE: "strangers cut, whose keys had not enrolled or signed in in time",
    Fate.UNFINISHED: "strangers cut, who did not finish a handshake and say a word in time",
    Fate.CROWDED: "strangers cut, after whom too many others came",
    Fate.SURPLUS: "connections cut, of who had most when descriptors ran out",
    Fate.PUT_OFF: "handshakes put off, since too many unknown keys came in a second",
}


class Tally:
    """Counts what became of strangers, and says it in sum. For any thread.

    However many there are, a sentence of each kind comes once a minute at most.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = dict.fromkeys(Fate, 0)
        self._said = dict.fromkeys(Fate, 0)
        self._said_at: dict[Fate, float] = {}
        self._last: dict[Fate, str] = {}

    def count(self, fate: Fate, source: str) -> None:
        with self._lock:
            self._counts[fate] += 1
            self._last[fate] = source

    def counts(self) -> dict[str, int]:
        with self._lock:
            return {fate.value: count for fate, count in self._counts.items()}

    def sentences(self, now: float) -> list[str]:
        """What is to be logged now."""
        said = []
        with self._lock:
            for fate, count in self._counts.items():
                new = count - self._said[fate]
                due = fate not in self._said_at or now - self._said_at[fate] >= MINUTE
                if new and due:
                    self._said[fate], self._said_at[fate] = count, now
                    whose = "of" if fate is Fate.SURPLUS else "from"
                    last = self._last[fate]
                    said.append(f"{_SENTENCES[fate]}: {new}, the last {whose} {last}")
        return said
