"""The shell of one swarm's machine: it stores each event before it performs its actions.

    event -> machine -> AppendEvents to the store -> durable -> orders to nodes, answers to users

Events do not wait for each other: while one is being stored, the next is handled and sent
after it. Actions are performed in order, each once its event is durable. A restarted swarm
reads its state from its log; nodes send again what was not acknowledged.

What nodes tell waits in an `Inflow` and is handled a piece at a time, behind all else in the
mailbox, no faster than it is stored, and reports at their `Pace`: a stop never waits for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import assert_never

import msgspec

from manta.actors import Actor, ExitReason, Timer
from manta.manager import notices
from manta.manager.context import BLOBS, STORE, Context, cluster_path
from manta.manager.errors import StoreError
from manta.manager.long_polls import LongPolls
from manta.manager.messages import FromNode, FromUser, Noticed, SweepLater
from manta.manager.store.actor import Writer
from manta.manager.store.records import ClusterRecord, SwarmRecord, UserRecord
from manta.manager.swarm import references
from manta.manager.swarm.bounds import Bounds
from manta.manager.swarm.commits import Commit, Commits, Then
from manta.manager.swarm.events import (
    Acknowledge,
    Action,
    AskPlacement,
    Assign,
    Began,
    Freed,
    ManagerRestarted,
    Needed,
    NodeLost,
    Placed,
    Publish,
    QuotaReached,
    Released,
    Revoke,
    Rewound,
    StateChanged,
    Stopped,
    SwarmEvent,
    Ticked,
    Woken,
    encode,
)
from manta.manager.swarm.exchange import Topic
from manta.manager.swarm.inflow import Inflow, Piece
from manta.manager.swarm.intake import Intake
from manta.manager.swarm.loading import load
from manta.manager.swarm.messages import (
    ClusterStopped,
    NodeGone,
    NodeRegistered,
    NodesMoved,
    Orders,
    Restored,
)
from manta.manager.swarm.reads import nodes as node_reads
from manta.manager.swarm.reads import queries
from manta.manager.swarm.reads.held_up import HeldUp
from manta.manager.swarm.reads.lines import Lines
from manta.manager.swarm.reads.nodes import NodeRead
from manta.manager.swarm.reads.polls import ExchangePolls, Feeds, Situation
from manta.manager.swarm.reads.rosters import Rosters
from manta.manager.swarm.requests import Requests
from manta.manager.swarm.snapshot_writer import SnapshotWriter
from manta.manager.swarm.timeline import Timeline
from manta.protocol.exchange import ExchangeRead
from manta.protocol.node import Assignment, JournalBatch, LogBatch, ToNode
from manta.protocol.roster import WantRoster
from manta.protocol.states import SwarmState
from manta.protocol.user import FeedName, SwarmInfo
from manta.protocol.values import BlobRef

ORDERED = 30.0
"""Seconds in which the cluster takes orders: no longer does who waits for it wait."""
IDLE = 10.0
"""Seconds after which a finished swarm's actor ends if nobody uses it."""
UNSTORED = 8
"""Pieces of what nodes tell that are being stored at one time: a stop is stored after them."""


class _Tick(msgspec.Struct, frozen=True):
    pass


class _IdleCheck(msgspec.Struct, frozen=True):
    pass


class _GoOn(msgspec.Struct, frozen=True):
    """Handle the next piece of what nodes told."""


