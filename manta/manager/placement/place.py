"""Which nodes run a task: one function for deploying, checking and explaining.

Every node is judged by the `rules`. Those that no rule refuses are *eligible*. The task's
method puts them in an order and its maximum says how many are taken (`choice`); its replicas
say how many instances are spread over those. So each node has exactly one verdict for each
task, and a task that cannot be placed has a problem that names it, the reason and the remedy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from manta.manager.placement.choice import choose
from manta.manager.placement.demand import Demand, by_id
from manta.manager.placement.nodes import NodeView
from manta.manager.placement.problems import cannot_be_placed, waits
from manta.manager.placement.rules import RULES, Refusal, refusal_of, runs_plain_processes
from manta.protocol.user import Verdict

WINDOW = 256
"""Instances of a task that a node is given beforehand: what messages and nodes hold of many
replicas. As they end, the next are handed out."""


class Placement(msgspec.Struct, frozen=True, array_like=True):
    index: int
    node_id: str
    node_alias: str


@dataclass(frozen=True)
class Outcome:
    """Either placements, or problems: sentences that name the task and the remedy."""

    placements: tuple[Placement, ...]
    verdicts: tuple[Verdict, ...]
    problems: tuple[str, ...]
    waiting: int = 0
    """Instances beyond the window: where they run shows when places come free."""


def place(demand: Demand, nodes: Sequence[NodeView], window: int = WINDOW) -> Outcome:
    """`window`: of many replicas, how many each node is given at first."""
    alias = demand.task.alias
    demand = by_id(demand, nodes)
    eligible: list[NodeView] = []
    refused: list[Refusal] = []
    for node in nodes:
        if refusal := refusal_of(demand, node):
            refused.append(refusal)
        else:
            eligible.append(node)
    verdicts = [
        Verdict(alias, node.id, node.alias, False, RULES[number].name, reason)
        for node, number, reason in refused
    ]
    problem = waits(demand, nodes, len(eligible)) or cannot_be_placed(demand, eligible, refused)
    if problem:
        return Outcome((), tuple(verdicts), (problem,))
    chosen, why = choose(demand, eligible)
    taken = {node.id for node in chosen}
    for node in eligible:
        rule, reason = ("method", why) if node.id in taken else ("maximum", f"not taken: {why}")
        if demand.module.image is not None and runs_plain_processes(node):
            reason += f"; the image {demand.module.image!r} is not used, it runs plain processes"
        verdicts.append(Verdict(alias, node.id, node.alias, node.id in taken, rule, reason))
    placements, waiting = _spread(demand, chosen, window)
    return Outcome(placements, tuple(verdicts), (), waiting)


def _spread(
    demand: Demand, chosen: list[NodeView], window: int
) -> tuple[tuple[Placement, ...], int]:
    """Where the first instances run, and how many more there are."""
    count = demand.task.replicas or len(chosen)
    indices = demand.replace or range(min(count, window * len(chosen)))
    placements = tuple(
        Placement(index, node.id, node.alias)
        for position, index in enumerate(indices)
        for node in (chosen[position % len(chosen)],)
    )
    return placements, 0 if demand.replace else count - len(placements)
