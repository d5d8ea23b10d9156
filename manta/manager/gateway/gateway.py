"""The only door: both listeners, who is who, and who may ask what of whom.

The key that the handshake proved says who sent a message, whichever port it came by; it
is looked up for every message, so a key that was withdrawn is heard no more. What is
allowed goes to the actor that answers it, by its path and never by a kept reference.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import cast

import msgspec

from manta.actors import (
    Actor,
    ActorDead,
    MailboxFull,
    MailboxPolicy,
    Refused,
    Reply,
)
from manta.manager.auth.permits import Permits
from manta.manager.auth.principals import Kind, Principal
from manta.manager.auth.rights import check_right
from manta.manager.auth.roles import Roles
from manta.manager.context import (
    STORE,
    Context,
    Done,
    Listening,
    cluster_path,
    finish,
    swarm_path,
    work,
)
from manta.manager.directory import Directory, SwarmEntry
from manta.manager.errors import StoreError
from manta.manager.gateway.clusters import Clusters
from manta.manager.gateway.enrolment import Enrolment
from manta.manager.gateway.modules import Modules
from manta.manager.gateway.registrar import Registrar
from manta.manager.gateway.relay import Relay, as_refusal
from manta.manager.gateway.users import Users
from manta.manager.gateway.watches import Watches
from manta.manager.messages import (
    CheckPeer,
    CutNodes,
    FromNode,
    FromUser,
    NodeAdded,
    NodeCame,
    NodesLeft,
    NodeTreeRequested,
    StopNodeRequested,
    SwarmCreated,
    SwarmRemoved,
)
from manta.manager.store.actor import GetHealth, Writer
from manta.manager.store.interface import Put
from manta.manager.store.records import (
    ClusterRecord,
    GrantRecord,
    KeyRecord,
    NodeRecord,
    RoleRecord,
    SwarmRecord,
    UserRecord,
)
from manta.protocol import clusters, exchange, node, pages, sign_in, user, users
from manta.protocol.codes import Code
from manta.protocol.paths import GATEWAY, MANAGER_LINK
from manta.protocol.states import ClusterState
from manta.protocol.tree import tree_of
from manta.protocol.user import ManagerStatus, SwarmInfo
from manta.protocol.values import BlobRef
from manta.protocol.version import VERSION
from manta.transports.interface import Link, Listener
from manta.transports.security.admission import Admission

FAREWELL = 0.3
"""Seconds that a client has to take the answer to its own signing out."""


class _Farewell(msgspec.Struct, frozen=True):
    key: str
    links: list[Link]


class Gateway(Actor):
    accepts = node.FromNode | user.FromUser
    mailbox = MailboxPolicy(bound=50_000)

    def __init__(self, context: Context) -> None:
        self._context = context

    def on_start(self) -> None:
        reader, context = self._context.reader, self._context
        nodes = reader.all(NodeRecord)
        context.principals.load(reader.all(KeyRecord), nodes, reader.all(UserRecord))
        self._directory = Directory(
            reader.all(ClusterRecord),
            nodes,
            (
                SwarmEntry(record.info.swarm_id, record.info.name, record.info.cluster_id)
                for record in reader.all(SwarmRecord)
            ),
        )
        self._links: dict[str, Link] = {}
        """By node: the one that it registered over last."""
        self._writer = Writer(self, STORE)
        self._relay = Relay(self)
        self._registrar = Registrar(
            self, context, self._writer, on_known=self._admit, on_gone=self._withdraw
        )
        self._enrolment = Enrolment(
            self,
            context,
            self._directory,
            self._registrar,
            on_known=self._admit,
            on_node=lambda record: self._relay.tell(
                cluster_path(record.cluster_id), NodeAdded(record)
            ),
        )
        self._roles = Roles(reader.all(GrantRecord), reader.all(RoleRecord))
        self._permits = Permits(context.principals, self._roles, self._directory)
        self._users = Users(
            self,
            self._registrar,
            self._roles,
            self._directory,
            on_gone=self._withdraw,
            on_granted=lambda cluster_id: self._watches.reveal(cluster_id),
        )
        self._modules = Modules(self, context, self._registrar, self._relay)
        self._clusters = Clusters(
            self,
            context,
            self._directory,
            self._roles,
            self._enrolment,
            self._writer,
            self._relay,
            self._cut,
        )
        context.revisions.clusters.changed(*self._directory.clusters)
        self._watches = Watches(
            self, context, self._permits, self._clusters, self._modules, self._relay
        )
        known = context.principals.keys()
        context.bulk_admission.replace_known(known)
        guests = [Admission(known, guests=True) for _ in range(2)]
        self._admissions = [*guests, context.bulk_admission]
        self._listeners = [
            self._listen(context.nodes, guests[0]),
            self._listen(context.users, guests[1]),
        ]

    def _listen(self, where: Listening, admission: Admission) -> Listener:
        return self.system.listen(where.address, admission, fd=where.fd, published={GATEWAY})

    def receive(self, message: object) -> object:
        origin = self.origin
        if origin is not None:
            principal = self._context.principals.of(origin.peer_key)
            check_right(principal, cast("node.Message", message))
            if isinstance(message, node.Enroll | sign_in.SignIn | sign_in.Bind):
                self._become(message, principal)
                return None
            if isinstance(message, node.Inquire | node.ExamineToken):
                return self._inquired(message, principal)
            if principal.kind is Kind.NODE:
                return self._from_node(message, principal)
            if (answer := self._from_user(message, principal)) is not None:
                self._relay.answer(self.defer(), answer)
            return None
        if self._writer.handle(message) or self._watches.handle(message):
            return None
        match message:
            case Done():
                finish(message)
            case CutNodes(node_ids):
                for node_id in node_ids:
                    if link := self._links.pop(node_id, None):
                        link.close()
            case NodesLeft(node_ids):
                self._nodes_left(node_ids)
            case _Farewell(key, links):
                if self._context.principals.of(key).kind is Kind.GUEST:
                    for link in links:
                        link.close()
            case SwarmCreated(entry):
                self._directory.swarms[entry.id] = entry
            case SwarmRemoved(swarm_id):
                self._directory.swarms.pop(swarm_id, None)
            case _:
                return super().receive(message)
        return None

    # Becoming somebody.

    def _become(self, message: node.Enroll | sign_in.SignIn | sign_in.Bind, who: Principal) -> None:
        reply = self.defer()
        match message:
            case node.Enroll():
                self._enrolment.enroll(message, who, reply)
            case sign_in.SignIn():
                self._registrar.sign_in(message, who, reply)
            case sign_in.Bind():
                self._registrar.bind(message, who, reply)

    def _admit(self, key: str) -> None:
        for admission in self._admissions:
            admission.allow(key)

    def _withdraw(self, keys: Iterable[str], asked_by: str) -> None:
        """Nothing that these keys send is handled, and no poll of theirs is answered, from
        here on. The links of who asked for it himself end a moment later, when he has his
        answer; those that he has opened since are a guest's, and stay."""
        for key in keys:
            self._context.principals.forget(key)
            if key == asked_by:
                links = [link for one in self._listeners for link in one.links(key)]
                self.after(FAREWELL, _Farewell(key, links))
                self._forget(key)
            else:
                self._cut(key)

    def _cut(self, key: str) -> None:
        for listener in self._listeners:
            listener.cut(key)
        self._forget(key)  # cutting denies it as well; as a guest it is told why it is refused

    def _forget(self, key: str) -> None:
        for admission in self._admissions:
            admission.forget(key)

    # Nodes.

    def _inquired(self, message: node.Inquire | node.ExamineToken, who: Principal) -> object:
        if isinstance(message, node.ExamineToken):
            self._enrolment.examine(message, who, self.defer())
            return None
        context = self._context
        return node.Standing(
            who.id if who.kind is Kind.NODE else "",
            who.kind is Kind.REMOVED,
            self.clock.wall(),
            VERSION,
            context.nodes.address,
            context.users.address,
            context.bulk.address,
        )

    def _from_node(self, message: object, who: Principal) -> object:
        match message:
            case node.Register():
                self._register(message, who)
            case node.Heartbeat() | node.FetchDesired():
                self._relay.forward(cluster_path(who.cluster_id), FromNode(message, who.id))
            case node.Goodbye():
                self._relay.tell(cluster_path(who.cluster_id), FromNode(message, who.id))
            case node.ReadGlobal() | node.ListGlobals() | node.SelectResults():
                entry = self._swarm_of_node(message.swarm_id, who)
                self._relay.ask_swarm(entry, FromNode(message, who.id))
            case (
                exchange.ReadBroadcast(instance=at)
                | exchange.ReadMessage(instance=at)
                | exchange.ReadContributions(instance=at)
                | exchange.ReadLock(instance=at)
                | exchange.ReadPeers(instance=at)
                | exchange.ReadCheckpoint(instance=at)
            ):
                entry = self._swarm_of_node(at.swarm_id, who)
                wait = getattr(message, "wait", 0.0)
                self._relay.ask_swarm(entry, FromNode(message, who.id), wait)
            case exchange.ResolvePeer(at, name):
                entry = self._swarm_of_node(at.swarm_id, who)
                peer = self._directory.node(name, who.cluster_id)
                self._relay.ask_swarm(entry, CheckPeer(at, peer.id, peer.alias))
            case exchange.CheckNext(at, node_ids):
                entry = self._swarm_of_node(at.swarm_id, who)
                self._directory.nodes_named(node_ids, who.cluster_id)
                self._relay.ask_swarm(entry, FromNode(message, who.id))
            case node.JournalBatch() | node.LogBatch():
                self._deliver(message, who)
            case _:
                return super().receive(message)
        return None

    def _register(self, message: node.Register, who: Principal) -> None:
        record = self._directory.nodes[who.id]
        self._directory.check_alias(message.alias, record.cluster_id, node_id=record.id)
        current = msgspec.structs.replace(
            record, alias=message.alias, capabilities=message.capabilities, here=True
        )
        origin = self.origin
        assert origin is not None
        self._links[record.id] = origin.link
        came = NodeCame(current, message, origin.ref(MANAGER_LINK))
        if current == record:
            self._relay.forward(cluster_path(record.cluster_id), came)
            return
        reply = self.defer()
        self._directory.nodes[record.id] = current

        def then(error: StoreError | None) -> None:
            # It can work all the same: what is stored is for the time after a restart.
            if error is not None:
                self.log.warning("what node %s has now is not stored: %s", current.alias, error)
            self._relay.ask(cluster_path(record.cluster_id), came, reply)

        self._writer.write(Put(current), then=then)

    def _nodes_left(self, node_ids: tuple[str, ...]) -> None:
        left: list[NodeRecord] = []
        for node_id in node_ids:
            record = self._directory.nodes.get(node_id)
            if record is not None and record.here:
                left.append(msgspec.structs.replace(record, here=False))
        for record in left:
            self._directory.nodes[record.id] = record

        def then(error: StoreError | None) -> None:
            if error is not None:
                self.log.warning("that nodes left is not stored: %s", error)

        if left:
            self._writer.write(*map(Put, left), then=then)

    def _swarm_of_node(self, swarm_id: str, who: Principal) -> SwarmEntry:
        entry = self._directory.swarms.get(swarm_id)
        if entry is None or entry.cluster_id != who.cluster_id:
            raise Refused(
                Code.UNKNOWN_SWARM, f"There is no swarm {swarm_id!r} in this node's cluster."
            )
        return entry

    def _deliver(self, message: node.JournalBatch | node.LogBatch, who: Principal) -> None:
        """To the swarm; what is not delivered is not acknowledged, and so is sent again."""
        request = FromNode(message, who.id)
        entry = self._directory.swarms.get(message.swarm_id)
        if entry is None or entry.cluster_id != who.cluster_id:
            self._relay.tell(cluster_path(who.cluster_id), request)
            return
        path = swarm_path(entry.cluster_id, entry.id)
        try:
            self.system.find(path).tell(request)
        except ActorDead:
            self._relay.load(entry, lambda: self._relay.tell(path, request), lambda _: None)
        except MailboxFull as error:
            raise as_refusal(error) from error

    # Users.

    def _from_user(self, message: object, who: Principal) -> object:
        find = self._permits.seen_by(who)
        self._permits.check(message, who, find)
        match message:
            case sign_in.WhoAmI():
                return self._registrar.who_am_i(who)
            case sign_in.RotateToken():
                self._registrar.rotate(who, self.defer())
            case sign_in.Logout() | users.GetUser() | users.ListUsers() | users.AddUser():
                self._users.handle(message, who, find, self.defer())
            case users.ChangePassword() | users.DeleteUser() | users.ListRoles():
                self._users.handle(message, who, find, self.defer())
            case users.GrantRole() | users.RevokeRole() | users.RevokeTokens():
                self._users.handle(message, who, find, self.defer())
            case users.CreateRoleDefinition() | users.DeleteRoleDefinition():
                self._users.handle(message, who, find, self.defer())
            case users.SendModule() | users.GetModule() | users.ResolveModule():
                self._modules.handle(message, who, self.defer())
            case users.ListModules() | users.UpdateModule() | users.RemoveModule():
                self._modules.handle(message, who, self.defer())
            case clusters.ListClusters(after):
                return self._clusters.page(self._permits.visible(who), after)
            case clusters.GetCluster(name):
                return self._clusters.info(find.cluster(name))
            case clusters.CreateCluster(name):
                self._clusters.create(name, who)
            case clusters.StartCluster(name):
                self._clusters.change(find.cluster(name), ClusterState.RUNNING)
            case clusters.StopCluster(name):
                self._clusters.change(find.cluster(name), ClusterState.STOPPED)
            case clusters.DeleteCluster(name):
                self._clusters.delete(find.cluster(name))
            case clusters.CreateNodeToken(cluster=name):
                at = find.cluster(name).id
                self._enrolment.create_token(message, at, who, self.defer())
            case clusters.WatchClusters() | users.WatchModules():
                self._watches.open(message, who, None, self.defer())
            case clusters.WatchNodes(cluster=name) | user.WatchSwarms(cluster=name):
                cluster_id = None if name is None else find.cluster(name).id
                self._watches.open(message, who, cluster_id, self.defer())
            case clusters.ListNodes(name):
                self._relay.forward(cluster_path(find.cluster(name).id), FromUser(message, who))
            case clusters.GetNode(name, cluster):
                record = find.node(name, cluster)
                asked = FromUser(clusters.GetNode(record.id), who)
                self._relay.forward(cluster_path(record.cluster_id), asked)
            case clusters.RequestNodeStop(name, drain):
                record = find.node(name)
                self._relay.forward(
                    cluster_path(record.cluster_id), StopNodeRequested(record.id, drain)
                )
            case user.GetTree(None, after):
                return tree_of(self.system.tree(), after)
            case user.GetTree(str(name), after):
                record = find.node(name)
                request = NodeTreeRequested(record.id, after)
                self._relay.forward(cluster_path(record.cluster_id), request)
            case clusters.RemoveNode(name):
                self._clusters.remove_node(find.node(name))
            case user.CheckSwarm(cluster=name) | user.SendSwarm(cluster=name):
                self._relay.forward(cluster_path(find.cluster(name).id), FromUser(message, who))
            case user.FindMissingBlobs(blobs):
                self._find_missing(blobs, self.defer())
            case user.ListSwarms(name, after):
                where = self._permits.readable(who) if name is None else [find.cluster(name).id]
                infos = self._swarms(where)
                return user.Swarms(
                    *pages.after(infos, lambda one: one.swarm_id, after, pages.encoded)
                )
            case user.RemoveSwarm(name):
                entry = find.swarm(name)
                self._relay.forward(
                    cluster_path(entry.cluster_id), FromUser(message, who, entry.id)
                )
            case user.GetManagerStatus():
                self._status(find, self.defer())
            case user.ReadFeed(swarm=name, wait=wait) | user.WaitSwarm(name, wait):
                entry = find.swarm(name)
                answer = self._permits.if_still(who, message, entry.cluster_id)
                self._relay.ask_swarm(entry, FromUser(message, who, entry.id), wait, answer)
            case (
                user.StartSwarm(swarm=name)
                | user.StopSwarm(swarm=name)
                | user.PauseSwarm(swarm=name)
                | user.ResumeSwarm(swarm=name)
                | user.GetSwarm(swarm=name)
                | user.ExplainSwarm(swarm=name)
                | user.GetTasks(swarm=name)
                | user.SelectGlobal(swarm=name)
                | user.SetGlobal(swarm=name)
                | user.DeleteResults(swarm=name)
                | user.ListGlobalTags(swarm=name)
            ):
                entry = find.swarm(name)
                self._relay.ask_swarm(entry, FromUser(message, who, entry.id))
            case _:
                return super().receive(message)
        return None

    def _find_missing(self, blobs: tuple[BlobRef, ...], reply: Reply) -> None:
        holds = self._context.holds

        def job() -> user.MissingBlobs:
            return user.MissingBlobs(tuple(blob for blob in blobs if not holds(blob.digest)))

        def then(missing: user.MissingBlobs) -> None:
            reply.set(missing)

        work(self, self._context.workers, job, then, reply)

    # How the manager is.

    def _swarms(self, cluster_ids: Iterable[str]) -> Iterator[SwarmInfo]:
        for id_ in cluster_ids:
            yield from self._context.board(id_).swarms.values()

    def _status(self, find: Directory, reply: Reply) -> None:
        boards = [self._context.board(id_) for id_ in find.clusters]
        health = {
            find.clusters[id_].name: self._context.board(id_).notice
            for id_ in find.clusters
            if self._context.board(id_).notice
        }

        def answer(trouble: object) -> ManagerStatus:
            return ManagerStatus(
                version=VERSION,
                started_at=self._context.started_at,
                clusters=len(boards),
                nodes_connected=sum(board.connected for board in boards),
                swarms_active=sum(board.active_swarms for board in boards),
                health={"store": str(trouble or "ok"), **health},
            )

        self._relay.ask(STORE, GetHealth(), reply, answer)
