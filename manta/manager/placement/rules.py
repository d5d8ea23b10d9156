"""Why a node may not run a task: one function for each rule, which gives the reason or nothing.

A node is judged by the rules of `RULES` in order; the first that refuses it gives the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from manta.manager.placement.demand import Demand, tag_of
from manta.manager.placement.nodes import NodeView
from manta.protocol.isolation import IMAGES, level_of, rank, today
from manta.protocol.spec import ModuleSpec, datasets_of, resources_of


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
        return f"has {_in_bytes(has.memory)} of memory, {_in_bytes(wanted.memory)} are asked for"
    if wanted.disk is not None and wanted.disk > has.disk:
        return f"has {_in_bytes(has.disk)} of disk, {_in_bytes(wanted.disk)} are asked for"
    if wanted.gpu is not None and wanted.gpu > len(has.gpus):
        return f"has {len(has.gpus)} GPUs, {wanted.gpu} are asked for"
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
    Rule("gpu", _gpu, "add a node with a GPU, or leave out gpu=True"),
    Rule("resources", _resources, "ask for less, or add a larger node"),
    Rule(
        "isolation",
        _isolation,
        "ask for less, or let a node have what the level needs (manta_node doctor)",
    ),
    Rule("runner", _runner, "add a node with a container engine, or give the module a program"),
    Rule("tag", _tag, "let a task before it write that result"),
)


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


def _in_bytes(size: int) -> str:
    units = ("B", "KiB", "MiB", "GiB", "TiB")
    step = min(len(units) - 1, max(0, size.bit_length() - 1) // 10)
    return f"{size / 1024**step:.4g} {units[step]}"
