"""Remembers when each item of a list last changed, so that a reader is told only what is new."""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b

from manta.manager.ids import new_id

_BYTES = 8
_HIDDEN = re.compile(f"[0-9a-f]{{{4 * _BYTES}}}")


class Revisions:
    """The changes of one list. May be used from any thread.

    A revision is text: the id of this count, and a number that grows with each change, hidden so
    that who sees part of the list does not learn how often the rest of it changes. After a restart
    the count has another id, and everything is new.
    """

    def __init__(self) -> None:
        self._epoch, self._secret = new_id(), secrets.token_bytes(32)
        self._lock = threading.Lock()
        self._number = 0
        self._changes: dict[str, int] = {}
        """The last change of each key, oldest first."""
        self._on_change: Callable[[], object] | None = None

    def changed(self, *keys: str) -> None:
        """Call it once readers of the list see the change; without keys, it only makes those
        who wait look again."""
        with self._lock:
            for key in keys:
                self._number += 1
                self._changes.pop(key, None)
                self._changes[key] = self._number
            on_change, self._on_change = self._on_change, None
        if on_change is not None:
            on_change()

    def forget(self, *keys: str) -> None:
        """These are no longer in the list."""
        with self._lock:
            for key in keys:
                self._changes.pop(key, None)
        self.changed()

    def revision(self, number: int) -> str:
        """What a reader is given who has seen the change of this number."""
        nonce = secrets.token_bytes(_BYTES)
        hidden = self._mask(nonce) ^ number
        return f"{self._epoch}.{nonce.hex()}{hidden.to_bytes(_BYTES, 'big').hex()}"

    def _read(self, revision: str) -> int:
        """0 if it is none of this count."""
        epoch, _, rest = revision.partition(".")
        if epoch != self._epoch or not _HIDDEN.fullmatch(rest):
            return 0
        nonce, hidden = divmod(int(rest, 16), 1 << 8 * _BYTES)
        return self._mask(nonce.to_bytes(_BYTES, "big")) ^ hidden

    def _mask(self, nonce: bytes) -> int:
        return int.from_bytes(blake2b(nonce, key=self._secret, digest_size=_BYTES).digest(), "big")

    def since(self, revision: str) -> list[tuple[str, int]]:
        """The keys that changed since, each with the number of its last change, oldest first."""
        seen = self._read(revision)
        found = []
        with self._lock:
            for key, at in reversed(self._changes.items()):
                if at <= seen:
                    break
                found.append((key, at))
        return found[::-1]

    def tell_next(self, on_change: Callable[[], object]) -> None:
        """Calls `on_change` once, at the next change, on the thread that makes it. Replaces the
        one before."""
        with self._lock:
            self._on_change = on_change


@dataclass(frozen=True)
class AllRevisions:
    """The lists that users watch."""

    clusters: Revisions = field(default_factory=Revisions)
    nodes: Revisions = field(default_factory=Revisions)
    swarms: Revisions = field(default_factory=Revisions)
    modules: Revisions = field(default_factory=Revisions)
