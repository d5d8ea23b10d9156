"""In which order peers are probed: each once in a round, at random (SWIM's round-robin probing).

So the time until a given peer finds that another is dead has a bound, and nobody finds it out
together with all others.
"""

from __future__ import annotations

from random import Random


class ProbeOrder:
    """`random` is the owner's."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._keys: list[str] = []
        self._at = 0

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, key: str) -> None:
        """At a random place: maybe in the next round only."""
        at = self._random.randrange(len(self._keys) + 1)
        self._keys.insert(at, key)
        if at < self._at:
            self._at += 1

    def remove(self, key: str) -> None:
        at = self._keys.index(key)
        del self._keys[at]
        if at < self._at:
            self._at -= 1

    def next(self) -> str | None:
        if not self._keys:
            return None
        if self._at >= len(self._keys):
            self._random.shuffle(self._keys)
            self._at = 0
        key = self._keys[self._at]
        self._at += 1
        return key

    def some(self, count: int, but: str = "") -> list[str]:
        """So many of them at random, or all, without that one."""
        keys, chance = self._keys, self._random.random
        if len(keys) <= count + 1:
            found = [key for key in keys if key != but]
            return found if len(found) <= count else self._random.sample(found, count)
        chosen: list[str] = []
        while len(chosen) < count:
            key = keys[int(chance() * len(keys))]
            if key != but and key not in chosen:
                chosen.append(key)
        return chosen
