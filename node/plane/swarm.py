"""What this node's attempts of one swarm exchange, from their requests to links and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from manta.node.peers.known import KnownPeers
from manta.node.plane.requests import (
    FindNode,
    HearBroadcast,
    PlaneRequest,
    ReceiveLetter,
    ReturnLetters,
    SayToAll,
    SendLetter,
)
from manta.node.plane.spool import Timeline
from manta.node.plane.view import RosterView
from manta.protocol.base import Instance
from manta.protocol.roster import Roster
from manta.transports.exchange import messages
from manta.transports.exchange.broadcasts import TooMuchSaid
from manta.transports.exchange.channels import Member
from manta.transports.exchange.group import Group
from manta.transports.exchange.kept import Kept, KeptCall
from manta.transports.exchange.letters import Attempt, Remote, Value
from manta.transports.exchange.messages import Parcel

MOST_USELESS = 1_000
"""Items that are kept, in an iteration, and that nobody needs any more, beyond as many as are."""

MOST_EARLY = 10_000
"""Requests that wait for the roster."""
PATIENCE = 300.0
"""Seconds for which one waits for it that has no time of its own."""


class Ask(Protocol):
    """A request of an attempt, to be answered once."""

    at: Instance
    body: PlaneRequest
    value: Value | None
    """Of a request that brings one."""
    until: float
    """When its time is over; asked again, it has no more than it had."""

    def tell(self, plain: str | None) -> None: ...

    def answer(self, value: Value | None) -> None: ...

    def fail(self, kind: str, sentence: str) -> None:
        """Nobody is given its value."""


class Outside(Protocol):
    """What a swarm's exchange has its plane do."""

    def tell(self, swarm_id: str, peer: str, message: messages.Message) -> None: ...

    def release(self, value: Value) -> None: ...

    def arrived(self, swarm_id: str, value: Value) -> None: ...

    def is_up(self, swarm_id: str, peer: str) -> bool: ...

    def soon(self, call: Callable[[], None]) -> None:
        """Has it called after what is under way."""

    def restored(self, timeline: Timeline) -> list[Kept]:
        """What was kept of a timeline before this process began."""

    def keep(self, timeline: Timeline, kept: Kept, then: Callable[[], object]) -> None:
        """Calls `then` when that outlives this process."""

    def keep_only(
        self, timeline: Timeline, still: Sequence[Kept], then: Callable[[], object]
    ) -> None:
        """Calls `then` when all else that was kept is gone for good."""


