"""Which nodes run a task: one function for deploying, checking and explaining.

Every node is judged by the rules of `RULES`, in order; the first that refuses it gives
the reason. The nodes that are left are *eligible*. The task's method puts them in an
order, its maximum says how many are taken, and its replicas how many instances are
spread over those. So each node has exactly one verdict for each task, and a task that
cannot be placed has a problem that names it, the reason and the remedy.

The order depends on nothing but the arguments: `random` ranks nodes by a hash of the
swarm's seed, the iteration and their ids, so all random tasks of one iteration see one
permutation, of which each takes the part that follows those of the tasks before it.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from hashlib import blake2b

import msgspec

from manta.manager.placement.names import ids_of, listed, misnamed, unknown_in
from manta.manager.placement.validity import flaws
from manta.protocol.node import Capabilities, Load
from manta.protocol.spec import ModuleSpec, ResourceSpec, SwarmSpec, TaskSpec
from manta.protocol.user import PlacedInstance, Plan, Verdict


@dataclass(frozen=True)
class NodeView:
    """What placement knows of a node; `assigned` counts the attempts of other swarms on it.

    `returning`: it is not connected, but was a moment ago and may be back at once.
    """

    id: str
    alias: str
    capabilities: Capabilities
    connected: bool = True
    draining: bool = False
    returning: bool = False
    assigned: int = 0
    load: Load = field(default_factory=Load)


@dataclass(frozen=True)
class Demand:
    """A task of one iteration that wants nodes.

    within     nodes (ids or aliases) that schedule_next_iter named for it; empty: any
    kept       nodes of its first iteration, when the task is `fixed`
    previous   nodes that ran it in the previous iteration: their runtime is warm
    producers  nodes that wrote the result which its method `tag-<t>` names
    replace    only these instances, anew; empty: the whole task
    avoid      nodes to take last: it failed there, or they run its other instances
    before     maximums of the random tasks that come before it in the swarm
    holding    the swarm's own attempts by node
    """

    task: TaskSpec
    module: ModuleSpec
    iteration: int = 0
    seed: int = 0
    within: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    previous: tuple[str, ...] = ()
    producers: tuple[str, ...] = ()
    replace: tuple[int, ...] = ()
    avoid: tuple[str, ...] = ()
    before: tuple[int | float, ...] = ()
    holding: dict[str, int] = field(default_factory=dict)


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


def _by_id(demand: Demand, nodes: Sequence[NodeView]) -> Demand:
    """With ids wherever it names nodes."""
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


# Rules: each says why it refuses the node, or nothing.


def _connected(demand: Demand, node: NodeView) -> str:
    return "" if node.connected else "is not connected"


def _draining(demand: Demand, node: NodeView) -> str:
    return "is draining" if node.draining else ""


def _specified(demand: Demand, node: NodeView) -> str:
    named = demand.task.specified_ids
    return "" if named is None or node.id in named else "is not in specified_ids"


def _excepted(demand: Demand, node: NodeView) -> str:
    return "is in excepted_ids" if node.id in (demand.task.excepted_ids or ()) else ""


def _scheduled(demand: Demand, node: NodeView) -> str:
    if not demand.within or node.id in demand.within:
        return ""
    return "was not named in schedule_next_iter"


def _fixed(demand: Demand, node: NodeView) -> str:
    if not demand.kept or node.id in demand.kept:
        return ""
    return "did not run it in the first iteration (fixed=True)"


def _datasets(demand: Demand, node: NodeView) -> str:
    wanted = datasets_of(demand.task, demand.module)
    if not wanted:
        return ""
    held = {dataset.name for dataset in node.capabilities.datasets}
    missing = [name for name in wanted if name not in held]
    if not missing:
        return ""
    return f"has no dataset {_quoted(missing)} (it has {_quoted(sorted(held)) or 'none'})"


def _gpu(demand: Demand, node: NodeView) -> str:
    return "has no GPU" if demand.task.gpu and not node.capabilities.gpus else ""


def _resources(demand: Demand, node: NodeView) -> str:
    wanted = resources_of(demand.task, demand.module)
    if wanted is None:
        return ""
    has = node.capabilities
    if wanted.cpu is not None and wanted.cpu > has.cores:
        return f"has {has.cores} cores, {wanted.cpu:g} are asked for"
    if wanted.memory is not None and wanted.memory > has.memory:
        return f"has {_size(has.memory)} of memory, {_size(wanted.memory)} are asked for"
    if wanted.disk is not None and wanted.disk > has.disk:
        return f"has {_size(has.disk)} of disk, {_size(wanted.disk)} are asked for"
    if wanted.gpu is not None and wanted.gpu > len(has.gpus):
        return f"has {len(has.gpus)} GPUs, {wanted.gpu} are asked for"
    return ""


def _runner(demand: Demand, node: NodeView) -> str:
    if demand.module.package is not None or not _runs_plain_processes(node):
        return ""
    return f"runs plain processes, and module {demand.module.name!r} is an image alone"


def _runs_plain_processes(node: NodeView) -> bool:
    return node.capabilities.runners == ("process",)


def _produced(demand: Demand, node: NodeView) -> str:
    tag = tag_of(demand.task)
    return "" if tag is None or node.id in demand.producers else f"wrote no result {tag!r}"


Rule = Callable[[Demand, NodeView], str]

RULES: tuple[tuple[str, Rule, str], ...] = (
    ("connected", _connected, "start a node of this cluster (manta_node start)"),
    ("draining", _draining, "wait for another node, or start the draining one anew"),
    ("specified", _specified, "correct specified_ids: ids or aliases of nodes (manta node list)"),
    ("excepted", _excepted, "take a node out of excepted_ids, or add nodes"),
    ("scheduled", _scheduled, "name nodes in schedule_next_iter that can run it"),
    ("fixed", _fixed, "bring the nodes of the first iteration back, or leave out fixed=True"),
    ("datasets", _datasets, "correct the name, or map it in [datasets] of a node"),
    ("gpu", _gpu, "add a node with a GPU, or leave out gpu=True"),
    ("resources", _resources, "ask for less, or add a larger node"),
    ("runner", _runner, "add a node with a container engine, or give the module a program"),
    ("tag", _produced, "let a task before it write that result"),
)
"""Name, test, and what to do when it leaves no node."""


def place(demand: Demand, nodes: Sequence[NodeView], window: int = WINDOW) -> Outcome:
    """`window`: of many replicas, how many each node is given at first."""
    alias = demand.task.alias
    demand = _by_id(demand, nodes)
    eligible: list[NodeView] = []
    refused: list[tuple[NodeView, int, str]] = []
    for node in nodes:
        for number, (_, test, _) in enumerate(RULES):
            if reason := test(demand, node):
                refused.append((node, number, reason))
                break
        else:
            eligible.append(node)
    verdicts = [
        Verdict(alias, node.id, node.alias, False, RULES[number][0], reason)
        for node, number, reason in refused
    ]
    problem = _awaits(demand, nodes, len(eligible)) or _problem(demand, eligible, refused)
    if problem:
        return Outcome((), tuple(verdicts), (problem,))
    chosen, why = _choose(demand, eligible)
    taken = {node.id for node in chosen}
    for node in eligible:
        rule, reason = ("method", why) if node.id in taken else ("maximum", f"not taken: {why}")
        if demand.module.image is not None and _runs_plain_processes(node):
            reason += f"; the image {demand.module.image!r} is not used, it runs plain processes"
        verdicts.append(Verdict(alias, node.id, node.alias, node.id in taken, rule, reason))
    placements, waiting = _spread(demand, chosen, window)
    return Outcome(placements, tuple(verdicts), (), waiting)


def _awaits(demand: Demand, nodes: Sequence[NodeView], eligible: int) -> str:
    """A link that drops for a moment is no reason to run a whole iteration without its node."""
    task = demand.task
    away = [
        node
        for node in nodes
        if node.returning and not any(test(demand, node) for _, test, _ in RULES[1:])
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


def _problem(
    demand: Demand, eligible: list[NodeView], refused: list[tuple[NodeView, int, str]]
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
    if all(RULES[number][0] == "connected" for _, number, _ in refused):
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
        sentence += f"; {_quoted(unknown)} is no node of this cluster"
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
    return next(remedy for name, _, remedy in RULES if name == rule)


def _choose(demand: Demand, eligible: list[NodeView]) -> tuple[list[NodeView], str]:
    """The nodes that run it, in the order in which instances are dealt to them, and why."""
    task = demand.task
    wanted = _limit(task, len(eligible))
    if demand.kept and not demand.replace:
        place_of = {id_: place for place, id_ in enumerate(demand.kept)}
        return sorted(eligible, key=lambda node: place_of[node.id]), "fixed since iteration 0"
    if task.method == "random":
        order = sorted(eligible, key=lambda node: _draw(demand, node))
        start, wanted = _part(demand, len(eligible))
        order = order[start:] + order[:start]
        why = f"drawn by seed {demand.seed}"
    elif task.method == "best_resources":
        order = sorted(eligible, key=lambda node: _poverty(demand, node))
        why = "most resources"
    else:
        order = sorted(eligible, key=lambda node: _business(demand, node))
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
        chosen.sort(key=_natural)  # instance k stays where a person looks for it
    return chosen, why


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


def _limit(task: TaskSpec, eligible: int) -> int:
    if isinstance(task.maximum, float):
        return max(1, _floor(task.maximum * eligible))
    if task.maximum != -1:
        return task.maximum
    return 1 if task.method == "any" and task.replicas is None else eligible


def _part(demand: Demand, eligible: int) -> tuple[int, int]:
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
    """Blind to the dust that sums of fractions leave."""
    return math.floor(number + 1e-9)


def _draw(demand: Demand, node: NodeView) -> tuple[bytes, str]:
    text = f"{demand.seed}/{demand.iteration}/{node.id}"
    return blake2b(text.encode(), digest_size=16).digest(), node.id


def _business(demand: Demand, node: NodeView) -> tuple[float, bool, object]:
    held = node.assigned + demand.holding.get(node.id, 0)
    load = held / max(1, node.capabilities.max_concurrent_tasks)
    return load, node.id not in demand.previous, _natural(node)


def _poverty(demand: Demand, node: NodeView) -> tuple[float, float, float, object]:
    has = node.capabilities
    gpu = sum(gpu.memory for gpu in has.gpus) if demand.task.gpu else 0
    cores = has.cores * (1 - node.load.cpu_usage) - node.assigned - demand.holding.get(node.id, 0)
    return -gpu, -cores, -(node.load.memory_available or has.memory), _natural(node)


def _natural(node: NodeView) -> tuple[tuple[tuple[int, str], ...], str]:
    return _split(node.alias), node.id


@lru_cache(maxsize=10_000)
def _split(alias: str) -> tuple[tuple[int, str], ...]:
    """node-2 before node-10."""
    parts = re.findall(r"[0-9]+|[^0-9]+", alias)
    return tuple((int(part), "") if part.isdecimal() else (-1, part) for part in parts)


def _some(names: Iterable[str]) -> str:
    return listed([*map(repr, names)])


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)


def _size(size: int) -> str:
    units = ("B", "KiB", "MiB", "GiB", "TiB")
    step = min(len(units) - 1, max(0, size.bit_length() - 1) // 10)
    return f"{size / 1024**step:.4g} {units[step]}"


def datasets_of(task: TaskSpec, module: ModuleSpec) -> tuple[str, ...]:
    """What the module and the task declare, each once."""
    return tuple(dict.fromkeys((*module.datasets, *task.datasets)))


def resources_of(task: TaskSpec, module: ModuleSpec) -> ResourceSpec | None:
    return task.resources or module.resources


def tag_of(task: TaskSpec) -> str | None:
    """The <t> of the method `tag-<t>`."""
    return task.method[4:] if task.method.startswith("tag-") else None


def random_before(spec: SwarmSpec, alias: str) -> tuple[int | float, ...]:
    """Maximums of the random tasks that come before this one: `Demand.before`."""
    maximums = []
    for task in spec.tasks:
        if task.alias == alias:
            break
        if task.method == "random":
            maximums.append(task.maximum)
    return tuple(maximums)


def check(spec: SwarmSpec, nodes: Iterable[NodeView]) -> Plan:
    """Place the first iteration of a swarm on these nodes as they are now."""
    if problems := flaws(spec):
        return Plan(problems=problems)
    here = tuple(replace(node, returning=False) for node in nodes)
    modules = {module.name: module for module in spec.modules}
    placements: list[PlacedInstance] = []
    verdicts: list[Verdict] = []
    found: list[str] = []
    waiting: dict[str, int] = {}
    ran_on: dict[str, tuple[str, ...]] = {}
    depth: dict[str, int] = {}
    held: dict[int, Counter[str]] = {}  # tasks of one depth run at the same time
    before: tuple[int | float, ...] = ()
    for task in spec.tasks:
        wrong = tuple(misnamed(task, here)) if here else ()
        depth[task.alias] = 1 + max((depth[edge.alias] for edge in task.after), default=-1)
        level = held.setdefault(depth[task.alias], Counter())
        producers = tuple(id_ for edge in task.after for id_ in ran_on[edge.alias])
        outcome = place(
            Demand(
                task,
                modules[task.module],
                seed=spec.seed,
                producers=producers,
                before=before,
                holding=level,
            ),
            here,
        )
        if task.method == "random":
            before = (*before, task.maximum)
        ran_on[task.alias] = tuple(placed.node_id for placed in outcome.placements)
        level.update(ran_on[task.alias])
        placements += (
            PlacedInstance(task.alias, placed.index, placed.node_id, placed.node_alias)
            for placed in outcome.placements
        )
        if outcome.waiting:
            waiting[task.alias] = outcome.waiting
        verdicts += outcome.verdicts
        # What a task could not write where it could not run is no problem of its own.
        if wrong or tag_of(task) is None or not task.after or producers:
            found += wrong or outcome.problems
    if here:
        found += (wrong for network in spec.networks for wrong in unknown_in(network, here))
    return Plan(tuple(placements), tuple(verdicts), tuple(found), waiting)
