"""The table of all messages that the Gateway accepts.

A row says who may send the message, what it is about, and who answers it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, cast

from manta.actors.errors import Refused
from manta.manager.auth.principals import Kind, Principal
from manta.manager.auth.rights import Right, Rule
from manta.manager.directory import Directory, SwarmEntry, cluster_id_of, not_run
from manta.manager.gateway.part import Request
from manta.manager.gateway.parts import Parts
from manta.manager.messages import FromNode, FromUser
from manta.manager.store.records import ClusterRecord, NodeRecord
from manta.protocol import (
    audit,
    clusters,
    enrolment,
    exchange,
    node,
    peers,
    quotas,
    roster,
    sign_in,
    spread,
    user,
    users,
)
from manta.protocol.base import Instance, Message
from manta.protocol.states import ClusterState

M = TypeVar("M")
T = TypeVar("T")


@dataclass(frozen=True)
class Route(Generic[M, T]):
    message: type[M]
    rule: Rule
    target: Callable[[M, Directory, Principal], T]
    """Finds what the message is about, among what the sender sees. Raises Refused."""
    handler: Callable[[Parts, Request[M, T]], object]
    """Returns the answer, or None if it is given later through `Request.defer`."""


# What messages are about.


class _NamesCluster(Protocol):
    @property
    def cluster(self) -> str: ...


class _MayNameCluster(Protocol):
    @property
    def cluster(self) -> str | None: ...


class _NamesNode(Protocol):
    @property
    def node(self) -> str: ...


class _NamesSwarm(Protocol):
    @property
    def swarm(self) -> str: ...


class _HasSwarmId(Protocol):
    @property
    def swarm_id(self) -> str: ...


class _HasInstance(Protocol):
    @property
    def instance(self) -> Instance: ...


def nothing(message: object, seen: Directory, who: Principal) -> None:
    """For messages about the platform or the sender."""


def cluster(message: _NamesCluster, seen: Directory, who: Principal) -> ClusterRecord:
    return seen.cluster(message.cluster)


def any_cluster(message: _MayNameCluster, seen: Directory, who: Principal) -> ClusterRecord | None:
    """None stands for all clusters that the user sees."""
    return None if message.cluster is None else seen.cluster(message.cluster)


def a_node(message: _NamesNode, seen: Directory, who: Principal) -> NodeRecord:
    return seen.node(message.node, getattr(message, "cluster", None))


def node_or_manager(message: user.GetTree, seen: Directory, who: Principal) -> NodeRecord | None:
    return None if message.node is None else seen.node(message.node)


def swarm(message: _NamesSwarm, seen: Directory, who: Principal) -> SwarmEntry:
    return seen.swarm(message.swarm)


def swarm_or_removed(message: _HasSwarmId, seen: Directory, who: Principal) -> SwarmEntry | None:
    """A swarm of the node's cluster, or None if it is not there or no longer."""
    entry = seen.swarms.get(message.swarm_id)
    return entry if entry is not None and entry.cluster_id == who.cluster_id else None


def swarm_by_id(message: _HasSwarmId, seen: Directory, who: Principal) -> SwarmEntry:
    """A swarm of the node's cluster."""
    entry = swarm_or_removed(message, seen, who)
    if entry is None:
        raise not_run(message.swarm_id)
    return entry


def swarm_of_instance(message: _HasInstance, seen: Directory, who: Principal) -> SwarmEntry:
    return swarm_by_id(message.instance, seen, who)


# Handlers that pass the message on to the actor that answers it.


def _to_node_cluster(at: Parts, request: Request[Any, None]) -> None:
    """To the node's own cluster."""
    who = request.who
    reply = at.strays.watched(who, request.link, request.defer())
    at.forwarder.ask_cluster(who.cluster_id, FromNode(request.message, who.id), reply)


def _heartbeat(at: Parts, request: Request[node.Heartbeat, None]) -> None:
    at.nodes.told(request)
    _to_node_cluster(at, request)


def _from_node_to_swarm(
    at: Parts,
    request: Request[Any, SwarmEntry],
    found: exchange.ResolvedPeer | Refused | None = None,
) -> None:
    """What is over runs nowhere, and is not loaded to say so."""
    if at.overview.is_over(request.target):
        raise not_run(request.target.id)
    message = FromNode(request.message, request.who.id, found)
    wait = getattr(request.message, "wait", 0.0)
    reply = at.strays.watched(request.who, request.link, request.defer())
    at.forwarder.ask_swarm(request.target, message, reply, wait=wait)


def _resolve_peer(at: Parts, request: Request[exchange.ResolvePeer, SwarmEntry]) -> None:
    found: exchange.ResolvedPeer | Refused
    try:
        peer = request.seen.node(request.message.name, request.who.cluster_id)
        found = exchange.ResolvedPeer(peer.id, peer.alias)
    except Refused as refused:
        found = refused
    _from_node_to_swarm(at, request, found)


