"""Where a swarm would run, task by task: the answer to a check."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from manta.actors import Refused
from manta.manager.placement import provided
from manta.manager.placement.demand import Demand, tag_of
from manta.manager.placement.nodes import NodeView, misnamed, unknown_in
from manta.manager.placement.place import Outcome, place
from manta.manager.placement.rules import isolation
from manta.manager.placement.validity import flaws
from manta.protocol.codes import Code
from manta.protocol.pages import encoded, fitting
from manta.protocol.spec import ModuleSpec, SwarmSpec, TaskSpec
from manta.protocol.user import PlacedInstance, Plan

TOLD = 3000
"""Characters of problems that a refusal tells; more are counted. A sentence has a limit."""


def check(spec: SwarmSpec, nodes: Iterable[NodeView]) -> Plan:
    """Places the first iteration of a swarm on these nodes as they are now."""
    if problems := flaws(spec):
        return Plan(problems=problems)
    here = tuple(replace(node, returning=False) for node in nodes)
    modules = {module.name: module for module in spec.modules}
    found: dict[str, Outcome] = {}
    depth: dict[str, int] = {}
    held: dict[int, Counter[str]] = {}  # tasks of one depth run at the same time
    before: tuple[int | float, ...] = ()
    for task in spec.tasks:
        depth[task.alias] = 1 + max((depth[edge.alias] for edge in task.after), default=-1)
        demand = Demand(
            task,
            modules[task.module],
            seed=spec.seed,
            producers=tuple(
                placed.node_id for edge in task.after for placed in found[edge.alias].placements
            ),
            before=before,
            holding=held.setdefault(depth[task.alias], Counter()),
            direct=True,
        )
        outcome = place(demand, here)
        if task.method == "random":
            before = (*before, task.maximum)
        held[depth[task.alias]].update(placed.node_id for placed in outcome.placements)
        if here and (wrong := tuple(misnamed(task, here))):
            outcome = replace(outcome, problems=wrong)
        elif tag_of(task) is not None and task.after and not demand.producers:
            # What it needs is not written only because the task before it cannot run.
            outcome = replace(outcome, problems=())
        found[task.alias] = outcome
    edges = (wrong for network in spec.networks for wrong in unknown_in(network, here))
    ran = {task.alias: (task, modules[task.module]) for task in spec.tasks}
    return gathered(found, ran, here, edges if here else ())


def gathered(
    outcomes: Mapping[str, Outcome],
    tasks: Mapping[str, tuple[TaskSpec, ModuleSpec]],
    nodes: Iterable[NodeView],
    problems: Iterable[str] = (),
) -> Plan:
    """The plan that these outcomes of tasks make, by alias, with their modules; with further
    problems."""
    by_id = {node.id: node for node in nodes}

    def level(alias: str, id_: str) -> str:
        return isolation(tasks[alias][1], by_id[id_]) if id_ in by_id else ""

    placed = {
        alias: [by_id[at.node_id] for at in outcome.placements if at.node_id in by_id]
        for alias, outcome in outcomes.items()
    }
    return Plan(
        tuple(
            PlacedInstance(
                alias,
                placed.index,
                placed.node_id,
                placed.node_alias,
                level(alias, placed.node_id),
            )
            for alias, outcome in outcomes.items()
            for placed in outcome.placements
        ),
        tuple(verdict for outcome in outcomes.values() for verdict in outcome.verdicts),
        (*(one for outcome in outcomes.values() for one in outcome.problems), *problems),
        {alias: outcome.waiting for alias, outcome in outcomes.items() if outcome.waiting},
        provided=provided.all_of(tasks, placed),
    )


def refusal(code: Code, problems: Sequence[str]) -> Refused:
    """Of a swarm with these problems; of more than a message holds, the first."""
    told, _ = fitting(problems, len, TOLD)
    sentence = " ".join(told)
    if (more := len(problems) - len(told)) > 0:
        sentence += f" There {'is 1' if more == 1 else f'are {more}'} more: see `manta check`."
    listed, _ = fitting(problems, encoded)
    return Refused(code, sentence, {"problems": listed})
