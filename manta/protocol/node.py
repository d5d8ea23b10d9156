"""What a node and its manager say to each other.

The node dials. It speaks to `manager/gateway`, the manager to `node/manager-link`.
State is level-triggered: the manager holds each node's desired assignments under a
version, the node applies changes that continue its version and otherwise fetches the
whole. Everything that a node has to tell about a swarm is numbered in that swarm's
journal, sent until acknowledged, and applied once.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from manta.protocol.spec import ModuleSpec, Name, ResourceSpec
from manta.protocol.values import BlobRef, Payload

Seconds = float


class Message(msgspec.Struct, frozen=True, tag=True, omit_defaults=True):
    """Root of the messages; `reply` names the answer of those that are asked."""

    reply: ClassVar[type[msgspec.Struct] | None] = None


class Ok(Message, frozen=True):
    """Done; nothing to add."""


# What a node is.


class DatasetInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    name: str
    size: int
    format: str
    """The file's suffix without its dot, "folder" for a folder."""


class GpuInfo(msgspec.Struct, frozen=True):
    name: str
    memory: int


class Capabilities(msgspec.Struct, frozen=True, omit_defaults=True):
    """Found at start-up. Sizes in bytes, frequency in MHz."""

    hostname: str = ""
    architecture: str = ""
    system: str = ""
    python: str = ""
    manta: str = ""
    cores: int = 1
    cpu_frequency: float = 0.0
    memory: int = 0
    disk: int = 0
    gpus: tuple[GpuInfo, ...] = ()
    runners: tuple[str, ...] = ()
    isolation: str = "none"
    max_concurrent_tasks: int = 1
    datasets: tuple[DatasetInfo, ...] = ()
    labels: dict[str, str] = {}


class Load(msgspec.Struct, frozen=True, omit_defaults=True):
    """Now. Usage is a fraction 0 to 1; memory and disk in bytes."""

    cpu_usage: float = 0.0
    memory_available: int = 0
    disk_free: int = 0
    tasks_running: int = 0
    tasks_queued: int = 0


# One attempt of one instance of one task.


class Instance(msgspec.Struct, frozen=True, array_like=True, order=True):
    """`index` counts a task's instances in one iteration, `attempt` the tries of one."""

    swarm_id: str
    alias: str
    index: int
    iteration: int
    attempt: int = 0

    def __str__(self) -> str:
        retry = f" (attempt {self.attempt + 1})" if self.attempt else ""
        return f"{self.alias}.{self.index} in iteration {self.iteration}{retry}"


class Assignment(msgspec.Struct, frozen=True, omit_defaults=True):
    """An order to run one attempt. It stands until the manager revokes it."""

    instance: Instance
    module: ModuleSpec
    swarm_name: str
    node_id: str
    size: int
    """How many instances the task has in this iteration."""
    class_name: str | None = None
    datasets: tuple[str, ...] = ()
    resources: ResourceSpec | None = None
    timeout: Seconds | None = None
    priority: int = 0
    seed: int = 0
    task_id: str = ""


# Node to manager.


class Enroll(Message, frozen=True):
    """From a key that is not known yet: a one-time token makes it a node's key."""

    token: str
    alias: Name
    id_mode: str = "hardware"
    hardware_id: str = ""


class Enrolled(Message, frozen=True):
    node_id: str
    cluster_id: str
    alias: str


class Register(Message, frozen=True):
    """First message after each connect. `boot_id` is new with each start of the daemon."""

    boot_id: str
    alias: Name
    capabilities: Capabilities
    observed: tuple[Instance, ...] = ()
    """The assignments that the node still holds, whether queued, running or ended."""


class Registered(Message, frozen=True):
    node_id: str
    cluster_id: str
    alias: str
    heartbeat_interval: Seconds
    bulk_address: str
    desired: Desired
    acknowledged: dict[str, int] = {}
    """By swarm: the last journal entry that the manager holds."""


class Heartbeat(Message, frozen=True):
    desired_version: int
    load: Load


class HeartbeatReply(Message, frozen=True):
    desired_version: int


class FetchDesired(Message, frozen=True):
    pass


class Desired(Message, frozen=True):
    """All that the node shall run. Warm runtimes of swarms not in `swarms` are to be stopped."""

    version: int
    assignments: tuple[Assignment, ...] = ()
    swarms: tuple[str, ...] = ()


class ReadGlobal(Message, frozen=True):
    swarm_id: str
    tag: str


