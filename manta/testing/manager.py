"""Clients and nodes for tests of a manager: they only speak the protocol."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, Self

from manta.actors import Actor, ActorError, ActorSystem, ChildSpec, Refused, Supervisor
from manta.node.peers.directory import Directories, DirectoryAction
from manta.protocol import enrolment
from manta.protocol import node as protocol
from manta.protocol.node import Assignment, Instance, JournalEntry
from manta.protocol.paths import GATEWAY, MANAGER_LINK
from manta.protocol.peers import FetchPeers, Peers, PeersChanged
from manta.protocol.roster import RosterTold
from manta.protocol.spread import FreedResults, FreeResults, PushResult
from manta.protocol.states import AttemptState
from manta.protocol.values import BlobRef
from manta.testing.waiting import PATIENCE
from manta.transports.errors import DownReason
from manta.transports.interface import Transport
from manta.transports.security.keys import KeyPair

Script = Callable[[Assignment], list[JournalEntry]]


def zmq(keys: KeyPair) -> Transport:
    from manta.transports.zeromq.transport import ZmqTransport

    return ZmqTransport(keys)


class _Process:
    """Owns a system of actors, which ends with it."""

    system: ActorSystem

    def close(self) -> None:
        self.system.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Client(_Process):
    """A client with a key: a guest until it signs in, then a user."""

    def __init__(
        self,
        address: str,
        server_key: str,
        *,
        keys: KeyPair | None = None,
        transport: Callable[[KeyPair], Transport] = zmq,
        name: str = "client",
    ) -> None:
        self.keys = keys or KeyPair.generate()
        self.system = ActorSystem(name, transport=transport(self.keys))
        self._up = threading.Event()
        self.states: list[DownReason | None] = []
        """Every state of its link so far, as `on_state` of `dial` gives them."""
        self.connection = self.system.dial(address, server_key, on_state=self._changed)
        self.gateway = self.connection.ref(GATEWAY)

    def _changed(self, state: DownReason | None) -> None:
        self.states.append(state)
        if state is None:
            self._up.set()
        else:
            self._up.clear()

    def ask(self, message: Any, timeout: float = PATIENCE) -> Any:
        """Returns the answer. Waits for the link, and asks again while the manager restarts."""
        deadline = time.monotonic() + timeout
        while True:
            left = max(0.0, deadline - time.monotonic())
            if not self._up.wait(left):
                raise TimeoutError(f"the manager cannot be reached: {self.connection.state}")
            try:
                return self.gateway.ask(message, timeout=left)
            except Refused as refusal:
                if refusal.code != "unavailable" or not left:
                    raise
            except ActorError:
                if not left:
                    raise
            time.sleep(0.02)

    def refusal(self, message: Any, timeout: float = PATIENCE) -> Refused:
        """Returns the refusal of the message; fails if it was answered."""
        try:
            answer = self.ask(message, timeout)
        except Refused as refusal:
            return refusal
        raise AssertionError(f"{type(message).__name__} was answered with {answer!r}")


def finish(assignment: Assignment) -> list[JournalEntry]:
    """A task that does nothing."""
    at = assignment.instance
    return [
        protocol.TaskStarted(at, 0.0),
        protocol.TaskEnded(at, AttemptState.FINISHED, 0.0),
    ]


class FakeNode(_Process):
    """A node as the manager sees one. It runs what it is assigned by calling `script`.

    Its journal outlives its links, as a real node's does: what is not acknowledged is
    sent again after each registration.
    """

    def __init__(
        self,
        address: str,
        server_key: str,
        *,
        alias: str = "node-1",
        token: str = "",
        keys: KeyPair | None = None,
        script: Script = finish,
        capabilities: protocol.Capabilities | None = None,
        heartbeat: bool = True,
        transport: Callable[[KeyPair], Transport] = zmq,
        peer_addresses: tuple[str, ...] | None = (),
    ) -> None:
        self.peer_addresses = peer_addresses
        self.directories = Directories()
        """What it was told of other nodes. With None it is a node of an earlier version, which is
        told of none."""
        self.alias = alias
        self.token = token
        self.script = script
        self.keys = keys or KeyPair.generate()
        self.capabilities = capabilities or protocol.Capabilities(hostname=alias, cores=4)
        self.heartbeat = heartbeat
        self.node_id = ""
        self.journal: dict[str, list[JournalEntry]] = {}
        self.blobs: dict[str, bytes] = {}
        """By digest: what it pushes when the manager says that it is missing, or asks for it. Of
        all else that the manager asks for it says that it has pushed it."""
        self.freed: dict[str, list[str]] = {}
        """By swarm: what it was told to delete."""
        self.bulk_address = ""
        self.lines: dict[str, list[protocol.LogLine]] = {}
        self.acknowledged: dict[str, int] = {}
        self.ran: list[Instance] = []
        self.registrations = 0
        self.refusals: list[Refused] = []
        self.heard: list[Any] = []
        self.registered = threading.Event()
        self.draining = False
        self.deaf = False
        """Whether it ignores StopNode."""
        self.mute = False
        """Whether it keeps its journal to itself."""
        self.system = ActorSystem(alias, transport=transport(self.keys))
        self.link = self.system.spawn(ChildSpec("node", lambda: _Root(self, address, server_key)))

    @property
    def unacknowledged(self) -> dict[str, int]:
        return {
            swarm_id: len(entries)
            for swarm_id, entries in self.journal.items()
            if len(entries) > self.acknowledged.get(swarm_id, 0)
        }

    def speak(self) -> None:
        """Sends what it kept to itself."""
        self.mute = False
        self._tell(lambda link: link.send_rest())

    def say(self, swarm_id: str, *entries: JournalEntry) -> None:
        """Appends to the journal and sends."""
        self._tell(lambda link: link.append(swarm_id, *entries))

    def log(self, swarm_id: str, *lines: protocol.LogLine) -> None:
        self._tell(lambda link: link.log_lines(swarm_id, lines))

    def tell(self, message: Any) -> None:
        """Sends the message without the journal."""
        self._tell(lambda link: link.send(message))

    def ask(self, message: Any, timeout: float = PATIENCE) -> Any:
        link = self.system.find(MANAGER_LINK)
        return link.ask(lambda link: link.forward(message), timeout=timeout)

    def _tell(self, call: Callable[[_Link], object]) -> None:
        self.system.find(MANAGER_LINK).tell(call)


class _Root(Supervisor):
    def __init__(self, *link: Any) -> None:
        self._link = link

    def children(self) -> list[ChildSpec]:
        return [ChildSpec("manager-link", lambda: _Link(*self._link))]


class _Link(Actor):
    """Speaks to the manager for a FakeNode, and calls the functions that this tells it."""

    accepts: ClassVar[Any] = protocol.ToNode

    def __init__(self, node: FakeNode, address: str, server_key: str) -> None:
        self._node = node
        self._address = address
        self._server_key = server_key

    def on_start(self) -> None:
        ref = self.ref

        def on_state(reason: object) -> None:
            if reason is None:
                ref.tell(_Link.begin)
            else:
                self._node.registered.clear()

        self._connection = self.system.dial(
            self._address, self._server_key, on_state=on_state, published=(MANAGER_LINK,)
        )
        self._gateway = self._connection.ref(GATEWAY)
        self._version = -1
        self._taken: set[Instance] = set()
        self._beating = False

    def receive(self, message: Any) -> Any:
        if callable(message):
            return message(self)
        node = self._node
        node.heard.append(message)
        match message:
            case protocol.DesiredChanged():
                if message.version == self._version + 1:
                    self._version = message.version
                    self._take(message.assign)
                else:
                    self._ask(protocol.FetchDesired())
            case protocol.JournalAck():
                held = node.acknowledged.get(message.swarm_id, 0)
                node.acknowledged[message.swarm_id] = max(held, message.upto)
                found = [node.blobs[b.digest] for b in message.missing if b.digest in node.blobs]
                if found:
                    push(node.keys, node.bulk_address, self._server_key, *found)
                    self.send_rest()
            case protocol.LogAck() | RosterTold():
                pass
            case PushResult(digest=digest):
                if digest in node.blobs:
                    push(node.keys, node.bulk_address, self._server_key, node.blobs[digest])
                return protocol.Ok()
            case FreeResults(swarm_id, digests):
                node.freed.setdefault(swarm_id, []).extend(digests)
                return FreedResults()
            case PeersChanged():
                self._fetch(node.directories.changed(message))
            case protocol.StopNode():
                if node.deaf:
                    self.defer()
                    return None
                node.draining = True
                return protocol.Ok()
            case _:
                return super().receive(message)
        return None

    def begin(self) -> None:
        node = self._node
        if node.token and not node.node_id:
            self._ask(
                enrolment.Enroll(node.token, node.alias, id_mode="hardware", hardware_id=node.alias)
            )
        else:
            self._ask(
                protocol.Register(
                    node.alias,
                    node.capabilities,
                    draining=node.draining,
                    journals=node.unacknowledged,
                    acknowledged=dict(node.acknowledged),
                    peer_addresses=node.peer_addresses,
                )
            )

    def _ask(self, message: Any) -> None:
        self.pipe(self._gateway.ask_future(message, timeout=10), self._answered)

    def forward(self, message: Any) -> None:
        reply = self.defer()
        self.pipe(
            self._gateway.ask_future(message, timeout=10),
            lambda value, error: reply.fail(error) if error else reply.set(value),
        )

    def _answered(self, value: Any, error: BaseException | None) -> None:
        node = self._node
        match value:
            case enrolment.Enrolled():
                node.node_id = value.node_id
                self.begin()
            case protocol.Registered():
                node.node_id = value.node_id
                node.bulk_address = value.bulk_address
                node.registrations += 1
                node.acknowledged.update(value.acknowledged)
                self.send_rest()
                for swarm_id, lines in node.lines.items():
                    self.send(protocol.LogBatch(swarm_id, 1, tuple(lines)))
                self._hold(value.desired)
                self._fetch(node.directories.registered(value.node_id, value.directories))
                if node.heartbeat and not self._beating:
                    self._beating = True
                    self.after(0.2, _Link._beat)
                node.registered.set()
            case protocol.Desired():
                self._hold(value)
            case protocol.HeartbeatReply():
                self._fetch(node.directories.heard_versions(value.directories))
                if value.desired_version != self._version:
                    self._ask(protocol.FetchDesired())
        if isinstance(error, Refused):
            node.refusals.append(error)
            if error.code == "unavailable":
                self.after(0.05, _Link.begin)

    def _fetch(self, actions: list[DirectoryAction]) -> None:
        for action in actions:
            self._node.heard.append(action)
            if isinstance(action, FetchPeers):
                asked = self._gateway.ask_future(action, timeout=10)
                self.pipe(asked, partial(self._fetched, action.swarm_id))

    def _fetched(self, swarm_id: str, page: Peers | None, error: BaseException | None) -> None:
        if page is None:
            self._node.directories.fetch_failed(swarm_id)
        else:
            self._fetch(self._node.directories.fetched(swarm_id, page))

    def _hold(self, desired: protocol.Desired) -> None:
        self._version = desired.version
        if not (desired.after or desired.more):  # what is not wanted any more is forgotten
            self._taken &= {assignment.instance for assignment in desired.assignments}
        self._take(desired.assignments)
        if desired.more:
            got = desired.after + len(desired.assignments)
            self._ask(protocol.FetchDesired(desired.version, got))

    def _beat(self) -> None:
        self.after(0.2, _Link._beat)
        node = self._node
        if node.registered.is_set() and node.heartbeat:
            self._ask(
                protocol.Heartbeat(
                    self._version,
                    protocol.Load(),
                    node.draining,
                    journals=node.unacknowledged,
                )
            )

    def _take(self, assignments: tuple[Assignment, ...]) -> None:
        for assignment in assignments:
            if assignment.instance not in self._taken:
                self._taken.add(assignment.instance)
                self._node.ran.append(assignment.instance)
                self.append(assignment.instance.swarm_id, *self._node.script(assignment))

    def send_rest(self) -> None:
        """Sends what is not acknowledged."""
        node = self._node
        for swarm_id, entries in node.journal.items():
            held = node.acknowledged.get(swarm_id, 0)
            if entries[held:] and not node.mute:
                self.send(protocol.JournalBatch(swarm_id, held + 1, tuple(entries[held:])))

    def log_lines(self, swarm_id: str, lines: tuple[protocol.LogLine, ...]) -> None:
        log = self._node.lines.setdefault(swarm_id, [])
        log += lines
        self.send(protocol.LogBatch(swarm_id, len(log) - len(lines) + 1, lines))

    def append(self, swarm_id: str, *entries: JournalEntry) -> None:
        if not entries:
            return
        journal = self._node.journal.setdefault(swarm_id, [])
        first = len(journal) + 1
        journal += entries
        if not self._node.mute:
            self.send(protocol.JournalBatch(swarm_id, first, entries))

    def send(self, message: Any) -> None:
        self.notify(self._gateway, message)  # if lost it is sent again after the next registration


def push(keys: KeyPair, address: str, server_key: str, *contents: bytes) -> list[BlobRef]:
    """Pushes blobs to a manager's bulk plane, as whoever these keys belong to."""
    from manta.transports.blobs.memory_depot import MemoryDepot
    from manta.transports.bulk.curve import CurveBulk

    depot = MemoryDepot(sum(map(len, contents)))
    bulk = CurveBulk(keys, depot)
    try:
        peer = bulk.dial(address, server_key)
        refs = [BlobRef(depot.put(content), len(content)) for content in contents]
        for pushed in [peer.push(ref.digest, ref.size, timeout=PATIENCE) for ref in refs]:
            pushed.result(PATIENCE)
        return refs
    finally:
        bulk.close()
        depot.close()
