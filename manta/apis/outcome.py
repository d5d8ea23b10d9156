"""What came of a swarm that ran."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from manta.apis.metrics import Metrics
    from manta.apis.overviews import ErrorOverview, TaskOverview
    from manta.apis.results import Results


@dataclass(frozen=True)
class Outcome:
    """What came of `swarm.run()`: all that the swarm had, read before its cluster was removed.

    `iterations`: how many were begun. `globals`: the last values, by tag. `tasks`: each attempt,
    with what it returned. `errors`: why attempts failed.
    """

    name: str
    status: str
    reason: str
    iterations: int
    results: Results = field(repr=False)
    globals: dict[str, Any] = field(repr=False)
    metrics: Metrics = field(repr=False)
    tasks: list[TaskOverview] = field(repr=False)
    errors: list[ErrorOverview] = field(repr=False)

    def _repr_html_(self) -> str:
        """Shows in notebooks what became of it, with the last metrics of each node."""
        from manta.apis import drawing

        of_last = [one for one in self.metrics if one.iteration == self.iterations - 1]
        of_last.sort(key=lambda one: (one.node_alias, one.alias, one.index))
        last = [one.row() for one in of_last]
        title = f"{self.name}: {self.status}, {self.reason}"
        return drawing.table(title, last[:MOST_ROWS], max(0, len(last) - MOST_ROWS))


MOST_ROWS = 20
"""Rows that a notebook shows at most."""
