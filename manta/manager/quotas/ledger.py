"""Counts what each user and cluster holds: the one place that does.

It hears of what was stored (`stored`), so that it agrees with the store whoever wrote. What is
admitted counts at once, before it is stored: of two requests under way the second sees the first.
Each thing counts once, however often it is heard of. May be used from any thread.

A *blob* counts once for each user, however many swarms and modules of theirs name it. One that
was pushed counts for who pushed it until something names it, or it is deleted.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Container, Iterable, Sequence
from typing import NamedTuple

from manta.manager.quotas.table import Quota
from manta.manager.store.interface import (
    AppendEvents,
    AppendLogs,
    Delete,
    Put,
    Reference,
    Release,
    RemoveSwarm,
    Store,
    Write,
)
from manta.manager.store.records import (
    ClusterRecord,
    ModuleRecord,
    NodeRecord,
    Record,
    SwarmRecord,
)
from manta.protocol.states import SwarmState

PLATFORM = ""
"""Holds what all users together have."""
READ = "read/"
"""Holds what is in memory since somebody reads it; with a user's id, what is that user's."""


class _Push(NamedTuple):
    size: int
    at: float


class _Named:
    """A blob that something of a user's names."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.times = 0


class Ledger:
    def __init__(self, size_of: Callable[[str], int]) -> None:
        """`size_of` returns the bytes of a blob, 0 if it is not here."""
        self._size_of = size_of
        self._lock = threading.Lock()
        self._used: Counter[tuple[Quota, str]] = Counter()
        self._things: dict[tuple[Quota, str], tuple[str, ...]] = {}
        """Whose each thing is: a user's, and perhaps a cluster's."""
        self._owners: dict[str, str] = {}
        """The user of each cluster, and of each swarm and module, which hold blobs."""
        self._stored: Counter[str] = Counter()
        """The bytes of each swarm's events and log lines."""
        self._under_way: Counter[str] = Counter()
        """The bytes of those that are not stored yet."""
        self._ends: dict[str, dict[str, int]] = {}
        """By swarm, and node for log lines: the number of the last that was counted."""
        self._held: dict[str, set[str]] = {}
        """The blobs that each swarm and module names."""
        self._named: dict[tuple[str, str], _Named] = {}
        """By user and digest."""
        self._memory: dict[str, tuple[tuple[str, ...], int]] = {}
        """By swarm: for whom it counts, and its bytes."""
        self._pushed: dict[str, dict[str, _Push]] = {}
        """The blobs that nothing names yet, by digest and by who pushed them."""

    def load(self, store: Store) -> None:
        """Counts what is stored."""
        with self._lock:
            for kind in (ClusterRecord, NodeRecord, SwarmRecord, ModuleRecord):
                for record in store.all(kind):
                    self._put(record)
            for swarm_id, extent in store.extents().items():
                if swarm_id in self._owners:
                    self._keep(swarm_id, extent.event_bytes + extent.line_bytes)
            for holder, digest in store.references():
                self._refer(holder, (digest,))

    def used(self, quota: Quota, holder: str) -> int:
        """By a user or in a cluster."""
        return self._used[quota, holder]

    # Things.

    def admit(
        self, quota: Quota, thing: str, holders: tuple[str, ...], limits: Sequence[int]
    ) -> str | None:
        """Counts a thing, or returns the first of its holders who has as many as may be."""
        with self._lock:
            for holder, limit in zip(holders, limits, strict=True):
                if self._used[quota, holder] >= limit:
                    return holder
            self._add(quota, thing, holders)
        return None

    def drop(self, quota: Quota, thing: str) -> None:
        """It is not there: what was admitted was not stored."""
        with self._lock:
            self._remove(quota, thing)

    def _add(self, quota: Quota, thing: str, holders: tuple[str, ...]) -> None:
        if (quota, thing) not in self._things:
            self._things[quota, thing] = holders
            for holder in holders:
                self._used[quota, holder] += 1

    def _remove(self, quota: Quota, thing: str) -> None:
        for holder in self._things.pop((quota, thing), ()):
            self._take(quota, holder, 1)

    def _take(self, quota: Quota, holder: str, amount: int) -> None:
        self._used[quota, holder] -= amount
        if self._used[quota, holder] <= 0:
            del self._used[quota, holder]

    # What is about to be stored: it counts at once.

    def tell(self, swarm_id: str, owner: str, size: int) -> None:
        """So many bytes of events and log lines."""
        with self._lock:
            self._owners.setdefault(swarm_id, owner)
            self._under_way[swarm_id] += size
            self._used[Quota.STORED_BYTES, owner] += size

    def name(self, holder: str, owner: str, digests: Iterable[str]) -> None:
        """A swarm or module names these blobs."""
        with self._lock:
            self._owners.setdefault(holder, owner)
            self._refer(holder, digests)

    def unname(self, holder: str, digests: Iterable[str]) -> None:
        """It does not after all."""
        with self._lock:
            self._release(holder, digests)

    def forget(self, holder: str) -> None:
        """It was not stored after all."""
        with self._lock:
            self._forget(holder)

    def begin(self, swarm_id: str) -> None:
        """Its actor starts: what one before it had not stored is told again."""
        with self._lock:
            lost = self._under_way.pop(swarm_id, 0)
            self._take(Quota.STORED_BYTES, self._owners.get(swarm_id, ""), lost)

    # Memory.

    def hold(
        self,
        swarm_id: str,
        size: int,
        holders: tuple[str, str],
        limits: tuple[int, int],
        sure: int,
    ) -> str | None:
        """Notes how much memory the swarm takes, instead of what it took before; or returns the
        first of the holders who would have more than may be. The first may have as much as is
        `sure`, however much others have."""
        with self._lock:
            before, own = self._memory.get(swarm_id, ((), 0))
            for holder, limit in zip(holders, limits, strict=True):
                others = self._used[Quota.MEMORY_BYTES, holder] - (own if holder in before else 0)
                grows = size > own or holder not in before
                if grows and others + size > limit:
                    return holder
                if others + size <= sure:
                    break
            self._let_go(swarm_id)
            self._memory[swarm_id] = holders, size
            for holder in holders:
                self._used[Quota.MEMORY_BYTES, holder] += size
        return None

    def let_go(self, swarm_id: str) -> None:
        """It is in memory no more."""
        with self._lock:
            self._let_go(swarm_id)

    def _let_go(self, swarm_id: str) -> None:
        holders, size = self._memory.pop(swarm_id, ((), 0))
        for holder in holders:
            self._take(Quota.MEMORY_BYTES, holder, size)

    def held_by(self, swarm_id: str) -> int:
        """The bytes of memory that the swarm takes."""
        return self._memory.get(swarm_id, ((), 0))[1]

    # What was stored.

    def stored(self, writes: Sequence[Write]) -> None:
        with self._lock:
            for write in writes:  # first, since what holds blobs has to be known
                if isinstance(write, Put):
                    self._put(write.record)
            for write in writes:
                match write:
                    case Delete(kind, key):
                        self._deleted(kind, key)
                    case AppendEvents(swarm_id, first, bodies):
                        self._append(swarm_id, "", first, bodies)
                    case AppendLogs(swarm_id, node_id, first, bodies):
                        self._append(swarm_id, node_id, first, bodies)
                    case Reference(holder, digests):
                        self._refer(holder, digests)
                    case Release(holder, digests):
                        self._release(holder, digests)
                    case RemoveSwarm(swarm_id):
                        self._remove(Quota.LIVE_SWARMS, swarm_id)
                        self._remove(Quota.SWARMS, swarm_id)
                        self._forget(swarm_id)

    def _put(self, record: Record) -> None:
        match record:
            case ClusterRecord():
                self._owners[record.id] = record.owner_id
                self._add(Quota.CLUSTERS, record.id, (record.owner_id,))
            case NodeRecord():
                owner = self._owners.get(record.cluster_id, "")
                self._add(Quota.NODES, record.id, (owner, record.cluster_id))
            case ModuleRecord():
                self._owners[record.id] = record.owner_id
                self._add(Quota.MODULES, record.id, (record.owner_id,))
            case SwarmRecord(info, owner):
                self._owners[record.id] = owner
                self._add(Quota.SWARMS, record.id, (owner, info.cluster_id))
                if SwarmState(info.status).final:
                    self._remove(Quota.LIVE_SWARMS, record.id)
                else:
                    self._add(Quota.LIVE_SWARMS, record.id, (owner, info.cluster_id, PLATFORM))

    def _deleted(self, kind: type[Record], key: str) -> None:
        if kind is ClusterRecord:
            self._owners.pop(key, None)
            self._remove(Quota.CLUSTERS, key)
        elif kind is NodeRecord:
            self._remove(Quota.NODES, key)
        elif kind is ModuleRecord:
            self._remove(Quota.MODULES, key)
            self._forget(key)

    # What swarms said.

    def _append(self, swarm_id: str, log: str, first: int, bodies: Sequence[bytes]) -> None:
        """`log`: the node whose lines these are, or nothing for events; repeats do not count."""
        if swarm_id not in self._owners:
            return  # it is removed
        ends = self._ends.setdefault(swarm_id, {})
        last = ends.get(log, first - 1)
        self._keep(swarm_id, sum(map(len, bodies[max(0, last + 1 - first) :])))
        ends[log] = max(last, first + len(bodies) - 1)

    def _keep(self, swarm_id: str, size: int) -> None:
        self._stored[swarm_id] += size
        counted = min(size, self._under_way[swarm_id])
        self._under_way[swarm_id] -= counted
        self._used[Quota.STORED_BYTES, self._owners[swarm_id]] += size - counted

    # Blobs.

    def _refer(self, holder: str, digests: Iterable[str]) -> None:
        owner, held = self._owners.get(holder, ""), self._held.setdefault(holder, set())
        for digest in digests:
            size = self.size(digest)
            self._unpush(digest)
            if digest in held:
                continue
            held.add(digest)
            named = self._named.get((owner, digest))
            if named is None:
                named = _Named(size)
                self._named[owner, digest] = named
                self._used[Quota.BLOBS, owner] += 1
                self._used[Quota.BLOB_BYTES, owner] += named.size
            named.times += 1

    def _release(self, holder: str, digests: Iterable[str]) -> None:
        owner, held = self._owners.get(holder, ""), self._held.get(holder, set())
        for digest in digests:
            if digest not in held:
                continue
            held.discard(digest)
            named = self._named[owner, digest]
            named.times -= 1
            if not named.times:
                del self._named[owner, digest]
                self._take(Quota.BLOBS, owner, 1)
                self._take(Quota.BLOB_BYTES, owner, named.size)

    def _forget(self, holder: str) -> None:
        self._ends.pop(holder, None)
        said = self._stored.pop(holder, 0) + self._under_way.pop(holder, 0)
        self._take(Quota.STORED_BYTES, self._owners.get(holder, ""), said)
        self._release(holder, tuple(self._held.get(holder, ())))
        self._held.pop(holder, None)
        self._owners.pop(holder, None)

    def size(self, digest: str) -> int:
        """Of a blob that is here."""
        for push in self._pushed.get(digest, {}).values():
            return push.size
        return self._size_of(digest)

    def is_named(self, owner: str, digest: str) -> bool:
        """Whether something of the user's names the blob: naming it again costs nothing."""
        return (owner, digest) in self._named

    # Blobs that were pushed.

    def push(self, who: str, digest: str, size: int, now: float) -> None:
        """It counts from when it begins to come."""
        with self._lock:
            by = self._pushed.setdefault(digest, {})
            if who not in by:
                by[who] = _Push(size, now)
                self._used[Quota.UNNAMED_BLOBS, who] += 1
                self._used[Quota.UNNAMED_BYTES, who] += size

    def pushes(self, who: str, digest: str) -> bool:
        """Whether it counts already for whom."""
        return who in self._pushed.get(digest, ())

    def gone(self, digests: Iterable[str]) -> None:
        """They were deleted, or never came."""
        with self._lock:
            for digest in digests:
                self._unpush(digest)

    def coming(self, before: float, unnamed: Container[str], is_here: Callable[[str], bool]) -> int:
        """Forgets those that began to come before then, but for the `unnamed` that are here: the
        others never came, or something names them. Returns how many are not here yet."""
        with self._lock:
            late = [
                (digest, who)
                for digest, by in self._pushed.items()
                for who, push in by.items()
                if push.at < before and digest not in unnamed
            ]
            for digest, who in late:
                self._unpush(digest, who)
            return sum(not is_here(digest) for digest in self._pushed)

    def _unpush(self, digest: str, who: str | None = None) -> None:
        """Of one who pushed it, or of all."""
        by = self._pushed.get(digest, {})
        for one in list(by) if who is None else [who]:
            push = by.pop(one)
            self._take(Quota.UNNAMED_BLOBS, one, 1)
            self._take(Quota.UNNAMED_BYTES, one, push.size)
        if not by:
            self._pushed.pop(digest, None)
