"""The interface of the store.

Writes are values, and `commit` carries out many of them as one: either all of them are
durable when it returns, or it raises and none is there. Every write can be repeated, so
that a writer that got no answer can send it again.

Reads may be made from any thread, also during a commit; they see the last finished commit.
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
    """Appends events number first, first + 1, ... to a swarm's log, which starts at 1.

    Those that the log holds already are skipped. Raises StoreConflict if they leave a gap or
    differ from what the log holds.
    """

    swarm_id: str
    first: int
    bodies: tuple[bytes, ...]


class PutSnapshot(msgspec.Struct, frozen=True):
    """Keeps a swarm's state as of the event `number`, instead of an earlier one.

    `body` is the state without `pages`, which are its parts that seldom change: those given
    here replace the ones of their names, others stay. Unless that event is the last one, only the
    pages are kept, as by PutPages.
    """

    swarm_id: str
    number: int
    body: bytes
    pages: dict[str, bytes] = {}


class PutPages(msgspec.Struct, frozen=True):
    """Keeps pages of the snapshot that is put next. The one that there is does not fit them any
    more: it is dropped."""

    swarm_id: str
    pages: dict[str, bytes]


class AppendLogs(msgspec.Struct, frozen=True):
    """Appends lines number first, first + 1, ... of one node; those that are there are skipped."""

    swarm_id: str
    node_id: str
    first: int
    bodies: tuple[bytes, ...]


class SkipLogs(msgspec.Struct, frozen=True):
    """The lines of one node up to the number `upto` count as appended, and are not kept."""

    swarm_id: str
    node_id: str
    upto: int


class Reference(msgspec.Struct, frozen=True):
    """The holder, the id of a swarm or module, needs these blobs. `scope` is the swarm's cluster,
    where `named` finds it."""

    holder: str
    digests: tuple[str, ...]
    scope: str = ""


class Release(msgspec.Struct, frozen=True):
    """The holder no longer needs these blobs."""

    holder: str
    digests: tuple[str, ...]


class RemoveSwarm(msgspec.Struct, frozen=True):
    """Deletes a swarm's record, events, snapshot, log lines and references."""

    swarm_id: str


Write = (
    Put
    | Delete
    | AppendEvents
    | PutSnapshot
    | PutPages
    | AppendLogs
    | SkipLogs
    | Reference
    | Release
    | RemoveSwarm
)


# Reads.


class StoredEvent(NamedTuple):
    number: int
    body: bytes


class StoredSnapshot(NamedTuple):
    """As it was put; `pages` names its pages, all of which are whole."""

    number: int
    body: bytes
    pages: frozenset[str]


class StoredLine(NamedTuple):
    """`position` grows with each line of any node that is stored, so it can be a cursor."""

    position: int
    node_id: str
    body: bytes


class Extent(NamedTuple):
    """What a swarm takes in the store; sizes in bytes."""

    event_bytes: int = 0
    lines: int = 0
    line_bytes: int = 0


class Store(Protocol):
    def commit(self, writes: Sequence[Write]) -> None:
        """Raises StorageUnavailable, StoreConflict."""

    def purge(self, limit: int = 1000) -> bool:
        """Deletes up to `limit` rows of removed swarms; False when there are none left.

        RemoveSwarm itself is quick, however long the swarm's log is; this does the rest in
        steps so short that no commit has to wait for long.
        """

    def tidy(self) -> None:
        """Does housekeeping that takes long. May run on another thread, during commits."""

    def probe(self) -> None:
        """Writes something that nobody reads. Raises StorageUnavailable."""

    # A record that is damaged is logged, with what is lost and what to do, and is as good as gone.

    def get(self, kind: type[R], key: str) -> R | None: ...

    def all(self, kind: type[R]) -> list[R]:
        """Ordered by key."""

    def count(self, kind: type[Record]) -> int:
        """How many there are, including those that are damaged."""

    def events(self, swarm_id: str, after: int = 0) -> Iterator[StoredEvent]:
        """Raises DamagedLog, perhaps not before the last, if they are not what was appended."""

    def snapshot(self, swarm_id: str) -> StoredSnapshot | None:
        """None if there is none that is whole: then all events have to be replayed."""

    def snapshot_size(self, swarm_id: str) -> int:
        """Its bytes without its pages; 0 if there is none."""

    def page(self, swarm_id: str, name: str) -> bytes:
        """A page of the snapshot, as it was put last. Raises Damaged if it is not whole."""

    def logs(self, swarm_id: str, after: int = 0, limit: int = 1000) -> list[StoredLine]: ...

    def log_ends(self, swarm_id: str) -> dict[str, int]:
        """The number of each node's last line that is stored or was skipped."""

    def extents(self) -> dict[str, Extent]:
        """Of every swarm that has any."""

    def extent(self, swarm_id: str) -> Extent: ...

    def references(self) -> Iterator[tuple[str, str]]:
        """Holder and digest of each blob that is needed."""

    def unreferenced(self, digests: Iterable[str]) -> set[str]:
        """Returns those of them that nobody needs."""

    def named(
        self, digests: Iterable[str], *, holders: Iterable[str] = (), scopes: Iterable[str] = ()
    ) -> set[str]:
        """Returns those of them that one of these holders needs, or anybody of these scopes. Takes
        no longer where more need a blob."""

    def close(self) -> None: ...
