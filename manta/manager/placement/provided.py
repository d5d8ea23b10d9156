"""What nodes give tasks besides a place, in sentences: what they install, and where to they may
connect."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from manta.manager.placement.nodes import NodeView
from manta.protocol.names import listed
from manta.protocol.outbound import targets_of
from manta.protocol.requirements import digest_of, named
from manta.protocol.spec import ModuleSpec, TaskSpec, outbound_of


def installed(module: ModuleSpec, nodes: Iterable[NodeView]) -> str:
    """What a module requires, on which of the nodes it is there and on which it is installed; ""
    for a module that requires nothing."""
    lines = requirements_of(module)
    if not lines:
        return ""
    digest = digest_of(lines)
    there: list[str] = []
    lacking: list[str] = []
    for node in nodes:
        (there if digest in node.load.environments else lacking).append(node.alias)
    parts = []
    if there:
        parts.append(f"there on {listed(there)}")
    if lacking:
        parts.append(f"to be installed on {listed(lacking)}")
    where = "; ".join(parts) or "placed nowhere"
    return f"Module {module.name!r} requires {listed(named(lines))}: {where}."


def requirements_of(module: ModuleSpec) -> tuple[str, ...]:
    """What nodes install for it: an image alone has what it has."""
    return module.requirements if module.package is not None else ()


def connected(task: TaskSpec, module: ModuleSpec, nodes: Iterable[NodeView]) -> str:
    """Where a task may connect to, from which nodes; "" for one that asks for nothing."""
    asked = outbound_of(task, module)
    if not asked:
        return ""
    targets = ", ".join(map(str, targets_of(asked)))
    aliases = [*dict.fromkeys(node.alias for node in nodes)]
    where = f"from {listed(aliases)}" if aliases else "but is placed nowhere"
    return f"Task {task.alias!r} may connect to {targets}, {where}."


def all_of(
    tasks: Mapping[str, tuple[TaskSpec, ModuleSpec]], placed: Mapping[str, Sequence[NodeView]]
) -> tuple[str, ...]:
    """Of all tasks, by alias, and the nodes on which their instances are."""
    nodes: dict[ModuleSpec, dict[str, NodeView]] = {}
    for alias, here in placed.items():
        nodes.setdefault(tasks[alias][1], {}).update((node.id, node) for node in here)
    sentences = [installed(module, here.values()) for module, here in nodes.items()]
    sentences += [connected(*tasks[alias], here) for alias, here in placed.items()]
    return tuple(filter(None, sentences))
