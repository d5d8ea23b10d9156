"""Messages about swarms, from the SDK to the manager.

Feeds are read by cursor: `ReadFeed` answers at once when there is something after the
cursor, else when there is or when `wait` seconds have passed. A feed ends (`ended`) once the
swarm is in a final state and everything was read.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from manta.protocol.base import Count, Cursor, Named, Wait, requests
from manta.protocol.clusters import ClusterRequest
from manta.protocol.machine import DatasetUsed
from manta.protocol.node import (
    GlobalRead,
    Instance,
    LogLine,
    Message,
    Ok,
    Seconds,
    TaskError,
    Timings,
)
from manta.protocol.quotas import QuotaRequest
from manta.protocol.sign_in import SignInRequest
from manta.protocol.spec import SwarmSpec
from manta.protocol.tree import Tree
from manta.protocol.users import ModuleRequest, UserRequest
from manta.protocol.values import BlobRef, Payload

# Swarms.


class SwarmInfo(Message, frozen=True, omit_defaults=False):
    """Times are seconds since the epoch; `iteration` counts from 0, -1 before the first.

    `complete` is False while nodes, after an interruption, have yet to report what they did.
    """

    swarm_id: str
    name: str
    cluster_id: str
    status: str
    reason: str = ""
    iteration: int = -1
    max_iteration: int | None = None
    created_at: Seconds = 0.0
    started_at: Seconds | None = None
    ended_at: Seconds | None = None
    task_count: int = 0
    complete: bool = True


class Verdict(msgspec.Struct, frozen=True):
    """What a placement rule says about a node for a task."""

    task: str
    node_id: str
    node_alias: str
    accepted: bool
    rule: str
    reason: str


class PlacedInstance(msgspec.Struct, frozen=True):
    task: str
    index: int
    node_id: str
    node_alias: str
    isolation: str = ""
    """The level at which the node runs it; "" for a node that is not there any more."""


class Plan(Message, frozen=True):
    """`problems` is empty when every task can be placed; each names task and remedy."""

    placements: tuple[PlacedInstance, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    problems: tuple[str, ...] = ()
    waiting: dict[str, int] = {}
    """By task: the number of further instances, which are placed as nodes become free."""
    notes: tuple[str, ...] = ()
    """What the SDK says of the swarm that was checked."""
    notices: tuple[str, ...] = ()
    """What keeps a running swarm waiting: silent nodes, a full disk, and the like."""
    provided: tuple[str, ...] = ()
    """What nodes give its tasks besides a place: what they install, and where to they may
    connect."""


class Planned(Message, frozen=True):
    """Either a plan or, when that is too large for a message, a blob whose value is the packed
    Plan."""

    plan: Plan | None = None
    blob: BlobRef | None = None


class CheckSwarm(Message, frozen=True):
    cluster: Named
    spec: SwarmSpec


class SendSwarm(Message, frozen=True):
    """Module packages and globals that are blobs were pushed before.

    Refused when the swarm can never be placed, unless `wait`.
    """

    cluster: Named
    spec: SwarmSpec
    wait: bool = False


class MissingBlobs(Message, frozen=True):
    blobs: tuple[BlobRef, ...]


MOST_BLOBS = 2000
"""Blobs that are asked for at once."""


class FindMissingBlobs(Message, frozen=True):
    """Asks which of these must be pushed before they can be named."""

    blobs: Annotated[tuple[BlobRef, ...], msgspec.Meta(max_length=MOST_BLOBS)]


class StartSwarm(Message, frozen=True):
    swarm: Named


class StopSwarm(Message, frozen=True):
    swarm: Named
    force: bool = False


class PauseSwarm(Message, frozen=True):
    swarm: Named


class ResumeSwarm(Message, frozen=True):
    swarm: Named


class RemoveSwarm(Message, frozen=True):
    swarm: Named


class GetSwarm(Message, frozen=True):
    swarm: Named


class ListSwarms(Message, frozen=True):
    cluster: Named | None = None
    after: Cursor = ""


class Swarms(Message, frozen=True):
    swarms: tuple[SwarmInfo, ...]
    more: bool = False
    revision: str = ""


class WatchSwarms(Message, frozen=True):
    cluster: Named | None = None
    since: Cursor = ""
    wait: Wait = 0.0


class ExplainSwarm(Message, frozen=True):
    swarm: Named


class GetSpec(Message, frozen=True):
    swarm: Named


class SwarmSpecified(Message, frozen=True):
    """As it was sent, but for its signatures: those are for the nodes that check them."""

    spec: SwarmSpec


class TaskInfo(msgspec.Struct, frozen=True):
    """One attempt; `status` is an AttemptState."""

    instance: Instance
    task_id: str
    status: str
    node_id: str
    node_alias: str
    placed_at: Seconds
    started_at: Seconds | None = None
    ended_at: Seconds | None = None
    output: Payload | None = None
    error: TaskError | None = None
    timings: Timings | None = None
    progress: float | None = None
    datasets: tuple[DatasetUsed, ...] = ()
    """What it was given, once it has begun."""
    reads: tuple[GlobalRead, ...] = ()
    """Globals that it had read when it ended."""


LONGEST_TASK = 300
"""Characters of a task's id."""


class ReadStacks(Message, frozen=True):
    """Of a task that runs: `task` is its alias, and further as in its id, but for the swarm."""

    swarm: Named
    task: Annotated[str, msgspec.Meta(max_length=LONGEST_TASK)]


