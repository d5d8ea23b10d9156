"""What nodes tell of a swarm and its actor has not handled yet.

A swarm's actor handles what users ask before it goes on with what nodes tell, a piece at a time,
however much that is. Batches of a node stay in order, small ones are joined, and nodes take turns.
A node sends no more than its window before it is acknowledged. What is beyond that is left out: it
is not acknowledged, so the node sends it again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from manta.protocol.node import JournalBatch, LogBatch, LogLine
from manta.protocol.values import Inline

PIECE = 256
"""Entries or lines that are handled at once."""
BOUND, BYTES = 20_000, 32 << 20
"""Entries and lines of one node that wait, and about how large they are: more than twice what its
windows take."""


@dataclass
class _Run:
    """Items `first`, `first` + 1, ... of a journal, or of the log lines beside it."""

    kind: type[JournalBatch | LogBatch]
    first: int
    items: deque[Any]

    @property
    def end(self) -> int:
        return self.first + len(self.items)


@dataclass
class _Line:
    """What waits of a node, in order."""

    runs: deque[_Run] = field(default_factory=deque)
    count: int = 0
    size: int = 0


def _size(items: Iterable[Any]) -> int:
    size = 0
    for item in items:
        if isinstance(item, LogLine):
            size += len(item.text)
        elif isinstance(value := getattr(item, "value", None), Inline):
            size += len(value.data)
    return size


class Inflow:
    def __init__(self, swarm_id: str) -> None:
        self._swarm_id = swarm_id
        self._lines: dict[str, _Line] = {}
        self._turns: deque[str] = deque()
        """Nodes of which something waits."""

    def __bool__(self) -> bool:
        return bool(self._turns)

    def add(self, node_id: str, batch: JournalBatch | LogBatch) -> bool:
        """False if there is no room for the batch, which the node has to send again."""
        items = batch.entries if isinstance(batch, JournalBatch) else batch.lines
        line = self._lines.get(node_id)
        if line is None:
            line = self._lines[node_id] = _Line()
            self._turns.append(node_id)
        count, size = line.count + len(items), line.size + _size(items)
        if line.runs and (count > BOUND or size > BYTES):
            return False
        line.count, line.size = count, size
        last = line.runs[-1] if line.runs else None
        if last is not None and last.kind is type(batch) and last.end == batch.first:
            last.items.extend(items)
        else:  # also an empty one, which is acknowledged
            line.runs.append(_Run(type(batch), batch.first, deque(items)))
        return True

    def take_all_of(self, node_id: str) -> Iterator[JournalBatch | LogBatch]:
        """Everything of one node, out of turn."""
        while node_id in self._lines:
            self._turns.remove(node_id)
            self._turns.appendleft(node_id)
            yield self.take()[1]

    def take(self) -> tuple[str, JournalBatch | LogBatch]:
        """The next piece, of the node whose turn it is."""
        node_id = self._turns.popleft()
        line = self._lines[node_id]
        run = line.runs[0]
        first, count = run.first, min(PIECE, len(run.items))
        items = tuple(run.items.popleft() for _ in range(count))
        run.first += count
        line.count -= count
        line.size -= _size(items)
        if not run.items:
            line.runs.popleft()
        if line.runs:
            self._turns.append(node_id)
        else:
            del self._lines[node_id]
        return node_id, run.kind(self._swarm_id, first, items)