def _check_next(at: Parts, request: Request[exchange.CheckNext, SwarmEntry]) -> None:
    found = None
    try:
        request.seen.check_nodes(request.message.node_ids, request.who.cluster_id)
    except Refused as refused:
        found = refused
    _from_node_to_swarm(at, request, found)


def _to_cluster(at: Parts, request: Request[Any, ClusterRecord | NodeRecord | SwarmEntry]) -> None:
    """To the cluster of what the message is about."""
    message = FromUser(request.message, request.who, request.target.id)
    at.forwarder.ask_cluster(cluster_id_of(request.target), message, request.defer())


def _list_nodes(at: Parts, request: Request[clusters.ListNodes, ClusterRecord]) -> object:
    if at.forwarder.rests(request.target.id):
        return at.context.cluster(request.target.id).nodes_page(request.message.after)
    _to_cluster(at, request)
    return None


def _get_node(at: Parts, request: Request[clusters.GetNode, NodeRecord]) -> object:
    if at.forwarder.rests(request.target.cluster_id):
        return at.context.cluster(request.target.cluster_id).node(request.target.id)
    _to_cluster(at, request)
    return None


def _links(at: Parts, request: Request[clusters.GetNodeLinks, NodeRecord]) -> object:
    if at.forwarder.rests(request.target.cluster_id):
        return clusters.NodeLinks(request.target.id, request.target.alias)
    _to_cluster(at, request)
    return None


def _tree(at: Parts, request: Request[user.GetTree, NodeRecord | None]) -> object:
    if request.target is None:
        return at.overview.tree(request.message.after)
    _to_cluster(at, cast("Request[Any, NodeRecord]", request))
    return None


def _to_swarm(at: Parts, request: Request[Any, SwarmEntry]) -> None:
    message = FromUser(request.message, request.who, request.target.id)
    at.forwarder.ask_swarm(request.target, message, request.defer())


def _poll_swarm(at: Parts, request: Request[user.ReadFeed | user.WaitSwarm, SwarmEntry]) -> None:
    """The answer is given only if the request could still be made by then."""
    message = FromUser(request.message, request.who, request.target.id)
    answer, wait = at.permits.if_still(request), request.message.wait
    at.forwarder.ask_swarm(request.target, message, request.defer(), answer, wait)


def _list_clusters(at: Parts, request: Request[clusters.ListClusters, None]) -> object:
    readable = at.permits.clusters(request.who, Right.CLUSTER_READ)
    return at.clusters.page(readable, request.message.after)


def _list_swarms(at: Parts, request: Request[user.ListSwarms, ClusterRecord | None]) -> object:
    one = request.target
    where = [one] if one else at.permits.clusters(request.who, Right.SWARM_READ)
    return at.overview.swarms(where, request.message.after)


# The rows.

_USER = frozenset({Kind.USER})
NODES = Rule(frozenset({Kind.NODE}))
_NEW_NODES = Rule(frozenset({Kind.GUEST, Kind.NODE, Kind.REMOVED}))
_USERS = Rule(_USER)
_NEW_USERS = Rule(frozenset({Kind.GUEST, Kind.USER}))
_ADMINS = Rule(_USER, admin=True)
_READ_MODULES = Rule(_USER, Right.MODULE_READ, anywhere=True)
_WRITE_MODULES = Rule(_USER, Right.MODULE_WRITE, anywhere=True)


def _about(
    message: type[M],
    right: Right,
    target: Callable[[M, Directory, Principal], T],
    handler: Callable[[Parts, Request[M, T]], object],
) -> Route[M, T]:
    """Users may send it who have the right in the target's cluster."""
    return Route(message, Rule(_USER, right), target, handler)


