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