class GlobalValue(Message, frozen=True):
    """`value` is None when nobody has set the tag."""

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
    iteration: int
    after: int = 0


class ResultEntry(msgspec.Struct, frozen=True, array_like=True):
    node_id: str
    alias: str
    index: int
    iteration: int
    attempt: int
    value: Payload


class ResultEntries(Message, frozen=True):
    """Ordered by alias and index; only those of attempts that count.

    As many as fit into a message; `more`: ask for those after them.
    """

    entries: tuple[ResultEntry, ...]
    more: bool = False


# What tasks read of the exchange. `wait`: seconds after which it is answered all the same.

Wait = Annotated[float, msgspec.Meta(ge=0, le=25)]


class ResolvePeer(Message, frozen=True):
    """`name` is a node's id or alias in the instance's cluster. Refused when there is none, or
    when the networks of the swarm forbid this instance to talk to it."""

    instance: Instance
    name: str


class Peer(Message, frozen=True):
    node_id: str
    alias: str


class ReadPeers(Message, frozen=True):
    instance: Instance


class PeerInstance(msgspec.Struct, frozen=True, array_like=True):
    """An instance of the same task in the same iteration. `share` is its part by measured
    speed; the shares of a task add up to 1."""

    rank: int
    node_id: str
    node_alias: str
    share: float


class PeerInstances(Message, frozen=True):
    peers: tuple[PeerInstance, ...]


class ReadBroadcast(Message, frozen=True):
    instance: Instance
    tag: str
    wait: Wait = 0.0


class ReadMessage(Message, frozen=True):
    """The `number`-th message (from 0) that this attempt claimed from `source` under the tag."""

    instance: Instance
    source: str
    tag: str
    number: int
    wait: Wait = 0.0


class ReadContributions(Message, frozen=True):
    """What `ranks` (empty: all) contributed for this instance to a collective.

    Ready when all have answered, or `enough` of them. `partial` asks for what is there now,
    ready or not. `on_loss`: "raise" makes a lost peer an end of the wait, "continue" goes on
    without it. `after` entries were received already.
    """

    instance: Instance
    number: int
    kind: str
    ranks: tuple[int, ...] = ()
    enough: int | None = None
    partial: bool = False
    on_loss: str = "raise"
    after: int = 0
    wait: Wait = 0.0


class ReadLock(Message, frozen=True):
    """Ready once this attempt holds the lock that it asked for."""

    instance: Instance
    name: str
    wait: Wait = 0.0


class ReadCheckpoint(Message, frozen=True):
    instance: Instance


class Contribution(msgspec.Struct, frozen=True, array_like=True):
    """`rank` is -1 where nobody's rank is asked for (broadcast, message, lock)."""

    rank: int
    value: Payload | None


class Exchanged(Message, frozen=True):
    """`ready`: `values` are what was asked for. Else `error` names a kind of
    `manta.light.errors` when the wait can never end, and `sentence` says of whom; without it,
    `sentence` names whom is waited for. `missing` ranks will never answer."""

    ready: bool
    values: tuple[Contribution, ...] = ()
    more: bool = False
    missing: tuple[int, ...] = ()
    error: str = ""
    sentence: str = ""


# Journal entries: what happened to an instance, in the order in which it happened.


class TaskError(msgspec.Struct, frozen=True, omit_defaults=True):
    """`sentence` is for the user; `traceback` is of the task's own code."""

    kind: str
    sentence: str
    traceback: str = ""
    last_lines: tuple[str, ...] = ()


class Timings(msgspec.Struct, frozen=True, array_like=True):
    """Seconds of one attempt on its node, by what they went to."""

    queued: Seconds = 0.0
    preparing: Seconds = 0.0
    starting: Seconds = 0.0
    computing: Seconds = 0.0
    moving: Seconds = 0.0


class TaskStarted(Message, frozen=True):
    instance: Instance
    at: Seconds


class ResultWritten(Message, frozen=True):
    instance: Instance
    tag: str
    value: Payload


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
    """A task called `schedule_next_iter`; empty means: as the graph says."""

    instance: Instance
    node_ids: tuple[str, ...] = ()
    alias: str | None = None


class StopRequested(Message, frozen=True):
    """A task called `stop_swarm`."""

    instance: Instance


# Exchange between the instances of a swarm, relayed by the manager. What a task says goes
# through the journal like all else; what it waits for it reads by long poll.


