"""Why a node may not run a task: one function for each rule, which gives the reason or nothing.

A node is judged by the rules of `RULES` in order; the first that refuses it gives the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from manta.manager.placement.demand import Demand, gpus_of, tag_of
from manta.manager.placement.nodes import NodeView
from manta.manager.placement.provided import requirements_of
from manta.protocol.gpus import in_bytes, lacks
from manta.protocol.isolation import IMAGES, level_of, rank, today
from manta.protocol.outbound import lacking, lets_out, targets_of
from manta.protocol.spec import ModuleSpec, datasets_of, outbound_of, resources_of


def _connected(demand: Demand, node: NodeView) -> str:
    return "" if node.connected else "is not connected"


def _draining(demand: Demand, node: NodeView) -> str:
    return "is draining" if node.draining else ""


def _troubled(demand: Demand, node: NodeView) -> str:
    return node.trouble


def _direct(demand: Demand, node: NodeView) -> str:
    if node.direct or not demand.direct:
        return ""
    return "has an earlier version of Manta, which exchanges nothing with other nodes"


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
    return f"has no dataset {quoted(missing)} (it has {quoted(sorted(held)) or 'none'})"


def _arch(demand: Demand, node: NodeView) -> str:
    asked, has = resources_of(demand.task, demand.module), node.capabilities.architecture
    if asked is None or asked.arch is None or asked.arch == has:
        return ""
    return f"is {has or 'of an unknown architecture'}, {asked.arch} is asked for"


def _labels(demand: Demand, node: NodeView) -> str:
    asked, has = resources_of(demand.task, demand.module), node.capabilities.labels
    for name, value in () if asked is None else asked.labels:
        if name not in has:
            return f"has no label {name!r} (it has {quoted(sorted(has)) or 'none'})"
        if has[name] != value:
            return f"has the label {name} = {has[name]!r}, {value!r} is asked for"
    return ""


def _gpu(demand: Demand, node: NodeView) -> str:
    asked = gpus_of(demand.task, demand.module)
    return lacks(asked, [gpu.memory for gpu in node.capabilities.gpus], node.load.gpu_room)


def _resources(demand: Demand, node: NodeView) -> str:
    wanted = resources_of(demand.task, demand.module)
    if wanted is None:
        return ""
    has = node.capabilities
    if wanted.cpu is not None and wanted.cpu > has.cores:
        return f"has {has.cores} cores, {wanted.cpu:g} are asked for"
    if wanted.memory is not None and wanted.memory > has.memory:
        return f"has {in_bytes(has.memory)} of memory, {in_bytes(wanted.memory)} are asked for"
    if wanted.disk is not None and wanted.disk > has.disk:
        return f"has {in_bytes(has.disk)} of disk, {in_bytes(wanted.disk)} are asked for"
    if wanted.disk is not None and 0 < has.scratch < wanted.disk:
        most = f"lets a task keep {in_bytes(has.scratch)} on its disk (resources.scratch_mb)"
        return f"{most}, {in_bytes(wanted.disk)} are asked for"
    return ""


def _runner(demand: Demand, node: NodeView) -> str:
    if demand.module.package is not None or not runs_no_images(node):
        return ""
    return f"has no container engine, and module {demand.module.name!r} is an image alone"


def runs_no_images(node: NodeView) -> bool:
    runners = node.capabilities.runners
    return bool(runners) and not {*map(today, runners)} & {*IMAGES}


def _isolation(demand: Demand, node: NodeView) -> str:
    asked = resources_of(demand.task, demand.module)
    if asked is None or asked.isolation is None:
        return ""
    level = isolation(demand.module, node)
    if rank(level) >= rank(asked.isolation):
        return ""
    reason = f"isolates it by {level!r}, {asked.isolation!r} is asked for"
    images = level_of(node.capabilities.runners, image=True)
    if rank(images) >= rank(asked.isolation):
        reason += f" (a module that names an image, by {images!r})"
    return reason


def isolation(module: ModuleSpec, node: NodeView) -> str:
    """The level at which a node runs it."""
    return level_of(node.capabilities.runners, image=module.image is not None)


def _installs(demand: Demand, node: NodeView) -> str:
    if node.capabilities.installs or not requirements_of(demand.module):
        return ""
    return (
        f"installs nothing that module {demand.module.name!r} requires (its requirements.allow is "
        "false, or its Manta is an earlier version)"
    )


def _outbound(demand: Demand, node: NodeView) -> str:
    asked = outbound_of(demand.task, demand.module)
    if not asked:
        return ""
    if closed := lacking(targets_of(asked), node.capabilities.outbound):
        return f"does not let tasks connect to {', '.join(closed)} (network.allow)"
    level, runs_program = isolation(demand.module, node), demand.module.package is not None
    return lets_out(level, targets_of(asked), runs_program=runs_program)


def _tag(demand: Demand, node: NodeView) -> str:
    tag = tag_of(demand.task)
    return "" if tag is None or node.id in demand.producers else f"wrote no result {tag!r}"


class Rule(NamedTuple):
    name: str
    refuses: Callable[[Demand, NodeView], str]
    remedy: str
    """What to do when it leaves no node."""


RULES = (
    Rule("connected", _connected, "start a node of this cluster (manta_node start)"),
    Rule("draining", _draining, "wait for another node, or restart the draining one"),
    Rule("able", _troubled, "make room where the node keeps its state, or add nodes"),
    Rule(
        "specified", _specified, "correct specified_ids: ids or aliases of nodes (manta node list)"
    ),
    Rule("excepted", _excepted, "take a node out of excepted_ids, or add nodes"),
    Rule("scheduled", _scheduled, "name nodes in schedule_next_iter that can run it"),
    Rule("fixed", _fixed, "bring the nodes of the first iteration back, or leave out fixed=True"),
    Rule("direct", _direct, "install this version of Manta on the nodes, and restart them"),
    Rule(
        "datasets",
        _datasets,
        "correct the name, or map it: [datasets] of a node, or --dataset NAME=PATH",
    ),
    Rule("arch", _arch, "add a node of that architecture, or leave arch out"),
    Rule(
        "labels", _labels, "correct the label, or give it to a node ([labels] of its configuration)"
    ),
    Rule("gpu", _gpu, "ask for fewer GPUs or less of their memory, or add a node that has them"),
    Rule("resources", _resources, "ask for less, or add a larger node"),
    Rule(
        "isolation",
        _isolation,
        "ask for less, or let a node have what the level needs (manta_node doctor)",
    ),
    Rule("runner", _runner, "add a node with a container engine, or give the module a program"),
    Rule(
        "requirements",
        _installs,
        "have a node allow it, or leave requirements out where nodes have what is imported",
    ),
    Rule(
        "outbound",
        _outbound,
        "have a node's owner allow it, or leave that network out",
    ),
    Rule("tag", _tag, "let a task before it write that result"),
)


def nearest_fix(demand: Demand, nodes: Iterable[NodeView]) -> str:
    """What the node lacks that lacks least, and what to do there: a sentence, or nothing where
    something else is amiss on each of them too."""
    near: list[tuple[int, str]] = []
    for node in nodes:
        refusing = [rule.name for rule in RULES if rule.refuses(demand, node)]
        if len(refusing) == 1 and (fix := _FIXES.get(refusing[0])):
            near.append(fix(demand, node))
    return min(near)[1] if near else ""


def _fix_datasets(demand: Demand, node: NodeView) -> tuple[int, str]:
    held = {dataset.name for dataset in node.capabilities.datasets}
    missing = [one for one in datasets_of(demand.task, demand.module) if one not in held]
    fix = f"has {quoted(sorted(held)) or 'no dataset'}, wants {quoted(missing)}"
    them = "it" if len(missing) == 1 else "them"
    where = "to [datasets.mappings] of its configuration"
    return len(missing), f"Node {node.alias} {fix}: add {them} {where}."


def _fix_labels(demand: Demand, node: NodeView) -> tuple[int, str]:
    asked, has = resources_of(demand.task, demand.module), node.capabilities.labels
    wanted = () if asked is None else asked.labels
    missing = [f'{name} = "{value}"' for name, value in wanted if has.get(name) != value]
    where = "to [labels] of its configuration"
    return len(
        missing
    ), f"Node {node.alias} lacks no more than that: add {', '.join(missing)} {where}."


_FIXES: dict[str, Callable[[Demand, NodeView], tuple[int, str]]] = {
    "datasets": _fix_datasets,
    "labels": _fix_labels,
}
"""With how much is to be done."""


_TESTS = tuple(rule.refuses for rule in RULES)


class Refusal(NamedTuple):
    node: NodeView
    rule: int
    """Its place in RULES."""
    reason: str


def judge(demand: Demand, nodes: Iterable[NodeView]) -> tuple[list[NodeView], list[Refusal]]:
    """The nodes that may run the task, and why the others may not."""
    eligible: list[NodeView] = []
    refused: list[Refusal] = []
    for node in nodes:
        for number, refuses in enumerate(_TESTS):
            if reason := refuses(demand, node):
                refused.append(Refusal(node, number, reason))
                break
        else:
            eligible.append(node)
    return eligible, refused


def quoted(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)
