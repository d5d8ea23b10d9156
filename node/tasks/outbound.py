"""What a task may connect to, as its swarm asks and the node's owner allows, and what is recorded
of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from manta.node.errors import WayOutRefused
from manta.node.outbound import Totals, Ways
from manta.node.state.audit import EACH
from manta.protocol.isolation import BWRAP, DOCKER
from manta.protocol.outbound import Target, lacking, lets_out, targets_of

if TYPE_CHECKING:
    from manta.node.shared.context import NodeContext
    from manta.protocol.node import Assignment


def targets(context: NodeContext, assignment: Assignment) -> tuple[Target, ...]:
    """Raises WayOutRefused for what may not be."""
    asked = assignment.outbound
    if not asked:
        return ()
    name, alias = assignment.instance.alias, context.config.alias
    try:
        found = targets_of(asked)
    except ValueError as error:
        raise WayOutRefused(f"What task {name!r} asks for can't be: {error}.") from error
    if closed := lacking(found, context.config.network_allow):
        raise WayOutRefused(
            f"Task {name!r} asks to connect to {', '.join(closed)}, and the owner of node "
            f"{alias!r} does not allow that (network.allow): ask them, or use another node."
        )
    module = assignment.module
    level = context.runner.level(module.image)
    if flaw := lets_out(level, found, runs_program=module.package is not None):
        raise WayOutRefused(f"Node {alias!r} {flaw}.")
    return found


def ways(
    context: NodeContext,
    found: tuple[Target, ...],
    current: Callable[[], Assignment],
    say: Callable[[Assignment, str, str], None],
) -> Ways | None:
    """The ways out of a runtime; None where nothing keeps it in. `current` is the attempt that
    runs, `say` writes to its swarm's log: both from any thread."""
    if not found or context.runner.level(current().module.image) not in (BWRAP, DOCKER):
        return None
    audit, told = context.audit, 0

    def opened(target: Target, address: str) -> None:
        nonlocal told
        told += 1  # of several threads: a bound that need not be exact
        if told <= EACH:
            audit.connected(current(), str(target), address, time.time())

    def ended(totals: dict[Target, Totals]) -> None:
        used = {
            str(target): vars(one) for target, one in totals.items() if vars(one) != vars(Totals())
        }
        if used:
            audit.connections_ended(current(), used, time.time())

    patterns = context.config.network_allow
    return Ways(found, patterns, lambda text: say(current(), "warning", text), opened, ended)
