"""How much is recorded of what users do and strangers try: each act, or how many. Pure.

What somebody does is recorded act by act, at a rate that no flood exceeds; what is beyond it, what
is read, and what is refused to strangers is recorded when it comes first, and then how often it
came, once in a WINDOW. So whoever floods a log adds few records to it, and hides nobody else's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from manta.audit.records import Record
from manta.protocol import clusters, enrolment, quotas, sign_in, user, users
from manta.protocol.base import Message
from manta.transports.security.admission import Buckets

WINDOW = 600.0
"""Seconds that a sum is of."""
RATE, BURST = 1.0, 1000.0
"""Acts of one user that are recorded one by one: so many a second, and at once."""
MOST_SUMS = 50
"""Different sums of one user, or of all strangers, in a WINDOW."""
MOST_USERS = 10_000

READS: frozenset[type[Message]] = frozenset(
    {user.ReadFeed, user.GetTasks, user.ReadStacks, user.SelectGlobal, user.RecallResult}
)
"""What gives out what tasks made: recorded in sum."""
LOOKS: frozenset[type[Message]] = frozenset(
    {
        clusters.GetCluster,
        clusters.GetNode,
        clusters.GetNodeLinks,
        clusters.ListClusters,
        clusters.ListNodes,
        clusters.WatchClusters,
        clusters.WatchNodes,
        enrolment.ExamineToken,
        enrolment.Inquire,
        quotas.GetQuotas,
        quotas.GetSwarmQuotas,
        sign_in.WhoAmI,
        user.CheckSwarm,
        user.ExplainSwarm,
        user.FindMissingBlobs,
        user.GetManagerStatus,
        user.GetSpec,
        user.GetSwarm,
        user.GetTree,
        user.ListGlobalTags,
        user.ListSwarms,
        user.WaitSwarm,
        user.WatchSwarms,
        users.GetModule,
        users.GetUser,
        users.ListModules,
        users.ListRoles,
        users.ListUsers,
        users.ResolveModule,
        users.WatchModules,
    }
)
"""What changes nothing and gives out nothing that tasks made: recorded only if it is forbidden. All
else that users send is an act."""


class _Key(NamedTuple):
    act: str
    outcome: str
    about: bytes


class _Sum(msgspec.Struct):
    record: Record
    since: float
    times: int = 0
    items: int = 0


class Acts:
    """Takes what was done, with the time; returns what is to be recorded."""

    def __init__(self) -> None:
        self._buckets = Buckets(RATE, BURST, MOST_USERS)
        self._sums: dict[str, dict[_Key, _Sum]] = {}

    def each(self, record: Record, whose: str, now: float) -> list[Record]:
        """An act of its own. `whose` is what is bounded together."""
        if self._buckets.of(whose).take(now):
            return [record]
        return self.in_sum(record, whose, now, is_told=False)

    def in_sum(
        self, record: Record, whose: str, now: float, items: int = 0, *, is_told: bool = True
    ) -> list[Record]:
        """One of many. `items` are added up; the first is told at once, if `is_told`."""
        sums = self._sums.setdefault(whose, {})
        key = _key(record)
        if key not in sums and len(sums) >= MOST_SUMS:
            record = msgspec.structs.replace(record, about={"others": True})
            key, is_told = _key(record), False
        found = sums.get(key)
        if found is None:
            found = sums[key] = _Sum(record, now)
            if is_told:
                more = {"items": items} if items else {}
                return [msgspec.structs.replace(record, about={**record.about, **more})]
        found.times += 1
        found.items += items
        return []

    def due(self, now: float, at: float) -> list[Record]:
        """The sums whose WINDOW is over; `at` is the wall's time for them."""
        return list(self._told(now - WINDOW, now, at))

    def rest(self, now: float, at: float) -> list[Record]:
        """All sums, for an end."""
        return list(self._told(now, now, at))

    def _told(self, since: float, now: float, at: float) -> Iterator[Record]:
        for whose, sums in list(self._sums.items()):
            for key, found in list(sums.items()):
                if found.since > since:
                    continue
                del sums[key]
                if not found.times:
                    continue
                more: dict[str, object] = {"times": found.times}
                more["seconds"] = round(now - found.since, 1)
                if found.items:
                    more["items"] = found.items
                about = {**found.record.about, **more}
                yield msgspec.structs.replace(found.record, at=at, about=about)
                # What goes on is not told anew as the first of its kind.
                sums[key] = _Sum(found.record, now)
            if not sums:
                del self._sums[whose]


def _key(record: Record) -> _Key:
    return _Key(record.act, record.outcome, msgspec.json.encode(record.about))
