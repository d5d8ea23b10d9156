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

Outcomes are kept for next attempts until the iteration ends, the newest of them at least.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from manta.light.wire import MAX_FDS
from manta.node.peers.known import KnownPeers
from manta.node.plane.collectives import arrivals, messages, transfers
from manta.node.plane.collectives.answers import MOST_INLINE, answer
from manta.node.plane.collectives.contributions import Contributions, Unfit
from manta.node.plane.collectives.meeting import Meeting, Piece
from manta.node.plane.collectives.memory import Block, Pool
from manta.node.plane.collectives.messages import CallName, CollectiveSaid, Introduced, tagged
from manta.node.plane.collectives.post import Post
from manta.node.plane.parcels import NoRoom
from manta.node.plane.requests import ALIGNED, CallCollective
from manta.protocol.base import Instance
from manta.protocol.roster import Roster, RosterTask
from manta.protocol.states import AttemptState
from manta.roster import waits
from manta.transports.collectives.actions import Outcome
from manta.transports.collectives.calls import Kind, Placement
from manta.transports.collectives.messages import Aborted, Message
from manta.transports.collectives.plans import Transfer
from manta.transports.errors import RemoteProtocolError
from manta.transports.exchange.letters import Value
from manta.transports.exchange.messages import Parcel

AHEAD = 1_000
"""Calls that an instance may be ahead of what others have come to."""
KEPT = 1_000
"""Meetings that are over and kept for next attempts."""
EARLY = 10_000
"""Messages that wait for a roster."""
UNHEARD = 20_000
"""Messages that a peer may leave unheard."""


class Ask(Protocol):
    """A call of an attempt, to be answered once."""

    at: Instance
    body: Any
    value: Value | None

    def reply(self, told: dict[str, Any], fds: list[int]) -> None: ...

    def fail(self, kind: str, sentence: str) -> None: ...


class Outside(Protocol):
    """What a desk has its plane do."""

    def tell(self, swarm_id: str, peer: str, message: messages.Message) -> None: ...

    def is_up(self, swarm_id: str, peer: str) -> bool: ...

    def cut(self, swarm_id: str, peer: str, why: str) -> None:
        """The peer breaks the protocol, or does not listen."""

    def move(self, swarm_id: str, peer: str) -> Mover: ...

    def work(self, job: Callable[[], None], then: Callable[[Exception | None], None]) -> None: ...

    def release(self, value: Parcel) -> None: ...

    def own(self, parcel: bytes) -> int | None:
        """Its descriptor."""

    def clock(self) -> float: ...


class Mover(Protocol):
    """Bulk with one peer; `done` and `progress` come on the plane's thread."""

    def expect(
        self,
        transfer: bytes,
        memory: memoryview,
        progress: Callable[[int], None],
        done: Callable[[str], None],
    ) -> None: ...

    def send(self, transfer: bytes, memory: memoryview, done: Callable[[str], None]) -> None: ...

    def ready(self, transfer: bytes, upto: int) -> None: ...

    def cancel(self, transfer: bytes) -> None: ...

    def refuse(self, transfer: bytes) -> None: ...


@dataclass(eq=False)
class _Wait:
    ask: Ask
    name: CallName
    body: CallCollective
    deadline: float


@dataclass(eq=False)
class _Gathering:
    """Of the root of a gather that need not have all."""

    size: int
    quorum: int | None
    is_auto: bool
    due: float | None
    began: float
    arrivals: dict[int, float]


@dataclass(eq=False)
class _Known:
    """What belongs to a meeting, beside what it is itself."""

    meeting: Meeting
    nodes: tuple[str, ...]
    """By peer of its placement."""
    places: bytes
    gone: set[str]
    """Nodes whose planes have begun anew since."""
    gathering: _Gathering | None = None


