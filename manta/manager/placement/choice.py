"""Which of the eligible nodes a task takes, and in which order.

The order depends on nothing but the arguments: `random` ranks nodes by a hash of the
swarm's seed, the iteration and their ids, so all random tasks of one iteration see one
permutation, of which each takes the part that follows those of the tasks before it.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache
from hashlib import blake2b

from manta.manager.placement.demand import Demand
from manta.manager.placement.nodes import NodeView
from manta.protocol.spec import TaskSpec


def choose(demand: Demand, eligible: list[NodeView]) -> tuple[list[NodeView], str]:
    """The nodes that run it, in the order in which instances are dealt to them, and why."""
    task = demand.task
    wanted = limit(task, len(eligible))
    if demand.kept and not demand.replace:
        place_of = {id_: place for place, id_ in enumerate(demand.kept)}
        return sorted(eligible, key=lambda node: place_of[node.id]), "fixed since iteration 0"
    if task.method == "random":
        order = sorted(eligible, key=lambda node: _by_chance(demand, node))
        start, wanted = _random_part(demand, len(eligible))
        order = order[start:] + order[:start]
        why = f"drawn by seed {demand.seed}"
    elif task.method == "best_resources":
        order = sorted(eligible, key=lambda node: _by_resources(demand, node))
        why = "most resources"
    else:
        order = sorted(eligible, key=lambda node: _by_load(demand, node))
        why = "least loaded"
    if demand.replace:
        order.sort(key=lambda node: node.id in demand.avoid)  # stable: the order holds otherwise
        return order[: len(demand.replace)], why
    chosen = order[:wanted]
    if len(chosen) == len(eligible) and task.method not in ("random", "best_resources"):
        why = "eligible"
    else:
        why = f"{task.method} takes {len(chosen)} of {len(eligible)} eligible nodes, {why}"
    if task.replicas is None:
        chosen.sort(key=_by_name)  # instance k stays where a person looks for it
    return chosen, why


def limit(task: TaskSpec, eligible: int) -> int:
    """How many of the eligible nodes the task takes at most."""
    if isinstance(task.maximum, float):
        return max(1, _floor(task.maximum * eligible))
    if task.maximum != -1:
        return task.maximum
    return 1 if task.method == "any" and task.replicas is None else eligible


def _random_part(demand: Demand, eligible: int) -> tuple[int, int]:
    """Start and length of a random task's part of the permutation; none is empty."""
    start = end = 0
    exact = 0.0
    for maximum in (*demand.before, demand.task.maximum):
        if isinstance(maximum, float):
            exact += maximum * eligible
        else:
            exact += eligible if maximum == -1 else maximum
        start, end = end, max(end + 1, _floor(exact))
    return start % eligible, min(end - start, eligible)


def _floor(number: float) -> int:
    """Overlooks the rounding errors that sums of fractions leave."""
    return math.floor(number + 1e-9)


def _by_chance(demand: Demand, node: NodeView) -> tuple[bytes, str]:
    text = f"{demand.seed}/{demand.iteration}/{node.id}"
    return blake2b(text.encode(), digest_size=16).digest(), node.id


def _by_load(demand: Demand, node: NodeView) -> tuple[float, bool, object]:
    held = node.assigned + demand.holding.get(node.id, 0)
    load = held / max(1, node.capabilities.max_concurrent_tasks)
    return load, node.id not in demand.previous, _by_name(node)


def _by_resources(demand: Demand, node: NodeView) -> tuple[float, float, float, object]:
    has = node.capabilities
    gpu = sum(gpu.memory for gpu in has.gpus) if demand.task.gpu else 0
    cores = has.cores * (1 - node.load.cpu_usage) - node.assigned - demand.holding.get(node.id, 0)
    return -gpu, -cores, -(node.load.memory_available or has.memory), _by_name(node)


def _by_name(node: NodeView) -> tuple[tuple[tuple[int, str], ...], str]:
    return _split(node.alias), node.id


@lru_cache(maxsize=10_000)
def _split(alias: str) -> tuple[tuple[int, str], ...]:
    """node-2 before node-10."""
    parts = re.findall(r"[0-9]+|[^0-9]+", alias)
    return tuple((int(part), "") if part.isdecimal() else (-1, part) for part in parts)
