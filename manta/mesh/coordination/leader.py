"""Who leads: of the peers that are alive, the one with the lowest id. Pure.

Theory of operation. As in the bully algorithm (Garcia-Molina 1982), a peer that finds nobody of
lower rank alive claims to lead. The claim is for an *epoch*, a number with the id of its leader,
higher than any that it has heard of, as ballots are in Paxos (Lamport 1998): so no epoch has two
leaders, whoever is cut off from whom. A peer promises to follow the highest epoch that was claimed
from it. Who has the promises of all whom it counts alive leads, and until then nobody does.

| state | leaves when |
|---|---|
| following | nobody of a lower id is alive any more: claiming |
| claiming | all that are alive have promised: leading; a higher epoch is heard of: claims again |
| leading | the same; or one of a lower id is alive, here and while claiming: following |

A leader that another counts alive has promised to follow it before that one leads. So two lead at
the same time only if the one of the higher epoch counted the other one dead when it began to: one
on each side of a partition, or after a wrong suspicion. Once that is over, the one of the lower id
hears of the other's epoch from those that promised it, and claims a higher one.

Give the epoch with what a leader orders, and let nobody obey one that is lower than that which it
follows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, NamedTuple

from msgspec import Meta, Struct

from manta.mesh.coordination.events import Ignored, Joined, Left, Received, Send, Tick

RETRY = 0.5
"""Seconds until what was not answered is said again, and between two claims of a peer."""
LEAP = 1_000_000
"""By how many an epoch may be higher than that before, or one peer could use up all numbers."""


class Epoch(NamedTuple):
    """Epochs are ordered by their numbers, then by their leaders."""

    number: Annotated[int, Meta(ge=0, lt=1 << 62)]
    leader: Annotated[str, Meta(max_length=200)]


NONE = Epoch(0, "")
"""Before the first."""


class Claim(Struct, frozen=True, tag="claim", array_like=True):
    """Promise to follow the sender in this epoch."""

    epoch: Epoch


class Promise(Struct, frozen=True, tag="promise", array_like=True):
    """The sender follows in this epoch, until it hears of a higher one."""

    epoch: Epoch


class Newer(Struct, frozen=True, tag="newer", array_like=True):
    """The sender has promised to follow in this epoch: to lead it, claim a higher one."""

    epoch: Epoch


Message = Claim | Promise | Newer
Event = Joined | Left | Received[Message] | Tick


class Lead(NamedTuple):
    """This peer leads from now on."""

    epoch: Epoch


class Resign(NamedTuple):
    """This peer does not lead any more."""

    epoch: Epoch


class Follow(NamedTuple):
    """This peer follows the leader of the epoch; that one leads once all do."""

    epoch: Epoch


Action = Send[Message] | Lead | Resign | Follow | Ignored


class Leadership:
    """Of one peer. The mesh's other peers are those that it was told have joined."""

    def __init__(self, me: str) -> None:
        self.me = me
        self.alive: set[str] = set()
        """The others."""
        self.epoch = NONE
        """The highest that this peer claims or has promised to follow in."""
        self.is_leading = False
        self.due: float | None = None
        """When it wants a Tick."""
        self._is_claiming = False
        """Or leading."""
        self._claimed_at = float("-inf")
        self._promised: set[str] = set()
        """Who follows in the epoch that this peer claims."""

    @property
    def leader(self) -> str | None:
        """Whom this peer follows, itself included; None while that is not decided."""
        if self.epoch.leader == self.me:
            return self.me if self.is_leading else None
        return self.epoch.leader if self.epoch.leader in self.alive else None

    def handle(self, event: Event, now: float) -> list[Action]:
        """Takes what happened at a time in seconds, and returns what is to be done."""
        actions: list[Action] = []
        match event:
            case Joined(peer) if peer != self.me:
                self.alive.add(peer)
                self._promised.discard(peer)
            case Left(peer):
                self.alive.discard(peer)
                self._promised.discard(peer)
            case Received(sender, message) if sender in self.alive:
                actions += self._received(sender, message)
        return [*actions, *self._settled(now)]

    def _received(self, sender: str, message: Message) -> Iterator[Action]:
        epoch = message.epoch
        if epoch.number > self.epoch.number + LEAP:
            yield Ignored(sender, f"It says {epoch}, after {self.epoch}: that is too far ahead.")
            return
        match message:
            case Claim():
                if epoch.leader != sender:
                    yield Ignored(sender, f"It claims {epoch}, of which it is not the leader.")
                elif epoch < self.epoch:
                    yield Send(sender, Newer(self.epoch))
                else:
                    if epoch > self.epoch:
                        yield from self._resign()
                        self.epoch = epoch
                        yield Follow(epoch)
                    yield Send(sender, Promise(epoch))
            case Promise():
                if self._is_claiming and epoch == self.epoch:
                    self._promised.add(sender)
            case Newer():
                if self._is_claiming and epoch > self.epoch:
                    yield from self._resign()
                    self.epoch = epoch

    def _resign(self) -> Iterator[Action]:
        if self.is_leading:
            yield Resign(self.epoch)
        self.is_leading = self._is_claiming = False
        self._promised.clear()

    def _settled(self, now: float) -> Iterator[Action]:
        lowest = min(self.alive | {self.me})
        if lowest == self.me:
            yield from self._claimed(now)
            return
        if self._is_claiming:
            yield from self._resign()
        if self.epoch.leader == lowest:
            self.due = None
        elif self.due is None:
            self.due = now + RETRY
        elif self.due <= now:
            self.due = now + RETRY
            yield Send(lowest, Newer(self.epoch))

    def _claimed(self, now: float) -> Iterator[Action]:
        if not self._is_claiming:
            if now < self._claimed_at + RETRY:
                self.due = self._claimed_at + RETRY
                return
            self.epoch = Epoch(self.epoch.number + 1, self.me)
            self._is_claiming, self._claimed_at = True, now
            self.due = now
        missing = self.alive - self._promised
        if not missing and not self.is_leading:
            self.is_leading = True
            yield Lead(self.epoch)
        if not missing:
            self.due = None
        elif self.due is None or self.due <= now:
            self.due = now + RETRY
            for peer in sorted(missing):
                yield Send(peer, Claim(self.epoch))
