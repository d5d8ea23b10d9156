"""Messages between a node and its manager.

The node dials. It speaks to the manager's Gateway, the manager to its ManagerLink (`paths`).
State is level-triggered: the manager keeps each node's desired assignments under a
version; the node applies changes that continue its version, and otherwise fetches the
whole. What a node reports about a swarm is numbered in that swarm's journal, sent until
acknowledged, and applied once.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from manta.protocol.allowance import Allowance
from manta.protocol.audit import LogHead, TellLogHead
from manta.protocol.base import Count, Named, Version, requests
from manta.protocol.base import Instance as Instance
from manta.protocol.base import Message as Message
from manta.protocol.base import Ok as Ok
from manta.protocol.base import Seconds as Seconds
from manta.protocol.bundle import Bundle, Stacks
from manta.protocol.enrolment import EnrolmentRequest
from manta.protocol.exchange import CheckNext, ExchangeRead, ResolvePeer, Said
from manta.protocol.machine import Capabilities as Capabilities
from manta.protocol.machine import DatasetInfo as DatasetInfo
from manta.protocol.machine import DatasetUsed as DatasetUsed
from manta.protocol.machine import GpuInfo as GpuInfo
from manta.protocol.machine import Load as Load
from manta.protocol.peers import Addresses, FetchPeers, LinksTold, PeersChanged
from manta.protocol.roster import RosterTold, WantRoster
from manta.protocol.spec import Collect, ModuleSpec, Name, ResourceSpec, SignedOrder
from manta.protocol.spread import BlobTold, FreeResults, PushResult, WantBlob
from manta.protocol.tree import ReadTree
from manta.protocol.values import BlobRef, Payload

# What speaks for a node.


class Daemon(msgspec.Struct, frozen=True):
    """The process that speaks for a node."""

    id: str
    """Its own: no two daemons share one."""
    place: str
    """Names its state folder, in which only one daemon runs at a time. A copy has another."""
    host: str
    pid: int

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


# One attempt of one instance of one task.


class Assignment(msgspec.Struct, frozen=True, omit_defaults=True):
    """An order to run one attempt. It stands until the manager revokes it."""

    instance: Instance
    module: ModuleSpec
    swarm_name: str
    node_id: str
    size: int
    """The number of the task's instances in this iteration."""
    class_name: str | None = None
    datasets: tuple[str, ...] = ()
    outbound: tuple[str, ...] = ()
    """Where it may connect to, by what it and its module ask for."""
    resources: ResourceSpec | None = None
    timeout: Seconds | None = None
    priority: int = 0
    seed: int = 0
    task_id: str = ""
    gpu: bool = False
    user: str = ""
    """Whose swarm it is: an address, which the node's owner is told."""
    collect: Collect = "all"
    begun: bool = False
    """The manager has heard that it began: a daemon that does not know it must not run it."""
    direct: bool = False
    """What it says to others goes from node to node, not through the manager."""
    epoch: str = ""
    """The manager's timeline of the swarm. One that was restored from a backup may give an attempt
    the name of another, which ran in a past that it has lost."""
    signed: SignedOrder | None = None
    """What the node verifies itself (`manta.protocol.signed`)."""


# Node to manager.


class Register(Message, frozen=True):
    """The first message on each connection. `journals`: as in a heartbeat."""

    alias: Name
    capabilities: Capabilities
    load: Load = Load()
    draining: bool = False
    daemon: Daemon | None = None
    trouble: str = ""
    """As in a Heartbeat."""
    journals: dict[str, Count] = {}
    acknowledged: dict[str, Count] = {}
    """By swarm: the last journal entry that the manager has ever said it holds. A manager that
    holds fewer has gone back to an older database."""
    peer_addresses: Addresses | None = None
    """Where other nodes may connect to it; none if it only dials. None from a node that is not told
    of others."""
    blob_port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    """Where it gives blobs to other nodes, at the same hosts; 0 if it gives none."""


class Registered(Message, frozen=True):
    node_id: str
    cluster_id: str
    alias: str
    heartbeat_interval: Seconds
    bulk_address: str
    desired: Desired
    acknowledged: dict[str, Count] = {}
    """By swarm: the number of the last journal entry that the manager holds."""
    has_rooms: bool = False
    """It answers ReadRoom."""
    has_rosters: bool = False
    """It answers WantRoster."""
    has_spreads: bool = False
    """It answers WantBlob."""
    has_audit: bool = False
    """It answers TellLogHead."""
    has_holds: bool = False
    """It takes TaskHeld."""
    directories: dict[str, int] = {}
    """By swarm: the versions of the directories that the node should have, and of no others."""


