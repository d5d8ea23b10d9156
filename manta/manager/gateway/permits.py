"""Decides who may ask what, and what a user sees of the platform."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from manta.actors.errors import Refused
from manta.manager.auth.principals import Kind, Principal
from manta.manager.auth.rights import Right, Rule
from manta.manager.directory import Directory
from manta.manager.gateway.part import Part, Request, Shared
from manta.manager.store.records import ClusterRecord
from manta.protocol.codes import Code


class Permits(Part):
    def __init__(self, shared: Shared) -> None:
        super().__init__(shared)
        self._last: tuple[Principal, Directory] | None = None
        """Who asked last, and what that one sees: most requests follow others of the same user."""

    def seen_by(self, who: Principal) -> Directory:
        """The part of the platform that the sender sees."""
        if who.kind is not Kind.USER:
            return self._directory
        if self._last is None or self._last[0] is not who:
            seen = self._directory.within(lambda one: self._roles.sees(who, one), who.id)
            self._last = who, seen
        return self._last[1]

    def check_platform(self, who: Principal, rule: Rule, name: str) -> None:
        """Raises Refused unless the sender meets what the rule asks apart from any one cluster.
        `name` is the message's."""
        if rule.admin and not who.admin:
            raise Refused(
                Code.FORBIDDEN,
                f"{name} was refused: only an administrator of the platform may; ask one.",
            )
        if rule.anywhere and rule.right is not None:
            self._roles.check_anywhere(who, rule.right, name)

    def check_cluster(self, request: Request[Any, Any]) -> None:
        """Raises Refused unless the sender has the right in the target's cluster, if it has one."""
        right, cluster_id = request.rule.right, request.cluster_id
        if right is not None and cluster_id is not None:
            cluster = self._directory.clusters.get(cluster_id)
            if cluster is None:  # its deletion is being stored
                raise Refused(Code.UNKNOWN_CLUSTER, "The cluster was deleted meanwhile.")
            self._roles.check(request.who, right, cluster, type(request.message).__name__)

    def recheck(self, request: Request[Any, Any]) -> None:
        """Raises Refused if the request, which has waited, could not be made any more."""
        who, rule, cluster_id = request.who, request.rule, request.cluster_id
        if self._context.principals.of(who.key).id != who.id:
            raise Refused(Code.NOT_SIGNED_IN, "This key was signed out; sign in again.")
        if rule.anywhere and rule.right is not None:
            self._roles.check_anywhere(who, rule.right, type(request.message).__name__)
        if cluster_id is None:
            return
        if cluster_id not in self._directory.clusters:
            raise Refused(Code.UNKNOWN_CLUSTER, "The cluster was deleted meanwhile.")
        if rule.right not in self._roles.rights(who, cluster_id):
            raise Refused(Code.FORBIDDEN, f"Your right {rule.right} was withdrawn meanwhile.")

    def if_still(self, request: Request[Any, Any]) -> Callable[[object], object]:
        """Returns a function that passes the answer on if the request could still be made."""

        def answer(result: object) -> object:
            self.recheck(request)
            return result

        return answer

    def clusters(self, who: Principal, right: Right) -> list[ClusterRecord]:
        """Those in which the user has the right."""
        there = self._directory.clusters
        if who.admin:
            return list(there.values())
        return [there[id_] for id_ in self._roles.where(who, right) if id_ in there]
