"""Stores a swarm's events, and performs their actions once they are durable.

Events do not wait for each other: while one is being stored, the next is sent after it.
Actions are performed in the order of the events.

What ends the swarm does not wait: where it cannot be stored now it is in effect all the same, and
what had to be stored before it begins nothing any more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from manta.manager.access import Access
from manta.manager.errors import StoreError
from manta.manager.store.actor import Writer
from manta.manager.store.interface import AppendEvents, Put, Reference, Release, Write
from manta.manager.store.records import SwarmRecord
from manta.manager.swarm.events import (
    Action,
    Assign,
    Began,
    Released,
    Revoke,
    StateChanged,
)
from manta.protocol.user import SwarmInfo

Then = Callable[[StoreError | None], None]
_IN_EFFECT = (Assign, Began, Revoke, StateChanged)
"""Actions that change what runs, or what is shown of it."""


@dataclass
class Commit:
    """What waits for an event to be durable; `info` is None if it did not change."""

    actions: list[Action]
    seen: dict[str, int]
    info: SwarmInfo | None
    named: tuple[str, ...] = ()
    """Digests of blobs that the swarm needs from now on."""
    then: list[Then] = field(default_factory=list)
    ends: bool = False
    """Whether it ends the swarm, and is not in effect yet."""


@dataclass
class Commits:
    """`number` events were sent to the store; `perform` is called with each durable commit."""

    owner_id: str
    number: int
    info: SwarmInfo
    """As of the last event."""
    seen: dict[str, int]
    """The durable length of each feed, and of the settled results."""
    writer: Writer
    perform: Callable[[Commit], None]
    access: Access
    shown: SwarmInfo = field(init=False)
    """As of the last durable event: what users see."""
    blobs: set[str] = field(default_factory=set)
    """Digests that are known to be here, for as long as the swarm needs them."""
    _waiting: deque[Commit] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self.shown = self.info

    def add(
        self,
        named: tuple[str, ...],
        bodies: list[bytes],
        actions: list[Action],
        info: SwarmInfo,
        seen: dict[str, int],
        then: Then | None,
        ends: bool = False,
    ) -> None:
        """Stores an event and what it led to.

        `ends`: it ends the swarm, also where it cannot be stored. `named` are blobs that the swarm
        needs from now on. `bodies` are the encoded events; none if nothing changed.
        """
        if not bodies and self._waiting:  # in order, since the actions may rest on earlier events
            self._waiting[-1].actions += actions
            if then is not None:
                self._waiting[-1].then.append(then)
            return
        commit = Commit(actions, seen, info if info != self.info else None, named if bodies else ())
        if then is not None:
            commit.then.append(then)
        commit.ends = ends
        self._waiting.append(commit)
        if not bodies:
            self._perform()
            return
        writes: list[Write] = [AppendEvents(info.swarm_id, self.number + 1, tuple(bodies))]
        self.number += len(bodies)
        if named:
            writes.append(Reference(info.swarm_id, named, info.cluster_id))
            self.access.naming(info.cluster_id, info.swarm_id, named)
            self.blobs.update(named)
        for action in actions:
            if isinstance(action, Released):
                released = tuple(blob.digest for blob in action.blobs)
                writes.append(Release(info.swarm_id, released))
                self.access.released(info.cluster_id, info.swarm_id, released)
                self.blobs.difference_update(released)
        if commit.info is not None:
            self.info = commit.info
            writes.append(Put(SwarmRecord(commit.info, self.owner_id)))
        self.writer.write(*writes, then=self._stored, keep=True)

    @property
    def unstored(self) -> int:
        """How many events are being stored."""
        return len(self._waiting)

    @property
    def settled(self) -> bool:
        """Whether all events so far are stored, and their actions performed."""
        return not self._waiting

    def when_durable(self, then: Then) -> None:
        """Calls `then(None)` once all events so far are stored, or `then(error)` if the store
        fails meanwhile."""
        if self._waiting:
            self._waiting[-1].then.append(then)
        else:
            then(None)

    def _stored(self, error: StoreError | None) -> None:
        if error is None:
            self._perform()
            return
        waiting = [then for commit in self._waiting for then in commit.then]
        for commit in self._waiting:
            commit.then.clear()

        def tell(_: object) -> None:
            for then in waiting:
                then(error)

        if any(commit.ends for commit in self._waiting):
            self._end(tell)
        else:
            tell(None)

    def _end(self, then: Then) -> None:
        """Has the end of the swarm in effect, and calls `then` when it is."""
        now: list[Action] = []
        for commit in self._waiting:
            now += [one for one in commit.actions if isinstance(one, Revoke | StateChanged)]
            later = (one for one in commit.actions if not isinstance(one, _IN_EFFECT))
            commit.actions, commit.info, commit.ends = list(later), None, False
        self.shown = self.info
        self.perform(Commit(now, self.seen, self.info, then=[then]))

    def _perform(self) -> None:
        commit = self._waiting.popleft()
        self.seen = commit.seen
        self.shown = commit.info or self.shown
        self.access.named(self.info.cluster_id, self.info.swarm_id, commit.named)
        self.perform(commit)
