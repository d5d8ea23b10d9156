"""What members of a group broadcast in an era: of each tag the latest value counts.

Theory of operation. Each peer holds what its own members broadcast, tells it to all peers that
may hear it, and again to each whose link comes up. "Latest" is by Lamport's clocks (1978): a
broadcast is later than all that its sender's peer had heard of; of two with one time that of the
greater member counts, so that all who have heard of both agree.

A value that a later one of the same sender replaced is released at once: who still waits for it
is given the later one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from manta.transports.errors import RemoteProtocolError
from manta.transports.exchange import messages
from manta.transports.exchange.channels import Load, Member, Room
from manta.transports.exchange.kept import KeptBroadcast
from manta.transports.exchange.letters import Attempt, Remote, Shell, Value, size_of
from manta.transports.exchange.messages import Parcel

LATEST = (1 << 53) - 1
"""No clock goes beyond it."""
SAID = Room(10_000, 256 << 20)
"""What a peer holds of the broadcasts of one peer, its own too: values under so many tags, with so
many bytes that are not parcels."""


class TooMuchSaid(Exception):
    """The members of a peer broadcast more than is kept until the era ends."""


class Said(NamedTuple):
    """A value under a tag."""

    time: int
    sender: Member
    peer: str
    value: Value


class Broadcasts:
    def __init__(self, me: str, shell: Shell) -> None:
        self._me = me
        self._shell = shell
        self._loads: dict[str, Load] = {}
        """What is kept of each peer's broadcasts."""
        self._era = 0
        self._time = 0
        self._latest: dict[str, dict[Member, Said]] = {}
        """By tag and sender."""
        self._ahead: list[tuple[str, messages.SentBroadcast]] = []
        """Of an era that has not begun here yet."""

    def say(self, at: Attempt, tag: str, value: Value, to: Iterable[str]) -> None:
        """Keeps a value of a member here, and tells it to those peers. Raises TooMuchSaid."""
        said = Said(min(self._time + 1, LATEST), at.member, self._me, value)
        if not self._fits(tag, said):
            raise TooMuchSaid(
                f"The members on this node keep broadcasts under {SAID.letters:,} tags, or "
                f"{SAID.size >> 20} MiB of them, until the iteration ends, and no more may be: "
                "use a tag again, which replaces its value."
            )
        self._time = said.time
        self._keep(tag, said)
        for peer in to:
            self._tell(peer, tag, said)

    def latest(self, tag: str, hears: Callable[[Said], bool]) -> Said | None:
        """The latest value under a tag of those that the reader may hear."""
        heard = [said for said in self._latest.get(tag, {}).values() if hears(said)]
        return max(heard, key=lambda said: (said.time, said.sender), default=None)

    def said_by(self, member: Member) -> list[KeptBroadcast]:
        """The latest that a member here has said under each tag."""
        found = []
        for tag, by_sender in self._latest.items():
            said = by_sender.get(member)
            if said is not None and said.peer == self._me:
                assert not isinstance(said.value, Remote)
                found.append(KeptBroadcast(tag, said.time, said.value))
        return found

    def restore(self, member: Member, tag: str, time: int, value: bytes | Parcel) -> None:
        """A member here has said it, before this process began."""
        self._time = max(self._time, time)
        self._keep(tag, Said(time, member, self._me, value))

    def lose(self, value: Remote) -> None:
        """Its holder has it no more: its member says it again, or has said something later."""
        for by_sender in self._latest.values():
            for sender in [sender for sender, said in by_sender.items() if said.value == value]:
                self._forget(by_sender.pop(sender))

    def link_up(self, peer: str, hears: Callable[[Member], bool]) -> None:
        """Tells a peer all that it may hear."""
        for tag, by_sender in self._latest.items():
            for said in by_sender.values():
                if said.peer == self._me and hears(said.sender):
                    self._tell(peer, tag, said)

    def handle(self, peer: str, message: messages.SentBroadcast) -> str:
        """Takes a broadcast in; returns its tag, or nothing where nobody here needs it now."""
        if message.era > self._era:
            if len(self._ahead) >= SAID.letters:
                raise RemoteProtocolError("it broadcasts in iterations that have not begun")
            self._ahead.append((peer, message))
            return ""
        if message.era < self._era:
            return ""
        self._time = max(self._time, message.time)
        sender = Member(message.task, message.rank)
        value = message.value
        held: Value = Remote(peer, value) if isinstance(value, Parcel) else value
        said = Said(message.time, sender, peer, held)
        if not self._fits(message.tag, said):
            raise RemoteProtocolError("it broadcasts more than a node may")
        self._keep(message.tag, said)
        return message.tag

    def begin_era(self, era: int) -> list[str]:
        """Forgets all that was said before, and returns the tags of what has come already."""
        for by_sender in self._latest.values():
            for said in by_sender.values():
                self._forget(said)
        self._latest.clear()
        self._era = era
        ahead, self._ahead = self._ahead, []
        return [tag for told in ahead if (tag := self.handle(*told))]

    def _fits(self, tag: str, said: Said) -> bool:
        load = self._loads.setdefault(said.peer, Load())
        former = self._latest.get(tag, {}).get(said.sender)
        size = load.size + size_of(said.value) - (size_of(former.value) if former else 0)
        return load.letters + (former is None) <= SAID.letters and size <= SAID.size

    def _keep(self, tag: str, said: Said) -> None:
        by_sender = self._latest.setdefault(tag, {})
        former = by_sender.get(said.sender)
        if former is not None:
            if former.time >= said.time:  # told again, since the link came up again
                return
            self._forget(former)
        by_sender[said.sender] = said
        self._loads.setdefault(said.peer, Load()).add(size_of(said.value))
        if said.peer != self._me:
            self._shell.arrived(said.value)

    def _forget(self, said: Said) -> None:
        self._loads[said.peer].add(size_of(said.value), -1)
        self._shell.release(said.value)

    def _tell(self, peer: str, tag: str, said: Said) -> None:
        assert not isinstance(said.value, Remote)
        task, rank = said.sender
        told = messages.SentBroadcast(self._era, task, rank, tag, said.time, said.value)
        self._shell.tell(peer, told)