class Broadcasted(Message, frozen=True):
    """The latest of a tag in an iteration is what `get_broadcast` gives."""

    instance: Instance
    tag: str
    value: Payload


class Sent(Message, frozen=True):
    """To the node with the id `to`. The k-th that an instance sends there under a tag is one
    message, whichever attempt sent it: a retry does not send twice."""

    instance: Instance
    to: str
    tag: str
    value: Payload


class Receiving(Message, frozen=True):
    """Claims the next message from the node `source` under the tag, read by ReadMessage.

    When the attempt fails, what it had claimed goes to the next claim.
    """

    instance: Instance
    source: str
    tag: str


class Contributed(Message, frozen=True):
    """This instance's part in the task's collective of that number in this iteration, from 0.

    `to` is the rank that it is for, None for all. Of several attempts the first that
    contributed counts, so that all see the same. `value` is None in a barrier.
    """

    instance: Instance
    number: Annotated[int, msgspec.Meta(ge=0)]
    kind: str
    value: Payload | None = None
    to: int | None = None


class LockWanted(Message, frozen=True):
    """Queues for the swarm's lock of that name; the end of the attempt releases it."""

    instance: Instance
    name: str


class LockReleased(Message, frozen=True):
    instance: Instance
    name: str


class Checkpointed(Message, frozen=True):
    """Of this instance in this iteration: what a later attempt restores. The last one counts."""

    instance: Instance
    value: Payload


class TaskEnded(Message, frozen=True):
    """Exactly one for each assignment that was taken; `state` is a final AttemptState."""

    instance: Instance
    state: str
    at: Seconds
    output: Payload | None = None
    error: TaskError | None = None
    timings: Timings = Timings()


JournalEntry = (
    TaskStarted
    | ResultWritten
    | GlobalWritten
    | MetricsLogged
    | Progressed
    | NextIteration
    | StopRequested
    | TaskEnded
)


class JournalBatch(Message, frozen=True):
    """Entries first, first + 1, ... of this swarm on this node; blobs were pushed before."""

    swarm_id: str
    first: Annotated[int, msgspec.Meta(ge=1)]
    entries: tuple[JournalEntry, ...]


class LogLine(msgspec.Struct, frozen=True, array_like=True):
    """`stream` is stdout, stderr or a logging level in lower case."""

    instance: Instance
    at: Seconds
    stream: str
    text: str


class LogBatch(Message, frozen=True):
    """Log lines are numbered apart, so that they never wait for blobs."""

    swarm_id: str
    first: Annotated[int, msgspec.Meta(ge=1)]
    lines: tuple[LogLine, ...]


class Goodbye(Message, frozen=True):
    """The daemon stops in good order."""

    reason: str = ""


# Manager to node.


class DesiredChanged(Message, frozen=True):
    """Applies on top of `version - 1`; a node elsewhere fetches the whole."""

    version: int
    assign: tuple[Assignment, ...] = ()
    revoke: tuple[Instance, ...] = ()
    swarms: tuple[str, ...] = ()


class JournalAck(Message, frozen=True):
    """All up to and including `upto` is durable; `missing` blobs must be pushed again."""

    swarm_id: str
    upto: int
    missing: tuple[BlobRef, ...] = ()


class LogAck(Message, frozen=True):
    swarm_id: str
    upto: int


class StopNode(Message, frozen=True):
    """Sent on a user's request; `drain` lets running tasks finish first."""

    drain: bool = False


Enroll.reply = Enrolled
Register.reply = Registered
Heartbeat.reply = HeartbeatReply
FetchDesired.reply = Desired
ReadGlobal.reply = GlobalValue
ListGlobals.reply = Tags
SelectResults.reply = ResultEntries
ResolvePeer.reply = Peer
ReadPeers.reply = PeerInstances
ReadBroadcast.reply = Exchanged
ReadMessage.reply = Exchanged
ReadContributions.reply = Exchanged
ReadLock.reply = Exchanged
ReadCheckpoint.reply = GlobalValue
StopNode.reply = Ok

FromNode = (
    Enroll
    | Register
    | Heartbeat
    | FetchDesired
    | ReadGlobal
    | ListGlobals
    | SelectResults
    | JournalBatch
    | LogBatch
    | Goodbye
)
"""What a manager accepts on its node port."""

ToNode = DesiredChanged | JournalAck | LogAck | StopNode
"""What a node accepts from its manager."""
