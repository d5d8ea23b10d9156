"""What the members on a peer have sent to one other, kept until nobody can ask for it again.

This is sender-based message logging (Johnson and Zwaenepoel 1987): the receiver keeps nothing that
its sender could not send again. The k-th letter of a member under a tag is one letter, whichever
of its attempts sends it.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from manta.transports.exchange.channels import Load, Member, Name

Value = TypeVar("Value")
Attempt = TypeVar("Attempt", bound=Hashable)


class Key(NamedTuple):
    """Of a letter among all from one peer to another."""

    tag: str
    name: Name


class Stream(NamedTuple):
    """The letters of one member under one tag in one era."""

    tag: str
    era: int
    sender: Member


class Sent(NamedTuple, Generic[Value]):
    value: Value
    size: int


@dataclass
class _Learning:
    known: dict[Stream, tuple[int, set[int]]]
    """Of the streams that are kept: how many letters the receiver knows, and which it keeps."""
    sent: dict[Key, None] = field(default_factory=dict)
    """Letters since it began: whether the receiver knows them was not looked at."""


class Outbox(Generic[Attempt, Value]):
    """`kept` is told of what comes and goes."""

    def __init__(self, kept: Load) -> None:
        self._kept = kept
        self._letters: dict[Key, Sent[Value]] = {}
        """In the order in which they were sent."""
        self._fixed: set[Key] = set()
        """Letters of attempts that have ended: they stay as they are, since that is on disk."""
        self._counts: dict[Attempt, dict[Stream, int]] = {}
        """How many letters each attempt has sent."""
        self._totals: dict[Stream, int] = {}
        """How many letters the attempts of each member have sent, the most of them."""
        self._learning: _Learning | None = None
        """What the receiver has said that it knows, before it has said all."""

    def __len__(self) -> int:
        return len(self._letters)

    def __getitem__(self, key: Key) -> Sent[Value]:
        return self._letters[key]

    def __contains__(self, key: Key) -> bool:
        return key in self._letters

    def values(self) -> Iterator[Value]:
        """Of all letters that are kept."""
        return (sent.value for sent in self._letters.values())

    @property
    def load(self) -> Load:
        """What is kept."""
        return Load(len(self._letters), sum(sent.size for sent in self._letters.values()))

    def may_begin(self, stream: Stream, most: int) -> bool:
        """Whether there are fewer streams than that, or it is one of them."""
        return stream in self._totals or len(self._totals) < most

    def send(
        self, at: Attempt, stream: Stream, value: Value, size: int
    ) -> tuple[Key | None, Value | None]:
        """Records the next letter of an attempt.

        Returns its key, or None where a former attempt sent it and nobody will read it again, or
        reads what that one sent; and the value that is not needed any more: the former one, or
        this one.
        """
        counts = self._counts.setdefault(at, {})
        serial = counts.get(stream, 0)
        counts[stream] = serial + 1
        key = Key(stream.tag, Name(stream.era, stream.sender, serial))
        is_over = key not in self._letters and serial < self._totals.get(stream, 0)
        if is_over or key in self._fixed:
            return None, value
        self._totals[stream] = max(serial + 1, self._totals.get(stream, 0))
        if self._learning is not None:
            self._learning.sent[key] = None
        return key, self.put(key, value, size)

    def end_attempt(self, at: Attempt) -> dict[Stream, int]:
        """How many letters it has sent."""
        return self._counts.pop(at, {})

    def fix(self, key: Key) -> None:
        """The attempt that sent it has ended: no other gives it another value."""
        if key in self._letters:
            self._fixed.add(key)

    def put(self, key: Key, value: Value, size: int) -> Value | None:
        """Keeps a letter of an attempt that has ended, and returns the value whose place it
        takes."""
        former = self._letters.get(key)
        if former is not None:
            self._kept.add(former.size, -1)
        self._letters[key] = Sent(value, size)
        self._kept.add(size)
        return None if former is None else former.value

    def learn(self, stream: Stream, count: int, kept: Iterable[int]) -> None:
        """The receiver knows so many letters of the stream, and keeps those with these serials, and
        maybe more of which it is yet to say so. What is not kept here takes no memory."""
        known = self._learn().known
        if stream in known:
            names = (Name(stream.era, stream.sender, serial) for serial in kept)
            mine = (name.serial for name in names if Key(stream.tag, name) in self._letters)
            known[stream][1].update(mine)
            known[stream] = count, known[stream][1]

    def unlearn(self) -> None:
        """It begins to say what it knows anew."""
        self._learning = None

    def compare(self) -> tuple[list[Key], list[Key]]:
        """The receiver has said all that it knows: what it lacks, in order, and what it has
        consumed."""
        learnt, lacking, consumed = self._learn(), list[Key](), list[Key]()
        for key in self._letters:
            stream = Stream(key.tag, key.name.era, key.name.sender)
            count, kept = learnt.known.get(stream, (0, ()))
            if key.name.serial >= count or key in learnt.sent:
                lacking.append(key)
            elif key.name.serial not in kept:
                consumed.append(key)
        self._learning = None
        return lacking, consumed

    def _learn(self) -> _Learning:
        if self._learning is None:
            streams = {Stream(key.tag, key.name.era, key.name.sender) for key in self._letters}
            self._learning = _Learning({stream: (0, set()) for stream in streams})
        return self._learning

    def consumed(self, keys: Collection[Key]) -> list[Value]:
        """Forgets letters, and returns their values."""
        found = [self._letters.pop(key) for key in keys if key in self._letters]
        self._fixed.difference_update(keys)
        for sent in found:
            self._kept.add(sent.size, -1)
        return [sent.value for sent in found]

    def end_era(self, era: int) -> None:
        """No attempt of that era, or of one before it, sends any more."""
        self._counts.clear()
        for stream in [stream for stream in self._totals if stream.era <= era]:
            del self._totals[stream]

    def forget(self, era: int) -> list[Value]:
        """Forgets the letters of that era and of those before it, and returns their values."""
        return self.consumed([key for key in self._letters if key.name.era <= era])

    def clear(self) -> list[Value]:
        self._counts.clear()
        self._totals.clear()
        return self.consumed(list(self._letters))