MOST_HOLDS = 1000
"""Swarms that a heartbeat names as those of which the node holds results, or keeps what tasks told
each other."""


class Heartbeat(Message, frozen=True):
    """`draining`: the node was told to drain or to stop, and takes no new work. `trouble`: why it
    cannot take any, as the rest of a sentence that begins with its name; "" if it can."""

    desired_version: Version
    load: Load
    draining: bool = False
    trouble: str = ""
    journals: dict[str, Count] = {}
    """By swarm: the number of the last journal entry, where not all are acknowledged."""
    links: LinksTold | None = None
    """Its links with other nodes, if they have changed since it told of them over this link."""
    holds: Annotated[tuple[Named, ...], msgspec.Meta(max_length=MOST_HOLDS)] = ()
    """Swarms of which it holds results, as many as fit: the next ones follow in the next one."""
    spools: Annotated[tuple[Named, ...], msgspec.Meta(max_length=MOST_HOLDS)] = ()
    """Swarms of which its disk keeps what tasks told each other, likewise."""
    capabilities: Capabilities | None = None
    """What it has, if that has changed since it told of it over this link."""


class HeartbeatReply(Message, frozen=True):
    """`notice`: what its operator should know of the node. `directories`: as in Registered.
    `rosters`: by swarm, the versions of the rosters that it was told last."""

    desired_version: int
    notice: str = ""
    directories: dict[str, int] = {}
    rosters: dict[str, int] = {}
    over: tuple[str, ...] = ()
    """Of the swarms of which the node holds results: those that were removed."""
    ended: tuple[str, ...] = ()
    """Of the swarms of `spools`: those that have ended, or were removed."""


class FetchDesired(Message, frozen=True):
    """The rest of a `version` of which `after` assignments were received; else the whole."""

    version: Version = 0
    after: Count = 0


class Desired(Message, frozen=True):
    """All that the node is to run. It stops warm runtimes of swarms that are not in `swarms`.

    As many assignments as fit into a message, from the one at `after`; `more` says that others
    follow.
    """

    version: int
    assignments: tuple[Assignment, ...] = ()
    swarms: tuple[str, ...] = ()
    after: int = 0
    more: bool = False


class ReadGlobal(Message, frozen=True):
    swarm_id: str
    tag: str


class GlobalValue(Message, frozen=True):
    """`value` is None when the tag was never set."""

    value: Payload | None
    version: int = 0


class ListGlobals(Message, frozen=True):
    swarm_id: str


class Tags(Message, frozen=True):
    tags: tuple[str, ...]


class SelectResults(Message, frozen=True):
    """`after` entries were received already."""

    swarm_id: str
    tag: str
    iteration: Count
    after: Count = 0


class ResultEntry(msgspec.Struct, frozen=True, array_like=True):
    """`held`: the value is on the node."""

    node_id: str
    alias: str
    index: int
    iteration: int
    attempt: int
    value: Payload
    held: bool = False


class ResultEntries(Message, frozen=True):
    """In order of alias and index, without those of attempts that do not count.

    As many as fit into a message; `more` says that others follow.
    """

    entries: tuple[ResultEntry, ...]
    more: bool = False


DENIED = "Denied"
"""The kind of the error of an attempt that its node's owner does not allow."""


# Journal entries: what happened to an instance, in that order.


class TaskError(msgspec.Struct, frozen=True, omit_defaults=True):
    """`sentence` is for the user; `traceback` is of the task's own code. `bundle` is what else the
    node knows of it, where it is the end of an attempt that ran there."""

    kind: str
    sentence: str
    traceback: str = ""
    last_lines: tuple[str, ...] = ()
    bundle: Bundle | None = None


class Timings(msgspec.Struct, frozen=True, array_like=True):
    """Seconds that an attempt spent on its node, by phase."""

    queued: Seconds = 0.0
    preparing: Seconds = 0.0
    starting: Seconds = 0.0
    computing: Seconds = 0.0
    moving: Seconds = 0.0
    loading: Seconds = 0.0
    """Importing the module."""


class GlobalRead(msgspec.Struct, frozen=True):
    """An attempt has read this version of a global: the latest, of several."""

    tag: str
    version: int


MOST_READ = 100
"""Globals of an attempt of which it is told that it has read them."""


class TaskStarted(Message, frozen=True):
    """`datasets`: what it was given, as its node's owner describes it."""

    instance: Instance
    at: Seconds
    datasets: tuple[DatasetUsed, ...] = ()


class TaskHeld(Message, frozen=True):
    """It waits for the node's owner, who was asked `at`, and has not begun."""

    instance: Instance
    at: Seconds


