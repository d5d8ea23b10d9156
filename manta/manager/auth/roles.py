"""The rights of a user in a cluster. Pure.

One actor writes; any thread may read, so that an answer can be checked before it is sent.
"""

from __future__ import annotations

from collections.abc import Iterable

from manta.actors.errors import Refused
from manta.manager.auth.principals import Principal
from manta.manager.auth.rights import Right
from manta.manager.store.change import Change
from manta.manager.store.interface import Delete, Put
from manta.manager.store.records import ClusterRecord, GrantRecord, RoleRecord
from manta.protocol.codes import Code

OWNER = "owner"
_READS = frozenset({Right.CLUSTER_READ, Right.NODE_READ, Right.SWARM_READ, Right.MODULE_READ})
BUILTIN: dict[str, frozenset[str]] = {
    "viewer": _READS,
    "researcher": _READS | {Right.SWARM_DEPLOY, Right.MODULE_WRITE},
    "operator": _READS | {Right.NODE_ENROL, Right.NODE_MANAGE},
    OWNER: frozenset(Right),
}


class Roles:
    def __init__(
        self, grants: Iterable[GrantRecord] = (), definitions: Iterable[RoleRecord] = ()
    ) -> None:
        self.grants = {(grant.user_id, grant.cluster_id): grant.role for grant in grants}
        self.defined = {role.name: frozenset(role.rights) for role in definitions}
        self._places: dict[str, dict[str, None]] = {}
        """By user: the clusters of roles that were ever granted, or are about to be."""
        for user, cluster in self.grants:
            self._places.setdefault(user, {})[cluster] = None

    def rights_of_role(self, role: str) -> frozenset[str]:
        return BUILTIN.get(role) or self.defined.get(role) or frozenset()

    def rights(self, who: Principal, cluster_id: str) -> frozenset[str]:
        if who.admin:
            return BUILTIN[OWNER]
        return self.rights_of_role(self.grants.get((who.id, cluster_id), ""))

    def sees(self, who: Principal, cluster_id: str) -> bool:
        """Whether the user sees that the cluster exists."""
        return who.admin or (who.id, cluster_id) in self.grants

    def of_user(self, user_id: str) -> dict[str, str]:
        """The user's role in each cluster."""
        places = list(self._places.get(user_id, ()))
        roles = ((cluster, self.grants.get((user_id, cluster))) for cluster in places)
        return {cluster: role for cluster, role in roles if role is not None}

    def where(self, who: Principal, right: Right) -> list[str]:
        """The clusters in which a user who is no administrator has the right."""
        own = self.of_user(who.id).items()
        return [cluster for cluster, role in own if right in self.rights_of_role(role)]

    def revoke(self, change: Change, user_id: str, cluster_id: str) -> None:
        """Takes the user's role in the cluster away."""
        grant = GrantRecord(user_id, cluster_id, self.grants[user_id, cluster_id])
        change.remove(self.grants, (user_id, cluster_id))
        change.write(Delete(GrantRecord, grant.key))

    def grant(self, change: Change, user_id: str, cluster_id: str, role: str) -> None:
        self._places.setdefault(user_id, {})[cluster_id] = None
        change.set(self.grants, (user_id, cluster_id), role)
        change.write(Put(GrantRecord(user_id, cluster_id, role)))

    def owners(self, cluster_id: str) -> set[str]:
        return {
            user
            for (user, cluster), role in self.grants.items()
            if cluster == cluster_id and role == OWNER
        }

    def check(self, who: Principal, right: Right, cluster: ClusterRecord, name: str) -> None:
        """Raises Refused, to the message of that name, unless the user has the right there."""
        if right in self.rights(who, cluster.id):
            return
        role = self.grants.get((who.id, cluster.id), "no role")
        raise Refused(
            Code.FORBIDDEN,
            f"{name} needs the right {right} in the cluster {cluster.name!r}, and as {role} "
            "you do not have it; an owner of the cluster or an administrator can grant a role "
            "that includes it (manta role grant).",
        )

    def check_anywhere(self, who: Principal, right: Right, name: str) -> None:
        """Raises Refused unless the user has the right in some cluster."""
        own = self.of_user(who.id)
        if who.admin or any(right in self.rights_of_role(role) for role in own.values()):
            return
        has = f"as {', '.join(sorted(set(own.values())))}" if own else "without a role"
        raise Refused(
            Code.FORBIDDEN,
            f"{name} needs the right {right} in some cluster, and {has} you do not have it; "
            "an owner of a cluster or an administrator can grant a role that includes it "
            "(manta role grant).",
        )
