"""What a peer believes of others, given what they say of themselves and of each other.

    alive --no answer; others say so--> suspect --its time is over--> dead
    suspect, dead, left --it announces itself with a higher incarnation--> alive
    any --it says that it leaves--> left

*Its own word counts.* What a peer says of itself over its own link is believed, whatever others say
of it; and whoever says of a peer, to its face, what is not so hears from it what is. Nobody who is
heard is given up: a suspicion begins again when the suspect says anything.

*Nobody is given up on others' word.* "Dead" and "left", from others, are suspicions that need no
more accusers. Who suspects a peer asks it itself, until it answers or the time is over; so a lie
costs the one that it is about an answer to each that believed it. Of a peer that was heard a moment
ago not even that much is believed, before a probe of it has failed: at most one in a period.

*Life is believed where it can be checked.* Within a session, a higher incarnation is, but no step
beyond STEP, so that a peer that is lied about can always outbid. Beyond it, and of a session that
is not the known one, the peer is asked; and so is one that is gone and lives, as others say.
"""

from __future__ import annotations

import math
from collections import Counter

import msgspec

from manta.transports.membership.actions import (
    AddressChanged,
    AliveAgain,
    Died,
    Joined,
    LeftMesh,
    Suspected,
    ViewChanged,
)
from manta.transports.membership.context import Context
from manta.transports.membership.lifeguard import Suspicion
from manta.transports.membership.members import MOST, Member, State
from manta.transports.membership.messages import (
    CLAIM,
    Accusation,
    Alive,
    Claim,
    Dead,
    Left,
    Refused,
    Suspect,
    size_of,
)
from manta.transports.membership.pace import RECENT
from manta.transports.membership.probing import Prober

STEP = 1_000
"""By so much an incarnation that others speak of may be greater than the one that is known."""
MOST_DOUBTS = 16
"""Suspicions, or checks, that one peer's word begins in a second: of what is true, all speak."""
STANDS_STILL = "the process that it speaks for stands still, as it says"


