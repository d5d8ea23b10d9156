"""A manager around its pure machines: what its actors do, without threads, disk or clock."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import msgspec

from manta.actors import Refused
from manta.manager.cluster.desired import DesiredStates
from manta.manager.cluster.lease import Away, Isolated, Leases, Lost, NodeStateChanged
from manta.manager.cluster.peers import Directories, Known
from manta.manager.placement.nodes import NodeView
from manta.manager.swarm import references
from manta.manager.swarm.events import (
    Acknowledge,
    AskPlacement,
    Assign,
    Began,
    EntriesReceived,
    ManagerRestarted,
    NodeLost,
    Record,
    Released,
    Revoke,
    StateChanged,
    SwarmEvent,
    Ticked,
    decode,
    encode,
)
from manta.manager.swarm.letters import KEPT, Most
from manta.manager.swarm.machine import SwarmMachine
from manta.manager.swarm.reads import exchange as exchange_queries
from manta.manager.swarm.reads.queries import select_results
from manta.protocol.exchange import Checkpoint, Exchanged, ExchangeRead, PeerInstances
from manta.protocol.node import (
    Capabilities,
    Desired,
    DesiredChanged,
    FetchDesired,
    GlobalValue,
    Goodbye,
    Heartbeat,
    HeartbeatReply,
    JournalAck,
    JournalBatch,
    ReadGlobal,
    Register,
    Registered,
    ResultEntries,
    SelectResults,
)
from manta.protocol.peers import FetchPeers, Peers, PeersChanged
from manta.protocol.states import NodeState
from manta.protocol.values import BlobRef
from manta.testing.memory.network import public_key_of
from manta.transports.errors import DownReason, LinkDown
from manta.transports.interface import Link
from tests.simulation.world import ADDRESS, MANAGER, Due, World

Wire = (
    Register | Registered | Heartbeat | HeartbeatReply | FetchDesired | Desired | DesiredChanged
    | JournalBatch | JournalAck | ReadGlobal | GlobalValue | SelectResults | ResultEntries | Goodbye
    | ExchangeRead | Exchanged | PeerInstances | Checkpoint | PeersChanged | FetchPeers | Peers
)  # fmt: skip
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(tuple[int, Wire])

HEARTBEAT = 2.0


def pack(number: int, message: Any) -> bytes:
    return _encoder.encode((number, message))


def unpack(data: bytes) -> tuple[int, Any]:
    return _decoder.decode(data)


@dataclass(frozen=True)
class Answer:
    """To a node, once what it rests on is durable."""

    link: Link
    number: int
    found: Any


@dataclass
class Disk:
    """What a manager's store holds: a crash loses what was not synced."""

    log: list[tuple[str, bytes]] = field(default_factory=list)
    blobs: list[tuple[set[str], set[str]]] = field(default_factory=list)
    """Of each record of the log: the blobs that it refers to, and those that it releases."""
    synced: int = 0
    nodes: dict[str, str] = field(default_factory=dict)
    addresses: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Where other nodes reach each."""

    def crash(self, world: World) -> None:
        """Some of what was not synced may be there all the same."""
        unsynced = len(self.log) - self.synced
        self.synced += world.random.randrange(unsynced + 1)
        del self.log[self.synced :]
        del self.blobs[self.synced :]

    def referred(self) -> set[str]:
        """Blobs that are referred to: others may be swept at any time."""
        found: set[str] = set()
        for named, released in self.blobs[: self.synced]:
            found |= named
            found -= released
        return found

    def has(self, blob: BlobRef) -> bool:
        """What was not referred to yet has been pushed a moment ago, and is not swept."""
        known = any(blob.digest in named for named, _ in self.blobs[: self.synced])
        return not known or blob.digest in self.referred()

    def records(self, swarm_id: str) -> list[Record]:
        return [decode(data) for swarm, data in self.log if swarm == swarm_id]


WINDOW = 1
"""So few instances a node is given at a time, so that replicas are handed out bit by bit."""


class Manager:
    def __init__(
        self, world: World, disk: Disk, skew: float, leases: dict, page_bytes: int
    ) -> None:
        self.world, self.disk = world, disk
        self.alive = True
        self.leases = Leases(**leases)
        self.desired = DesiredStates(page_bytes)
        self.peers = Directories(page_bytes)
        self.machines: dict[str, SwarmMachine] = {}
        self.acknowledged: dict[str, dict[str, int]] = {}
        self.links: dict[str, Link] = {}
        self.pending: deque[tuple[int, str, list]] = deque()
        self.sync_due = False
        self.timers: dict[str, Due] = {}
        self.observers: list = []
        self.slow = (0.0005, 0.03)
        last = max((decode(data).at for _, data in disk.log), default=0.0)
        self.epoch = max(1_000_000 + world.now + skew, last) - world.now

    # Life.

    def start(self) -> None:
        self.world.note("manager", f"starts with {len(self.disk.log)} records")
        self.act(self.leases.restarted(self.disk.nodes, self.world.now))
        for node_id in self.disk.nodes:
            self.peers.here(self.known(node_id))
        for swarm_id in dict.fromkeys(swarm for swarm, _ in self.disk.log):
            machine = SwarmMachine.replay(swarm_id, "c", self.disk.records(swarm_id))
            self.machines[swarm_id] = machine
            nodes = self.disk.nodes
            self.acknowledged[swarm_id] = {node: machine.applied(node) for node in nodes}
            if not machine.state.final:
                self.desired.swarm_began(swarm_id)
                self.peers.restored(swarm_id, machine.data.backup, machine.members())
                for node_id in machine.data.gone:
                    self.peers.lost(node_id, "it was lost before")
            else:
                for observer in self.observers:
                    observer.ended(swarm_id, machine.state, machine.data.reason)
            for node_id, assignments in machine.desired().items():
                for assignment in assignments:
                    self.desired.assign(node_id, assignment)
            self.feed(swarm_id, ManagerRestarted())
            self.place_outstanding(swarm_id)
        self.world.boot(MANAGER).listen(ADDRESS, self, self.world.admission)
        self.set_timers()

    def crash(self) -> None:
        self.world.note("manager", f"crashes, {len(self.disk.log) - self.disk.synced} unsynced")
        self.alive = False
        self.disk.crash(self.world)
        self.world.crash(MANAGER)
        for timer in self.timers.values():
            timer.cancelled = True

    # Swarms.

    def create(self, swarm_id: str, *events: SwarmEvent) -> None:
        self.machines[swarm_id] = SwarmMachine(swarm_id, "c")
        self.acknowledged[swarm_id] = {}
        self.desired.swarm_began(swarm_id)
        self.peers.begins(swarm_id, "")
        for event in events:
            self.feed(swarm_id, event)

    def place_outstanding(self, swarm_id: str) -> None:
        machine = self.machines[swarm_id]
        for asked in machine.outstanding():
            given = machine.answer(asked.number, self.views(swarm_id), WINDOW)
            if given is not None:
                self.feed(swarm_id, given)

    def feed(self, swarm_id: str, event: SwarmEvent) -> None:
        """Handle, store, answer placements at once, and perform the rest when it is durable."""
        machine = self.machines[swarm_id]
        events: deque[SwarmEvent | AskPlacement] = deque([event])
        rest: list = []
        while events:
            one: SwarmEvent | AskPlacement | None = events.popleft()
            if isinstance(one, AskPlacement):
                one = machine.answer(one.number, self.views(swarm_id), WINDOW)
            if one is None:
                continue
            event = one
            revision = machine.revision
            before = [observer.before(machine, event) for observer in self.observers]
            actions = machine.handle(event, self.epoch + self.world.now)
            for observer, seen in zip(self.observers, before, strict=True):
                observer.after(machine, event, seen)
            if machine.revision != revision:
                self.disk.log.append((swarm_id, encode(event, self.epoch + self.world.now)))
                named = machine.data.needed(references.of_event(event))
                gone = {b.digest for a in actions if isinstance(a, Released) for b in a.blobs}
                self.disk.blobs.append((named, gone))
            for action in actions:
                if isinstance(action, AskPlacement):
                    events.append(action)
                else:
                    rest.append(action)
        self.when_durable(swarm_id, rest)
        self.set_timers()

    def when_durable(self, swarm_id: str, actions: list) -> None:
        self.pending.append((len(self.disk.log), swarm_id, actions))
        if not self.sync_due:
            self.sync_due = True
            self.world.after(self.world.between(*self.slow), self.sync)

    def sync(self) -> None:
        if not self.alive:
            return
        self.sync_due = False
        self.disk.synced = len(self.disk.log)
        while self.pending and self.pending[0][0] <= self.disk.synced:
            _, swarm_id, actions = self.pending.popleft()
            for action in actions:
                self.perform(swarm_id, action)
        for node_id, change in self.desired.flush().items():
            self.send(node_id, 0, change)
        self.tell_peers()

    def known(self, node_id: str) -> Known:
        alias, addresses = self.disk.nodes[node_id], self.disk.addresses[node_id]
        return Known(node_id, alias, public_key_of(node_id), addresses)

    def tell_peers(self) -> None:
        for node_id, news in self.peers.flush():
            self.send(node_id, 0, news)

    def perform(self, swarm_id: str, action: Any) -> None:
        match action:
            case Assign(node_id, assignment):
                self.desired.assign(node_id, assignment)
                self.peers.assigned(swarm_id, node_id, assignment.instance.iteration)
                for observer in self.observers:
                    observer.gave(node_id, swarm_id)
            case Began(node_id, instance):
                self.desired.began(node_id, instance)
            case Revoke(node_id, instance):
                self.desired.revoke(node_id, instance)
            case Answer(link, number, found):
                self.reply(link, number, found)
            case Acknowledge(node_id, upto):
                self.acknowledged[swarm_id][node_id] = upto
                self.send(node_id, 0, JournalAck(swarm_id, upto))
            case StateChanged(state, reason):
                self.world.note("manager", f"{swarm_id} is {state}: {reason}")
                if state.final:
                    self.desired.swarm_ended(swarm_id)
                    self.peers.ended(swarm_id)
                    for observer in self.observers:
                        observer.ended(swarm_id, state, reason)

    def views(self, swarm_id: str) -> list[NodeView]:
        capabilities = Capabilities(max_concurrent_tasks=2)
        return [
            NodeView(
                node_id,
                alias,
                capabilities,
                connected=self.leases.state(node_id) is NodeState.CONNECTED,
                returning=self.leases.is_returning(node_id),
                assigned=sum(
                    machine.data.held.get(node_id, 0)
                    for other, machine in self.machines.items()
                    if other != swarm_id
                ),
            )
            for node_id, alias in self.disk.nodes.items()
        ]

    # Leases and timers.

    def act(self, actions: list) -> None:
        for action in actions:
            self.world.note("manager", action)
            match action:
                case Lost(node_id, reason):
                    self.peers.lost(node_id, reason)
                    for swarm_id in self.machines:
                        self.feed(swarm_id, NodeLost(node_id, reason))
                    for observer in self.observers:
                        observer.lost(node_id)
                case NodeStateChanged(_, NodeState.CONNECTED) | Away():
                    if isinstance(action, NodeStateChanged):
                        self.peers.back(action.node_id)
                    for swarm_id in self.machines:
                        self.place_outstanding(swarm_id)
                case Isolated():
                    for observer in self.observers:
                        observer.isolated()
        self.tell_peers()
        self.set_timers()

    def set_timers(self) -> None:
        self.set_timer("leases", self.leases.next_deadline(), self.tick_leases)
        for swarm_id, machine in self.machines.items():
            due = machine.next_deadline()
            self.set_timer(swarm_id, None if due is None else due - self.epoch, self.tick, swarm_id)

    def set_timer(self, name: str, due: float | None, call: Any, *args: str) -> None:
        old = self.timers.pop(name, None)
        if old is not None:
            old.cancelled = True
        if due is not None and self.alive:
            delay = max(0.0, due - self.world.now)
            # A hair late, as real timers are: what is due is due in floating point, too.
            self.timers[name] = self.world.after(delay + 1e-6, call, *args)

    def tick_leases(self) -> None:
        self.act(self.leases.tick(self.world.now))

    def tick(self, swarm_id: str) -> None:
        self.feed(swarm_id, Ticked())

    # Links.

    def link_up(self, link: Link) -> None:
        """It must register first."""

    def link_down(self, link: Link, reason: DownReason) -> None:
        node_id = self.world.names[link.peer_key]
        if self.links.get(node_id) is link:
            del self.links[node_id]
            self.act(self.leases.disconnected(node_id, self.world.now))

    def send(self, node_id: str, number: int, message: Any) -> None:
        link = self.links.get(node_id)
        if link is not None:
            self.reply(link, number, message)

    def reply(self, link: Link, number: int, message: Any) -> None:
        try:
            link.send([pack(number, message)])
        except LinkDown as error:
            self.world.note(MANAGER, error)

    def received(self, link: Link, parts: list) -> None:
        number, message = unpack(parts[0])
        node_id = self.world.names[link.peer_key]
        if isinstance(message, Register):
            self.register(node_id, link, number, message)
            return
        if self.links.get(node_id) is not link:
            return  # it must register first
        self.act(self.leases.heard(node_id, self.world.now))
        match message:
            case Heartbeat():
                version, directories = self.desired.version(node_id), self.peers.versions(node_id)
                answer = HeartbeatReply(version, directories=directories)
                self.reply(link, number, answer)
            case FetchPeers(swarm_id, version, after):
                page = self.peers.page(node_id, swarm_id, version, after)
                if page is not None:
                    self.reply(link, number, page)
            case FetchDesired(version, after):
                self.reply(link, number, self.desired.full(node_id, version, after))
            case JournalBatch(swarm_id, first, entries):
                self.feed(swarm_id, EntriesReceived(node_id, first, entries))
            case ReadGlobal(swarm_id, tag):
                value, version = self.machines[swarm_id].global_value(tag)
                self.reply(link, number, GlobalValue(value, version))
            case SelectResults(swarm_id, tag, iteration):
                selected = select_results(self.machines[swarm_id], tag, iteration)
                self.reply(link, number, selected)
            case _ if isinstance(message, ExchangeRead):
                swarm_id = message.instance.swarm_id
                most = Most.of(KEPT.letters, KEPT.size, 1)
                try:
                    found = exchange_queries.answer(self.machines[swarm_id], message, most)
                except Refused as refusal:
                    found = Exchanged(False, error="Refused", sentence=refusal.sentence)
                self.when_durable(swarm_id, [Answer(link, number, found)])
            case Goodbye():
                self.act(self.leases.said_goodbye(node_id, self.world.now))

    def register(self, node_id: str, link: Link, number: int, message: Register) -> None:
        self.disk.nodes[node_id] = message.alias
        self.disk.addresses[node_id] = message.peer_addresses or ()
        self.links[node_id] = link
        self.peers.here(self.known(node_id))
        self.act(self.leases.connected(node_id, self.world.now))
        acknowledged = {
            swarm_id: nodes[node_id]
            for swarm_id, nodes in self.acknowledged.items()
            if nodes.get(node_id)
        }
        full = self.desired.full(node_id)
        registered = Registered(
            node_id,
            "c",
            message.alias,
            HEARTBEAT,
            "",
            full,
            acknowledged,
            directories=self.peers.versions(node_id),
        )
        self.reply(link, number, registered)
