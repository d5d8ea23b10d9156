"""What the members on a peer have sent to one other, kept until nobody can ask for it again.

This is sender-based message logging (Johnson and Zwaenepoel 1987): the receiver keeps nothing that
its sender could not send again. The k-th letter of a member under a tag is one letter, whichever
of its attempts sends it.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping
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

    def __len__(self) -> int:
        return len(self._letters)

    def __getitem__(self, key: Key) -> Sent[Value]:
        return self._letters[key]

    def __contains__(self, key: Key) -> bool:
        return key in self._letters

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

    def compare(
        self, known: Mapping[Stream, tuple[int, Collection[int]]]
    ) -> tuple[list[Key], list[Key]]:
        """What the receiver lacks, in order, and what it has consumed: of each stream it knows so
        many letters, and keeps those with these serials."""
        lacking, consumed = [], []
        for key in self._letters:
            stream = Stream(key.tag, key.name.era, key.name.sender)
            count, kept = known.get(stream, (0, ()))
            if key.name.serial >= count:
                lacking.append(key)
            elif key.name.serial not in kept:
                consumed.append(key)
        return lacking, consumed

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

    def clear(self) -> list[Value]:
        self._counts.clear()
        self._totals.clear()
        return self.consumed(list(self._letters))
