"""What keeps instances of a swarm from beginning on their nodes, published for who asks."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from itertools import groupby

from manta.actors import Actor
from manta.manager.swarm.machine import SwarmMachine
from manta.manager.swarm.reads.meetings import queued_behind
from manta.manager.swarm.sentences import label
from manta.manager.swarm.state import Attempt, SwarmData
from manta.manager.views import Asked, ClusterView
from manta.protocol.names import listed


@dataclass
class HeldUp:
    """`changed` is called when what is published is another."""

    actor: Actor
    view: ClusterView
    machine: SwarmMachine
    changed: Callable[[], None]

    def note(self, topics: Collection[tuple[object, ...]]) -> None:
        """After an event: `topics` are what it may have ended waits for."""
        data, view = self.machine.data, self.view
        before = view.queued.get(data.swarm_id, ""), view.asked.get(data.swarm_id, ())
        if before[0] or any("collective" in one for one in topics):
            nodes = view.node_views_for
            _publish(view.queued, data, queued_behind(data, lambda: nodes(data.swarm_id)))
        if data.asks_owners:
            clock = self.actor.clock
            _publish(view.asked, data, asked(data, clock.wall() - clock.now()))
        if before != (view.queued.get(data.swarm_id, ""), view.asked.get(data.swarm_id, ())):
            self.changed()

    def forget(self) -> None:
        """The swarm's actor ends."""
        self.view.queued.pop(self.machine.data.swarm_id, None)
        self.view.asked.pop(self.machine.data.swarm_id, None)


def _publish(where: dict, data: SwarmData, what: object) -> None:  # type: ignore[type-arg]
    if what:
        where[data.swarm_id] = what
    else:
        where.pop(data.swarm_id, None)


def asked(data: SwarmData, epoch: float) -> tuple[Asked, ...]:
    """Owners of nodes who have yet to say whether attempts may run. `epoch` is when the monotonic
    clock was 0, in seconds since the epoch."""
    held = [one for one in data.live.values() if one.held_at is not None]

    def node(one: Attempt) -> tuple[str, str]:
        return one.node_alias, one.node_id

    found = []
    for (alias, _), attempts in groupby(sorted(held, key=node), node):
        several = list(attempts)
        since = min(one.held_at or 0.0 for one in several) - epoch
        found.append(Asked(alias, listed([label(one) for one in several]), len(several), since))
    return tuple(found)
