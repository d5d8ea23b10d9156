"""Messages about quotas, from the SDK to the manager."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from manta.protocol.base import Named, requests
from manta.protocol.node import Message


class QuotaInfo(msgspec.Struct, frozen=True, omit_defaults=False):
    """`used` is None where nothing is counted for the subject; `limit` None: nothing bounds it."""

    name: str
    used: int | None
    limit: int | None
    source: str
    """Where the limit was set, or "the default"."""
    counts: str
    """What is counted, in the plural."""


class GetQuotas(Message, frozen=True):
    """Of a user (id, a beginning of one, or address), a role or a cluster; of none of them: of the
    sender."""

    user: Named | None = None
    role: Named | None = None
    cluster: Named | None = None


class GetSwarmQuotas(Message, frozen=True):
    """What one swarm has used of the quotas that swarms have."""

    swarm: Named


class SetQuota(Message, frozen=True):
    """Sets a limit for exactly one of a user, role or cluster; None takes it away again."""

    quota: Named
    limit: Annotated[int, msgspec.Meta(ge=0, le=1 << 53)] | None
    user: Named | None = None
    role: Named | None = None
    cluster: Named | None = None


class Quotas(Message, frozen=True):
    """`scope` is user, role, cluster or swarm; `subject` the address or name."""

    scope: str
    subject: str
    quotas: tuple[QuotaInfo, ...]


QuotaRequest: Any = requests({GetQuotas: Quotas, GetSwarmQuotas: Quotas, SetQuota: Quotas})
