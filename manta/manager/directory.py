"""Finds clusters, nodes and swarms by id, unique prefix of an id, or name. Pure."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import TypeVar

import msgspec

from manta.actors.errors import Refused
from manta.manager.store.records import ClusterRecord, NodeRecord
from manta.protocol.codes import Code
from manta.protocol.names import listed, meant


class SwarmEntry(msgspec.Struct, frozen=True):
    id: str
    name: str
    cluster_id: str


T = TypeVar("T", ClusterRecord, NodeRecord, SwarmEntry)


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
        self.sees: Callable[[str], bool] = lambda cluster_id: True
        self.user_id = ""

    def within(self, sees: Callable[[str], bool], user_id: str = "") -> Directory:
        """Has the same tables, but finds only clusters that somebody sees, and what is in them; of
        several of one name, the user's own."""
        part = copy.copy(self)
        part.sees, part.user_id = sees, user_id
        return part

    # Each raises Refused, which names what there is.

    def cluster(self, name: str) -> ClusterRecord:
        if self.user_id and name not in self.clusters:
            named = (one for one in self.clusters.values() if one.name == name)
            own = [one for one in named if one.owner_id == self.user_id and self.sees(one.id)]
            if len(own) == 1:
                return own[0]
        return _find("cluster", name, self.clusters, self.sees)

    def node(self, name: str, cluster: str | None = None) -> NodeRecord:
        if cluster is None:
            return _find("node", name, self.nodes, self.sees)
        return _find("node", name, self.nodes, self.cluster(cluster).id.__eq__)

    def check_nodes(self, names: Iterable[str], cluster: str) -> None:
        """Raises Refused, which names the nodes that there are."""
        for name in names:
            try:
                self.node(name, cluster)
            except Refused as refused:
                if refused.code != Code.UNKNOWN_NODE:
                    raise
                raise self._unknown_node(name, cluster) from refused

    def _unknown_node(self, name: str, cluster: str) -> Refused:
        there = self.nodes_of(cluster)
        shown = sorted(
            node.alias if node.alias == node.id else f"{node.alias} ({node.id})" for node in there
        )
        return Refused(
            Code.UNKNOWN_NODE,
            f"There is no node {name!r} in this cluster; there are {listed(shown)}."
            + meant(name, (node.alias for node in there)),
        )

    def swarm(self, name: str) -> SwarmEntry:
        return _find("swarm", name, self.swarms, self.sees)

    def nodes_of(self, cluster_id: str) -> list[NodeRecord]:
        return [record for record in self.nodes.values() if record.cluster_id == cluster_id]

    def node_with(self, key: str) -> NodeRecord | None:
        return next((record for record in self.nodes.values() if record.key == key), None)

    def check_alias(self, alias: str, cluster_id: str, *, node_id: str = "") -> None:
        """Raises Refused if another node of the cluster has the alias."""
        for record in self.nodes_of(cluster_id):
            if record.alias == alias and record.id != node_id:
                raise Refused(
                    Code.ALIAS_TAKEN,
                    f"The alias {alias!r} is taken by another node of this cluster; "
                    f"choose another one, or remove that node (manta node rm {alias}).",
                )

    def check_cluster_name(self, name: str) -> None:
        """Raises Refused if another cluster that is seen has this name or id. Those that are not
        seen may have it: nobody learns of them by their names."""
        for record in self.clusters.values():
            if name in (record.name, record.id) and self.sees(record.id):
                raise Refused(
                    Code.NAME_TAKEN,
                    f"There is a cluster {name!r} already ({record.id}); choose another name.",
                )


def not_run(swarm_id: str) -> Refused:
    """For a node that asks about a swarm of which it runs nothing, whether or not it is there."""
    return Refused(Code.UNKNOWN_SWARM, f"This node runs nothing of a swarm {swarm_id!r}.")


def cluster_id_of(one: ClusterRecord | NodeRecord | SwarmEntry) -> str:
    return one.id if isinstance(one, ClusterRecord) else one.cluster_id


def _find(what: str, wanted: str, items: dict[str, T], sees: Callable[[str], bool]) -> T:
    exact = items.get(wanted)
    if exact is not None and sees(cluster_id_of(exact)):
        return exact
    name = "alias" if what == "node" else "name"
    found = [one for one in items.values() if getattr(one, name) == wanted]
    found = [one for one in found if sees(cluster_id_of(one))]
    if not found and wanted:
        found = [
            one for one in items.values() if one.id.startswith(wanted) and sees(cluster_id_of(one))
        ]
    if len(found) == 1:
        return found[0]
    if found:
        ids = sorted(one.id for one in found)
        some = ", ".join(ids[:5]) + (", ..." if len(ids) > 5 else "")
        raise Refused(
            Code.AMBIGUOUS,
            f"{wanted!r} may be any of {len(ids)} {what}s ({some}); give more of the id.",
            {"ids": ids[:20]},
        )
    unknown, command = _KINDS[what]
    newest_first = (getattr(o, name) for o in reversed(items.values()) if sees(cluster_id_of(o)))
    raise Refused(
        unknown,
        f"There is no {what} {wanted!r}; see `manta {command}` for those there are."
        + meant(wanted, newest_first),
    )


_KINDS = {
    "cluster": (Code.UNKNOWN_CLUSTER, "cluster list"),
    "node": (Code.UNKNOWN_NODE, "node list"),
    "swarm": (Code.UNKNOWN_SWARM, "ps"),
}
