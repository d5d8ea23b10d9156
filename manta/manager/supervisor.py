"""The root of the manager's tree."""

from __future__ import annotations

from functools import partial

from manta.actors import ChildSpec, Supervisor
from manta.manager.blobs import Blobs
from manta.manager.cluster.supervisor import cluster_spec
from manta.manager.context import Context
from manta.manager.gateway.gateway import Gateway
from manta.manager.store.actor import StoreActor
from manta.manager.store.records import ClusterRecord


class ManagerSupervisor(Supervisor):
    intensity = 10
    period = 60.0

    def __init__(self, context: Context) -> None:
        self._context = context

    def children(self) -> list[ChildSpec]:
        """The Gateway is last, so that messages from outside find all others running."""
        context = self._context
        clusters = context.reader.all(ClusterRecord)
        return [
            ChildSpec("store", partial(StoreActor, context.open_store, context.workers)),
            ChildSpec("blobs", partial(Blobs, context)),
            *(cluster_spec(context, record.id) for record in clusters),
            ChildSpec("gateway", partial(Gateway, context)),
        ]
