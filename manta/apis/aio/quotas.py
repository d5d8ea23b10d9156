"""How much a user, a cluster or a swarm may take of the manager."""

from __future__ import annotations

from manta.apis import checks
from manta.apis.aio.client import AsyncClient
from manta.apis.errors import InvalidArgument, ProtocolViolation
from manta.apis.overviews import ClusterId, QuotaOverview, SwarmId, UserId
from manta.protocol import quotas


class AsyncQuotas(AsyncClient):
    """A limit set for a user comes before one set for a cluster, that before one for a role, and
    that before the default."""

    async def get_quotas(
        self,
        user: UserId | None = None,
        role: str | None = None,
        cluster: ClusterId | None = None,
        swarm: SwarmId | None = None,
    ) -> list[QuotaOverview]:
        """Lists all quotas of a user, role, cluster or swarm, with what is used of each; of none of
        them: your own. Other users' are for administrators."""
        if swarm is not None:
            if (user, role, cluster) != (None, None, None):
                raise InvalidArgument("swarm is given with another: ask for the quotas of one.")
            of_swarm = quotas.GetSwarmQuotas(checks.identity("swarm", swarm))
            answer = await self._ask(of_swarm, quotas.Quotas, again=True)
        else:
            of_others = quotas.GetQuotas(
                checks.optional_identity("user", user),
                None if role is None else checks.name("role", role),
                checks.optional_identity("cluster", cluster),
            )
            answer = await self._ask(of_others, quotas.Quotas, again=True)
        return [QuotaOverview.of(quota) for quota in answer.quotas]

    async def set_quota(
        self,
        quota: str,
        limit: int | str | None,
        user: UserId | None = None,
        role: str | None = None,
        cluster: ClusterId | None = None,
    ) -> QuotaOverview:
        """Sets a limit for one user, role or cluster; None takes it away again. For administrators.

        The limit is a number, or of bytes a text such as "20 GiB". What is there already stays.
        """
        name = checks.name("quota", quota)
        request = quotas.SetQuota(
            name,
            None if limit is None else checks.size("limit", limit),
            checks.optional_identity("user", user),
            None if role is None else checks.name("role", role),
            checks.optional_identity("cluster", cluster),
        )
        answer = await self._ask(request, quotas.Quotas)
        for one in answer.quotas:
            if one.name == name:
                return QuotaOverview.of(one)
        raise ProtocolViolation(f"The manager does not say what became of the quota {name!r}.")
