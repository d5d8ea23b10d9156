"""Work that is handed out to those that offer capacity for it. Pure.

Theory of operation. The contract net (Smith 1980): a *manager*, any peer, announces work of so many
units; each other answers with a bid, the units for which it has room; those that offer most are
awarded parts, until all is placed. A bidder keeps room for what it has offered for `HOLD` seconds,
and has the last word: it accepts an award or declines it. What is left is announced again, after
`PAUSE`; what nobody takes in `MOST_ROUNDS` rounds one after another, while no other part of the
work is being done, is given back as unplaced.

A part has a number that its manager uses once. An award is said again until it is answered, and now
and then until the part is done: a contractor that has lost it declines it then. When the contractor
is counted dead, its units are announced again and come to be parts of other numbers, so what a
living and a dead one have done of the same units is told apart, and only one is counted. When the
manager is counted dead, its contractors cancel what they do for it.

| part | leaves when |
|---|---|
| awarded | its contractor accepts it: accepted; declines it or is counted dead: announced again |
| accepted | it is done: counted; its contractor lost it or is counted dead: announced again |
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, NamedTuple

from msgspec import Meta, Struct

from manta.mesh.coordination.events import Joined, Left, Received, Send, Tick

BIDS = 1.0
"""Seconds that peers have to bid in a round."""
HOLD = 3.0
"""Seconds for which room is kept for what was offered."""
RETRY = 0.3
"""Seconds until what was not answered is said again."""
CHECK = 3.0
"""Seconds until an award that was accepted is said again."""
PAUSE = 1.0
"""Seconds between two rounds."""
MOST_ROUNDS = 10
MOST_WORKS = 100
"""That a manager has at a time."""
MOST_OFFERS = 1_000
"""For which a bidder keeps room at a time. It has none for more."""
MOST_UNITS = 1_000_000_000

_Units = Annotated[int, Meta(ge=0, le=MOST_UNITS)]
_Number = Annotated[int, Meta(ge=0, lt=1 << 62)]
_Name = Annotated[str, Meta(min_length=1, max_length=200)]


class Announce(Struct, frozen=True, tag="announce", array_like=True):
    """Bid for it."""

    work: _Name
    round: _Number
    units: _Units


class Bid(Struct, frozen=True, tag="bid", array_like=True):
    work: _Name
    round: _Number
    units: _Units
    """0 for none."""


class Award(Struct, frozen=True, tag="award", array_like=True):
    work: _Name
    part: _Number
    units: _Units


class Accept(Struct, frozen=True, tag="accept", array_like=True):
    part: _Number


class Decline(Struct, frozen=True, tag="decline", array_like=True):
    """There is no room for it any more, or it was lost."""

    part: _Number


class Done(Struct, frozen=True, tag="done", array_like=True):
    part: _Number


class Settled(Struct, frozen=True, tag="settled", array_like=True):
    """The manager knows that it is done, or does not want it any more."""

    part: _Number


Message = Announce | Bid | Award | Accept | Decline | Done | Settled


class Offered(NamedTuple):
    """This peer has work to hand out."""

    work: str
    units: int


class Completed(NamedTuple):
    """A part that was begun here is done."""

    manager: str
    part: int


Event = Joined | Left | Received[Message] | Offered | Completed | Tick


class Begin(NamedTuple):
    """Do so many units of a manager's work, and say `Completed`."""

    manager: str
    work: str
    part: int
    units: int


class Cancel(NamedTuple):
    """Nobody wants what was begun any more."""

    manager: str
    part: int


class Again(NamedTuple):
    """A contractor was lost with a part, which it may have done, wholly or in part."""

    work: str
    part: int
    units: int


class Ended(NamedTuple):
    """The work is over: so many of its units are done, and for others nobody had room."""

    work: str
    done: int
    unplaced: int


Action = Send[Message] | Begin | Cancel | Again | Ended


@dataclass
class _Part:
    """As its manager knows it."""

    work: str
    contractor: str
    units: int
    again: float
    """When the award is said again."""
    is_accepted: bool = False