class SwarmSupervisor(Actor):
    def __init__(self, context: Context, cluster_id: str, swarm_id: str) -> None:
        self._context = context
        self._cluster_id = cluster_id
        self._swarm_id = swarm_id

    def on_start(self) -> None:
        self._view = self._context.cluster(self._cluster_id)
        self._cluster = self.system.ref(cluster_path(self._cluster_id))
        self._writer = Writer(self, STORE)
        reader = self._context.reader
        record = reader.get(SwarmRecord, self._swarm_id)
        self._machine, snapshot = load(
            self._context, record, self._swarm_id, self._cluster_id, self.log
        )
        self._context.access.restarted(self._swarm_id)
        self._view.held[self._swarm_id] = self._machine.data.held
        self._view.staying[self._swarm_id] = self._machine.data.staying
        self._epoch = max(self.clock.wall(), self._machine.data.last) - self.clock.now()
        owner = reader.get(UserRecord, record.owner_id) if record else None
        self._owner = owner.email if owner else (record.owner_id if record else "")
        self._commits = Commits(
            record.owner_id if record else "",
            self._machine.revision,
            queries.info(self._machine),
            self._lengths(),
            self._writer,
            self._perform,
            self._context.access,
        )
        extent = reader.extent(self._swarm_id)
        self._bounds = Bounds(
            self._context.quotas,
            self._commits.owner_id,
            self._cluster_id,
            f"The swarm {self._commits.info.name!r} ({self._swarm_id})",
            self._machine.data,
            extent.event_bytes,
            extent.lines,
            extent.line_bytes,
            self._context.quotas.ledger.held_by(self._swarm_id),
        )
        self._feeds = Feeds(LongPolls(self), self._machine, self._commits, self._situation)
        self._waits = HeldUp(self, self._view, self._machine, self._held_up)
        self._exchange = ExchangePolls(
            LongPolls(self, everything=()),
            self._machine,
            self._commits,
            lambda: self._bounds.letters,
            lambda: self._view.node_views,
        )
        self._intake = Intake(
            self._context,
            self._cluster_id,
            self._machine,
            self._commits,
            self._bounds,
            self.log,
            lambda event, missing: self._feed(event, missing=missing),
            lambda node_id, ack: self._order(self._orders([(node_id, ack)]), []),
        )
        cluster = reader.get(ClusterRecord, self._cluster_id)
        owner_id = cluster.owner_id if cluster else ""
        self._inflow = Inflow(self._swarm_id, self._context.coming, self._context.pace, owner_id)
        self._goes_on = False  # whether a _GoOn is in the mailbox, or comes when it is due
        self._lines = Lines(
            self,
            self._context,
            self._view,
            self._swarm_id,
            self._writer,
            self._feeds,
            self._bounds,
            self._cluster,
            lambda at, node_id: self._machine.data.attempt_of(at, node_id) is not None,
            self._inflow,
        )
        self._requests = Requests(
            self,
            self._context,
            self._view,
            self._machine,
            self._commits,
            self._feeds,
            self._lines,
            self._bounds,
            self._feed,
            self._intake.lacking,
        )
        self._rosters = Rosters(
            self,
            self._machine,
            self._commits,
            lambda: self._view.node_views,
            lambda told: self._order(self._orders(told), []),
        )
        self._snapshots = SnapshotWriter(
            self._swarm_id,
            self._machine,
            self._writer,
            snapshot,
            lambda: self._bounds.said,
            partial(self._context.reader.page, self._swarm_id),
        )
        self._parts = (self._writer, self._feeds.polls, self._exchange.polls, self._rosters)
        """Messages are passed to these first; the actor does not end while one is not idle."""
        self._timeline = Timeline(self._context, self._view, self._machine, self.log)
        self._timer: Timer | None = None  # type: ignore[type-arg]
        self._used_at = self.clock.now()
        self._cluster.tell(
            Restored(
                self._swarm_id,
                self._commits.info,
                {
                    node_id: tuple(map(self._named, assignments))
                    for node_id, assignments in self._machine.desired().items()
                },
                dict(self._machine.data.applied),
                frozenset(self._machine.data.given),
                self._machine.members(),
                frozenset(self._machine.data.gone),
                self._machine.data.backup,
                {id_: tuple(freed) for id_, freed in self._machine.data.staying.freed.items()},
            )
        )
        self._snapshots.write_if_due()
        if self._machine.state.final:
            self.after(IDLE, _IdleCheck())
        elif self._machine.state is not SwarmState.PENDING:
            events, status = self._machine.revision, self._commits.info.status
            self.log.info("goes on after %d events: %s", events, status)
            if self._timeline.rewound:  # first: what is stored after it shows that it is known
                self._feed(Rewound(self._timeline.rewound))
            self._feed(ManagerRestarted())
            self._place_outstanding()

    def on_stop(self, reason: ExitReason) -> None:
        self._inflow.clear()
        if reason.is_normal:  # else it is started again, in the memory that it had
            self._context.quotas.ledger.let_go(self._swarm_id)
        self._view.held.pop(self._swarm_id, None)
        self._view.staying.pop(self._swarm_id, None)
        self._waits.forget()
        # Its parts know each other, and would stay until the collector looks for such circles,
        # which it does the more seldom the more there is in memory.
        vars(self).clear()

    def receive(self, message: object) -> object:
        trouble = self._writer.trouble
        if any(part.handle(message) for part in self._parts):
            if self._writer.trouble is not trouble:
                self._feeds.noticed()
            self._go_on()
            return None
        if isinstance(message, FromUser | FromNode):
            self._used_at = self.clock.now()
        match message:
            case FromNode(JournalBatch() | LogBatch() as batch, node_id):
                if not self._inflow.add(node_id, batch):
                    self.log.debug("%s sends more than is handled: it sends it again", node_id)
                self._go_on()
            case _GoOn():
                self._goes_on = False
                self._take(*self._inflow.take())
                self._go_on()
            case FromNode(read, node_id) if isinstance(read, ExchangeRead):
                self._exchange.open(read, node_id, self.defer())
            case FromNode(WantRoster() as want, node_id):
                return self._rosters.want(node_id, want)
            case FromNode(read) if isinstance(read, NodeRead):
                return node_reads.answer(self._machine, read, message, self._bounds.letters)
            case FromUser():
                return self._requests.answer(message)
            case NodeGone(node_id, reason):
                self._rosters.left(node_id)
                lost = NodeLost(node_id, reason)
                if not self._inflow.lose(lost):
                    self._feed(lost)
                self._go_on()
            case Noticed():
                self._feeds.noticed()
            case NodeRegistered(node_id, upto, last):
                is_ahead = upto > self._machine.applied(node_id)
                if (rewound := self._timeline.registered(node_id, upto, last)) is not None:
                    if is_ahead:
                        self._lines.went_back()
                    self._feed(rewound)
            case NodesMoved():
                self._place_outstanding()
            case ClusterStopped(by):
                if not self._machine.state.final:
                    self._feed(Stopped(by))
            case _Tick():
                self._feed(Ticked())
            case _IdleCheck():
                self._end_if_idle()
            case _:
                return super().receive(message)
        return None

    # Events.

    def _feed(
        self,
        event: SwarmEvent,
        then: Callable[[StoreError | None], None] | None = None,
        missing: tuple[BlobRef, ...] = (),
    ) -> None:
        """Handles and stores an event; calls `then(None)` once it is durable."""
        machine, now = self._machine, self._epoch + self.clock.now()
        bodies: list[bytes] = []
        performed: list[Action] = []
        pending: deque[SwarmEvent | AskPlacement] = deque([event])
        topics: set[Topic] = set()
        # A placement has no effect outside, so question and answer share one commit. Questions
        # are answered in order, because each placement fills nodes.
        while pending:
            one: SwarmEvent | AskPlacement | None = pending.popleft()
            if isinstance(one, AskPlacement):
                one = self._answer(one)
            if one is None:
                continue
            revision = machine.revision
            actions = machine.handle(one, now)
            if machine.revision != revision:
                bodies.append(encode(one, now))
            for action in actions:
                if isinstance(action, AskPlacement):
                    pending.append(action)
                elif isinstance(action, Woken):
                    topics.add(action.topic)
                elif missing and isinstance(action, Acknowledge):
                    performed.append(msgspec.structs.replace(action, missing=missing))
                else:
                    performed.append(action)
        self._set_timer()
        # Blobs of entries that the machine ignored are not referenced: a sweep deletes them.
        named = tuple(machine.data.needed(references.of_event(event)))
        info, ends = queries.info(machine), isinstance(event, Stopped)
        self._bounds.note(sum(map(len, bodies)), named if bodies else ())
        self._commits.add(named, bodies, performed, info, self._lengths(), then, ends)
        self._snapshots.write_if_due()
        if self._bounds.opened():
            topics.add(())
        self._waits.note(topics)
        self._exchange.polls.wake(*topics)
        self._rosters.changed()

    def _held_up(self) -> None:
        self._context.revisions.swarms.changed(self._swarm_id)
        self._feeds.noticed()

    def _answer(self, asked: AskPlacement) -> SwarmEvent | None:
        """None if it is no longer wanted."""
        nodes = self._view.node_views_for(self._swarm_id)
        answer = self._machine.answer(asked.number, nodes)
        if isinstance(answer, Placed) and (breach := self._bounds.placing(len(answer.placements))):
            return QuotaReached(breach.sentence, fatal=True)
        return answer

    def _place_outstanding(self) -> None:
        for asked in self._machine.outstanding():
            if (answer := self._answer(asked)) is not None:
                self._feed(answer)

    def _perform(self, commit: Commit) -> None:
        changes: list[Assign | Began | Revoke | Freed | Needed] = []
        messages: list[tuple[str, ToNode]] = []
        grown: dict[FeedName | None, None] = {}
        killed = False
        for action in commit.actions:
            match action:
                case Assign(node_id, assignment):
                    changes.append(Assign(node_id, self._named(assignment)))
                case Began() | Revoke() | Freed() | Needed():
                    changes.append(action)
                case Acknowledge(node_id, upto, missing):
                    ack = self._bounds.acknowledgement(node_id, upto, missing)
                    messages.append((node_id, ack))
                case Publish(feed):
                    grown[feed] = None
                case StateChanged(state, reason, kill):
                    grown[None], killed = None, killed or kill
                    self.log.info("%s%s", state, f": {reason}" if reason else "")
                    if state.final:
                        self._bounds.holding(0)
                        self.after(IDLE, _IdleCheck())
                case Released(blobs, deleted):  # written with the commit
                    if not deleted:
                        self._spare(blobs)
                case AskPlacement() | Woken():
                    raise AssertionError("this is carried out before the commit")
                case _:
                    assert_never(action)
        if changes or messages or commit.info:
            orders = self._orders(messages, changes, commit.info, kill=killed)
            self._order(orders, commit.then)
        else:
            self._stored(commit.then)
        self._feeds.polls.wake(*grown)

    def _orders(
        self,
        messages: Sequence[tuple[str, ToNode]],
        changes: Sequence[Assign | Began | Revoke | Freed | Needed] = (),
        info: SwarmInfo | None = None,
        *,
        kill: bool = False,
    ) -> Orders:
        epoch = self._machine.data.backup
        return Orders(self._swarm_id, epoch, tuple(changes), tuple(messages), info, kill)

    def _order(self, orders: Orders, then: list[Then]) -> None:
        """Who waits for a change that the cluster shows is answered when it does: it is asked next,
        and a cluster is deleted in which it shows none that runs."""
        if not then or orders.info is None:
            self._cluster.tell(orders)
            self._stored(then)
            return
        asked = self._cluster.ask_future(orders, timeout=ORDERED)
        # Whether or not the cluster answers, with which this actor would end: it is stored.
        self.pipe(asked, lambda _, __: self._stored(then))

    def _stored(self, waiting: list[Then]) -> None:
        for then in waiting:
            then(None)

    def _named(self, assignment: Assignment) -> Assignment:
        """For the node's owner, with whose it is, and what proves that."""
        signed = self._machine.data.graph.signed(assignment.instance.alias)
        return msgspec.structs.replace(assignment, user=self._owner, signed=signed)

    def _spare(self, blobs: tuple[BlobRef, ...]) -> None:
        """Keeps them for a while, so that those who were just told of them can fetch them."""
        digests = [blob.digest for blob in blobs]
        for digest in digests:
            self._context.holds(digest)
        self._context.access.released(self._cluster_id, self._swarm_id, digests)
        self.notify(BLOBS, SweepLater(blobs))

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self._machine.next_deadline()
        if due is not None:
            delay = max(0.0, due - self._epoch - self.clock.now())
            self._timer = self.after(delay, _Tick())

    # Messages of nodes.

    def _go_on(self) -> None:
        """Has the next piece handled after all that is in the mailbox by now, or when it is due."""
        storing = max(self._commits.unstored, self._lines.unstored)
        if not self._inflow or self._goes_on or storing >= UNSTORED:
            return
        if delay := self._inflow.book(self.clock.now()):
            self.after(delay, _GoOn())
        self._goes_on = bool(delay) or self.notify(self.ref, _GoOn())

    def _take(self, node_id: str, piece: Piece) -> None:
        match piece:
            case LogBatch():
                self._lines.take(node_id, piece)
            case JournalBatch():
                self._intake.take(node_id, piece)
            case NodeLost():
                self._feed(piece)
        if not self._inflow and self._feeds.over:
            self._feeds.polls.wake("logs")

    def _situation(self) -> Situation:
        shown = self._commits.shown
        trouble, now = self._context.trouble, self.clock.now()
        found = notices.of_swarm(self._view, shown, trouble, now)
        info = notices.shown(self._view, shown, trouble, now)
        return Situation(info, found, self.clock.wall(), self._commits.settled)

    def _lengths(self) -> dict[str, int]:
        data = self._machine.data
        return {
            "results": len(data.results),
            "settled": len(data.settled),
            "metrics": len(data.metrics),
            "events": len(data.events),
        }

    def _end_if_idle(self) -> None:
        left = self._used_at + IDLE - self.clock.now()
        if left <= 0 and not self._inflow and all(part.idle for part in self._parts):
            self.stop()
        self.after(max(1.0, left), _IdleCheck())
