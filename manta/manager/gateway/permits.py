"""Who may ask what, and what he sees of the platform: the table of rights, applied."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from manta.actors.errors import Refused
from manta.manager.auth.principals import Principal, Principals
from manta.manager.auth.rights import RIGHTS, Right, Row, Where
from manta.manager.auth.roles import Roles
from manta.manager.directory import Directory
from manta.manager.store.records import ClusterRecord
from manta.protocol.codes import Code
from manta.protocol.node import Message


class Permits:
    def __init__(self, principals: Principals, roles: Roles, directory: Directory) -> None:
        self._principals = principals
        self._roles = roles
        self._directory = directory

    def seen_by(self, who: Principal) -> Directory:
        """What exists as far as he is concerned."""
        if who.admin:
            return self._directory
        return self._directory.within(lambda cluster_id: self._roles.sees(who, cluster_id))

    def check(self, message: object, who: Principal, find: Directory) -> None:
        """Raises Refused unless the user has the right that the message's row asks for."""
        row, name = RIGHTS[type(cast("Message", message))], type(message).__name__
        if row.admin and not who.admin:
            raise Refused(
                Code.FORBIDDEN,
                f"{name} was refused: only an administrator of the platform may; ask one.",
            )
        if row.where is Where.ANY:
            self._roles.check_anywhere(who, row, name)
        elif (cluster_id := _cluster_of(message, row, find)) is not None:
            self._roles.check(who, row, find.clusters[cluster_id], name)

    def recheck(self, who: Principal, message: object, cluster_id: str | None) -> None:
        """What has waited is answered only if it could still be asked. Raises Refused."""
        row = RIGHTS[type(cast("Message", message))]
        if self._principals.of(who.key).id != who.id:
            raise Refused(Code.NOT_SIGNED_IN, "This key was signed out; sign in again.")
        if row.where is Where.ANY:
            self._roles.check_anywhere(who, row, type(message).__name__)
        if cluster_id is None:
            return
        if cluster_id not in self._directory.clusters:
            raise Refused(Code.UNKNOWN_CLUSTER, "The cluster was deleted meanwhile.")
        if row.right not in self._roles.rights(who, cluster_id):
            raise Refused(Code.FORBIDDEN, f"Your right {row.right} was withdrawn meanwhile.")

    def if_still(
        self, who: Principal, message: object, cluster_id: str
    ) -> Callable[[object], object]:
        """Passes an answer on, if it may still be given."""

        def answer(result: object) -> object:
            self.recheck(who, message, cluster_id)
            return result

        return answer

    def readable(self, who: Principal) -> list[str]:
        """The clusters whose swarms he may read."""
        return [
            id_
            for id_ in self._directory.clusters
            if Right.SWARM_READ in self._roles.rights(who, id_)
        ]

    def visible(self, who: Principal) -> list[ClusterRecord]:
        """The clusters that he may read."""
        return [
            record
            for record in self._directory.clusters.values()
            if Right.CLUSTER_READ in self._roles.rights(who, record.id)
        ]


def _cluster_of(message: Any, row: Row, find: Directory) -> str | None:
    """Where the right is needed; None for a message about no cluster. Raises Refused."""
    match row.where:
        case Where.CLUSTER if message.cluster is not None:
            return find.cluster(message.cluster).id
        case Where.NODE:
            return find.node(message.node, getattr(message, "cluster", None)).cluster_id
        case Where.SWARM:
            return find.swarm(message.swarm).cluster_id
    return None
