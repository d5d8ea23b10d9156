"""Answers questions about the manager as a whole."""

from __future__ import annotations

from collections.abc import Iterable

from manta.manager import notices
from manta.manager.context import STORE
from manta.manager.gateway.part import Part, Request
from manta.manager.store.actor import GetHealth
from manta.manager.store.records import ClusterRecord
from manta.protocol import pages
from manta.protocol.tree import Tree, tree_of
from manta.protocol.user import (
    FindMissingBlobs,
    GetManagerStatus,
    ManagerStatus,
    MissingBlobs,
    Swarms,
)
from manta.protocol.version import VERSION


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

    def tree(self, after: str) -> Tree:
        return tree_of(self._actor.system.tree(), after)

    def missing_blobs(self, request: Request[FindMissingBlobs, None]) -> None:
        blobs, holds, reply = request.message.blobs, self._context.holds, request.defer()

        def job() -> MissingBlobs:
            return MissingBlobs(tuple(blob for blob in blobs if not holds(blob.digest)))

        self._actor.pipe(self._context.workers.submit(job), reply.set, reply=reply)

    def status(self, request: Request[GetManagerStatus, None]) -> None:
        seen = request.seen
        views = {
            record.name: self._context.cluster(id_)
            for id_, record in seen.clusters.items()
            if seen.sees(id_)
        }
        noticed = {name: view.notice for name, view in views.items() if view.notice}

        def answer(trouble: object) -> ManagerStatus:
            return ManagerStatus(
                version=VERSION,
                started_at=self._context.started_at,
                clusters=len(views),
                nodes_connected=sum(view.connected for view in views.values()),
                swarms_active=sum(view.active_swarms for view in views.values()),
                health={**self._context.troubles, "store": str(trouble or "ok"), **noticed},
            )

        self._forwarder.ask(STORE, GetHealth(), request.defer(), answer)
