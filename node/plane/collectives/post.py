"""Messages to and from one peer, each once and in order, also across links that go down. Pure.

A message goes in parts, so that none is larger than a link takes. What was said is kept until the
peer says that it has come. Whenever a link comes up for a side, it introduces itself, asks what the
peer has heard, and says the rest again. Neither side listens before it knows that it is meant: whom
a side takes the other for comes with its introduction.

So many bytes are on their way that the peer has not heard, and no more (`WINDOW`): what is to be
said waits here meanwhile, as it was given, and its owner is told how much that is. A side that has
no room for what comes next listens to nothing until it has, and asks for it again then
(go-back-n: RFC 3366, 4.1). So nothing is lost, and who says more than a window breaks the protocol.

A peer that is another side than before knows nothing of what was said: it began anew, or it has
lost this side, and with it all that was between them. What was kept for it is dropped; whoever uses
the post says what the new one is to know.

Serials go on where those of a side's loss ended, and begin anywhere: what comes late of a side
before is never the next of this one, as with the initial sequence numbers of TCP (RFC 9293, 3.4.1).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

from manta.node.plane.collectives.messages import (
    CallName,
    CollectiveSaid,
    CollectivesHeard,
    Introduced,
    Message,
    Places,
    Side,
    packed,
    unpacked,
)
from manta.transports.collectives import messages as collective
from manta.transports.errors import RemoteProtocolError

PART = 128 * 1024
"""Bytes of a message that go at once."""
WINDOW = 2 * 1024 * 1024
"""Bytes that are on their way and were not heard."""
LONGEST = 32 * 1024 * 1024
"""Bytes of a message."""
OVERHEAD = 256
"""Bytes that a part costs beside its own."""
UNHEARD = 32
"""Parts after which it is said that they have come, if nothing else is to be said."""
MOST_INTRODUCTIONS = 16
"""Of one side over one link: each has all that is kept said again."""


class Change(Enum):
    """What is new about a peer."""

    NONE = 0
    ANEW = 1
    """It has begun anew, and knows nothing."""
    LOST = 2
    """It has lost this side, and gone on without it."""


class TooLong(Exception):
    """What is to be said is more than a message may have: so many bytes."""


class Heard(NamedTuple):
    """A whole message of the peer's."""

    call: CallName
    places: Places
    message: collective.Message
    size: int
    """Its bytes on the link."""


class _Waiting(NamedTuple):
    call: CallName
    places: Places
    message: collective.Message
    weight: int


class _Part(NamedTuple):
    call: CallName
    places: Places
    part: bytes
    left: int

    @property
    def cost(self) -> int:
        return OVERHEAD + len(self.part)


