"""The letters that one peer has received under one tag from one other, and who claimed them.

Theory of operation. A *channel* holds letters in the order in which they came, and claims in the
order in which they were made: the first claim without a letter gets the first letter without a
claim, so that never both are left. Claims of an attempt that failed are dropped, as are those
whose letter an attempt did not receive before it ended; their letters can be claimed again. The
k-th letter of a member is one letter, whichever attempt sent it: until it is claimed, its value
is that of the latest attempt.

A letter is *unread* until it is claimed, and *kept* until the attempt that claimed it has ended
in good order, since another attempt may have to be given it.

Each operation takes the same time however many letters there are.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

Value = TypeVar("Value")
Attempt = TypeVar("Attempt", bound=Hashable)


class Member(NamedTuple):
    """One of the instances that exchange, whichever of its attempts speaks."""

    task: str
    rank: int

    def __str__(self) -> str:
        return f"{self.task}.{self.rank}"


class Room(NamedTuple):
    """So many letters, with values of so many bytes together."""

    letters: int
    size: int


@dataclass
class Load:
    """How many letters lie somewhere, and the bytes of their values."""

    letters: int = 0
    size: int = 0

    def add(self, size: int, count: int = 1) -> None:
        self.letters += count
        self.size += count * size


@dataclass
class Box:
    """The unread letters of a peer: of all senders, and of each."""

    all: Load = field(default_factory=Load)
    of: dict[Member, Load] = field(default_factory=dict)

    def add(self, sender: Member, size: int, count: int) -> None:
        mine = self.of.setdefault(sender, Load())
        for load in (self.all, mine):
            load.add(size, count)
        if not mine.letters:
            del self.of[sender]


class Name(NamedTuple):
    """What identifies a letter among those of one channel."""

    era: int
    sender: Member
    serial: int


@dataclass
class Letter(Generic[Value]):
    name: Name
    value: Value
    size: int
    place: int


@dataclass(eq=False)
class _Claim(Generic[Value]):
    letter: Letter[Value] | None
    is_dropped: bool = False


class Channel(Generic[Attempt, Value]):
    """`box`, `source` and `kept` are told of what comes and goes: of all unread letters, of those
    from this channel's peer, and of all letters."""

    def __init__(self, box: Box, source: Load, kept: Load) -> None:
        self._box = box
        self._source = source
        self._kept = kept
        self._letters: dict[int, Letter[Value]] = {}
        """By their places, in order: all that are kept."""
        self._free: list[int] = []
        """A heap of the places of unread letters."""
        self._unread: dict[Name, Letter[Value]] = {}
        self._known: dict[tuple[int, Member], int] = {}
        """How many letters of each sender have come, by era."""
        self._claims: dict[Attempt, list[_Claim[Value]]] = {}
        self._waiting: deque[_Claim[Value]] = deque()
        """Claims without a letter; some may have been dropped since."""
        self._places = 0

    def received(self, name: Name, value: Value, size: int) -> Value | None:
        """Takes a letter in, or the value that a later attempt gave it, and returns the value that
        nobody will read: the former one, or the one that came too late."""
        who = name.era, name.sender
        if name.serial < self._known.get(who, 0):
            letter = self._unread.get(name)
            if letter is None:
                return value
            self._count(letter, -1)
            former, letter.value, letter.size = letter.value, value, size
            self._count(letter, 1)
            return former
        self._known[who] = name.serial + 1
        letter = Letter(name, value, size, self._places)
        self._places += 1
        self._letters[letter.place] = letter
        self._kept.add(size)
        if (claim := self._first_waiting()) is not None:
            claim.letter = letter
        else:
            self._lay_down(letter)
        return None

    def known(self) -> Iterator[tuple[int, Member, int, list[int]]]:
        """Of each stream of letters: its era and sender, how many have come, and the serials of
        those that are kept."""
        kept: dict[tuple[int, Member], list[int]] = {}
        for letter in self._letters.values():
            kept.setdefault(letter.name[:2], []).append(letter.name.serial)
        for (era, sender), count in self._known.items():
            yield era, sender, count, kept.get((era, sender), [])

    def claim(self, at: Attempt) -> None:
        claim: _Claim[Value] = _Claim(self._take_first() if self._free else None)
        self._claims.setdefault(at, []).append(claim)
        if claim.letter is None:
            self._waiting.append(claim)

    def claimed(self, at: Attempt, number: int) -> Letter[Value] | None:
        """The letter that this claim of the attempt was given, if it was."""
        mine = self._claims.get(at, ())
        return mine[number].letter if number < len(mine) else None

    def claims(self, at: Attempt) -> int:
        """How many claims the attempt has made."""
        return len(self._claims.get(at, ()))

    def give_back(self, at: Attempt, received: int) -> None:
        """Drops all but the first claims of the attempt."""
        mine = self._claims.get(at, [])
        dropped = mine[received:]
        del mine[received:]
        self._drop(dropped)

    def end_attempt(self, at: Attempt, *, counts: bool) -> list[Letter[Value]]:
        """If it counts, nobody else reads what it received, and this is returned."""
        mine = self._claims.pop(at, [])
        consumed = [claim.letter for claim in mine if counts and claim.letter is not None]
        for letter in consumed:
            self._forget(letter)
        self._drop([claim for claim in mine if claim.letter is None or not counts])
        return consumed

    def end_era(self) -> list[Letter[Value]]:
        """Forgets what was claimed, and returns it; what nobody claimed stays."""
        self._claims.clear()
        self._waiting.clear()
        unread = set(self._free)
        gone = [letter for place, letter in self._letters.items() if place not in unread]
        for letter in gone:
            self._forget(letter)
        return gone

    def forget(self, era: int) -> None:
        """Up to that era nothing will be sent again but what is here: the rest need not be told
        apart."""
        kept = {letter.name[:2] for letter in self._letters.values()}
        for who in [who for who in self._known if who[0] <= era and who not in kept]:
            del self._known[who]

    def unread(self) -> list[Letter[Value]]:
        return [self._letters[place] for place in sorted(self._free)]

    @property
    def is_empty(self) -> bool:
        """Whether nothing would be lost with it."""
        return not (self._letters or self._claims or self._known)

    def _forget(self, letter: Letter[Value]) -> None:
        del self._letters[letter.place]
        self._kept.add(letter.size, -1)

    def _drop(self, claims: list[_Claim[Value]]) -> None:
        for claim in claims:
            claim.is_dropped = True
            if claim.letter is not None:
                self._lay_down(claim.letter)
        while self._free and (waiting := self._first_waiting()) is not None:
            waiting.letter = self._take_first()

    def _first_waiting(self) -> _Claim[Value] | None:
        while self._waiting:
            claim = self._waiting.popleft()
            if not claim.is_dropped:
                return claim
        return None

    def _lay_down(self, letter: Letter[Value]) -> None:
        heapq.heappush(self._free, letter.place)
        self._unread[letter.name] = letter
        self._add_unread(letter, 1)

    def _take_first(self) -> Letter[Value]:
        letter = self._letters[heapq.heappop(self._free)]
        del self._unread[letter.name]
        self._add_unread(letter, -1)
        return letter

    def _count(self, letter: Letter[Value], count: int) -> None:
        self._add_unread(letter, count)
        self._kept.add(letter.size, count)

    def _add_unread(self, letter: Letter[Value], count: int) -> None:
        self._box.add(letter.name.sender, letter.size, count)
        self._source.add(letter.size, count)
