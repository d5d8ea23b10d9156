"""What the instances of a swarm exchange: broadcasts, messages, collectives, locks.

Theory of operation. This part of the machine is fed with the entries of nodes' journals
(`apply`), the end of each attempt (`end_attempt`) and of each iteration (`end_iteration`).
It has no states of its own. Reading it changes nothing (`reads.exchange`).

* Of a *broadcast*, the latest of each sender under a tag in an iteration is kept.
* A *channel* (node, node, tag) holds letters in the order in which they were sent, and claims
  in the order in which they were made: the first claim without a letter gets the first letter
  without a claim. The claims of a failed attempt are dropped, as are those whose letter an
  attempt did not receive before it ended; their letters can be claimed again. The k-th letter
  of an instance is one letter, whichever attempt sent it: until it is taken, its value is that
  of the latest attempt.
* A *collective* is the n-th call in which the instances of a task take part in an iteration.
  Of several attempts the first contribution of an instance counts, so that all see the same.
* A *lock* is a queue, and its first element holds the lock. An attempt that ends leaves all
  queues.
* A *checkpoint* is the last of an instance in an iteration, whichever attempt wrote it.

Letters that nobody took outlive their iteration. All else ends with it, and its blobs are
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
"""What a reader waits for; its first element is a kind. The empty one stands for all."""


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
        """Drops these claims; their letters go to those that are left, or to the next."""
        for claim in claims:
            self.claims = [other for other in self.claims if other is not claim]
            if claim.letter is not None:
                claim.letter.taken = False
        if claims:
            self.match()


def operation(kind: str) -> str:
    """Of what an instance called, without its options."""
    return kind.partition("(")[0]


@dataclass
class Collective:
    kinds: dict[int, str] = field(default_factory=dict)
    """By rank: what it called."""
    parts: dict[tuple[int, int | None], Payload | None] = field(default_factory=dict)
    """By rank, and the rank that the part is for; None stands for all."""


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
    """Values that later ones took the place of in this iteration: nobody reads them any more."""

    @property
    def unreceived(self) -> int:
        """How many letters nobody has claimed."""
        channels = self.channels.values()
        return sum(not letter.taken for channel in channels for letter in channel.letters)

    def apply(self, node_id: str, entry: Said) -> Topic:
        """Records what a live attempt sent, and returns the topic whose readers may be answered."""
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
                if collective.kinds[at.index] != next(iter(collective.kinds.values())):
                    return ()  # all have to hear of it, who is ahead by one call too
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

    def end_attempt(self, instance: Instance, *, counts: bool) -> None:
        """Ends its waits and releases its locks; unless it counts, others get its letters."""
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

    def end_iteration(self) -> list[BlobRef]:
        """Forgets what nobody can read any more, and returns the blobs that nothing names now."""
        before = set(self.blobs())
        self.broadcasts.clear()
        self.collectives.clear()
        self.checkpoints.clear()
        self.locks.clear()
        self.sent.clear()
        self.replaced.clear()
        untaken = (
            (route, [letter for letter in channel.letters if not letter.taken])
            for route, channel in self.channels.items()
        )
        self.channels = {route: Channel(letters) for route, letters in untaken if letters}
        return sorted(before - set(self.blobs()), key=lambda blob: blob.digest)

    def clear(self) -> list[BlobRef]:
        """Forgets everything, and returns the blobs that nothing names now: the swarm is over."""
        left = [letter for channel in self.channels.values() for letter in channel.letters]
        self.replaced += (letter.value for letter in left)
        self.channels.clear()
        return self.end_iteration()

    def blobs(self) -> Iterator[BlobRef]:
        """Those that may still be read."""
        values: list[Payload | None] = [
            said.value for latest in self.broadcasts.values() for said in latest.values()
        ]
        values += (x.value for channel in self.channels.values() for x in channel.letters)
        values += (part for one in self.collectives.values() for part in one.parts.values())
        values += (*self.checkpoints.values(), *self.replaced)
        yield from (value for value in values if isinstance(value, BlobRef))
