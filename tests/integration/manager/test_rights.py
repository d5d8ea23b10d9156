"""Every message of the Gateway, sent by everybody, about an own and a foreign cluster.

Over real sockets, to a real manager. What is written here is compared with nothing of the
manager's: a message that has no row here, or a row without a message, fails.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from dataclasses import replace as with_
from typing import NamedTuple

from msgspec.structs import replace

from manta.actors import Refused
from manta.manager.auth.rights import Right
from manta.manager.gateway.gateway import Gateway
from manta.manager.home import StrangerSettings
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
from manta.protocol.codes import Code
from manta.protocol.node import Instance, Message
from manta.protocol.spec import ModuleSpec, SwarmSpec, TaskSpec
from manta.protocol.values import BlobRef, Inline
from manta.testing.manager import Client

PASSWORD = "correct-horse"
MODULE = ModuleSpec("m", None, image="none")
SPEC = SwarmSpec("over", (TaskSpec("task", "m"),), (MODULE,))

ROLES = {"owner", "operator", "researcher", "viewer", "watcher"}
"""`watcher` is a definition of one's own, with the right to read swarms."""
USERS = {*ROLES, "administrator", "none"}
EVERYBODY = {*USERS, "unknown key", "signed out", "node", "removed node"}
READ = {"owner", "operator", "researcher", "viewer"}
WATCH = READ | {"watcher"}
DEPLOY = {"owner", "researcher"}
OPERATE = {"owner", "operator"}
OWN = {"owner"}
GUESTS = {"unknown key", "signed out"}


class Place(NamedTuple):
    """A cluster and what is in it: `runs` is a swarm that is ACTIVE, `over` one that is not."""

    cluster: str
    runs: str
    over: str
    nodes: dict[str, str]
    """The node that somebody who may remove one removes; the others try with `node`."""

    def node(self, who: str) -> str:
        return self.nodes.get(who, self.nodes["node"])


class Row(NamedTuple):
    may: set[str]
    make: Callable[[Place, str], Message]
    hidden: Code | None = None
    """How the same is refused of a foreign cluster; None: it is about no cluster."""


def about(kind: str, may: set[str], make: Callable[[Place, str], Message]) -> Row:
    codes = {
        "cluster": Code.UNKNOWN_CLUSTER,
        "node": Code.UNKNOWN_NODE,
        "swarm": Code.UNKNOWN_SWARM,
    }
    return Row(may | {"administrator"}, make, codes[kind])


def plain(may: set[str], *arguments: object, kind: type[Message]) -> Row:
    return Row(may, lambda _, __: kind(*arguments))


def of_instance(kind: Callable[..., Message], *arguments: object) -> Row:
    return Row({"node"}, lambda at, _: kind(Instance(at.runs, "task", 0, 0, 0), *arguments))


