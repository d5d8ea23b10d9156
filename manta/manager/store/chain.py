"""The checksums that chain a swarm's events.

Each event is stored with a checksum of it and of the one before it, and the last one's is stored
apart as the log's end: a flipped bit breaks the chain, and a log that was set back does not reach
its end. Events that a version without checksums wrote come first and have none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import NamedTuple

from manta.manager.errors import DamagedLog
from manta.manager.store.interface import StoredEvent

SIZE = 8  # bytes


def chained(before: bytes | None, body: bytes) -> bytes:
    """The checksum of what follows the one with the checksum `before`."""
    return blake2b(body, digest_size=SIZE, key=before or b"").digest()


class End(NamedTuple):
    """The number and the checksum of a log's last event."""

    number: int
    checksum: bytes


def end_of(number: object, checksum: object) -> End:
    """Raises DamagedLog if these, as they are stored, cannot be a log's end."""
    if isinstance(number, int) and isinstance(checksum, bytes):
        return End(number, checksum)
    raise DamagedLog("what is stored of its end is damaged")


def checked(
    rows: Iterable[tuple[int, bytes, bytes | None]],
    end: End | None,
    before: bytes | None = None,
    after: int = 0,
) -> Iterator[StoredEvent]:
    """The events of these rows (number, body, checksum), which follow the one with the number
    `after` and the checksum `before`. Raises DamagedLog at the first that is not what was stored.

    `end` was read before the rows: the log may have grown since.
    """
    last = after
    whole = end is not None and end == (after, before)
    for number, body, checksum in rows:
        if number != last + 1:
            raise DamagedLog(f"event {last + 1} is missing")
        if checksum is None and before is None:
            pass  # of a version without checksums
        elif checksum != chained(before, body):
            raise DamagedLog(f"event {number} is not what was stored: its checksum is another")
        last, before = number, checksum
        if end is not None and number == end.number:
            if checksum != end.checksum:
                raise DamagedLog(f"event {number} is not the one that was stored last")
            whole = True
        yield StoredEvent(number, body)
    if end is None and before is not None:
        raise DamagedLog("what is stored of its end is gone")
    if end is not None and not whole:
        raise DamagedLog(
            f"it was set back: it ends with event {last}, and {end.number} were stored"
        )
