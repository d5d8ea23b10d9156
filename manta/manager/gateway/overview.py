"""Answers questions about the manager as a whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from manta.manager import notices
from manta.manager.context import STORE
from manta.manager.directory import SwarmEntry
from manta.manager.gateway.part import Part, Request
from manta.manager.store.actor import GetHealth
from manta.manager.store.records import ClusterRecord
from manta.protocol import pages
from manta.protocol.states import SwarmState
from manta.protocol.tree import Tree, tree_of
from manta.protocol.user import (
    FindMissingBlobs,
    GetManagerStatus,
    ManagerStatus,
    MissingBlobs,
    Swarms,
)
from manta.protocol.version import VERSION

_OVER = frozenset(state.value for state in SwarmState if state.final)


class Overview(Part):
    def swarms(self, clusters: Iterable[ClusterRecord], after: str) -> Swarms:
        """A page of the swarms of these clusters."""
        now, trouble = self._actor.clock.now(), self._context.trouble
        infos = (
            notices.shown(view, one, trouble, now)
            for view in (self._context.cluster(at.id) for at in clusters)
            for one in view.swarms.values()
        )
        return Swarms(*pages.after(infos, lambda one: one.swarm_id, after, pages.encoded))

    def is_over(self, entry: SwarmEntry) -> bool:
        """Whether the swarm has ended, so that no node runs anything of it."""
        info = self._context.cluster(entry.cluster_id).swarms.get(entry.id)
        return info is not None and info.status in _OVER

    def tree(self, after: str) -> Tree:
        return tree_of(self._actor.system.tree(), after)

    def missing_blobs(self, request: Request[FindMissingBlobs, None]) -> None:
        """What is here for others is missing all the same: nobody learns of it by its digest."""
        blobs, who, reply = request.message.blobs, request.who, request.defer()

        def job() -> MissingBlobs:
            there = self._context.may_name(who, blobs)
            return MissingBlobs(tuple(blob for blob in blobs if blob.digest not in there))

        self._actor.pipe(self._context.jobs.submit(who.id, job), reply.set, reply=reply)

    def status(self, request: Request[GetManagerStatus, None]) -> None:
        seen = request.seen
        shown = [record for id_, record in seen.clusters.items() if seen.sees(id_)]
        views = [self._context.cluster(record.id) for record in shown]
        names = Counter(record.name for record in shown)
        noticed = {
            record.name if names[record.name] == 1 else f"{record.name} ({record.id})": view.notice
            for record, view in zip(shown, views, strict=True)
            if view.notice
        }

        def answer(trouble: object) -> ManagerStatus:
            return ManagerStatus(
                version=VERSION,
                started_at=self._context.started_at,
                clusters=len(views),
                nodes_connected=sum(view.connected for view in views),
                swarms_active=sum(view.active_swarms for view in views),
                health={**self._context.troubles, "store": str(trouble or "ok"), **noticed},
            )

        self._forwarder.ask(STORE, GetHealth(), request.defer(), answer)
