"""Registers nodes, keeps track of their links, and delivers their batches."""

from __future__ import annotations

import msgspec

from manta.actors import ActorDead, MailboxFull, Refused
from manta.manager.auth.principals import Kind, Principal
from manta.manager.context import cluster_path, swarm_path
from manta.manager.directory import SwarmEntry
from manta.manager.errors import StoreError
from manta.manager.gateway.forwarder import as_refusal
from manta.manager.gateway.part import Part, Request, Shared
from manta.manager.gateway.tenure import Tenure, contested, held, over
from manta.manager.messages import FromNode, NodeCame, NodeContested
from manta.manager.store.interface import Put
from manta.manager.store.records import NodeRecord
from manta.protocol.addresses import flaw_of
from manta.protocol.codes import Code
from manta.protocol.enrolment import Standing
from manta.protocol.node import (
    Capabilities,
    Daemon,
    Goodbye,
    Heartbeat,
    JournalBatch,
    LogBatch,
    Register,
)
from manta.protocol.pages import encoded
from manta.protocol.paths import MANAGER_LINK
from manta.protocol.states import NodeState
from manta.protocol.version import VERSION
from manta.transports.interface import Link

MOST_THINGS, MOST_BYTES = 2000, 256 << 10
"""Of what a node says of itself."""
MOST_OF_DAEMON = 1000
"""Bytes of what its process says of itself."""


