"""A store in memory, for tests."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast

from manta.manager.errors import StoreConflict
from manta.manager.store.interface import (
    AppendEvents,
    AppendLogs,
    Delete,
    Extent,
    Put,
    PutPages,
    PutSnapshot,
    R,
    Reference,
    Release,
    RemoveSwarm,
    SkipLogs,
    StoredEvent,
    StoredLine,
    StoredSnapshot,
    Write,
)
from manta.manager.store.records import Record, SwarmRecord, key_of
from manta.transports.codec.stored import Damaged, Thing


@dataclass
class _State:
    records: dict[type[Record], dict[str, Record]] = field(default_factory=dict)
    events: dict[str, list[bytes]] = field(default_factory=dict)
    lines: dict[str, dict[tuple[str, int], StoredLine]] = field(default_factory=dict)
    snapshots: dict[str, StoredSnapshot] = field(default_factory=dict)
    pages: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """Of snapshots, by swarm."""
    references: dict[str, dict[str, str]] = field(default_factory=dict)
    """By holder and digest: the scope."""
    skipped: dict[str, dict[str, int]] = field(default_factory=dict)
    """By swarm and node: the last line that was skipped."""
    position: int = 0

    def copy(self) -> _State:
        """Copies all containers; what they hold is immutable."""
        state = copy.copy(self)
        state.records = {kind: dict(table) for kind, table in self.records.items()}
        state.events = {swarm_id: list(log) for swarm_id, log in self.events.items()}
        state.snapshots, state.pages = dict(self.snapshots), dict(self.pages)
        state.lines = {swarm_id: dict(lines) for swarm_id, lines in self.lines.items()}
        state.skipped = {swarm_id: dict(nodes) for swarm_id, nodes in self.skipped.items()}
        state.references = {holder: dict(held) for holder, held in self.references.items()}
        return state


class MemoryStore:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._state = _State()

    def commit(self, writes: Sequence[Write]) -> None:
        with self._lock:
            state = self._state.copy()
            for write in writes:
                _apply(state, write)
            self._state = state

    def purge(self, limit: int = 1000) -> bool:
        return False  # RemoveSwarm leaves nothing

    def probe(self) -> None:
        pass

    def tidy(self) -> None:
        """Nothing to do."""

    # No commit changes a state in place, so readers need no lock.

    def get(self, kind: type[R], key: str) -> R | None:
        return cast("R | None", self._state.records.get(kind, {}).get(key))

    def all(self, kind: type[R]) -> list[R]:
        table = self._state.records.get(kind, {})
        return [cast("R", table[key]) for key in sorted(table)]

    def count(self, kind: type[Record]) -> int:
        return len(self._state.records.get(kind, {}))

    def events(self, swarm_id: str, after: int = 0) -> Iterator[StoredEvent]:
        log = self._state.events.get(swarm_id, [])
        for number, body in enumerate(log[after:], after + 1):
            yield StoredEvent(number, body)

    def snapshot(self, swarm_id: str) -> StoredSnapshot | None:
        return self._state.snapshots.get(swarm_id)

    def snapshot_size(self, swarm_id: str) -> int:
        found = self.snapshot(swarm_id)
        return len(found.body) if found else 0

    def page(self, swarm_id: str, name: str) -> bytes:
        try:
            return self._state.pages[swarm_id][name]
        except KeyError:
            thing = Thing(f"The snapshot of swarm {swarm_id}", "nothing is lost", "replay its log")
            raise Damaged(thing, f"its page {name} is missing or another") from None

    def logs(self, swarm_id: str, after: int = 0, limit: int = 1000) -> list[StoredLine]:
        lines = self._state.lines.get(swarm_id, {}).values()
        return [line for line in lines if line.position > after][:limit]

    def log_ends(self, swarm_id: str) -> dict[str, int]:
        ends = dict(self._state.skipped.get(swarm_id, {}))
        for node_id, number in self._state.lines.get(swarm_id, {}):
            ends[node_id] = max(number, ends.get(node_id, 0))
        return ends

    def extents(self) -> dict[str, Extent]:
        found = {swarm_id: self.extent(swarm_id) for swarm_id in self._state.events}
        return found | {swarm_id: self.extent(swarm_id) for swarm_id in self._state.lines}

    def extent(self, swarm_id: str) -> Extent:
        lines = self._state.lines.get(swarm_id, {}).values()
        events = self._state.events.get(swarm_id, ())
        line_bytes = sum(len(line.body) for line in lines)
        return Extent(sum(map(len, events)), len(lines), line_bytes)

    def references(self) -> Iterator[tuple[str, str]]:
        for holder, held in self._state.references.items():
            yield from ((holder, digest) for digest in sorted(held))

    def unreferenced(self, digests: Iterable[str]) -> set[str]:
        return set(digests).difference(*self._state.references.values())

    def named(
        self, digests: Iterable[str], *, holders: Iterable[str] = (), scopes: Iterable[str] = ()
    ) -> set[str]:
        by, within = set(holders), set(filter(None, scopes))
        held = self._state.references.items()
        return {
            digest
            for digest in digests
            if any(
                digest in names and (holder in by or names[digest] in within)
                for holder, names in held
            )
        }

    def close(self) -> None:
        """Nothing to do; it can still be read."""


def _apply(state: _State, write: Write) -> None:
    match write:
        case Put(record):
            state.records.setdefault(type(record), {})[key_of(record)] = record
        case Delete(kind, key):
            state.records.get(kind, {}).pop(key, None)
        case AppendEvents(swarm_id, first, bodies):
            log = state.events.setdefault(swarm_id, [])
            held = log[first - 1 : first - 1 + len(bodies)]
            if first > len(log) + 1 or tuple(held) != bodies[: len(held)]:
                raise StoreConflict(f"Event {first} of swarm {swarm_id} does not continue its log.")
            log.extend(bodies[len(held) :])
        case PutSnapshot(swarm_id, number, body, pages):
            _apply(state, PutPages(swarm_id, pages))
            if number == len(state.events.get(swarm_id, ())):
                names = frozenset(state.pages[swarm_id])
                state.snapshots[swarm_id] = StoredSnapshot(number, body, names)
        case PutPages(swarm_id, pages):
            state.snapshots.pop(swarm_id, None)
            state.pages[swarm_id] = {**state.pages.get(swarm_id, {}), **pages}
        case AppendLogs(swarm_id, node_id, first, bodies):
            lines = state.lines.setdefault(swarm_id, {})
            for number, body in enumerate(bodies, first):
                if (node_id, number) not in lines:
                    state.position += 1
                    lines[node_id, number] = StoredLine(state.position, node_id, body)
        case SkipLogs(swarm_id, node_id, upto):
            state.skipped.setdefault(swarm_id, {})[node_id] = upto
        case Reference(holder, digests, scope):
            needed = state.references.get(holder, {})
            state.references[holder] = {**dict.fromkeys(digests, scope), **needed}
        case Release(holder, digests):
            for digest in digests:
                state.references.get(holder, {}).pop(digest, None)
        case RemoveSwarm(swarm_id):
            state.records.get(SwarmRecord, {}).pop(swarm_id, None)
            state.skipped.pop(swarm_id, None)
            for table in (
                state.events,
                state.snapshots,
                state.pages,
                state.lines,
                state.references,
            ):
                table.pop(swarm_id, None)
