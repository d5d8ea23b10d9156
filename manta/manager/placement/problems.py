"""Why a task cannot be placed, or not yet: sentences that name it, the reason and the remedy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from manta.manager.placement.choice import limit
from manta.manager.placement.demand import Demand, datasets_of
from manta.manager.placement.names import listed
from manta.manager.placement.nodes import NodeView
from manta.manager.placement.rules import RULES, Refusal, quoted


def waits(demand: Demand, nodes: Sequence[NodeView], eligible: int) -> str:
    """Why the task waits, or nothing: a link that drops for a moment is no reason to run a whole
    iteration without its node."""
    task = demand.task
    away = [
        node
        for node in nodes
        if node.returning and not any(rule.refuses(demand, node) for rule in RULES[1:])
    ]
    more = eligible + len(away)
    if not away or demand.replace or (task.replicas is not None and eligible):
        return ""
    taken = min(eligible, limit(task, eligible)), min(more, limit(task, more))
    if task.method != "random" and eligible and taken[0] == taken[1]:
        return ""
    return (
        f"Task {task.alias!r} waits for {listed([node.alias for node in away])}, whose connection "
        "was lost a moment ago; it is placed without it if it is not back within seconds."
    )


def cannot_be_placed(
    demand: Demand, eligible: Sequence[NodeView], refused: Sequence[Refusal]
) -> str:
    """Why the task cannot be placed, or nothing."""
    head = f"Task {demand.task.alias!r} cannot be placed"
    if eligible:
        if demand.kept and not demand.replace:
            here = {node.id for node in eligible}
            aliases = {node.id: f"{node.alias} {reason}" for node, _, reason in refused}
            away = [aliases.get(id_, f"{id_} is gone") for id_ in demand.kept if id_ not in here]
            if away:
                return f"{head}: it is fixed, and {listed(away, '; ')}; {_remedy('fixed')}."
        return ""
    if all(RULES[number].name == "connected" for _, number, _ in refused):
        return f"{head}: no node is connected; {_remedy('connected')}."
    # A node that passed more rules says more about what is amiss.
    furthest = max(number for _, number, _ in refused)
    telling = [(node, reason) for node, number, reason in refused if number == furthest]
    name, _, remedy = RULES[furthest]
    if name == "datasets":
        sentence = _missing_datasets(demand, [node for node, _ in telling])
    else:
        sentence = "; ".join(f"{node.alias} {reason}" for node, reason in telling[:3])
        if len(telling) > 3:
            sentence += f"; likewise {len(telling) - 3} more"
    unknown = [
        name
        for name in (*(demand.task.specified_ids or ()), *demand.within)
        if not any(node.id == name for node, _, _ in refused)
    ]
    if unknown:
        sentence += f"; {quoted(unknown)} is no node of this cluster"
    return f"{head}: {sentence}; {remedy}."


def _missing_datasets(demand: Demand, nodes: list[NodeView]) -> str:
    held = Counter(name.name for node in nodes for name in node.capabilities.datasets)
    wanted = datasets_of(demand.task, demand.module)
    nowhere = [name for name in wanted if not held[name]]
    there = _some(sorted(held)) or "none"
    if nowhere:
        return f"no node that it may run on has the dataset {_some(nowhere)} (there are: {there})"
    return f"no node that it may run on has all of the datasets {_some(wanted)}"


def _remedy(rule: str) -> str:
    return next(one.remedy for one in RULES if one.name == rule)


def _some(names: Iterable[str]) -> str:
    return listed([*map(repr, names)])
