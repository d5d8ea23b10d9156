"""Which peers meet in collectives, and from which call on. Pure.

Theory of operation. A *view* is a list of members, in the order of their ranks, on which all of
them have agreed, as in virtual synchrony (Birman and Joseph 1987). Of the peers that one takes for
alive, the one with the lowest id proposes another view when they are not the members of its own.
Each member says where it is, and from then on begins no call and lets none end, until it hears the
commit: the new view, and which call is the last of each former one.

| of a former view | its last call is |
|---|---|
| all members wait for another view | none: it is over |
| some wait, and others neither do nor call | not decided until these do one or the other |
| any other | the first that no member has ended |

So all members make the same calls in it, and none sees its rank change between two calls. A member
that has heard a commit is *ending* until its last call in the former view has ended. Who is not
among the new members is given up with the commit, in the last call, and not before: all that are
left hear of a loss in the same call.

The next commit waits for members that are ending. If one of them needs a peer in its last call that
is no more, it gives that one up with the proposal. Who missed a commit is in a view that others
have left: those are given up in it with the next one.

A proposal may neither leave out whom a member of its view takes for alive, nor name whom it does
not: so it is repeated until all have heard who is there. Who does not propose, and is in a view of
others than those, asks for it. A ballot is a number and its proposer; the highest counts. A member
that has held anything for ten seconds goes on as before, and says so: it can't know whether others
have heard the commit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from manta.mesh.said import (
    NONE,
    Accepted,
    Apart,
    Ballot,
    Commit,
    Position,
    Proposals,
    Propose,
    Refuse,
)

SOON = 0.03
"""Seconds that others have to come as well, once somebody has."""
PATIENCE = 10.0
"""Seconds for which anything is held without a commit."""
ANSWER = 1.0
"""Seconds until a proposal that was not answered by all is made again."""
AGAIN = 0.05
"""Seconds until one that was refused is made again."""
MOST_WEIGHT = 2_000
"""Of the calls in a view, before another with the same members takes its place, so that what is
kept of them goes. A call weighs 1, and 1 more for each `UNIT` bytes of its outcome."""
UNIT = 128 * 1024
BEHIND = 1.0
"""Seconds that members have to accept a commit before another is proposed."""


class View(NamedTuple):
    """`members` in the order of their ranks."""

    ballot: Ballot
    members: tuple[str, ...]

    @property
    def token(self) -> str:
        return f"{self.ballot.number}.{self.ballot.proposer}"


class Verdict(Enum):
    """On a call that a member makes in its view."""

    GO = "go"
    HOLD = "hold"
    """Until `Release`."""
    OVER = "over"
    """The view has no such call."""


class Tell(NamedTuple):
    peer: str
    message: Proposals


class Prepare(NamedTuple):
    """The view is about to begin."""

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
    """This peer's own."""

    ballot: Ballot
    members: tuple[str, ...]
    until: float
    positions: dict[str, Position] = field(default_factory=dict)


