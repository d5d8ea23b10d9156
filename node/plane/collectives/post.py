"""Messages to and from one peer, each once and in order, also across links that go down. Pure.

What was said is kept until the peer says that it has come. Whenever a link comes up for a side, it
introduces itself, asks what the peer has heard, and says the rest again. Neither side listens
before it knows that it is meant: whom a side takes the other for comes with its introduction.

A peer that is another side than before knows nothing of what was said: it began anew, or it has
lost this side, and with it all that was between them. What was kept for it is dropped; whoever uses
the post says what the new one is to know.

Serials go on where those of a side's loss ended, and begin anywhere: what comes late of a side
before is never the next of this one, as with the initial sequence numbers of TCP (RFC 9293, 3.4.1).
"""

from __future__ import annotations

from collections import deque
from enum import Enum

from manta.node.plane.collectives.messages import (
    CallName,
    CollectiveSaid,
    CollectivesHeard,
    Introduced,
    Message,
    Places,
    Side,
    Tagged,
)
from manta.transports.errors import RemoteProtocolError

UNHEARD = 32
"""Messages after which it is said that they have come, if nothing else is to be said."""
MOST_INTRODUCTIONS = 16
"""Of one side over one link: each has all that is kept said again."""


class Change(Enum):
    """What is new about a peer."""

    NONE = 0
    ANEW = 1
    """It has begun anew, and knows nothing."""
    LOST = 2
    """It has lost this side, and gone on without it."""


class Post:
    """`me` is this side, whose serials begin with `first`; out come messages to be sent over the
    link, in order."""

    def __init__(self, me: Side, first: int) -> None:
        self._me = me
        self._peer: Side | None = None
        self._is_known = False
        """Does the peer know this side?"""
        self._kept: deque[tuple[int, CallName, Places, Tagged]] = deque()
        self._said = first
        """The serial of the next."""
        self._heard = 0
        """The peer's next."""
        self._told = 0
        """What the peer knows of that."""
        self._awaits = False
        """Was something said over a link before that may be lost?"""
        self._introductions = 0
        self._has_asked = False

    @property
    def kept(self) -> int:
        """Messages that are not known to have come."""
        return len(self._kept)

    def after_loss(self) -> Post:
        """The peer is lost, with all that was between: what is used for it should it come back."""
        return Post(Side(self._me.desk, self._me.losses + 1), self._said)

    def begun_anew(self, me: Side) -> Post:
        """This side has forgotten what was between them: what is used for the peer from now on."""
        return Post(me, self._said)

    def link_up(self) -> Message:
        """What was said over the link before may be lost: the peer is asked what it has heard."""
        self._introductions, self._has_asked, self._awaits = 0, False, True
        return self._introduction(asks=True)

    def _introduction(self, *, asks: bool) -> Message:
        self._told = self._heard
        first = self._kept[0][0] if self._kept else self._said
        return Introduced(self._me, self._peer, self._heard, first, asks)

    def say(self, call: CallName, places: Places, said: Tagged) -> Message | None:
        """None while the peer does not listen: it will be said once it does."""
        serial, self._said = self._said, self._said + 1
        self._kept.append((serial, call, places, said))
        return self._message(serial, call, places, said) if self._is_known else None

    def _message(self, serial: int, call: CallName, places: Places, said: Tagged) -> Message:
        self._told = self._heard
        return CollectiveSaid(serial, self._heard, call, places, said)

    def introduced(self, message: Introduced) -> tuple[list[Message], Change]:
        """What is to be said, and what is new about the peer. Raises RemoteProtocolError."""
        change = self._meet(message.me)
        self._heard = max(self._heard, message.first)
        was_known, self._is_known = self._is_known, message.you == self._me
        if self._is_known:
            self._drop(message.heard)
        answers: list[Message] = []
        if message.asks or change is not None or not self._is_known:
            answers.append(self._introduction(asks=not self._is_known))
        if self._is_known and (self._awaits or not was_known):
            self._awaits = False
            answers += [self._message(*one) for one in self._kept]
        return answers, change or Change.NONE

    def _meet(self, side: Side) -> Change | None:
        """None if it is the same as before."""
        former, self._peer = self._peer, side
        if former == side:
            self._introductions += 1
            if self._introductions > MOST_INTRODUCTIONS:
                raise RemoteProtocolError(f"it introduced itself {self._introductions} times")
            return None
        self._heard = self._told = 0
        if former is None:
            return Change.NONE
        self._kept.clear()
        return Change.LOST if former.desk == side.desk else Change.ANEW

    def hear(self, message: CollectiveSaid) -> tuple[bool, list[Message]]:
        """Whether it is the next, and what is to be answered. Raises RemoteProtocolError."""
        if not self._is_known:  # what was said first was lost, or is on its way
            if self._has_asked:
                return False, []
            self._has_asked = True
            return False, [self._introduction(asks=True)]
        self._drop(message.heard)
        if message.serial != self._heard:
            return False, []  # it came before, or what is before it was lost with a link
        self._heard += 1
        if self._heard - self._told < UNHEARD:
            return True, []
        self._told = self._heard
        return True, [CollectivesHeard(self._heard)]

    def heard(self, message: CollectivesHeard) -> None:
        """Raises RemoteProtocolError."""
        if self._is_known:
            self._drop(message.heard)

    def _drop(self, heard: int) -> None:
        if heard > self._said:
            raise RemoteProtocolError(f"it has heard message {heard} of {self._said}")
        while self._kept and self._kept[0][0] < heard:
            self._kept.popleft()