_ROWS = (  # not annotated, so that the types of each row are checked
    # To become a node, or a user.
    Route(enrolment.Enroll, _NEW_NODES, nothing, lambda at, r: at.enrolment.enroll(r)),
    Route(enrolment.Inquire, _NEW_NODES, nothing, lambda at, r: at.nodes.standing(r.who)),
    Route(enrolment.ExamineToken, _NEW_NODES, nothing, lambda at, r: at.enrolment.examine(r)),
    Route(sign_in.SignIn, _NEW_USERS, nothing, lambda at, r: at.registrar.sign_in(r)),
    Route(sign_in.Bind, _NEW_USERS, nothing, lambda at, r: at.registrar.bind(r)),
    # Nodes.
    Route(node.Register, NODES, nothing, lambda at, r: at.nodes.register(r)),
    Route(node.Heartbeat, NODES, nothing, _heartbeat),
    Route(node.FetchDesired, NODES, nothing, _to_node_cluster),
    Route(peers.FetchPeers, NODES, nothing, _to_node_cluster),
    Route(roster.WantRoster, NODES, swarm_by_id, _from_node_to_swarm),
    Route(spread.WantBlob, NODES, nothing, _to_node_cluster),
    Route(spread.BlobTold, NODES, nothing, _to_node_cluster),
    Route(node.Goodbye, NODES, nothing, lambda at, r: at.nodes.goodbye(r)),
    Route(audit.TellLogHead, NODES, nothing, lambda at, r: at.recorder.node_head(r)),
    Route(node.JournalBatch, NODES, swarm_or_removed, lambda at, r: at.nodes.deliver(r)),
    Route(node.LogBatch, NODES, swarm_or_removed, lambda at, r: at.nodes.deliver(r)),
    Route(node.ReadGlobal, NODES, swarm_by_id, _from_node_to_swarm),
    Route(node.ListGlobals, NODES, swarm_by_id, _from_node_to_swarm),
    Route(node.SelectResults, NODES, swarm_by_id, _from_node_to_swarm),
    Route(exchange.ResolvePeer, NODES, swarm_of_instance, _resolve_peer),
    Route(exchange.CheckNext, NODES, swarm_of_instance, _check_next),
    Route(exchange.ReadBroadcast, NODES, swarm_of_instance, _from_node_to_swarm),
    Route(exchange.ReadMessage, NODES, swarm_of_instance, _from_node_to_swarm),
    Route(exchange.ReadRoom, NODES, swarm_of_instance, _from_node_to_swarm),
    Route(exchange.ReadContributions, NODES, swarm_of_instance, _from_node_to_swarm),
    Route(exchange.ReadLock, NODES, swarm_of_instance, _from_node_to_swarm),
    Route(exchange.ReadPeers, NODES, swarm_of_instance, _from_node_to_swarm),
    Route(exchange.ReadCheckpoint, NODES, swarm_of_instance, _from_node_to_swarm),
    # Users, about themselves and the platform.
    Route(sign_in.WhoAmI, _USERS, nothing, lambda at, r: at.registrar.who_am_i(r.who)),
    Route(sign_in.CreateUserToken, _USERS, nothing, lambda at, r: at.registrar.create_token(r)),
    Route(sign_in.RotateToken, _USERS, nothing, lambda at, r: at.registrar.rotate(r)),
    Route(sign_in.Logout, _USERS, nothing, lambda at, r: at.users.log_out(r)),
    Route(users.GetUser, _USERS, nothing, lambda at, r: at.users.get(r.message.user, r.who)),
    Route(users.ChangePassword, _USERS, nothing, lambda at, r: at.users.change_password(r)),
    Route(users.ListRoles, _USERS, nothing, lambda at, r: at.users.roles(r.message.after)),
    Route(user.FindMissingBlobs, _USERS, nothing, lambda at, r: at.overview.missing_blobs(r)),
    Route(user.GetManagerStatus, _USERS, nothing, lambda at, r: at.overview.status(r)),
    Route(user.GetTree, _ADMINS, node_or_manager, _tree),
    Route(users.ListUsers, _ADMINS, nothing, lambda at, r: at.users.page(r.message.after, r.who)),
    Route(users.AddUser, _ADMINS, nothing, lambda at, r: at.users.add(r)),
    Route(users.DeleteUser, _ADMINS, nothing, lambda at, r: at.users.delete(r)),
    Route(users.RevokeTokens, _ADMINS, nothing, lambda at, r: at.users.revoke_tokens(r)),
    Route(users.CreateRoleDefinition, _ADMINS, nothing, lambda at, r: at.users.define_role(r)),
    Route(users.DeleteRoleDefinition, _ADMINS, nothing, lambda at, r: at.users.delete_role(r)),
    # Quotas.
    Route(quotas.GetQuotas, _USERS, nothing, lambda at, r: at.quotas.get(r)),
    Route(quotas.SetQuota, _ADMINS, nothing, lambda at, r: at.quotas.set(r)),
    _about(quotas.GetSwarmQuotas, Right.SWARM_READ, swarm, _to_swarm),
    # Clusters.
    Route(clusters.CreateCluster, _USERS, nothing, lambda at, r: at.clusters.create(r)),
    Route(clusters.ListClusters, _USERS, nothing, _list_clusters),
    Route(clusters.WatchClusters, _USERS, nothing, lambda at, r: at.watches.open(r)),
    _about(
        clusters.GetCluster,
        Right.CLUSTER_READ,
        cluster,
        lambda at, r: at.clusters.info(r.target),
    ),
    _about(
        clusters.StartCluster,
        Right.CLUSTER_MANAGE,
        cluster,
        lambda at, r: at.clusters.change(r, ClusterState.RUNNING),
    ),
    _about(
        clusters.StopCluster,
        Right.CLUSTER_MANAGE,
        cluster,
        lambda at, r: at.clusters.change(r, ClusterState.STOPPED),
    ),
    _about(
        clusters.DeleteCluster,
        Right.CLUSTER_DELETE,
        cluster,
        lambda at, r: at.clusters.delete(r),
    ),
    _about(
        users.GrantRole,
        Right.ROLE_GRANT,
        cluster,
        lambda at, r: at.users.set_role(r, r.message.role),
    ),
    _about(users.RevokeRole, Right.ROLE_GRANT, cluster, lambda at, r: at.users.set_role(r, None)),
    # The nodes of a cluster.
    _about(
        clusters.CreateNodeToken,
        Right.NODE_ENROL,
        cluster,
        lambda at, r: at.enrolment.create_token(r),
    ),
    _about(clusters.ListNodes, Right.NODE_READ, cluster, _list_nodes),
    _about(clusters.WatchNodes, Right.NODE_READ, cluster, lambda at, r: at.watches.open(r)),
    _about(clusters.GetNode, Right.NODE_READ, a_node, _get_node),
    _about(clusters.GetNodeLinks, Right.NODE_READ, a_node, _links),
    _about(clusters.RequestNodeStop, Right.NODE_MANAGE, a_node, _to_cluster),
    _about(
        clusters.RemoveNode, Right.NODE_MANAGE, a_node, lambda at, r: at.clusters.remove_node(r)
    ),
    # Swarms.
    _about(user.CheckSwarm, Right.SWARM_DEPLOY, cluster, _to_cluster),
    _about(user.SendSwarm, Right.SWARM_DEPLOY, cluster, _to_cluster),
    _about(user.StartSwarm, Right.SWARM_DEPLOY, swarm, _to_swarm),
    _about(user.StopSwarm, Right.SWARM_DEPLOY, swarm, _to_swarm),
    _about(user.PauseSwarm, Right.SWARM_DEPLOY, swarm, _to_swarm),
    _about(user.ResumeSwarm, Right.SWARM_DEPLOY, swarm, _to_swarm),
    _about(user.RemoveSwarm, Right.SWARM_DEPLOY, swarm, _to_cluster),
    _about(user.SetGlobal, Right.SWARM_DEPLOY, swarm, _to_swarm),
    _about(user.DeleteResults, Right.SWARM_DEPLOY, swarm, _to_swarm),
    _about(user.GetSwarm, Right.SWARM_READ, swarm, _to_swarm),
    _about(user.ExplainSwarm, Right.SWARM_READ, swarm, _to_swarm),
    _about(user.GetSpec, Right.SWARM_READ, swarm, _to_swarm),
    _about(user.GetTasks, Right.SWARM_READ, swarm, _to_swarm),
    _about(user.ReadStacks, Right.SWARM_READ, swarm, _to_swarm),
    _about(user.SelectGlobal, Right.SWARM_READ, swarm, _to_swarm),
    _about(user.ListGlobalTags, Right.SWARM_READ, swarm, _to_swarm),
    _about(user.RecallResult, Right.SWARM_READ, swarm, _to_swarm),
    _about(user.ReadFeed, Right.SWARM_READ, swarm, _poll_swarm),
    _about(user.WaitSwarm, Right.SWARM_READ, swarm, _poll_swarm),
    _about(user.ListSwarms, Right.SWARM_READ, any_cluster, _list_swarms),
    _about(user.WatchSwarms, Right.SWARM_READ, any_cluster, lambda at, r: at.watches.open(r)),
    # Modules.
    Route(
        users.GetModule,
        _READ_MODULES,
        nothing,
        lambda at, r: at.modules.get(r.message.module, r.message.version, r.who),
    ),
    Route(users.ResolveModule, _READ_MODULES, any_cluster, lambda at, r: at.modules.resolve(r)),
    Route(
        users.ListModules,
        _READ_MODULES,
        nothing,
        lambda at, r: at.modules.page(r.message.after, r.who),
    ),
    Route(users.WatchModules, _READ_MODULES, nothing, lambda at, r: at.watches.open(r)),
    Route(users.SendModule, _WRITE_MODULES, nothing, lambda at, r: at.modules.send(r)),
    Route(users.UpdateModule, _WRITE_MODULES, nothing, lambda at, r: at.modules.update(r)),
    _about(users.ShareModule, Right.MODULE_WRITE, cluster, lambda at, r: at.modules.share(r)),
    Route(users.RemoveModule, _WRITE_MODULES, nothing, lambda at, r: at.modules.remove(r)),
)

ROWS: tuple[Route[Any, Any], ...] = _ROWS
ROUTES: dict[type[Message], Route[Any, Any]] = {row.message: row for row in ROWS}
