"""Who is in a mesh, as one peer knows it: SWIM with suspicion and Lifeguard, and no server.

Theory of operation. The shell passes in what happens and performs what comes out (`actions.py`).
Peers probe each other in turn (`probing.py`), believe of others what can be checked (`beliefs.py`),
pass news on (`rumours.py`) and compare what they know now and then (`comparing.py`). A peer is its
public key, which its link proves; whom the mesh admits is the shell's matter.

    joining --it was told who is there--> in the mesh --`Leave`--> gone
    joining --it is the first--> in the mesh
    in the mesh --`Pause`--> says nothing --`Resume`--> in the mesh

The machine knows no clock, and draws its chances from the shell's `random`. `due` says when it
wants a `Tick`. If that comes late by more than a step, the process was held up: what it did not
hear meanwhile proves nothing of others, and all that waits goes on waiting.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

import msgspec

from manta.transports.membership.actions import (
    Action,
    Cut,
    Entered,
    Event,
    Leave,
    LinkClosed,
    LinkUp,
    Moved,
    Pause,
    Received,
    Refusal,
    Resume,
)
from manta.transports.membership.beliefs import Beliefs
from manta.transports.membership.comparing import Comparing
from manta.transports.membership.context import Context
from manta.transports.membership.members import State
from manta.transports.membership.messages import (
    Ack,
    Alive,
    Claim,
    Compare,
    Dead,
    Gossip,
    Left,
    Message,
    Nack,
    Ping,
    PingRequest,
    Records,
    Refused,
    announcement,
)
from manta.transports.membership.pace import RECONNECT, Pace, pace_of
from manta.transports.membership.view import View

MOST_MESSAGES = 200
"""That one peer sends in a second. In good order it sends fewer than 50."""
_LAST = (1 << 32) - 1


class Membership:
    def __init__(
        self,
        me: Alive,
        random: Random,
        *,
        joins: bool,
        now: float,
        pace: Callable[[int], Pace] = pace_of,
    ) -> None:
        """`me` is what `messages.announcement` makes. Unless this peer `joins` others it is the
        first in its mesh; `pace` is that of a mesh by its size."""
        self._context = context = Context(me, random, pace)
        self._members = context.members
        self._beliefs = Beliefs(context)
        self._prober = self._beliefs.prober
        self._comparing = Comparing(context, self._enter)
        self._heard: Counter[str] = Counter()
        """Messages by sender in this second."""
        self._met: set[str] = set()
        """Those that were asked in this second who they are."""
        self._second = now
        self._has_left = self._is_paused = False
        self._handlers: dict[type, Callable[[str, Any], object]] = {
            Ping: self._pinged,
            Ack: self._prober.acked,
            PingRequest: self._prober.requested,
            Nack: self._prober.nacked,
            Gossip: lambda sender, gossip: None,  # its news is all
            Compare: self._comparing.asked,
            Records: self._comparing.told,
            Refused: self._refused,
        }
        context.now = now
        if joins:
            context.timers.at(now, self._comparing.join)
        else:
            context.timers.at(now, self._enter, "")

    # --- what is known ----------------------------------------------------------------------

    @property
    def due(self) -> float | None:
        """When it wants a `Tick`."""
        return None if self._is_paused else self._context.timers.due

    @property
    def view(self) -> View:
        return self._members.view

    @property
    def me(self) -> Alive:
        return self._members.me

    @property
    def pace(self) -> Pace:
        return self._context.pace

    def peer(self, key: str) -> tuple[Alive, State] | None:
        """What is known of another, living or not."""
        member = self._members.get(key)
        return None if member is None else (member.peer, member.state)

    def peers(self) -> list[tuple[Alive, State]]:
        """All others that are known."""
        return [(member.peer, member.state) for member in self._members]

    # --- what happens -----------------------------------------------------------------------

    def handle(self, event: Event, now: float) -> list[Action]:
        context = self._context
        if self._has_left or (self._is_paused and not isinstance(event, Resume | Leave)):
            return []
        context.now = now
        self._oversleep()
        if isinstance(event, Received):
            self._receive(event.peer, event.message)
        elif isinstance(event, LinkUp):
            self._link_up(event.peer)
        elif isinstance(event, LinkClosed):
            self._link_closed(event.peer)
        elif isinstance(event, Moved):
            self._move(event.addresses)
        elif isinstance(event, Pause):
            self._pause()
        elif isinstance(event, Resume):
            self._resume()
        elif isinstance(event, Leave):
            self._leave()
        context.timers.run(now)
        actions, context.actions = context.actions, []
        return actions

    def _oversleep(self) -> None:
        context, due = self._context, self._context.timers.due
        late = 0.0 if due is None else context.now - due
        if late > context.pace.step:
            context.timers.shift(late)
            self._beliefs.overslept(late)
            if late > context.pace.period:
                context.health.worse()

    def _receive(self, sender: str, message: Message) -> None:
        context = self._context
        if sender == context.me.key or not self._admits(sender):
            return
        member = self._members.get(sender)
        was_there = member is not None and not member.is_gone
        if member is not None:
            member.heard, member.is_closed = context.now, False
        if not isinstance(message, Compare | Refused):
            answers = isinstance(message, Ack)
            for claim in message.news:
                self._beliefs.hear(claim, sender, answers=answers)
        self._handlers[type(message)](sender, message)
        if not was_there or not self._members.is_entered:
            self._met_first(sender, message)

    def _met_first(self, sender: str, message: Message) -> None:
        """What a peer says that was not in the mesh, or to one that is not."""
        member = self._members.get(sender)
        if member is not None and not member.is_gone:
            self._comparing.begin(sender)
        elif isinstance(message, Ack) and not self._members.is_entered:
            self._comparing.joining.add(sender)

    def _pinged(self, sender: str, ping: Ping) -> None:
        self._prober.pinged(sender, ping)
        member = self._members.get(sender)
        if member is None or ping.session not in (member.peer.session, member.former):
            self._meet(sender)

    def _meet(self, peer: str) -> None:
        """Has a peer of which nothing is known yet say who it is."""
        if peer not in self._met:
            self._met.add(peer)
            self._comparing.meet(peer)

    def _refused(self, sender: str, refused: Refused) -> None:
        self._context.actions.append(Refusal(sender, refused.sentence))

    def _admits(self, sender: str) -> bool:
        """Whether a sender keeps within bounds."""
        context = self._context
        if context.now >= self._second + 1:
            self._second = context.now
            self._heard.clear()
            self._met.clear()
            self._beliefs.forgive()
        self._heard[sender] += 1
        count = self._heard[sender]
        if count == MOST_MESSAGES + 1:
            sentence = f"it sends more than {MOST_MESSAGES} messages about membership in a second"
            context.actions.append(Cut(sender, sentence))
        return count <= MOST_MESSAGES

    # --- links ------------------------------------------------------------------------------

    def _link_up(self, peer: str) -> None:
        member = self._members.get(peer)
        if peer == self._context.me.key:
            return
        self._comparing.link_up(peer)
        if member is None:
            self._meet(peer)
        else:
            self._beliefs.link_up(member)
            if member.is_gone:
                self._prober.greet(member)

    def _link_closed(self, peer: str) -> None:
        self._comparing.link_closed(peer)
        if (member := self._members.get(peer)) is not None:
            self._beliefs.link_closed(member)

    # --- this peer itself -------------------------------------------------------------------

    def _enter(self, seed: str) -> None:
        context, members = self._context, self._members
        last = max((member.peer.order for member in members), default=-1)
        self._beliefs.announce(msgspec.structs.replace(context.me, order=min(last + 1, _LAST)))
        if seed:
            context.tell(seed, [context.me])
        context.actions.append(Entered(members.view))
        begin = context.now + context.random.random() * context.pace.period
        context.timers.at(begin, self._prober.next)
        context.timers.at(begin, self._reconnect)
        self._comparing.later()

    def _reconnect(self, _: None) -> None:
        """One of the dead is asked whether it is, and those that are linked and strangers are asked
        who they are: so a mesh that was parted becomes one again."""
        context, members = self._context, self._members
        context.timers.at(context.now + RECONNECT * context.pace.period, self._reconnect)
        members.forget(context.now)
        self._comparing.meet_linked()
        dead = [member for member in members.gone if member.state is State.DEAD]
        if dead and context.random.random() * members.living < len(dead):
            self._prober.greet(context.random.choice(dead))

    def _move(self, addresses: tuple[str, ...]) -> None:
        me = self._context.me
        moved = announcement(me.key, me.session, me.name, addresses)
        moved = msgspec.structs.replace(moved, incarnation=me.incarnation + 1, order=me.order)
        if self._members.is_entered:
            self._beliefs.announce(moved)
        else:
            self._members.me = moved

    def _leave(self) -> None:
        """All are told at once; whom that does not reach hears of it from others."""
        context, me = self._context, self._context.me
        self._has_left = True
        context.timers.clear()
        self._tell_all(Left(me.key, me.session, me.incarnation))

    def _tell_all(self, claim: Claim) -> None:
        if self._members.is_entered:
            for member in self._members:
                if not member.is_gone:
                    self._context.send(member.peer, Gossip((claim,)))

    def _pause(self) -> None:
        me = self._context.me
        self._is_paused = True
        self._tell_all(Dead(me.key, me.session, me.incarnation, me.key))

    def _resume(self) -> None:
        """With a higher incarnation, as the present one is dead."""
        if self._is_paused:
            self._is_paused = False
            if self._members.is_entered:
                self._beliefs.outlive()
                self._tell_all(self._context.me)