class Beliefs:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._members = context.members
        self.prober = Prober(context, self._failed, self._vouched)
        self._doubts: Counter[str] = Counter()
        """By whose word, in this second."""
        self._suspects: dict[str, Member] = {}
        self._claimed = -1
        """The highest incarnation of this peer itself that others speak of, and that is to be
        outbid."""
        self._may_refute = -math.inf

    # --- what others say --------------------------------------------------------------------

    def hear(self, claim: Claim, sender: str, *, answers: bool = False) -> None:
        """`answers`: the sender was pinged, and says so now."""
        key = claim.key
        if key == self._context.me.key:
            self._hear_of_me(claim, sender)
            return
        member = self._members.get(key)
        if isinstance(claim, Alive):
            if member is None:
                self._welcome(claim, sender)
            elif key == sender:
                self._own_word(member, claim, answers=answers)
            else:
                self._hear_life(member, claim)
        elif member is not None and not member.is_gone:
            if key == sender and isinstance(claim, Left | Dead):
                if claim.session == member.peer.session:
                    self._heed(member, claim)
            else:
                self._hear_accusation(member, claim, sender)
        elif member is not None and member.state is State.LEFT and isinstance(claim, Suspect):
            self._context.tell(sender, [self._members.claim(member)])  # it has missed that

    def _own_word(self, member: Member, claim: Alive, *, answers: bool) -> None:
        known = member.peer
        if claim.session == member.former and not answers:
            self.prober.check(member, claim)  # it may be late; or what was believed since is a lie
        elif claim.session != known.session:
            self._new_life(member, claim)
        elif not -2 * STEP <= claim.incarnation - known.incarnation <= 0:
            self._renew(member, claim)  # far below it, what was known before was a lie

    def _vouched(self, member: Member, claim: Alive) -> None:
        if claim.session != member.peer.session:
            self._new_life(member, claim)

    def _hear_life(self, member: Member, claim: Alive) -> None:
        known = member.peer
        if claim.session != known.session:
            if claim.session != member.former:
                self.prober.check(member, claim)
        elif known.incarnation < claim.incarnation <= known.incarnation + STEP:
            self._renew(member, claim)
        elif member.is_gone or claim.incarnation > known.incarnation:
            self.prober.check(member, claim)

    def _hear_accusation(self, member: Member, claim: Accusation, sender: str) -> None:
        context, known = self._context, member.peer
        if claim.session != known.session:
            return
        if not known.incarnation <= claim.incarnation <= known.incarnation + STEP:
            return
        if member.suspicion is not None:
            self._confirm(member, claim)
            return
        if self._doubts[sender] >= MOST_DOUBTS:
            return
        self._doubts[sender] += 1
        if context.now < member.heard + RECENT * context.pace.period:
            self.prober.check(member, claim)
        else:
            self._suspect(member, claim)

    def forgive(self) -> None:
        """A second is over."""
        self._doubts.clear()

    # --- who joins and lives ----------------------------------------------------------------

    def _welcome(self, peer: Alive, sender: str) -> None:
        """One that was not known."""
        context = self._context
        if self._members.living + 2 > MOST:
            if sender == peer.key:
                sentence = f"The mesh has {MOST:,} peers, and room for no more."
                context.reply(sender, Refused(sentence))
            return
        if size_of(peer) > CLAIM:
            return
        member = self._members.add(peer)
        if sender == peer.key:
            member.heard = context.now
        context.order.add(peer.key)
        context.resize()
        context.spread(peer)
        context.actions.append(Joined(peer))
        self._view_changed()

    def _new_life(self, member: Member, peer: Alive) -> None:
        """A peer has begun anew, by its own word or that of one who asked it."""
        context, former = self._context, member.peer
        if size_of(peer) > CLAIM:
            return
        if not member.is_gone:
            context.actions.append(Died(former, "it began anew"))
        self._come_alive(member, peer)
        context.actions.append(Joined(peer))
        self._view_changed()

    def _renew(self, member: Member, peer: Alive) -> None:
        """It has announced itself with a higher incarnation."""
        if size_of(peer) > CLAIM:
            return
        context, former, state = self._context, member.peer, member.state
        self._come_alive(member, peer)
        if state is not State.ALIVE:
            context.actions.append(AliveAgain(peer, was_dead=state is not State.SUSPECT))
        if peer.addresses != former.addresses:
            context.actions.append(AddressChanged(peer, former.addresses))
        if state in (State.DEAD, State.LEFT) or peer.order != former.order:
            self._view_changed()

    def _come_alive(self, member: Member, peer: Alive) -> None:
        context, was_gone = self._context, member.is_gone
        self._suspects.pop(peer.key, None)
        self._members.renew(member, peer)
        if was_gone:
            context.order.add(peer.key)
            context.resize()
        context.spread(peer)

    def _view_changed(self) -> None:
        if self._members.is_entered:
            self._context.actions.append(ViewChanged(self._members.view))

    # --- suspicion --------------------------------------------------------------------------

    def _failed(self, member: Member, claim: Accusation | None) -> None:
        """A probe of it did; `claim` if it was made because of that."""
        if member.is_gone:
            return
        mine = self._mine(member)
        if member.suspicion is None:
            self._suspect(member, mine if claim is None else claim)
        self._confirm(member, mine)

    def _mine(self, member: Member) -> Suspect:
        peer = member.peer
        return Suspect(peer.key, peer.session, peer.incarnation, self._context.me.key)

    def _suspect(self, member: Member, claim: Accusation) -> None:
        context, key = self._context, member.peer.key
        by = key if isinstance(claim, Left) else claim.by
        member.state = State.SUSPECT
        suspicion = Suspicion(claim.incarnation, context.now, context.pace, {by}, member.is_closed)
        member.suspicion = suspicion
        self._suspects[key] = member
        context.spread(Suspect(key, claim.session, claim.incarnation, by))
        context.actions.append(Suspected(member.peer, by))
        self._reconsider(suspicion, claim)
        context.timers.at(suspicion.due, self._due, (member, suspicion))
        self._ask((member, suspicion))

    def _confirm(self, member: Member, claim: Accusation) -> None:
        """One more says so of a suspect."""
        context, suspicion = self._context, member.suspicion
        assert suspicion is not None
        before = suspicion.due
        by = member.peer.key if isinstance(claim, Left) else claim.by
        suspicion.incarnation = max(suspicion.incarnation, claim.incarnation)
        if suspicion.confirm(by):
            context.spread(Suspect(claim.key, claim.session, suspicion.incarnation, by))
        self._reconsider(suspicion, claim)
        if suspicion.due < before:
            context.timers.at(suspicion.due, self._due, (member, suspicion))

    @staticmethod
    def _reconsider(suspicion: Suspicion, claim: Accusation) -> None:
        suspicion.is_certain |= isinstance(claim, Dead | Left)
        suspicion.has_left |= isinstance(claim, Left)

    def _ask(self, about: tuple[Member, Suspicion]) -> None:
        """Twice in a period a suspect is asked; whom it does not answer is an accuser, too."""
        context, (member, suspicion) = self._context, about
        if member.suspicion is not suspicion:
            return
        if context.now >= suspicion.since + context.pace.period and member.heard <= suspicion.since:
            self._confirm(member, self._mine(member))
        if not self.prober.is_probing(member):
            self.prober.greet(member)
        context.timers.at(context.now + context.pace.period / 2, self._ask, about)

    def _due(self, about: tuple[Member, Suspicion]) -> None:
        context, (member, suspicion) = self._context, about
        if member.suspicion is not suspicion:
            return
        if member.heard > suspicion.since:  # others lie, or its refutation is under way
            suspicion.since = member.heard
        if context.now < suspicion.due:
            context.timers.at(suspicion.due, self._due, about)
        elif suspicion.has_left:
            self._leave(member)
        else:
            self._die(member, suspicion)

    def _die(self, member: Member, suspicion: Suspicion) -> None:
        context, peer = self._context, member.peer
        waited = context.now - suspicion.since
        why = "its link was closed, and " if suspicion.is_closed else ""
        others = len(suspicion.accusers - {context.me.key})
        also = f", and {others} others had none" if others else ""
        sentence = f"{why}no answer came for {waited:.1f} s after a probe had failed{also}"
        self._bury(member, State.DEAD)
        context.actions.append(Died(peer, sentence))
        self._view_changed()

    def _heed(self, member: Member, claim: Left | Dead) -> None:
        """It says so of itself: that it leaves, or is to be taken for dead until it is back."""
        if isinstance(claim, Left):
            self._leave(member)
        elif claim.incarnation >= member.peer.incarnation:
            self._bury(member, State.DEAD)
            self._context.actions.append(Died(member.peer, STANDS_STILL))
            self._view_changed()

    def _leave(self, member: Member) -> None:
        peer = member.peer
        self._bury(member, State.LEFT)
        self._context.actions.append(LeftMesh(peer))
        self._view_changed()

    def _bury(self, member: Member, state: State) -> None:
        context = self._context
        self._suspects.pop(member.peer.key, None)
        self._members.bury(member, state, context.now)
        context.order.remove(member.peer.key)
        context.resize()
        context.spread(self._members.claim(member))

    # --- links, and time --------------------------------------------------------------------

    def link_closed(self, member: Member) -> None:
        member.is_closed = True
        if member.suspicion is not None:
            member.suspicion.is_closed = True
            about = member, member.suspicion
            self._context.timers.at(member.suspicion.due, self._due, about)
        elif not member.is_gone:
            self.prober.check(member)

    def link_up(self, member: Member) -> None:
        member.is_closed = False
        if member.suspicion is not None:
            member.suspicion.is_closed = False

    def overslept(self, seconds: float) -> None:
        """What was not heard in that time proves nothing of others, and what they said in it is yet
        to be read: after more than a period, suspicions begin anew."""
        now, period = self._context.now, self._context.pace.period
        for member in self._suspects.values():
            assert member.suspicion is not None
            since = member.suspicion.since
            member.suspicion.since = now if seconds > period else since + 2 * seconds

    # --- what is said of this peer ----------------------------------------------------------

    def _hear_of_me(self, claim: Claim, sender: str) -> None:
        """Whatever others say of this peer that it did not say itself, it outbids; and whoever says
        what is not so hears from it directly."""
        context, me = self._context, self._context.me
        if claim == me or not self._members.is_entered:
            return
        is_mine, is_accused = claim.session == me.session, not isinstance(claim, Alive)
        if is_mine and not is_accused and claim.incarnation < me.incarnation:
            return  # it was so
        is_open = me.incarnation <= claim.incarnation <= me.incarnation + STEP
        if is_mine and is_open and claim.incarnation > self._claimed:
            self._claimed = claim.incarnation
            if is_accused:
                context.health.worse()
            self.refute()
        context.tell(sender, [context.me])

    def refute(self, _: None = None) -> None:
        """At most once in a step: a flood of lies is answered by no flood."""
        context = self._context
        if self._claimed < context.me.incarnation:
            return
        if context.now < self._may_refute:
            context.timers.at(self._may_refute, self.refute)
            return
        self._may_refute = context.now + context.pace.step
        self.outlive()

    def outlive(self) -> None:
        """Whatever was said of this peer so far is over."""
        self._claimed = max(self._claimed, self._context.me.incarnation)
        self.announce(msgspec.structs.replace(self._context.me, incarnation=self._claimed + 1))

    def announce(self, me: Alive) -> None:
        """This peer has others told of itself."""
        self._members.announce(me)
        self._context.spread(me)
