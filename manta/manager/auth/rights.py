"""What a user may be allowed to do, and the rule that a message's sender has to meet. Pure."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from manta.actors.errors import Refused
from manta.manager.auth.principals import Kind, Principal
from manta.protocol.codes import Code


class Right(StrEnum):
    CLUSTER_READ = "cluster.read"
    CLUSTER_MANAGE = "cluster.manage"
    CLUSTER_DELETE = "cluster.delete"
    NODE_READ = "node.read"
    NODE_ENROL = "node.enrol"
    NODE_MANAGE = "node.manage"
    SWARM_READ = "swarm.read"
    SWARM_DEPLOY = "swarm.deploy"
    ROLE_GRANT = "role.grant"
    MODULE_READ = "module.read"
    MODULE_WRITE = "module.write"


class Rule(msgspec.Struct, frozen=True):
    """Which kinds of keys may send a message and, of users, which right they need."""

    kinds: frozenset[Kind]
    right: Right | None = None
    """In the cluster that the message is about."""
    anywhere: bool = False
    """The right in any cluster will do: what the message is about belongs to none."""
    admin: bool = False
    """Administrators of the platform alone."""

    def check_kind(self, who: Principal, name: str) -> None:
        """Raises Refused unless keys of this kind may send the message of that name."""
        if who.kind in self.kinds:
            return
        match who.kind:
            case Kind.GUEST if Kind.NODE in self.kinds:
                raise Refused(
                    Code.NOT_SIGNED_IN,
                    f"{name} was refused: this key belongs to no node of the manager; "
                    "enrol the node with a token (manta node token) first.",
                )
            case Kind.GUEST:
                raise Refused(
                    Code.NOT_SIGNED_IN,
                    f"{name} was refused: this key belongs to no user; "
                    "sign in (manta sign-in) first.",
                )
            case Kind.REMOVED:
                raise Refused(
                    Code.NODE_REMOVED,
                    "This node was removed from its cluster by a user; "
                    "to bring it back, enrol it with a new token (manta node token).",
                )
            case _:
                raise Refused(
                    Code.FORBIDDEN,
                    f"{name} was refused: this key is a {who.kind}'s, and a "
                    f"{who.kind} may not send it; use a key of another kind.",
                )
