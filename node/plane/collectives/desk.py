"""The collectives of one swarm, on one timeline, as this plane carries them out.

Theory of operation. Each call of a task's instances in an iteration is a *meeting*: the machine of
`manta.transports.collectives`, with its memory. It is made by the first member here that calls, or
by the first message of another plane, once the roster says where all instances are. Once a member
has contributed, the nodes carry it out whatever becomes of the task.

| what happens | what is done |
|---|---|
| an instance was given up, or has finished without the call | its plane tells the machine |
| a node is lost | all others tell their machines |
| a plane begins anew | it is lost to the meetings that it was in |
| a link is down | nothing: what was said is said again, and bulk goes on |
| instances are elsewhere than others believe | who is behind waits for the roster, or is told |
| a wait's time is over | that call raises, the meeting goes on |

Outcomes are kept for next attempts until the iteration ends, in memory or on disk; where there is
room in neither, what is called next fails.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from manta.node.peers.known import KnownPeers
from manta.node.plane.collectives import losses, messages, transfers
from manta.node.plane.collectives.calls import Ask, Call, Mover, Outside, Wait
from manta.node.plane.collectives.contributions import Contributions, Unfit
from manta.node.plane.collectives.delivery import Delivery
from manta.node.plane.collectives.gathering import Gathering
from manta.node.plane.collectives.kept import AHEAD, FAR, Calls
from manta.node.plane.collectives.meeting import Meeting
from manta.node.plane.collectives.memory import Pool
from manta.node.plane.collectives.messages import CallName, CollectiveSaid
from manta.node.plane.collectives.peers import Peers
from manta.node.plane.collectives.pieces import Piece
from manta.node.plane.collectives.spill import Spill
from manta.node.plane.parcels import NoRoom
from manta.protocol.roster import Roster, RosterTask
from manta.roster import waits
from manta.transports.collectives.actions import Outcome
from manta.transports.collectives.calls import Kind, Placement
from manta.transports.collectives.messages import Aborted, Message
from manta.transports.collectives.plans import Transfer
from manta.transports.errors import RemoteProtocolError
from manta.transports.exchange.messages import Parcel

GRACE = 30.0
"""Seconds after its deadline in which what a gather has is brought together."""


class Desk:
    """Implements `meeting.Outside`, `delivery.Waits` and `peers.Listener`."""

    def __init__(
        self,
        swarm_id: str,
        epoch: str,
        me: str,
        token: bytes,
        known: KnownPeers,
        pool: Pool,
        spill: Spill,
        outside: Outside,
    ) -> None:
        self.epoch = epoch
        self._swarm_id = swarm_id
        self._me = me
        self._known = known
        self._pool = pool
        self._spill = spill
        self._outside = outside
        self._contributions = Contributions(pool, outside)
        self._delivery = Delivery(pool, self, outside)
        self._peers = Peers(swarm_id, token, self, outside)
        self._roster: Roster | None = None
        self._calls = Calls()
        self._waits: dict[Ask, Wait] = {}
        self._unwaited: dict[tuple[int, str, int], tuple[int, str, str]] = {}
        """By member: the number and failure of a call that it did not wait in."""
        self._passed: dict[tuple[int, str, int], tuple[int, str]] = {}
        """By member: number and words of the last call, if it did not wait in it."""

    # --- calls of members -----------------------------------------------------------------------

    def ask(self, ask: Ask, now: float) -> None:
        body = ask.body
        for number in body.returned:
            self._pool.returned(ask.at, number)
        name = CallName(ask.at.iteration, ask.at.alias, body.number)
        # Whom a gather is still to wait for is decided at its deadline; only then may it be late.
        last = body.deadline + GRACE if isinstance(body.deadline, float) else body.timeout
        wait = self._waits[ask] = Wait(ask, name, body, now + last)
        self._enter(wait)

    def abandon(self, ask: Ask) -> None:
        """Nobody waits for the answer any more; what it contributed counts."""
        wait = self._waits.pop(ask, None)
        if wait is not None and wait.is_parked:
            self._contributions.drop(ask)

    def _enter(self, wait: Wait) -> None:
        """Makes it a contribution, if that is possible by now."""
        ask, name = wait.ask, wait.name
        if self._roster is None or self._roster.iteration < name.era:
            return  # the roster is behind
        task = self._roster.tasks.get(name.task)
        if self._roster.iteration != name.era or task is None or wait.rank >= task.size:
            self._fail(ask, "SwarmStopped", f"{ask.at} was ended: it waits for nothing any more.")
            return
        if problem := waits.cannot_meet(self._roster, name.task):
            self._fail(ask, "CollectiveError", problem)
            return
        call = self._calls.get(name)
        if call is None:
            if self._calls.is_full:
                self._fail(ask, "ResourceExhaustionError", losses.too_many_failed(name.task))
                return
            call = None if self._calls.is_ahead(name, AHEAD) else self._begin(name, task)
            if call is None:
                return
            self._peers.take_early(self._is_there)
            if ask not in self._waits:
                return
        if wait.rank not in call.own:
            self._fail(ask, "PeerLost", losses.moved(name.task, name.number))
        else:
            self._contribute(wait, call)

    def _contribute(self, wait: Wait, call: Call) -> None:
        ask, body, placement = wait.ask, wait.body, call.meeting.placement
        member = wait.name.era, wait.name.task, wait.rank
        try:
            number, before = self._passed.get(member, (body.number, ""))
            before = before if number < body.number else ""  # else it is of an attempt before
            given, data = self._contributions.of(ask, wait.rank, placement, before)
        except NoRoom as error:
            self._fail(ask, "ResourceExhaustionError", str(error))
            return
        except (Unfit, ValueError) as error:
            self._fail(ask, "RequestFailed", str(error))
            return
        except TypeError as error:
            self._fail(ask, "TypeError", str(error))
            return
        wait.is_parked = False
        self._passed[member] = body.number, body.words if wait.passes else ""
        if body.kind is Kind.GATHER and not wait.passes and call.gathering is None:
            now = self._outside.clock()
            call.gathering = Gathering(placement.size, body.quorum, body.deadline, now)
            call.meeting.suffice(call.gathering.enough)
        try:
            call.meeting.contribute(wait.rank, given, data)
        except NoRoom as error:
            self._fail(ask, "ResourceExhaustionError", str(error))
        if not wait.passes:
            self._pass_on(call, wait.rank)
        self._look(call)

    def _begin(self, name: CallName, task: RosterTask) -> Call | None:
        """None while the roster does not say where all are."""
        ids = tuple(one.node_id for one in task.instances)
        if len(ids) < task.size or self._me not in ids:
            return None
        if not all(self._is_there(one.node_id) or one.given_up for one in task.instances):
            return None  # it is placed anew, or given up
        aliases = {one.node_id: one.node_alias for one in task.instances}
        by_id = Placement.of(name.task, ids)
        nodes = by_id.nodes
        placement = Placement(name.task, tuple(aliases[node] for node in nodes), by_id.ranks)
        me = nodes.index(self._me)
        meeting = Meeting(self._swarm_id, placement, me, self._pool, self._spill, self)
        call = Call(name, meeting, nodes, me, transfers.places(ids))
        self._calls.add(call)
        losses.tell_losses(call, task, self._is_there)
        return call

    def _is_there(self, node: str) -> bool:
        return node == self._me or self._known.node(self._swarm_id, node) is not None

    # --- what meetings have done (meeting.Outside) ------------------------------------------------

    def tell(self, meeting: Meeting, peer: int, message: Message) -> None:
        call = self._calls.of(meeting)
        if call is not None and self._is_there(call.nodes[peer]):
            self._peers.say(call.nodes[peer], call.name, call.places, message)

    def expect(
        self, meeting: Meeting, transfer: Transfer, memory: memoryview, *, adopts: bool
    ) -> None:
        mover, id_ = self._mover(meeting, transfer)
        progress = partial(self._received, meeting, transfer.key)
        done = partial(self._moved, meeting, transfer.key)
        adopted = partial(meeting.adopted, transfer.key) if adopts else None
        mover.expect(id_, memory, progress, done, adopted)

    def send(self, meeting: Meeting, transfer: Transfer, piece: Piece) -> None:
        mover, id_ = self._mover(meeting, transfer)
        memfd = -1
        if piece.parcel is not None:
            memfd = self._outside.memfd(piece.parcel.id)
        elif piece.block is not None and not piece.block.is_file:
            memfd = piece.block.fd
        done = partial(self._moved, meeting, transfer.key)
        mover.send(id_, piece.view, done, memfd, piece.offset)

    def ready(self, meeting: Meeting, transfer: Transfer, upto: int) -> None:
        mover, id_ = self._mover(meeting, transfer)
        mover.ready(id_, upto)

    def cancel(self, meeting: Meeting, transfer: Transfer, *, sends: bool) -> None:
        mover, id_ = self._mover(meeting, transfer)
        (mover.cancel if sends else mover.refuse)(id_)

    def _mover(self, meeting: Meeting, transfer: Transfer) -> tuple[Mover, bytes]:
        call = self._calls.of(meeting)
        assert call is not None, "a meeting that is kept no longer moves nothing"
        node = call.nodes[transfer.peer]
        id_ = transfers.transfer_id(self._swarm_id, self.epoch, call.name, transfer.key)
        return self._outside.move(self._swarm_id, node), id_

    def _received(self, meeting: Meeting, key: str, upto: int) -> None:
        meeting.received(key, upto)
        self._after(meeting)

    def _moved(self, meeting: Meeting, key: str, why: str | None) -> None:
        meeting.has_ended(key, why)
        self._after(meeting)

    def work(self, job: Callable[[], None], then: Callable[[Exception | None], None]) -> None:
        self._outside.work(job, then)

    def release(self, parcel: Parcel) -> None:
        self._outside.release(parcel)

    def fail(self, meeting: Meeting, rank: int, error: str, sentence: str) -> None:
        for wait in self.waiting(meeting, rank):
            member = wait.name.era, wait.name.task, rank
            if wait.passes and error == "CollectiveError":  # it hears of it where it waits
                self._unwaited[member] = wait.name.number, error, sentence
                self._delivery.pass_by(wait)
            else:
                self._passed.pop(member, None)
                self._fail(wait.ask, error, sentence)

    def closed(self, meeting: Meeting) -> None:
        if (call := self._calls.of(meeting)) is not None:
            self._calls.lay_aside(call)

    def deliver(self, meeting: Meeting, rank: int, outcome: Outcome) -> None:
        self._delivery.deliver(meeting, rank, outcome)

    # --- who waits (delivery.Waits) ---------------------------------------------------------------

    def waiting(self, meeting: Meeting, rank: int) -> list[Wait]:
        call = self._calls.of(meeting)
        return [
            wait
            for wait in self._waits.values()
            if call is not None
            and not wait.is_parked
            and wait.rank == rank
            and wait.name == call.name
        ]

    def is_waiting(self, ask: Ask) -> bool:
        return ask in self._waits

    def is_answered(self, ask: Ask) -> None:
        del self._waits[ask]

    def fail_wait(self, ask: Ask, error: str, sentence: str) -> None:
        self._fail(ask, error, sentence)

    def _fail(self, ask: Ask, error: str, sentence: str) -> None:
        if self._waits.pop(ask).is_parked:
            self._contributions.drop(ask)
        ask.fail(error, sentence)

    # --- what follows -----------------------------------------------------------------------------

    def _look(self, call: Call) -> None:
        """What may follow from anything that has happened to it or to its members."""
        self._after(call.meeting)
        task = None if self._roster is None else self._roster.tasks.get(call.name.task)
        machine = call.meeting.machine
        if call.is_over or task is None or machine.has_served:
            return
        if machine.come.issuperset(range(task.size)):
            return
        if stuck := losses.deadlock(call, task):
            call.meeting.abort("CollectiveError", stuck)
            self._after(call.meeting)

    def _after(self, meeting: Meeting) -> None:
        """Something has happened to it."""
        call = self._calls.of(meeting)
        if call is None:
            return
        gathering = call.gathering
        if gathering is not None and not gathering.look(meeting, self._outside.clock()):
            call.gathering = None
        machine = meeting.machine
        if machine.has_failed and not call.is_over:
            self._calls.lay_aside(call)
            error, sentence = machine.failure
            for rank in call.own if error == "CollectiveError" else ():
                if machine.has_delivered(rank):
                    self._remember(call.name, rank, error, sentence)
        if call.is_over:
            self._retry()

    def _remember(self, name: CallName, rank: int, error: str, sentence: str) -> None:
        """It did not wait in the call that failed: the one that it is in raises, or its next."""
        if self._calls.is_followed(name, rank):
            return  # by a call in which it has heard of it
        self._unwaited[name.era, name.task, rank] = name.number, error, sentence
        for call in self._calls.open:
            is_next = (call.name.era, call.name.task) == (name.era, name.task)
            if is_next and self.waiting(call.meeting, rank):
                self._pass_on(call, rank)
                self._after(call.meeting)

    def _pass_on(self, call: Call, rank: int) -> None:
        """A failure of a call before, in which the member did not wait."""
        member = call.name.era, call.name.task, rank
        number, error, sentence = self._unwaited.get(member, (call.name.number, "", ""))
        if number < call.name.number:
            del self._unwaited[member]
            call.meeting.abort(error, sentence)

    def _retry(self) -> None:
        for wait in list(self._waits.values()):
            if wait.is_parked and wait.ask in self._waits:
                self._enter(wait)

    # --- what the node is told --------------------------------------------------------------------

    def roster_changed(self, roster: Roster) -> None:
        before, self._roster = self._roster, roster
        if before is not None and before.iteration != roster.iteration:
            self._calls.end_eras(roster.iteration)
            for call in self._calls.all:
                if call.name.era < roster.iteration:
                    self._end(call)
            self._unwaited.clear()
            self._passed.clear()
        for call in self._calls.open:
            task = roster.tasks.get(call.name.task)
            if call.name.era == roster.iteration and task is not None:
                losses.tell_losses(call, task, self._is_there)
                self._look(call)
        self.look_again()

    def look_again(self) -> None:
        """What waited for a roster, or for a node to be known, may go on."""
        self._peers.take_early(self._is_there)
        self._retry()

    def peer_lost(self, node: str, why: str) -> None:
        """A node is in the swarm no longer."""
        self._peers.lost(node)
        self._lose(node, why)

    def _lose(self, node: str, why: str) -> None:
        for call in self._calls.open:
            if node in call.nodes:
                call.meeting.peer_lost(call.nodes.index(node), why)
                self._look(call)

    def _end(self, call: Call) -> None:
        for rank in call.own:
            for wait in self.waiting(call.meeting, rank):
                sentence = f"{wait.ask.at} was ended: it waits for nothing any more."
                self._fail(wait.ask, "SwarmStopped", sentence)
        self._calls.remove(call)

    def spill(self) -> bool:
        """Moves small values of the oldest outcome that has any onto disk; false if none has."""
        return self._calls.spill_oldest()

    def close(self) -> None:
        """The swarm, or its timeline, is over here."""
        for ask in list(self._waits):
            self._fail(ask, "SwarmStopped", "The swarm is over here: nothing is waited for.")
        for call in self._calls.all:
            self._end(call)

    # --- peers ------------------------------------------------------------------------------------

    def link_up(self, node: str) -> None:
        self._peers.link_up(node)

    def handle(self, node: str, message: messages.Message) -> None:
        """Raises RemoteProtocolError."""
        self._peers.handle(node, message)

    def begun_anew(self, node: str) -> None:
        for call in self._calls.all:
            call.gone.add(node)
        self._lose(node, "its node began anew")

    def take(self, node: str, said: CollectiveSaid) -> bool:
        """Raises RemoteProtocolError."""
        name, roster = said.call, self._roster
        if roster is None or name.era > roster.iteration:
            return False
        if name.era < roster.iteration:
            return True
        call = self._calls.get(name)
        if call is None:
            task = roster.tasks.get(name.task)
            if task is None:
                raise RemoteProtocolError(f"there is no task {name.task!r:.60}")
            if self._calls.is_ahead(name, FAR):
                self._refuse(node, said, losses.too_far(name.task, name.number))
                return True
            if self._calls.is_full:
                self._refuse(node, said, losses.too_many_failed(name.task))
                return True
            call = self._begin(name, task)
            if call is None:
                return False
            if call.places != said.places:  # one of the two has an older roster
                self._end(call)
                return False
        if node not in call.nodes or said.places != call.places:
            self._refuse(node, said, losses.moved(name.task, name.number))
        elif node in call.gone:
            sentence = f"Collective {name.number} of {name.task!r} was begun before {node} was."
            self._refuse(node, said, sentence)
        else:
            call.meeting.heard(call.nodes.index(node), said.said.message)
            self._look(call)
        return True

    def _refuse(self, node: str, said: CollectiveSaid, sentence: str) -> None:
        if not isinstance(said.said, messages.Aborted):
            self._peers.say(node, said.call, said.places, Aborted("PeerLost", sentence))

    # --- time -------------------------------------------------------------------------------------

    @property
    def due(self) -> float | None:
        times = [wait.deadline for wait in self._waits.values()]
        for call in self._calls.open:
            if call.gathering is not None and call.gathering.due is not None:
                times.append(call.gathering.due)
        return min(times, default=None)

    def tick(self, now: float) -> None:
        for call in self._calls.open:
            one = call.gathering
            if one is not None and one.due is not None and one.due <= now:
                call.gathering = None
                call.meeting.suffice(1)
                self._after(call.meeting)
        for wait in [wait for wait in self._waits.values() if wait.deadline <= now]:
            if wait.ask in self._waits:
                call_ = self._calls.get(wait.name)
                sentence = losses.outlook(wait, call_, self._roster, self._is_there)
                told = f"Waited {wait.body.timeout:g} s in vain: {sentence.rstrip('.')}."
                self._fail(wait.ask, "Timeout", told)
