"""The table of quotas. Pure.

A quota of a *user* bounds what all clusters together hold of theirs; a quota of a *swarm* bounds
what each swarm leaves behind. What is beyond one is refused with the arithmetic, at the first
place that knows of it: before anything is stored, and a value before its bytes are moved.

    a quota of a swarm that is used up   what happens
    metrics, progress, log lines         the swarm goes on, what comes later is left out, once told
    all others                           the swarm is FAILED, with the arithmetic as its reason
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from manta.actors.errors import Refused
from manta.console import text
from manta.manager.store.records import ADMIN_ROLE, USER_ROLE
from manta.protocol.allowance import exceeded
from manta.protocol.codes import Code

MIB, GIB = 1 << 20, 1 << 30


class Quota(StrEnum):
    CLUSTERS = "clusters"
    LIVE_SWARMS = "live-swarms"
    SWARMS = "swarms"
    NODES = "nodes"
    MODULES = "modules"
    TOKENS = "tokens"
    BLOBS = "blobs"
    BLOB_BYTES = "blob-bytes"
    UNNAMED_BLOBS = "unnamed-blobs"
    UNNAMED_BYTES = "unnamed-bytes"
    STORED_BYTES = "stored-bytes"
    MEMORY_BYTES = "memory-bytes"

    RESULTS = "results"
    GLOBALS = "globals"
    MESSAGES = "messages"
    HISTORY_BYTES = "history-bytes"
    STATE_BYTES = "state-bytes"
    METRICS = "metrics"
    PROGRESS = "progress"
    LOG_LINES = "log-lines"
    LOG_BYTES = "log-bytes"

    @property
    def in_bytes(self) -> bool:
        return self.endswith("-bytes")


class Row(NamedTuple):
    default: int
    of_admins: int
    what: str
    """What is counted, after a number or, of bytes, after a size."""
    remedy: str
    """What whoever has used it up can do."""
    of_swarm: bool = False
    in_cluster: bool = False
    """A setting for a cluster bounds all users in it together."""


_FEWER = "let the task write fewer"
TABLE: dict[Quota, Row] = {
    Quota.CLUSTERS: Row(20, 2000, "clusters", "delete one (manta cluster rm)"),
    Quota.LIVE_SWARMS: Row(
        50,
        500,
        "swarms that are not over",
        "stop one (manta stop), or wait until one is over",
        in_cluster=True,
    ),
    Quota.SWARMS: Row(
        5_000,
        50_000,
        "swarms",
        "remove some that are over (manta rm)",
        in_cluster=True,
    ),
    Quota.NODES: Row(1_000, 20_000, "nodes", "remove some (manta node rm)", in_cluster=True),
    Quota.MODULES: Row(2_000, 20_000, "modules", "remove some (manta module rm)"),
    Quota.TOKENS: Row(
        1_000, 1_000, "tokens that are valid", "revoke them (manta sign-out --everywhere)"
    ),
    Quota.BLOBS: Row(
        100_000,
        1_000_000,
        "large values",
        "remove swarms (manta rm), results (manta results --delete) or modules",
    ),
    Quota.BLOB_BYTES: Row(
        256 * GIB,
        4096 * GIB,
        "of large values",
        "remove swarms (manta rm), results (manta results --delete) or modules",
    ),
    Quota.UNNAMED_BLOBS: Row(
        10_000,
        50_000,
        "values that were pushed and that nothing names yet",
        "wait until these are named or deleted, which takes 15 minutes",
    ),
    Quota.UNNAMED_BYTES: Row(
        64 * GIB,
        512 * GIB,
        "of values that were pushed and that nothing names yet",
        "wait until these are named or deleted, which takes 15 minutes",
    ),
    Quota.STORED_BYTES: Row(
        32 * GIB,
        512 * GIB,
        "of what their swarms are, said and logged",
        "remove swarms that are over (manta rm)",
    ),
    Quota.MEMORY_BYTES: Row(
        4 * GIB,
        32 * GIB,
        "of what swarms hold in memory",
        "stop some (manta stop), or let their tasks say values over 64 KiB, which stay on disk",
    ),
    Quota.RESULTS: Row(1_000_000, 1_000_000, "results", f"{_FEWER} and larger ones", True),
    Quota.GLOBALS: Row(10_000, 10_000, "globals", f"{_FEWER} tags", True),
    Quota.MESSAGES: Row(
        200_000, 200_000, "messages that nobody has received", "let its tasks receive them", True
    ),
    Quota.HISTORY_BYTES: Row(
        8 * GIB,
        128 * GIB,
        "of what its tasks said",
        "let its tasks say less, or put small values together into larger ones",
        True,
    ),
    Quota.STATE_BYTES: Row(
        GIB,
        8 * GIB,
        "of what it holds in memory",
        "let its tasks say less, or values over 64 KiB, which stay on disk",
        True,
    ),
    Quota.METRICS: Row(1_000_000, 1_000_000, "metrics", "log metrics less often", True),
    Quota.PROGRESS: Row(100_000, 100_000, "progress messages", "report it less often", True),
    Quota.LOG_LINES: Row(2_000_000, 2_000_000, "log lines", "log less", True),
    Quota.LOG_BYTES: Row(512 * MIB, 512 * MIB, "of log lines", "log less", True),
}
LEFT_OUT = frozenset({Quota.METRICS, Quota.PROGRESS, Quota.LOG_LINES, Quota.LOG_BYTES})
"""A swarm goes on when it has used one of these up."""
MOST = 1 << 53
"""The highest limit that can be set."""
PLATFORM_ROLES = (ADMIN_ROLE, USER_ROLE)
"""Beside the roles in clusters, limits can be set for these: everybody has one of them."""


class Limit(NamedTuple):
    value: int
    source: str
    """Where it was set, as `set for the user ...`, or "the default"."""


class Breach(NamedTuple):
    """What is asked for is more than what is left."""

    quota: Quota
    who: str
    """The subject of the sentence, as `The user ada@lab`."""
    have: int
    asked: int
    limit: Limit

    @property
    def may_fit(self) -> bool:
        """Whether there is room for it once there is less of what there is."""
        return self.asked <= self.limit.value

    @property
    def sentence(self) -> str:
        row = TABLE[self.quota]
        shown = (shown_as(self.quota, one) for one in (self.have, self.asked, self.limit.value))
        have, asked, limit = shown
        remedy = row.remedy if self.may_fit else "do with less"
        source = self.limit.source
        return exceeded(self.quota, self.who, row.what, source, remedy, have, asked, limit)

    def refusal(self) -> Refused:
        counts = {"have": self.have, "asked": self.asked, "limit": self.limit.value}
        return Refused(Code.QUOTA, self.sentence, {"quota": str(self.quota), **counts})


def shown_as(quota: Quota, count: int) -> str:
    return text.size(count) if quota.in_bytes else f"{count:,}"


def find(name: str) -> Quota:
    """Raises Refused, which names those that there are."""
    try:
        return Quota(name)
    except ValueError:
        raise Refused(
            Code.INVALID, f"There is no quota {name!r}; there are: {', '.join(Quota)}."
        ) from None
