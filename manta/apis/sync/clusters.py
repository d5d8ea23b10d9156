# Generated from manta/apis/aio/clusters.py by `make generate`: do not edit.
"""The clusters of a manager."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from manta.apis import checks
from manta.apis.overviews import ClusterId, ClusterOverview
from manta.apis.sync.client import Client
from manta.protocol import clusters as messages
from manta.protocol.node import Ok

if TYPE_CHECKING:
    from manta.protocol.node import Message


class Clusters(Client):
    """A cluster is given as an overview, an id, a unique beginning of one, or a name."""

    def create_cluster(self, name: str) -> ClusterOverview:
        """Creates and starts a cluster. Raises NameTaken."""
        return self._cluster(messages.CreateCluster(checks.name("name", name)))

    def list_clusters(self) -> list[ClusterOverview]:
        """Lists the clusters that this user may see, oldest first."""
        found = self.connection.listed(
            messages.ListClusters, messages.Clusters, lambda page: page.clusters, lambda one: one.id
        )
        return [ClusterOverview.of(one) for one in sorted(found, key=lambda one: one.created_at)]

    def list_cluster_ids(self) -> list[str]:
        """Lists the ids of the clusters that this user may see, oldest first."""
        return [cluster.id for cluster in self.list_clusters()]

    def stream_clusters(self, *, follow: bool = False) -> Iterator[ClusterOverview]:
        """Yields each cluster; with `follow`, then each one that is new or changes."""
        follow = checks.flag("follow", follow)
        yield from self.connection.stream(
            self.list_clusters(),
            messages.WatchClusters,
            messages.Clusters,
            lambda page: map(ClusterOverview.of, page.clusters),
            lambda one: one.id,
            follow=follow,
        )

    def stream_and_fetch_clusters(self) -> list[ClusterOverview]:
        """Lists the ids and fetches each cluster; those deleted meanwhile are skipped."""
        return self._fetched(self.list_cluster_ids(), self.get_cluster)

    def get_cluster(self, cluster: ClusterId) -> ClusterOverview:
        """Returns a cluster. Raises NotFound, or Ambiguous when several ids begin like that."""
        return self._cluster(messages.GetCluster(checks.identity("cluster", cluster)), again=True)

    def start_cluster(self, cluster: ClusterId) -> ClusterOverview:
        """Starts a stopped cluster: tasks can be placed in it again. Raises NotFound."""
        return self._cluster(messages.StartCluster(checks.identity("cluster", cluster)))

    def stop_cluster(self, cluster: ClusterId) -> ClusterOverview:
        """Stops a cluster and its swarms; nothing is placed in it until it is started again."""
        return self._cluster(messages.StopCluster(checks.identity("cluster", cluster)))

    def delete_cluster(self, cluster: ClusterId) -> None:
        """Deletes a stopped cluster with its nodes and swarms.

        Raises NotFound, WrongState.
        """
        self._ask(messages.DeleteCluster(checks.identity("cluster", cluster)), Ok)

    def _cluster(self, message: Message, *, again: bool = False) -> ClusterOverview:
        answer = self._ask(message, messages.ClusterInfo, again=again)
        return ClusterOverview.of(answer)