def rows() -> dict[type[Message], Row]:
    """In this order: what would spoil the place for those below comes last."""
    admin = {"administrator"}
    table: dict[type[Message], Row] = {
        node.Heartbeat: plain({"node"}, 0, node.Load(), kind=node.Heartbeat),
        node.FetchDesired: plain({"node"}, kind=node.FetchDesired),
        audit.TellLogHead: plain({"node"}, 1, "0" * 64, "0" * 64, kind=audit.TellLogHead),
        node.ReadGlobal: Row({"node"}, lambda at, _: node.ReadGlobal(at.runs, "tag")),
        node.ListGlobals: Row({"node"}, lambda at, _: node.ListGlobals(at.runs)),
        node.SelectResults: Row({"node"}, lambda at, _: node.SelectResults(at.runs, "tag", 0)),
        exchange.ResolvePeer: Row(
            {"node"},
            lambda at, _: exchange.ResolvePeer(
                Instance(at.runs, "task", 0, 0, 0), at.nodes["node"]
            ),
        ),
        exchange.CheckNext: Row(
            {"node"},
            lambda at, _: exchange.CheckNext(
                Instance(at.runs, "task", 0, 0, 0), (at.nodes["node"],), None
            ),
        ),
        exchange.ReadPeers: of_instance(exchange.ReadPeers),
        exchange.ReadBroadcast: of_instance(exchange.ReadBroadcast, "tag"),
        exchange.ReadMessage: of_instance(exchange.ReadMessage, "node-1", "tag", 0),
        peers.FetchPeers: Row({"node"}, lambda at, _: peers.FetchPeers(at.runs)),
        roster.WantRoster: Row({"node"}, lambda at, _: roster.WantRoster(at.runs)),
        spread.WantBlob: Row({"node"}, lambda at, _: spread.WantBlob(at.runs, "0" * 64, 1)),
        spread.BlobTold: Row(
            {"node"}, lambda at, _: spread.BlobTold(at.runs, "0" * 64, held=False)
        ),
        exchange.ReadRoom: of_instance(exchange.ReadRoom, "node-1", 0),
        exchange.ReadContributions: of_instance(exchange.ReadContributions, 0, "barrier"),
        exchange.ReadLock: of_instance(exchange.ReadLock, "name"),
        exchange.ReadCheckpoint: of_instance(exchange.ReadCheckpoint),
        node.JournalBatch: Row({"node"}, lambda at, _: node.JournalBatch(at.runs, 1, ())),
        node.LogBatch: Row({"node"}, lambda at, _: node.LogBatch(at.runs, 1, ())),
        node.Register: plain({"node"}, "probe", node.Capabilities(), kind=node.Register),
        node.Goodbye: plain({"node"}, kind=node.Goodbye),
        enrolment.Enroll: plain(
            {"node", "removed node"} | GUESTS, "token", "x", kind=enrolment.Enroll
        ),
        enrolment.Inquire: plain({"node", "removed node"} | GUESTS, kind=enrolment.Inquire),
        enrolment.ExamineToken: plain(
            {"node", "removed node"} | GUESTS, "token", kind=enrolment.ExamineToken
        ),
        sign_in.SignIn: Row(
            USERS | GUESTS, lambda _, who: sign_in.SignIn(f"{who.split()[0]}@nowhere", PASSWORD)
        ),
        sign_in.Bind: plain(USERS | GUESTS, "token", kind=sign_in.Bind),
        sign_in.WhoAmI: plain(USERS, kind=sign_in.WhoAmI),
        sign_in.CreateUserToken: plain(USERS, kind=sign_in.CreateUserToken),
        sign_in.RotateToken: plain(USERS, kind=sign_in.RotateToken),
        # A right in any cluster will do, and below everybody makes one of his own.
        users.GetModule: plain(admin | READ, "none", kind=users.GetModule),
        users.ResolveModule: plain(admin | READ, "none", kind=users.ResolveModule),
        users.ListModules: plain(admin | READ, kind=users.ListModules),
        users.WatchModules: plain(admin | READ, kind=users.WatchModules),
        users.SendModule: plain(admin | DEPLOY, MODULE, kind=users.SendModule),
        users.UpdateModule: plain(admin | DEPLOY, "none", MODULE, kind=users.UpdateModule),
        users.RemoveModule: plain(admin | DEPLOY, "none", kind=users.RemoveModule),
        users.ShareModule: about(
            "cluster", DEPLOY, lambda at, _: users.ShareModule("none", at.cluster)
        ),
        clusters.CreateCluster: Row(USERS, lambda _, who: clusters.CreateCluster(f"of {who}")),
        clusters.ListClusters: plain(USERS, kind=clusters.ListClusters),
        clusters.WatchClusters: plain(USERS, kind=clusters.WatchClusters),
        user.FindMissingBlobs: plain(USERS, (), kind=user.FindMissingBlobs),
        user.GetManagerStatus: plain(USERS, kind=user.GetManagerStatus),
        users.GetUser: plain(USERS, kind=users.GetUser),
        users.ChangePassword: plain(USERS, "wrong word", PASSWORD, kind=users.ChangePassword),
        users.ListRoles: plain(USERS, kind=users.ListRoles),
        quotas.GetQuotas: plain(USERS, kind=quotas.GetQuotas),
        quotas.SetQuota: plain(admin, "modules", 9, None, "viewer", kind=quotas.SetQuota),
        quotas.GetSwarmQuotas: about("swarm", WATCH, lambda at, _: quotas.GetSwarmQuotas(at.runs)),
        user.GetTree: plain(admin, kind=user.GetTree),
        users.RevokeTokens: plain(admin, "nobody@lab", kind=users.RevokeTokens),
        users.ListUsers: plain(admin, kind=users.ListUsers),
        users.AddUser: plain(admin, "new@lab", PASSWORD, kind=users.AddUser),
        users.DeleteUser: plain(admin, "new@lab", kind=users.DeleteUser),
        users.CreateRoleDefinition: plain(
            admin, "new", (Right.SWARM_READ,), kind=users.CreateRoleDefinition
        ),
        users.DeleteRoleDefinition: plain(admin, "new", kind=users.DeleteRoleDefinition),
        users.GrantRole: about(
            "cluster", OWN, lambda at, _: users.GrantRole("nobody@lab", at.cluster, "viewer")
        ),
        users.RevokeRole: about(
            "cluster", OWN, lambda at, _: users.RevokeRole("nobody@lab", at.cluster)
        ),
        clusters.GetCluster: about("cluster", READ, lambda at, _: clusters.GetCluster(at.cluster)),
        clusters.CreateNodeToken: about(
            "cluster", OPERATE, lambda at, _: clusters.CreateNodeToken(at.cluster)
        ),
        clusters.ListNodes: about("cluster", READ, lambda at, _: clusters.ListNodes(at.cluster)),
        clusters.WatchNodes: about("cluster", READ, lambda at, _: clusters.WatchNodes(at.cluster)),
        clusters.GetNode: about("node", READ, lambda at, _: clusters.GetNode(at.nodes["node"])),
        clusters.GetNodeLinks: about(
            "node", READ, lambda at, _: clusters.GetNodeLinks(at.nodes["node"])
        ),
        clusters.RequestNodeStop: about(
            "node", OPERATE, lambda at, _: clusters.RequestNodeStop(at.nodes["node"])
        ),
        user.CheckSwarm: about("cluster", DEPLOY, lambda at, _: user.CheckSwarm(at.cluster, SPEC)),
        user.SendSwarm: about(
            "cluster", DEPLOY, lambda at, _: user.SendSwarm(at.cluster, SPEC, wait=True)
        ),
        user.ListSwarms: about("cluster", WATCH, lambda at, _: user.ListSwarms(at.cluster)),
        user.WatchSwarms: about("cluster", WATCH, lambda at, _: user.WatchSwarms(at.cluster)),
        user.ReadFeed: about("swarm", WATCH, lambda at, _: user.ReadFeed(at.runs, "events")),
        user.SelectGlobal: about("swarm", WATCH, lambda at, _: user.SelectGlobal(at.runs, "tag")),
        user.WaitSwarm: about("swarm", WATCH, lambda at, _: user.WaitSwarm(at.runs, 0.0)),
        user.SetGlobal: about(
            "swarm", DEPLOY, lambda at, _: user.SetGlobal(at.runs, "tag", Inline(b""))
        ),
        user.ReadStacks: about("swarm", WATCH, lambda at, _: user.ReadStacks(at.runs, "none")),
        user.RecallResult: about(
            "swarm",
            WATCH,
            lambda at, _: user.RecallResult(at.runs, "tag", 0, "nobody", BlobRef("0" * 64, 1)),
        ),
        user.DeleteResults: about("swarm", DEPLOY, lambda at, _: user.DeleteResults(at.over)),
        **{
            kind: about("swarm", WATCH, lambda at, _, kind=kind: kind(at.runs))  # type: ignore[misc]
            for kind in (
                *(user.GetSwarm, user.GetSpec, user.ExplainSwarm, user.GetTasks),
                user.ListGlobalTags,
            )
        },
        **{
            kind: about("swarm", DEPLOY, lambda at, _, kind=kind: kind(at.over))  # type: ignore[misc]
            for kind in (user.StartSwarm, user.StopSwarm, user.PauseSwarm, user.ResumeSwarm)
        },
        # Of what runs these are refused, but not for who asks.
        user.RemoveSwarm: about("swarm", DEPLOY, lambda at, _: user.RemoveSwarm(at.runs)),
        clusters.DeleteCluster: about(
            "cluster", OWN, lambda at, _: clusters.DeleteCluster(at.cluster)
        ),
        clusters.RemoveNode: about(
            "node", OPERATE, lambda at, who: clusters.RemoveNode(at.node(who))
        ),
        clusters.StopCluster: about("cluster", OWN, lambda at, _: clusters.StopCluster(at.cluster)),
        clusters.StartCluster: about(
            "cluster", OWN, lambda at, _: clusters.StartCluster(at.cluster)
        ),
        sign_in.Logout: plain(USERS, kind=sign_in.Logout),
    }
    return table


