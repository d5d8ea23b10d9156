"""The collectives of one swarm, on one timeline, as this plane carries them out.

Theory of operation. Each call of a task's instances in an iteration is a *meeting*: the machine of
`manta.transports.collectives`, with its memory. It is made by the first member here that calls, or
by the first message of another plane, once the roster says where all instances are. Once a member
has contributed, the nodes carry it out whatever becomes of the task.

| what happens | what is done |
|---|---|
| an instance was given up, or has finished without the call | its plane tells the machine |
| a node is lost | all others tell their machines; it learns that when it is back |
| a plane begins anew | it is told again what it may know; the call is begun anew if it had given |
| an attempt ends | what others may need because of it is on disk first (`lasting.py`) |
| an instance is placed on another node | calls that go on are begun anew, with what others gave |
| no instance of a task has stayed here, or this node was lost | its calls are forgotten |
| a call has failed because of a loss | it is begun anew when a next attempt makes it |
| a call is begun anew that is over here | what came of it before is what comes of it |
| others have a later roster | what they say waits for it |
| what an instance wrote is not with the manager | a call that is to follow on it waits for that |
| a link is down | nothing: what was said is said again, and bulk goes on |
| what a plane before kept of a call is on disk | it is begun once that is read, and is waited for |
| a wait's time is over | that call raises, the meeting goes on |

Outcomes are kept for next attempts until the iteration ends, in memory or on disk; where there is
room in neither, what is called next fails. What members gave is kept while others may need it.
"""

from __future__ import annotations

from collections.abc import Callable

from manta.node.peers.known import KnownPeers
from manta.node.plane.collectives import losses, placing, prospects
from manta.node.plane.collectives.calls import Ask, Call, Outside, Wait
from manta.node.plane.collectives.contributions import Contributions, Unfit
from manta.node.plane.collectives.delivery import Delivery
from manta.node.plane.collectives.early import MessageRoom
from manta.node.plane.collectives.gathering import lasts, needs_all
from manta.node.plane.collectives.gathers import Gathers
from manta.node.plane.collectives.hearing import Hearing
from manta.node.plane.collectives.kept import AHEAD, Calls
from manta.node.plane.collectives.lasting import Lasting
from manta.node.plane.collectives.meeting import Meeting
from manta.node.plane.collectives.memory import Pool
from manta.node.plane.collectives.messages import CallName, Places
from manta.node.plane.collectives.moving import Moving
from manta.node.plane.collectives.peers import Peers
from manta.node.plane.collectives.post import TooLong
from manta.node.plane.collectives.prospects import Prospects
from manta.node.plane.collectives.settling import Settling
from manta.node.plane.collectives.spill import Spill
from manta.node.plane.collectives.staying import Staying
from manta.node.plane.collectives.unwaited import Member, Unwaited
from manta.node.plane.collectives.waits import OpenWaits, Task
from manta.protocol.base import Instance
from manta.protocol.roster import Roster, RosterTask
from manta.transports.collectives.actions import Outcome, Why
from manta.transports.collectives.calls import Kind
from manta.transports.collectives.collective import Collective
from manta.transports.collectives.messages import Message
from manta.transports.collectives.refusal import NO_ROOM
from manta.transports.exchange.messages import Parcel