@dataclass
class _Work:
    """As its manager knows it."""

    left: int
    """Units that are to be placed."""
    round: int = 0
    bids: dict[str, int] = field(default_factory=dict)
    until: float | None = None
    """When the round's time for bids is over; None between rounds."""
    again: float = 0.0
    """When it is announced again."""
    vain: int = 0
    """Rounds one after another in which nothing was placed, nor being done."""
    done: int = 0
    unplaced: int = 0


@dataclass
class _Held:
    """A part, as its contractor knows it."""

    units: int
    is_done: bool = False
    again: float = 0.0
    """When it is said again that it is done."""


class Negotiation:
    """Of one peer, which may be a manager and a contractor at the same time, but not its own."""

    def __init__(self, me: str, capacity: int) -> None:
        """`capacity` is in units, of all that it does at the same time. Raises ValueError."""
        if not 0 <= capacity <= MOST_UNITS:
            raise ValueError(f"The capacity is {capacity}: give 0 to {MOST_UNITS} units.")
        self.me = me
        self.capacity = capacity
        self.due: float | None = None
        """When it wants a Tick."""
        self._alive: set[str] = set()
        self._works: dict[str, _Work] = {}
        self._parts: dict[int, _Part] = {}
        self._last_part = 0
        self._offers: dict[tuple[str, str], tuple[int, float]] = {}
        """By manager and work: units for which there is room, and until when."""
        self._held: dict[tuple[str, int], _Held] = {}
        """By manager and part."""
        self._answered: dict[str, int] = {}
        """By manager: the last of its parts that was accepted or declined. It awards the next to
        a peer only after that."""

    @property
    def busy(self) -> int:
        """Units of what this peer does."""
        return sum(held.units for held in self._held.values() if not held.is_done)

    def handle(self, event: Event, now: float) -> list[Action]:
        """Takes what happened at a time in seconds, and returns what is to be done."""
        actions: list[Action] = []
        match event:
            case Joined(peer) if peer != self.me:
                self._alive.add(peer)
            case Left(peer) if peer in self._alive:
                self._alive.discard(peer)
                actions += self._lost(peer)
            case Received(sender, message) if sender in self._alive:
                actions += self._received(sender, message, now)
            case Offered(work, units):
                self._offered(work, units, now)
            case Completed(manager, part):
                self._completed(manager, part, now)
        actions += self._managed(now)
        actions += self._contracted(now)
        self.due = min(self._moments(), default=None)
        return actions

    def _moments(self) -> Iterator[float]:
        for work in self._works.values():
            if work.left:
                yield work.again if work.until is None else min(work.again, work.until)
        yield from (part.again for part in self._parts.values())
        yield from (held.again for held in self._held.values() if held.is_done)

    def _received(self, sender: str, message: Message, now: float) -> Iterator[Action]:
        match message:
            case Announce(work, round_, units):
                offer = self._offer(sender, work, units, now)
                yield Send(sender, Bid(work, round_, offer))
            case Bid(name, round_, units):
                found = self._works.get(name)
                if found and found.until is not None and found.round == round_:
                    found.bids[sender] = units
            case Award(work, number, units):
                yield from self._awarded(sender, work, number, units, now)
            case Settled(number):
                held = self._held.pop((sender, number), None)
                if held and not held.is_done:
                    yield Cancel(sender, number)
            case Accept(number) | Decline(number) | Done(number):
                part = self._parts.get(number)
                if part is None or part.contractor != sender:
                    if not isinstance(message, Decline):
                        yield Send(sender, Settled(number))
                elif isinstance(message, Accept):
                    part.is_accepted, part.again = True, now + CHECK
                else:
                    del self._parts[number]
                    if isinstance(message, Done):
                        self._works[part.work].done += part.units
                        yield Send(sender, Settled(number))
                    else:
                        self._works[part.work].left += part.units

    def _lost(self, peer: str) -> Iterator[Action]:
        for number, part in list(self._parts.items()):
            if part.contractor == peer:
                del self._parts[number]
                self._works[part.work].left += part.units
                yield Again(part.work, number, part.units)
        for key, held in list(self._held.items()):
            if key[0] == peer:
                del self._held[key]
                if not held.is_done:
                    yield Cancel(*key)
        for work in self._works.values():
            work.bids.pop(peer, None)
        self._offers = {key: offer for key, offer in self._offers.items() if key[0] != peer}

    # --- the manager --------------------------------------------------------------------------

    def _offered(self, work: str, units: int, now: float) -> None:
        if not 1 <= units <= MOST_UNITS:
            raise ValueError(f"{work!r:.60} has {units} units: give 1 to {MOST_UNITS}.")
        if not 1 <= len(work) <= 200:
            raise ValueError(f"The name {work!r:.60} has {len(work)} characters: give 1 to 200.")
        if work in self._works:
            raise ValueError(f"{work!r:.60} is being handed out: give another name.")
        if len(self._works) >= MOST_WORKS:
            raise ValueError(f"{MOST_WORKS} works are being handed out: wait until one has ended.")
        self._works[work] = _Work(units, again=now)

    def _managed(self, now: float) -> Iterator[Action]:
        for name, work in list(self._works.items()):
            if work.left:
                yield from self._announced(name, work, now)
            if not work.left and not any(part.work == name for part in self._parts.values()):
                del self._works[name]
                yield Ended(name, work.done, work.unplaced)
        for number, part in self._parts.items():
            if part.again <= now:
                part.again = now + (CHECK if part.is_accepted else RETRY)
                yield Send(part.contractor, Award(part.work, number, part.units))

    def _announced(self, name: str, work: _Work, now: float) -> Iterator[Action]:
        if work.until is None:
            if now < work.again:
                return
            work.round += 1
            work.bids.clear()
            work.until = now + BIDS
        missing = self._alive - {*work.bids}
        if missing and now < work.until:
            if work.again <= now:
                work.again = now + RETRY
                for peer in sorted(missing):
                    yield Send(peer, Announce(name, work.round, work.left))
            return
        work.until, work.again = None, now + PAUSE
        work.vain = 0 if any(part.work == name for part in self._parts.values()) else work.vain + 1
        waiting = {part.contractor for part in self._parts.values() if not part.is_accepted}
        for peer, offer in sorted(work.bids.items(), key=lambda bid: (-bid[1], bid[0])):
            units = min(offer, work.left)
            if units and peer not in waiting:
                work.vain = 0
                work.left -= units
                self._last_part += 1
                self._parts[self._last_part] = _Part(name, peer, units, again=now)
        if work.vain >= MOST_ROUNDS:
            work.unplaced += work.left
            work.left = 0

    # --- the contractor -----------------------------------------------------------------------

    def _free(self, now: float) -> int:
        self._offers = {key: offer for key, offer in self._offers.items() if offer[1] > now}
        return self.capacity - self.busy - sum(units for units, _ in self._offers.values())

    def _offer(self, manager: str, work: str, units: int, now: float) -> int:
        self._offers.pop((manager, work), None)
        offer = max(0, min(units, self._free(now)))
        if len(self._offers) >= MOST_OFFERS:
            return 0
        if offer:
            self._offers[manager, work] = (offer, now + HOLD)
        return offer

    def _awarded(
        self, manager: str, work: str, number: int, units: int, now: float
    ) -> Iterator[Action]:
        held = self._held.get((manager, number))
        if held is None and number > self._answered.get(manager, 0):
            self._answered[manager] = number
            self._offers.pop((manager, work), None)
            if 0 < units <= self._free(now):
                self._held[manager, number] = held = _Held(units)
                yield Begin(manager, work, number, units)
        if held is None:
            yield Send(manager, Decline(number))
        elif held.is_done:
            held.again = now
        else:
            yield Send(manager, Accept(number))

    def _completed(self, manager: str, number: int, now: float) -> None:
        held = self._held.get((manager, number))
        if held is not None and not held.is_done:  # or it was cancelled in the meantime
            held.is_done, held.again = True, now

    def _contracted(self, now: float) -> Iterator[Action]:
        for (manager, number), held in self._held.items():
            if held.is_done and held.again <= now:
                held.again = now + RETRY
                yield Send(manager, Done(number))
