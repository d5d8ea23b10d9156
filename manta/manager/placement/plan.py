"""Where a swarm would run, task by task: the answer to a check."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from manta.actors import Refused
from manta.manager.placement.demand import Demand, tag_of
from manta.manager.placement.names import misnamed, unknown_in
from manta.manager.placement.nodes import NodeView
from manta.manager.placement.place import place
from manta.manager.placement.validity import flaws
from manta.protocol.codes import Code
from manta.protocol.pages import encoded, fitting
from manta.protocol.spec import SwarmSpec
from manta.protocol.user import PlacedInstance, Plan, Verdict

TOLD = 3000
"""Characters of problems that a refusal tells; more are counted. A sentence has a limit."""


def check(spec: SwarmSpec, nodes: Iterable[NodeView]) -> Plan:
    """Places the first iteration of a swarm on these nodes as they are now."""
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


def refusal(code: Code, problems: Sequence[str]) -> Refused:
    """Of a swarm with these problems; of more than a message holds, the first."""
    told, _ = fitting(problems, len, TOLD)
    sentence = " ".join(told)
    if (more := len(problems) - len(told)) > 0:
        sentence += f" There {'is 1' if more == 1 else f'are {more}'} more: see `manta check`."
    listed, _ = fitting(problems, encoded)
    return Refused(code, sentence, {"problems": listed})
