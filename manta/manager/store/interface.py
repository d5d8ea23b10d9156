"""Where the manager keeps what must outlive it: one interface, many forms.

Writes are values, and `commit` takes many of them as one: all of them are durable when it
returns, none of them is there when it raises. So the Store actor makes one commit of
whatever has gathered in its mailbox. Every write can be repeated: whoever got no answer
sends it again.

Reads may be made at any time from any thread, beside a commit, and see the last
commit that had ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol, TypeVar

import msgspec

from manta.manager.store.records import Record

R = TypeVar("R", bound=Record)

# Writes.


class Put(msgspec.Struct, frozen=True):
    record: Record


class Delete(msgspec.Struct, frozen=True):
    kind: type[Record]
    key: str


class AppendEvents(msgspec.Struct, frozen=True):
    """Events first, first + 1, ... of a swarm's log, which starts at 1.

    Those that the log holds already are skipped. Raises StoreConflict when they leave
    a gap, or differ from what the log holds.
    """

    swarm_id: str
    first: int
    bodies: tuple[bytes, ...]


class AppendLogs(msgspec.Struct, frozen=True):
    """Lines first, first + 1, ... of a node's log of a swarm; those that are there are skipped."""

    swarm_id: str
    node_id: str
    first: int
    bodies: tuple[bytes, ...]


class Reference(msgspec.Struct, frozen=True):
    """The holder, a swarm or a registered module by its id, needs these blobs."""

    holder: str
    digests: tuple[str, ...]


class Release(msgspec.Struct, frozen=True):
    """The holder needs these blobs no more."""

    holder: str
    digests: tuple[str, ...]


class RemoveSwarm(msgspec.Struct, frozen=True):
    """Its record, events, log lines and references."""

    swarm_id: str


Write = Put | Delete | AppendEvents | AppendLogs | Reference | Release | RemoveSwarm


# Reads.


class StoredEvent(NamedTuple):
    number: int
    body: bytes


class StoredLine(NamedTuple):
    """`position` grows with each line that is stored, whatever its node: a cursor."""

    position: int
    node_id: str
    body: bytes


class Store(Protocol):
    def commit(self, writes: Sequence[Write]) -> None:
        """Raises StorageUnavailable, StoreConflict."""

    def purge(self, limit: int = 1000) -> bool:
        """Delete up to `limit` rows that removed swarms left; False when there are none.

        RemoveSwarm itself is quick however long the swarm's log is: the rest is done
        here, in steps that no commit has to wait for.
        """

    def tidy(self) -> None:
        """Housekeeping that takes long; from another thread, beside commits."""

    def get(self, kind: type[R], key: str) -> R | None: ...

    def all(self, kind: type[R]) -> list[R]:
        """By key."""

    def events(self, swarm_id: str, after: int = 0) -> Iterator[StoredEvent]: ...

    def logs(self, swarm_id: str, after: int = 0, limit: int = 1000) -> list[StoredLine]: ...

    def log_ends(self, swarm_id: str) -> dict[str, int]:
        """By node: the number of its last stored line."""

    def unreferenced(self, digests: Iterable[str]) -> set[str]:
        """Those of them that nobody needs."""

    def close(self) -> None: ...