class SwarmExchange:
    """Implements `exchange.letters.Shell`."""

    def __init__(self, swarm_id: str, me: str, known: KnownPeers, outside: Outside) -> None:
        self.id = swarm_id
        self._me = me
        self._known = known
        self._outside = outside
        self._group: Group | None = None
        self._view: RosterView | None = None
        self._live: dict[Instance, None] = {}
        self._spoken: set[Instance] = set()
        """Those of them that have exchanged something."""
        self._past: set[Instance] = set()
        """Those that began when they, or their iteration, were over: they are being ended, or they
        are of another timeline, of which this node is yet to hear."""
        self._over: set[Instance] = set()
        """Those of this iteration that have ended here."""
        self._era = -1
        self._early: dict[Ask, float] = {}
        """What waits for a roster that says to whom its attempt may talk, and until when."""
        self._early_until = 0.0
        """When the first of them ends, at the earliest."""
        self.timeline: Timeline | None = None
        """That of the first roster."""
        self._kept: list[Kept] = []
        """What is on disk, or on its way there."""
        self._items = self._items_then = 0
        """How many items that is, and was when what is not needed was last forgotten."""
        self._settling: list[Callable[[], None]] = []
        """Who waits for that."""
        self._forgetting = 0
        """How often that is under way on disk."""

    # --- attempts and what they ask ---------------------------------------------------------

    def begin(self, at: Instance) -> None:
        self._live[at] = None
        if self._group is not None:
            self._begin(self._group, at)
            self._look_at_era(self._group)

    def _begin(self, group: Group, at: Instance) -> None:
        is_past = at.iteration < group.era or at in self._over
        if is_past or (self._view is not None and self._view.is_past(_attempt(at))):
            self._past.add(at)
        else:
            group.begin(_attempt(at))

    def end(
        self,
        at: Instance,
        *,
        counts: bool,
        then: Callable[[], object],
        calls: tuple[KeptCall, ...] = (),
    ) -> None:
        """Calls `then` when what the attempt told others outlives this process, if it counts, and
        so do its `calls`."""
        if self._group is not None and at in self._live:
            self._over.add(at)
        self._live.pop(at, None)
        self._spoken.discard(at)
        self._past.discard(at)
        self._drop(lambda ask: ask.at == at)
        if self._group is None:  # it has exchanged nothing
            then()
            return
        kept = self._group.end(_attempt(at), counts=counts)
        if calls:
            said = () if kept is None else kept.items
            kept = Kept(at.iteration, at.alias, at.index, at.attempt, (*said, *calls))
        if kept is None:
            then()
            return
        self._keep(kept, then)

    def keep(self, at: Instance, calls: tuple[KeptCall, ...], then: Callable[[], object]) -> None:
        """Calls `then` when that of calls of an attempt outlives this process, which goes on."""
        if self._group is None or not calls:
            then()
        else:
            self._keep(Kept(at.iteration, at.alias, at.index, at.attempt, calls), then)

    def _keep(self, kept: Kept, then: Callable[[], object]) -> None:
        assert self.timeline is not None
        self._kept.append(kept)
        self._outside.keep(self.timeline, kept, then)
        self._items += len(kept.items)
        if self._items > MOST_USELESS + 2 * self._items_then:
            self.settle(_nothing)

    def ask(self, ask: Ask, now: float) -> None:
        group = self._group
        match ask.body:
            case FindNode(name=name) if ask.at in self._live:  # which tells nobody anything
                ask.tell(self._known.named(self.id, name))
            case _ if ask.at not in self._live:
                _refuse(ask)
            case _ if group is not None and self._knows(ask.at):
                self._carry_out(group, ask)
            case ReturnLetters():  # it was given none
                ask.answer(None)
            case _:
                self._wait(ask, min(ask.until, now + PATIENCE))

    def _knows(self, at: Instance) -> bool:
        return self._view is not None and at not in self._past and self._view.knows(_attempt(at))

    def _wait(self, ask: Ask, until: float) -> None:
        if len(self._early) < MOST_EARLY:
            self._early_until = min(until, self._early_until) if self._early else until
            self._early[ask] = until
            return
        ask.fail(
            "ResourceExhaustionError",
            f"{MOST_EARLY:,} requests of this swarm wait on this node until its manager says who "
            "takes part: try again when the manager is reached, or have fewer threads exchange.",
        )

    def _drop(self, which: Callable[[Ask], bool]) -> None:
        """Ends what waits for the roster."""
        for ask in [ask for ask in self._early if which(ask)]:
            del self._early[ask]
            _refuse(ask)

    def _carry_out(self, group: Group, ask: Ask) -> None:
        at = _attempt(ask.at)
        if not group.is_live(at):
            _refuse(ask)
            return
        self._spoken.add(ask.at)
        match ask.body:
            case SendLetter(to=to, tag=tag, timeout=timeout):
                assert ask.value is not None
                group.send(ask, at, to, tag, ask.value, timeout, ask.until - timeout)
            case ReceiveLetter(source=source, tag=tag, number=number, timeout=timeout):
                group.receive(ask, at, source, tag, number, timeout, ask.until - timeout)
            case ReturnLetters(source=source, tag=tag, received=received):
                group.give_back(at, source, tag, received)
                ask.answer(None)
            case SayToAll(tag=tag):
                assert ask.value is not None
                try:
                    group.broadcast(at, tag, ask.value)
                except TooMuchSaid as error:
                    ask.fail("ResourceExhaustionError", str(error))
                else:
                    ask.answer(None)
            case HearBroadcast(tag=tag, timeout=timeout):
                group.get_broadcast(ask, at, tag, timeout, ask.until - timeout)

    def abandon(self, ask: Ask) -> None:
        if ask in self._early:
            del self._early[ask]
        elif self._group is None or not self._group.abandon(ask):
            return
        if ask.value is not None:
            self._outside.release(ask.value)

    def lost(self, ask: Ask, value: Remote, now: float) -> None:
        """What it was answered with is no longer where it was: it is asked again."""
        if self._group is not None:
            self._group.lose(value)
        self.ask(ask, now)

    def spoke(self, at: Instance) -> None:
        """The attempt has exchanged something on this timeline."""
        self._spoken.add(at)

    def take_over(self, former: SwarmExchange, now: float) -> list[Instance]:
        """This is another timeline: attempts that have exchanged nothing on the former one go on
        here, with what they wait for. Returns the others, of whom what they said is forgotten."""
        for at in former._live:
            if at not in former._spoken:
                self.begin(at)
        waiting = [ask for ask in former._early if ask.at in self._live]
        for ask in waiting:
            del former._early[ask]
            self.ask(ask, now)
        return [at for at in former._live if at in former._spoken]

    def close(self) -> None:
        """The swarm, or its timeline, is over here: nothing of it is kept."""
        self._drop(lambda _: True)
        if self._group is not None:
            for at in self._live:
                self._group.end(_attempt(at), counts=False)
            self._group.close()
        self._release_others(())

    def lacking(self) -> set[str]:
        """The nodes that have not said that all has come which they were sent."""
        return set() if self._group is None else self._group.lacking()

    def sent(self) -> Iterable[tuple[str, Parcel]]:
        """The large values that other nodes may ask for, each with one of those nodes."""
        return () if self._group is None else self._group.sent()

    # --- what the node is told --------------------------------------------------------------

    def roster_changed(self, roster: Roster, timeline: Timeline, now: float) -> None:
        """`timeline` is that of the roster, and of all rosters before it."""
        view = self._view = RosterView(self.id, self._me, roster, self._known, self._view)
        if self._group is not None:
            self._group.roster_changed(view)
            self._look_at_era(self._group)
        else:
            self._open(view, timeline)
        early, self._early = self._early, {}
        for ask, until in early.items():
            self.ask(ask, now)
            if ask in self._early:
                self._early[ask] = until
        self._early_until = min(self._early.values(), default=0.0)

    def _open(self, view: RosterView, timeline: Timeline) -> None:
        self.timeline = timeline
        self._kept = self._outside.restored(timeline)
        group = self._group = Group(self._me, self, view, self._kept, is_final=view.is_final)
        self._look_at_era(group)
        for at in self._live:
            self._begin(group, at)
        for peer in view.peers():
            if self._outside.is_up(self.id, peer):
                group.link_up(peer, wants=True)  # what it said before was not heard

    def _look_at_era(self, group: Group) -> None:
        """What was kept of those before is not needed."""
        if group.era != self._era:
            self._era = group.era
            self._over = {at for at in self._over if at.iteration >= group.era}
            self.settle(_nothing)

    def peers_removed(self, peers: Iterable[str]) -> None:
        if self._group is not None:
            for peer in peers:
                self._group.peer_removed(peer)

    def link_up(self, peer: str, *, wants: bool) -> None:
        if self._group is not None:
            self._group.link_up(peer, wants=wants)

    def link_down(self, peer: str) -> None:
        if self._group is not None:
            self._group.link_down(peer)

    def handle(self, peer: str, message: messages.Message) -> None:
        """Raises RemoteProtocolError. What is said before the first roster is asked for again."""
        if self._group is not None:
            self._group.handle(peer, message)

    # --- time -------------------------------------------------------------------------------

    @property
    def due(self) -> float | None:
        due = None if self._group is None else self._group.due
        if not self._early:
            return due
        return self._early_until if due is None else min(due, self._early_until)

    def tick(self, now: float) -> None:
        if self._group is not None:
            self._group.tick(now)
        if not self._early or self._early_until > now:
            return
        for ask in [ask for ask, until in self._early.items() if until <= now]:
            del self._early[ask]
            ask.fail(
                "Timeout",
                f"Waited {getattr(ask.body, 'timeout', PATIENCE):g} s in vain: the node was not "
                f"told yet who takes part in iteration {ask.at.iteration}; look whether it reaches "
                "its manager.",
            )
        self._early_until = min(self._early.values(), default=0.0)

    # --- Shell ------------------------------------------------------------------------------

    def tell(self, peer: str, message: messages.Message) -> None:
        self._outside.tell(self.id, peer, message)

    def release(self, value: Value) -> None:
        self._outside.release(value)

    def arrived(self, value: Value) -> None:
        self._outside.arrived(self.id, value)

    def settle(self, then: Callable[[], None]) -> None:
        self._settling.append(then)
        if len(self._settling) == 1:
            self._outside.soon(self._settle)

    def _release_others(self, still: Sequence[Kept]) -> None:
        """Values of calls: all but these. Those of letters are the group's."""
        for value in _of_calls(self._kept) - _of_calls(still):
            self._outside.release(value)

    def _settle(self) -> None:
        """Forgets on disk what is needed no longer, once for all who wait for it."""
        waiting, self._settling = self._settling, []
        if self._group is None or self.timeline is None:
            return
        still = [kept for one in self._kept if (kept := self._group.still(one)) is not None]
        self._items = self._items_then = sum(len(kept.items) for kept in still)
        if still == self._kept and not self._forgetting:
            for then in waiting:
                then()
            return

        def forgotten() -> None:
            self._forgetting -= 1
            for then in waiting:
                then()

        self._release_others(still)
        self._kept = still
        self._forgetting += 1
        self._outside.keep_only(self.timeline, still, forgotten)


def _refuse(ask: Ask) -> None:
    at = _attempt(ask.at)
    ask.fail("SwarmStopped", f"{at.member} was ended: it waits for nothing any more.")


def _of_calls(kept: Iterable[Kept]) -> set[Parcel]:
    items = (item for one in kept for item in one.items if isinstance(item, KeptCall))
    return {item.value for item in items if isinstance(item.value, Parcel)}


def _nothing() -> None:
    pass


def _attempt(at: Instance) -> Attempt:
    return Attempt(at.iteration, Member(at.alias, at.index), at.attempt)
