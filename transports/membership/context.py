"""What the parts of one peer's machine have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random

from manta.transports.membership.actions import Action, Send
from manta.transports.membership.lifeguard import Health
from manta.transports.membership.members import Members
from manta.transports.membership.messages import Alive, Claim, Gossip, Message
from manta.transports.membership.order import ProbeOrder
from manta.transports.membership.pace import FANOUT, Pace
from manta.transports.membership.rumours import Rumours
from manta.transports.membership.timers import Timers


class Context:
    def __init__(self, me: Alive, random: Random, pace_of: Callable[[int], Pace]) -> None:
        self.now = 0.0
        """Of the event that is being handled."""
        self.random = random
        self.members = Members(me)
        self.order = ProbeOrder(random)
        """Of those that live."""
        self.rumours = Rumours()
        self.timers = Timers()
        self.health = Health()
        self.actions: list[Action] = []
        self._pace_of = pace_of
        self._is_gossiping = False
        self._number = 0
        self.resize()

    @property
    def me(self) -> Alive:
        return self.members.me

    def resize(self) -> None:
        """The number of peers has changed."""
        self.pace = self._pace_of(self.members.living + 1)

    def number(self) -> int:
        """The next of a message that is answered."""
        self._number = (self._number + 1) % (1 << 32)
        return self._number

    def send(self, peer: Alive, message: Message) -> None:
        self.actions.append(Send(peer.key, peer.addresses, message))

    def reply(self, peer: str, message: Message) -> None:
        """To one that need not be known."""
        member = self.members.get(peer)
        addresses = () if member is None else member.peer.addresses
        self.actions.append(Send(peer, addresses, message))

    def spread(self, claim: Claim) -> None:
        """Has all others told."""
        if not self.members.is_entered:
            return  # whom it knows of has told all others already
        self.rumours.put(claim, self.pace.copies)
        if not self._is_gossiping:
            self._gossip_later()

    def _gossip_later(self) -> None:
        self._is_gossiping = bool(self.rumours) and len(self.order) > 0
        if self._is_gossiping:
            self.timers.at(self.now + self.pace.step, self._gossip)

    def _gossip(self, _: None) -> None:
        for key in self.order.some(FANOUT):
            if news := self.rumours.take():
                self.reply(key, Gossip(news))
        self._gossip_later()

    def tell(self, peer: str, first: Iterable[Claim]) -> None:
        """A peer is told of these, now."""
        self.reply(peer, Gossip(self.rumours.take(first)))
