"""Who a key belongs to. Pure.

The key that the handshake proved is the identity; messages do not name their sender.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable
from enum import StrEnum

import msgspec

from manta.actors.errors import Refused
from manta.manager.store.records import (
    ADMIN_ROLE,
    KeyKind,
    KeyRecord,
    NodeRecord,
    UserRecord,
)
from manta.protocol.codes import Code
from manta.transports.security.admission import TokenBucket


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


class Principals:
    """Who each key belongs to. One actor writes; any thread may read."""

    def __init__(self) -> None:
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
                found[key.key] = of_user(users_by_id[key.subject], key.key)
        self._by_key = found

    def learn(self, principal: Principal) -> None:
        self._by_key[principal.key] = principal

    def forget(self, key: str) -> None:
        self._by_key.pop(key, None)

    def of(self, key: str) -> Principal:
        return self._by_key.get(key) or Principal(Kind.GUEST, key)

    def keys(self) -> tuple[str, ...]:
        return tuple(self._by_key)


def of_node(record: NodeRecord) -> Principal:
    return Principal(Kind.NODE, record.key, record.id, record.alias, record.cluster_id)


def of_user(record: UserRecord, key: str) -> Principal:
    return Principal(Kind.USER, key, record.id, record.email, admin=record.role == ADMIN_ROLE)


class GuestLimits:
    """How often guests may try a token or a password.

    Attempts are counted in total and by address, but not by key: an attacker can make as many
    keys as wanted.
    """

    ADDRESSES = 1000

    def __init__(self) -> None:
        self._tokens = TokenBucket(rate=50.0, burst=500.0)
        self._sign_ins = TokenBucket(rate=5.0, burst=20.0)
        self._failures: OrderedDict[str, TokenBucket] = OrderedDict()
        self._under_way: Counter[str] = Counter()

    def check_token(self, now: float) -> None:
        """Raises Refused."""
        if not self._tokens.take(now):
            raise _too_many("Too many tokens are being tried")

    def begin_sign_in(self, email: str, now: float) -> bool:
        """Whether the password may be checked now; else when one of those under way has ended.

        Each counts as a failure until `end_sign_in` says that it was none, so that however many
        are sent side by side, no more guesses are checked. Raises Refused.
        """
        failures = self._failures.pop(email, None) or TokenBucket(rate=1 / 12, burst=5.0)
        self._failures[email] = failures
        if len(self._failures) > self.ADDRESSES:
            self._failures.popitem(last=False)
        if not failures.take(now):
            if email in self._under_way:
                return False
            raise _too_many(f"Too many sign-ins of {email!r} have failed")
        if not self._sign_ins.take(now):
            failures.give_back()
            if self._under_way:
                return False
            raise _too_many("Too many sign-ins are being tried")
        self._under_way[email] += 1
        return True

    def end_sign_in(self, email: str, *, failed: bool) -> None:
        self._under_way[email] -= 1
        self._under_way += Counter()  # drops those with none
        if not failed:
            self._sign_ins.give_back()
            self._failures.pop(email, None)


def _too_many(what: str) -> Refused:
    return Refused(Code.RATE_LIMITED, f"{what}; wait a minute and try again.")
