"""Has nodes push results that stay on them, for who wants to read one through the manager.

What was pushed is named by nothing: it is lent to who asked, and swept like anything else that
nobody names. That it is here already says nothing of who may read it, as anybody may ask for any
digest: so the node is asked, which gives out only what it holds of that swarm.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from manta.actors import Actor, AskTimeout, Refused, Reply
from manta.manager.auth.principals import Kind, Principal
from manta.manager.cluster.orders import ClusterNode
from manta.manager.cluster.spreads import WAIT
from manta.manager.context import Context
from manta.manager.store.records import NodeRecord
from manta.protocol.codes import Code
from manta.protocol.spread import BlobFrom, PushResult, WantBlob
from manta.protocol.user import RecalledResult, RecallResult
from manta.protocol.values import BlobRef

PATIENCE = 10.0
"""Seconds in which who asks is told that it is here, or still on its way."""
KNOWN = 300.0
"""Seconds for which a node that pushed a result is not asked for it again."""
MOST = 10_000
REMEDY = 'deploy it with collect="all" to have the manager keep a copy'

Then = Callable[[bool | Refused], object]


@dataclass
class Recalls:
    actor: Actor
    context: Context
    nodes: Mapping[str, ClusterNode]
    aliases: Callable[[str], str]
    _known: OrderedDict[tuple[str, str], float] = field(default_factory=OrderedDict)
    """By swarm and digest: until when it counts as proven that the swarm's nodes hold it."""

    def for_user(self, swarm_id: str, message: RecallResult, who: Principal, reply: Reply) -> None:
        head = f"The result {message.tag!r} of iteration {message.iteration} cannot be read: "

        def then(is_here: bool | Refused) -> None:
            if isinstance(is_here, Refused):
                reply.fail(Refused(is_here.code, f"{head}{is_here.sentence}"))
            else:
                reply.set(RecalledResult(is_here))

        self._recall(swarm_id, message.value, message.node_id, who, then)

    def for_node(self, record: NodeRecord, message: WantBlob, reply: Reply) -> None:
        def then(is_here: bool | Refused) -> None:
            if isinstance(is_here, Refused):
                reply.fail(is_here)
            else:
                reply.set(BlobFrom() if is_here else BlobFrom(wait=WAIT))

        who = Principal(Kind.NODE, record.key, record.id, cluster_id=record.cluster_id)
        blob = BlobRef(message.digest, message.size)
        self._recall(message.swarm_id, blob, message.holder, who, then)

    def _recall(
        self, swarm_id: str, blob: BlobRef, node_id: str, who: Principal, then: Then
    ) -> None:
        """Calls `then` with whether it is here, for `who` to fetch; or with why it cannot be."""
        key = swarm_id, blob.digest
        if self._known.get(key, 0.0) > self.actor.clock.now() and blob.digest in self.context.depot:
            self._lend(key, who, then)
            return
        node = self.nodes.get(node_id)
        name = repr(node.record.alias) if node is not None else self.aliases(node_id)
        where = f"its value of {blob.size:,} bytes stays on node {name}"
        if node is None:
            then(_away(f"{where}, which was removed: it is lost; {REMEDY}."))
            return
        if node.link is None:
            then(_away(f"{where}, which is not connected: start that node; or {REMEDY}."))
            return

        def answered(_: object, error: BaseException | None) -> None:
            if error is None:
                self._known[key] = self.actor.clock.now() + KNOWN
                if len(self._known) > MOST:
                    self._known.popitem(last=False)
                self._lend(key, who, then)
            elif isinstance(error, AskTimeout):
                then(False)  # it is on its way
            elif isinstance(error, Refused):
                then(_away(f"{where}, which cannot give it: {error.sentence}"))
            else:
                then(_away(f"{where}, which has just been lost: {error}"))

        request = PushResult(swarm_id, blob.digest, blob.size)
        self.actor.pipe(node.link.ask_future(request, timeout=PATIENCE), answered)

    def _lend(self, key: tuple[str, str], who: Principal, then: Then) -> None:
        self.context.access.lend(who, key[1])
        then(True)


def _away(sentence: str) -> Refused:
    return Refused(Code.RESULT_AWAY, sentence)