class TaskStacks(Message, frozen=True):
    instance: Instance
    node_alias: str
    text: str


class GetTasks(Message, frozen=True):
    """`after` tasks were received already."""

    swarm: Named
    iteration: Count | None = None
    after: Count = 0


class Tasks(Message, frozen=True):
    """As many as fit into a message; `more` says that others follow."""

    tasks: tuple[TaskInfo, ...]
    more: bool = False


# Feeds: what a swarm produces, in order.


class ResultItem(msgspec.Struct, frozen=True, tag="result"):
    iteration: int
    tag: str
    node_id: str
    node_alias: str
    alias: str
    index: int
    attempt: int
    counts: bool
    """False when a failed or superseded attempt wrote it."""
    value: Payload
    held: bool = False
    """The value is on the node: RecallResult has it brought here."""


class MetricsItem(msgspec.Struct, frozen=True, tag="metrics"):
    instance: Instance
    node_id: str
    node_alias: str
    metrics: dict[str, float]
    step: int | None
    at: Seconds


class LogItem(msgspec.Struct, frozen=True, tag="log"):
    node_id: str
    node_alias: str
    line: LogLine


class EventItem(msgspec.Struct, frozen=True, tag="event"):
    """`kind`: state, iteration, placed, waiting, started, finished, failed, retried, lost,
    progress, deleted, ignored, quota, notice."""

    at: Seconds
    kind: str
    sentence: str
    iteration: int = -1
    alias: str = ""
    index: int = -1
    node_alias: str = ""
    fraction: float | None = None


FeedItem = ResultItem | MetricsItem | LogItem | EventItem
FeedName = Literal["results", "metrics", "logs", "events"]


class ReadFeed(Message, frozen=True):
    swarm: Named
    feed: FeedName
    after: Count = 0
    limit: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 1000
    wait: Wait = 0.0
    tag: Named | None = None
    """Results only."""
    settled: bool = False
    """Results only: those of attempts that have ended and count, in the order in which these
    ended. A cursor is of one of the two orders."""
    node: Named | None = None
    """Logs only: a node's id or alias."""
    task: Named | None = None
    """Logs only: a task's alias."""
    told: str | None = None
    """Events only: `told` of the last page, "" at first. If the swarm's situation differs, that is
    an event of the kind `notice`, which is not stored and not counted by the cursor."""


class FeedPage(Message, frozen=True):
    items: tuple[FeedItem, ...]
    cursor: int
    ended: bool
    swarm: SwarmInfo
    told: str = ""


class DeleteResults(Message, frozen=True):
    """Of one tag or all, of one iteration or all. Refused for a tag without results."""

    swarm: Named
    tag: Named | None = None
    iteration: Count | None = None


class RecallResult(Message, frozen=True):
    """A result that stays on the node that made it: it is brought to the manager for a while."""

    swarm: Named
    tag: Named
    iteration: Count
    node_id: Named
    value: BlobRef


class RecalledResult(Message, frozen=True):
    """`here`: its value can be fetched from the manager; else it is on its way: ask again."""

    here: bool


class DeletedResults(Message, frozen=True):
    count: int


class SelectGlobal(Message, frozen=True):
    swarm: Named
    tag: Named


class SetGlobal(Message, frozen=True):
    swarm: Named
    tag: Named
    value: Payload


class ListGlobalTags(Message, frozen=True):
    swarm: Named


class GlobalTags(Message, frozen=True):
    tags: tuple[str, ...]


class SelectedGlobal(Message, frozen=True):
    value: Payload | None


class WaitSwarm(Message, frozen=True):
    """Answered when the swarm is in a final state, or after `wait` seconds."""

    swarm: Named
    wait: Wait


class ManagerStatus(Message, frozen=True):
    version: str
    started_at: Seconds
    clusters: int
    nodes_connected: int
    swarms_active: int
    health: dict[str, str] = {}


class GetManagerStatus(Message, frozen=True):
    pass


class GetTree(Message, frozen=True):
    """The supervision tree of the manager or a node; `after` is the last path received."""

    node: Named | None = None
    after: Cursor = ""


SwarmRequest: Any = requests(
    {
        CheckSwarm: Planned,
        FindMissingBlobs: MissingBlobs,
        SendSwarm: SwarmInfo,
        StartSwarm: SwarmInfo,
        StopSwarm: SwarmInfo,
        PauseSwarm: SwarmInfo,
        ResumeSwarm: SwarmInfo,
        RemoveSwarm: Ok,
        GetSwarm: SwarmInfo,
        ListSwarms: Swarms,
        WatchSwarms: Swarms,
        ExplainSwarm: Planned,
        GetSpec: SwarmSpecified,
        GetTasks: Tasks,
        ReadStacks: TaskStacks,
        ReadFeed: FeedPage,
        DeleteResults: DeletedResults,
        RecallResult: RecalledResult,
        SelectGlobal: SelectedGlobal,
        SetGlobal: Ok,
        ListGlobalTags: GlobalTags,
        WaitSwarm: SwarmInfo,
        GetManagerStatus: ManagerStatus,
        GetTree: Tree,
    }
)

FromUser: Any = (
    SignInRequest | UserRequest | ClusterRequest | ModuleRequest | QuotaRequest | SwarmRequest
)
"""What a manager accepts on its user port."""
