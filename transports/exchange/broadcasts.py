"""What members of a group broadcast in an era: of each tag the latest value counts.

Theory of operation. Each peer holds what its own members broadcast, and tells each other peer that
is linked all of a sender that may be heard there: at once, when the link comes up, or when the
roster first says so. "Latest" is by Lamport's clocks (1978): a broadcast is later than all that its
sender's peer had heard of; of two with one time that of the greater member counts, so that all who
have heard of both agree. Of one member on one peer what came last counts, whatever its time: links
keep their order, and a peer that begins anew has another clock.

A peer is believed to speak for a member only once the roster has had that member there, and no
message moves the clock by more than STEP: a later value is later whatever others say.

A value that a later one of the same sender replaced is released at once: who still waits for it
is given the later one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from manta.transports.errors import RemoteProtocolError
from manta.transports.exchange import messages
from manta.transports.exchange.channels import Load, Member, Room, Sender
from manta.transports.exchange.kept import KeptBroadcast
from manta.transports.exchange.letters import Attempt, Remote, Shell, Value, size_of
from manta.transports.exchange.messages import Parcel

LATEST = (1 << 53) - 1
"""No clock goes beyond it."""
STEP = 1 << 24
"""By so much a message moves a clock at most; in one era nobody broadcasts as often."""
SAID = Room(10_000, 256 << 20)
"""What a peer holds of the broadcasts of one peer, its own too: values under so many tags, with so
many bytes that are not parcels. As much again of an era that has not begun here."""


class TooMuchSaid(Exception):
    """The members of a peer broadcast more than is kept until the era ends."""


class Said(NamedTuple):
    """A value under a tag."""

    time: int
    sender: Member
    peer: str
    value: Value


@dataclass
class _Ahead:
    """What a peer has said in an era that has not begun here: the latest under each tag."""

    era: int
    load: Load = field(default_factory=Load)
    said: dict[tuple[str, Member], messages.SentBroadcast] = field(default_factory=dict)


class Broadcasts:
    def __init__(self, me: str, shell: Shell, is_there: Callable[[Member, str], bool]) -> None:
        """`is_there`: whether, as far as is known, a member is on a peer."""
        self._me = me
        self._shell = shell
        self._is_there = is_there
        self._loads: dict[str, Load] = {}
        """What is kept of each peer's broadcasts."""
        self._era = 0
        self._time = 0
        self._latest: dict[str, dict[Sender, Said]] = {}
        """By tag and sender."""
        self._mine: dict[Member, dict[str, None]] = {}
        """The tags of members here."""
        self._told: dict[str, set[Member]] = {}
        """By peer that is linked: of whom it was told all."""
        self._believed: set[Sender] = set()
        """Those elsewhere that a roster has had there."""
        self._strangers: set[Sender] = set()
        """Those that spoke all the same."""
        self._ahead: dict[str, _Ahead] = {}
        """By peer."""

    # --- of members here --------------------------------------------------------------------

    def say(self, at: Attempt, tag: str, value: Value, hears: Callable[[str], bool]) -> None:
        """Keeps a value of a member here, and tells it to those linked peers that hear it. Raises
        TooMuchSaid."""
        said = Said(min(self._time + 1, LATEST), at.member, self._me, value)
        if not self._fits(tag, said):
            raise TooMuchSaid(
                f"The members on this node keep broadcasts under {SAID.letters:,} tags, or "
                f"{SAID.size >> 20} MiB of them, until the iteration ends, and no more may be: "
                "use a tag again, which replaces its value."
            )
        self._time = said.time
        self._keep(tag, said)
        for peer, told in self._told.items():
            if at.member in told:
                self._tell(peer, tag, said)
            elif hears(peer):
                self._tell_all(peer, at.member)

    def said_by(self, member: Member) -> list[KeptBroadcast]:
        """The latest that a member here has said under each tag."""
        found = []
        for tag in self._mine.get(member, ()):
            said = self._latest[tag][self._me, member]
            assert not isinstance(said.value, Remote)
            found.append(KeptBroadcast(tag, said.time, said.value))
        return found

    def heard(self, hears: Callable[[Member], bool]) -> Iterator[Value]:
        """The latest values of those members here whom somebody hears."""
        for member, tags in self._mine.items():
            if hears(member):
                yield from (self._latest[tag][self._me, member].value for tag in tags)

    def says(self, member: Member, item: KeptBroadcast) -> bool:
        """Whether it is the latest that a member here has said under its tag."""
        said = self._latest.get(item.tag, {}).get((self._me, member))
        return said is not None and (said.time, said.value) == (item.time, item.value)

    def restore(self, member: Member, tag: str, time: int, value: bytes | Parcel) -> None:
        """A member here has said it, before this process began."""
        self._time = max(self._time, time)
        self._keep(tag, Said(time, member, self._me, value))

    # --- of others --------------------------------------------------------------------------

    def handle(self, peer: str, message: messages.SentBroadcast) -> str:
        """Takes a broadcast in; returns its tag, or nothing where nobody here needs it now.

        Raises RemoteProtocolError.
        """
        if message.era > self._era:
            self._keep_ahead(peer, message)
            return ""
        if message.era < self._era:
            return ""
        value = message.value
        held: Value = Remote(peer, value) if isinstance(value, Parcel) else value
        time = min(message.time, self._time + STEP)
        said = Said(time, Member(message.task, message.rank), peer, held)
        if not self._fits(message.tag, said):
            raise RemoteProtocolError("it broadcasts more than a node may")
        self._time = max(self._time, time)
        if (peer, said.sender) not in self._believed:
            self._look_at((peer, said.sender))
        self._keep(message.tag, said)
        return message.tag

    def _keep_ahead(self, peer: str, message: messages.SentBroadcast) -> None:
        ahead = self._ahead.get(peer)
        if ahead is None or ahead.era < message.era:  # those before are over there
            ahead = self._ahead[peer] = _Ahead(message.era)
        elif ahead.era > message.era:
            return
        key = message.tag, Member(message.task, message.rank)
        former = ahead.said.pop(key, None)
        if former is not None:
            ahead.load.add(_size(former), -1)
        ahead.load.add(_size(message))
        if ahead.load.letters > SAID.letters or ahead.load.size > SAID.size:
            del self._ahead[peer]
            raise RemoteProtocolError("it broadcasts more than a node may")
        ahead.said[key] = message

    def look(self) -> None:
        """More may be known of who is where. Who was believed once is so until the era ends."""
        for sender in list(self._strangers):
            self._look_at(sender)

    def _look_at(self, sender: Sender) -> None:
        peer, member = sender
        if self._is_there(member, peer):
            self._believed.add(sender)
            self._strangers.discard(sender)
        else:
            self._strangers.add(sender)

    def latest(self, tag: str, hears: Callable[[Said], bool]) -> Said | None:
        """The latest value under a tag of those that the reader may hear, and that are of whom
        they say. Of a member that has spoken on several peers what it said where it is now counts,
        if it said anything there: the clock of another peer may be ahead."""
        heard: dict[Member, list[Said]] = {}
        for at, said in self._latest.get(tag, {}).items():
            if at not in self._strangers and hears(said):
                heard.setdefault(said.sender, []).append(said)
        counting = (
            [said for said in each if self._is_there(member, said.peer)] or each
            for member, each in heard.items()
        )
        return max(
            (said for each in counting for said in each),
            key=lambda said: (said.time, said.sender, said.peer),
            default=None,
        )

    def lose(self, value: Remote) -> None:
        """Its holder has it no more: its member says it again, or has said something later."""
        lost = set[Sender]()
        for by_sender in self._latest.values():
            for sender in [sender for sender, said in by_sender.items() if said.value == value]:
                self._forget(by_sender.pop(sender))
                lost.add(sender)
        for sender in lost:
            if not any(sender in by_sender for by_sender in self._latest.values()):
                self._believed.discard(sender)
                self._strangers.discard(sender)

    # --- links ------------------------------------------------------------------------------

    def link_up(self, peer: str, hears: Callable[[Member], bool]) -> None:
        """Tells a peer all that it may hear."""
        self._told[peer] = set()
        self.tell_news(peer, hears)

    def tell_news(self, peer: str, hears: Callable[[Member], bool]) -> None:
        """The same of those whom it hears and did not hear before. Of those whom it hears no more
        it is told nothing."""
        told = self._told[peer]
        heard = [member for member in self._mine if hears(member)]
        told.intersection_update(heard)
        for member in heard:
            if member not in told:
                self._tell_all(peer, member)

    def link_down(self, peer: str) -> None:
        """What it says when its link is up again is all that counts."""
        self._told.pop(peer, None)
        self._ahead.pop(peer, None)

    # --- eras -------------------------------------------------------------------------------

    def begin_era(self, era: int) -> list[str]:
        """Forgets all that was said before, and returns the tags of what has come already."""
        self._clear()
        self._era = era
        tags: dict[str, None] = {}
        for peer, ahead in list(self._ahead.items()):
            if ahead.era <= era:
                del self._ahead[peer]
            if ahead.era == era:
                tags.update((self.handle(peer, message), None) for message in ahead.said.values())
        return list(tags)

    def close(self) -> None:
        """Releases all that is kept."""
        self._clear()
        self._ahead.clear()

    def _clear(self) -> None:
        for by_sender in self._latest.values():
            for said in by_sender.values():
                self._forget(said)
        self._latest.clear()
        self._mine.clear()
        self._believed.clear()
        self._strangers.clear()
        for told in self._told.values():
            told.clear()
        self._time = 0

    # --- inside -----------------------------------------------------------------------------

    def _fits(self, tag: str, said: Said) -> bool:
        load = self._loads.setdefault(said.peer, Load())
        former = self._latest.get(tag, {}).get((said.peer, said.sender))
        size = load.size + size_of(said.value) - (size_of(former.value) if former else 0)
        return load.letters + (former is None) <= SAID.letters and size <= SAID.size

    def _keep(self, tag: str, said: Said) -> None:
        by_sender = self._latest.setdefault(tag, {})
        former = by_sender.get((said.peer, said.sender))
        by_sender[said.peer, said.sender] = said
        if former is not None and former.value == said.value:  # as of one that is told again
            return
        if former is not None:
            self._forget(former)
        self._loads.setdefault(said.peer, Load()).add(size_of(said.value))
        if said.peer == self._me:
            self._mine.setdefault(said.sender, {})[tag] = None
        else:
            self._shell.arrived(said.value)

    def _forget(self, said: Said) -> None:
        self._loads[said.peer].add(size_of(said.value), -1)
        self._shell.release(said.value)

    def _tell_all(self, peer: str, member: Member) -> None:
        """Of a member here, which the peer has not heard yet."""
        self._told[peer].add(member)
        for tag in self._mine[member]:
            self._tell(peer, tag, self._latest[tag][self._me, member])

    def _tell(self, peer: str, tag: str, said: Said) -> None:
        assert not isinstance(said.value, Remote)
        task, rank = said.sender
        told = messages.SentBroadcast(self._era, task, rank, tag, said.time, said.value)
        self._shell.tell(peer, told)


def _size(message: messages.SentBroadcast) -> int:
    return len(message.value) if isinstance(message.value, bytes) else 0
