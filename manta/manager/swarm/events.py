"""The events that a swarm's machine handles, and the actions with which it answers.

Events are stored before their actions are performed: replaying the stored records gives the
same state. Actions are not stored; what must outlive a crash is derived from the state
(`SwarmMachine.desired`, `SwarmMachine.outstanding`).

A shell performs actions in order, once all records up to and including their event's are
durable. This also holds for an event that changed nothing and is not stored: a repeated
batch is acknowledged again, and the record of the first may not be on disk yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from manta.manager.errors import DamagedLog
from manta.manager.placement.place import Placement
from manta.manager.swarm.exchange import Topic
from manta.protocol.node import Assignment, Instance, JournalEntry
from manta.protocol.spec import SwarmSpec
from manta.protocol.states import SwarmState
from manta.protocol.user import FeedName
from manta.protocol.values import BlobRef, Payload
from manta.transports.codec.stored import Damaged, Thing, read_stored

# Events.


class Event(msgspec.Struct, frozen=True, tag=True, omit_defaults=True):
    """Base of the events. The time of each is kept beside it (`Record`)."""


class Created(Event, frozen=True):
    """The first of a swarm's events. `wait`: wait for nodes however long it takes. `direct`: what
    its tasks say to each other does not pass the manager; earlier versions created none that is."""

    spec: SwarmSpec
    wait: bool = False
    direct: bool = False


class Started(Event, frozen=True):
    """A user starts it."""


class Stopped(Event, frozen=True):
    """A user stops it. `force`: its tasks are killed, not asked to end."""

    by: str = "a user"
    force: bool = False


class Paused(Event, frozen=True):
    """A user pauses it: running tasks continue, nothing new is placed."""

    by: str = "a user"


class Resumed(Event, frozen=True):
    """A user resumes it."""

    by: str = "a user"


class GlobalSet(Event, frozen=True):
    """A user sets a global."""

    tag: str
    value: Payload


class ResultsDeleted(Event, frozen=True):
    """A user deletes results: of one tag or all, of one iteration or all."""

    by: str = "a user"
    tag: str | None = None
    iteration: int | None = None


class Placed(Event, frozen=True):
    """Answers the AskPlacement of that number."""

    number: int
    placements: tuple[Placement, ...]
    waiting: int = 0
    """Further instances, which these nodes are given as places become free."""


class Unplaceable(Event, frozen=True):
    """Answers the AskPlacement of that number; `problem` names task and remedy."""

    number: int
    problem: str


class Passed(msgspec.Struct, frozen=True, tag=True):
    """Stands for so many entries of a node's journal in a row that are not kept."""

    count: int


Entry = JournalEntry | Passed


class EntriesReceived(Event, frozen=True):
    """Entries of this node's journal, from the number `first` on. All blobs that they name are
    stored already."""

    node_id: str
    first: int
    entries: tuple[Entry, ...]
    strange: bool = False
    """Some that are not kept were about instances that the node was never given, and users are
    told so."""


class QuotaReached(Event, frozen=True):
    """What the swarm writes is more than a quota allows. `fatal`: it fails of it, and what the node
    `node_id` has said up to the number `upto` is not kept."""

    sentence: str
    fatal: bool = False
    node_id: str = ""
    upto: int = 0


class NodeLost(Event, frozen=True):
    """The node's lease has expired, or it was removed: its attempts are given up."""

    node_id: str
    reason: str


class Ticked(Event, frozen=True):
    """The time `SwarmMachine.next_deadline` has come."""


class ManagerRestarted(Event, frozen=True):
    """Fed once after each replay: time without a manager counts against no deadline."""


class Rewound(Event, frozen=True):
    """The log went back, to the backup of that id or to an older database, and lacks what nodes
    have sent since: live attempts run again, once for each id, and each node's journal continues
    at whatever number it has reached. `reached`: those that are known, by node."""

    backup: str
    reached: dict[str, int] = {}


SwarmEvent = (
    Created
    | Started
    | Stopped
    | Paused
    | Resumed
    | GlobalSet
    | ResultsDeleted
    | Placed
    | Unplaceable
    | EntriesReceived
    | QuotaReached
    | NodeLost
    | Ticked
    | ManagerRestarted
    | Rewound
)


class Record(msgspec.Struct, frozen=True, array_like=True):
    """One stored event. `at` is the `now` under which it was handled."""

    at: float
    event: SwarmEvent


_encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Record).decode
"""Raises all that a decoder may: what was stored is read by `decode_log`."""


def encode(event: SwarmEvent, at: float) -> bytes:
    return _encode(Record(at, event))


def decode_log(stored: Iterable[tuple[int, bytes]], after: int = 0) -> Iterator[Record]:
    """Decodes a log from the event that follows `after`, given as numbers and bodies. Raises
    DamagedLog."""
    number = after
    for number, body in stored:
        thing = Thing(f"event {number}", "the swarm cannot go on", "restore a backup")
        try:
            record = read_stored(thing, decode, body)
        except Damaged as damaged:
            why = f"event {number} is none that this version knows ({damaged.why})"
            raise DamagedLog(why) from damaged
        if number == 1 and not isinstance(record.event, Created):
            raise DamagedLog("it does not begin with the swarm's creation")
        yield record
    if not number:
        raise DamagedLog("it is empty")


# Actions.


class AskPlacement(msgspec.Struct, frozen=True):
    """Feed `SwarmMachine.answer(number, nodes)` back, if it is not None. Nothing outside the
    manager is touched, so that the event that asked and its answer can share one commit."""

    number: int


class Assign(msgspec.Struct, frozen=True):
    """The node runs a new attempt."""

    node_id: str
    assignment: Assignment


class Revoke(msgspec.Struct, frozen=True):
    """The node ends the attempt if it runs, and forgets it."""

    node_id: str
    instance: Instance


class Began(msgspec.Struct, frozen=True):
    """The attempt began on the node, which from now on must know it: no daemon of the node that
    does not may run it."""

    node_id: str
    instance: Instance


class Freed(msgspec.Struct, frozen=True):
    """A user has deleted results that stay on the node: it need not keep their values."""

    node_id: str
    digests: tuple[str, ...]


class Needed(msgspec.Struct, frozen=True):
    """A result stays on the node whose value it needed not keep: now it has to."""

    node_id: str
    digest: str


class Acknowledge(msgspec.Struct, frozen=True):
    """The node may drop the entries of its journal of this swarm up to `upto`, inclusive."""

    node_id: str
    upto: int
    missing: tuple[BlobRef, ...] = ()
    """Blobs that the next entries name, and that are not here."""


class Publish(msgspec.Struct, frozen=True):
    """The feed has grown: wake its readers."""

    feed: FeedName


class StateChanged(msgspec.Struct, frozen=True):
    """The swarm has entered this state. A final state is the last one."""

    state: SwarmState
    reason: str
    kill: bool = False


class Woken(msgspec.Struct, frozen=True):
    """What instances exchange under this topic has changed; the empty topic stands for all."""

    topic: Topic = ()


class Released(msgspec.Struct, frozen=True):
    """Nobody can read these blobs any more, except those who were just told of them."""

    blobs: tuple[BlobRef, ...]
    deleted: bool = False
    """A user deleted them: they need not be kept for anybody."""


Action = (
    AskPlacement
    | Assign
    | Began
    | Revoke
    | Freed
    | Needed
    | Acknowledge
    | Publish
    | StateChanged
    | Woken
    | Released
)
