"""Keeps the nodes of one cluster: their leases, links and loads, and what each is to run.

A message to a node that is away may be lost: when the node registers it gets its whole desired
state, and it sends again what was not acknowledged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import InitVar, dataclass, field, replace
from typing import Any, assert_never

import msgspec

from manta.actors import (
    ActorError,
    Down,
    Monitor,
    Ref,
    Refused,
    Reply,
    Supervisor,
    Timer,
    Unreachable,
)
from manta.manager.cluster import unknown
from manta.manager.cluster.backlogs import Backlogs
from manta.manager.cluster.desired import DesiredStates
from manta.manager.cluster.lease import (
    Away,
    Isolated,
    LeaseAction,
    Leases,
    Lost,
    NodeStateChanged,
    Reunited,
    Silent,
    heartbeat_interval,
    terms,
)
from manta.manager.cluster.unknown import UnknownSwarms
from manta.manager.context import Context
from manta.manager.messages import CutNodes, NodeCame, NodesLeft
from manta.manager.placement.nodes import NodeView
from manta.manager.store.records import NodeRecord
from manta.manager.swarm.events import Assign, Began
from manta.manager.swarm.messages import JournalAhead, Orders, Restored
from manta.manager.views import ClusterView
from manta.protocol.clusters import NodeInfo
from manta.protocol.codes import Code
from manta.protocol.node import (
    Desired,
    Heartbeat,
    HeartbeatReply,
    JournalAck,
    Load,
    Registered,
    StopNode,
    ToNode,
)
from manta.protocol.paths import GATEWAY
from manta.protocol.states import NodeState
from manta.protocol.tree import ReadTree
from manta.transports.errors import LocalTransportError

ANSWER_TIMEOUT = 10.0
"""Seconds in which a node answers."""
CONTEST = 30.0
"""Seconds for which it is told that another daemon wanted to be a node; it asks more often."""
TROUBLE = 500
"""Characters of why a node takes no work."""


class LeaseTick(msgspec.Struct, frozen=True):
    pass


@dataclass
class _Node:
    record: NodeRecord
    link: Ref | None = None
    monitor: Monitor | None = None
    load: Load = field(default_factory=Load)
    last_seen: float = 0.0
    asked_to_stop: float = -math.inf
    """When it was last asked to stop or drain; later heartbeats say whether it does."""
    trouble: str = ""
    """Why it takes no new work, as it says itself."""
    contest: str = ""
    contested_at: float = -math.inf
    acknowledged: dict[str, int] = field(default_factory=dict)
    """The last durable journal entry of each running swarm."""


@dataclass
class ClusterNodes:
    actor: Supervisor
    context: Context
    view: ClusterView
    records: InitVar[Iterable[NodeRecord]]
    on_lost: Callable[[str, str], None]
    on_moved: Callable[[], None]
    on_noticed: Callable[[], None]
    on_ahead: Callable[[str, JournalAhead], None]
    """Called with the swarm's id."""

    def __post_init__(self, records: Iterable[NodeRecord]) -> None:
        self._nodes = {record.id: _Node(record) for record in records}
        self._desired = DesiredStates()
        self._interval = heartbeat_interval(self.context.lease)
        self._backlogs = Backlogs(self._interval)
        self._leases = Leases(**terms(self.context.lease))
        self._running: set[str] = set()
        self._node_views: dict[str, NodeView] = {}
        self._timer: Timer | None = None  # type: ignore[type-arg]
        self._noticed: object = None
        self._isolation = ""
        self.unknown = UnknownSwarms()
        self.view.notice, self.view.nodes = "", {}
        self.view.silences, self.view.behind = {}, {}
        gone = {node_id for node_id, node in self._nodes.items() if not node.record.here}
        self._apply(self._leases.restarted(self._nodes, self._now(), gone=gone))

    def _now(self) -> float:
        return self.actor.clock.now()

    # Nodes that come and go.

    def added(self, record: NodeRecord) -> None:
        if known := self._nodes.get(record.id):
            known.record = record
        else:
            self._nodes[record.id] = _Node(record)
        self._show(record.id)
        self.context.revisions.clusters.changed(record.cluster_id)  # its number of nodes

    def came(self, message: NodeCame) -> Registered:
        """Registers the node with its new link; the one before, if any, is forgotten."""
        node_id, register = message.record.id, message.message
        node = self._nodes.setdefault(node_id, _Node(message.record))
        node.record = message.record
        if node.monitor is not None:
            node.monitor.cancel()
        node.link = message.link
        node.monitor = self.actor.monitor(message.link)
        node.load, node.last_seen = register.load, self.actor.clock.wall()
        node.trouble = register.trouble[:TROUBLE]
        now = self._now()
        self._apply(self._leases.connected(node_id, now))
        self._apply(self._leases.set_draining(node_id, now, draining=register.draining))
        self._backlogs.registered(node_id, self._ahead(node, register.journals), now)
        self._show(node_id)
        for swarm_id, upto in register.acknowledged.items():
            if swarm_id in self.view.swarms and upto > node.acknowledged.get(swarm_id, 0):
                self.on_ahead(swarm_id, JournalAhead(node_id, upto))
        self._note_unknown(node_id, {*register.journals, *register.acknowledged}, now)
        self._publish_notices()
        self.on_moved()
        return Registered(
            node_id=node_id,
            cluster_id=message.record.cluster_id,
            alias=message.record.alias,
            heartbeat_interval=self._interval,
            bulk_address=self.context.bulk.address,
            has_rooms=True,
            desired=self._desired.full(node_id),
            acknowledged=dict(node.acknowledged),
        )

    def _note_unknown(self, node_id: str, swarms: set[str], now: float) -> None:
        count = self.unknown.report(node_id, swarms - self.view.swarms.keys(), now)
        if count:
            self.actor.log.error("%s", unknown.told([self._name(node_id)], count))
            self.actor.after(unknown.TOLD, LeaseTick())

    def heartbeat(self, node_id: str, message: Heartbeat) -> HeartbeatReply:
        node = self._registered(node_id)
        node.load, node.last_seen = message.load, self.actor.clock.wall()
        now = self._now()
        back = self._leases.heard(node_id, now)
        # One that was just told to stop has yet to hear it.
        if message.draining or now >= node.asked_to_stop + ANSWER_TIMEOUT:
            back += self._leases.set_draining(node_id, now, draining=message.draining)
        if back:
            self._apply(back)
        if (trouble := message.trouble[:TROUBLE]) != node.trouble:
            self._troubled(node, trouble)
        if node.contest and now - node.contested_at > CONTEST:
            node.contest = ""
            self._show(node_id)
        if self._backlogs.heard(node_id, self._ahead(node, message.journals), now):
            self._publish_notices()
        # Heartbeats are frequent: one that changes nothing only postpones a deadline, so that the
        # timer comes early enough as it is, and only the load is replaced.
        self._node_views[node_id] = replace(self._node_views[node_id], load=message.load)
        self.view.node_views = tuple(self._node_views.values())
        self._tell_watchers(node_id)
        if back:  # it was silent for long, or began or ended draining
            self.on_moved()
        return HeartbeatReply(self._desired.version(node_id), node.contest)

    def _troubled(self, node: _Node, trouble: str) -> None:
        node.trouble = trouble
        said = f"{trouble}: it gets no new work" if trouble else "can take work again"
        self.actor.log.warning("node %s %s", self._name(node.record.id), said)
        self._show(node.record.id)
        self.on_moved()

    def contested(self, node_id: str, sentence: str) -> None:
        if node := self._nodes.get(node_id):
            node.contest, node.contested_at = sentence, self._now()
            self._show(node_id)

    def full(self, node_id: str, version: int, after: int) -> Desired:
        self._registered(node_id)
        return self._desired.full(node_id, version, after)

    def _registered(self, node_id: str) -> _Node:
        node = self._nodes.get(node_id)
        if node is None or node.link is None:
            # It registered before this actor started.
            raise Refused(Code.UNAVAILABLE, "The manager was restarted; register again.")
        return node

    def goodbye(self, node_id: str) -> None:
        self._tell_gateway(NodesLeft((node_id,)))
        self._apply(self._leases.said_goodbye(node_id, self._now()))

    def down(self, message: Down) -> None:
        for node_id, node in self._nodes.items():
            if node.link is message.ref:
                node.link = node.monitor = None
                self._apply(self._leases.disconnected(node_id, self._now()))
                return

    def removed(self, node_id: str) -> None:
        node = self._nodes.pop(node_id, None)
        if node is None:
            return
        if node.monitor is not None:
            node.monitor.cancel()
        self._desired.forget(node_id)
        self._backlogs.forget(node_id)
        self._node_views.pop(node_id, None)
        self._apply(self._leases.removed(node_id, self._now()))
        self._publish()
        self.view.nodes.pop(node_id, None)
        self.context.revisions.nodes.forget(node_id)
        self.context.revisions.clusters.changed(node.record.cluster_id)

    @property
    def all_lost(self) -> bool:
        """Whether no node is here or waited for."""
        return self._leases.all_lost and not any(one.link for one in self._nodes.values())

    def stop(self, node_id: str, reply: Reply, *, drain: bool) -> None:
        """Raises Refused."""
        node, link = self._linked(
            node_id, "is not connected; stop it where it runs (manta_node stop)."
        )
        # Draining, so that what it ends on its way out is not placed there again.
        node.asked_to_stop = self._now()
        self._apply(self._leases.set_draining(node_id, node.asked_to_stop, draining=True))
        _ask(link, StopNode(drain), reply, node.record.alias)

    def tree(self, node_id: str, after: str, reply: Reply) -> None:
        """Raises Refused."""
        node, link = self._linked(node_id, "is not connected: its tree cannot be read.")
        _ask(link, ReadTree(after), reply, node.record.alias)

    def _linked(self, node_id: str, otherwise: str) -> tuple[_Node, Ref]:
        """Raises Refused, with a sentence that ends in `otherwise`."""
        node = self._nodes.get(node_id)
        if node is None or node.link is None:
            alias = self.view.aliases.get(node_id, node_id)
            raise Refused(Code.WRONG_STATE, f"The node {alias!r} {otherwise}")
        return node, node.link

    # Leases.

    def tick(self) -> None:
        self._timer = None
        self._apply(self._leases.tick(self._now()))
        self._publish_notices()

    def _apply(self, actions: list[LeaseAction]) -> None:
        for action in actions:
            match action:
                case NodeStateChanged(node_id, state):
                    self.actor.log.info("node %s is %s", self._name(node_id), state)
                    self._show(node_id)
                case Lost(node_id, reason):
                    self.actor.log.warning("node %s is lost: %s", self._name(node_id), reason)
                    self._tell_gateway(NodesLeft((node_id,)))
                    self.on_lost(node_id, reason)
                case Away(node_id):
                    self._tell_gateway(NodesLeft((node_id,)))
                    self._show(node_id)
                    self.on_moved()
                case Isolated(sentence=sentence):
                    self.actor.log.error("%s", sentence)
                    self._isolation = sentence
                case Reunited(sentence):
                    self.actor.log.warning("%s", sentence)
                    self._isolation = ""
                case Silent(node_id):
                    self.actor.log.info("node %s missed a heartbeat, or is back", node_id)
                case _:
                    assert_never(action)
        if actions:
            self._publish_notices()
        self._set_timer()

    # What keeps swarms waiting.

    def _publish_notices(self) -> None:
        """Publishes who is silent, who is behind and what is amiss, if that changed."""
        now = self._now()
        silences, behind = self._leases.silences(), self._backlogs.shown(now)
        told = (self._isolation, self.unknown.sentence(self.view.aliases, now))
        seen = (silences, behind, " ".join(filter(None, told)))
        if seen != self._noticed:
            self._noticed = seen
            self.view.silences, self.view.behind, self.view.notice = seen
            self.on_noticed()

    def _ahead(self, node: _Node, journals: dict[str, int]) -> dict[str, int]:
        """What it has in its journals of running swarms that it was given, and is not all here."""
        given = self._desired.given(node.record.id)
        return {
            swarm_id: last
            for swarm_id, last in journals.items()
            if swarm_id in self._running
            and swarm_id in given
            and last > node.acknowledged.get(swarm_id, 0)
        }

    def _set_timer(self) -> None:
        due = self._leases.next_deadline()
        if self._timer is not None:
            if due is not None and due >= self._timer.deadline:
                return  # it comes early enough, and is then set again
            self._timer.cancel()
            self._timer = None
        if due is not None:
            self._timer = self.actor.after(max(0.0, due - self._now()), LeaseTick())

    def _name(self, node_id: str) -> str:
        node = self._nodes.get(node_id)
        return f"{node.record.alias} ({node_id})" if node else node_id

    def cut_all(self) -> None:
        """Makes all nodes register again and resend what was not acknowledged."""
        linked = [node_id for node_id, node in self._nodes.items() if node.link is not None]
        self._tell_gateway(CutNodes(tuple(linked)))

    def _tell_gateway(self, message: CutNodes | NodesLeft) -> None:
        """A Gateway that is being restarted need not be told: its end has cut all links."""
        self.actor.notify(GATEWAY, message)

    # What nodes are to run.

    def restored(self, message: Restored, *, runs: bool) -> None:
        """Replaces what was known of the swarm by its state according to its log."""
        swarm_id = message.swarm_id
        if runs:
            self._running.add(swarm_id)
            self._desired.swarm_began(swarm_id)
        given = message.given & self._nodes.keys()
        self._desired.restore(swarm_id, message.desired, self._nodes, given)
        for node_id, upto in message.applied.items():
            if runs and (node := self._nodes.get(node_id)):
                node.acknowledged[swarm_id] = upto
        self.flush()

    def apply(self, orders: Orders) -> None:
        for change in orders.changes:
            if change.node_id not in self._nodes:
                continue  # it was removed, and the swarm is told so
            if isinstance(change, Assign):
                self._desired.assign(change.node_id, change.assignment)
            elif isinstance(change, Began):
                self._desired.began(change.node_id, change.instance)
            else:
                self._desired.revoke(change.node_id, change.instance)
        if orders.changes:
            self.flush()
        for node_id, message in orders.messages:
            node = self._nodes.get(node_id)
            runs = orders.swarm_id in self._running
            if node is not None and runs and isinstance(message, JournalAck):
                node.acknowledged[orders.swarm_id] = message.upto
                known = (node_id, orders.swarm_id, message.upto)
                if self._backlogs.stored(*known, self._now()):
                    self._publish_notices()
            self.send(node_id, message)

    def swarm_began(self, swarm_id: str) -> None:
        self._running.add(swarm_id)
        self._desired.swarm_began(swarm_id)
        self.flush()

    def swarm_ended(self, swarm_id: str, *, kill: bool = False) -> None:
        self._running.discard(swarm_id)
        self._desired.swarm_ended(swarm_id, kill=kill)
        self._backlogs.swarm_ended(swarm_id)
        for node in self._nodes.values():
            node.acknowledged.pop(swarm_id, None)
        self.flush()

    def flush(self) -> None:
        for node_id, change in self._desired.flush().items():
            self.send(node_id, change)

    def send(self, node_id: str, message: ToNode) -> None:
        node = self._nodes.get(node_id)
        if node is None or node.link is None:
            return
        try:
            node.link.tell(message)
        except Unreachable as error:
            self.actor.log.debug("%s not sent: %s", type(message).__name__, error)
        except LocalTransportError as error:
            self.actor.log.error("node %s was not told what to run: %s", self._name(node_id), error)

    # What others see.

    def _show(self, node_id: str) -> None:
        node = self._nodes.get(node_id)
        if node is None:
            return
        state = self._state(node_id)
        self._node_views[node_id] = NodeView(
            id=node_id,
            alias=node.record.alias,
            capabilities=node.record.capabilities,
            connected=state in (NodeState.CONNECTED, NodeState.DRAINING),
            draining=state is NodeState.DRAINING,
            returning=self._leases.is_returning(node_id),
            trouble=node.trouble,
            notice=self._notice(node),
            load=node.load,
        )
        self._publish()
        self._tell_watchers(node_id)

    def _tell_watchers(self, node_id: str) -> None:
        node = self._nodes[node_id]
        info = NodeInfo(
            id=node_id,
            alias=node.record.alias,
            cluster_id=node.record.cluster_id,
            status=self._state(node_id),
            platform_info=node.record.capabilities,
            load=node.load,
            last_seen=node.last_seen,
            notice=self._notice(node),
        )
        if info != self.view.nodes.get(node_id):
            self.view.nodes[node_id] = info
            self.context.revisions.nodes.changed(node_id)

    @staticmethod
    def _notice(node: _Node) -> str:
        trouble = node.trouble and f"{node.record.alias} {node.trouble}: it gets no new work."
        return " ".join(filter(None, (trouble, node.contest)))

    def _publish(self) -> None:
        self.view.node_views = tuple(self._node_views.values())
        self.view.aliases = {node.id: node.alias for node in self.view.node_views}
        self.view.connected = sum(node.connected for node in self.view.node_views)

    def _state(self, node_id: str) -> NodeState:
        try:
            return self._leases.state(node_id)
        except KeyError:
            return NodeState.DISCONNECTED  # enrolled, but not here yet


def _ask(link: Ref, message: StopNode | ReadTree, reply: Reply, alias: str) -> None:
    """Replies with what the node answers."""

    def done(asked: Future[Any]) -> None:
        error = asked.exception()
        if isinstance(error, ActorError) and not isinstance(error, Refused):
            sentence = f"The node {alias!r} did not answer: {error}; try again."
            error = Refused(Code.UNAVAILABLE, sentence)
        if error is not None:
            reply.fail(error)
        else:
            reply.set(asked.result())

    link.ask_future(message, timeout=ANSWER_TIMEOUT).add_done_callback(done)