class ResultWritten(Message, frozen=True):
    """`held`: the value stays on the node, which gives it to whoever may read it."""

    instance: Instance
    tag: str
    value: Payload
    held: bool = False


class GlobalWritten(Message, frozen=True):
    instance: Instance
    tag: str
    value: Payload


class MetricsLogged(Message, frozen=True):
    instance: Instance
    metrics: dict[str, float]
    step: int | None
    at: Seconds


class Progressed(Message, frozen=True):
    instance: Instance
    fraction: float
    message: str
    at: Seconds


class NextIteration(Message, frozen=True):
    """A task called `schedule_next_iter`; empty fields mean what the graph says."""

    instance: Instance
    node_ids: tuple[str, ...] = ()
    alias: str | None = None


class StopRequested(Message, frozen=True):
    """A task called `stop_swarm`."""

    instance: Instance


class TaskEnded(Message, frozen=True):
    """Exactly one for each assignment that was accepted; `state` is a final AttemptState. `reads`:
    the globals that it has read, as many as are told."""

    instance: Instance
    state: str
    at: Seconds
    output: Payload | None = None
    error: TaskError | None = None
    timings: Timings = Timings()
    reads: Annotated[tuple[GlobalRead, ...], msgspec.Meta(max_length=MOST_READ)] = ()


JournalEntry = (
    TaskStarted
    | TaskHeld
    | ResultWritten
    | GlobalWritten
    | MetricsLogged
    | Progressed
    | NextIteration
    | StopRequested
    | Said
    | TaskEnded
)


class JournalBatch(Message, frozen=True):
    """Entries `first`, `first` + 1, ... of a swarm on this node, whose blobs were pushed before."""

    swarm_id: str
    first: Annotated[int, msgspec.Meta(ge=1, le=1 << 53)]
    entries: tuple[JournalEntry, ...]


class LogLine(msgspec.Struct, frozen=True, array_like=True):
    """`stream` is stdout, stderr or a logging level in lower case."""

    instance: Instance
    at: Seconds
    stream: str
    text: str


class LogBatch(Message, frozen=True):
    """Log lines have numbers of their own, so that they never wait for blobs."""

    swarm_id: str
    first: Annotated[int, msgspec.Meta(ge=1, le=1 << 53)]
    lines: tuple[LogLine, ...]


class Goodbye(Message, frozen=True):
    """The daemon stops."""

    reason: str = ""


# Manager to node.


class DesiredChanged(Message, frozen=True):
    """Applies to `version - 1`; a node with another version fetches the whole. What is too large
    for a message is not sent, which leaves a gap in the versions.

    Tasks of swarms that are no longer in `swarms` are asked to end, those of swarms in `killed`
    are killed.
    """

    version: int
    assign: tuple[Assignment, ...] = ()
    revoke: tuple[Instance, ...] = ()
    swarms: tuple[str, ...] = ()
    killed: tuple[str, ...] = ()


class JournalAck(Message, frozen=True):
    """Everything up to and including `upto` is durable; `missing` blobs must be pushed again.

    `left`: the quotas that are nearly used up, in which the entries up to `counted` are counted.
    """

    swarm_id: str
    upto: int
    missing: tuple[BlobRef, ...] = ()
    left: tuple[Allowance, ...] = ()
    counted: int = 0


class LogAck(Message, frozen=True):
    swarm_id: str
    upto: int


class StopNode(Message, frozen=True):
    """Sent on a user's request; `drain` lets running tasks finish first."""

    drain: bool = False


class ReadStacks(Message, frozen=True):
    """Asks for the stacks of an attempt that runs on the node."""

    instance: Instance


ReadStacks.reply = Stacks


NodeRequest: Any = requests(
    {
        Register: Registered,
        Heartbeat: HeartbeatReply,
        FetchDesired: Desired,
        ReadGlobal: GlobalValue,
        ListGlobals: Tags,
        SelectResults: ResultEntries,
        TellLogHead: LogHead,
    }
)
StopNode.reply = Ok

NodeReport = JournalBatch | LogBatch | Goodbye
FromNode: Any = (
    NodeRequest
    | EnrolmentRequest
    | FetchPeers
    | WantRoster
    | WantBlob
    | BlobTold
    | ResolvePeer
    | CheckNext
    | ExchangeRead
    | NodeReport
)
"""What a manager accepts on its node port."""

ToNode = (
    DesiredChanged
    | PeersChanged
    | RosterTold
    | JournalAck
    | LogAck
    | StopNode
    | ReadTree
    | ReadStacks
    | PushResult
    | FreeResults
)
"""What a node accepts from its manager."""