def closed_union() -> set[type[Message]]:
    """All that a peer may send, however deep the union's parts lie."""
    found: set[type[Message]] = set()
    todo: list[object] = [Gateway.accepts]
    while todo:
        one = todo.pop()
        parts = typing.get_args(one)
        if parts:
            todo.extend(parts)
        else:
            found.add(typing.cast("type[Message]", one))
    return found


DENIED = {
    Code.FORBIDDEN,
    Code.NOT_SIGNED_IN,
    Code.NODE_REMOVED,
    Code.UNKNOWN_CLUSTER,
    Code.UNKNOWN_NODE,
    Code.UNKNOWN_SWARM,
}


def denial(client: Client, message: Message) -> str:
    """The code with which it is denied; nothing when it is not, whatever else becomes of it."""
    try:
        client.gateway.ask(message, timeout=60.0)
    except Refused as refused:
        return refused.code if refused.code in DENIED else ""
    return ""


def enrolled(bench, admin: Client, cluster: str, alias: str) -> Client:
    client = bench.client(at=bench.nodes_at)
    token = admin.ask(clusters.CreateNodeToken(cluster)).token
    client.ask(enrolment.Enroll(token, alias, id_mode="alias"))
    return client


def place(bench, admin: Client, cluster: str) -> Place:
    admin.ask(clusters.CreateCluster(cluster))
    names = {}
    for who in ("node", "owner", "operator", "administrator"):
        names[who] = f"{cluster}-{who}"
        enrolled(bench, admin, cluster, names[who]).close()
    runs = admin.ask(user.SendSwarm(cluster, replace(SPEC, name="runs"), wait=True)).swarm_id
    admin.ask(user.StartSwarm(runs))
    over = admin.ask(user.SendSwarm(cluster, SPEC, wait=True)).swarm_id
    admin.ask(user.StopSwarm(over))
    return Place(cluster, runs, over, names)


