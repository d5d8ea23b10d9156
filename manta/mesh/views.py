"""Which peers meet in collectives, and from which call on. Pure.

Theory of operation. A *view* is a list of members, in the order of their ranks, on which all of
them have agreed, as in virtual synchrony (Birman and Joseph 1987). Of the peers that one takes for
alive, the one with the lowest id proposes another view when they are not the members of its own.
Each member says where it is, and from then on begins no call and lets none end, until it hears the
commit: the new view, and which call is the last of each former one (`groups`). So all members make
the same calls in it, and none sees its rank change between two calls. Who is not among the new
members is given up with the commit, in the last call, and not before.

A member that has heard a commit is *ending*. What comes of its last call it keeps back until all
members have come that far, and the proposer says that the view begins. If somebody is lost
meanwhile, the next commit puts another view in the place of the one that has not begun, and that
loss is heard in the same last call. So who is given up in a view is not in the next: a loss is told
in one call, the same for all that are left.

What was not answered is said again. Who missed a commit goes on as the others do with the next one;
if it has gone further than they, they are given up in its view, and it in theirs.

A proposal may neither leave out whom a member of its view takes for alive, nor name whom it does
not: so it is repeated until all have heard who is there. Who does not propose, and is in a view of
others than those, asks for it. A ballot is a number and its proposer; the highest counts. A member
that has held anything for ten seconds goes on, and says so: it can't know whether others have
heard the commit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from manta.mesh.groups import groups, late
from manta.mesh.said import (
    NONE,
    Apart,
    Ballot,
    Begin,
    Commit,
    Ending,
    Position,
    Proposals,
    Propose,
    Refuse,
)

SOON = 0.03
"""Seconds that others have to come as well, once somebody has."""
PATIENCE = 10.0
"""Seconds for which anything is held without being told more."""
ANSWER = 1.0
"""Seconds until a proposal that was not answered by all is made again, and until a member says
again where it is."""
AGAIN = 0.05
"""Seconds until one that was refused is made again."""
MOST_WEIGHT = 2_000
"""Of the calls in a view, before another with the same members takes its place, so that what is
kept of them goes. A call weighs 1, and 1 more for each `UNIT` bytes of its outcome."""
UNIT = 128 * 1024
BEHIND = 1.0
"""Seconds that members have to hear a commit before another view is proposed."""


class View(NamedTuple):
    """`members` in the order of their ranks."""

    ballot: Ballot
    members: tuple[str, ...]

    @property
    def token(self) -> str:
        return f"{self.ballot.number}.{self.ballot.proposer}"


class Tell(NamedTuple):
    peer: str
    message: Proposals


class Prepare(NamedTuple):
    """The view is about to begin, in place of any other that was."""

    view: View


class GiveUp(NamedTuple):
    """Of the view that is about to end, these members are lost."""

    view: View
    members: tuple[str, ...]


class Enter(NamedTuple):
    """The view begins here."""

    view: View


class Release(NamedTuple):
    """What was held is to be asked about again."""


Action = Tell | Prepare | GiveUp | Enter | Release


@dataclass
class _Proposal:
    """This peer's own; once it is committed, `positions` are those after the commit."""

    view: View
    until: float
    positions: dict[str, Position] = field(default_factory=dict)
    has_begun: bool = False

    @property
    def is_answered(self) -> bool:
        """By all."""
        return len(self.positions) == len(self.view.members)


@dataclass
class _Ending:
    limit: int | None
    """The last call is the first with a greater number; without one the view is over at once."""
    next: View
    last: int | None
    """Its number, once it is called."""
    is_done: bool
    """What comes of it is here, or there is none."""