class Desk:
    """Implements `meeting.Outside`, `delivery.Waits` and `hearing.Desk`."""

    def __init__(
        self,
        swarm_id: str,
        epoch: str,
        me: str,
        token: bytes,
        first: int,
        known: KnownPeers,
        pool: Pool,
        room: MessageRoom,
        outside: Outside,
    ) -> None:
        self.epoch = epoch
        self._swarm_id = swarm_id
        self._me = me
        self._known = known
        self._pool = pool
        self._spill = Spill(pool, swarm_id, outside.on_disk)
        self._outside = outside
        self._contributions = Contributions(pool, outside)
        self._delivery = Delivery(pool, self, outside)
        self._hearing = Hearing(self)
        self.peers = Peers(swarm_id, token, first, self._hearing, outside, pool, room)
        self.placings = placing.Placings(me, self.is_there)
        self.roster: Roster | None = None
        self.most_announced = pool.most_small // 2
        self._rosters = 0
        """How many there were, and changes of the directory."""
        self.calls = Calls()
        self.lasting = Lasting(swarm_id, self.calls, pool, outside, self._was_read)
        self._moving = Moving(swarm_id, epoch, self.calls, outside, self._after)
        self._waits = OpenWaits()
        self._gathers = Gathers(self.calls)
        self.settling = Settling(outside.settle)
        self._unwaited = Unwaited()
        self._prospects = Prospects(self._contributions, self._unwaited)
        self._since: dict[Member, int] = {}
        """By member: the version of the places when it first came here."""

    # --- calls of members -----------------------------------------------------------------------

    def ask(self, ask: Ask, since: float) -> None:
        """A call that was made then."""
        body = ask.body
        for number in body.returned:
            self._pool.returned(ask.at, number)
        name = CallName(ask.at.iteration, ask.at.alias, body.number)
        wait = Wait(ask, name, body, since + lasts(body))
        if body.settles:
            wait.settles = self.settling.begin(ask.at)
        self._waits.add(wait)
        self._enter(wait)

    def settled(self, at: Instance) -> None:
        """The manager has applied what the attempt had written when that was asked for."""
        number = self.settling.settled(at)
        for wait in self._waits.parked((at.iteration, at.alias)):
            if wait.ask.at == at and 0 < wait.settles <= number and wait.ask in self._waits:
                wait.settles = 0
                self._enter(wait)

    def abandon(self, ask: Ask) -> None:
        """Nobody waits for the answer any more; what it contributed counts."""
        wait = self._waits.pop(ask)
        if wait is not None and wait.is_parked:
            self._contributions.drop(ask)

    def _enter(self, wait: Wait) -> None:
        """Makes it a contribution, if that is possible by now."""
        ask, name = wait.ask, wait.name
        if self.roster is None or self.roster.iteration < name.era:
            return  # the roster is behind
        task = self.roster.tasks.get(name.task)
        if self.roster.iteration != name.era or task is None or wait.rank >= task.size:
            self._fail(ask, "SwarmStopped", f"{ask.at} was ended: it waits for nothing any more.")
            return
        if problem := self.placings.problem(self.roster, task):
            self._fail(ask, "CollectiveError", problem)
            return
        if wait.rank < len(task.instances) and task.instances[wait.rank].attempt < ask.at.attempt:
            return  # the roster is behind
        call, places = self.calls.get(name), self.placings.places(task)
        if call is None and (why := losses.why_not(self.calls, name, places)):
            self._fail(ask, NO_ROOM, why)
            return
        if wait.settles and (failure := prospects.failed(wait, call, places)):
            self._fail(ask, *failure)
            return
        lost = prospects.lost(wait, call, task) if wait.settles else []
        if wait.settles and not lost:
            return
        member = name.era, name.task, wait.rank
        # What an attempt before it gave elsewhere may count in calls that others began before.
        since = self._since.setdefault(member, places.version if ask.at.attempt else 0)
        if self._full(call, task) is not None:
            return  # who takes part has yet to hear what it was told
        if call is None:
            call = None if self.calls.is_ahead(name, AHEAD) else self.begin(name, task)
        elif self._is_outdated(call, task, wait.rank) or call.places.version < since:
            if placing.is_unrepeatable(call):
                self._fail(ask, "PeerLost", losses.no_more(call))
                return
            call = self.begin_anew(call, task)
        if call is None or ask not in self._waits or not wait.is_parked:
            return  # it became one, or was answered, with what followed from the call's beginning
        if wait.rank not in call.own:
            self._fail(ask, "PeerLost", losses.moved(name.task, name.number))
        elif wait.settles:
            self._prospects.ask(wait, call, lost)
            self.look(call)
        else:
            self._contribute(wait, call)

    def _full(self, call: Call | None, task: RosterTask) -> str | None:
        """A node that would be told of the call, and is to hear more before."""
        if call is not None:
            return None if call.is_over else self.peers.full(call.nodes)
        placed = self.placings.placed(task)
        return None if placed is None else self.peers.full(placed.nodes)

    def _is_outdated(self, call: Call, task: RosterTask, rank: int | None = None) -> bool:
        return placing.is_outdated(call, self.placings.places(task), rank)

    def _contribute(self, wait: Wait, call: Call) -> None:
        ask, body, placement = wait.ask, wait.body, call.meeting.placement
        member = wait.name.era, wait.name.task, wait.rank
        try:
            before = self._unwaited.before(member, body.number)
            given, data = self._contributions.of(ask, wait.rank, placement, before)
        except (Unfit, ValueError) as error:
            self._fail(ask, "RequestFailed", str(error))
            return
        except TypeError as error:
            self._fail(ask, "TypeError", str(error))
            return
        self._waits.enters(wait)
        self.calls.joined(call, wait.rank)
        self._unwaited.called(member, body.number, body.words if wait.passes else "")
        call.needs_all = call.needs_all or (needs_all(body) and not wait.passes)
        if body.kind is Kind.GATHER and not wait.passes and call.gathering is None:
            self._gathers.begin(call, body, self._outside.clock())
        call.meeting.contribute(wait.rank, given, data)
        if call.is_over:
            self.calls.came(call, wait.rank)
        if not wait.passes:
            self._pass_on(call, wait.rank)
        self.look(call)

    def begin(self, name: CallName, task: RosterTask, places: Places | None = None) -> Call | None:
        """See `hearing.Desk`."""
        found = self.placings.placed(task)
        if found is None:
            return None
        places = places or found.places
        where, refused = (found.placement, found.me), self.calls.refused(name)
        why = "" if refused is None else refused.why
        if not self.lasting.restored.is_here(name, task, *where):
            return None
        before = self.lasting.restored.take(name, task, *where)
        machine = before.holder(*where) or Collective(
            *where, directly=places.order > (0, 0), refusal=Why(why, bool(why))
        )
        meeting = Meeting(
            self._swarm_id, *where, self._pool, self._spill, self, self._moving, machine
        )
        call = Call(name, meeting, found.nodes, found.peers, found.me, places)
        self.calls.add(call)
        before.begin(call)
        losses.tell_losses(call, task, self.is_there)
        self.peers.take_early(self.is_there, name)
        return self.calls.get(name)

    def begin_anew(self, call: Call, task: RosterTask, places: Places | None = None) -> Call | None:
        """At the places of the roster, or at these of another plane. None while it does not say
        where all are."""
        found = self.placings.placed(task)
        if found is None or self.calls.get(call.name) is not call:
            return None  # it was begun anew meanwhile
        receivers = [call.nodes[peer] for peer in call.meeting.receivers]
        meeting, given = call.meeting.anew(found.placement, found.me)
        places = placing.after(places or found.places, call.passed)
        new = Call(call.name, meeting, found.nodes, found.peers, found.me, places)
        new.gathering, new.needs_all = call.gathering, call.needs_all
        self.calls.replace(call, new)
        self._gathers.watch(new)
        if given:
            self.calls.joined(new)
        if call.enough is not None:
            new.suffice(call.enough)
        meeting.begin(given, {})
        losses.tell_losses(new, task, self.is_there)
        for rank in call.own:
            for wait in self._waits.met(call.name, rank):
                if rank not in meeting.machine.come:
                    self._fail(wait.ask, "PeerLost", losses.moved(call.name.task, call.name.number))
        for node in receivers:  # what they wait for does not come at the places before
            if node in new.peers and self.calls.get(call.name) is new:
                self._hearing.lead(new, node)
        self.look(new)
        self.peers.take_early(self.is_there, call.name)
        for wait in self._waits.parked((call.name.era, call.name.task)):
            if wait.settles and wait.name == call.name and wait.ask in self._waits:
                self._enter(wait)  # those who are lost are asked there
        return self.calls.get(call.name)

    def _was_read(self, name: CallName) -> None:
        """What was kept of a call, which can be begun."""
        self.peers.take_early(self.is_there, name)
        self.retry((name.era, name.task))

    def is_there(self, node: str) -> bool:
        return node == self._me or self._known.node(self._swarm_id, node) is not None

    # --- what meetings have done (meeting.Outside) ------------------------------------------------

    def tell(self, meeting: Meeting, peer: int, message: Message) -> None:
        call = self.calls.of(meeting)
        if call is None or not self.is_there(node := call.nodes[peer]) or node in call.gone:
            return
        if not call.is_over:
            call.told.setdefault(node, []).append(message)
        try:
            self.peers.say(node, call.name, call.places, message)
        except TooLong as error:
            meeting.abort(NO_ROOM, losses.too_long(call.name, *error.args))

    def work(self, job: Callable[[], None], then: Callable[[Exception | None], None]) -> None:
        self._outside.work(job, then)

    def release(self, parcel: Parcel) -> None:
        self._outside.release(parcel)

    def fail(self, meeting: Meeting, rank: int, error: str, sentence: str) -> None:
        for wait in self.waiting(meeting, rank):
            member = wait.name.era, wait.name.task, rank
            if wait.passes and error == "CollectiveError":  # it hears of it where it waits
                self._unwaited.failed(member, wait.name.number, error, sentence)
                self._delivery.pass_by(wait)
            else:
                self._unwaited.was_told(member)
                self._fail(wait.ask, error, sentence)

    def closed(self, meeting: Meeting) -> None:
        if (call := self.calls.of(meeting)) is not None:
            self.calls.lay_aside(call)

    def deliver(self, meeting: Meeting, rank: int, outcome: Outcome) -> None:
        if outcome.lost and (call := self.calls.of(meeting)) is not None:
            call.lacks = call.needs_all
        self._delivery.deliver(meeting, rank, outcome)

    # --- who waits (delivery.Waits) ---------------------------------------------------------------

    def waiting(self, meeting: Meeting, rank: int) -> list[Wait]:
        call = self.calls.of(meeting)
        return [] if call is None else self._waits.met(call.name, rank)

    def is_waiting(self, ask: Ask) -> bool:
        return ask in self._waits

    def is_answered(self, ask: Ask) -> None:
        self._waits.pop(ask)

    def fail_wait(self, ask: Ask, error: str, sentence: str) -> None:
        self._fail(ask, error, sentence)

    def _fail(self, ask: Ask, error: str, sentence: str) -> None:
        wait = self._waits.pop(ask)
        if wait is not None and wait.is_parked:
            self._contributions.drop(ask)
        ask.fail(error, sentence)

    # --- what follows -----------------------------------------------------------------------------

    def look(self, call: Call) -> None:
        """What may follow from anything that has happened to it or to its members."""
        self._after(call.meeting)
        task = None if self.roster is None else self.roster.tasks.get(call.name.task)
        machine = call.meeting.machine
        if call.is_over or task is None or machine.has_served:
            return
        now = len(machine.come), self._rosters
        if now[0] >= task.size or now == call.looked_at or not self.placings.is_queued(task):
            return
        call.looked_at = now
        if stuck := losses.deadlock(call, task):
            call.meeting.abort("CollectiveError", stuck)
            self._after(call.meeting)

    def _after(self, meeting: Meeting) -> None:
        """Something has happened to it."""
        call = self.calls.of(meeting)
        if call is None:
            return
        self._gathers.look(call, self._outside.clock())
        machine = meeting.machine
        if machine.has_failed and not call.is_over:
            self.calls.lay_aside(call)
            error, sentence = machine.failure
            if error == NO_ROOM and not any(map(machine.has_delivered, call.own)):
                self.calls.refuse(call, sentence)
            for rank in call.own if error == "CollectiveError" else ():
                if machine.has_delivered(rank):
                    self._remember(call.name, rank, error, sentence)
        if call.is_over and not call.is_followed_up:
            call.is_followed_up = True
            self.retry((call.name.era, call.name.task))

    def _remember(self, name: CallName, rank: int, error: str, sentence: str) -> None:
        """It did not wait in the call that failed: the one that it is in raises, or its next."""
        if self.calls.is_followed(name, rank):
            return  # by a call in which it has heard of it
        member = name.era, name.task, rank
        self._unwaited.failed(member, name.number, error, sentence)
        for call in self.calls.open_of(name.era, name.task):
            if self.waiting(call.meeting, rank):
                self._pass_on(call, rank)
                self._after(call.meeting)

    def _pass_on(self, call: Call, rank: int) -> None:
        """A failure of a call before, in which the member did not wait."""
        member = call.name.era, call.name.task, rank
        if (failure := self._unwaited.take(member, call.name.number)) is not None:
            call.meeting.abort(*failure)

    def retry(self, task: Task | None = None) -> None:
        """What waits to be begun, of one task or of all, may be by now."""
        for wait in self._waits.parked(task):
            if wait.is_parked and wait.ask in self._waits:
                self._enter(wait)

    # --- what the node is told --------------------------------------------------------------------

    def roster_changed(self, roster: Roster) -> None:
        before, self.roster = self.roster, roster
        self._places_changed()
        if before is not None and before.iteration != roster.iteration:
            self.calls.end_eras(roster.iteration)
            self.lasting.end_eras(roster.iteration)
            for call in self.calls.all:
                if call.name.era < roster.iteration:
                    self._end(call)
            self._unwaited.clear()
            self._since.clear()
        elif before is not None:
            self._forget_left(before, roster)
            self.lasting.look(roster)
        for call in self.calls.open:
            task = roster.tasks.get(call.name.task)
            is_kept = self.calls.get(call.name) is call  # else it was begun anew meanwhile
            if call.name.era != roster.iteration or task is None or not is_kept:
                continue
            if not self._is_outdated(call, task) or self.begin_anew(call, task) is None:
                losses.tell_losses(call, task, self.is_there)
                self._hearing.look_at_gone(call, task)
                self.look(call)
        self.look_again()

    def _forget_left(self, before: Roster, roster: Roster) -> None:
        """What is known of members that were elsewhere since, or with a node that was lost; and
        calls of tasks of which nobody else has stayed here."""
        tasks = {call.name.task for call in self.calls.all} | {task for _, task, _ in self._since}
        staying = Staying(before, roster, self._me, tasks)
        self._unwaited.keep_only(staying.has)
        self._since = {member: now for member, now in self._since.items() if staying.has(member)}
        left = [call for call in self.calls.all if not staying.counts(call)]
        for call in left:
            self._end(call)
        if left and not self.calls.open:  # nothing here relies on what was said
            self.peers.begin_anew()

    def look_again(self) -> None:
        """What waited for a roster, or for a node to be known, may go on."""
        self._places_changed()
        self.peers.take_early(self.is_there)
        self.retry()

    def _places_changed(self) -> None:
        self.placings.forget()
        self._rosters += 1

    def peer_lost(self, node: str, why: str) -> None:
        """A node is in the swarm no longer."""
        self._places_changed()
        self.peers.lost(node)
        self._hearing.lost(node, why)

    def forget(self, call: Call) -> None:
        """What came of it counts no more; who waits for that fails."""
        for rank in call.own:
            for wait in self.waiting(call.meeting, rank):
                self._fail(wait.ask, "PeerLost", losses.moved(call.name.task, call.name.number))
        self.calls.remove(call)

    def _end(self, call: Call) -> None:
        for rank in call.own:
            for wait in self.waiting(call.meeting, rank):
                sentence = f"{wait.ask.at} was ended: it waits for nothing any more."
                self._fail(wait.ask, "SwarmStopped", sentence)
        self.calls.remove(call)

    def close(self) -> None:
        """The swarm, or its timeline, is over here."""
        for ask in self._waits:
            self._fail(ask, "SwarmStopped", "The swarm is over here: nothing is waited for.")
        for call in self.calls.all:
            self._end(call)
        self.lasting.restored.close()
        self.peers.close()

    # --- time -------------------------------------------------------------------------------------

    @property
    def due(self) -> float | None:
        times = (self._waits.due, self._gathers.due, self.peers.due)
        return min((one for one in times if one is not None), default=None)

    def tick(self, now: float) -> None:
        for call in self._gathers.take(now):
            self._after(call.meeting)
        for wait in self._waits.late(now):
            if wait.ask in self._waits:
                self._fail(wait.ask, "Timeout", self._in_vain(wait))
        self.peers.tick(now)

    def _in_vain(self, wait: Wait) -> str:
        """What it waited for."""
        call, roster = self.calls.get(wait.name), self.roster
        task = None if roster is None else roster.tasks.get(wait.name.task)
        full = None if task is None else self._full(call, task)
        is_read = self.lasting.restored.is_reading(wait.name)
        sentence = losses.outlook(wait, call, roster, self.is_there, full, is_read=is_read)
        return f"Waited {wait.body.timeout:g} s in vain: {sentence.rstrip('.')}."
