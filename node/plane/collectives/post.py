"""Messages to and from one peer, each once and in order, also across links that go down. Pure.

What was said is kept until the peer says that it has come. Whenever a link comes up, each side
introduces itself and tells how much it has heard; the other says the rest again. A peer that
introduces itself as another process than before has heard nothing, and knows nothing of what it
said itself.
"""

from __future__ import annotations

from collections import deque

from manta.node.plane.collectives.messages import (
    CallName,
    CollectiveSaid,
    CollectivesHeard,
    Introduced,
    Message,
    Tagged,
)
from manta.transports.errors import RemoteProtocolError

UNHEARD = 32
"""Messages after which it is said that they have come, if nothing else is to be said."""


class Post:
    """`me` names this process; out come messages to be sent over the link, in order."""

    def __init__(self, me: bytes) -> None:
        self._me = me
        self._peer = b""
        self._kept: deque[tuple[int, CallName, bytes, Tagged]] = deque()
        self._said = 0
        self._heard = 0
        self._told = 0
        """How much the peer knows to have been heard."""

    @property
    def kept(self) -> int:
        """Messages that are not known to have come."""
        return len(self._kept)

    def link_up(self) -> Message:
        self._told = self._heard
        return Introduced(self._me, self._peer, self._heard)

    def say(self, call: CallName, places: bytes, said: Tagged) -> Message:
        serial, self._said = self._said, self._said + 1
        self._kept.append((serial, call, places, said))
        return self._message(serial, call, places, said)

    def _message(self, serial: int, call: CallName, places: bytes, said: Tagged) -> Message:
        self._told = self._heard
        return CollectiveSaid(serial, self._heard, call, places, said)

    def introduced(self, message: Introduced) -> tuple[list[Message], bool]:
        """What is to be said again, and whether the peer is another process than before. Raises
        RemoteProtocolError."""
        is_new, is_other = self._peer != message.me, self._peer not in (b"", message.me)
        if is_new:
            self._peer, self._heard = message.me, 0
        if message.you == self._me:
            self._drop(message.heard)
        elif is_new:  # it has heard nothing of this process
            self._kept = deque((at, *one[1:]) for at, one in enumerate(self._kept))
            self._said = len(self._kept)
        answers: list[Message] = []
        if message.you == b"":  # it may not have heard who this is
            answers.append(self.link_up())
        return answers + [self._message(*one) for one in self._kept], is_other

    def hear(self, message: CollectiveSaid) -> tuple[bool, list[Message]]:
        """Whether it is the next, and what is to be answered. Raises RemoteProtocolError."""
        if not self._peer:  # what it said first was lost: it will be said again
            return False, [Introduced(self._me, b"", 0)]
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
        self._drop(message.heard)

    def _drop(self, heard: int) -> None:
        if heard > self._said:
            raise RemoteProtocolError(f"it has heard {heard} messages of {self._said}")
        while self._kept and self._kept[0][0] < heard:
            self._kept.popleft()
