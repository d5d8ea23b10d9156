"""What letters and broadcasts of ended attempts must outlive the process, and how they come back.

Letters come back to where they were: those to other peers into their outboxes, those to members of
this peer into their channels. Those that were consumed do not; should an attempt send them again,
who consumed them says so. What attempts received comes back as names alone: the letters are at
their senders, who are told only when it is certain that the attempt counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_never

from manta.transports.exchange import kept as kinds
from manta.transports.exchange.broadcasts import Broadcasts
from manta.transports.exchange.channels import Member, Name
from manta.transports.exchange.kept import Item, Kept
from manta.transports.exchange.letters import Attempt, Letters, Remote, size_of
from manta.transports.exchange.messages import Parcel
from manta.transports.exchange.outbox import Key


def attempt_of(kept: Kept) -> Attempt:
    return Attempt(kept.era, Member(kept.task, kept.rank), kept.number)


def end_attempt(letters: Letters, broadcasts: Broadcasts, at: Attempt) -> Kept | None:
    """What is to be kept of an attempt that ends in good order, or nothing.

    What it received stays its own until `letters.settle`, and what it sent stays as it is.
    """
    items = [*_sent(letters, at), *_received(letters, at), *broadcasts.said_by(at.member)]
    return Kept(at.era, *at.member, at.number, tuple(items)) if items else None


def _sent(letters: Letters, at: Attempt) -> Iterator[Item]:
    for to, outbox in letters.outboxes.items():
        for stream, count in outbox.end_attempt(at).items():
            for serial in range(count):
                key = Key(stream.tag, Name(stream.era, stream.sender, serial))
                if (value := _value(letters, to, key)) is not None:
                    _fix(letters, to, key)
                    yield kinds.KeptLetter(to, stream.tag, serial, value)


def _fix(letters: Letters, to: str, key: Key) -> None:
    if to == letters.me:
        letters.channel(to, key.tag).fix(key.name)
    else:
        letters.outbox(to).fix(key)


def _value(letters: Letters, to: str, key: Key) -> bytes | Parcel | None:
    """Of a letter that may still be asked for."""
    if to == letters.me:
        channel = letters.channels.get((to, key.tag))
        value = None if channel is None else channel.value(key.name)
    else:
        outbox = letters.outbox(to)
        value = outbox[key].value if key in outbox else None
    assert not isinstance(value, Remote)
    return value


def _received(letters: Letters, at: Attempt) -> Iterator[Item]:
    for source, tag, names in letters.end_attempt(at):
        by_stream: dict[tuple[int, Member], list[int]] = {}
        for name in names:
            by_stream.setdefault((name.era, name.sender), []).append(name.serial)
        for (era, sender), serials in by_stream.items():
            yield kinds.Received(source, tag, era, *sender, kinds.spans(serials))


def still(letters: Letters, broadcasts: Broadcasts, kept: Kept, *, stands: bool) -> Kept | None:
    """What of it is needed yet; `stands` if the attempt may count."""
    needed = tuple(one for one in kept.items if _is_needed(letters, broadcasts, kept, one, stands))
    return Kept(kept.era, kept.task, kept.rank, kept.number, needed) if needed else None


def _is_needed(
    letters: Letters, broadcasts: Broadcasts, kept: Kept, item: Item, stands: bool
) -> bool:
    member = Member(kept.task, kept.rank)
    match item:
        case kinds.KeptLetter(to, tag, serial, value):
            return _value(letters, to, Key(tag, Name(kept.era, member, serial))) == value
        case kinds.Received(source, tag, era, task, rank):
            channel = letters.channels.get((source, tag))
            return stands and channel is not None and channel.knows(era, Member(task, rank))
        case kinds.KeptBroadcast():
            return kept.era == letters.era and broadcasts.says(member, item)
        case kinds.KeptCall():
            return kept.era == letters.era
        case _:
            assert_never(item)


def restore_received(letters: Letters, kept: Kept) -> bool:
    """Whether the attempt received anything: then it has to be settled."""
    at = attempt_of(kept)
    received = [item for item in kept.items if isinstance(item, kinds.Received)]
    for item in received:
        sender = Member(item.task, item.rank)
        spans = (range(first, first + count) for first, count in item.serials)
        names = [Name(item.era, sender, number) for span in spans for number in span]
        letters.channel(item.source, item.tag).restore(at, names)
        letters.claiming.setdefault(at, set()).add((item.source, item.tag))
    return bool(received)


def restore_sent(letters: Letters, broadcasts: Broadcasts, kept: Kept) -> list[Parcel]:
    """Once all that was received is restored. Returns what nobody asks for any more."""
    member, useless = Member(kept.task, kept.rank), list[Parcel]()
    for item in kept.items:
        match item:
            case kinds.KeptLetter(to, tag, serial, value):
                key = Key(tag, Name(kept.era, member, serial))
                former: bytes | Parcel | Remote | None = None
                if to != letters.me:
                    former = letters.outbox(to).put(key, value, size_of(value))
                    former = None if former == value else former
                elif _value(letters, to, key) != value:  # else a later attempt had it as well
                    letters.take_in(to, key, value)
                _fix(letters, to, key)
                if isinstance(former, Parcel):
                    useless.append(former)
            case kinds.KeptBroadcast(tag, time, value):
                if kept.era == letters.era:
                    broadcasts.restore(member, tag, time, value)
                elif isinstance(value, Parcel):
                    useless.append(value)
            case _:
                pass
    return useless