class Desk:
    def __init__(
        self,
        swarm_id: str,
        epoch: str,
        me: str,
        token: bytes,
        known: KnownPeers,
        pool: Pool,
        outside: Outside,
    ) -> None:
        self._swarm_id = swarm_id
        self.epoch = epoch
        self._me = me
        self._token = token
        self._known = known
        self._pool = pool
        self._outside = outside
        self._contributions = Contributions(pool, outside)
        self._roster: Roster | None = None
        self._posts: dict[str, Post] = {}
        self._calls: dict[CallName, _Known] = {}
        self._by_meeting: dict[int, CallName] = {}
        self._over: OrderedDict[CallName, None] = OrderedDict()
        """Closed or failed, the oldest first."""
        self._forgotten: dict[tuple[int, str], int] = {}
        """By era and task: calls below this number are kept no longer, unless they are there."""
        self._waits: dict[Ask, _Wait] = {}
        """Calls that have no answer yet."""
        self._parked: dict[Ask, _Wait] = {}
        """Of these, those that have not become contributions yet."""
        self._early: list[tuple[str, CollectiveSaid]] = []
        self._unwaited: dict[tuple[int, str, int], tuple[int, str, str]] = {}
        """By member: the number and failure of a call that it did not wait in."""

    # --- calls --------------------------------------------------------------------------------

    def ask(self, ask: Ask, now: float) -> None:
        body = ask.body
        for number in body.returned:
            self._pool.returned(ask.at, number)
        name = CallName(ask.at.iteration, ask.at.alias, body.number)
        wait = _Wait(ask, name, body, now + body.timeout)
        self._waits[ask] = wait
        self._parked[ask] = wait
        self._enter(wait)

    def abandon(self, ask: Ask) -> None:
        """Nobody waits for the answer any more; what it contributed counts."""
        wait = self._waits.pop(ask, None)
        if wait is not None and self._parked.pop(ask, None) is not None:
            self._contributions.drop(ask)

    def _enter(self, wait: _Wait) -> None:
        """Makes it a contribution, if that is possible by now."""
        ask, name, rank = wait.ask, wait.name, wait.ask.at.index
        if self._roster is None or self._roster.iteration < name.era:
            return  # the roster is behind
        task = self._roster.tasks.get(name.task)
        if self._roster.iteration != name.era or task is None or rank >= task.size:
            self._fail(ask, "SwarmStopped", f"{ask.at} was ended: it waits for nothing any more.")
            return
        if problem := waits.cannot_meet(self._roster, name.task):
            self._fail(ask, "CollectiveError", problem)
            return
        known = self._calls.get(name)
        if known is None:
            if name.number < self._forgotten.get((name.era, name.task), 0):
                self._fail(ask, "RequestFailed", self._no_more(name))
                return
            if self._is_ahead(name):
                return
            known = self._begin(name, task)
            if known is None:
                return
            self._take_early()
            if wait.ask not in self._parked:
                return
        if rank not in known.meeting.placement.ranks[known.nodes.index(self._me)]:
            self._fail(ask, "PeerLost", self._moved(name, rank))
            return
        size = known.meeting.placement.size
        try:
            given, data = self._contributions.of(ask, rank, known.meeting.placement)
        except Unfit as error:
            self._fail(ask, "RequestFailed", str(error))
            return
        except (TypeError, ValueError) as error:
            self._fail(ask, type(error).__name__, str(error))
            return
        except NoRoom as error:
            self._fail(ask, "ResourceExhaustionError", str(error))
            return
        del self._parked[ask]
        if wait.body.kind is Kind.GATHER and rank == wait.body.root:
            self._gather(known, wait.body, size)
        try:
            known.meeting.contribute(rank, given, data)
        except ValueError as error:
            self._fail(ask, "RequestFailed", str(error))
            return
        self._pass_on(known, name, rank)
        self._look(known)

    def _pass_on(self, known: _Known, name: CallName, rank: int) -> None:
        """A failure of the call before, in which the member did not wait."""
        number, error, sentence = self._unwaited.pop((name.era, name.task, rank), (-2, "", ""))
        if number == name.number - 1:
            known.meeting.abort(error, sentence)

    def _is_ahead(self, name: CallName) -> bool:
        is_open = [
            one.number
            for one in self._calls
            if one.task == name.task and one.era == name.era and one not in self._over
        ]
        return bool(is_open) and name.number - min(is_open) > AHEAD

    def _begin(self, name: CallName, task: RosterTask) -> _Known | None:
        """None while the roster does not say where all are."""
        if len(task.instances) < task.size:
            return None
        ids = tuple(one.node_id for one in task.instances)
        for one in task.instances:
            is_there = one.node_id == self._me or self._known.node(self._swarm_id, one.node_id)
            if not is_there and not one.given_up:
                return None  # it is placed anew, or given up
        if self._me not in ids:
            return None
        by_id = Placement.of(name.task, ids)
        nodes = by_id.nodes
        aliases = {one.node_id: one.node_alias for one in task.instances}
        placement = Placement(name.task, tuple(aliases[id_] for id_ in nodes), by_id.ranks)
        meeting = Meeting(name, placement, nodes.index(self._me), self._pool, self)
        known = _Known(meeting, nodes, transfers.places(ids), set())
        self._calls[name] = known
        self._by_meeting[id(meeting)] = name
        self._tell_losses(known, task)
        return known

    def _gather(self, known: _Known, body: CallCollective, size: int) -> None:
        quorum = None
        if isinstance(body.quorum, int):
            quorum = min(body.quorum, size)
        elif body.quorum == "alive" or body.deadline is not None:
            quorum = size
        now = self._outside.clock()
        due = now + body.deadline if isinstance(body.deadline, float) else None
        is_auto = body.deadline == "auto"
        if known.gathering is None:
            known.gathering = _Gathering(size, quorum, is_auto, due, now, {})
        if quorum is not None and body.deadline is None:
            known.meeting.suffice(quorum)

    # --- Outside of meetings ------------------------------------------------------------------

    def tell(self, meeting: Meeting, peer: int, message: Message) -> None:
        name = self._name(meeting)
        known = self._calls[name]
        self._say(known.nodes[peer], name, known.places, message)

    def _say(self, node: str, name: CallName, places: bytes, message: Message) -> None:
        if self._known.node(self._swarm_id, node) is None:
            return
        post = self._post(node)
        said = post.say(name, places, tagged(message))
        if post.kept > UNHEARD:
            self._outside.cut(self._swarm_id, node, f"{post.kept} messages are unheard there")
        if self._outside.is_up(self._swarm_id, node):
            self._outside.tell(self._swarm_id, node, said)

    def expect(self, meeting: Meeting, transfer: Transfer, memory: memoryview) -> None:
        mover, id_ = self._mover(meeting, transfer)
        key = transfer.key
        ended = partial(meeting.has_ended, key)
        mover.expect(id_, memory, partial(self._received, meeting, key), self._then(meeting, ended))

    def send(self, meeting: Meeting, transfer: Transfer, memory: memoryview) -> None:
        mover, id_ = self._mover(meeting, transfer)
        mover.send(id_, memory, self._then(meeting, partial(meeting.has_ended, transfer.key)))

    def ready(self, meeting: Meeting, transfer: Transfer, upto: int) -> None:
        mover, id_ = self._mover(meeting, transfer)
        mover.ready(id_, upto)

    def cancel(self, meeting: Meeting, transfer: Transfer, *, sends: bool) -> None:
        mover, id_ = self._mover(meeting, transfer)
        (mover.cancel if sends else mover.refuse)(id_)

    def _mover(self, meeting: Meeting, transfer: Transfer) -> tuple[Mover, bytes]:
        name = self._name(meeting)
        node = self._calls[name].nodes[transfer.peer]
        life = self._post(node).life
        id_ = transfers.transfer_id(self._swarm_id, self.epoch, name, life, transfer.key)
        return self._outside.move(self._swarm_id, node), id_

    def _received(self, meeting: Meeting, key: str, upto: int) -> None:
        meeting.received(key, upto)
        self._after(meeting)

    def _then(self, meeting: Meeting, call: Callable[[str], None]) -> Callable[[str], None]:
        def both(why: str) -> None:
            call(why)
            self._after(meeting)

        return both

    def work(self, job: Callable[[], None], then: Callable[[Exception | None], None]) -> None:
        self._outside.work(job, then)

    def deliver(self, meeting: Meeting, rank: int, outcome: Outcome) -> None:
        name = self._name(meeting)
        error, sentence, warning = "", "", ""
        if meeting.kernel is not None and outcome.notes:
            try:
                concluded, warning = meeting.kernel.conclude(outcome.notes)
            except ValueError as broken:
                error, sentence = "CollectiveError", str(broken)
            else:
                if concluded is not None:
                    error, sentence = type(concluded).__name__, str(concluded)
        for wait in self._waiting(name, rank):
            if error:
                self._fail(wait.ask, error, sentence)
            else:
                self._answer(wait, meeting, rank, outcome, warning)

    def _answer(
        self, wait: _Wait, meeting: Meeting, rank: int, outcome: Outcome, warning: str
    ) -> None:
        ask = wait.ask
        kind = wait.body.kind
        values: list[tuple[int, Piece]] = []
        for buffer in outcome.buffers:
            of = buffer.at if kind in (Kind.ALL_GATHER, Kind.GATHER) else rank
            values.append((of, meeting.piece(buffer)))
        try:
            values, packed = self._packed(values)
        except NoRoom as error:
            self._fail(ask, "ResourceExhaustionError", str(error))
            return
        for block in {id(p.block): p.block for _, p in values if p.block is not None}.values():
            self._pool.lend(block, ask.at)
        self._done(ask)
        ask.reply(*answer(ask.body.n, values, outcome.lost, warning, self._fd_of))
        if packed is not None:
            self._pool.drop(packed)

    def _packed(
        self, values: list[tuple[int, Piece]]
    ) -> tuple[list[tuple[int, Piece]], Block | None]:
        """With values in a block of their own where an answer can't bring them all: small ones
        beyond MOST_INLINE bytes, large ones beyond MAX_FDS descriptors. Raises NoRoom."""
        small = [p for _, p in values if p.block is None and p.parcel is None]
        large = [p for _, p in values if p.block is not None or p.parcel is not None]
        moved = small if sum(len(piece.view) for piece in small) > MOST_INLINE else []
        if len(large) >= MAX_FDS:
            moved = moved + large[MAX_FDS - 1 :]
        if not moved:
            return values, None
        block = self._pool.take(sum(map(_aligned, moved)))
        at = 0
        found = []
        for rank, piece in values:
            if any(piece is one for one in moved):
                view = block.view[at : at + len(piece.view)]
                view[:] = piece.view
                found.append((rank, Piece(view, block, offset=at)))
                at += _aligned(piece)
            else:
                found.append((rank, piece))
        return found, block

    def _fd_of(self, piece: Piece) -> int:
        if piece.block is not None:
            return piece.block.fd
        assert piece.parcel is not None
        fd = self._outside.own(piece.parcel.id)
        assert fd is not None, "a meeting keeps what it was given"
        return fd

    def fail(self, meeting: Meeting, rank: int, error: str, sentence: str) -> None:
        for wait in self._waiting(self._name(meeting), rank):
            self._fail(wait.ask, error, sentence)

    def closed(self, meeting: Meeting) -> None:
        self._lay_aside(self._name(meeting))

    def release(self, parcel: Parcel) -> None:
        self._outside.release(parcel)

    def _waiting(self, name: CallName, rank: int) -> list[_Wait]:
        return [
            wait
            for ask, wait in self._waits.items()
            if wait.name == name and ask.at.index == rank and ask not in self._parked
        ]

    def _done(self, ask: Ask) -> None:
        self._waits.pop(ask, None)
        self._parked.pop(ask, None)

    def _fail(self, ask: Ask, error: str, sentence: str) -> None:
        if ask in self._parked:
            self._contributions.drop(ask)
        self._done(ask)
        ask.fail(error, sentence)

    # --- meetings that are over -----------------------------------------------------------------

    def _lay_aside(self, name: CallName) -> None:
        self._over[name] = None
        while len(self._over) > KEPT:
            self._forget_oldest()

    def _forget_oldest(self) -> bool:
        if not self._over:
            return False
        name, _ = self._over.popitem(last=False)
        known = self._calls.pop(name)
        del self._by_meeting[id(known.meeting)]
        known.meeting.end()
        task = name.era, name.task
        self._forgotten[task] = max(self._forgotten.get(task, 0), name.number + 1)
        return True

    def evict(self) -> bool:
        """Of the pool: gives up the oldest outcome that is kept, but the newest one."""
        return len(self._over) > 1 and self._forget_oldest()

    # --- what the node is told ------------------------------------------------------------------

    def roster_changed(self, roster: Roster) -> None:
        before, self._roster = self._roster, roster
        if before is not None and before.iteration != roster.iteration:
            self._end_eras(roster.iteration)
        for name, known in list(self._calls.items()):
            task = roster.tasks.get(name.task)
            if name.era == roster.iteration and task is not None and name not in self._over:
                self._tell_losses(known, task)
                self._look(known)
        self.look_again()

    def look_again(self) -> None:
        """What waited for a roster, or for a node to be known, may go on."""
        self._take_early()
        self._retry()

    def _take_early(self) -> None:
        early, self._early = self._early, []
        for node, said in early:
            if self._known.node(self._swarm_id, node) is not None:
                try:
                    self._take(node, said)
                except RemoteProtocolError as error:
                    self._outside.cut(self._swarm_id, node, str(error))

    def _retry(self) -> None:
        for wait in list(self._parked.values()):
            if wait.ask in self._parked:
                self._enter(wait)

    def _end_eras(self, now: int) -> None:
        for name in [name for name in self._calls if name.era < now]:
            self._end(name)
        for task in [task for task in self._forgotten if task[0] < now]:
            del self._forgotten[task]
        self._unwaited = {key: told for key, told in self._unwaited.items() if key[0] >= now}

    def _end(self, name: CallName) -> None:
        known = self._calls.pop(name)
        self._over.pop(name, None)
        for rank in range(known.meeting.placement.size):
            for wait in self._waiting(name, rank):
                sentence = f"{wait.ask.at} was ended: it waits for nothing any more."
                self._fail(wait.ask, "SwarmStopped", sentence)
        known.meeting.end()
        del self._by_meeting[id(known.meeting)]

    def peer_lost(self, node: str, why: str) -> None:
        """A node is in the swarm no longer."""
        self._posts.pop(node, None)
        for known in self._open_with(node):
            known.meeting.peer_lost(known.nodes.index(node), why)
            self._look(known)
        self._retry()

    def _open_with(self, node: str) -> list[_Known]:
        found = [known for name, known in self._calls.items() if name not in self._over]
        return [known for known in found if node in known.nodes]

    def _tell_losses(self, known: _Known, task: RosterTask) -> None:
        """Members that will not make the call: of this plane, and of nodes that are no more."""
        meeting, machine = known.meeting, known.meeting.machine
        me = known.nodes.index(self._me)
        for peer, ranks in enumerate(meeting.placement.ranks):
            if peer == me:
                for rank in ranks:
                    if rank in machine.come or rank in machine.away:
                        continue
                    if why := _why_lost(task, rank):
                        meeting.member_lost(rank, why)
                continue
            is_there = self._known.node(self._swarm_id, known.nodes[peer]) is not None
            if not is_there and not set(ranks) <= machine.away.keys():
                whys = [_why_lost(task, rank) for rank in ranks]
                meeting.peer_lost(peer, whys[0] or "its node was lost")

    def _look(self, known: _Known) -> None:
        """What may follow from anything that has happened."""
        meeting = known.meeting
        self._after(meeting)
        name = self._name(meeting)
        if self._roster is None or name in self._over or not self._waits:
            return
        task, call = self._roster.tasks.get(name.task), meeting.machine.call
        if task is None or call is None:
            return
        stuck = waits.deadlock(
            task, call.words, meeting.machine.come, lambda one: one.places or None
        )
        if stuck:
            meeting.abort("CollectiveError", stuck)
            self._after(meeting)

    def _after(self, meeting: Meeting) -> None:
        """Something has happened to it."""
        name = self._by_meeting.get(id(meeting))
        if name is None:
            return
        known, machine = self._calls[name], meeting.machine
        if known.gathering is not None:
            self._look_at_gathering(known, known.gathering)
        if machine.has_failed and name not in self._over:
            self._lay_aside(name)
            error, sentence = machine.failure
            if error == "CollectiveError":
                for rank in meeting.placement.ranks[known.nodes.index(self._me)]:
                    if machine.has_delivered(rank):
                        self._remember(name, rank, error, sentence)
        if name in self._over and self._parked:
            self._retry()

    def _remember(self, name: CallName, rank: int, error: str, sentence: str) -> None:
        """For the member's next call, or the one that it waits in."""
        self._unwaited[name.era, name.task, rank] = name.number, error, sentence
        after = CallName(name.era, name.task, name.number + 1)
        if after in self._calls and self._waiting(after, rank):
            self._pass_on(self._calls[after], after, rank)
            self._after(self._calls[after].meeting)

    def _look_at_gathering(self, known: _Known, one: _Gathering) -> None:
        """At the root: who has come, and whether to go on waiting."""
        meeting, machine = known.meeting, known.meeting.machine
        assert machine.call is not None
        if machine.has_failed or machine.has_delivered(machine.call.root):
            known.gathering = None
            return
        if one.quorum is None:
            lost = [rank for rank in machine.away if not machine.has_value(rank)]
            if lost:
                named = meeting.placement.named(lost, machine.away)
                meeting.abort("PeerLost", f"gather waits for {named} in vain.")
            return
        if not one.is_auto:
            return
        now = self._outside.clock()
        for rank in range(one.size):
            if rank not in one.arrivals and machine.has_value(rank):
                one.arrivals[rank] = now - one.began
        ends = arrivals.deadline(list(one.arrivals.values()), one.size)
        one.due = None if ends is None else one.began + ends

    # --- peers ----------------------------------------------------------------------------------

    def _post(self, node: str) -> Post:
        found = self._posts.get(node)
        if found is None:
            found = self._posts[node] = Post(self._token)
        return found

    def link_up(self, node: str) -> None:
        self._outside.tell(self._swarm_id, node, self._post(node).link_up())

    def handle(self, node: str, message: messages.Message) -> None:
        """Raises RemoteProtocolError."""
        post = self._post(node)
        answers: list[messages.Message] = []
        if isinstance(message, Introduced):
            answers, is_other = post.introduced(message)
            if is_other:
                self._begun_anew(node)
        elif isinstance(message, CollectiveSaid):
            is_next, answers = post.hear(message)
            if is_next:
                self._take(node, message)
        else:
            post.heard(message)
        for one in answers:
            self._outside.tell(self._swarm_id, node, one)

    def _begun_anew(self, node: str) -> None:
        for known in self._calls.values():
            known.gone.add(node)
        for known in self._open_with(node):
            known.meeting.peer_lost(known.nodes.index(node), "its node began anew")
            self._look(known)

    def _take(self, node: str, said: CollectiveSaid) -> None:
        """Raises RemoteProtocolError."""
        name = said.call
        roster = self._roster
        if roster is None or name.era > roster.iteration:
            self._wait_for_roster(node, said)
            return
        if name.era < roster.iteration:
            return
        known = self._calls.get(name)
        if known is None:
            task = roster.tasks.get(name.task)
            if task is None:
                raise RemoteProtocolError(f"there is no task {name.task!r:.60}")
            if name.number < self._forgotten.get((name.era, name.task), 0):
                self._refuse(node, said, "RequestFailed", self._no_more(name))
                return
            known = self._begin(name, task)
            if known is None:
                self._wait_for_roster(node, said)
                return
            if known.places != said.places:  # one of the two has an older roster
                self._end(name)
                self._wait_for_roster(node, said)
                return
        if node not in known.nodes or said.places != known.places:
            self._refuse(node, said, "PeerLost", self._moved(name, -1))
            return
        if node in known.gone:
            sentence = f"{name.task} made its call {name.number} before {node} began anew."
            self._refuse(node, said, "PeerLost", sentence)
            return
        known.meeting.heard(known.nodes.index(node), said.said.message)
        self._look(known)

    def _wait_for_roster(self, node: str, said: CollectiveSaid) -> None:
        """Raises RemoteProtocolError."""
        if len(self._early) >= EARLY:
            raise RemoteProtocolError(f"{len(self._early)} messages wait for a roster")
        self._early.append((node, said))

    def _refuse(self, node: str, said: CollectiveSaid, error: str, sentence: str) -> None:
        if not isinstance(said.said, messages.Aborted):
            self._say(node, said.call, said.places, Aborted(error, sentence))

    # --- time -----------------------------------------------------------------------------------

    @property
    def due(self) -> float | None:
        gatherings = (known.gathering for known in self._calls.values())
        ends = [one.due for one in gatherings if one is not None and one.due is not None]
        return min((*ends, *(wait.deadline for wait in self._waits.values())), default=None)

    def tick(self, now: float) -> None:
        for known in list(self._calls.values()):
            one = known.gathering
            if one is not None and one.due is not None and one.due <= now:
                one.due = None
                known.gathering = None
                known.meeting.suffice(1)
                self._after(known.meeting)
        for wait in [wait for wait in self._waits.values() if wait.deadline <= now]:
            if wait.ask in self._waits:
                sentence = self._outlook(wait).rstrip(".")
                told = f"Waited {wait.body.timeout:g} s in vain: {sentence}."
                self._fail(wait.ask, "Timeout", told)

    def _outlook(self, wait: _Wait) -> str:
        """Whom it waits for."""
        known, roster = self._calls.get(wait.name), self._roster
        task = None if roster is None else roster.tasks.get(wait.name.task)
        kind = waits.operation(wait.body.words)
        if task is None:
            return f"{kind} waits for the roster of the swarm"
        if known is None or wait.ask in self._parked:
            if known is None and self._is_ahead(wait.name):
                return f"{wait.ask.at} is more than {AHEAD:,} collectives ahead of others"
            ranks: Iterable[int] = range(len(task.instances), task.size)
            return waits.missing(task, kind, ranks).sentence
        machine = known.meeting.machine
        wanted: Iterable[int] = range(task.size)
        if wait.body.kind in (Kind.SCATTER, Kind.BROADCAST):
            wanted = [wait.body.root]
        missing = [rank for rank in wanted if rank not in machine.come]
        if missing:
            return waits.missing(task, kind, missing).sentence
        return machine.waits_for() or f"{kind} is being carried out"

    def close(self) -> None:
        """The swarm, or its timeline, is over here."""
        for ask in list(self._waits):
            self._fail(ask, "SwarmStopped", "The swarm is over here: nothing is waited for.")
        for name in list(self._calls):
            self._end(name)

    # --- words ----------------------------------------------------------------------------------

    def _name(self, meeting: Meeting) -> CallName:
        return self._by_meeting[id(meeting)]

    def _no_more(self, name: CallName) -> str:
        return (
            f"What came of collective {name.number} of {name.task!r} is kept no longer: more of "
            "them followed than the node keeps for a next attempt (value_memory_mb); go on from a "
            "checkpoint, or use fewer in one iteration."
        )

    def _moved(self, name: CallName, rank: int) -> str:
        who = f"{name.task}.{rank}" if rank >= 0 else f"an instance of {name.task!r}"
        return (
            f"Collective {name.number} of {name.task!r} began while {who} was on another node: it "
            "goes on without its next attempt there."
        )


def _aligned(piece: Piece) -> int:
    return -(-len(piece.view) // ALIGNED) * ALIGNED


def _why_lost(task: RosterTask, rank: int) -> str:
    """Why the instance will make no further call; empty if it may."""
    if rank >= len(task.instances):
        return ""
    one = task.instances[rank]
    if one.given_up:
        return one.given_up
    return "it has finished without that call" if one.state == AttemptState.FINISHED else ""
