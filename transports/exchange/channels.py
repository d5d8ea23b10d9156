"""The letters that one peer has received under one tag from one other, and who claimed them.

Theory of operation. A *channel* holds letters in the order in which they came, and claims in the
order in which they were made: the first claim without a letter gets the first letter without a
claim, so that never both are left. Claims of an attempt that failed are dropped, as are those
whose letter an attempt did not receive before it ended; their letters can be claimed again. The
k-th letter of a member is one letter, whichever attempt sent it: until it is claimed, its value
is that of the latest attempt.

A letter is *unread* until it is claimed, and *kept* until it is certain that the attempt that
claimed it counts, since another one may have to be given it. What an attempt has received that
ended before this process began is *reserved*: its sender sends it again, and it is then that
attempt's until it is certain whether it counts.

Each operation takes the same time however many letters there are.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Hashable, Iterable, Iterator
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


Sender = tuple[str, Member]
"""The peer that speaks, and for whom it says that it does."""


@dataclass
class Box:
    """The unread letters of a peer: of all senders, and of each."""

    all: Load = field(default_factory=Load)
    of: dict[Sender, Load] = field(default_factory=dict)

    def add(self, sender: Sender, size: int, count: int) -> None:
        mine = self.of.setdefault(sender, Load())
        for load in (self.all, mine):
            load.add(size, count)
        if not mine.letters:
            del self.of[sender]


@dataclass
class Source(Load):
    """The unread letters from one peer, and of how many streams letters are known."""

    peer: str = ""
    streams: int = 0


class Name(NamedTuple):
    """What identifies a letter among those of one channel."""

    era: int
    sender: Member
    serial: int


@dataclass
class Letter(Generic[Value]):
    name: Name
    value: Value | None
    """None while it has to come again: its sender lost what it was."""
    size: int
    place: int
    is_unread: bool = False
    is_fixed: bool = False
    """Its sender, here as well, has ended: no other gives it another value."""


@dataclass(eq=False)
class _Claim(Generic[Value]):
    letter: Letter[Value] | None
    is_dropped: bool = False
    reserved: Name | None = None
    """The letter that it is to be given alone."""

    @property
    def has_letter(self) -> bool:
        """Whether one is its own, here or on its way."""
        return self.letter is not None or self.reserved is not None


@dataclass
class _Stream:
    """Of the letters of one sender."""

    count: int = 0
    """So many have come, or were consumed before."""
    ahead: set[int] = field(default_factory=set)
    """Serials beyond of those that were consumed."""

    def has(self, serial: int) -> bool:
        return serial < self.count or serial in self.ahead

    def came(self, serial: int) -> None:
        if serial > self.count:  # those before it will not come
            self.ahead = {number for number in self.ahead if number > serial}
        self.count = max(self.count, serial + 1)
        self._advance()

    def consumed(self, serial: int) -> None:
        if serial >= self.count:
            self.ahead.add(serial)
            self._advance()

    def _advance(self) -> None:
        while self.count in self.ahead:
            self.ahead.remove(self.count)
            self.count += 1


class Channel(Generic[Attempt, Value]):
    """`box`, `source` and `kept` are told of what comes and goes: of all unread letters, of those
    from this channel's peer, and of all letters."""

    def __init__(self, box: Box, source: Source, kept: Load) -> None:
        self._box = box
        self._source = source
        self._kept = kept
        self._letters: dict[int, Letter[Value]] = {}
        """By their places, in order: all that are kept."""
        self._free: list[int] = []
        """A heap of the places of unread letters."""
        self._named: dict[Name, Letter[Value]] = {}
        """All that are kept."""
        self._reserved: dict[Name, _Claim[Value]] = {}
        """Claims whose letters were there before this process began, and are to come again."""
        self._streams: dict[tuple[int, Member], _Stream] = {}
        """By era and sender."""
        self._claims: dict[Attempt, list[_Claim[Value]]] = {}
        self._consumed: dict[Attempt, int] = {}
        """How many claims each has made before these, whose letters nobody will ask for."""
        self._waiting: deque[_Claim[Value]] = deque()
        """Claims without a letter; some may have been dropped since."""
        self._places = 0

    def received(self, name: Name, value: Value, size: int) -> Value | None:
        """Takes a letter in, or the value that a later attempt gave it, and returns the value that
        nobody will read: the former one; or this one, where the letter is fixed or nobody asks for
        it again."""
        stream = self._stream(name)
        if (letter := self._named.get(name)) is not None:
            if letter.is_fixed:
                return value
            self._count(letter, -1)
            former, letter.value, letter.size = letter.value, value, size
            self._count(letter, 1)
            return former
        claim = self._reserved.pop(name, None)
        if claim is None and stream.has(name.serial):
            return value
        stream.came(name.serial)
        letter = Letter(name, value, size, self._places)
        self._places += 1
        self._letters[letter.place] = self._named[name] = letter
        self._kept.add(size)
        claim = claim or self._first_waiting()
        if claim is not None:
            claim.letter = letter
        else:
            self._lay_down(letter)
        return None

    def is_kept(self, name: Name) -> bool:
        return name in self._named

    def value(self, name: Name) -> Value | None:
        """Of a letter that is kept."""
        letter = self._named.get(name)
        return None if letter is None else letter.value

    def fix(self, name: Name) -> None:
        """The attempt that sent it has ended, on this peer."""
        if (letter := self._named.get(name)) is not None:
            letter.is_fixed = True

    def knows(self, era: int, sender: Member) -> bool:
        """Whether letters of that sender may come again."""
        return (era, sender) in self._streams

    def known(self) -> Iterator[tuple[int, Member, int, list[int]]]:
        """Of each stream of letters: its era and sender, how many have come, up to the first whose
        value has to come again, and the serials of those that are kept."""
        kept: dict[tuple[int, Member], list[int]] = {}
        counts = {who: stream.count for who, stream in self._streams.items()}
        for name, letter in self._named.items():
            who = name.era, name.sender
            kept.setdefault(who, []).append(name.serial)
            if letter.value is None:
                counts[who] = min(counts[who], name.serial)
        for (era, sender), count in counts.items():
            yield era, sender, count, kept.get((era, sender), [])

    def lose(self, value: Value) -> bool:
        """The letters with that value have to come again; whether there are any."""
        lost = [letter for letter in self._letters.values() if letter.value == value]
        for letter in lost:
            letter.value = None
        return bool(lost)

    def claim(self, at: Attempt) -> Letter[Value] | None:
        """Returns the letter that it is given at once, if there is one."""
        claim: _Claim[Value] = _Claim(self._take_first() if self._free else None)
        self._claims.setdefault(at, []).append(claim)
        if claim.letter is None:
            self._waiting.append(claim)
        return claim.letter

    def claimed(self, at: Attempt, number: int) -> Letter[Value] | None:
        """The letter that this claim of the attempt was given, if it was."""
        mine, place = self._claims.get(at, ()), number - self.consumed(at)
        return mine[place].letter if 0 <= place < len(mine) else None

    def claims(self, at: Attempt) -> int:
        """How many claims the attempt has made."""
        return self.consumed(at) + len(self._claims.get(at, ()))

    def consumed(self, at: Attempt) -> int:
        """Of how many, from its first on, `consume` was told."""
        return self._consumed.get(at, 0)

    def consume(self, at: Attempt, count: int) -> list[tuple[Name, Value | None]]:
        """The attempt has received the letters of its first claims, and no other is made in its
        place: returns them."""
        mine = self._claims.get(at, [])
        done = mine[: max(0, count - self.consumed(at))]
        del mine[: len(done)]
        self._consumed[at] = self.consumed(at) + len(done)
        return [self._consume(claim) for claim in done if claim.has_letter]

    def give_back(self, at: Attempt, received: int) -> None:
        """Drops all but the first claims of the attempt."""
        mine, first = self._claims.get(at, []), max(0, received - self.consumed(at))
        dropped = mine[first:]
        del mine[first:]
        self._drop(dropped)

    def end_attempt(self, at: Attempt) -> list[Name]:
        """What it has received, which stays its own until `settle`; its other claims are over."""
        mine = self._claims.pop(at, [])
        self._consumed.pop(at, None)
        self._drop([claim for claim in mine if claim.letter is None])
        if received := [claim for claim in mine if claim.letter is not None]:
            self._claims[at] = received
        return [claim.letter.name for claim in received if claim.letter is not None]

    def restore(self, at: Attempt, names: Iterable[Name]) -> None:
        """An attempt that has ended received these letters, whose values are not here. Who is
        named later had them from one that did not count."""
        mine = self._claims.setdefault(at, [])
        for name in names:
            if (former := self._reserved.get(name)) is not None:
                former.reserved = None
            claim: _Claim[Value] = _Claim(None, reserved=name)
            self._reserved[name] = claim
            self._stream(name)
            mine.append(claim)

    def settle(self, at: Attempt, *, counts: bool) -> list[tuple[Name, Value | None]]:
        """If the attempt counts, nobody else is given what it received: returns the letters, with
        the values that were here."""
        mine = self._claims.pop(at, [])
        self._consumed.pop(at, None)
        gone = [self._consume(claim) for claim in mine if counts and claim.has_letter]
        self._drop([claim for claim in mine if not (counts and claim.has_letter)])
        return gone

    def values(self) -> list[Value]:
        """Of all letters that are kept."""
        return [one.value for one in self._letters.values() if one.value is not None]

    def _consume(self, claim: _Claim[Value]) -> tuple[Name, Value | None]:
        letter = claim.letter
        if letter is not None:
            self._forget(letter)
            self._streams[letter.name[:2]].consumed(letter.name.serial)
            return letter.name, letter.value
        name = claim.reserved
        assert name is not None
        del self._reserved[name]
        self._streams[name[:2]].consumed(name.serial)
        return name, None

    def forget(self, era: int) -> None:
        """Up to that era nothing will be sent again but what is here: the rest need not be told
        apart."""
        kept = {name[:2] for name in (*self._named, *self._reserved)}
        for who in [who for who in self._streams if who[0] <= era and who not in kept]:
            del self._streams[who]
            self._source.streams -= 1

    @property
    def is_empty(self) -> bool:
        """Whether nothing would be lost with it."""
        return not (self._letters or self._claims or self._streams)

    def _stream(self, name: Name) -> _Stream:
        found = self._streams.get(name[:2])
        if found is None:
            found = self._streams[name[:2]] = _Stream()
            self._source.streams += 1
        return found

    def _forget(self, letter: Letter[Value]) -> None:
        del self._letters[letter.place], self._named[letter.name]
        self._kept.add(letter.size, -1)

    def _drop(self, claims: list[_Claim[Value]]) -> None:
        for claim in claims:
            claim.is_dropped = True
            if claim.letter is None and claim.reserved is not None:
                del self._reserved[claim.reserved]
            elif claim.letter is not None:
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
        letter.is_unread = True
        self._add_unread(letter, 1)

    def _take_first(self) -> Letter[Value]:
        letter = self._letters[heapq.heappop(self._free)]
        letter.is_unread = False
        self._add_unread(letter, -1)
        return letter

    def _count(self, letter: Letter[Value], count: int) -> None:
        if letter.is_unread:
            self._add_unread(letter, count)
        self._kept.add(letter.size, count)

    def _add_unread(self, letter: Letter[Value], count: int) -> None:
        self._box.add((self._source.peer, letter.name.sender), letter.size, count)
        self._source.add(letter.size, count)
