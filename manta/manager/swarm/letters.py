"""The letters that the instances of a swarm send to each other's nodes, and who may send more.

Theory of operation. A *channel* (node, node, tag) holds letters in the order in which they were
sent, and claims in the order in which they were made: the first claim without a letter gets the
first letter without a claim, so that never both are left. The claims of a failed attempt are
dropped, as are those whose letter an attempt did not receive before it ended; their letters can
be claimed again. The k-th letter of an instance is one letter, whichever attempt sent it: until
it is claimed, its value is that of the latest attempt.

A letter is *unread* until it is claimed, and *kept* until the attempt that claimed it has finished
or the iteration has ended, since another attempt may have to be given it. Nothing is refused here,
as what comes was said already. Before an instance sends, its node asks how much `room` there is,
and has the task wait for it:

| bound | of what | why |
|---|---|---|
| UNREAD | the unread letters to a node | one that does not receive must not fill the memory |
| RESERVE | those of one sender among them | others' letters must not shut it out |
| KEPT | all letters that the swarm keeps | a restart has to read them again |
| Most | its unread letters, and the bytes that it keeps | the quotas of the swarm's owner |
| LOGGED | all that its tasks ever said to each other | it stays in the event log |

Each operation takes the same time however many letters there are. A channel is there while it has
letters or claims. How many letters of an instance have come on each route is known until the
instance has finished or the iteration has ended: so long a retry may send them again.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from manta.protocol.base import Instance
from manta.protocol.values import INLINE_LIMIT, Inline, Payload


class Sender(NamedTuple):
    """An instance, whichever of its attempts sends."""

    iteration: int
    alias: str
    rank: int


class Route(NamedTuple):
    """From one node to another, by their ids, under a tag."""

    source: str
    to: str
    tag: str


class Room(NamedTuple):
    """So many letters, with values of so many bytes together.

    Values that are blobs count as letters alone: they are not in memory.
    """

    letters: int
    size: int


UNREAD = Room(10_000, 64 << 20)
RESERVE = Room(16, 1 << 20)
KEPT = Room(200_000, 256 << 20)
LOGGED = 8 << 30
"""Bytes, with ENVELOPE for each."""
ENVELOPE = 256
"""Bytes of what is said beside its value: addresses, and the claim of a letter."""
SHARE = Room(256, 4 << 20)
"""How much an attempt may send at most before it asks again."""


class Most(NamedTuple):
    """What the quotas leave a swarm: senders wait once it has so much. `share`: as SHARE, and less
    where many who send a share at once would be far beyond it."""

    letters: int
    size: int
    share: Room

    @classmethod
    def of(cls, letters: int, size: int, senders: int) -> Most:
        size = min(size, KEPT.size)
        each = 2 * max(1, senders)
        share = Room(
            max(1, min(SHARE.letters, letters // each)),
            min(SHARE.size, max(INLINE_LIMIT, size // each)),
        )
        return cls(letters, size, share)


def size_of(value: Payload | None) -> int:
    return len(value.data) if isinstance(value, Inline) else 0


@dataclass
class Load:
    """How many letters lie somewhere, and the bytes of their values."""

    letters: int = 0
    size: int = 0

    def add(self, value: Payload | None, count: int = 1) -> None:
        self.letters += count
        self.size += count * size_of(value)


@dataclass
class Box:
    """The unread letters to a node: of all, and of each sender by alias and rank. `total` is of all
    nodes together."""

    total: Load = field(default_factory=Load, compare=False)
    all: Load = field(default_factory=Load)
    of: dict[tuple[str, int], Load] = field(default_factory=dict)

    def add(self, letter: Letter, count: int) -> None:
        who = letter.sender.alias, letter.sender.rank
        mine = self.of.setdefault(who, Load())
        for load in (self.total, self.all, mine):
            load.add(letter.value, count)
        if not mine.letters:
            del self.of[who]


@dataclass
class Letter:
    sender: Sender
    serial: int
    value: Payload
    place: int


@dataclass(eq=False)
class Claim:
    number: int
    letter: Letter | None


class ChannelState(NamedTuple):
    """`claims`: who claimed, in order, and the index of the letter that was given, or -1."""

    letters: list[tuple[Sender, int, Payload]]
    claims: list[tuple[Instance, int]]


class Channel:
    """`box` and `kept` are told of what comes and goes."""

    def __init__(self, box: Box, kept: Load) -> None:
        self._box = box
        self._kept = kept
        self._letters: dict[int, Letter] = {}
        """By their places, in order: all that are kept."""
        self._free: list[int] = []
        """A heap of the places of unread letters."""
        self._unread: dict[tuple[Sender, int], Letter] = {}
        self._claims: dict[Instance, list[Claim]] = {}
        self._waiting: OrderedDict[int, Claim] = OrderedDict()
        """Claims without a letter, by number."""
        self._places = self._numbers = 0

    @property
    def is_empty(self) -> bool:
        return not self._letters and not self._claims

    @property
    def claims(self) -> int:
        return sum(map(len, self._claims.values()))

    def replace(self, sender: Sender, serial: int, value: Payload) -> None:
        """A later attempt sends it again."""
        letter = self._unread.get((sender, serial))
        if letter is not None:
            self._count(letter, -1)
            letter.value = value
            self._count(letter, 1)

    def send(self, sender: Sender, serial: int, value: Payload) -> None:
        letter = Letter(sender, serial, value, self._places)
        self._places += 1
        self._letters[letter.place] = letter
        self._kept.add(value)
        if self._waiting:
            self._first_waiting().letter = letter
        else:
            self._lay_down(letter)

    def claim(self, at: Instance) -> None:
        claim = Claim(self._numbers, self._take_first() if self._free else None)
        self._numbers += 1
        self._claims.setdefault(at, []).append(claim)
        if claim.letter is None:
            self._waiting[claim.number] = claim

    def claimed(self, at: Instance, number: int) -> Letter | None:
        """The letter that this claim of the attempt was given, if it was."""
        mine = self._claims.get(at, ())
        return mine[number].letter if number < len(mine) else None

    def give_back(self, at: Instance, received: int) -> bool:
        """Drops all but the first claims of the attempt; returns whether it has any left."""
        mine = self._claims.get(at, [])
        dropped = mine[received:]
        del mine[received:]
        if not mine:
            self._claims.pop(at, None)
        self._drop(dropped)
        return bool(mine)

    def end_attempt(self, at: Instance, *, counts: bool) -> None:
        """If it counts, nobody else reads what it received."""
        mine = self._claims.pop(at, [])
        for claim in mine if counts else ():
            if claim.letter is not None:
                del self._letters[claim.letter.place]
                self._kept.add(claim.letter.value, -1)
        self._drop([claim for claim in mine if claim.letter is None or not counts])

    def unread(self) -> list[Letter]:
        return [self._letters[place] for place in sorted(self._free)]

    def _drop(self, claims: list[Claim]) -> None:
        for claim in claims:
            self._waiting.pop(claim.number, None)
            if claim.letter is not None:
                self._lay_down(claim.letter)
        while self._free and self._waiting:
            self._first_waiting().letter = self._take_first()

    def _first_waiting(self) -> Claim:
        return self._waiting.popitem(last=False)[1]

    def _lay_down(self, letter: Letter) -> None:
        heapq.heappush(self._free, letter.place)
        self._unread[letter.sender, letter.serial] = letter
        self._box.add(letter, 1)

    def _take_first(self) -> Letter:
        letter = self._letters[heapq.heappop(self._free)]
        del self._unread[letter.sender, letter.serial]
        self._box.add(letter, -1)
        return letter

    def _count(self, letter: Letter, count: int) -> None:
        self._box.add(letter, count)
        self._kept.add(letter.value, count)

    @property
    def state(self) -> ChannelState:
        """All that decides what it does next."""
        letters = list(self._letters.values())
        index = {letter.place: number for number, letter in enumerate(letters)}
        claims = [(claim, at) for at, mine in self._claims.items() for claim in mine]
        claims.sort(key=lambda one: one[0].number)
        given = [(at, -1 if c.letter is None else index[c.letter.place]) for c, at in claims]
        told = [(letter.sender, letter.serial, letter.value) for letter in letters]
        return ChannelState(told, given)

    @classmethod
    def load(cls, state: ChannelState, box: Box, kept: Load) -> Channel:
        channel = cls(box, kept)
        letters = [Letter(*one, place) for place, one in enumerate(state.letters)]
        channel._letters = dict(enumerate(letters))
        channel._places = len(letters)
        taken = {place for _, place in state.claims if place >= 0}
        for letter in letters:
            kept.add(letter.value)
            if letter.place not in taken:
                channel._lay_down(letter)
        for number, (at, place) in enumerate(state.claims):
            claim = Claim(number, letters[place] if place >= 0 else None)
            channel._claims.setdefault(at, []).append(claim)
            if claim.letter is None:
                channel._waiting[number] = claim
        channel._numbers = len(state.claims)
        return channel

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Channel) and self.state == other.state

    __hash__ = None  # type: ignore[assignment]


@dataclass
class Post:
    """All channels of a swarm, and what lies in them."""

    channels: dict[Route, Channel] = field(default_factory=dict)
    sent: dict[Instance, dict[Route, int]] = field(default_factory=dict)
    """How many letters each live attempt has sent."""
    known: dict[Sender, dict[Route, int]] = field(default_factory=dict)
    """How many letters of each instance have come in this iteration, until it has finished."""
    logged: int = 0
    """Bytes of all that was ever said, to a node or to all."""
    kept: Load = field(default_factory=Load)
    unread: Load = field(default_factory=Load, compare=False)
    boxes: dict[str, Box] = field(default_factory=dict, compare=False)
    """By the node to which the letters go."""
    claiming: dict[Instance, set[Route]] = field(default_factory=dict, compare=False)
    """Where each attempt has claims."""

    def send(self, at: Instance, route: Route, value: Payload) -> None:
        self.log(value)
        sender = Sender(at.iteration, at.alias, at.index)
        mine, known = self.sent.setdefault(at, {}), self.known.setdefault(sender, {})
        serial = mine.get(route, 0)
        mine[route] = serial + 1
        if serial >= known.get(route, 0):
            known[route] = serial + 1
            self._channel(route).send(sender, serial, value)
        elif (channel := self.channels.get(route)) is not None:
            channel.replace(sender, serial, value)

    def log(self, value: Payload | None) -> None:
        self.logged += ENVELOPE + size_of(value)

    def claim(self, at: Instance, route: Route) -> None:
        self.claiming.setdefault(at, set()).add(route)
        self._channel(route).claim(at)

    def claimed(self, at: Instance, route: Route, number: int) -> Letter | None:
        channel = self.channels.get(route)
        return channel.claimed(at, number) if channel else None

    def give_back(self, at: Instance, route: Route, received: int) -> None:
        channel = self.channels.get(route)
        if channel is not None and not channel.give_back(at, received):
            claiming = self.claiming.get(at, set())
            claiming.discard(route)
            if not claiming:
                self.claiming.pop(at, None)
            self._tidy(route)

    def end_attempt(self, at: Instance, *, counts: bool) -> None:
        self.sent.pop(at, None)
        if counts:
            self.known.pop(Sender(at.iteration, at.alias, at.index), None)
        for route in sorted(self.claiming.pop(at, ())):
            self.channels[route].end_attempt(at, counts=counts)
            self._tidy(route)

    def _tidy(self, route: Route) -> None:
        if self.channels[route].is_empty:
            del self.channels[route]

    def end_iteration(self) -> None:
        """What nobody claimed outlives it."""
        left = [(route, channel.unread()) for route, channel in self.channels.items()]
        self.clear()
        for route, letters in left:
            if letters:
                told = [(letter.sender, letter.serial, letter.value) for letter in letters]
                self.load(route, ChannelState(told, []))

    def clear(self) -> None:
        self.channels.clear()
        self.sent.clear()
        self.known.clear()
        self.boxes.clear()
        self.claiming.clear()
        self.kept, self.unread = Load(), Load()

    def load(self, route: Route, state: ChannelState) -> None:
        """Puts a channel back."""
        self.channels[route] = Channel.load(state, self._box(route.to), self.kept)
        for at, _ in state.claims:
            self.claiming.setdefault(at, set()).add(route)

    def values(self) -> Iterator[Payload]:
        for channel in self.channels.values():
            yield from (value for _, _, value in channel.state.letters)

    def room(self, to: str, alias: str, rank: int, most: Most) -> Room:
        """How much this instance may send to the node now."""
        if self.logged >= LOGGED or self.is_full(most):
            return Room(0, 0)
        box = self.boxes.get(to, Box())
        mine = box.of.get((alias, rank), Load())
        letters = max(UNREAD.letters - box.all.letters, RESERVE.letters - mine.letters)
        size = max(UNREAD.size - box.all.size, RESERVE.size - mine.size)
        letters = min(letters, KEPT.letters - self.kept.letters, most.share.letters)
        return Room(max(0, letters), max(0, min(size, most.share.size)))

    def is_full(self, most: Most) -> bool:
        """Whether the swarm may have no more."""
        return self.unread.letters >= most.letters or self.kept.size >= most.size

    def _channel(self, route: Route) -> Channel:
        found = self.channels.get(route)
        if found is None:
            found = self.channels[route] = Channel(self._box(route.to), self.kept)
        return found

    def _box(self, to: str) -> Box:
        found = self.boxes.get(to)
        if found is None:
            found = self.boxes[to] = Box(self.unread)
        return found
