"""What the manager keeps beside the event logs: one record per cluster, node, user and so on.

Each kind is a table keyed by `key_of`. New fields need defaults: a record that an
earlier version wrote must decode.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from manta.protocol.node import Capabilities
from manta.protocol.spec import ModuleSpec
from manta.protocol.states import ClusterState
from manta.protocol.user import SwarmInfo

ADMIN_ROLE, USER_ROLE = "admin", "user"


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """Root of the records."""


class ClusterRecord(Record, frozen=True):
    id: str
    name: str
    owner_id: str
    created_at: float
    status: str = ClusterState.RUNNING


class NodeRecord(Record, frozen=True):
    id: str
    cluster_id: str
    alias: str
    key: str
    enrolled_at: float
    capabilities: Capabilities = Capabilities()
    """As of its last registration."""
    here: bool = False
    """It registered and has not been given up since: after a restart it is waited for."""


class UserRecord(Record, frozen=True):
    """`password` is an argon2id hash; "" lets nobody in by password."""

    id: str
    email: str
    password: str
    created_at: float
    role: str = ADMIN_ROLE
    """Or USER_ROLE: his rights are then those of the roles that he was granted."""


class KeyKind(StrEnum):
    USER = "user"
    NODE = "node"
    REMOVED = "removed"
    """Was a node's until a user removed it."""


class KeyRecord(Record, frozen=True):
    """A public key that the manager knows, and whose it is."""

    key: str
    kind: KeyKind
    subject: str
    """The id of its user or node."""
    since: float
    family: str = ""
    """Of the token by which it became a user's."""


class TokenRecord(Record, frozen=True):
    """A token by the hash of its id; the token itself is nowhere."""

    digest: str
    audience: str
    subject: str
    expires_at: float
    uses: int = 1
    """How often it may still be used."""
    bound_to: str = ""
    family: str = ""
    """The first of the tokens that took each other's place, itself included; "" is its own."""
    revoked: str = ""
    """"rotated" or "ended"; it is kept until it expires, so that whoever shows it is told."""


class GrantRecord(Record, frozen=True):
    """The role of a user in a cluster."""

    user_id: str
    cluster_id: str
    role: str

    @property
    def key(self) -> str:
        return f"{self.cluster_id}/{self.user_id}"


class RoleRecord(Record, frozen=True):
    """A role that an administrator defined."""

    name: str
    rights: tuple[str, ...]


class ModuleRecord(Record, frozen=True):
    """A module that a user registered; `updated_at` is when its content was last sent."""

    id: str
    spec: ModuleSpec
    owner_id: str
    created_at: float
    updated_at: float


class SwarmRecord(Record, frozen=True):
    """What lists show, kept current with the swarm's events."""

    info: SwarmInfo
    owner_id: str


KEYS: dict[type[Record], str] = {
    ClusterRecord: "id",
    NodeRecord: "id",
    UserRecord: "id",
    KeyRecord: "key",
    TokenRecord: "digest",
    GrantRecord: "key",
    RoleRecord: "name",
    ModuleRecord: "id",
}


def key_of(record: Record) -> str:
    if isinstance(record, SwarmRecord):
        return record.info.swarm_id
    key: str = getattr(record, KEYS[type(record)])
    return key
