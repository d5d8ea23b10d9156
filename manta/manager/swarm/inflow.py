"""What nodes tell of a swarm and its actor has not handled yet.

A swarm's actor handles what users ask before it goes on with what nodes tell, a piece at a time,
however much that is. Batches of a node stay in order, small ones are joined, and nodes take turns.
That a node was lost waits behind what it said while it was there.

What tasks only report comes at its `Pace`, whoever told it.

A node sends no more than its window before it is acknowledged. What is beyond that, or beyond what
may wait in the whole process, is left out: it is not acknowledged, so the node sends it again. A
batch is always taken if nothing of the swarm waits.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

from manta.manager.quotas.coming import Coming
from manta.manager.quotas.pace import Pace, cost
from manta.manager.swarm.events import NodeLost
from manta.protocol.node import JournalBatch, LogBatch, LogLine, MetricsLogged, Progressed
from manta.protocol.pages import encoded

PIECE, PIECE_BYTES = 256, 1 << 20
"""Entries or lines that are handled at once, and about how large they are at most."""
BOUND, BYTES = 20_000, 32 << 20
"""Entries and lines of one node that wait, and about how large they are: more than twice what its
windows take."""
ITEM = 500
"""Bytes that an entry or a line takes in memory beside what it says."""

_REPORTS = (LogLine, MetricsLogged, Progressed)

Piece = JournalBatch | LogBatch | NodeLost


class _Item(NamedTuple):
    what: Any
    size: int
    cost: float
    """As of `pace`: of all but reports it is nothing."""


@dataclass
class _Run:
    """Items `first`, `first` + 1, ... of a journal, or of the log lines beside it."""

    kind: type[JournalBatch | LogBatch]
    first: int
    items: deque[_Item]

    @property
    def end(self) -> int:
        return self.first + len(self.items)


def _item(told: Any) -> _Item:
    said = encoded(told)
    return _Item(told, ITEM + said, cost(said) if isinstance(told, _REPORTS) else 0.0)


def _length(run: _Run) -> int:
    """How many of its items are the next piece."""
    count = size = 0
    for item in islice(run.items, PIECE):
        if size >= PIECE_BYTES:
            break
        count, size = count + 1, size + item.size
    return count


@dataclass
class _Line:
    """What waits of a node, in order."""

    runs: deque[_Run | NodeLost] = field(default_factory=deque)
    count: int = 0
    size: int = 0


class Inflow:
    def __init__(self, swarm_id: str, coming: Coming, pace: Pace, owner: str) -> None:
        """`owner`: of the cluster, in whose share of what may wait this counts."""
        self._swarm_id = swarm_id
        self._coming = coming
        self._pace = pace
        self._owner = owner
        self._lines: dict[str, _Line] = {}
        self._turns: deque[str] = deque()
        """Nodes of which something waits."""

    def __bool__(self) -> bool:
        return bool(self._turns)

    def add(self, node_id: str, batch: JournalBatch | LogBatch) -> bool:
        """False if there is no room for the batch, which the node has to send again."""
        told = batch.entries if isinstance(batch, JournalBatch) else batch.lines
        items = [_item(one) for one in told]
        more = sum(item.size for item in items)
        line = self._lines.get(node_id) or _Line()
        count, size = line.count + len(items), line.size + more
        if line.runs and (count > BOUND or size > BYTES):
            return False
        if not self._coming.take(self._owner, more, even_if_full=not self):
            return False
        if node_id not in self._lines:
            self._lines[node_id] = line
            self._turns.append(node_id)
        line.count, line.size = count, size
        last = line.runs[-1] if line.runs else None
        if isinstance(last, _Run) and last.kind is type(batch) and last.end == batch.first:
            last.items.extend(items)
        else:  # also an empty one, which is acknowledged
            line.runs.append(_Run(type(batch), batch.first, deque(items)))
        return True

    def lose(self, lost: NodeLost) -> bool:
        """Puts the loss of the node behind what it has told. False if nothing of it waits."""
        line = self._lines.get(lost.node_id)
        if line is None:
            return False
        if not isinstance(line.runs[-1], NodeLost):
            line.runs.append(lost)
        return True

    def book(self, now: float) -> float:
        """After how many seconds the next piece may be taken, which is booked."""
        run = self._lines[self._turns[0]].runs[0]
        if isinstance(run, NodeLost):
            return 0.0
        reports = sum(item.cost for item in islice(run.items, _length(run)))
        return self._pace.book(self._owner, reports, now)

    def take(self) -> tuple[str, Piece]:
        """The next piece, of the node whose turn it is."""
        node_id = self._turns.popleft()
        line = self._lines[node_id]
        piece = self._first_of(line)
        if line.runs:
            self._turns.append(node_id)
        else:
            del self._lines[node_id]
        return node_id, piece

    def _first_of(self, line: _Line) -> Piece:
        run = line.runs[0]
        if isinstance(run, NodeLost):
            line.runs.popleft()
            return run
        first, items = run.first, [run.items.popleft() for _ in range(_length(run))]
        size = sum(item.size for item in items)
        run.first += len(items)
        line.count -= len(items)
        line.size -= size
        self._coming.give_back(self._owner, size)
        if not run.items:
            line.runs.popleft()
        return run.kind(self._swarm_id, first, tuple(item.what for item in items))

    def clear(self) -> None:
        """The swarm's actor ends: nodes send again what was not acknowledged."""
        self._coming.give_back(self._owner, sum(line.size for line in self._lines.values()))
        self._lines.clear()
        self._turns.clear()
