"""The clusters of a manager."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from manta.apis import checks
from manta.apis.aio.client import AsyncClient
from manta.apis.overviews import ClusterId, ClusterOverview
from manta.protocol import clusters as messages
from manta.protocol.node import Ok

if TYPE_CHECKING:
    from manta.protocol.node import Message


class AsyncClusters(AsyncClient):
    """A cluster is given as an overview, an id, a unique beginning of one, or a name."""

    async def create_cluster(self, name: str) -> ClusterOverview:
        """Creates and starts a cluster. Raises NameTaken."""
        return await self._cluster(messages.CreateCluster(checks.name("name", name)))

    async def list_clusters(self) -> list[ClusterOverview]:
        """Lists the clusters that this user may see, oldest first."""
        found = await self.connection.listed(
            messages.ListClusters, messages.Clusters, lambda page: page.clusters, lambda one: one.id
        )
        return [ClusterOverview.of(one) for one in sorted(found, key=lambda one: one.created_at)]

    async def list_cluster_ids(self) -> list[str]:
        """Lists the ids of the clusters that this user may see, oldest first."""
        return [cluster.id for cluster in await self.list_clusters()]

    async def stream_clusters(self, *, follow: bool = False) -> AsyncIterator[ClusterOverview]:
        """Yields each cluster; with `follow`, then each one that is new or changes."""
        follow = checks.flag("follow", follow)
        async for cluster in self.connection.stream(
            await self.list_clusters(),
            messages.WatchClusters,
            messages.Clusters,
            lambda page: map(ClusterOverview.of, page.clusters),
            lambda one: one.id,
            follow=follow,
        ):
            yield cluster

    async def stream_and_fetch_clusters(self) -> list[ClusterOverview]:
        """Lists the ids and fetches each cluster; those deleted meanwhile are skipped."""
        return await self._fetched(await self.list_cluster_ids(), self.get_cluster)

    async def get_cluster(self, cluster: ClusterId) -> ClusterOverview:
        """Returns a cluster. Raises NotFound, or Ambiguous when several ids begin like that."""
        return await self._cluster(
            messages.GetCluster(checks.identity("cluster", cluster)), again=True
        )

    async def start_cluster(self, cluster: ClusterId) -> ClusterOverview:
        """Starts a stopped cluster: tasks can be placed in it again. Raises NotFound."""
        return await self._cluster(messages.StartCluster(checks.identity("cluster", cluster)))

    async def stop_cluster(self, cluster: ClusterId) -> ClusterOverview:
        """Stops a cluster and its swarms; nothing is placed in it until it is started again."""
        return await self._cluster(messages.StopCluster(checks.identity("cluster", cluster)))

    async def delete_cluster(self, cluster: ClusterId) -> None:
        """Deletes a stopped cluster with its nodes and swarms.

        Raises NotFound, WrongState.
        """
        await self._ask(messages.DeleteCluster(checks.identity("cluster", cluster)), Ok)

    async def _cluster(self, message: Message, *, again: bool = False) -> ClusterOverview:
        answer = await self._ask(message, messages.ClusterInfo, again=again)
        return ClusterOverview.of(answer)
