"""Has nodes push results that stay on them, for who wants to read one through the manager.

That a result of this value stays on the node is in the swarm's log, as the node itself has told:
so nothing is given out by it alone. The node has to push the value, or to be one that may read it
here, which shows that it has it; that it is here already shows nothing. What was pushed is named by
nothing: it is lent to who asked, and swept like anything else that nobody names.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from manta.actors import Actor, AskTimeout, Refused, Reply
from manta.manager.auth.principals import Kind, Principal
from manta.manager.cluster.orders import ClusterNode
from manta.manager.cluster.spreads import WAIT
from manta.manager.context import Context
from manta.manager.store.records import NodeRecord
from manta.manager.views import ClusterView
from manta.protocol.codes import Code
from manta.protocol.spread import BlobFrom, PushResult, WantBlob
from manta.protocol.user import RecalledResult, RecallResult
from manta.protocol.values import BlobRef

PATIENCE = 10.0
"""Seconds in which who asks is told that it is here, or still on its way."""
SLOWEST = 870.0
"""Seconds in which a node must have pushed a result that somebody asks for all the time: a little
less than nodes and transfers have patience, which cannot say whose fault it is."""
KNOWN = 300.0
"""Seconds for which a node that pushed a result is not asked for it again."""
MOST = 10_000
REMEDY = 'run its task again, or deploy the swarm with collect="all": then the manager keeps a copy'

Then = Callable[[bool | Refused], object]


class _Wanted(NamedTuple):
    swarm_id: str
    digest: str
    node_id: str


class _Since(NamedTuple):
    first: float
    last: float


@dataclass
class Recalls:
    actor: Actor
    context: Context
    view: ClusterView
    nodes: Mapping[str, ClusterNode]
    is_returning: Callable[[str], bool]
    """Whether a node is away that is expected back at once."""
    _known: OrderedDict[tuple[str, str], float] = field(default_factory=OrderedDict)
    """By swarm and digest: until when it counts as shown that one of its nodes holds it."""
    _asked: dict[_Wanted, list[tuple[Principal, Then]]] = field(default_factory=dict)
    """Who waits for what a node was asked to push."""
    _since: OrderedDict[_Wanted, _Since] = field(default_factory=OrderedDict)
    """When nodes were asked, first and last, for what they have not pushed yet."""

    _doubted: _Wanted | None = None
    """What a node said that it had pushed, and had not shown to have."""

    def check(self, swarm_id: str, blob: BlobRef, node_id: str) -> dict[str, str]:
        """Returns the nodes on which such results of the swarm stay, this one among them, as
        aliases by id. Raises Refused."""
        staying = self.view.staying.get(swarm_id)
        if staying is None:
            raise Refused(Code.UNAVAILABLE, "The swarm is being restarted: ask again.")
        if node_id not in (found := staying.at(blob)):
            raise _away("it stays on no such node; it may have been deleted.")
        return found

    def for_user(self, swarm_id: str, message: RecallResult, who: Principal, reply: Reply) -> None:
        """Raises Refused."""
        head = f"The result {message.tag!r} of iteration {message.iteration} cannot be read: "

        def then(is_here: bool | Refused) -> None:
            if isinstance(is_here, Refused):
                reply.fail(Refused(is_here.code, f"{head}{is_here.sentence}"))
            else:
                reply.set(RecalledResult(is_here))

        self._recall(swarm_id, message.value, message.node_id, who, then)

    def for_node(self, record: NodeRecord, message: WantBlob, reply: Reply) -> None:
        """Raises Refused."""

        def then(is_here: bool | Refused) -> None:
            if isinstance(is_here, Refused):
                reply.fail(is_here)
            else:
                reply.set(BlobFrom() if is_here else BlobFrom(wait=WAIT))

        blob = BlobRef(message.digest, message.size)
        self._recall(message.swarm_id, blob, message.holder, _principal(record), then)

    def _recall(
        self, swarm_id: str, blob: BlobRef, node_id: str, who: Principal, then: Then
    ) -> None:
        """Calls `then` with whether it is here, for `who` to fetch; or with why it cannot be.
        Raises Refused."""
        found = self.check(swarm_id, blob, node_id)
        if not self._is_linked(node_id):  # another one may have the same
            node_id = next(filter(self._is_linked, found), node_id)
        wanted = _Wanted(swarm_id, blob.digest, node_id)
        is_known = self._known.get(wanted[:2], 0.0) > self.actor.clock.now()
        if is_known and self.context.holds(blob.digest):
            self._lend(wanted, who, then)
            return
        if (waiting := self._asked.get(wanted)) is not None:
            waiting.append((who, then))
            return
        where = f"its value of {blob.size:,} bytes stays on node {found[node_id]!r}"
        node = self.nodes.get(node_id)
        if node is None:
            then(_away(f"{where}, which was removed: it is lost; {REMEDY}."))
            return
        if node.link is None and self.is_returning(node_id):
            then(False)
            return
        if node.link is None:
            then(_away(f"{where}, which is not connected: start that node; or {REMEDY}."))
            return
        waiters = self._asked[wanted] = [(who, then)]
        first = self._asks(wanted)

        def answered(_: object, error: BaseException | None) -> None:
            del self._asked[wanted]
            outcome = self._outcome(node.record, wanted, blob, where, error)
            if outcome is False and self.actor.clock.now() > first + SLOWEST:
                late = f"has not sent it within {SLOWEST / 60:g} minutes"
                outcome = _away(f"{where}, which {late}: see to that node; or {REMEDY}.")
            if outcome is not False:
                self._since.pop(wanted, None)
            if outcome is True:
                self._known[wanted[:2]] = self.actor.clock.now() + KNOWN
                if len(self._known) > MOST:
                    self._known.popitem(last=False)
            for one, tell in waiters:
                if outcome is True:
                    self._lend(wanted, one, tell)
                else:
                    tell(outcome)

        request = PushResult(swarm_id, blob.digest, blob.size)
        self.actor.pipe(node.link.ask_future(request, timeout=PATIENCE), answered)

    def _is_linked(self, node_id: str) -> bool:
        node = self.nodes.get(node_id)
        return node is not None and node.link is not None

    def _asks(self, wanted: _Wanted) -> float:
        """Returns when the node was first asked for it, of all the times that follow each other."""
        now = self.actor.clock.now()
        before = self._since.pop(wanted, None)
        goes_on = before is not None and now < before.last + 3 * PATIENCE
        first = before.first if before is not None and goes_on else now
        self._since[wanted] = _Since(first, now)
        if len(self._since) > MOST:
            self._since.popitem(last=False)
        return first

    def _outcome(
        self,
        record: NodeRecord,
        wanted: _Wanted,
        blob: BlobRef,
        where: str,
        error: BaseException | None,
    ) -> bool | Refused:
        """Whether it is here by now, from who has shown to have it; or why it does not come."""
        if isinstance(error, AskTimeout):
            return False  # it is on its way
        if isinstance(error, Refused):
            return _away(f"{where}, which cannot give it: {error.sentence} So {REMEDY}.")
        if error is not None:
            return _away(f"{where}, which has just been lost ({error}): start it; or {REMEDY}.")
        holder = _principal(record)
        if self.context.may_name(holder, (blob,)):
            self.context.access.lend(holder, blob.digest)  # it need not send it again soon
            return True
        if self._doubted != wanted:  # what it sent before may just have ceased to count
            self._doubted = wanted
            return False
        return _away(f"{where}, which says that it has sent it and has not: {REMEDY}.")

    def _lend(self, wanted: _Wanted, who: Principal, then: Then) -> None:
        self.context.access.lend(who, wanted.digest)
        then(True)


def _principal(node: NodeRecord) -> Principal:
    return Principal(Kind.NODE, node.key, node.id, cluster_id=node.cluster_id)


def _away(sentence: str) -> Refused:
    return Refused(Code.RESULT_AWAY, sentence)