class Views:
    """`order` puts ids into the order of ranks."""

    def __init__(self, me: str, order: Callable[[Iterable[str]], Sequence[str]]) -> None:
        self._me = me
        self._order = order
        self.view = View(Ballot(0, me), (me,))
        self._highest = self.view.ballot
        """Of all ballots that were seen."""
        self._alive: frozenset[str] = frozenset((me,))
        self._linked: frozenset[str] = frozenset()
        self._done = NONE
        self._inside = NONE
        self._weight = 0
        self._is_pending = False
        self._is_free = False
        self._lost: frozenset[str] = frozenset()
        """Members of the view that are given up in it."""
        self._held: Ballot | None = None
        """The proposal that is waited for."""
        self._held_until: float | None = None
        """Once anything is held for it, or for the beginning of the next view."""
        self._ending: _Ending | None = None
        self._again = 0.0
        """When it says again where it is, as that may be lost, or what was said to it."""
        self._proposal: _Proposal | None = None
        self._committed: _Proposal | None = None
        self._propose_at: float | None = None
        """When this peer proposes, or asks for that, at the earliest."""
        self._is_asked = False
        """Is another view needed, also with the same members, as from a proposal to a commit?"""
        self._behind_at: float | None = None
        """When all members should have heard of the view that was committed last."""

    # --- calls of the member here ---------------------------------------------------------------

    def call(self, number: int, now: float) -> tuple[bool, list[Action]]:
        """The member calls the collective of that number in its view: whether it is carried out
        now, or is asked about again after `Release`."""
        ending = self._ending
        if self._holds or (ending is not None and ending.is_done):
            self._hold(now)
            if self._is_pending:
                return False, []
            self._is_pending = True
            return False, self._say_position(now)
        self._is_pending = False
        self._inside = number
        if ending is not None and ending.limit is not None and number > ending.limit:
            ending.last = number
        return True, []

    def came(self, number: int, now: float, size: int = 0) -> tuple[bool, list[Action]]:
        """What comes of the call under way is here, in so many bytes: whether it is answered now,
        or is asked about again after `Release`, unless that view is over then."""
        ending = self._ending
        if self._holds:
            self._hold(now)
            return False, []
        if ending is not None and ending.last == number:
            self._hold(now)
            return False, self._is_at_end(ending, now)
        return True, self._ended(number, now, size)

    @property
    def _holds(self) -> bool:
        """Who is ending goes on to its last call: that is decided."""
        return self._held is not None and self._ending is None

    def _hold(self, now: float) -> None:
        if self._held_until is None:
            self._held_until = now + PATIENCE

    def _is_at_end(self, ending: _Ending, now: float) -> list[Action]:
        was, ending.is_done = ending.is_done, True
        return [] if was else self._say_position(now)

    def _ended(self, number: int, now: float, size: int) -> list[Action]:
        self._done, self._inside = max(self._done, number), NONE
        self._weight += 1 + size // UNIT
        return [*self._say_position(now), *(self._look(now) if self._is_heavy else ())]

    @property
    def _is_heavy(self) -> bool:
        return self._weight >= MOST_WEIGHT and self._ending is None

    def abandoned(self, now: float) -> list[Action]:
        """Nobody waits any more for a call that was held or under way."""
        self._is_pending = False
        ending = self._ending
        if self._inside == NONE:
            return self._say_position(now)
        if ending is not None and ending.last == self._inside:
            return self._is_at_end(ending, now)
        return self._ended(self._inside, now, 0)

    def waits(self, is_free: bool, now: float) -> list[Action]:
        """The member waits for another view, or has ceased to."""
        if self._is_free == is_free:
            return []
        self._is_free = is_free
        return [*self._say_position(now), *self._look(now)]

    # --- what is known of peers -----------------------------------------------------------------

    def know(self, alive: Iterable[str], linked: Iterable[str], now: float) -> list[Action]:
        """Whom this peer takes for alive, itself among them, and with whom it has a link."""
        was, self._alive = self._alive, frozenset(alive)
        had, self._linked = self._linked, frozenset(linked)
        actions: list[Action] = []
        if self._held is not None and self._held.proposer not in self._alive:
            actions += self._let_go(now)
        elif self._proposer in self._linked - had:  # what was said before may be lost
            actions += self._say_position(now)
        if was != self._alive and self._propose_at is None:
            self._propose_at = now if was - self._alive else now + SOON
        return [*actions, *self._look(now)]

    @property
    def _target(self) -> View:
        return self.view if self._ending is None else self._ending.next

    @property
    def leads(self) -> bool:
        """Whether this peer is the one that proposes."""
        return self._me == min(self._alive)

    # --- proposing ------------------------------------------------------------------------------

    @property
    def _can_propose(self) -> bool:
        return self.leads and self._linked.union((self._me,)) >= self._alive

    def _look(self, now: float) -> list[Action]:
        """Proposes, or asks for that, if it is due."""
        if not self.leads:
            self._proposal = None
            return self._ask(now)
        if (proposal := self._proposal) is not None:
            if self._alive == set(proposal.view.members) and now < proposal.until:
                return []
        elif not self._is_reason(now):
            self._propose_at = None
            return []
        if self._propose_at is None:
            self._propose_at = now
        if now < self._propose_at or not self._can_propose:
            return []
        return self._propose(now)

    def _ask(self, now: float) -> list[Action]:
        """Who proposes may know nothing of this peer's view, as after a partition."""
        if self._alive == set(self._target.members):
            self._propose_at = None
            return []
        if self._propose_at is None:
            self._propose_at = now + BEHIND
        if now < self._propose_at:
            return []
        self._propose_at = now + BEHIND
        return [Tell(min(self._alive), Apart(self._target.ballot))]

    def _is_reason(self, now: float) -> bool:
        if self._is_asked or self._is_heavy or self._alive != set(self._target.members):
            return True
        if self._behind_at is None or now < self._behind_at:
            return False
        self._behind_at = None
        self._is_asked = self._committed is not None and not self._committed.is_answered
        return self._is_asked

    def _propose(self, now: float) -> list[Action]:
        self._propose_at, self._is_asked = None, True
        view = View(Ballot(self._highest.number + 1, self._me), tuple(self._order(self._alive)))
        self._proposal = _Proposal(view, now + ANSWER)
        message = Propose(*view)
        return [*self._tell_others(view, message), *self._proposed(message, now)]

    def _tell_others(self, view: View, message: Proposals) -> list[Action]:
        return [Tell(one, message) for one in view.members if one != self._me]

    def _take_position(self, peer: str, said: Position, now: float) -> list[Action]:
        own = (one for one in (self._proposal, self._committed) if one is not None)
        of = next((one for one in own if one.view.ballot == said.ballot), None)
        is_early = of is self._committed and said.target != said.ballot  # it is yet to hear that
        if of is None or is_early or peer not in of.view.members:
            return []
        known, of.positions[peer] = of.positions.get(peer), said
        if said == known and (said.ending is None or not said.ending.is_done):
            return []  # it lacks no `Begin`
        if of is self._proposal:
            return self._decide(of, now) if of.is_answered else []
        if not of.has_begun:
            return self._look_at_ends(of, now)
        return self._let_begin({peer: said.ballot}, now) if said.ending is not None else []

    def _decide(self, proposal: _Proposal, now: float) -> list[Action]:
        """Commits, once it is known which calls are the last."""
        proposal.until = math.inf  # it is for the members to move
        if behind := late(proposal.positions):
            return self._let_begin(behind, now)
        found = groups(proposal.positions)
        if found is None:
            return []
        self._proposal, self._committed = None, _Proposal(proposal.view, math.inf)
        self._is_asked = False
        commit = Commit(*proposal.view, found)
        others = self._tell_others(proposal.view, commit)
        self._behind_at = now + BEHIND if others else None
        return [*others, *self._commit(commit, now)]

    def _look_at_ends(self, committed: _Proposal, now: float) -> list[Action]:
        """Lets the view begin once all have come to it."""
        if not committed.is_answered or self._proposal is not None:
            return []
        at = committed.positions
        coming = {one: said.ending for one, said in at.items() if said.ending is not None}
        if all(ending.is_done for ending in coming.values()):
            committed.has_begun = True
            return self._let_begin(dict.fromkeys(coming, committed.view.ballot), now)
        over = {one for group in groups(at) or () if group.limit is None for one in group.members}
        if not all(ending.is_done for one, ending in coming.items() if one in over):
            self._is_asked = True  # they wait, in place of their last call
            return self._look(now)
        return []

    def _let_begin(self, views: dict[str, Ballot], now: float) -> list[Action]:
        """Tells each of those that its next view has begun."""
        others = [one for one in views if one != self._me]
        actions: list[Action] = [Tell(one, Begin(views[one])) for one in others]
        if self._me in views:
            actions += self._begin(self._me, views[self._me], now)
        return actions

    def _refused(self, said: Refuse, now: float) -> list[Action]:
        self._highest = max(self._highest, said.highest)
        if self._proposal is None or said.ballot != self._proposal.view.ballot:
            return []
        self._proposal, self._propose_at = None, now + AGAIN
        return self._let_go(now) if self._held == said.ballot else []

    # --- what others say ------------------------------------------------------------------------

    def heard(self, peer: str, said: Proposals, now: float) -> list[Action]:
        match said:
            case Propose(ballot, members) if peer == ballot.proposer and self._me in members:
                return self._proposed(said, now)
            case Position():
                return self._take_position(peer, said, now)
            case Commit(ballot) if peer == ballot.proposer:
                return self._commit(said, now)
            case Begin(ballot):
                return self._begin(peer, ballot, now)
            case Refuse():
                return self._refused(said, now)
            case Apart(view) if view != self._target.ballot and peer in self._alive:
                self._is_asked = True
                return self._look(now)
        return []

    def _proposed(self, said: Propose, now: float) -> list[Action]:
        lacking = {*self.view.members, *self._target.members}.difference(said.members)
        strange = not self._alive.issuperset(said.members)
        if said.ballot <= self._highest or lacking & self._alive or strange:
            refusal = Refuse(said.ballot, self._highest)
            if said.ballot.proposer == self._me:
                return self._refused(refusal, now)
            return [Tell(said.ballot.proposer, refusal)]
        self._highest = self._held = said.ballot
        if said.ballot.proposer != self._me:
            self._proposal = None
        return self._say_position(now)

    @property
    def _proposer(self) -> str | None:
        """To whom this peer says where it is."""
        if self._held is not None:
            return self._held.proposer
        return None if self._ending is None else self._ending.next.ballot.proposer

    def _say_position(self, now: float) -> list[Action]:
        ending, proposer = self._ending, self._proposer
        if proposer is None:
            return []
        self._again = now + ANSWER
        told = None
        if ending is not None:
            lost = tuple(sorted(self._lost))
            told = Ending(ending.next.ballot, ending.limit, lost, ending.is_done)
        said = Position(
            self._held or self._target.ballot,
            self.view.ballot,
            self._done,
            self._inside,
            self._is_pending,
            self._is_free,
            told,
        )
        if proposer == self._me:
            return self._take_position(self._me, said, now)
        return [Tell(proposer, said)]

    def _commit(self, said: Commit, now: float) -> list[Action]:
        group = next((one for one in said.groups if self._me in one.members), None)
        if said.ballot != self._held or group is None or group.view != self.view.ballot:
            return []  # this peer has gone on: it is proposed to again
        self._held = self._held_until = None
        view, limit, former = View(said.ballot, said.members), group.limit, self._ending
        is_over = limit is None or (former is not None and former.is_done)
        last = None if former is None else former.last
        if limit is not None and self._inside > limit:
            last = self._inside
        self._ending = _Ending(limit, view, last, is_over)
        actions: list[Action] = [Prepare(view)]
        if lost := set(self.view.members).difference(group.members, self._lost):
            self._lost |= lost
            actions.append(GiveUp(self.view, tuple(sorted(lost))))
        return [*actions, *self._say_position(now), Release()]

    def _begin(self, peer: str, ballot: Ballot, now: float) -> list[Action]:
        ending = self._ending
        if ending is None or ending.next.ballot != ballot or not ending.is_done:
            return []
        if self._held is not None and self._held.proposer != peer:
            return []  # who proposes now takes this peer to be where it is
        return self._enter(ending.next, now)

    def _enter(self, view: View, now: float) -> list[Action]:
        self.view, self._ending, self._lost = view, None, frozenset()
        self._done = self._inside = NONE
        self._weight, self._is_pending, self._held_until = 0, False, None
        return [Enter(view), Release(), *self._say_position(now), *self._look(now)]

    def _let_go(self, now: float) -> list[Action]:
        """Goes on as before the proposal."""
        self._held = self._held_until = None
        return [*self._say_position(now), Release()]

    # --- time -----------------------------------------------------------------------------------

    @property
    def due(self) -> float | None:
        times = [self._held_until, None if self._proposer is None else self._again]
        if not self.leads:
            times.append(self._propose_at)
        elif self._can_propose:
            times += [self._propose_at, self._behind_at]
            times += [] if self._proposal is None else [self._proposal.until]
        due = min((one for one in times if one is not None), default=math.inf)
        return None if due == math.inf else due

    def tick(self, now: float) -> list[Action]:
        is_late = self._held_until is not None and self._held_until <= now
        actions = self._impatient(now) if is_late else []
        actions += self._say_position(now) if self._again <= now else []
        return [*actions, *self._look(now)]

    def _impatient(self, now: float) -> list[Action]:
        """What is held has been for too long."""
        self._held_until = None
        if self._ending is not None and self._ending.is_done:
            return self._enter(self._ending.next, now)
        if self._held is None:
            return []
        refusal = Refuse(self._held, self._highest)
        if self._held.proposer == self._me:
            return self._refused(refusal, now)
        return [Tell(self._held.proposer, refusal), *self._let_go(now)]
