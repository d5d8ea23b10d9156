"""What this node's attempts of one swarm exchange, from their requests to links and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from manta.node.peers.known import KnownPeers
from manta.node.plane.requests import (
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
from manta.transports.exchange.kept import Kept
from manta.transports.exchange.letters import Attempt, Remote, Value

MOST_USELESS = 1_000
"""Items that are kept, in an iteration, and that nobody needs any more, beyond as many as are."""
MOST_EARLY = 10_000
"""Requests and messages that wait for the swarm's first roster."""


class Ask(Protocol):
    """A request of an attempt, to be answered once."""

    at: Instance
    body: PlaneRequest
    value: Value | None
    """Of a request that brings one."""

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
        self._swarm_id = swarm_id
        self._me = me
        self._known = known
        self._outside = outside
        self._group: Group | None = None
        self._live: dict[Instance, None] = {}
        self._early: list[Callable[[Group], None]] = []
        """What waits for the first roster."""
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
            self._group.begin(_attempt(at))

    def end(self, at: Instance, *, counts: bool, then: Callable[[], object]) -> None:
        """Calls `then` when what the attempt told others outlives this process, if it counts."""
        self._live.pop(at, None)
        if self._group is None:  # it has exchanged nothing
            then()
            return
        kept = self._group.end(_attempt(at), counts=counts)
        if kept is None:
            then()
            return
        assert self.timeline is not None
        self._kept.append(kept)
        self._outside.keep(self.timeline, kept, then)
        self._items += len(kept.items)
        if self._items > MOST_USELESS + 2 * self._items_then:
            self.settle(_nothing)

    def ask(self, ask: Ask, now: float) -> None:
        if self._group is None and len(self._early) >= MOST_EARLY:
            ask.fail("ResourceExhaustionError", "Too many requests wait for the swarm's roster.")
            return
        self._then(lambda group: self._carry_out(group, ask, now))

    def _carry_out(self, group: Group, ask: Ask, now: float) -> None:
        at = _attempt(ask.at)
        match ask.body:
            case SendLetter(to=to, tag=tag, timeout=timeout):
                assert ask.value is not None
                group.send(ask, at, to, tag, ask.value, timeout, now)
            case ReceiveLetter(source=source, tag=tag, number=number, timeout=timeout):
                group.receive(ask, at, source, tag, number, timeout, now)
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
                group.get_broadcast(ask, at, tag, timeout, now)

    def abandon(self, ask: Ask) -> None:
        self._then(lambda group: self._abandon(group, ask))

    def _abandon(self, group: Group, ask: Ask) -> None:
        if group.abandon(ask) and ask.value is not None:
            self._outside.release(ask.value)

    def lost(self, ask: Ask, value: Remote, now: float) -> None:
        """What it was answered with is no longer where it was: it is asked again."""
        self._then(lambda group: group.lose(value))
        self._then(lambda group: self._carry_out(group, ask, now))

    def close(self) -> None:
        """The swarm, or its timeline, is over here: nothing of it is kept."""
        if self._group is not None:
            for at in self._live:
                self._group.end(_attempt(at), counts=False)
            self._group.close()

    # --- what the node is told --------------------------------------------------------------

    def roster_changed(self, roster: Roster, timeline: Timeline) -> None:
        """`timeline` is that of the roster, and of all rosters before it."""
        view = RosterView(self._swarm_id, self._me, roster, self._known)
        if self._group is not None:
            era = self._group.letters.era
            self._group.roster_changed(view)
            if view.era != era:
                self.settle(_nothing)
            return
        self.timeline = timeline
        self._kept = self._outside.restored(timeline)
        group = self._group = Group(self._me, self, view, self._kept)
        self.settle(_nothing)
        for at in self._live:
            group.begin(_attempt(at))
        for peer in view.peers():
            if self._outside.is_up(self._swarm_id, peer):
                group.link_up(peer, wants=True)
        early, self._early = self._early, []
        for call in early:
            call(group)

    def peers_removed(self, peers: Iterable[str]) -> None:
        if self._group is not None:
            for peer in peers:
                self._group.letters.peer_removed(peer)

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
        return None if self._group is None else self._group.due

    def tick(self, now: float) -> None:
        if self._group is not None:
            self._group.tick(now)

    # --- Shell ------------------------------------------------------------------------------

    def tell(self, peer: str, message: messages.Message) -> None:
        self._outside.tell(self._swarm_id, peer, message)

    def release(self, value: Value) -> None:
        self._outside.release(value)

    def arrived(self, value: Value) -> None:
        self._outside.arrived(self._swarm_id, value)

    def settle(self, then: Callable[[], None]) -> None:
        self._settling.append(then)
        if len(self._settling) == 1:
            self._outside.soon(self._settle)

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

        self._kept = still
        self._forgetting += 1
        self._outside.keep_only(self.timeline, still, forgotten)

    def _then(self, call: Callable[[Group], None]) -> None:
        if self._group is None:
            self._early.append(call)
        else:
            call(self._group)


def _nothing() -> None:
    pass


def _attempt(at: Instance) -> Attempt:
    return Attempt(at.iteration, Member(at.alias, at.index), at.attempt)
