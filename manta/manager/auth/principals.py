"""Who a key belongs to, and until when.

The key that the handshake proved is the identity; messages do not name their sender.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum

import msgspec

from manta.manager.store.records import (
    ADMIN_ROLE,
    KeyKind,
    KeyRecord,
    NodeRecord,
    TokenRecord,
    UserRecord,
)
from manta.protocol.tokens import USER_AUDIENCE


class Kind(StrEnum):
    GUEST = "guest"  # an unknown key
    NODE = "node"
    USER = "user"
    REMOVED = "removed"  # the key of a node that a user removed


class Principal(msgspec.Struct, frozen=True):
    kind: Kind
    key: str
    id: str = ""
    """The user's or node's."""
    name: str = ""
    """The user's address or the node's alias, for sentences."""
    cluster_id: str = ""
    """The node's."""
    admin: bool = False
    """Whether it is a user with every right in every cluster."""
    expires_at: float | None = None
    """When the key's token expires, and with it what the key may do."""


class Principals:
    """Who each key belongs to. One actor writes; any thread may read.

    `now` is the time in seconds since the epoch.
    """

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._by_key: dict[str, Principal] = {}

    def load(
        self,
        keys: Iterable[KeyRecord],
        nodes: Iterable[NodeRecord],
        users: Iterable[UserRecord],
    ) -> None:
        nodes_by_id = {record.id: record for record in nodes}
        users_by_id = {record.id: record for record in users}
        found: dict[str, Principal] = {}
        for key in keys:
            if key.kind == KeyKind.REMOVED:
                found[key.key] = Principal(Kind.REMOVED, key.key, key.subject)
            elif key.kind == KeyKind.NODE and key.subject in nodes_by_id:
                found[key.key] = of_node(nodes_by_id[key.subject])
            elif key.kind == KeyKind.USER and key.subject in users_by_id:
                found[key.key] = of_user(users_by_id[key.subject], key)
        self._by_key = found

    def learn(self, principal: Principal) -> None:
        self._by_key[principal.key] = principal

    def forget(self, key: str) -> None:
        self._by_key.pop(key, None)

    def of(self, key: str) -> Principal:
        """Of a key whose token has expired it is a guest."""
        found = self._by_key.get(key)
        if found is None or (found.expires_at is not None and found.expires_at <= self._now()):
            return Principal(Kind.GUEST, key)
        return found

    def owner_of(self, key: str) -> str:
        """What all keys of one user or node have in common."""
        whose = self.of(key)
        return f"{whose.kind} {whose.id}" if whose.id else key

    def keys(self) -> tuple[str, ...]:
        """Those of nodes and users."""
        known = (Kind.NODE, Kind.USER)
        return tuple(key for key, whose in self._by_key.items() if whose.kind in known)

    def expired(self) -> list[str]:
        """The keys whose token has expired, and that are not forgotten yet."""
        now = self._now()
        return [key for key, until in self._expiries() if until <= now]

    def first_expiry(self) -> float | None:
        """When the next one expires; None if none ever does."""
        return min((until for _, until in self._expiries()), default=None)

    def _expiries(self) -> Iterator[tuple[str, float]]:
        for key, principal in self._by_key.items():
            if principal.expires_at is not None:
                yield key, principal.expires_at


def of_node(record: NodeRecord) -> Principal:
    return Principal(Kind.NODE, record.key, record.id, record.alias, record.cluster_id)


def of_user(record: UserRecord, key: KeyRecord) -> Principal:
    return Principal(
        Kind.USER,
        key.key,
        record.id,
        record.email,
        admin=record.role == ADMIN_ROLE,
        expires_at=key.expires_at,
    )


def with_expiry(keys: Iterable[KeyRecord], tokens: Iterable[TokenRecord]) -> list[KeyRecord]:
    """The keys, each of which knows when its token expires. An earlier version stored that with
    the token alone."""
    expiries: dict[str, float] = {}
    for token in tokens:
        if token.audience == USER_AUDIENCE and not token.revoked:
            family = token.family or token.digest
            expiries[family] = max(token.expires_at, expiries.get(family, 0.0))
    return [
        msgspec.structs.replace(key, expires_at=expiries.get(key.family, 0.0))
        if key.kind == KeyKind.USER and key.family and key.expires_at is None
        else key
        for key in keys
    ]
