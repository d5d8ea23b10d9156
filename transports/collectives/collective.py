"""One collective as one peer lives it: calls, announcements, plans, losses, outcomes.

The machine is fed with what its members and other peers do, and returns what is to be done; it
may be made before any member here has called. Times and bytes are its owner's.

| state | leaves when |
|---|---|
| called | its members, or what the plan needs of others, are there: moving |
| moving | what its members get is whole here: done; a peer is lost: called (a new round), failed |
| done | no other peer needs anything from here, or is to catch up: closed |
| failed | final: members that call later are told the same |

*Disagreement.* Every announcement is compared with those before. The first that differs fails
the collective, here and, as `Aborted`, on all peers. So does a want of room: see `refusal`.

*Losses.* With `on_lost="raise"` a peer that needs something of a lost member asks all others for
the outcome: who has it gives it to all, as a `Holder`; once all have said that they lack it, the
collective fails. With "continue" a new round begins, named by the ranks that are given up: each
peer announces itself anew, and who hears of more ranks given up than it knew gives them up too, so
that all come to the same round. When all that are left have announced themselves in it, either one
of them has the outcome already (all others take what they lack of that one's), or none has, and
they plan for those that are left. What is whole or on its way stays so if its sender is left and
the new plan needs it: transfers are named by what they carry. So all that are left get the same
outcome, over the same members.

*Begun anew.* New machines may be fed with what members gave, where some are elsewhere or a peer has
forgotten it. A peer that had the outcome is a `Holder`, of which others take it over at once; when
that one is lost, of another, or the call is begun anew with what their members gave.

What no peer can know is whether one that does not answer lives on. Where two sides lose each other
and both go on, each has an outcome of its own: whoever calls `peer_lost` has to see to it that
only one side does. Who hears that others gave it up fails with PeerLost.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from manta.transports.collectives.actions import Action, Close, Deliver, Fail, Outcome, Tell, Why
from manta.transports.collectives.calls import Call, Entry, Kind, Placement, checked, difference
from manta.transports.collectives.course import Course
from manta.transports.collectives.holder import Holder, begun_anew
from manta.transports.collectives.messages import (
    Aborted,
    Announcement,
    Begun,
    Done,
    Finished,
    Fits,
    Message,
    Noted,
    Probe,
    Relayed,
    Wanted,
)
from manta.transports.collectives.others import LOST, Others
from manta.transports.collectives.planner import given
from manta.transports.collectives.plans import whole
from manta.transports.collectives.refusal import NOT, Refusal
from manta.transports.collectives.roll import Roll
from manta.transports.collectives.rooted import Rooted
from manta.transports.errors import RemoteProtocolError


class Collective:
    """On peer `me` of the placement."""

    def __init__(
        self, placement: Placement, me: int, *, directly: bool = False, refusal: Why = NOT
    ) -> None:
        """`directly`: all announce themselves to all, however many, as some may begin anew.
        `refusal`: why it was refused before that."""
        self._placement = placement
        self._me = me
        self._is_anew = directly
        self._roll = Roll(placement, me, self._called, directly=directly)
        self._course = Course(placement, me, self._roll, lambda it: self._rooted.completed(it))
        self._flow = self._course.flow
        self._others = Others(placement, me, self._roll, self._course)
        self._refusal = Refusal(self._roll, self._course, self._others, refusal, is_anew=directly)
        self._given_up: tuple[int, ...] = ()
        """The members of this peer that the root of a gather was told not to wait for."""
        self._done: Done | None = None
        self._seeks = False
        """Is it to be seen whether others have the outcome?"""
        self._gives = False
        """Do others take the outcome from here?"""
        self._held: Outcome | None = None
        """What all members get, of whichever peer."""
        self._delivered: dict[int, Outcome] = {}
        """By rank: kept for its next attempt."""
        self._rooted = Rooted(placement, self._roll, self._course, self._others, self._deliver)
        self._faced: tuple[object, ...] = ()
        """What it was last seen with that nothing is needed of the lost."""
        self._failure: tuple[str, str] | None = None
        self.is_closed = False

    # What happens.

    def contributed(
        self, rank: int, entry: Entry, data: dict[int, bytes] | None = None, refusal: str = ""
    ) -> list[Action]:
        """A member of this peer makes the call; its buffers are there, or there is no room for
        them (`refusal`, in a sentence). `data` are the bytes of those that `ridden` names. A second
        call of a member, by its next attempt, is answered like the first, whatever it brings.
        Raises ValueError for what no member can bring."""
        if rank not in self._placement.ranks[self._me]:
            raise ValueError(f"rank {rank} is not on peer {self._me}")
        checked(entry, rank, self._placement)
        first = self._roll.entries.get(rank)
        sentence = first and difference(self._placement.alias, (rank, first), (rank, entry))
        if sentence:
            return [Fail(rank, "CollectiveError", sentence)]
        found = self._delivered.get(rank)
        if self._failure and (found is None or self._failure[0] == "CollectiveError"):
            return [Fail(rank, *self._failure)]
        if found is not None:
            return [Deliver(rank, found)]
        if rank in self._others.away:
            named = self._placement.named([rank], self._others.away)
            return [Fail(rank, "PeerLost", f"{entry.call.words} goes on without {named}.")]
        if first is not None and self._roll.has_own(rank):
            return []
        self._refusal.why = self._refusal.why or refusal
        # What it brings is of no use if another peer has said what it brought before.
        is_used = first is None and not self._refusal.why
        if sentence := self._roll.enter(rank, first or entry, data or {} if is_used else {}):
            return self._fail("CollectiveError", sentence)
        buffers = given(rank, entry) if is_used else ()
        actions = [one for buffer in buffers for one in self._flow.filled(whole(buffer))]
        if self.is_closed and self._roll.call is not None:  # the outcome came before the member
            return self._deliver_all(self._roll.call)
        return actions + self._step()

    def expected(self, rank: int, entry: Entry, lost: Iterable[int]) -> list[Action]:
        """A member of this peer is yet to make the call. The peers of those who are said to be lost
        know of what they have made: they are asked whether it would be in vain."""
        if self._failure or self.is_closed:
            return []
        peers = self._course.peers.keys() & {self._placement.peer_of[one] for one in lost}
        actions, sentence = self._roll.expect(rank, entry, peers)
        return self._fail("CollectiveError", sentence) if sentence else [*actions, *self._step()]

    def heard(self, peer: int, message: Message) -> list[Action]:
        """Another peer says something. Raises RemoteProtocolError."""
        if self._failure or peer not in self._course.peers:
            return []
        if self.is_closed and isinstance(message, Wanted | Fits | Noted | Begun | Finished):
            return []
        actions: list[Action] = []
        sentence = ""
        if isinstance(message, Announcement):
            if message.peer != peer or not {*message.lost} <= {*range(self._placement.size)}:
                raise RemoteProtocolError(f"peer {peer} announces peer {message.peer}")
            actions, sentence = self._roll.take(message)
            self._roll.rounds[peer] = message.lost
            if message.done is not None:
                self._roll.hear_done(peer, message.done)
            elif message.lost and self._roll.is_known:
                is_parted = not self._done and self._course.takes_from(message.lost)
                return [Tell(peer, begun_anew(self._placement, message.lost))] if is_parted else []
            elif message.seeks:
                return self._answer(peer)
            self._others.lose(message.lost, LOST)
        elif isinstance(message, Relayed):
            actions, sentence = self._roll.relayed(peer, message)
        elif isinstance(message, Probe):
            sentence = self._roll.probe(peer, message)
        elif isinstance(message, Wanted | Fits | Noted):
            actions = self._course.heard(peer, message)
        elif isinstance(message, Finished):
            self._rooted.finish(peer)
        elif isinstance(message, Aborted):
            return self._fail(message.error, message.sentence, tell=False)
        if sentence:
            return self._fail("CollectiveError", sentence)
        if self.is_closed:  # calls are compared all the same
            call = self._roll.call
            is_asked = call is not None and call.kind.has_root and isinstance(message, Announcement)
            return [Tell(peer, Finished())] if is_asked else []  # it may have begun anew
        return self._course.kept(actions) + self._step()

    def received(self, key: str, upto: int) -> list[Action]:
        """The first `upto` bytes of a transfer have come."""
        left = self._flow.left
        actions = self._flow.received(key, upto)
        return actions if self._flow.left == left else actions + self._step()

    def sent(self, key: str) -> list[Action]:
        """All of a transfer has arrived."""
        self._flow.sent(key)
        return [] if self._flow.sends else self._step()

    def unsent(self, key: str, sentence: str) -> list[Action]:
        """A transfer will never arrive, though its receiver has not given it up: that one is told,
        and all are unless the members here have got what others wait for each by itself."""
        sending = self._flow.sends.get(key)
        if sending is None or self._failure:
            return []
        if not self.has_served:
            return self.abort("RequestFailed", sentence)
        self._flow.sent(key)
        return [Tell(sending.transfer.peer, Aborted("RequestFailed", sentence)), *self._step()]

    def reduced(self, number: int, note: bytes = b"") -> list[Action]:
        """A reduction is done, which had something to note for all members, or not."""
        left = self._flow.left
        actions = self._flow.reduced(number, note)
        return actions if self._flow.left == left else actions + self._step()

    def peer_lost(self, peer: int, why: str = LOST, ended: Iterable[int] = ()) -> list[Action]:
        """Nothing more comes from this peer, nor gets there. Some of its members had ended."""
        self._others.ended.update(ended)
        self._others.lose(self._placement.ranks[peer], why)
        return self._step()

    def peer_left(self, peer: int, why: str) -> list[Action]:
        """It is no more, has the outcome, and what it told this one is heard; no other is lost."""
        self._others.leave(peer, why)
        return self._step()

    def member_lost(self, rank: int, why: str, *, has_ended: bool = False) -> list[Action]:
        """A member of this peer will not make the call. If it has, what it gave counts."""
        if rank not in self._roll.entries:
            self._others.ended.update([rank] if has_ended else [])
            self._others.lose([rank], why)
        return self._step()

    def left_out(self) -> list[Action]:
        """Other peers have lost this one, and go on without it."""
        self._others.lose(self._placement.ranks[self._me], LOST)
        return self._step()

    def suffice(self, enough: int) -> list[Action]:
        """The root of a gather takes what is there, once it is of so many members: the quorum at
        first, any at the deadline. Who comes later is told that it need not send."""
        self._rooted.enough = enough
        return self._step()

    def abort(self, error: str, sentence: str) -> list[Action]:
        """It can't be carried out, for a reason that its owner knows: all are told, unless the
        members here have what they called for, and others do not depend on them."""
        is_settled = self._failure or self.is_closed or self.has_served
        if is_settled or (self._done and error == "CollectiveError"):
            return []
        return self._fail(error, sentence)

    @property
    def come(self) -> Collection[int]:
        """The ranks that are known to have made the call."""
        return self._roll.entries.keys()

    def holder(self, placement: Placement, me: int) -> Holder | None:
        """What gives the outcome to those who begin the call anew; None if none is here for all."""
        call, done, outcome = self._roll.call, self._done, self._held
        if call is None or done is None or outcome is None:
            return None
        return Holder(placement, me, call, done, outcome, self._roll.entries)

    @property
    def outcome(self) -> Outcome | None:
        """What all members get, of whichever peer, if it is here and the same for all."""
        return self._held

    @property
    def gives(self) -> bool:
        """Do others that lack the outcome take it from here, not in the way that was planned?"""
        return self._gives or (self._roll.is_known and self._done is not None)

    def counts_on(self, peer: int) -> bool:
        """Is anything lost if this peer has forgotten all of it?"""
        if self._roll.is_known:
            return self._done is None and self._course.source == peer
        return not self._roll.entries.keys().isdisjoint(self._placement.ranks[peer])

    @property
    def call(self) -> Call | None:
        """What is called here, as far as that is known."""
        return self._roll.call

    def has_value(self, rank: int) -> bool:
        """Of a gather, at its root: is this member's value there?"""
        return rank in self._rooted.there

    @property
    def away(self) -> Mapping[int, str]:
        """The ranks that are lost, and why."""
        return self._others.away

    def has_delivered(self, rank: int) -> bool:
        return rank in self._delivered

    @property
    def has_served(self) -> bool:
        """Have all members here that are left got their outcome, of a call with a root?"""
        call = self._roll.call
        has_root = call is not None and call.kind.has_root
        return has_root and not self._others.unserved

    @property
    def sends(self) -> bool:
        """Is anything that is planned yet to arrive at others?"""
        return bool(self._flow.sends)

    @property
    def refusal(self) -> Why:
        """Why there is no room here for what members bring, if so, and no outcome is known."""
        return Why(self._refusal.why, self._refusal.was_told) if self._refusal.stands else NOT

    @property
    def weight(self) -> int:
        """About how many bytes it takes to remember what was called, and what others want."""
        return self._roll.weight + self._course.weight

    def waits_for(self) -> str:
        """Whom this peer waits for, in words; empty if nobody."""
        call, is_over = self._roll.call, self._failure or self._done
        return "" if call is None or is_over else self._others.waits_for(call)

    # What follows from it.

    def _called(self, rank: int) -> None:
        """A member, on whichever peer, is found to have made the call."""
        self._others.called(rank)
        self._course.called(rank)
        self._rooted.called(rank, self._roll.entries[rank])

    @property
    def has_failed(self) -> bool:
        return self._failure is not None

    @property
    def failure(self) -> tuple[str, str]:
        """The error and its sentence; empty if it has not failed."""
        return self._failure or ("", "")

    def _step(self) -> list[Action]:
        call = self._roll.call
        if call is None or self.has_failed or self.is_closed:
            return []
        actions = [] if self._refusal.stands else self._announce()
        return [*actions, *self._settle(call), *self._proceed(call)]

    def _proceed(self, call: Call) -> list[Action]:
        if self.is_closed:  # others have what members here got, too
            return []
        if self._refusal.stands:
            sought = self._refusal.seek(call)
            return self._fail(*sought) if isinstance(sought, tuple) else sought
        drawn = [] if self._course.lost else [*self._roll.relay(), *self._course.draw(call)]
        return [*drawn, *self._face_losses(call), *self._go_on(call)]

    def _settle(self, call: Call) -> list[Action]:
        """Another peer gives what came of the call."""
        if (holder := self._course.holder()) is None:
            return []
        return self._end() if self._done else self._course.settle(call, holder)

    def _answer(self, peer: int) -> list[Action]:
        """To one that seeks the outcome."""
        call = self._roll.call
        is_given = self.is_closed or (call is not None and call.on_lost == "raise")
        if self._held is not None and is_given:
            return self._give()
        self._roll.lack.add(peer)  # or it finds the outcome here in another round
        return [*self._roll.seek([peer]), *self._step()]

    def _give(self) -> list[Action]:
        """All others take the outcome from here, in place of what was planned."""
        holder = self.holder(self._placement, self._me)
        assert holder is not None, "it has the outcome"
        self._gives = True
        ended = [] if self.is_closed else self._end()
        return ended + [told for peer in self._course.peers for told in holder.tell(peer)]

    def _go_on(self, call: Call) -> list[Action]:
        if self.has_failed or self.is_closed:
            return []
        actions = self._course.go_on(call, is_done=self._done is not None)
        actions += self._rooted.give(call) if call.kind.has_root else self._deliver_all(call)
        return actions + self._close(call)

    def _fail(self, error: str, sentence: str, *, tell: bool = True) -> list[Action]:
        """Whoever has the outcome keeps it, unless calls differ: others may go without."""
        has_outcome = (self._done or self.is_closed) and error != "CollectiveError"
        if has_outcome and self.is_closed:
            return []
        actions = self._flow.drop(lambda _: True)
        if tell:
            actions += [Tell(peer, Aborted(error, sentence)) for peer in self._course.peers]
        if has_outcome:
            return [*actions, *self._end()]
        self._failure = error, sentence
        self._roll.fail()
        waiting = [rank for rank in self._roll.own if rank not in self._delivered]
        return actions + [Fail(rank, error, sentence) for rank in waiting]

    # Losses.

    def _face_losses(self, call: Call) -> list[Action]:
        if not self._others.away:
            return []
        own = [rank for rank in self._others.lost_here if self._roll.has_own(rank)]
        if own:
            named = self._placement.named(own)
            sentence = f"{call.operation} goes on without {named}: others have lost its node."
            return self._fail("PeerLost", sentence, tell=False)
        if len(self._others.away) == self._placement.size:  # also those here, who have not come
            everybody = self._placement.named(self._others.away)
            sentence = f"{call.operation} has lost all that would take part: {everybody}."
            return self._fail("PeerLost", sentence, tell=False)
        if call.on_lost == "continue" and not (call.kind.has_root or self._roll.is_known):
            return self._go_without(call)
        # Nothing that was not needed comes to be, but by one of these.
        seen = len(self._others.away), len(self._roll.own), self._flow.planned, bool(self._done)
        if seen == self._faced and not self._seeks:
            return []
        if call.kind is Kind.GATHER:
            needed = self._rooted.lacking(call)
        else:
            needed = self._others.needed(call, is_done=self._done is not None)
        if needed and self._held is not None:
            return self._give()
        self._seeks = self._others.made(needed) and self._others.may_hold(call)
        if self._seeks:
            return self._roll.seek(self._course.peers)
        if needed:
            named = self._placement.named(needed, self._others.away)
            return self._fail("PeerLost", f"{call.operation} waits for {named} in vain.")
        self._faced = seen
        actions = self._flow.drop(lambda transfer: transfer.peer not in self._course.peers)
        lost = tuple(rank for rank in self._placement.ranks[self._me] if rank in self._others.away)
        if call.kind is Kind.GATHER and lost != self._given_up:
            self._given_up = lost  # nobody but the root has to know
            actions += self._announce(anew=True)
        return actions

    def _go_without(self, call: Call) -> list[Action]:
        """In another round, unless it was begun anew and others have what came of it before."""
        is_first = not self._course.lost and self._done is None
        self._seeks = self._is_anew and is_first and self._others.may_hold(call)
        if self._seeks:
            return self._roll.seek(self._course.peers)
        is_another = len(self._others.away) > len(self._course.lost)
        return self._begin(call, tuple(sorted(self._others.away))) if is_another else []

    def _begin(self, call: Call, lost: tuple[int, ...]) -> list[Action]:
        """Another round."""
        done = self._done
        if done and call.kind is Kind.ALL_GATHER:
            since = [rank for rank in lost if rank not in done.lost]
            done = done._replace(members=self._roll.members(since))
        return [*self._course.begin(lost), *self._announce(done, anew=True)]

    def _announce(self, done: Done | None = None, *, anew: bool = False) -> list[Action]:
        lost, waits = self._course.lost or self._given_up, self._others.waits_here
        return self._roll.announce(lost, done, self._course.peers, waits=waits, anew=anew)

    # Outcomes.

    def _deliver_all(self, call: Call) -> list[Action]:
        """Of a call without a root: all members get the outcome of the same values."""
        actions: list[Action] = []
        if self._done is None:
            self._done = self._course.outcome(call)
            if self._done is None:
                return []
            if call.on_lost == "continue":
                actions += [Tell(peer, Finished()) for peer in self._course.peers]
            if call.kind is not Kind.REDUCE_SCATTER:
                self._held = self._others.outcome_for(call, self._done)
        if len(self._delivered) < len(self._roll.own):
            for rank in self._roll.own:
                if rank not in self._delivered:
                    outcome = self._held or self._others.outcome_for(call, self._done, rank)
                    actions.append(self._deliver(rank, outcome))
        return actions

    def _deliver(self, rank: int, outcome: Outcome) -> Action:
        self._delivered[rank] = outcome
        self._others.unserved.discard(rank)
        return Deliver(rank, outcome)

    def _close(self, call: Call) -> list[Action]:
        if self._seeks or self._others.unserved:
            return []
        actions = self._rooted.drop_unneeded() if call.kind.has_root else []
        if not self._others.are_done(call):
            return actions
        if call.kind.has_root:
            actions += self._others.tell_root(call)
        return [*actions, *self._end()]

    def _end(self) -> list[Action]:
        self.is_closed = True
        actions = [*self._flow.drop(lambda _: True), Close()]
        self._course.close()
        self._roll.close()
        return actions
