"""Supervises the swarms of one cluster, and passes between them and its nodes."""

from __future__ import annotations

from functools import partial

import msgspec

from manta.actors import (
    ChildSpec,
    Down,
    ExitReason,
    LocalRef,
    MailboxPolicy,
    Refused,
    Reply,
    Restart,
    Supervisor,
)
from manta.manager.cluster.checks import SwarmChecks
from manta.manager.cluster.creation import create, why_not
from manta.manager.cluster.nodes import ClusterNodes, LeaseTick
from manta.manager.context import BLOBS, STORE, Context
from manta.manager.directory import SwarmEntry
from manta.manager.messages import (
    AskStacks,
    ClusterChanged,
    FromNode,
    FromUser,
    LoadSwarm,
    NodeAdded,
    NodeCame,
    NodeContested,
    NodeRemoved,
    Noticed,
    SwarmCreated,
    SwarmRemoved,
    Sweep,
)
from manta.manager.store.actor import Writer
from manta.manager.store.change import Change
from manta.manager.store.interface import Delete, Put, RemoveSwarm
from manta.manager.store.records import (
    ClusterRecord,
    NodeRecord,
    RemovedSwarmRecord,
    SwarmRecord,
)
from manta.manager.swarm.messages import (
    ClusterStopped,
    NodeGone,
    NodesMoved,
    Orders,
    Restored,
)
from manta.manager.swarm.supervisor import SwarmSupervisor
from manta.protocol import clusters, user
from manta.protocol.codes import Code
from manta.protocol.node import (
    FetchDesired,
    Goodbye,
    Heartbeat,
    JournalAck,
    JournalBatch,
    LogAck,
    LogBatch,
    Ok,
    ReadStacks,
)
from manta.protocol.paths import GATEWAY
from manta.protocol.peers import FetchPeers
from manta.protocol.spread import BlobTold, WantBlob
from manta.protocol.states import ClusterState, SwarmState
from manta.protocol.tree import ReadTree
from manta.protocol.user import SwarmInfo

_RUNS = (SwarmState.ACTIVE, SwarmState.PAUSED)
_STOPPED = ClusterStopped("the stop of its cluster")
LOADED = 20
"""Swarms that are over and have an actor because somebody reads them, at most."""
TRY_AGAIN = 5.0
"""Seconds until a swarm that could not be started is tried again, if somebody asks for it."""
REST = 30.0
"""Seconds between looks at whether the cluster is at rest: then its actor ends."""
STOP_AGAIN = 1.0
"""Seconds after which swarms of a stopped cluster that still run are told again."""


class _StartSwarms(msgspec.Struct, frozen=True):
    pass


class _LookForRest(msgspec.Struct, frozen=True):
    pass


class _MayLoad(msgspec.Struct, frozen=True):
    swarm_id: str


