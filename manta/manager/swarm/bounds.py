"""What a swarm may leave behind: its quotas, applied to what nodes and users send for it.

An entry of a node's journal that is beyond a quota is not stored. Of metrics and progress a
`Passed` takes its place, so that the journal's numbers go on; of all else the swarm fails, as what
its tasks rely on cannot be kept. `viable` says which it is; it changes nothing.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeGuard

from manta.manager.quotas.quotas import Quotas
from manta.manager.quotas.table import GIB, LEFT_OUT, TABLE, Breach, Limit, Quota
from manta.manager.swarm import references, weight
from manta.manager.swarm.events import Entry, Passed
from manta.manager.swarm.letters import Most
from manta.manager.swarm.state import SwarmData
from manta.protocol import quotas as shown
from manta.protocol.allowance import Allowance
from manta.protocol.exchange import Sent
from manta.protocol.node import (
    GlobalWritten,
    JournalAck,
    JournalEntry,
    MetricsLogged,
    Progressed,
    ResultWritten,
)
from manta.protocol.pages import encoded
from manta.protocol.spec import SwarmSpec
from manta.protocol.values import BlobRef, Inline, Payload

ENTRY = 1024
"""Bytes of memory that an entry may take beside what it says."""


def check_spec(
    quotas: Quotas,
    spec: SwarmSpec,
    size: int,
    blobs: Iterable[str],
    owner_id: str,
    cluster_id: str,
) -> None:
    """Raises Refused if a swarm of this owner may not be created as it is. `size`: the bytes that
    it takes."""
    who = f"The swarm {spec.name!r}"
    count = len(spec.globals)
    breach = quotas.breach(Quota.GLOBALS, who, 0, count, owner_id, cluster_id)
    if breach := breach or quotas.storing(owner_id, size) or quotas.naming(owner_id, blobs):
        raise breach.refusal()


@dataclass
class Viable:
    """`entries`: those that are stored, and `Passed` for those that are left out."""

    entries: tuple[Entry, ...] = ()
    left_out: dict[Quota, Breach] = field(default_factory=dict)
    fatal: Breach | None = None
    """The entries end before the one that is too much."""


@dataclass
class Bounds:
    """Of one swarm. What it takes in the store is counted here, from what was found at the start:
    `said` is how many bytes its events take."""

    quotas: Quotas
    owner_id: str
    cluster_id: str
    who: str
    data: SwarmData
    said: int
    lines: int
    line_bytes: int
    weighed: int = 0
    """The bytes of memory that it took when its state was last weighed."""
    grown: int = 0
    """About how much it may have grown since."""
    full: bool = False
    """It had as many letters as it may have when one last looked."""
    told: set[Quota] = field(default_factory=set)
    """Of which users know that they are used up."""

    def breach(self, quota: Quota, have: int, asked: int = 1) -> Breach | None:
        who = self.who
        return self.quotas.breach(quota, who, have, asked, self.owner_id, self.cluster_id)

    def used(self, quota: Quota) -> int:
        data = self.data
        match quota:
            case Quota.RESULTS:
                return len(data.results)
            case Quota.GLOBALS:
                return len(data.globals)
            case Quota.METRICS:
                return len(data.metrics)
            case Quota.PROGRESS:
                return data.progressed
            case Quota.MESSAGES:
                return data.exchange.unreceived
            case Quota.HISTORY_BYTES:
                return self.said
            case Quota.STATE_BYTES:
                return self.weighed + self.grown
            case Quota.LOG_LINES:
                return self.lines
            case Quota.LOG_BYTES:
                return self.line_bytes
            case _:
                raise ValueError(f"{quota} is no quota of a swarm")

    def acknowledgement(self, node_id: str, upto: int, missing: tuple[BlobRef, ...]) -> JournalAck:
        """With what the node should count itself, as there is little left of it."""
        found = []
        for quota, near in _NEAR.items():
            limit = self.quotas.limits.of(quota, self.owner_id, self.cluster_id)
            if TABLE[quota].of_swarm:
                used, who = self.used(quota), self.who
            else:
                used = self.quotas.ledger.used(quota, self.owner_id)
                who = f"The user {self.quotas.limits.name(self.owner_id)}"
            if limit.value - used < near:
                row = TABLE[quota]
                told = (str(quota), who, row.what, limit.source, row.remedy, used, limit.value)
                found.append(Allowance(*told))
        counted = self.data.applied.get(node_id, 0) if found else 0
        return JournalAck(self.data.swarm_id, upto, missing, tuple(found), counted)

    def viable(self, entries: Sequence[Entry]) -> Viable:
        """`entries` may hold some that are left out for other reasons."""
        found = Viable()
        said = [entry for entry in entries if not isinstance(entry, Passed)]
        sizes = [encoded(entry) for entry in said]
        found.fatal = self._naming(said)
        if found.fatal is not None:
            return found
        is_heavy = self.holding(sum(sizes) + ENTRY * len(said)) is not None
        is_near = self.saying(sum(sizes)) is not None
        rest = iter(sizes)
        tags, kept, size = set[str](), list[Entry](), 0
        used: dict[Quota, int] = {}
        limits: dict[Quota, Limit] = {}
        beyond: dict[Quota, int] = {}
        for entry in entries:
            if isinstance(entry, Passed):
                _pass(kept, entry.count)
                continue
            more = next(rest)
            size += more
            found.fatal = self.saying(size) if is_near else None
            if is_heavy and found.fatal is None:
                found.fatal = self._hold(more + ENTRY)
            if found.fatal is not None:
                break
            quota = self._quota_of(entry, tags)
            if quota is None:
                kept.append(entry)
                continue
            if quota not in used:
                used[quota] = self.used(quota)
                limits[quota] = self.quotas.limits.of(quota, self.owner_id, self.cluster_id)
                if quota is Quota.MESSAGES:
                    beyond[quota] = self._under_way
            if used[quota] < limits[quota].value + beyond.get(quota, 0):
                used[quota] += 1
                kept.append(entry)
                continue
            breach = Breach(quota, self.who, used[quota], 1, limits[quota])
            if quota not in LEFT_OUT:
                found.fatal = breach
                break
            found.left_out[quota] = breach
            _pass(kept, 1)
        found.entries = tuple(kept)
        return found

    def _quota_of(self, entry: JournalEntry, tags: set[str]) -> Quota | None:
        """What the entry counts for; `tags` are the globals that these entries add, and grows."""
        if isinstance(entry, GlobalWritten):
            if entry.tag in tags or entry.tag in self.data.globals:
                return None
            tags.add(entry.tag)
            return Quota.GLOBALS
        return _COUNTS.get(type(entry))

    def of_global(self, tag: str, value: Payload) -> Breach | None:
        """Of one that a user sets."""
        more = tag not in self.data.globals
        return (
            (self.breach(Quota.GLOBALS, len(self.data.globals)) if more else None)
            or self.saying(_weight(value))
            or self.holding(_weight(value) + ENTRY)
            or (self.quotas.naming(self.owner_id, [value.digest]) if _is_blob(value) else None)
        )

    def take_lines(self, sizes: Sequence[int]) -> tuple[int, Breach | None]:
        """Counts lines of these sizes, as many of the first as there may be; returns how many, and
        why not the others."""
        breach, kept = self._logging(sizes) if sizes else None, len(sizes)
        if breach is not None:
            fits = range(1, len(sizes) + 1)
            kept = bisect_left(fits, True, key=lambda count: bool(self._logging(sizes[:count])))
        self.lines += kept
        self._tell(size := sum(sizes[:kept]))
        self.line_bytes += size
        return kept, breach and self._logging(sizes[kept:])

    def note(self, size: int, named: Iterable[str]) -> None:
        """Counts an event of this size, which names blobs and is about to be stored."""
        self.said += size
        self._tell(size)
        self.quotas.ledger.name(self.data.swarm_id, self.owner_id, named)

    def _tell(self, size: int) -> None:
        self.quotas.ledger.tell(self.data.swarm_id, self.owner_id, size)

    def _logging(self, sizes: Sequence[int]) -> Breach | None:
        """None if it may log lines of these sizes, too."""
        size = sum(sizes)
        return (
            self.breach(Quota.LOG_LINES, self.lines, len(sizes))
            or self.breach(Quota.LOG_BYTES, self.line_bytes, size)
            or self._storing(size)
        )

    # Memory.

    def holding(self, more: int) -> Breach | None:
        """None if it may take about so many bytes of memory more. It is weighed when it has grown
        by a part of itself, or before it is said to be too much."""
        breach, grown = self._hold(more), self.grown
        is_due = grown >= max(weight.STEP, self.weighed // 8)
        if is_due or (breach is not None and grown * 16 >= breach.limit.value):
            self.weighed, self.grown = weight.weigh(self.data), 0
            breach = self._hold(more)
        return breach

    def placing(self, count: int) -> Breach | None:
        """None if it may have so many attempts more."""
        return self.holding(count * weight.ATTEMPT)

    def _hold(self, more: int) -> Breach | None:
        breach = self.quotas.holding(
            self.data.swarm_id,
            self.who,
            self.owner_id,
            self.cluster_id,
            self.weighed + self.grown + more,
            is_over=self.data.state.final,
        )
        if breach is None:
            self.grown += more
        return breach

    @property
    def letters(self) -> Most:
        """How many letters it may have."""
        quotas = self.quotas
        limit = quotas.limits.of(Quota.MESSAGES, self.owner_id, self.cluster_id)
        size = quotas.limit(Quota.STATE_BYTES, self.owner_id, self.cluster_id).value // 4
        return Most.of(limit.value, size, len(self.data.live))

    @property
    def _under_way(self) -> int:
        """So many letters can come after the quota is used up, of nodes that ask: each sender may
        have been given a share for each node."""
        return self.letters.share.letters * len(self.data.live) * len(self.data.given)

    def opened(self) -> bool:
        """Whether those who wait since it had as many letters as it may have can go on."""
        was_full = self.full
        self.full = self.data.exchange.post.is_full(self.letters)
        return was_full and not self.full

    def saying(self, size: int) -> Breach | None:
        """None if its events may take so many bytes more."""
        return self.breach(Quota.HISTORY_BYTES, self.said, size) or self._storing(size)

    def _storing(self, size: int) -> Breach | None:
        return self.quotas.storing(self.owner_id, size)

    def described(self, name: str) -> shown.Quotas:
        found = []
        for quota, row in TABLE.items():
            if row.of_swarm:
                limit = self.quotas.limit(quota, self.owner_id, self.cluster_id)
                used = self.used(quota)
                found.append(shown.QuotaInfo(str(quota), used, *limit, row.what))
        return shown.Quotas("swarm", name, tuple(found))

    def _naming(self, entries: Iterable[JournalEntry]) -> Breach | None:
        blobs = [blob.digest for entry in entries for blob in references.of_entry(entry)]
        return self.quotas.naming(self.owner_id, blobs) if blobs else None


def _pass(kept: list[Entry], count: int) -> None:
    if kept and isinstance(last := kept[-1], Passed):
        kept[-1] = Passed(last.count + count)
    else:
        kept.append(Passed(count))


def _is_blob(value: object) -> TypeGuard[BlobRef]:
    return isinstance(value, BlobRef)


def _weight(value: object) -> int:
    """About the bytes that it takes in an event."""
    return len(value.data) if isinstance(value, Inline) else 80


_NEAR = {Quota.RESULTS: 10_000, Quota.HISTORY_BYTES: GIB, Quota.BLOB_BYTES: GIB}
"""What nodes count as well, and of how much less they are told."""
_COUNTS: dict[type, Quota] = {
    ResultWritten: Quota.RESULTS,
    MetricsLogged: Quota.METRICS,
    Progressed: Quota.PROGRESS,
    Sent: Quota.MESSAGES,
}
