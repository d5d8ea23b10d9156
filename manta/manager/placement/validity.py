"""Checks a swarm's description. The SDK checks it too, but the manager trusts no client."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from manta.protocol import requirements
from manta.protocol.isolation import LEVELS
from manta.protocol.outbound import targets_of
from manta.protocol.spec import ModuleSpec, ResourceSpec, SwarmSpec, TaskSpec, outbound_of
from manta.roster.topologies import NAMES

METHODS = ("all", "any", "random", "best_resources")
MAX_REPLICAS = 1_000_000
"""The manager remembers each of them, in about 2 KB."""
MOST_LABELS = 100


def flaws(spec: SwarmSpec) -> tuple[str, ...]:
    """Sentences that name what is wrong and the remedy. None of them depends on nodes."""
    return tuple(_flaws(spec))


def _flaws(spec: SwarmSpec) -> Iterator[str]:
    if not spec.tasks:
        yield f"The swarm {spec.name!r} has no task; return at least one from execute()."
    if spec.max_iteration is not None and spec.max_iteration < 1:
        yield f"max_iteration is {spec.max_iteration}; give at least 1, or leave it out."
    modules = {module.name: module for module in spec.modules}
    if len(modules) != len(spec.modules):
        yield "Two modules have one name; give one of them another name=."
    aliases = {task.alias for task in spec.tasks}
    seen: set[str] = set()
    for module in spec.modules:
        yield from flaws_of_module(module)
    for task in spec.tasks:
        head = f"Task {task.alias!r}"
        yield from _flaws_of_resources(head, task.resources)
        if task.alias in seen:
            yield f"The alias {task.alias!r} is used twice; give one task another alias."
        if task.module not in modules:
            yield f"{head} runs the module {task.module!r}, which the swarm does not bring."
        for edge in task.after:
            if edge.alias not in aliases:
                yield f"{head} comes after {edge.alias!r}, which is not a task of the swarm."
            elif edge.alias not in seen:
                yield (
                    f"{head} comes after {edge.alias!r}, which does not come before it: "
                    "the graph has a cycle; take one of its edges out."
                )
            if edge.condition not in ("FINISHED", "RESULT"):
                yield f"{head} has the condition {edge.condition!r}; use FINISHED or RESULT."
        seen.add(task.alias)
        if task.module in modules:
            yield from _flaws_of_outbound(head, outbound_of(task, modules[task.module]))
        for flaw in _flaws_of(task):
            yield f"{head}: {flaw}"
    yield from _flaws_of_schedule(spec)
    yield from _flaws_of_networks(spec)


def flaws_of_module(module: ModuleSpec) -> Iterator[str]:
    head = f"Module {module.name!r}"
    yield from _flaws_of_resources(head, module.resources)
    for flaw in filter(None, map(requirements.flaw_of, module.requirements)):
        yield f"{head} has a requirement that can't be: {flaw}."
    yield from _flaws_of_outbound(head, module.outbound)


def _flaws_of_resources(head: str, asked: ResourceSpec | None) -> Iterator[str]:
    if asked is None:
        return
    if asked.isolation is not None and asked.isolation not in LEVELS:
        level, known = asked.isolation, ", ".join(LEVELS)
        yield f"{head} asks for the isolation {level!r}; use one of {known}."
    amounts = {name: getattr(asked, name) for name in ("cpu", "memory", "disk", "gpu")}
    for name, amount in {**amounts, "gpu_memory": asked.gpu_memory}.items():
        if amount is not None and not 0 <= amount < float("inf"):
            yield f"{head} asks for {name}={amount:g}; give 0 or more."
    if asked.gpu == 0 and asked.gpu_memory:
        yield f"{head} asks for gpu=0 with gpu_memory; leave one of them out."
    if asked.gpu_shared and not asked.gpu_memory:
        yield f"{head} shares a GPU, of which it does not say how much it needs; give gpu_memory."
    if len(asked.labels) > MOST_LABELS:
        yield f"{head} asks for {len(asked.labels)} labels; give at most {MOST_LABELS}."


def _flaws_of_outbound(head: str, asked: Iterable[str]) -> Iterator[str]:
    try:
        targets_of(asked)
    except ValueError as error:
        yield f"{head} asks for a network that can't be: {error}."


def _flaws_of_schedule(spec: SwarmSpec) -> Iterator[str]:
    if not spec.schedule:
        return
    aliases = {task.alias for task in spec.tasks}
    if any(task.after for task in spec.tasks):
        yield "The swarm has a schedule and edges; order its tasks in one way, not in both."
    for number, entries in enumerate(set(spec.schedule)):
        named = [alias for entry in entries for alias in entry.aliases]
        if not named or not all(entry.aliases for entry in entries):
            yield f"An iteration of the schedule (number {number}) has an entry without a task."
        for alias in sorted(set(named) - aliases):
            yield f"The schedule names {alias!r}, which is not a task of the swarm."
        if len(set(named)) != len(named):
            yield "The schedule runs a task twice in one iteration; give it a second task."


def _flaws_of(task: TaskSpec) -> Iterator[str]:
    known = task.method in METHODS or (task.method.startswith("tag-") and len(task.method) > 4)
    if not known:
        yield f"the method {task.method!r} is unknown; use {', '.join(METHODS)} or tag-<tag>."
    if isinstance(task.maximum, float):
        if not 0 < task.maximum <= 1:
            yield f"maximum={task.maximum} is not a fraction; give 0 < f <= 1, a count, or -1."
    elif task.maximum < 1 and task.maximum != -1:
        yield f"maximum={task.maximum} is not a count; give 1 or more, a fraction, or -1."
    if task.replicas is not None and not 1 <= task.replicas <= MAX_REPLICAS:
        yield f"replicas={task.replicas}; give 1 to {MAX_REPLICAS}, or leave it out."
    if task.retries < 0:
        yield f"retries={task.retries}; give 0 or more."
    if isinstance(task.quorum, float) and not 0 < task.quorum <= 1:
        yield f'quorum={task.quorum} is not a fraction; give 0 < q <= 1, or "alive".'
    if task.deadline == "auto" and task.quorum is None:
        yield 'deadline="auto" says when a quorum is enough: give quorum=0.8, or "alive".'
    for name, seconds in (("deadline", task.deadline), ("timeout", task.timeout)):
        if isinstance(seconds, float) and not 0 < seconds < float("inf"):
            yield f"{name}={seconds:g}; give seconds above 0, or leave it out."
    if isinstance(task.collect, str) and task.collect not in ("all", "references"):
        yield f'collect={task.collect!r}; use "all", "references", or a list of tags.'
    both = set(task.specified_ids or ()) & set(task.excepted_ids or ())
    if both:
        yield f"{min(both)!r} is in specified_ids and in excepted_ids; take it out of one."


def _flaws_of_networks(spec: SwarmSpec) -> Iterator[str]:
    names = [network.name for network in spec.networks]
    for network in spec.networks:
        head = f"The network {network.name!r}"
        if names.count(network.name) > 1:
            yield f"{head} is described twice; give one of them another name."
        if network.topology not in (*NAMES, "edges"):
            known = ", ".join(NAMES)
            yield f"{head} has the topology {network.topology!r}; use {known} or edges."
        if (network.topology == "edges") != bool(network.edges):
            yield f"{head}: give edges, pairs of nodes, or the name of a topology."
        for one, other in network.edges:
            if one == other:
                yield f"{head} joins {one!r} to itself; name two nodes in each pair."
    for task in spec.tasks:
        if task.network is not None and task.network not in names:
            there = ", ".join(map(repr, names)) or "none"
            yield (
                f"Task {task.alias!r} is in the network {task.network!r}, which the swarm does not "
                f"have (it has {there}); add it with add_network()."
            )