class ClusterSupervisor(Supervisor):
    mailbox = MailboxPolicy(bound=100_000)
    intensity = 10
    period = 60.0

    def __init__(self, context: Context, cluster_id: str) -> None:
        self._context = context
        self._id = cluster_id

    def on_start(self) -> None:
        reader = self._context.reader
        self._view = view = self._context.cluster(self._id)
        self._writer = Writer(self, STORE)
        record = reader.get(ClusterRecord, self._id)
        view.stopped = record is not None and record.status == ClusterState.STOPPED
        self._changes: list[Reply] = []
        """Replies to changes of the cluster that are not in effect yet."""
        swarms = [one.info for one in reader.all(SwarmRecord) if one.info.cluster_id == self._id]
        self._show_all({info.swarm_id: info for info in swarms})
        for info in swarms:
            self._context.revisions.swarms.changed(info.swarm_id)
        self._nodes = ClusterNodes(
            self,
            self._context,
            view,
            [record for record in reader.all(NodeRecord) if record.cluster_id == self._id],
            on_lost=lambda node_id, reason: self._tell_swarms(NodeGone(node_id, reason)),
            on_moved=self._nodes_moved,
            on_noticed=self._noticed,
            on_registered=self._tell_swarm,
        )
        removals = [one for one in reader.all(RemovedSwarmRecord) if one.cluster_id == self._id]
        for removal in sorted(removals, key=lambda one: one.at):
            self._nodes.unknown.removed(removal.id)
        self._unread = view.unread = {
            id_ for id_, info in view.swarms.items() if not SwarmState(info.status).final
        }
        self._unloadable: dict[str, Refused] = {}
        """Swarms that are not started: their logs are damaged, or they are being removed."""
        self._loaded: dict[str, None] = {}
        """Swarms that are over and were started to be read, the oldest first."""
        self._waiting: list[tuple[NodeCame, Reply]] = []
        self._checks = SwarmChecks(self, self._context, view, self._create)
        self._used = False
        self.ref.tell(_StartSwarms())
        self.after(REST, _LookForRest())

    def receive(self, message: object) -> object:
        if isinstance(message, _LookForRest):
            self._look_for_rest()
            return None
        self._used = True
        if self._writer.handle(message):
            return None
        match message:
            case Orders():
                self._orders(message)
            case Restored():
                self._restored(message)
            case FromNode():
                return self._from_node(message)
            case NodeCame():
                self._node_came(message)
            case FromUser():
                return self._from_user(message)
            case AskStacks(node_id, instance):
                self._nodes.ask(node_id, ReadStacks(instance), self.defer())
            case LoadSwarm(swarm_id):
                self._load(swarm_id, self.defer())
            case NodeAdded(record):
                self._nodes.added(record)
            case NodeContested(node_id, sentence):
                self._nodes.contested(node_id, sentence)
            case NodeRemoved(node_id):
                self._remove_node(node_id, self.defer())
            case ClusterChanged(record):
                self._changed(record, self.defer())
            case Noticed():
                self._noticed()
            case Down():
                self._nodes.down(message)
            case LeaseTick():
                self._nodes.tick()
                self._stop_swarms()
            case _MayLoad(swarm_id):
                self._unloadable.pop(swarm_id, None)
            case _StartSwarms():
                for swarm_id in tuple(self._unread):
                    self._start_swarm(swarm_id)
            case _:
                return super().receive(message)
        return None

    def _look_for_rest(self) -> None:
        waits = self._unread or self._waiting or self._checks.are_waiting or self._changes
        live = any(not SwarmState(info.status).final for info in self._view.swarms.values())
        children = any(self.child(swarm_id) is not None for swarm_id in self._view.swarms)
        busy = self._used or waits or live or children or not self._writer.idle
        if not busy and self._nodes.all_lost:
            self.log.debug("is at rest")
            self.stop()
        self._used = False
        self.after(REST, _LookForRest())

    # Swarms as children.

    def _start_swarm(
        self, swarm_id: str, reply: Reply | None = None, answer: SwarmInfo | None = None
    ) -> None:
        def then(ref: LocalRef | None, refusal: Refused | None) -> None:
            if refusal is not None and refusal.code == "start_failed" and answer is not None:
                self._remove_swarm(swarm_id, Reply())  # a new one: nobody relies on it
                sentence = f"The swarm was not kept, as it cannot be started: {refusal.sentence}"
                refusal = Refused(Code.UNAVAILABLE, sentence)
            elif refusal is not None and refusal.code == "start_failed":
                refusal = self._unreadable(swarm_id, refusal)
            elif refusal is not None:
                sentence = f"The swarm {swarm_id} cannot be reached now: {refusal.sentence}"
                refusal = Refused(Code.UNAVAILABLE, sentence)
            if reply is None:
                return
            if refusal is None:
                reply.set(answer)
            else:
                reply.fail(refusal)

        self.start_child(
            ChildSpec(
                id=swarm_id,
                start=partial(SwarmSupervisor, self._context, self._id, swarm_id),
                restart=Restart.TRANSIENT,
            ),
            then,
        )

    def _unreadable(self, swarm_id: str, refusal: Refused) -> Refused:
        """Shows a swarm as FAILED that cannot be started, so that the others can go on."""
        self.log.error("swarm %s cannot be started: %s", swarm_id, refusal)
        reason, is_damaged = why_not(self._context.reader, self._view, swarm_id, refusal)
        self._unread.discard(swarm_id)
        info = self._view.swarms.get(swarm_id)
        if info is not None and not SwarmState(info.status).final:
            self._show(msgspec.structs.replace(info, status=SwarmState.FAILED, reason=reason))
        self._register_waiting()
        refusal = Refused(Code.STORAGE, f"The swarm {swarm_id} cannot be read: {reason}")
        self._unloadable[swarm_id] = refusal
        if not is_damaged:
            self.after(TRY_AGAIN, _MayLoad(swarm_id))
        return refusal

    def _load(self, swarm_id: str, reply: Reply) -> None:
        if self.child(swarm_id) is not None:
            reply.set(None)
        elif swarm_id not in self._view.swarms:
            reply.fail(Refused(Code.UNKNOWN_SWARM, f"There is no swarm {swarm_id!r}."))
        elif (refusal := self._unloadable.get(swarm_id)) is not None:
            reply.fail(refusal)
        else:
            self._loaded[swarm_id] = None
            if len(self._loaded) > LOADED:
                oldest = next(iter(self._loaded))
                del self._loaded[oldest]
                self.stop_child(oldest, lambda *_: None)
            self._start_swarm(swarm_id, reply)

    def on_child_exited(self, id: str, reason: ExitReason) -> None:
        self._loaded.pop(id, None)
        if reason.is_normal:
            # Idle: it is started again when somebody asks for it.
            self.stop_child(id, lambda *_: None)
            return
        info = self._view.swarms.get(id)
        if info is not None and not SwarmState(info.status).final:
            self._unread.add(id)
            self._nodes.cut_all()

    def _restored(self, message: Restored) -> None:
        self._unread.discard(message.swarm_id)
        if not SwarmState(message.info.status).final:
            self._loaded.pop(message.swarm_id, None)  # somebody read it, and now it runs
        self._show(message.info)
        self._nodes.orders.restored(message, runs=SwarmState(message.info.status) in _RUNS)
        self._register_waiting()
        if self._view.stopped:  # it may have missed the message, or not stored its effect
            self._tell_swarm(message.swarm_id, _STOPPED)

    def _orders(self, orders: Orders) -> None:
        if orders.swarm_id not in self._view.swarms:
            return  # removed meanwhile
        if orders.info is not None:
            before = self._view.swarms[orders.swarm_id].status
            self._show(orders.info)
            state = SwarmState(orders.info.status)
            if state in _RUNS and before == SwarmState.PENDING:
                self._nodes.orders.swarm_began(orders.swarm_id, orders.epoch)
            self._nodes.orders.apply(orders)
            if state.final and before != state:
                self._nodes.swarm_ended(orders.swarm_id, kill=orders.kill)
        else:
            self._nodes.orders.apply(orders)

    def _show(self, info: SwarmInfo) -> None:
        self._show_all({**self._view.swarms, info.swarm_id: info})
        self._context.revisions.swarms.changed(info.swarm_id)

    def _show_all(self, swarms: dict[str, SwarmInfo]) -> None:
        self._view.swarms = swarms
        self._view.active_swarms = sum(info.status in _RUNS for info in swarms.values())
        if self._changes:
            self._answer_changes()

    def _tell_swarms(self, message: object) -> None:
        for swarm_id in self._view.swarms:
            self._tell_swarm(swarm_id, message)

    def _tell_swarm(self, swarm_id: str, message: object) -> None:
        ref = self.child(swarm_id)
        # A swarm that does not run reads the view when it starts.
        if ref is not None and not self.notify(ref, message):
            self.log.warning("%s was not told of %s", swarm_id, type(message).__name__)

    # Nodes.

    def _node_came(self, message: NodeCame) -> None:
        self._waiting.append((message, self.defer()))
        self._register_waiting()

    def _register_waiting(self) -> None:
        """Answers once all logs are read: only then it is known what nodes are to run and what was
        acknowledged."""
        if self._unread:
            return
        waiting, self._waiting = self._waiting, []
        for message, reply in waiting:
            reply.set(self._nodes.came(message))

    def _from_node(self, message: FromNode) -> object:
        node_id = message.node_id
        match message.message:
            case Heartbeat() as heartbeat:
                return self._nodes.heartbeat(node_id, heartbeat)
            case FetchDesired(version, after):
                return self._nodes.full(node_id, version, after)
            case FetchPeers() as fetch:
                return self._nodes.directory(node_id, fetch)
            case WantBlob() as want:
                self._nodes.source_of(node_id, want, self.defer())
            case BlobTold() as told:
                self._nodes.orders.told(node_id, told, self.clock.now())
                return Ok()
            case Goodbye(reason):
                self.log.info("node %s says goodbye: %s", node_id, reason or "it stops")
                self._nodes.goodbye(node_id)
            # Of a swarm that was removed: acknowledged, so that the node can forget it.
            case JournalBatch(swarm_id, first, entries):
                self._nodes.orders.send(node_id, JournalAck(swarm_id, first + len(entries) - 1))
            case LogBatch(swarm_id, first, lines):
                self._nodes.orders.send(node_id, LogAck(swarm_id, first + len(lines) - 1))
            case _:
                return super().receive(message)
        return None

    def _nodes_moved(self) -> None:
        self._tell_swarms(NodesMoved())
        self._checks.again()

    def _noticed(self) -> None:
        self._tell_swarms(Noticed())
        for swarm_id, info in self._view.swarms.items():
            if info.status in _RUNS:
                self._context.revisions.swarms.changed(swarm_id)

    def _remove_node(self, node_id: str, reply: Reply) -> None:
        self._nodes.removed(node_id)
        swarms = [ref for id_ in self._view.swarms if (ref := self.child(id_)) is not None]
        if not swarms:
            reply.set(None)
        # Messages of the node may still wait in their mailboxes.
        busy = set(swarms)

        def passed(ref: LocalRef) -> None:
            busy.discard(ref)
            if not busy:
                reply.set(None)

        for ref in swarms:
            asked = ref.ask_future(NodesMoved(), timeout=5.0)
            self.pipe(asked, lambda _, __, ref=ref: passed(ref))  # type: ignore[misc]

    # What users ask.

    def _from_user(self, request: FromUser) -> object:
        match request.message:
            case user.CheckSwarm() | user.SendSwarm():
                self._checks.check(request, self.defer())
            case user.RemoveSwarm():
                self._remove_swarm(request.target_id, self.defer())
            case clusters.ListNodes(after=after):
                return self._view.nodes_page(after)
            case clusters.GetNode():
                return self._view.node(request.target_id)
            case clusters.GetNodeLinks():
                return self._nodes.links(request.target_id)
            case clusters.RequestNodeStop(drain=drain):
                self._nodes.stop(request.target_id, self.defer(), drain=drain)
            case user.RecallResult() as recall:
                self._nodes.recalls.for_user(request.target_id, recall, request.user, self.defer())
            case user.GetTree(after=after):
                self._nodes.ask(request.target_id, ReadTree(after), self.defer())
            case _:
                return super().receive(request.message)
        return None

    def _changed(self, record: ClusterRecord, reply: Reply) -> None:
        """Answers once it is in effect: a stopped cluster runs nothing."""
        self._view.stopped = record.status == ClusterState.STOPPED
        self._changes.append(reply)
        self._stop_swarms()
        self._answer_changes()

    def _stop_swarms(self) -> None:
        swarms = self._view.swarms.items() if self._view.stopped else ()
        running = [id_ for id_, info in swarms if not SwarmState(info.status).final]
        for swarm_id in running:
            self._tell_swarm(swarm_id, _STOPPED)
        if running:  # the mailbox of one may have been full
            self.after(STOP_AGAIN, LeaseTick())

    def _answer_changes(self) -> None:
        swarms = self._view.swarms.values()
        if self._view.stopped and not all(SwarmState(info.status).final for info in swarms):
            return
        changes, self._changes = self._changes, []
        for reply in changes:
            reply.set(None)

    def _create(self, message: user.SendSwarm, owner_id: str, reply: Reply) -> None:
        change = Change(self._writer, "The swarm was not stored")
        now = self.clock.wall()
        info = create(self._context, change, message, owner_id, self._id, now)
        swarm_id = info.swarm_id

        def stored() -> None:
            self._show(info)
            self._unread.add(swarm_id)
            self.notify(GATEWAY, SwarmCreated(SwarmEntry(swarm_id, info.name, self._id)))
            self._start_swarm(swarm_id, reply, info)

        change.commit(reply, stored)

    def _remove_swarm(self, swarm_id: str, reply: Reply) -> None:
        info = self._view.swarms.get(swarm_id)
        if info is None:
            raise Refused(Code.UNKNOWN_SWARM, f"There is no swarm {swarm_id!r}.")
        if info.status in _RUNS:
            raise Refused(
                Code.WRONG_STATE,
                f"The swarm {info.name!r} ({swarm_id}) is {info.status}; stop it (manta stop) "
                "before you remove it.",
            )

        change = Change(self._writer, "The swarm was not removed")
        removal = RemovedSwarmRecord(swarm_id, self._id, self.clock.wall())
        change.write(RemoveSwarm(swarm_id), Put(removal))
        if oldest := self._nodes.unknown.removed(swarm_id):
            change.write(Delete(RemovedSwarmRecord, oldest))
        self._unloadable[swarm_id] = Refused(Code.UNKNOWN_SWARM, "It is being removed.")

        def stored() -> None:
            self._show_all({id_: i for id_, i in self._view.swarms.items() if id_ != swarm_id})
            self._context.revisions.swarms.forget(swarm_id)
            self._unread.discard(swarm_id)
            self._unloadable.pop(swarm_id, None)
            self._nodes.swarm_removed(swarm_id)
            self.notify(GATEWAY, SwarmRemoved(swarm_id))
            self.notify(BLOBS, Sweep())
            reply.set(Ok())

        self.stop_child(swarm_id, lambda _, __: change.commit_lasting(reply, stored))