@dataclass
class _Ending:
    limit: int
    """The last call is the first with a greater number."""
    next: View
    last: int | None = None
    """Its number, once it is called."""


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
        self._held: Ballot | None = None
        """The proposal that is waited for."""
        self._held_until: float | None = None
        """Once anything is held for it."""
        self._ending: _Ending | None = None
        self._proposal: _Proposal | None = None
        self._propose_at: float | None = None
        """When this peer proposes, or asks for that, at the earliest."""
        self._is_asked = False
        """Is another member in a view that is to become one with this?"""
        self._accepted: set[str] = set()
        """Members of the view that was committed last."""
        self._behind_at: float | None = None
        """When all of them should have accepted it."""

    # --- calls of the member here ---------------------------------------------------------------

    def call(self, number: int, now: float) -> tuple[Verdict, list[Action]]:
        """The member calls the collective of that number in its view."""
        ending = self._ending
        if ending is not None and ending.last is not None and number > ending.last:
            return Verdict.OVER, []
        if self._holds:
            self._hold(now)
            if self._is_pending:
                return Verdict.HOLD, []
            self._is_pending = True
            return Verdict.HOLD, self._say_position(now)
        self._is_pending = False
        self._inside = number
        if ending is not None and number > ending.limit:
            ending.last = number
        return Verdict.GO, []

    def may_end(self, now: float) -> bool:
        """Whether the call that is under way may be answered now; else after `Release`."""
        if self._holds:
            self._hold(now)
        return not self._holds

    @property
    def _holds(self) -> bool:
        """Who is ending goes on to its last call: that is decided, and a commit waits for it."""
        return self._held is not None and self._ending is None

    def _hold(self, now: float) -> None:
        if self._held_until is None:
            self._held_until = now + PATIENCE

    @property
    def last(self) -> int | None:
        """The number of the last call in the view, once it is called."""
        return None if self._ending is None else self._ending.last

    def ended(self, number: int, now: float, size: int = 0) -> list[Action]:
        """The call that was under way was answered, with so many bytes."""
        self._done, self._inside = max(self._done, number), NONE
        self._weight += 1 + size // UNIT
        if self.last == number:
            return self._enter(now)
        return [*self._say_position(now), *(self._look(now) if self._is_heavy else ())]

    @property
    def _is_heavy(self) -> bool:
        return self._weight >= MOST_WEIGHT and self._ending is None

    def abandoned(self, now: float) -> list[Action]:
        """Nobody waits any more for a call that was held or under way."""
        self._is_pending = False
        return self.ended(self._inside, now) if self._inside != NONE else self._say_position(now)

    def waits(self, is_free: bool, now: float) -> list[Action]:
        """The member waits for another view, or has ceased to."""
        if self._is_free == is_free:
            return []
        self._is_free = is_free
        return [*self._say_position(now), *self._look(now)]

    # --- what is known of peers -----------------------------------------------------------------

    def know(self, alive: Iterable[str], linked: Iterable[str], now: float) -> list[Action]:
        """Whom this peer takes for alive, itself among them, and with whom it has a link."""
        was, self._alive, self._linked = self._alive, frozenset(alive), frozenset(linked)
        actions: list[Action] = []
        if self._held is not None and self._held.proposer not in self._alive:
            actions += self._let_go()
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
            if self._alive == set(proposal.members) and now < proposal.until:
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
        if self._is_asked or self._is_heavy:
            return True
        if self._alive != set(self._target.members):
            return True
        if self._ending is not None and self._is_free:
            return True
        if self._behind_at is None or now < self._behind_at:
            return False
        self._behind_at = None
        return not self._accepted.issuperset(self._target.members)

    def _propose(self, now: float) -> list[Action]:
        self._propose_at, self._is_asked = None, False
        ballot = Ballot(self._highest.number + 1, self._me)
        members = tuple(self._order(self._alive))
        self._proposal = _Proposal(ballot, members, now + ANSWER)
        message = Propose(ballot, members)
        others = [Tell(one, message) for one in members if one != self._me]
        return [*others, *self._proposed(message, now)]

    def _take_position(self, peer: str, said: Position, now: float) -> list[Action]:
        proposal = self._proposal
        if proposal is None or said.ballot != proposal.ballot or peer not in proposal.members:
            return []
        proposal.positions[peer] = said
        if len(proposal.positions) < len(proposal.members):
            return []
        proposal.until = math.inf  # it is for them to move
        ends = _ends(proposal.positions.values())
        if ends is None:
            return []
        self._proposal = None
        was = tuple((one, told.view) for one, told in sorted(proposal.positions.items()))
        commit = Commit(proposal.ballot, proposal.members, ends, was)
        others = [Tell(one, commit) for one in proposal.members if one != self._me]
        self._accepted = {self._me}
        self._behind_at = now + BEHIND if others else None
        return [*others, *self._commit(commit, now)]

    def _refused(self, said: Refuse, now: float) -> list[Action]:
        self._highest = max(self._highest, said.highest)
        if self._proposal is None or said.ballot != self._proposal.ballot:
            return []
        self._proposal, self._propose_at = None, now + AGAIN
        return self._let_go() if self._held == said.ballot else []

    # --- what others say ------------------------------------------------------------------------

    def heard(self, peer: str, said: Proposals, now: float) -> list[Action]:
        match said:
            case Propose(ballot, members) if peer == ballot.proposer and self._me in members:
                return self._proposed(said, now)
            case Position():
                return self._take_position(peer, said, now)
            case Commit(ballot) if peer == ballot.proposer:
                return self._commit(said, now)
            case Refuse():
                return self._refused(said, now)
            case Accepted(ballot) if ballot == self._target.ballot:
                self._accepted.add(peer)
            case Apart(view) if view != self._target.ballot and peer in self._alive:
                self._is_asked = True
                return self._look(now)
        return []

    def _proposed(self, said: Propose, now: float) -> list[Action]:
        lacking = set(self.view.members).difference(said.members)
        strange = not self._alive.issuperset(said.members)
        if said.ballot <= self._highest or lacking & self._alive or strange:
            refusal = Refuse(said.ballot, self._highest)
            if said.ballot.proposer == self._me:
                return self._refused(refusal, now)
            return [Tell(said.ballot.proposer, refusal)]
        self._highest = self._held = said.ballot
        if said.ballot.proposer != self._me:
            self._proposal = None
        actions: list[Action] = []
        if self._ending is not None and lacking:  # its last call may need them
            actions.append(GiveUp(self.view, tuple(sorted(lacking))))
        return [*actions, *self._say_position(now)]

    def _say_position(self, now: float) -> list[Action]:
        if self._held is None:
            return []
        said = Position(
            self._held,
            self.view.ballot,
            self._done,
            self._inside,
            self._is_pending,
            self._is_free,
            self._ending is not None,
        )
        if self._held.proposer == self._me:
            return self._take_position(self._me, said, now)
        return [Tell(self._held.proposer, said)]

    def _commit(self, said: Commit, now: float) -> list[Action]:
        was, ends = dict(said.was), dict(said.ends)
        if said.ballot != self._held or was.get(self._me) != self.view.ballot:
            return []  # this peer has gone on: it is proposed to again
        self._held = self._held_until = None
        view, limit = View(said.ballot, said.members), ends.get(self.view.ballot)
        actions: list[Action] = [Prepare(view)]
        if said.ballot.proposer != self._me:
            actions.append(Tell(said.ballot.proposer, Accepted(said.ballot)))
        here = self.view.ballot
        if lost := tuple(one for one in self.view.members if was.get(one) != here):
            actions.append(GiveUp(self.view, lost))
        if limit is None:
            self._ending = _Ending(NONE, view)
            return [*actions, *self._enter(now), Release()]
        last = self._inside if self._inside > limit else None
        self._ending = _Ending(limit, view, last)
        return [*actions, Release()]

    def _enter(self, now: float) -> list[Action]:
        assert self._ending is not None
        self.view, self._ending = self._ending.next, None
        self._done = self._inside = NONE
        self._weight = 0
        return [Enter(self.view), *self._say_position(now), *self._look(now)]

    def _let_go(self) -> list[Action]:
        """Goes on as before the proposal."""
        self._held = self._held_until = None
        return [Release()]

    # --- time -----------------------------------------------------------------------------------

    @property
    def due(self) -> float | None:
        times = [self._held_until]
        if not self.leads:
            times.append(self._propose_at)
        elif self._can_propose:
            times += [self._propose_at, self._behind_at]
            times += [] if self._proposal is None else [self._proposal.until]
        due = min((one for one in times if one is not None), default=math.inf)
        return None if due == math.inf else due

    def tick(self, now: float) -> list[Action]:
        actions: list[Action] = []
        if self._held is not None and self._held_until is not None and self._held_until <= now:
            refusal = Refuse(self._held, self._highest)
            if self._held.proposer == self._me:
                return self._refused(refusal, now)
            actions = [Tell(self._held.proposer, refusal), *self._let_go()]
        return [*actions, *self._look(now)]


def _ends(positions: Iterable[Position]) -> tuple[tuple[Ballot, int | None], ...] | None:
    """Of each view the number after which its last call comes; None while that is open."""
    groups: dict[Ballot, list[Position]] = {}
    for one in positions:
        groups.setdefault(one.view, []).append(one)
    ends: list[tuple[Ballot, int | None]] = []
    for view, group in sorted(groups.items()):
        free = sum(one.is_free for one in group)
        calling = sum(one.inside != NONE or one.is_pending for one in group)
        if free == len(group):
            ends.append((view, None))
        elif any(one.is_ending for one in group) or 0 < free < len(group) - calling:
            return None
        else:
            ends.append((view, max(map(_ended, group))))
    return tuple(ends)


def _ended(at: Position) -> int:
    """The last call that the member has ended, or will before its present one."""
    return at.done if at.inside == NONE else at.inside - 1
