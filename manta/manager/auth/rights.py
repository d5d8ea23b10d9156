"""The one table of who may send what: every message of the Gateway has a row. Pure.

A row says which kinds of keys may send the message and, of users, which right they need
and in which cluster: the one that the message names, or that of its node or swarm.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from manta.actors.errors import Refused
from manta.manager.auth.principals import Kind, Principal
from manta.protocol import clusters, exchange, node, sign_in, user, users
from manta.protocol.codes import Code
from manta.protocol.node import Message


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


class Where(StrEnum):
    """The field of the message that leads to the cluster; ANY: some cluster will do, as what
    the message is about belongs to none."""

    NONE = "none"
    ANY = "any"
    CLUSTER = "cluster"
    NODE = "node"
    SWARM = "swarm"


class Row(msgspec.Struct, frozen=True):
    kinds: frozenset[Kind]
    right: Right | None = None
    where: Where = Where.NONE
    admin: bool = False
    """Administrators of the platform alone."""


def _user(right: Right | None = None, where: Where = Where.NONE, *, admin: bool = False) -> Row:
    return Row(frozenset({_USER}), right, where, admin)


_GUEST, _NODE, _USER, _REMOVED = Kind.GUEST, Kind.NODE, Kind.USER, Kind.REMOVED

RIGHTS: dict[type[Message], Row] = {
    # to become somebody
    node.Enroll: Row(frozenset({_GUEST, _NODE, _REMOVED})),
    node.Inquire: Row(frozenset({_GUEST, _NODE, _REMOVED})),
    node.ExamineToken: Row(frozenset({_GUEST, _NODE, _REMOVED})),
    sign_in.SignIn: Row(frozenset({_GUEST, _USER})),
    sign_in.Bind: Row(frozenset({_GUEST, _USER})),
    # nodes
    **dict.fromkeys(
        (
            node.Register,
            node.Heartbeat,
            node.FetchDesired,
            node.ReadGlobal,
            node.ListGlobals,
            node.SelectResults,
            exchange.ResolvePeer,
            exchange.CheckNext,
            exchange.ReadBroadcast,
            exchange.ReadMessage,
            exchange.ReadContributions,
            exchange.ReadLock,
            exchange.ReadPeers,
            exchange.ReadCheckpoint,
            node.JournalBatch,
            node.LogBatch,
            node.Goodbye,
        ),
        Row(frozenset({_NODE})),
    ),
    # users
    sign_in.WhoAmI: _user(),
    sign_in.RotateToken: _user(),
    sign_in.Logout: _user(),
    clusters.CreateCluster: _user(),
    clusters.ListClusters: _user(),
    clusters.WatchClusters: _user(),
    user.FindMissingBlobs: _user(),
    user.GetManagerStatus: _user(),
    users.GetUser: _user(),
    users.ChangePassword: _user(),
    users.ListRoles: _user(),
    user.GetTree: _user(admin=True),
    users.RevokeTokens: _user(admin=True),
    users.ListUsers: _user(admin=True),
    users.AddUser: _user(admin=True),
    users.DeleteUser: _user(admin=True),
    users.CreateRoleDefinition: _user(admin=True),
    users.DeleteRoleDefinition: _user(admin=True),
    users.GrantRole: _user(Right.ROLE_GRANT, Where.CLUSTER),
    users.RevokeRole: _user(Right.ROLE_GRANT, Where.CLUSTER),
    clusters.GetCluster: _user(Right.CLUSTER_READ, Where.CLUSTER),
    clusters.StartCluster: _user(Right.CLUSTER_MANAGE, Where.CLUSTER),
    clusters.StopCluster: _user(Right.CLUSTER_MANAGE, Where.CLUSTER),
    clusters.DeleteCluster: _user(Right.CLUSTER_DELETE, Where.CLUSTER),
    clusters.CreateNodeToken: _user(Right.NODE_ENROL, Where.CLUSTER),
    clusters.ListNodes: _user(Right.NODE_READ, Where.CLUSTER),
    clusters.WatchNodes: _user(Right.NODE_READ, Where.CLUSTER),
    clusters.GetNode: _user(Right.NODE_READ, Where.NODE),
    clusters.RequestNodeStop: _user(Right.NODE_MANAGE, Where.NODE),
    clusters.RemoveNode: _user(Right.NODE_MANAGE, Where.NODE),
    user.CheckSwarm: _user(Right.SWARM_DEPLOY, Where.CLUSTER),
    user.SendSwarm: _user(Right.SWARM_DEPLOY, Where.CLUSTER),
    user.StartSwarm: _user(Right.SWARM_DEPLOY, Where.SWARM),
    user.StopSwarm: _user(Right.SWARM_DEPLOY, Where.SWARM),
    user.PauseSwarm: _user(Right.SWARM_DEPLOY, Where.SWARM),
    user.ResumeSwarm: _user(Right.SWARM_DEPLOY, Where.SWARM),
    user.RemoveSwarm: _user(Right.SWARM_DEPLOY, Where.SWARM),
    user.SetGlobal: _user(Right.SWARM_DEPLOY, Where.SWARM),
    user.DeleteResults: _user(Right.SWARM_DEPLOY, Where.SWARM),
    user.GetSwarm: _user(Right.SWARM_READ, Where.SWARM),
    user.ExplainSwarm: _user(Right.SWARM_READ, Where.SWARM),
    user.GetTasks: _user(Right.SWARM_READ, Where.SWARM),
    user.ReadFeed: _user(Right.SWARM_READ, Where.SWARM),
    user.SelectGlobal: _user(Right.SWARM_READ, Where.SWARM),
    user.ListGlobalTags: _user(Right.SWARM_READ, Where.SWARM),
    user.WaitSwarm: _user(Right.SWARM_READ, Where.SWARM),
    user.ListSwarms: _user(Right.SWARM_READ, Where.CLUSTER),
    user.WatchSwarms: _user(Right.SWARM_READ, Where.CLUSTER),
    users.GetModule: _user(Right.MODULE_READ, Where.ANY),
    users.ResolveModule: _user(Right.MODULE_READ, Where.ANY),
    users.ListModules: _user(Right.MODULE_READ, Where.ANY),
    users.WatchModules: _user(Right.MODULE_READ, Where.ANY),
    users.SendModule: _user(Right.MODULE_WRITE, Where.ANY),
    users.UpdateModule: _user(Right.MODULE_WRITE, Where.ANY),
    users.RemoveModule: _user(Right.MODULE_WRITE, Where.ANY),
}


def check_right(principal: Principal, message: Message) -> None:
    """Raises Refused unless the principal may send this message."""
    allowed = RIGHTS[type(message)].kinds
    if principal.kind in allowed:
        return
    name = type(message).__name__
    match principal.kind:
        case Kind.GUEST if _NODE in allowed:
            raise Refused(
                Code.NOT_SIGNED_IN,
                f"{name} was refused: this key belongs to no node of the manager; "
                "enrol the node with a token (manta node token) first.",
            )
        case Kind.GUEST:
            raise Refused(
                Code.NOT_SIGNED_IN,
                f"{name} was refused: this key belongs to no user; sign in (manta sign-in) first.",
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
                f"{name} was refused: this key is a {principal.kind}'s, and a "
                f"{principal.kind} may not send it; use a key of another kind.",
            )
