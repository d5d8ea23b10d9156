"""What applies to whom: the limits that are set, by user, role and cluster, and the defaults.

    of a user's quota     set for the user, else the highest of those set for the user's roles,
                          else the default
    of a swarm's quota    set for its owner, else for its cluster, else for the owner's role
                          there, else the default

One actor writes; any thread may read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from manta.manager.auth.roles import Roles
from manta.manager.quotas.table import TABLE, Limit, Quota
from manta.manager.store.change import Change
from manta.manager.store.records import ADMIN_ROLE, USER_ROLE, QuotaRecord, UserRecord


class Limits:
    def __init__(self, records: Iterable[QuotaRecord] = ()) -> None:
        self.records = {record.key: record for record in records}
        self._granted = Roles()
        self._users: Mapping[str, UserRecord] = {}

    def know(self, roles: Roles, users: Mapping[str, UserRecord]) -> None:
        """They are looked up when they are needed."""
        self._granted, self._users = roles, users

    def set_for(self, scope: str, subject: str) -> Mapping[str, int]:
        record = self.records.get(f"{scope}/{subject}")
        return record.limits if record else {}

    def of(self, quota: Quota, user_id: str, cluster_id: str = "") -> Limit:
        """`cluster_id`: of the swarm whose quota it is."""
        if not self.records:  # as mostly, and it is asked with each batch that a node sends
            return self._default(quota, user_id)
        if (own := self._found(quota, "user", user_id, "for the user")) is not None:
            return own
        if TABLE[quota].of_swarm:
            there = self._found(quota, "cluster", cluster_id, "for the cluster")
            if there is not None:
                return there
        by_role = [
            found
            for role in self._roles(user_id, cluster_id)
            if (found := self._found(quota, "role", role, f"for the role {role}")) is not None
        ]
        return max(by_role) if by_role else self._default(quota, user_id)

    def of_cluster(self, quota: Quota, cluster_id: str) -> Limit | None:
        """What bounds all users in the cluster together; None if nothing does."""
        return self._found(quota, "cluster", cluster_id, "for the cluster")

    def of_role(self, quota: Quota, role: str) -> Limit:
        row = TABLE[quota]
        default = row.of_admins if role == ADMIN_ROLE else row.default
        return self._found(quota, "role", role, "for the role") or Limit(default, "the default")

    def name(self, user_id: str) -> str:
        user = self._users.get(user_id)
        return user.email if user else user_id

    def forget(self, change: Change, scope: str, subject: str) -> None:
        """Deletes what was set for a user, role or cluster that the change deletes."""
        if (record := self.records.get(f"{scope}/{subject}")) is not None:
            change.delete(self.records, record)

    def _default(self, quota: Quota, user_id: str) -> Limit:
        row = TABLE[quota]
        return Limit(row.of_admins if self._is_admin(user_id) else row.default, "the default")

    def _found(self, quota: Quota, scope: str, subject: str, whose: str) -> Limit | None:
        value = self.set_for(scope, subject).get(quota)
        return None if value is None else Limit(value, f"set {whose}")

    def _is_admin(self, user_id: str) -> bool:
        user = self._users.get(user_id)
        return user is not None and user.role == ADMIN_ROLE

    def _roles(self, user_id: str, cluster_id: str) -> list[str]:
        platform = ADMIN_ROLE if self._is_admin(user_id) else USER_ROLE
        if cluster_id:
            role = self._granted.grants.get((user_id, cluster_id))
            return [platform, *([role] if role else [])]
        return [platform, *self._granted.of_user(user_id).values()]