class Post:
    """`me` is this side, whose parts begin with serial `first`."""

    def __init__(self, me: Side, first: int, counted: Callable[[int], object] = int) -> None:
        """`counted` is told by how many bytes what is kept here grows, or shrinks."""
        self._me = me
        self._counted = counted
        self._peer: Side | None = None
        self._is_known = False
        """Does the peer know this side?"""
        self._is_met = False
        """Has it introduced itself since the link came up?"""
        self._waiting: deque[_Waiting] = deque()
        """What no part of was sent yet."""
        self._kept: dict[int, _Part] = {}
        """By serial: what is not known to have come."""
        self._said = first
        """The serial of the next part that is made."""
        self._next = first
        """The serial of the next part that is sent over this link."""
        self._on_way = 0
        """Bytes of the parts that were, and are not known to have come."""
        self.size = 0
        """Bytes of all that waits or is kept."""
        self._heard = 0
        """The peer's next."""
        self._told = 0
        """What the peer knows of that."""
        self._untold = 0
        """Bytes of what it does not know to have come."""
        self._coming = bytearray()
        """The parts that have come of a message that is not whole."""
        self._missing = 0
        """How many bytes of it are to come."""
        self._passes_over = False
        """Is what comes heard by nobody?"""
        self.is_stalled = False
        """Does this side listen to nothing, for want of room?"""
        self._ignored = 0
        """Bytes that were said since that began, or since the link came up."""
        self._introductions = 0
        self._has_asked = False

    @property
    def kept(self) -> int:
        """Messages that wait, and parts that are not known to have come."""
        return len(self._kept) + len(self._waiting)

    def after_loss(self) -> Post:
        """The peer is lost, with all that was between: what is used for it should it come back."""
        self._clear()
        return Post(Side(self._me.desk, self._me.losses + 1), self._said, self._counted)

    def begun_anew(self, me: Side) -> Post:
        """This side has forgotten what was between them: what is used for the peer from now on."""
        self._clear()
        return Post(me, self._said, self._counted)

    def link_up(self) -> Message:
        """What was said over the link before may be lost: the peer is asked what it has heard."""
        self._introductions, self._has_asked, self._is_met, self._ignored = 0, False, False, 0
        return self._introduction(asks=True)

    def _introduction(self, *, asks: bool) -> Message:
        self._tells()
        first = self._said - len(self._kept)
        return Introduced(self._me, self._peer, self._heard, first, asks)

    # --- what is said ---------------------------------------------------------------------------

    def say(self, call: CallName, places: Places, message: collective.Message) -> None:
        """It is sent as `next` says. Raises TooLong."""
        weight = OVERHEAD + collective.weight_of(message)
        if weight > LONGEST:
            raise TooLong(weight)
        self._waiting.append(_Waiting(call, places, message, weight))
        self._grow(weight)

    def next(self) -> Message | None:
        """What is to be sent now; None while the peer does not listen, or has yet to hear what is
        on its way."""
        if not (self._is_known and self._is_met):
            return None
        if self._next == self._said:
            if not self._waiting or self._on_way >= WINDOW:
                return None
            self._cut(self._waiting.popleft())
        part = self._kept[self._next]
        if self._on_way and self._on_way + part.cost > WINDOW:
            return None
        serial, self._next = self._next, self._next + 1
        self._on_way += part.cost
        self._tells()
        return CollectiveSaid(serial, self._heard, *part)

    def _cut(self, one: _Waiting) -> None:
        call, places, message, weight = one
        data, start = packed(message), 0
        self._grow(-weight)
        while start == 0 or start < len(data):
            piece = data[start : start + PART]
            start += len(piece)
            part = self._kept[self._said] = _Part(call, places, piece, len(data) - start)
            self._grow(part.cost)
            self._said += 1

    def _drop(self, heard: int) -> None:
        """The peer has heard all before this one, maybe over a link before."""
        if heard > self._said:
            raise RemoteProtocolError(f"it has heard part {heard} of {self._said}")
        for serial in range(self._said - len(self._kept), heard):
            cost = self._kept.pop(serial).cost
            self._on_way -= cost if serial < self._next else 0
            self._grow(-cost)
        self._next = max(self._next, heard)

    def _rewind(self) -> None:
        """All that is kept is to be said again."""
        self._next, self._on_way = self._said - len(self._kept), 0

    def _grow(self, size: int) -> None:
        self.size += size
        self._counted(size)

    def _clear(self) -> None:
        self._grow(-self.size)
        self._waiting.clear()
        self._kept.clear()
        self._rewind()

    def close(self) -> None:
        """Nothing is said any more."""
        self._clear()

    # --- who the peer is ------------------------------------------------------------------------

    def introduced(self, message: Introduced) -> tuple[list[Message], Change]:
        """What is to be answered, and what is new about the peer. Raises RemoteProtocolError."""
        change = self._meet(message.me)
        self._heard = max(self._heard, message.first)
        was_known, self._is_known = self._is_known, message.you == self._me
        if self._is_known:
            self._drop(message.heard)
            if not (self._is_met and was_known):
                self._rewind()
            self._is_met = True
        answers: list[Message] = []
        if message.asks or change is not None or not self._is_known:
            answers.append(self._introduction(asks=not self._is_known))
        return answers, change or Change.NONE

    def _meet(self, side: Side) -> Change | None:
        """None if it is the same as before."""
        former, self._peer = self._peer, side
        if former == side:
            self._introductions += 1
            if self._introductions > MOST_INTRODUCTIONS:
                raise RemoteProtocolError(f"it introduced itself {self._introductions} times")
            return None
        self._heard = self._told = self._untold = 0
        self._coming.clear()
        self._missing = 0
        self._passes_over = self.is_stalled = False
        if former is None:
            return Change.NONE
        self._clear()
        return Change.LOST if former.desk == side.desk else Change.ANEW

    # --- what is heard --------------------------------------------------------------------------

    def listens(self, message: CollectiveSaid) -> tuple[bool, list[Message]]:
        """Whether it is the next, to be heard or kept waiting (`stall`), and what is to be
        answered. Raises RemoteProtocolError."""
        if not self._is_known:  # what was said first was lost, or is on its way
            if self._has_asked:
                return False, []
            self._has_asked = True
            return False, [self._introduction(asks=True)]
        self._drop(message.heard)
        size = OVERHEAD + len(message.part)
        if self.is_stalled:
            self._ignored += size
            if self._ignored > 2 * WINDOW + PART:  # one on its way, and one before it has stopped
                raise RemoteProtocolError(f"it says {self._ignored} bytes that nobody asked for")
            return False, []
        # Else it came before, or what is before it was lost with a link.
        return message.serial == self._heard, []

    def length(self, message: CollectiveSaid) -> int:
        """Of the message that this part begins, if more parts follow; else nothing."""
        return len(message.part) + message.left if message.left and not self._missing else 0

    def hear(self, message: CollectiveSaid) -> Heard | None:
        """The message of which this part is the last. Raises RemoteProtocolError."""
        size = len(message.part)
        if self._missing not in (0, size + message.left) or size + message.left > LONGEST:
            raise RemoteProtocolError("parts of a message are not of one that may be")
        if message.left and not size:
            raise RemoteProtocolError("a part of a message is empty")
        self._heard += 1
        self._untold += OVERHEAD + size
        if (message.left or self._missing) and not self._passes_over:
            self._coming += message.part
        self._missing = message.left
        if message.left:
            return None
        if self._passes_over:
            self._passes_over = False
            return None
        data = self._coming or message.part
        heard = Heard(message.call, message.places, unpacked(data), len(data))
        self._coming = bytearray()
        return heard

    def pass_over(self) -> None:
        """The message that begins to come is heard by nobody."""
        self._passes_over = True

    def stall(self) -> None:
        """There is no room for what comes next: it is asked for again."""
        self.is_stalled, self._ignored = True, 0

    def unhear(self) -> None:
        """There is none for what was heard last, a message of one part."""
        self._heard -= 1
        self.stall()

    def resume(self) -> Message:
        """There is room again."""
        self.is_stalled = False
        self._tells()
        return CollectivesHeard(self._heard, again=True)

    @property
    def has_untold(self) -> bool:
        """Has something come of which the peer does not know?"""
        return self._heard > self._told

    def report(self, *, soon: bool = True) -> Message | None:
        """What is to be said of what was heard, if nothing else was said; unless `soon`, of little
        as well."""
        is_little = self._heard - self._told < UNHEARD and self._untold < WINDOW // 4
        if is_little and (soon or not self.has_untold):
            return None
        self._tells()
        return CollectivesHeard(self._heard)

    def ask(self) -> Message | None:
        """Has the peer say what it has heard, if all that is kept is on its way there."""
        is_on_way = self._kept and self._next == self._said and not self._waiting
        if not (is_on_way and self._is_known and self._is_met):
            return None
        self._tells()
        return CollectivesHeard(self._heard, asks=True)

    def _tells(self) -> None:
        self._told, self._untold = self._heard, 0

    def heard(self, message: CollectivesHeard) -> None:
        """Raises RemoteProtocolError."""
        if self._is_known:
            self._drop(message.heard)
            if message.again:
                self._rewind()
