"""Codes of refusals (`manta.actors.Refused.code`): stable, machine-readable."""

from __future__ import annotations

from enum import StrEnum


class Code(StrEnum):
    # who asks
    NOT_SIGNED_IN = "not-signed-in"
    BAD_CREDENTIALS = "bad-credentials"
    FORBIDDEN = "forbidden"
    RATE_LIMITED = "rate-limited"
    TOKEN_MISSING = "token-missing"
    TOKEN_MALFORMED = "token-malformed"
    TOKEN_EXPIRED = "token-expired"
    TOKEN_USED = "token-used"
    TOKEN_FOREIGN = "token-foreign"  # signed by another manager
    TOKEN_AUDIENCE = "token-audience"  # a user's token given by a node, or the reverse
    TOKEN_KEY = "token-key"  # bound to another key
    TOKEN_REVOKED = "token-revoked"  # rotated, logged out, or its user was deleted
    ALIAS_TAKEN = "alias-taken"
    NODE_REMOVED = "node-removed"
    NODE_HELD = "node-held"  # another daemon with its key is connected
    NODE_TAKEN_OVER = "node-taken-over"  # by another daemon with its key
    # what is asked for
    UNKNOWN_CLUSTER = "unknown-cluster"
    UNKNOWN_NODE = "unknown-node"
    UNKNOWN_SWARM = "unknown-swarm"
    UNKNOWN_TAG = "unknown-tag"
    UNKNOWN_TASK = "unknown-task"
    UNKNOWN_USER = "unknown-user"
    UNKNOWN_ROLE = "unknown-role"
    UNKNOWN_MODULE = "unknown-module"
    VERSION_TAKEN = "version-taken"  # other content has that name and version
    NOT_A_NEIGHBOR = "not-a-neighbor"  # a network of the swarm forbids it
    AMBIGUOUS = "ambiguous"
    NAME_TAKEN = "name-taken"
    INVALID = "invalid"
    WRONG_STATE = "wrong-state"
    UNPLACEABLE = "unplaceable"
    BLOB_MISSING = "blob-missing"
    RESULT_AWAY = "result-away"  # it stays on a node that cannot give it
    QUOTA = "quota"  # what is asked for is more than is left
    # the platform
    UNAVAILABLE = "unavailable"  # restarting: ask again
    STORAGE = "storage"  # the disk is full or read-only, or what it holds is damaged
