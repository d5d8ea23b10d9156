"""Which nodes run a task: one function for deploying, checking and explaining.

Every node is judged by the `rules`. Those that no rule refuses are *eligible*. The task's
method puts them in an order and its maximum says how many are taken; its replicas say how many
instances are spread over those. So each node has exactly one verdict for each task, and a task
that cannot be placed has a problem that names it, the reason and the remedy.

The order depends on nothing but the arguments: `random` ranks nodes by a hash of the
swarm's seed, the iteration and their ids, so all random tasks of one iteration see one
permutation, of which each takes the part that follows those of the tasks before it.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import blake2b
from itertools import cycle

import msgspec

from manta.manager.placement.demand import Demand, gpus_of
from manta.manager.placement.nodes import NodeView, has_gpus_now, ids_of, places
from manta.manager.placement.rules import (
    RULES,
    Refusal,
    judge,
    nearest_fix,
    quoted,
    runs_no_images,
)
from manta.protocol.names import listed, meant
from manta.protocol.spec import TaskSpec, datasets_of, resources_of
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
    demand = _by_id(demand, nodes)
    eligible, refused = judge(demand, nodes)
    verdicts = [
        Verdict(alias, node.id, node.alias, False, RULES[number].name, reason)
        for node, number, reason in refused
    ]
    problem = _waits(demand, nodes, len(eligible)) or _problem(demand, eligible, refused)
    if problem:
        return Outcome((), tuple(verdicts), (problem,))
    chosen, why = _choose(demand, eligible)
    if problem := _cannot_meet(demand, chosen):
        return Outcome((), tuple(verdicts), (problem,))
    taken = {node.id for node in chosen}
    for node in eligible:
        rule, reason = ("method", why) if node.id in taken else ("maximum", f"not taken: {why}")
        if demand.module.image is not None and runs_no_images(node):
            reason += f"; the image {demand.module.image!r} is not used, it has no container engine"
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
        for index, node in zip(indices, cycle(chosen), strict=False)
    )
    return placements, 0 if demand.replace else count - len(placements)


def _by_id(demand: Demand, nodes: Sequence[NodeView]) -> Demand:
    """The same demand, with ids wherever it names nodes."""
    task = demand.task
    only, but = task.specified_ids, task.excepted_ids
    if not (only or but or demand.within):
        return demand
    task = msgspec.structs.replace(
        task,
        specified_ids=None if only is None else ids_of(only, nodes),
        excepted_ids=None if but is None else ids_of(but, nodes),
    )
    return replace(demand, task=task, within=ids_of(demand.within, nodes))


# Why a task cannot be placed, or not yet: sentences that name it, the reason and the remedy.


def _waits(demand: Demand, nodes: Sequence[NodeView], eligible: int) -> str:
    """Why the task waits, or nothing: an iteration should not run without a node only because
    its link has just dropped."""
    task = demand.task
    away = [
        node
        for node in nodes
        if node.returning and not any(rule.refuses(demand, node) for rule in RULES[1:])
    ]
    more = eligible + len(away)
    if not away or demand.replace or (task.replicas is not None and eligible):
        return ""
    taken = min(eligible, _limit(task, eligible)), min(more, _limit(task, more))
    if task.method != "random" and eligible and taken[0] == taken[1]:
        return ""
    return (
        f"Task {task.alias!r} waits for {listed([node.alias for node in away])}, whose connection "
        "was lost a moment ago; it is placed without it if it is not back within seconds."
    )


def _problem(demand: Demand, eligible: Sequence[NodeView], refused: Sequence[Refusal]) -> str:
    """Why the task cannot be placed, or nothing."""
    head = f"Task {demand.task.alias!r} cannot be placed"
    if eligible:
        if not demand.kept or demand.replace:
            return ""
        here = {node.id for node in eligible}
        reasons = {node.id: f"{node.alias} {reason}" for node, _, reason in refused}
        away = [reasons.get(id_, f"{id_} is gone") for id_ in demand.kept if id_ not in here]
        remedy = next(rule.remedy for rule in RULES if rule.name == "fixed")
        return f"{head}: it is fixed, and {listed(away, '; ')}; {remedy}." if away else ""
    # A node that passed more rules says more about what is amiss.
    furthest = max((number for _, number, _ in refused), default=0)
    name, _, remedy = RULES[furthest]
    if name == "connected":
        return f"{head}: no node is connected; {remedy}."
    telling = [(node, reason) for node, number, reason in refused if number == furthest]
    hint = ""
    if name == "datasets":
        sentence, hint = _missing_datasets(demand, [node for node, _ in telling])
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
        are = "is not a node" if len(unknown) == 1 else "are not nodes"
        sentence += f"; {quoted(unknown)} {are} of this cluster"
    if not hint and (fix := nearest_fix(demand, (node for node, _ in telling))):
        hint = f" {fix}"
    return f"{head}: {sentence}; {remedy}.{hint}"


def _missing_datasets(demand: Demand, nodes: list[NodeView]) -> tuple[str, str]:
    """What is missing, and what was meant by it if there is something like it."""
    held = Counter(name.name for node in nodes for name in node.capabilities.datasets)
    wanted = datasets_of(demand.task, demand.module)
    nowhere = [name for name in wanted if not held[name]]
    if not nowhere:
        return f"no node that it may run on has all of the datasets {_some(wanted)}", ""
    there = _some(sorted(held)) or "none"
    hint = next(filter(None, (meant(name, held) for name in nowhere)), "")
    return f"no node that it may run on has the dataset {_some(nowhere)} (there are: {there})", hint


def _some(names: Iterable[str]) -> str:
    return listed([*map(repr, names)])


def _cannot_meet(demand: Demand, chosen: Sequence[NodeView]) -> str:
    """Why instances that wait for each other never all run: those that run keep the places."""
    task, wanted = demand.task, demand.task.replicas
    if not task.meets or wanted is None or demand.replace:
        return ""  # without replicas each node has one
    asked, count = resources_of(task, demand.module), len(chosen)
    # Instances are dealt in turn: this many fit before the next would have to wait on its node.
    gpus = gpus_of(task, demand.module)
    room = min(place + count * places(node, asked, gpus) for place, node in enumerate(chosen))
    if wanted <= room:
        return ""
    there = sum(places(node, asked, gpus) for node in chosen)
    return (
        f"Task {task.alias!r} cannot be placed: all its {wanted} instances wait for each other "
        f"({task.meets}), and of {wanted} on {listed([node.alias for node in chosen])} (places: "
        f"{there}) some would be queued behind those that wait for them; give it at most "
        f"{room} replicas, or nodes more places (max_concurrent_tasks)."
    )


# Which of the eligible nodes a task takes, and in which order.


def _choose(demand: Demand, eligible: list[NodeView]) -> tuple[list[NodeView], str]:
    """The nodes that run it, in the order in which instances are dealt to them, and why."""
    task = demand.task
    wanted = _limit(task, len(eligible))
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


def _limit(task: TaskSpec, eligible: int) -> int:
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


def _by_load(demand: Demand, node: NodeView) -> tuple[object, ...]:
    """Who need not wait for a GPU, or a place, goes before who must; then who has the image."""
    has, image = node.capabilities, demand.module.image
    held, room = _held(demand, node), max(1, has.max_concurrent_tasks)
    return (
        not has_gpus_now(node, gpus_of(demand.task, demand.module)),
        image is not None and (held >= room or not _has_image(node, image)),
        held / room,
        int(node.load.load_average / max(1, has.cores)),  # what others do on the machine
        node.id not in demand.previous,
        _by_name(node),
    )


def _has_image(node: NodeView, image: str) -> bool:
    last = image.rpartition("/")[2]
    whole = image if ":" in last or "@" in last else f"{image}:latest"
    return whole in node.capabilities.images


def _by_resources(demand: Demand, node: NodeView) -> tuple[object, ...]:
    has, gpus = node.capabilities, gpus_of(demand.task, demand.module)
    memories = [gpu.memory for gpu in has.gpus]
    free = sum(max(0, room) for room in node.load.gpu_room or memories)
    cores = has.cores * (1 - node.load.cpu_usage) - _held(demand, node)
    return (
        not has_gpus_now(node, gpus),
        -free if gpus.number else 0,
        -cores,
        -(node.load.memory_available or has.memory),
        _by_name(node),
    )


def _held(demand: Demand, node: NodeView) -> int:
    """The attempts that it has."""
    return node.assigned + demand.holding.get(node.id, 0)


def _by_name(node: NodeView) -> tuple[tuple[tuple[int, str], ...], str]:
    return _split(node.alias), node.id


@lru_cache(maxsize=10_000)
def _split(alias: str) -> tuple[tuple[int, str], ...]:
    """node-2 before node-10."""
    parts = re.findall(r"[0-9]+|[^0-9]+", alias)
    return tuple((int(part), "") if part.isdecimal() else (-1, part) for part in parts)
