"""Tells nodes the roster of a swarm, once what it rests on is durable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from manta.actors import Actor, Timer
from manta.manager.directory import not_run
from manta.manager.errors import StoreError
from manta.manager.placement.nodes import places
from manta.manager.swarm.commits import Commits
from manta.manager.swarm.machine import SwarmMachine
from manta.manager.swarm.reads.meetings import Nodes
from manta.manager.swarm.roster import RosterNews, roster_of
from manta.protocol.node import Ok
from manta.protocol.roster import RosterTold, WantRoster
from manta.protocol.spec import resources_of


class _Tell(msgspec.Struct, frozen=True):
    pass


@dataclass
class Rosters:
    """`send` sends what nodes are told."""

    actor: Actor
    machine: SwarmMachine
    commits: Commits
    nodes: Nodes
    send: Callable[[list[tuple[str, RosterTold]]], None]
    _timer: Timer[Any] | None = None
    _news: RosterNews = field(init=False)

    def __post_init__(self) -> None:
        self._news = RosterNews(self.machine.data.swarm_id)

    @property
    def idle(self) -> bool:
        """A swarm that is over has no attempts to tell anything."""
        return True

    def want(self, node_id: str, message: WantRoster) -> Ok:
        """Of a node of the swarm's directory: what its attempts said that have ended may be waited
        for. Raises Refused."""
        if node_id not in self.machine.members():
            raise not_run(self.machine.data.swarm_id)
        self._news.want(node_id, message)
        self.changed()
        return Ok()

    def left(self, node_id: str) -> None:
        """The node is lost, or was removed."""
        self._news.leave(node_id)

    def changed(self) -> None:
        """The roster may have."""
        if self._news.wanted and self._timer is None:
            now = self.actor.clock.now()
            due = self._news.due(now)
            if due <= now:
                self._tell()
            else:
                self._timer = self.actor.after(due - now, _Tell())

    def handle(self, message: object) -> bool:
        """Whether the message was for this part."""
        if not isinstance(message, _Tell):
            return False
        self._timer = None
        self._tell()
        return True

    def _tell(self) -> None:
        data = self.machine.data
        views = {node.id: node for node in self.nodes()}

        def places_of(alias: str, node_id: str) -> int:
            task = data.graph.tasks[alias]
            asked = resources_of(task, data.graph.modules[task.module])
            return places(views[node_id], asked) if node_id in views else 0

        roster = roster_of(data, places_of)
        messages = self._news.tell(roster, self.machine.members(), self.actor.clock.now())

        def stored(error: StoreError | None) -> None:
            if error is None:
                self.send(messages)
            else:  # the store is tried again, and then they are told the whole
                self._news.lost()
                self.changed()

        if messages:
            self.commits.when_durable(stored)
