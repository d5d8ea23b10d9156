"""The letters between one peer and all others of a group.

Theory of operation. What a member sends to a peer is kept in that peer's `Outbox` here and told to
it over the link; there it goes into a `Channel`, where attempts claim it. While a link is down
nothing is told; when it is up again each side says what it has (`Known`), and the other tells the
rest. What was consumed (it is certain that its claimant counts, or the era ended) is forgotten at
both ends. Letters that nobody claimed outlive their era.

Nobody's memory is filled by one that does not receive: see `flow`. Of a peer that is in the group
no more a letter is kept in its own era and in the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol, TypeVar

from manta.transports.errors import RemoteProtocolError
from manta.transports.exchange import messages
from manta.transports.exchange.channels import Channel, Letter, Load, Member, Name, Source
from manta.transports.exchange.flow import Flow
from manta.transports.exchange.messages import Parcel
from manta.transports.exchange.outbox import Key, Outbox, Stream

T = TypeVar("T")

STREAMS = 100_000
"""Tags of each sender to one peer in an era, and tags that an attempt asks for."""
RECEIVED = 16
"""Small letters that are kept though an attempt has received them for good."""
MOST_STREAMS = 4 * STREAMS
"""Of one peer that are known: those of two eras, and those that were kept from before."""


class Remote(NamedTuple):
    """A parcel that another peer holds."""

    peer: str
    parcel: Parcel


Value = bytes | Parcel | Remote
"""In the machine; a parcel is held here."""


class Attempt(NamedTuple):
    """One of the times that a member is tried in an era."""

    era: int
    member: Member
    number: int


class Shell(Protocol):
    """What the machine has done."""

    def tell(self, peer: str, message: messages.Message) -> None:
        """Sends a message; one to a peer whose link is down may be dropped."""

    def release(self, value: Value) -> None:
        """Nobody here will ask for this value again."""

    def arrived(self, value: Value) -> None:
        """A value came that somebody here will ask for: it may be fetched ahead."""

    def settle(self, then: Callable[[], None]) -> None:
        """Calls `then` when what was released so far would not be restored any more."""


class TooManyTags(Exception):
    """A member used more tags than are kept apart."""


def size_of(value: Value) -> int:
    return len(value) if isinstance(value, bytes) else 0


class Letters:
    def __init__(self, me: str, shell: Shell) -> None:
        self.me = me
        self._shell = shell
        self.kept = Load()
        self.flow = Flow(me, self.kept, shell.tell)
        self.channels: dict[tuple[str, str], Channel[Attempt, Value]] = {}
        """By the peer that sends, and the tag."""
        self._tags: dict[str, dict[str, None]] = {}
        """Of the channels, by the peer that sends."""
        self._sources: dict[str, Source] = {}
        """By the peer that sends."""
        self.outboxes: dict[str, Outbox[Attempt, Value]] = {}
        self.claiming: dict[Attempt, set[tuple[str, str]]] = {}
        self._up: set[str] = set()
        """Peers that have said what they know: letters may be told."""
        self._marks: dict[str, int] = {}
        """How often letters of each peer were consumed: what it forgets is told by that."""
        self.era = 0

    # --- what members here send -------------------------------------------------------------

    def send(self, at: Attempt, to: str, tag: str, value: Value) -> None:
        """Sends the next letter of the attempt; there has to be room."""
        size = size_of(value)
        stream = Stream(tag, at.era, at.member)
        outbox = self.outbox(to)
        if not outbox.may_begin(stream, STREAMS):
            raise TooManyTags(
                f"Letters to one node were sent under {STREAMS:,} tags in this iteration, and no "
                "more may be: use a tag again, the letters under it stay in order."
            )
        self.flow.take(at.member, to, size)
        key, useless = outbox.send(at, stream, value, size)
        if useless is not None:
            self._shell.release(useless)
        if key is None:
            return
        if to == self.me:
            outbox.consumed([key])  # the channel keeps it from here on
            self.take_in(self.me, key, value)
        elif to in self._up:
            self._tell(to, key, value)

    def _tell(self, to: str, key: Key, value: Value) -> None:
        assert not isinstance(value, Remote)
        era, sender, serial = key.name
        told = messages.SentLetter(era, sender.task, sender.rank, key.tag, serial, value)
        self._shell.tell(to, told)

    # --- what members here receive ----------------------------------------------------------

    def receive(self, at: Attempt, source: str, tag: str, number: int) -> Letter[Value] | None:
        """The letter with this number among those that the attempt receives, if it has come.

        Claims it, unless a call before this one did.
        """
        places = self.claiming.setdefault(at, set())
        if (source, tag) not in places and len(places) >= STREAMS:
            raise TooManyTags(
                f"{at.member} has asked for letters under {STREAMS:,} tags in this iteration, and "
                "no more may be: use a tag again."
            )
        channel = self.channel(source, tag)
        if number == channel.claims(at):
            places.add((source, tag))
            letter = channel.claim(at)
            self.flow.serve(None if letter is None else (source, letter.name.sender))
        return channel.claimed(at, number)

    def consume(self, at: Attempt, source: str, tag: str, received: int) -> bool:
        """The attempt, in whose place no other is made, has received so many of the letters that
        it claimed: they are forgotten, some at a time. False if more have been forgotten."""
        channel = self.channels.get((source, tag))
        if channel is None:
            return True
        before = channel.consumed(at)
        last = channel.claimed(at, received - 1)
        if received - before >= RECEIVED or (last is not None and not last.size):
            self._consumed(source, tag, channel.consume(at, received))
            self.flow.serve()
        return received >= before

    def lose(self, value: Remote) -> None:
        """Its holder has it no more: it tells the letter's present value, now or when the member
        has sent it again."""
        channels = [channel for at, channel in self.channels.items() if at[0] == value.peer]
        if any(channel.lose(value) for channel in channels):
            self.link_up(value.peer)

    def claims(self, at: Attempt, source: str, tag: str) -> int:
        """How many letters of the channel the attempt has claimed."""
        channel = self.channels.get((source, tag))
        return channel.claims(at) if channel else 0

    def give_back(self, at: Attempt, source: str, tag: str, received: int) -> None:
        """The attempt received only that many of the letters that it claimed."""
        if (channel := self.channels.get((source, tag))) is not None:
            channel.give_back(at, received)

    def end_attempt(self, at: Attempt) -> list[tuple[str, str, list[Name]]]:
        """What it received, by source and tag, which stays its own until `settle`."""
        places = sorted(self.claiming.pop(at, ()))
        ended = [(*place, self.channels[place].end_attempt(at)) for place in places]
        if received := [one for one in ended if one[2]]:
            self.claiming[at] = {(source, tag) for source, tag, _ in received}
        return received

    def fail_attempt(self, at: Attempt) -> None:
        """What it sent stays, for another one to replace; what it received others get."""
        for outbox in self.outboxes.values():
            outbox.end_attempt(at)
        self.settle(at, counts=False)

    def settle(self, at: Attempt, *, counts: bool) -> None:
        """If it counts, nobody will ask again for what it received; else others get it."""
        for source, tag in sorted(self.claiming.pop(at, ())):
            channel = self.channels.get((source, tag))
            if channel is not None:
                self._consumed(source, tag, channel.settle(at, counts=counts))
        self.flow.serve()

    def _consumed(
        self, source: str, tag: str, letters: Sequence[tuple[Name, Value | None]]
    ) -> None:
        for _, value in letters:
            if value is not None:
                self._shell.release(value)
        if source != self.me and letters:
            self._marks[source] = self._marks.get(source, 0) + 1
            for part in _parts([_name(tag, name) for name, _ in letters]):
                self._shell.tell(source, messages.Consumed(part))

    # --- eras -------------------------------------------------------------------------------

    def end_era(self, era: int, peers: Iterable[str]) -> None:
        """What nobody has claimed outlives its era, and what was claimed is kept until `settle`.

        `peers` are all others of the group.
        """
        self.era = era + 1
        self.flow.end_era()
        for source, tag in list(self.channels):
            self._drop_empty(source, tag)
        for outbox in self.outboxes.values():
            outbox.end_era(era)
        self.forget_senders(self.me, era)
        for peer in peers:
            self._shell.tell(peer, messages.EraEnded(era, self._marks.get(peer, 0)))
        self.flow.serve()

    def forget_lost(self, is_lost: Callable[[str], bool]) -> None:
        """Gives up letters to peers that are in the group no more, whose era and the next are
        over."""
        for to in [to for to in self.outboxes if to != self.me and is_lost(to)]:
            for value in self.outboxes[to].forget(self.era - 2):
                self._shell.release(value)
            self.flow.gave_up(to, self.outboxes[to].load)
            if not self.outboxes[to]:
                del self.outboxes[to]

    def forget_senders(self, source: str, era: int) -> None:
        """Up to that era the peer sends nothing again but what is here."""
        for tag in list(self._tags.get(source, ())):
            self.channels[source, tag].forget(era)
            self._drop_empty(source, tag)

    def _drop_empty(self, source: str, tag: str) -> None:
        if self.channels[source, tag].is_empty:
            del self.channels[source, tag], self._tags[source][tag]
            if not self._tags[source]:
                del self._tags[source], self._sources[source]

    # --- links ------------------------------------------------------------------------------

    def link_up(self, peer: str, *, wants: bool = False) -> None:
        """Says what has come from the peer; what it lacks is told when it has said so too.

        With `wants`, the link has been up for some time, and what the peer said was not heard.
        """
        known = [
            messages.KnownLetters(tag, era, sender.task, sender.rank, count, part)
            for tag in self._tags.get(peer, ())
            for era, sender, count, kept in self.channels[peer, tag].known()
            for part in _parts(kept) or [()]
        ]
        parts = _parts(known) or [()]
        for place, part in enumerate(parts, 1):
            is_last = place == len(parts)
            self._shell.tell(peer, messages.Known(part, is_last, wants and is_last))
        if self.era:
            self._shell.tell(peer, messages.EraEnded(self.era - 1, self._marks.get(peer, 0)))
        self.flow.link_up(peer)

    def has_heard(self, peer: str) -> bool:
        """Whether the peer has said what it knows, since when it is told all that is sent."""
        return peer in self._up

    def link_down(self, peer: str) -> None:
        self._up.discard(peer)
        if peer in self.outboxes:
            self.outboxes[peer].unlearn()
        self.flow.rooms.forget(peer)

    def peer_removed(self, peer: str) -> None:
        """It will not come back: nothing is kept for it."""
        self.link_down(peer)
        if (outbox := self.outboxes.pop(peer, None)) is not None:
            for value in outbox.clear():
                self._shell.release(value)
        self.flow.peer_removed(peer)

    def close(self) -> None:
        """Releases all that is kept."""
        for outbox in self.outboxes.values():
            for value in outbox.clear():
                self._shell.release(value)
        for channel in self.channels.values():
            for value in channel.values():
                self._shell.release(value)
        self.channels.clear()
        self.outboxes.clear()

    # --- what peers say ---------------------------------------------------------------------

    def handle(self, peer: str, message: messages.Message) -> bool:
        """Whether the message was about letters."""
        match message:
            case messages.SentLetter(era, task, rank, tag, serial, value):
                key = Key(tag, Name(era, Member(task, rank), serial))
                self.take_in(peer, key, Remote(peer, value) if isinstance(value, Parcel) else value)
            case messages.Known(letters, is_last, _):
                self._learn(peer, letters, is_last)
            case messages.Consumed(letters):
                self._forget(peer, map(_key, letters))
            case messages.EraEnded(era, mark):
                self.flow.rooms.forget(peer)  # those of its next era ask after this
                told = messages.EraForgotten(era, mark)
                self._shell.settle(lambda: self._shell.tell(peer, told))
            case messages.EraForgotten(era, mark) if mark == self._marks.get(peer, 0):
                self.forget_senders(peer, min(era, self.era - 1))
                self._shell.settle(_nothing)
            case messages.EraForgotten():
                pass  # more was consumed since, of which the peer says so after the next era
            case _:
                return self.flow.handle(peer, message)
        return True

    def take_in(self, peer: str, key: Key, value: Value) -> None:
        """A letter has come. Raises RemoteProtocolError."""
        if peer != self.me:
            self._check(peer, key, value)
        channel = self.channel(peer, key.tag)
        useless = channel.received(key.name, value, size_of(value))
        if not channel.is_kept(key.name):  # it was consumed, which its sender does not know
            if peer == self.me:
                self._shell.release(value)
            else:
                self._shell.tell(peer, messages.Consumed((_name(key.tag, key.name),)))
        elif useless is value and peer == self.me:
            self._shell.release(value)
        elif useless != value:  # else it was told twice
            self._shell.arrived(value)
            if useless is not None:
                self._shell.release(useless)

    def _check(self, peer: str, key: Key, value: Value) -> None:
        source = self._source(peer)
        self.flow.rooms.check(source, size_of(value))
        channel = self.channels.get((peer, key.tag))
        is_known = channel is not None and channel.knows(key.name.era, key.name.sender)
        if not is_known and source.streams >= MOST_STREAMS:
            raise RemoteProtocolError(f"it sends letters under over {MOST_STREAMS:,} tags")

    def _learn(self, peer: str, letters: Iterable[messages.KnownLetters], is_last: bool) -> None:
        outbox = self.outbox(peer)
        for told in letters:
            stream = Stream(told.tag, told.era, Member(told.task, told.rank))
            outbox.learn(stream, told.count, told.kept)
        if is_last:
            self._up.add(peer)
            self.flow.met(peer)
            lacking, consumed = outbox.compare()
            self._forget(peer, consumed)
            for key in lacking:
                self._tell(peer, key, outbox[key].value)

    def _forget(self, peer: str, keys: Iterable[Key]) -> None:
        for value in self.outbox(peer).consumed(list(keys)):
            self._shell.release(value)
        self.flow.serve()

    # --- inside -----------------------------------------------------------------------------

    def channel(self, source: str, tag: str) -> Channel[Attempt, Value]:
        found = self.channels.get((source, tag))
        if found is None:
            found = self.channels[source, tag] = Channel(
                self.flow.rooms.box, self._source(source), self.kept
            )
            self._tags.setdefault(source, {})[tag] = None
        return found

    def _source(self, peer: str) -> Source:
        found = self._sources.get(peer)
        if found is None:
            found = self._sources[peer] = Source(peer=peer)
        return found

    def outbox(self, to: str) -> Outbox[Attempt, Value]:
        found = self.outboxes.get(to)
        if found is None:
            found = self.outboxes[to] = Outbox(self.kept)
        return found


def _nothing() -> None:
    pass


def _parts(things: Sequence[T]) -> list[tuple[T, ...]]:
    """What one message may hold at a time."""
    most = messages.MOST
    return [tuple(things[at : at + most]) for at in range(0, len(things), most)]


def _name(tag: str, name: Name) -> messages.LetterName:
    return messages.LetterName(tag, name.era, *name.sender, name.serial)


def _key(name: messages.LetterName) -> Key:
    return Key(name.tag, Name(name.era, Member(name.task, name.rank), name.serial))