def signed_in(bench, admin: Client, who: str) -> Client:
    admin.ask(users.AddUser(f"{who}@lab", PASSWORD))
    client = bench.client()
    client.ask(sign_in.SignIn(f"{who}@lab", PASSWORD))
    return client


def everybody(bench, admin: Client, own: Place, foreign: Place) -> dict[str, Client]:
    admin.ask(users.CreateRoleDefinition("watcher", (Right.SWARM_READ,)))
    clients = {"administrator": admin, "unknown key": bench.client()}
    for role in ROLES:
        clients[role] = signed_in(bench, admin, role)
        admin.ask(users.GrantRole(f"{role}@lab", own.cluster, role))
    clients["none"] = signed_in(bench, admin, "none")
    clients["signed out"] = signed_in(bench, admin, "out")
    admin.ask(users.GrantRole("out@lab", own.cluster, "owner"))
    clients["signed out"].ask(sign_in.Logout())
    clients["node"] = enrolled(bench, admin, own.cluster, "probe")
    clients["removed node"] = enrolled(bench, admin, own.cluster, "removed")
    admin.ask(clusters.RemoveNode("removed"))
    for name in ("signed out", "removed node"):  # they come back with the same key
        keys = clients[name].keys
        clients[name].close()
        clients[name] = bench.client(keys, at=bench.nodes_at if "node" in name else "")
    # Somebody owns the foreign cluster besides the administrator.
    signed_in(bench, admin, "stranger").close()
    admin.ask(users.GrantRole("stranger@lab", foreign.cluster, "owner"))
    assert clients.keys() == EVERYBODY
    return clients


def test_every_message_by_everybody(bench, admin: Client) -> None:
    # However long it takes, the swarms whose node says goodbye go on, and guests may stay.
    patient = StrangerSettings(patience=600.0)
    bench.settings = with_(bench.settings, lease=600.0, strangers=patient)
    bench.restart()
    table = rows()
    messages = closed_union()
    assert {kind.__name__ for kind in messages} == {kind.__name__ for kind in table}
    own, foreign = place(bench, admin, "own"), place(bench, admin, "far")
    clients = everybody(bench, admin, own, foreign)
    admin.ask(users.AddUser("second@lab", PASSWORD, admin=True))
    second = bench.client()
    second.ask(sign_in.SignIn("second@lab", PASSWORD))
    wrong = []
    for kind, row in table.items():
        last = ["administrator"]  # who signs out last has let all others do so
        for who in [*sorted(EVERYBODY - set(last)), *last]:
            code = denial(clients[who], row.make(own, who))
            if who == "node" and code == Code.UNKNOWN_SWARM:
                code = ""  # it may ask; as it runs nothing of it, it is told nothing
            if bool(code) == (who in row.may):
                wrong.append(f"{kind.__name__} by {who}: {code or 'done'}")
            if row.hidden is None:
                continue
            code = denial(clients[who], row.make(foreign, who))
            expected = "" if who == "administrator" else row.hidden if who in USERS else None
            if expected is not None and code != expected:
                wrong.append(f"{kind.__name__} by {who}, far: {code or 'done'}")
            if expected is None and not code:
                wrong.append(f"{kind.__name__} by {who}, far: done")
    assert wrong == []
    # What was denied was not done either: the node of those who may not remove one is there.
    for at in (own, foreign):
        left = {one.alias for one in second.ask(clusters.ListNodes(at.cluster)).nodes}
        removed = {"operator", "owner", "administrator"} if at is own else {"administrator"}
        assert left & set(at.nodes.values()) == {
            alias for who, alias in at.nodes.items() if who not in removed
        }
        assert second.ask(user.GetSwarm(at.runs)).status == "STOPPED"  # with its cluster
