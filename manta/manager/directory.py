"""Finds clusters, nodes and swarms by id, unique prefix of an id, or name. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

import msgspec

from manta.actors.errors import Refused
from manta.manager.placement.names import listed
from manta.manager.store.records import ClusterRecord, NodeRecord
from manta.protocol.codes import Code

T = TypeVar("T")


class SwarmEntry(msgspec.Struct, frozen=True):
    id: str
    name: str
    cluster_id: str


class Directory:
    def __init__(
        self,
        clusters: Iterable[ClusterRecord] = (),
        nodes: Iterable[NodeRecord] = (),
        swarms: Iterable[SwarmEntry] = (),
    ) -> None:
        self.clusters = {record.id: record for record in clusters}
        self.nodes = {record.id: record for record in nodes}
        self.swarms = {entry.id: entry for entry in swarms}

    def within(self, sees: Callable[[str], bool]) -> Directory:
        """Only the clusters that somebody sees, with their nodes and swarms."""
        clusters = {id_ for id_ in self.clusters if sees(id_)}
        return Directory(
            (self.clusters[id_] for id_ in clusters),
            (one for one in self.nodes.values() if one.cluster_id in clusters),
            (one for one in self.swarms.values() if one.cluster_id in clusters),
        )

    # Each raises Refused, which names what there is.

    def cluster(self, name: str) -> ClusterRecord:
        names = {id_: record.name for id_, record in self.clusters.items()}
        return _find("cluster", Code.UNKNOWN_CLUSTER, name, self.clusters, names)

    def node(self, name: str, cluster: str | None = None) -> NodeRecord:
        nodes = self.nodes
        if cluster is not None:
            within = self.cluster(cluster).id
            nodes = {record.id: record for record in self.nodes_of(within)}
        aliases = {id_: record.alias for id_, record in nodes.items()}
        return _find("node", Code.UNKNOWN_NODE, name, nodes, aliases)

    def nodes_named(self, names: Iterable[str], cluster: str) -> list[NodeRecord]:
        """Raises Refused, which names the nodes that there are."""
        nodes = {record.id: record for record in self.nodes_of(cluster)}
        aliases = {id_: record.alias for id_, record in nodes.items()}
        try:
            return [_find("node", Code.UNKNOWN_NODE, name, nodes, aliases) for name in names]
        except Refused as refused:
            if refused.code != Code.UNKNOWN_NODE:
                raise
            there = listed(
                sorted(
                    alias if alias == id_ else f"{alias} ({id_})" for id_, alias in aliases.items()
                )
            )
            first = refused.sentence.partition(";")[0]
            raise Refused(refused.code, f"{first} in this cluster; there are {there}.") from refused

    def swarm(self, name: str) -> SwarmEntry:
        names = {id_: entry.name for id_, entry in self.swarms.items()}
        return _find("swarm", Code.UNKNOWN_SWARM, name, self.swarms, names)

    def nodes_of(self, cluster_id: str) -> list[NodeRecord]:
        return [record for record in self.nodes.values() if record.cluster_id == cluster_id]

    def check_alias(self, alias: str, cluster_id: str, *, node_id: str = "") -> None:
        """Raises Refused if another node of the cluster has the alias."""
        for record in self.nodes_of(cluster_id):
            if record.alias == alias and record.id != node_id:
                raise Refused(
                    Code.ALIAS_TAKEN,
                    f"The alias {alias!r} is taken by the node {record.id} of this cluster; "
                    f"choose another one, or remove that node (manta node rm {record.id}).",
                )

    def check_cluster_name(self, name: str) -> None:
        """Raises Refused if another cluster has this name or id."""
        for record in self.clusters.values():
            if name in (record.name, record.id):
                raise Refused(
                    Code.NAME_TAKEN,
                    f"There is a cluster {name!r} already ({record.id}); choose another name.",
                )


def _find(
    what: str, unknown: Code, wanted: str, items: Mapping[str, T], names: Mapping[str, str]
) -> T:
    if wanted in items:
        return items[wanted]
    found = [id_ for id_, name in names.items() if name == wanted]
    if not found and wanted:
        found = [id_ for id_ in items if id_.startswith(wanted)]
    if len(found) == 1:
        return items[found[0]]
    if found:
        some = ", ".join(sorted(found)[:5]) + (", ..." if len(found) > 5 else "")
        raise Refused(
            Code.AMBIGUOUS,
            f"{wanted!r} may be any of {len(found)} {what}s ({some}); give more of the id.",
            {"ids": sorted(found)[:20]},
        )
    raise Refused(
        unknown, f"There is no {what} {wanted!r}; see `manta {_LIST[what]}` for those there are."
    )


_LIST = {"cluster": "cluster list", "node": "node list", "swarm": "ps"}
