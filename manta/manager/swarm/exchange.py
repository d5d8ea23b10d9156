"""What the instances of a swarm say to each other: broadcasts, messages, collectives, locks.

Theory of operation. A part of the swarm's machine, fed with what nodes' journals tell (`said`),
with how attempts end (`attempt_ended`) and with the end of each iteration (`iteration_over`).
Reading it changes nothing (`exchange_queries`).

* A *broadcast* is the latest of each sender under a tag in an iteration.
* A *channel* (node, node, tag) holds letters in the order in which they were sent, and claims
  in the order in which they were made: the first claim without a letter gets the first letter
  without a claim. A failed attempt's claims go, as do those that one did not get to receive
  before it ended, and their letters are claimed anew. The k-th
  letter of an instance is one letter, whichever attempt sent it: one that was taken stays what
  it was, another takes the value of the latest attempt.
* A *collective* is the n-th in which a task's instances take part in an iteration. Of several
  attempts the first contribution of an instance counts, so that all see the same.
* A *lock* is a queue, whose first holds it. The end of an attempt takes it out of all queues.
* A *checkpoint* is the last of an instance in an iteration, whichever attempt wrote it.

Letters that nobody took outlive their iteration; all else ends with it, and the blobs are
released.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, assert_never

from manta.protocol.base import Instance
from manta.protocol.exchange import (
    Broadcasted,
    Checkpointed,
    ClaimsReturned,
    Contributed,
    LockReleased,
    LockWanted,
    Receiving,
    Said,
    Sent,
)
from manta.protocol.values import BlobRef, Payload

Topic = tuple[str | int, ...]
"""What a reader waits for; its first word is a kind."""


class Sender(NamedTuple):
    """An instance, whichever of its attempts speaks."""

    iteration: int
    alias: str
    rank: int


class Route(NamedTuple):
    """From a node to a node, by their ids, under a tag."""

    source: str
    to: str
    tag: str


@dataclass
class Letter:
    sender: Sender
    serial: int
    value: Payload
    taken: bool = False


@dataclass
class Claim:
    instance: Instance
    letter: Letter | None = None


@dataclass
class Channel:
    letters: list[Letter] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)

    def match(self) -> None:
        free = iter([letter for letter in self.letters if not letter.taken])
        for claim in self.claims:
            if claim.letter is None:
                claim.letter = next(free, None)
                if claim.letter is None:
                    return
                claim.letter.taken = True

    def give_back(self, claims: list[Claim]) -> None:
        """What they had goes to those that are left, or to the next."""
        for claim in claims:
            self.claims = [other for other in self.claims if other is not claim]
            if claim.letter is not None:
                claim.letter.taken = False
        if claims:
            self.match()


@dataclass
class Collective:
    kinds: dict[int, str] = field(default_factory=dict)
    """By rank: what it called."""
    parts: dict[tuple[int, int | None], Payload | None] = field(default_factory=dict)
    """By rank, and the rank that it is for."""


class Broadcast(NamedTuple):
    node_id: str
    value: Payload


@dataclass
class Exchange:
    broadcasts: dict[tuple[int, str], dict[Sender, Broadcast]] = field(default_factory=dict)
    """By iteration and tag; the latest comes last."""
    channels: dict[Route, Channel] = field(default_factory=dict)
    sent: dict[tuple[Instance, Route], int] = field(default_factory=dict)
    collectives: dict[tuple[int, str, int], Collective] = field(default_factory=dict)
    """By iteration, alias and number."""
    locks: dict[str, list[Instance]] = field(default_factory=dict)
    checkpoints: dict[Sender, Payload] = field(default_factory=dict)
    replaced: list[Payload] = field(default_factory=list)
    """In this iteration, by later ones: nobody reads them any more."""

    def said(self, node_id: str, entry: Said) -> Topic:
        """The attempt is live. Whose wait this may end."""
        at = entry.instance
        sender = Sender(at.iteration, at.alias, at.index)
        match entry:
            case Broadcasted(tag=tag, value=value):
                latest = self.broadcasts.setdefault((at.iteration, tag), {})
                if (old := latest.pop(sender, None)) is not None:
                    self.replaced.append(old.value)
                latest[sender] = Broadcast(node_id, value)
                return ("broadcast", at.iteration, tag)
            case Sent(to=to, tag=tag, value=value):
                return self._sent(sender, at, Route(node_id, to, tag), value)
            case Receiving(source=source, tag=tag):
                route = Route(source, node_id, tag)
                channel = self.channels.setdefault(route, Channel())
                channel.claims.append(Claim(at))
                channel.match()
                return ("message",)
            case ClaimsReturned(source=source, tag=tag, received=received):
                channel = self.channels.setdefault(Route(source, node_id, tag), Channel())
                mine = [claim for claim in channel.claims if claim.instance == at]
                channel.give_back(mine[received:])
                return ("message",)
            case Contributed(number=number, kind=kind, value=value, to=to):
                key = (at.iteration, at.alias, number)
                collective = self.collectives.setdefault(key, Collective())
                collective.kinds.setdefault(at.index, kind)
                collective.parts.setdefault((at.index, to), value)
                return ("collective", *key)
            case LockWanted(name=name):
                queue = self.locks.setdefault(name, [])
                if at not in queue:
                    queue.append(at)
                return ("lock", name)
            case LockReleased(name=name):
                self._leave(name, at)
                return ("lock", name)
            case Checkpointed(value=value):
                if (kept := self.checkpoints.get(sender)) is not None:
                    self.replaced.append(kept)
                self.checkpoints[sender] = value
                return ("checkpoint",)
            case _:
                assert_never(entry)

    def _sent(self, sender: Sender, at: Instance, route: Route, value: Payload) -> Topic:
        serial = self.sent.get((at, route), 0)
        self.sent[at, route] = serial + 1
        channel = self.channels.setdefault(route, Channel())
        for letter in channel.letters:
            if (letter.sender, letter.serial) == (sender, serial):
                if not letter.taken:
                    self.replaced.append(letter.value)
                    letter.value = value
                return ("message",)
        channel.letters.append(Letter(sender, serial, value))
        channel.match()
        return ("message",)

    def attempt_ended(self, instance: Instance, *, counts: bool) -> None:
        """It no longer waits, nor holds a lock; unless it counts, others get its letters."""
        for name in [name for name, queue in self.locks.items() if instance in queue]:
            self._leave(name, instance)
        for channel in self.channels.values():
            mine = [claim for claim in channel.claims if claim.instance == instance]
            gone = [claim for claim in mine if claim.letter is None or not counts]
            channel.give_back(gone)

    def _leave(self, name: str, instance: Instance) -> None:
        queue = self.locks.get(name, [])
        if instance in queue:
            queue.remove(instance)
        if not queue:
            self.locks.pop(name, None)

    def iteration_over(self) -> list[BlobRef]:
        """Forget what nobody can read any more; the blobs that are named no longer."""
        before = set(self.blobs())
        self.broadcasts.clear()
        self.collectives.clear()
        self.checkpoints.clear()
        self.locks.clear()
        self.sent.clear()
        self.replaced.clear()
        for route in list(self.channels):
            letters = [letter for letter in self.channels[route].letters if not letter.taken]
            if letters:
                self.channels[route] = Channel(letters)
            else:
                del self.channels[route]
        return sorted(before - set(self.blobs()), key=lambda blob: blob.digest)

    def clear(self) -> list[BlobRef]:
        """The swarm is over."""
        left = [letter for channel in self.channels.values() for letter in channel.letters]
        self.replaced += (letter.value for letter in left)
        self.channels.clear()
        return self.iteration_over()

    def blobs(self) -> Iterator[BlobRef]:
        """Those that somebody may still read."""
        values: list[Payload | None] = [
            said.value for latest in self.broadcasts.values() for said in latest.values()
        ]
        values += (x.value for channel in self.channels.values() for x in channel.letters)
        values += (part for one in self.collectives.values() for part in one.parts.values())
        values += (*self.checkpoints.values(), *self.replaced)
        yield from (value for value in values if isinstance(value, BlobRef))
