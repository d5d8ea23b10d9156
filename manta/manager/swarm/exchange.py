"""What the instances of a swarm exchange: broadcasts, messages, collectives, locks.

Theory of operation. This part of the machine is fed with the entries of nodes' journals
(`apply`), the end of each attempt (`end_attempt`) and of each iteration (`end_iteration`).
It has no states of its own. Reading it changes nothing (`reads.exchange`).

* Of a *broadcast*, the latest of each sender under a tag in an iteration is kept.
* Of the *letters* `letters` tells.
* A *collective* is the n-th call in which the instances of a task take part in an iteration.
  Of several attempts the first contribution of an instance counts, so that all see the same.
* A *lock* is a queue, and its first element holds the lock. An attempt that ends leaves all
  queues.
* A *checkpoint* is the last of an instance in an iteration, whichever attempt wrote it.

Letters that nobody took outlive their iteration. All else ends with it, and its blobs are
released.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, assert_never

from manta.manager.swarm.letters import Load, Post, Room, Route, Sender
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


SAID = Room(2_000_000, 256 << 20)
"""How much of broadcasts, contributions and checkpoints is kept until the iteration ends."""
AHEAD = 1_000
"""Collectives that an instance may be ahead of the others of its task."""


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
    post: Post = field(default_factory=Post)
    collectives: dict[tuple[int, str, int], Collective] = field(default_factory=dict)
    """By iteration, alias and number."""
    calls: dict[str, dict[int, int]] = field(default_factory=dict)
    """By alias and rank: the number of the latest collective that it has come to."""
    locks: dict[str, list[Instance]] = field(default_factory=dict)
    checkpoints: dict[Sender, Payload] = field(default_factory=dict)
    kept: Load = field(default_factory=Load)
    """Of broadcasts, contributions and checkpoints."""
    blobs: dict[str, BlobRef] = field(default_factory=dict)
    """By digest: all that were named in this iteration, and those of letters that outlived theirs.
    Who was told of one may still fetch it when a later value has taken its place."""

    @property
    def unreceived(self) -> int:
        """How many letters nobody has claimed."""
        return self.post.unread.letters

    def apply(self, node_id: str, entry: Said) -> tuple[Topic, ...]:
        """Records what a live attempt sent, and returns topics whose readers may be answered."""
        at = entry.instance
        sender = Sender(at.iteration, at.alias, at.index)
        match entry:
            case Broadcasted(tag=tag, value=value):
                self._name(value)
                self.post.log(value)
                latest = self.broadcasts.setdefault((at.iteration, tag), {})
                if (old := latest.pop(sender, None)) is not None:
                    self.kept.add(old.value, -1)
                latest[sender] = Broadcast(node_id, value)
                self.kept.add(value)
                return (("broadcast", at.iteration, tag),)
            case Sent(to=to, tag=tag, value=value):
                self._name(value)
                self.post.send(at, Route(node_id, to, tag), value)
                return (("message", node_id, to, tag),)
            case Receiving(source=source, tag=tag):
                self.post.claim(at, Route(source, node_id, tag))
                return ("message", source, node_id, tag), ("room", node_id)
            case ClaimsReturned(source=source, tag=tag, received=received):
                self.post.give_back(at, Route(source, node_id, tag), received)
                return (("message", source, node_id, tag),)
            case Contributed(number=number, kind=kind, value=value, to=to_rank):
                key = (at.iteration, at.alias, number)
                self.post.log(value)
                collective = self.collectives.setdefault(key, Collective())
                collective.kinds.setdefault(at.index, kind)
                calls = self.calls.setdefault(at.alias, {})
                calls[at.index] = max(number, calls.get(at.index, 0))
                if (at.index, to_rank) not in collective.parts:
                    self._name(value)
                    collective.parts[at.index, to_rank] = value
                    self.kept.add(value)
                if collective.kinds[at.index] != next(iter(collective.kinds.values())):
                    return ((),)  # all have to hear of it, who is ahead by one call too
                return ("collective", *key), ("room", "")
            case LockWanted(name=name):
                queue = self.locks.setdefault(name, [])
                if at not in queue:
                    queue.append(at)
                return (("lock", name),)
            case LockReleased(name=name):
                self._leave(name, at)
                return (("lock", name),)
            case Checkpointed(value=value):
                self._name(value)
                self.post.log(value)
                if sender in self.checkpoints:
                    self.kept.add(self.checkpoints[sender], -1)
                self.checkpoints[sender] = value
                self.kept.add(value)
                return (("checkpoint",),)
            case _:
                assert_never(entry)

    def _name(self, value: Payload | None) -> None:
        if isinstance(value, BlobRef):
            self.blobs[value.digest] = value

    def end_attempt(self, instance: Instance, *, counts: bool) -> None:
        """Ends its waits and releases its locks; unless it counts, others get its letters."""
        for name in [name for name, queue in self.locks.items() if instance in queue]:
            self._leave(name, instance)
        self.post.end_attempt(instance, counts=counts)

    def _leave(self, name: str, instance: Instance) -> None:
        queue = self.locks.get(name, [])
        if instance in queue:
            queue.remove(instance)
        if not queue:
            self.locks.pop(name, None)

    def end_iteration(self) -> list[BlobRef]:
        """Forgets what nobody can read any more, and returns the blobs that nothing names now."""
        self.post.end_iteration()
        return self._forget()

    def clear(self) -> list[BlobRef]:
        """Forgets everything, and returns the blobs that nothing names now: the swarm is over."""
        self.post.clear()
        return self._forget()

    def _forget(self) -> list[BlobRef]:
        self.broadcasts.clear()
        self.collectives.clear()
        self.calls.clear()
        self.checkpoints.clear()
        self.locks.clear()
        self.kept = Load()
        before, self.blobs = self.blobs, {}
        for value in self.post.values():
            self._name(value)
        gone = (blob for digest, blob in before.items() if digest not in self.blobs)
        return sorted(gone, key=lambda blob: blob.digest)
