"""Shows and sets quotas."""

from __future__ import annotations

from manta.actors import Refused
from manta.manager.auth.principals import Principal
from manta.manager.auth.rights import Right
from manta.manager.auth.roles import BUILTIN
from manta.manager.gateway.part import Part, Request, Shared
from manta.manager.gateway.registrar import Registrar
from manta.manager.gateway.users import Users
from manta.manager.quotas.table import PLATFORM_ROLES, TABLE, Limit, Quota, find
from manta.manager.store.change import Change
from manta.manager.store.interface import Delete
from manta.manager.store.records import QuotaRecord
from manta.protocol import quotas
from manta.protocol.codes import Code
from manta.protocol.names import meant


class QuotaSettings(Part):
    def __init__(self, shared: Shared, registrar: Registrar, users: Users) -> None:
        super().__init__(shared)
        self._registrar = registrar
        self._users = users
        self._quotas = self._context.quotas
        self._limits = self._quotas.limits

    def get(self, request: Request[quotas.GetQuotas, None]) -> quotas.Quotas:
        message, who = request.message, request.who
        scope, subject = self._subject(request, message.user, message.role, message.cluster)
        if scope == "user" and subject != who.id and not who.admin:
            raise Refused(
                Code.FORBIDDEN,
                "GetQuotas was refused: only an administrator sees the quotas of other users.",
            )
        return self._shown(scope, subject)

    def set(self, request: Request[quotas.SetQuota, None]) -> None:
        message, reply = request.message, request.defer()
        quota, given = find(message.quota), (message.user, message.role, message.cluster)
        if sum(one is not None for one in given) != 1:
            raise Refused(
                Code.INVALID, "A quota is set for one user, one role or one cluster: name one."
            )
        scope, subject = self._subject(request, *given)
        row = TABLE[quota]
        if scope == "cluster" and not (row.of_swarm or row.in_cluster):
            raise Refused(
                Code.INVALID,
                f"The quota {quota} is a user's, whatever the cluster: set it for a user or role.",
            )
        limits = dict(self._limits.set_for(scope, subject))
        limits.pop(quota, None)
        if message.limit is not None:
            limits[str(quota)] = message.limit
        record, change = QuotaRecord(scope, subject, limits), Change(self._writer)
        before = self._limits.records.get(record.key)
        if limits:
            change.put(self._limits.records, record)
        elif before is not None:
            change.remove(self._limits.records, record.key)
            change.write(Delete(QuotaRecord, record.key))

        def stored() -> None:
            shown = self._shown(scope, subject)
            self._actor.log.warning(
                "%s set the quota %s of the %s %s: %s",
                *(request.who.name, quota, scope, shown.subject),
                "as by default" if message.limit is None else message.limit,
            )
            reply.set(shown)

        change.commit(reply, stored)

    def _subject(
        self,
        request: Request[quotas.GetQuotas | quotas.SetQuota, None],
        user: str | None,
        role: str | None,
        cluster: str | None,
    ) -> tuple[str, str]:
        """The scope, and the id of a user or cluster or the name of a role. Raises Refused."""
        who = request.who
        if sum(one is not None for one in (user, role, cluster)) > 1:
            raise Refused(Code.INVALID, "Name one user, one role or one cluster.")
        if role is not None:
            known = [*PLATFORM_ROLES, *BUILTIN, *sorted(self._roles.defined)]
            if role not in known:
                sentence = f"There is no role {role!r}; there are: {', '.join(known)}."
                raise Refused(Code.UNKNOWN_ROLE, sentence + meant(role, known))
            return "role", role
        if cluster is not None:
            record = request.seen.cluster(cluster)
            self._roles.check(who, Right.CLUSTER_READ, record, type(request.message).__name__)
            return "cluster", record.id
        return "user", self._user_id(user, who)

    def _user_id(self, name: str | None, who: Principal) -> str:
        return self._users.get(name, who).id

    def _shown(self, scope: str, subject: str) -> quotas.Quotas:
        shown: list[quotas.QuotaInfo] = []
        for quota, row in TABLE.items():
            used, limit = self._of(scope, subject, quota)
            if scope == "cluster" and not (row.of_swarm or row.in_cluster):
                continue
            value, source = limit or (None, "nothing bounds all users together")
            shown.append(quotas.QuotaInfo(str(quota), used, value, source, row.what))
        return quotas.Quotas(scope, self._named(scope, subject), tuple(shown))

    def _of(self, scope: str, subject: str, quota: Quota) -> tuple[int | None, Limit | None]:
        """What the subject has, and the limit."""
        used = None if TABLE[quota].of_swarm else self._quotas.ledger.used(quota, subject)
        if quota is Quota.TOKENS:
            used = self._registrar.valid_tokens(subject)
        if scope == "user":
            return used, self._quotas.limit(quota, subject)
        if scope == "role":
            return None, self._limits.of_role(quota, subject)
        return used, self._limits.of_cluster(quota, subject)

    def _named(self, scope: str, subject: str) -> str:
        if scope == "user":
            return self._limits.name(subject)
        if scope == "cluster" and subject in self._directory.clusters:
            return self._directory.clusters[subject].name
        return subject
