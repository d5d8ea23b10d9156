"""The records that the manager keeps beside the event logs: one per cluster, node, user and so on.

Each kind is a table whose key is `key_of(record)`. New fields need defaults, because records
written by earlier versions must still decode.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

import msgspec

from manta.protocol.node import Capabilities, Daemon
from manta.protocol.spec import ModuleSpec
from manta.protocol.states import ClusterState
from manta.protocol.user import SwarmInfo

ADMIN_ROLE, USER_ROLE = "admin", "user"


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """Root of the records."""

    table: ClassVar[str]
    key_field: ClassVar[str] = "id"
    lost: ClassVar[str]
    """What is gone if one is damaged."""
    remedy: ClassVar[str] = "restore a backup (manta manager restore)"


class ClusterRecord(Record, frozen=True):
    table = "clusters"
    lost = "the cluster, its nodes and its swarms cannot be reached"

    id: str
    name: str
    owner_id: str
    created_at: float
    status: str = ClusterState.RUNNING


class NodeRecord(Record, frozen=True):
    table = "nodes"
    lost = "the node cannot connect"
    remedy = "restore a backup (manta manager restore), or enrol the node again"

    id: str
    cluster_id: str
    alias: str
    key: str
    enrolled_at: float
    capabilities: Capabilities = Capabilities()
    """As of the node's last registration."""
    here: bool = False
    """It has registered and not been given up since: after a restart it is waited for."""
    daemon: Daemon | None = None
    """The one that registered last."""
    peer_addresses: tuple[str, ...] | None = None
    """Where it said then that other nodes can connect to it; None if it is not told of others."""
    seen_at: str = ""
    """The host that it registered from."""


class UserRecord(Record, frozen=True):
    """`password` is an argon2id hash; with "" no password is right."""

    table = "users"
    lost = "the user cannot sign in"
    remedy = "restore a backup (manta manager restore), or add the user again"

    id: str
    email: str
    password: str
    created_at: float
    role: str = ADMIN_ROLE
    """A user with USER_ROLE has only the rights of the roles that were granted."""


class KeyKind(StrEnum):
    USER = "user"
    NODE = "node"
    REMOVED = "removed"
    """Belonged to a node that a user removed."""


class KeyRecord(Record, frozen=True):
    """A public key and whose it is."""

    table, key_field = "keys", "key"
    lost = "whose key it is cannot connect with it"
    remedy = "sign in again, or enrol the node again"

    key: str
    kind: KeyKind
    subject: str
    """The id of its user or node."""
    since: float
    family: str = ""
    """The family of the token by which it became a user's."""
    expires_at: float | None = None
    """When that token expires; None for a key that needs none, or that an earlier version wrote."""


class TokenRecord(Record, frozen=True):
    """A token, known by the hash of its id; the token itself is not kept."""

    table, key_field = "tokens", "digest"
    lost = "the token is not accepted"
    remedy = "create another token"

    digest: str
    audience: str
    subject: str
    expires_at: float
    uses: int = 1
    """How many times it can still be used."""
    bound_to: str = ""
    family: str = ""
    """Digest of the first of the tokens that replaced each other; "" means its own."""
    revoked: str = ""
    """"rotated" or "ended". The record is kept until it expires, so that a refusal can say why."""
    made_by: str = ""
    """Of a node's: the id of the user. "" where an earlier version made it, less than a day ago."""


class GrantRecord(Record, frozen=True):
    """The role of a user in a cluster."""

    table, key_field = "grants", "key"
    lost = "the user has no role in the cluster"
    remedy = "grant it again (manta role grant)"

    user_id: str
    cluster_id: str
    role: str

    @property
    def key(self) -> str:
        return f"{self.cluster_id}/{self.user_id}"


class RoleRecord(Record, frozen=True):
    """A role that an administrator defined."""

    table, key_field = "roles", "name"
    lost = "whoever has the role has no rights by it"
    remedy = "create the role again (manta role create)"

    name: str
    rights: tuple[str, ...]


class QuotaRecord(Record, frozen=True):
    """The limits that an administrator set, by quota. `subject` is the id of a user or cluster,
    or the name of a role."""

    table, key_field = "quotas", "key"
    lost = "the limits that were set are not in force, the defaults are"
    remedy = "set them again (manta quota set)"

    scope: str
    subject: str
    limits: dict[str, int]

    @property
    def key(self) -> str:
        return f"{self.scope}/{self.subject}"


class ModuleRecord(Record, frozen=True):
    """A module that a user registered; `updated_at` is when its content was last sent.

    `clusters` are those that it is shared with. None was stored before modules were shared by
    word, when all users saw it: it is then taken as shared with the clusters in which its owner
    registers modules, and stored anew.
    """

    table = "modules"
    lost = "the module is not found by its name"
    remedy = "register it again (manta module push)"

    id: str
    spec: ModuleSpec
    owner_id: str
    created_at: float
    updated_at: float
    clusters: tuple[str, ...] | None = None


class SwarmRecord(Record, frozen=True):
    """What lists show of a swarm; it is stored together with the swarm's events."""

    table = "swarms"
    lost = "the swarm is not shown and does not go on"

    info: SwarmInfo
    owner_id: str

    @property
    def id(self) -> str:
        return self.info.swarm_id


class RemovedSwarmRecord(Record, frozen=True):
    """A swarm that was removed: nodes that were away then are told so when they come back."""

    table = "removals"
    lost = "what nodes that were away keep of the swarm is not deleted there"
    remedy = "delete it there (manta_node results --delete)"

    id: str
    cluster_id: str
    at: float


def key_of(record: Record) -> str:
    key: str = getattr(record, record.key_field)
    return key