class Nodes(Part):
    def __init__(self, shared: Shared) -> None:
        super().__init__(shared)
        self._links: dict[str, Link] = {}
        """The link over which each node registered last."""
        self._tenures: dict[str, Tenure] = {}
        """By key."""

    def standing(self, who: Principal) -> Standing:
        """Tells the owner of a key, and where the manager listens."""
        context = self._context
        return Standing(
            who.id if who.kind is Kind.NODE else "",
            who.kind is Kind.REMOVED,
            self._actor.clock.wall(),
            VERSION,
            context.nodes.address,
            context.users.address,
            context.bulk.address,
        )

    def register(self, request: Request[Register, None]) -> None:
        message, origin = request.message, self._actor.origin
        assert origin is not None
        if flaw := flaw_of(message.peer_addresses or ()):
            raise Refused(Code.INVALID, flaw)
        record = self._directory.nodes[request.who.id]
        _check_daemon(message)
        _check_size(message.capabilities, message)
        self._directory.check_alias(message.alias, record.cluster_id, node_id=record.id)
        if message.daemon is not None:
            self._admit(record, message.daemon)
        current = msgspec.structs.replace(
            record,
            alias=message.alias,
            capabilities=message.capabilities,
            here=True,
            daemon=message.daemon,
            peer_addresses=message.peer_addresses,
            seen_at=origin.link.peer_address,
        )
        self._links[record.id] = origin.link
        came = NodeCame(current, message, origin.ref(MANAGER_LINK))
        reply = request.defer()
        if current == record:
            self._forwarder.ask_cluster(record.cluster_id, came, reply)
            return
        self._directory.nodes[record.id] = current

        def then(error: StoreError | None) -> None:
            # The node can work all the same: the record matters only after a restart.
            if error is not None:
                self._actor.log.warning(
                    "what node %s has now is not stored: %s", current.alias, error
                )
            self._forwarder.ask_cluster(record.cluster_id, came, reply)

        self._writer.write(Put(current), then=then)

    def told(self, request: Request[Heartbeat, None]) -> None:
        """Remembers what the node has by now; it tells anew when it registers, so that this need
        not be stored. Raises Refused."""
        record, has = self._directory.nodes[request.who.id], request.message.capabilities
        if has is not None:
            _check_size(has, request.message)
            current = msgspec.structs.replace(record, capabilities=has)
            self._directory.nodes[record.id] = current

    def _admit(self, record: NodeRecord, daemon: Daemon) -> None:
        """Raises Refused if another daemon holds the node."""
        tenure = self._tenures.setdefault(record.key, Tenure(record.daemon))
        info = self._context.cluster(record.cluster_id).nodes.get(record.id)
        lost = info is not None and info.status == NodeState.LOST
        holder = tenure.holder
        if holder is not None and tenure.is_over(daemon):
            raise Refused(Code.NODE_TAKEN_OVER, over(holder))
        if holder is not None and not tenure.is_free(daemon, lost=lost):
            if tenure.contend(daemon):
                self._actor.log.warning(
                    "node %s: %s was refused, as %s holds it", record.alias, daemon, holder
                )
            told = NodeContested(record.id, contested(daemon))
            self._actor.notify(cluster_path(record.cluster_id), told)
            raise Refused(Code.NODE_HELD, held(holder))
        before = tenure.begin(daemon)
        link = self._links.pop(record.id, None)
        if before is not None:
            said = "node %s: %s takes over from %s"
            self._actor.log.info(said, record.alias, daemon, before)
            if link is not None:
                link.close()

    def check_link(self, who: Principal) -> None:
        """Raises Refused for a link that is not the node's any more."""
        link, origin = self._links.get(who.id), self._actor.origin
        if link is not None and origin is not None and origin.link is not link:
            raise Refused(Code.UNAVAILABLE, "The node has registered over another link since.")

    def goodbye(self, request: Request[Goodbye, None]) -> None:
        who = request.who
        if tenure := self._tenures.get(who.key):
            tenure.left = True
        self._actor.notify(cluster_path(who.cluster_id), FromNode(request.message, who.id))

    def left(self, node_ids: tuple[str, ...]) -> None:
        """Notes that these nodes left, so that they are not waited for after a restart."""
        nodes = self._directory.nodes
        known = (nodes[node_id] for node_id in node_ids if node_id in nodes)
        left = [msgspec.structs.replace(record, here=False) for record in known if record.here]
        nodes.update((record.id, record) for record in left)

        def then(error: StoreError | None) -> None:
            if error is not None:
                self._actor.log.warning("that nodes left is not stored: %s", error)

        if left:
            self._writer.write(*map(Put, left), then=then)

    def cut(self, node_ids: tuple[str, ...]) -> None:
        """Closes the links of these nodes, so that they register again."""
        for node_id in node_ids:
            if link := self._links.pop(node_id, None):
                link.close()

    def deliver(self, request: Request[JournalBatch | LogBatch, SwarmEntry | None]) -> None:
        """Delivers to the swarm. What is lost is not acknowledged, so the node sends it again."""
        message, entry = FromNode(request.message, request.who.id), request.target
        if entry is None:
            self._actor.notify(cluster_path(request.who.cluster_id), message)
            return
        path = swarm_path(entry.cluster_id, entry.id)
        try:
            ref = self._actor.system.find(path)
            if entry.id in self._context.cluster(entry.cluster_id).held:  # else it is being read
                ref.tell(message)
        except ActorDead:
            self._load(entry, path, message)
        except MailboxFull as error:
            raise as_refusal(error) from error

    def _load(self, entry: SwarmEntry, path: str, message: FromNode) -> None:
        """Delivers to a swarm that has no actor, as far as there is room for what waits."""
        coming, size = self._context.coming, encoded(message.message)
        owner = self._directory.clusters[entry.cluster_id].owner_id
        if not coming.take(owner, size, even_if_full=False):
            return

        def then() -> None:
            coming.give_back(owner, size)
            self._actor.notify(path, message)

        def fail(_: BaseException) -> None:
            coming.give_back(owner, size)

        self._forwarder.load(entry, then, fail)


def _check_daemon(message: Register) -> None:
    """Raises Refused."""
    if message.daemon is not None and encoded(message.daemon) > MOST_OF_DAEMON:
        raise Refused(
            Code.INVALID,
            f"The node's daemon names itself in more than {MOST_OF_DAEMON:,} bytes.",
        )


def _check_size(has: Capabilities, message: Register | Heartbeat) -> None:
    """Raises Refused: what a node says of itself stays in memory."""
    counted = [
        getattr(message, field)
        for field in message.__struct_fields__
        if field not in ("journals", "acknowledged")
    ]
    size = encoded(counted)
    listed = (has.datasets, has.labels, has.gpus, has.runners, has.images, has.security)
    things = sum(map(len, listed))
    if things > MOST_THINGS or size > MOST_BYTES:
        raise Refused(
            Code.INVALID,
            f"The node has {things:,} datasets, labels, GPUs, images and runners, which with all "
            f"else take {size:,} bytes; a node may have {MOST_THINGS:,} and {MOST_BYTES:,}: "
            "configure fewer datasets, or put them into one folder.",
        )
