"""What a stranger to something learns of it: nothing, not even that it is there.

`lab` is Ada's: its nodes, swarm, module and values. Eve owns a cluster of her own, with a node and
a swarm. Every message that a user or a node may send is sent about what is Ada's and about what
does not exist; both are answered alike, and no answer holds a word of Ada's. A message without a
rule here fails, and so does a rule without a message.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from manta import Module, Swarm, Task, UserAPI
from manta.actors import Refused
from manta.apis.connect.profiles import Target
from manta.apis.connect.session import Session
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
from manta.protocol.clusters import CreateCluster, CreateNodeToken
from manta.protocol.codes import Code
from manta.protocol.node import Instance, Message
from manta.protocol.spec import ModuleSpec, SwarmSpec, TaskSpec
from manta.protocol.values import BlobRef, Inline
from manta.testing import wait_until
from manta.testing.manager import Client, FakeNode
from manta.transports.blobs.digests import digest_of
from manta.transports.blobs.file_depot import FileDepot
from manta.transports.bulk.curve import BulkPeer, CurveBulk
from manta.transports.errors import BlobCorrupt, BlobMissing, BulkError
from manta.transports.security.keys import KeyPair
from tests.integration.manager.test_rights import closed_union

PASSWORD = "correct-horse"
ADA, EVE = "ada@analytical.org", "eve@elsewhere.org"
IMAGE = ModuleSpec("m", None, image="none")
SPEC = SwarmSpec("mine", (TaskSpec("task", "m"),), (IMAGE,))
NONE = BlobRef("0" * 64, 10)


class Reader(Swarm):
    def execute(self) -> Task:
        return Task(Module("def main():\n    return 2\n", name="two"))


def silent(assignment: node.Assignment) -> list[node.JournalEntry]:
    return [node.TaskStarted(assignment.instance, 0.0)]


@contextmanager
def bulk(bench, keys: KeyPair, folder: Path) -> Iterator[tuple[CurveBulk, FileDepot, BulkPeer]]:
    depot = FileDepot(folder, sync=False)
    plane = CurveBulk(keys, depot)
    try:
        yield plane, depot, plane.dial(bench.manager.file.bulk, bench.key)
    finally:
        plane.close()


@dataclass
class Place:
    """What there is, and who knows it."""

    ada: Client
    eve: Client
    runs: FakeNode
    """Of Ada's; it runs task.0 of the swarm."""
    other: FakeNode
    """Of Ada's; it runs task.1."""
    idle: FakeNode
    """Of Ada's; it runs nothing."""
    foreign: FakeNode
    """Of Eve's; it runs Eve's swarm."""
    cluster: str
    swarm: str
    module: str
    own_swarm: str
    own_module: str
    package: BlobRef
    model: BlobRef
    private: list[str] = field(default_factory=list)
    """Words of Ada's, which nobody else is told."""

    def hers(self, index: int = 0) -> Instance:
        return Instance(self.swarm, "task", index, 0, 0)


@pytest.fixture
def place(bench, admin: Client, tmp_path: Path) -> Iterator[Place]:
    def person(email: str, **options: bool) -> Client:
        admin.ask(users.AddUser(email, PASSWORD, **options))
        client = bench.client()
        client.ask(sign_in.SignIn(email, PASSWORD))
        return client

    ada, eve = person(ADA), person(EVE)
    admin.ask(users.GrantRole(ADA, "lab", "owner"))
    own = eve.ask(CreateCluster("mine"))
    token = eve.ask(CreateNodeToken("mine")).token
    foreign = bench.node(4, silent, keys=KeyPair.generate(), alias="eve-node", token=token)
    hers = [bench.node(number, silent) for number in (1, 2, 3)]
    for one in (*hers, foreign):
        assert one.registered.wait(60)
    model, package = os.urandom(100_000), os.urandom(70_000)
    with bulk(bench, ada.keys, tmp_path / "ada") as (_, depot, peer):
        refs = [BlobRef(depot.put(data), len(data)) for data in (model, package)]
        for ref in refs:
            peer.push(ref.digest, ref.size, timeout=20).result(60)
    module = ada.ask(users.SendModule(ModuleSpec("secretcode", refs[1], version="1.0.0")))
    ada.ask(users.ShareModule(module.id, "lab"))
    where = tuple(one.node_id for one in hers[:2])
    spec = SwarmSpec(
        "secretswarm",
        (TaskSpec("task", "secretcode", specified_ids=where),),
        (module.spec,),
        globals={"secrettag": refs[0]},
    )
    swarm = ada.ask(user.SendSwarm("lab", spec)).swarm_id
    ada.ask(user.StartSwarm(swarm))
    own_module = eve.ask(users.SendModule(replace(IMAGE, name="public")))
    own_swarm = eve.ask(user.SendSwarm("mine", SPEC)).swarm_id
    eve.ask(user.StartSwarm(own_swarm))
    wait_until(lambda: all(one.ran for one in (*hers[:2], foreign)))
    runs, other = sorted(hers[:2], key=lambda one: one.ran[0].index)
    cluster = ada.ask(clusters.GetCluster("lab")).id
    private = [ADA, ada.ask(users.GetUser()).id, cluster, swarm, module.id, "me@localhost"]
    private += ["secretswarm", "secretcode", "secrettag", *(ref.digest[:12] for ref in refs)]
    private += (word for one in hers for word in (one.node_id, one.alias))
    yield Place(
        ada,
        eve,
        runs,
        other,
        hers[2],
        foreign,
        cluster,
        swarm,
        module.id,
        own_swarm,
        own_module.id,
        refs[1],
        refs[0],
        private,
    )
    assert own.name == "mine"


# What users may send.


class About:
    """About something of a name: what is Ada's and what is not there are answered alike."""

    def __init__(self, make: Callable[[str], Message], *names: str) -> None:
        self.make = make
        self.names = names


class Plain:
    """It names nothing of others: only its answer may tell."""

    def __init__(self, *messages: Message) -> None:
        self.messages = messages


def rules(place: Place) -> dict[type[Message], About | Plain]:
    ids = {
        "cluster": (place.cluster, place.cluster[:8], "lab"),
        "node": (place.runs.node_id, place.runs.node_id[:8], "node-1"),
        "swarm": (place.swarm, place.swarm[:8], "secretswarm"),
        "module": (place.module, place.module[:8], "secretcode", place.package.digest[:16]),
        "user": (place.ada.ask(users.GetUser()).id, place.ada.ask(users.GetUser()).id[:8]),
    }
    blobs = (place.package.digest, place.model.digest)

    def about(kind: Callable[..., Message], what: str, *rest: Any) -> About:
        return About(lambda name: kind(name, *rest), *ids[what])

    def with_package(digest: str) -> ModuleSpec:
        return ModuleSpec("public", BlobRef(digest, 70_000))

    def naming(kind: Callable[..., Message]) -> About:
        """A swarm of Eve's that names a blob of Ada's."""
        return About(
            lambda digest: kind("mine", replace(SPEC, modules=(with_package(digest),))), *blobs
        )

    swarms: dict[type[Message], About | Plain] = {
        kind: about(kind, "swarm")
        for kind in (
            *(user.StartSwarm, user.StopSwarm, user.PauseSwarm, user.ResumeSwarm),
            *(user.RemoveSwarm, user.GetSwarm, user.ExplainSwarm, user.GetTasks),
            user.GetSpec,
            *(user.DeleteResults, user.ListGlobalTags),
        )
    }
    return {
        **swarms,
        user.ReadFeed: about(user.ReadFeed, "swarm", "logs"),
        user.ReadStacks: about(user.ReadStacks, "swarm", "secrettask"),
        user.RecallResult: about(
            user.RecallResult, "swarm", "secrettag", 0, "nobody", BlobRef("0" * 64, 100_000)
        ),
        user.SelectGlobal: about(user.SelectGlobal, "swarm", "secrettag"),
        user.WaitSwarm: about(user.WaitSwarm, "swarm", 0.0),
        user.SetGlobal: About(
            lambda digest: user.SetGlobal(place.own_swarm, "tag", BlobRef(digest, 100_000)), *blobs
        ),
        user.ListSwarms: about(user.ListSwarms, "cluster"),
        user.WatchSwarms: about(user.WatchSwarms, "cluster"),
        user.CheckSwarm: about(user.CheckSwarm, "cluster", SPEC),
        user.SendSwarm: naming(user.SendSwarm),
        user.FindMissingBlobs: About(
            lambda digest: user.FindMissingBlobs((BlobRef(digest, 100_000),)), *blobs
        ),
        user.GetManagerStatus: Plain(user.GetManagerStatus()),
        user.GetTree: about(user.GetTree, "node"),
        # Clusters and their nodes.
        clusters.CreateCluster: About(clusters.CreateCluster, "lab", place.cluster),
        clusters.ListClusters: Plain(clusters.ListClusters()),
        clusters.WatchClusters: Plain(clusters.WatchClusters()),
        clusters.GetCluster: about(clusters.GetCluster, "cluster"),
        clusters.StartCluster: about(clusters.StartCluster, "cluster"),
        clusters.StopCluster: about(clusters.StopCluster, "cluster"),
        clusters.DeleteCluster: about(clusters.DeleteCluster, "cluster"),
        clusters.CreateNodeToken: about(clusters.CreateNodeToken, "cluster"),
        clusters.ListNodes: about(clusters.ListNodes, "cluster"),
        clusters.WatchNodes: about(clusters.WatchNodes, "cluster"),
        clusters.GetNode: about(clusters.GetNode, "node"),
        clusters.GetNodeLinks: about(clusters.GetNodeLinks, "node"),
        clusters.RequestNodeStop: about(clusters.RequestNodeStop, "node"),
        clusters.RemoveNode: about(clusters.RemoveNode, "node"),
        # People. By a whole address somebody is found: so a role is granted.
        users.GetUser: About(users.GetUser, *ids["user"], ADA),
        users.ListUsers: Plain(users.ListUsers()),
        users.AddUser: About(lambda name: users.AddUser(name, PASSWORD), ADA),
        users.ChangePassword: Plain(users.ChangePassword("wrong word", PASSWORD)),
        users.DeleteUser: About(users.DeleteUser, *ids["user"], ADA),
        users.RevokeTokens: About(users.RevokeTokens, *ids["user"], ADA),
        users.GrantRole: About(
            lambda name: users.GrantRole(name, "mine", "viewer"), *ids["user"], "ada"
        ),
        users.RevokeRole: About(lambda name: users.RevokeRole(name, "mine"), *ids["user"], ADA),
        users.CreateRoleDefinition: Plain(users.CreateRoleDefinition("r", ("swarm.read",))),
        users.DeleteRoleDefinition: Plain(users.DeleteRoleDefinition("r")),
        users.ListRoles: Plain(users.ListRoles()),
        # Modules.
        users.SendModule: About(lambda digest: users.SendModule(with_package(digest)), *blobs),
        users.GetModule: about(users.GetModule, "module"),
        users.ResolveModule: about(users.ResolveModule, "module", None, "mine"),
        users.ListModules: Plain(users.ListModules()),
        users.WatchModules: Plain(users.WatchModules()),
        users.UpdateModule: About(
            lambda digest: users.UpdateModule(place.own_module, with_package(digest)), *blobs
        ),
        users.ShareModule: about(users.ShareModule, "module", "mine"),
        users.RemoveModule: about(users.RemoveModule, "module"),
        # Quotas.
        quotas.GetQuotas: about(lambda name: quotas.GetQuotas(cluster=name), "cluster"),
        quotas.GetSwarmQuotas: about(quotas.GetSwarmQuotas, "swarm"),
        quotas.SetQuota: About(
            lambda name: quotas.SetQuota("clusters", 1, user=name), *ids["user"], ADA
        ),
        # Who one is.
        sign_in.SignIn: About(lambda name: sign_in.SignIn(name, "wrong word"), ADA),
        sign_in.Bind: Plain(sign_in.Bind("token")),
        sign_in.WhoAmI: Plain(sign_in.WhoAmI()),
        sign_in.CreateUserToken: Plain(sign_in.CreateUserToken()),
        sign_in.RotateToken: Plain(sign_in.RotateToken()),
        sign_in.Logout: Plain(sign_in.Logout()),
    }


def said(ask: Callable[[Message], Any], message: Message) -> str:
    """All that a sender learns from an answer or refusal."""
    try:
        answer = ask(message)
    except Refused as refused:
        return f"{refused.code}: {refused.sentence} {refused.data}"
    return msgspec.json.encode(answer).decode()


def alike(text: str, *names: str) -> str:
    """Without the names that the sender gave, and what is new each time."""
    for name in names:
        text = text.replace(name, "NAME").replace(name[:12], "NAME") if name else text
    return re.sub(r"\b[0-9a-f]{16}\b|\d+\.\d+|\.\d+\"", "?", text)


def test_users_learn_nothing_of_what_they_do_not_see(place: Place) -> None:
    table = rules(place)
    messages = {kind for kind in closed_union() if kind not in _of_nodes()}
    assert {kind.__name__ for kind in messages} == {kind.__name__ for kind in table}
    wrong = []
    last = {clusters.CreateCluster: 1, sign_in.RotateToken: 2, sign_in.Logout: 3}
    for kind, rule in sorted(table.items(), key=lambda row: last.get(row[0], 0)):
        if isinstance(rule, Plain):
            told = [(said(place.eve.ask, one), "") for one in rule.messages]
        else:
            told = []
            for name in rule.names:
                nothing = NONE.digest if len(name) == 64 else f"no-{name[::-1]}"
                nothing = f"{nothing}.org" if "@" in name else nothing
                answer = said(place.eve.ask, rule.make(name))
                control = said(place.eve.ask, rule.make(nothing))
                if alike(answer, name) != alike(control, nothing):
                    wrong.append(f"{kind.__name__}({name}): {answer} and {control}")
                told.append((answer, name))
        for answer, name in told:
            found = [word for word in place.private if word in answer and not _given(word, name)]
            if found:
                wrong.append(f"{kind.__name__}({name}) tells {found}: {answer}")
    assert not wrong, "\n".join(wrong)
    of_others = [place.eve.refusal(quotas.GetQuotas(user=one)) for one in (ADA, "no@body.org")]
    assert of_others[0].sentence == of_others[1].sentence
    # What was refused was not done.
    assert place.ada.ask(user.GetSwarm(place.swarm)).status == "ACTIVE"
    assert len(place.ada.ask(clusters.ListNodes("lab")).nodes) == 4
    assert place.ada.ask(users.GetModule("secretcode")).id == place.module


def _given(word: str, name: str) -> bool:
    """Whether the sender has said the word itself."""
    return bool(name) and (word in name or name in word)


def test_who_is_named_by_the_beginning_of_an_id_is_one_whom_the_sender_sees(
    place: Place, admin: Client
) -> None:
    for first in ("", *"0123456789abcdef"):
        refusal = place.eve.refusal(users.GrantRole(first, "mine", "viewer"))
        assert refusal.code == Code.UNKNOWN_USER or refusal.data == {}
        assert not any(word in refusal.sentence for word in place.private)
    # A whole address finds somebody, who is shown without what is not the sender's.
    granted = place.eve.ask(users.GrantRole("me@localhost", "mine", "viewer"))
    assert (granted.email, granted.admin, granted.created_at) == ("me@localhost", False, 0.0)
    assert {one.cluster_name for one in granted.grants} == {"mine"}
    # From then on the beginning of the id will do.
    assert place.eve.ask(users.GrantRole(granted.id[:10], "mine", "operator")).id == granted.id
    place.eve.ask(users.RevokeRole(granted.id[:10], "mine"))
    assert place.eve.refusal(users.RevokeRole(granted.id, "mine")).code == Code.UNKNOWN_USER
    # Administrators see everybody, and everything of them.
    assert admin.ask(users.GrantRole(granted.id[:10], "mine", "viewer")).admin


def test_addresses_are_not_found_out_by_trying_them(place: Place) -> None:
    codes = [
        place.eve.refusal(users.GrantRole(f"{number}@nowhere", "mine", "viewer")).code
        for number in range(30)
    ]
    assert codes[:20] == [Code.UNKNOWN_USER] * 20
    assert codes[-1] == Code.RATE_LIMITED
    assert place.eve.refusal(users.GrantRole(ADA, "mine", "viewer")).code == Code.RATE_LIMITED
    # Who has a role there already is no guess.
    assert place.eve.ask(users.GrantRole(EVE, "mine", "owner")).email == EVE


def test_a_name_that_somebody_else_uses_is_not_taken(place: Place, admin: Client) -> None:
    eves = place.eve.ask(CreateCluster("lab"))
    assert eves.name == "lab"
    assert place.eve.ask(clusters.GetCluster("lab")).id == eves.id
    assert place.ada.ask(clusters.GetCluster("lab")).id == place.cluster
    assert place.eve.refusal(CreateCluster("lab")).code == Code.NAME_TAKEN
    # Of two that one sees, it is one's own that a name means.
    admin.ask(users.GrantRole(EVE, place.cluster, "viewer"))
    assert place.eve.ask(clusters.GetCluster("lab")).id == eves.id
    assert place.eve.ask(clusters.GetCluster(place.cluster)).id == place.cluster
    status = place.eve.ask(user.GetManagerStatus())
    assert status.clusters == 3


def test_a_module_is_seen_once_it_is_shared(place: Place, bench, admin: Client) -> None:
    ada, eve = place.ada, place.eve
    own = ada.ask(users.SendModule(replace(IMAGE, name="draft")))
    assert own.shared == ()
    admin.ask(users.GrantRole(EVE, "lab", "researcher"))
    assert [one.id for one in eve.ask(users.ListModules()).modules] == sorted(
        (place.module, place.own_module)
    )
    seen = eve.ask(users.WatchModules()).revision
    shared = ada.ask(users.ShareModule("draft", "lab"))
    assert [one.cluster_name for one in shared.shared] == ["lab"]
    [news] = eve.ask(users.WatchModules(seen, 10.0)).modules
    assert news.id == own.id
    assert eve.ask(users.ResolveModule("draft")).id == own.id
    assert eve.ask(users.ResolveModule("draft", None, "lab")).id == own.id
    # Elsewhere nobody runs it by its name: who shares with a stranger's cluster names no code.
    elsewhere = users.ResolveModule("draft", None, "mine")
    assert eve.refusal(elsewhere).code == Code.UNKNOWN_MODULE
    assert eve.refusal(users.RemoveModule("draft")).code == Code.FORBIDDEN
    assert eve.refusal(users.ShareModule("draft", "mine")).code == Code.FORBIDDEN
    # Who manages the cluster may withdraw it from there, too.
    assert eve.refusal(users.ShareModule("draft", "lab", shared=False)).code == Code.FORBIDDEN
    admin.ask(users.GrantRole(EVE, "lab", "owner"))
    assert eve.ask(users.ShareModule("draft", "lab", shared=False)).shared == ()
    assert eve.refusal(users.GetModule("draft")).code == Code.UNKNOWN_MODULE
    assert ada.ask(users.GetModule("draft")).id == own.id
    bench.restart()
    assert eve.refusal(users.GetModule("draft")).code == Code.UNKNOWN_MODULE
    assert eve.ask(users.GetModule("secretcode")).id == place.module


# What nodes may send.


def _of_nodes() -> dict[type[Message], Callable[[str, Instance], Message]]:
    """About a swarm and an instance."""
    return {
        enrolment.Enroll: lambda _, __: enrolment.Enroll("token", "x"),
        enrolment.Inquire: lambda _, __: enrolment.Inquire(),
        enrolment.ExamineToken: lambda _, __: enrolment.ExamineToken("token"),
        node.Register: lambda swarm, _: node.Register(
            "same", node.Capabilities(), journals={swarm: 5}, acknowledged={swarm: 5}
        ),
        node.Heartbeat: lambda swarm, _: node.Heartbeat(0, node.Load(), journals={swarm: 5}),
        node.FetchDesired: lambda _, __: node.FetchDesired(),
        audit.TellLogHead: lambda _, __: audit.TellLogHead(1, "0" * 64, "0" * 64),
        node.Goodbye: lambda _, __: node.Goodbye(),
        node.JournalBatch: lambda swarm, at: node.JournalBatch(
            swarm, 1, (node.ResultWritten(at, "forged", Inline(b"x")),)
        ),
        node.LogBatch: lambda swarm, at: node.LogBatch(
            swarm, 1, (node.LogLine(at, 0.0, "stdout", "forged"),)
        ),
        node.ReadGlobal: lambda swarm, _: node.ReadGlobal(swarm, "secrettag"),
        node.ListGlobals: lambda swarm, _: node.ListGlobals(swarm),
        node.SelectResults: lambda swarm, _: node.SelectResults(swarm, "secrettag", 0),
        peers.FetchPeers: lambda swarm, _: peers.FetchPeers(swarm),
        roster.WantRoster: lambda swarm, _: roster.WantRoster(swarm),
        spread.WantBlob: lambda swarm, _: spread.WantBlob(swarm, "0" * 64, 1),
        spread.BlobTold: lambda swarm, _: spread.BlobTold(swarm, "0" * 64, held=True),
        exchange.ResolvePeer: lambda _, at: exchange.ResolvePeer(at, "node-1"),
        exchange.CheckNext: lambda _, at: exchange.CheckNext(at, ("nobody",), None),
        exchange.ReadPeers: lambda _, at: exchange.ReadPeers(at),
        exchange.ReadBroadcast: lambda _, at: exchange.ReadBroadcast(at, "secrettag"),
        exchange.ReadMessage: lambda _, at: exchange.ReadMessage(at, "node-1", "secrettag", 0),
        exchange.ReadContributions: lambda _, at: exchange.ReadContributions(at, 0, "barrier()"),
        exchange.ReadRoom: lambda _, at: exchange.ReadRoom(at, "node-1", 8),
        exchange.ReadLock: lambda _, at: exchange.ReadLock(at, "secrettag"),
        exchange.ReadCheckpoint: lambda _, at: exchange.ReadCheckpoint(at),
    }


TOLD = {node.JournalBatch, node.LogBatch, node.Goodbye}
"""They have no answer."""


@pytest.mark.parametrize("who", ["idle", "foreign"])
def test_nodes_learn_nothing_of_what_they_do_not_run(place: Place, who: str) -> None:
    table = _of_nodes()
    assert {kind.__name__ for kind in closed_union()} >= {kind.__name__ for kind in table}
    asker: FakeNode = getattr(place, who)
    own = {asker.node_id, asker.alias, *(("lab",) if who == "idle" else ())}
    if who == "idle":
        own.add(place.cluster)
    fake = "0" * 16
    wrong = []
    for kind, make in table.items():
        if kind in TOLD:
            continue
        answers = []
        for swarm in (place.swarm, fake):
            message = make(swarm, Instance(swarm, "task", 0, 0, 0))
            if isinstance(message, node.Register):
                message = replace(message, alias=asker.alias)
            answers.append(alike(said(asker.ask, message), swarm))
        if answers[0] != answers[1]:
            wrong.append(f"{kind.__name__}: {answers}")
        told = [word for word in place.private if word in answers[0] and word not in own]
        if told:
            wrong.append(f"{kind.__name__} tells {told}: {answers[0]}")
    assert not wrong, "\n".join(wrong)
    # The swarm was not disturbed: nothing runs again.
    tasks = place.ada.ask(user.GetTasks(place.swarm)).tasks
    assert {(one.instance.index, one.instance.attempt) for one in tasks} == {(0, 0), (1, 0)}


def test_a_node_reads_what_it_runs_and_asks_for_its_own_instances(place: Place) -> None:
    runs, other = place.runs, place.other
    assert runs.ask(node.ReadGlobal(place.swarm, "secrettag")).value == place.model
    assert runs.ask(node.ListGlobals(place.swarm)).tags == ("secrettag",)
    assert runs.ask(node.SelectResults(place.swarm, "tag", 0)).entries == ()
    mine, not_mine = place.hers(0), place.hers(1)
    assert len(runs.ask(exchange.ReadPeers(mine)).peers) == 2
    assert runs.ask(exchange.ResolvePeer(mine, "node-3")).alias == "node-3"
    other.say(place.swarm, exchange.Checkpointed(not_mine, Inline(b"secret")))
    wait_until(lambda: other.acknowledged.get(place.swarm) == 2)
    assert other.ask(exchange.ReadCheckpoint(not_mine)).value == Inline(b"secret")
    reads = [make for kind, make in _of_nodes().items() if kind.__module__.endswith("exchange")]
    for make in reads:
        answer, nobody = (
            alike(said(runs.ask, make("", at)), str(at))
            for at in (not_mine, replace(not_mine, index=7))
        )
        assert answer == nobody
        assert "was ended" in answer
        assert "node-1" not in answer


@pytest.mark.parametrize("who", ["idle", "foreign", "other"])
def test_a_node_speaks_for_its_own_instances_only(place: Place, bench, who: str) -> None:
    asker: FakeNode = getattr(place, who)
    at, value = place.hers(0), Inline(bytes(60_000))
    store = bench.manager.context.reader
    events = sum(len(one.body) for one in store.events(place.swarm))
    said_before = len(asker.journal.get(place.swarm, ()))
    for _ in range(5):
        asker.say(
            place.swarm,
            node.ResultWritten(at, "forged", value),
            node.GlobalWritten(at, "secrettag", value),
            exchange.Broadcasted(at, "forged", value),
            node.TaskEnded(at, "FAILED", 0.0),
        )
    asker.log(place.swarm, *(node.LogLine(at, 0.0, "stdout", "forged") for _ in range(50)))
    wait_until(lambda: asker.acknowledged.get(place.swarm) == said_before + 20)
    wait_until(lambda: any(isinstance(one, node.LogAck) and one.upto == 50 for one in asker.heard))
    feed = place.ada.ask(user.ReadFeed(place.swarm, "results"))
    assert feed.items == ()
    assert place.ada.ask(user.SelectGlobal(place.swarm, "secrettag")).value == place.model
    assert {one.status for one in place.ada.ask(user.GetTasks(place.swarm)).tasks} == {"RUNNING"}
    lines = place.ada.ask(user.ReadFeed(place.swarm, "logs"))
    assert lines.items == ()
    # And nothing of it is stored, but the number that was reached.
    assert sum(len(one.body) for one in store.events(place.swarm)) - events < 2000
    assert sum(len(line.body) for line in store.logs(place.swarm)) == 0
    told = place.ada.ask(user.ReadFeed(place.swarm, "events")).items
    assert sum(one.kind == "ignored" for one in told) == (who != "foreign")


def test_lines_of_others_leave_those_of_the_node_their_numbers(place: Place, bench) -> None:
    mine, not_mine = place.hers(0), place.hers(1)
    runs = place.runs
    said_by = [mine, not_mine, mine, mine, not_mine]
    runs.log(
        place.swarm,
        *(node.LogLine(at, 0.0, "stdout", f"line {i}") for i, at in enumerate(said_by)),
    )
    heard = lambda upto: any(  # noqa: E731
        isinstance(one, node.LogAck) and one.upto == upto for one in runs.heard
    )
    wait_until(lambda: heard(5))
    bench.restart()
    assert runs.registered.wait(60)
    runs.log(place.swarm, node.LogLine(mine, 0.0, "stdout", "line 5"))
    wait_until(lambda: heard(6))
    page = place.ada.ask(user.ReadFeed(place.swarm, "logs"))
    assert [one.line.text for one in page.items] == ["line 0", "line 2", "line 3", "line 5"]
    assert {one.line.instance for one in page.items} == {mine}


# The bulk plane.


def test_a_blob_is_given_to_who_may_read_what_names_it(place: Place, bench, tmp_path: Path) -> None:
    def fetched(keys: KeyPair, ref: BlobRef, name: str) -> str:
        with bulk(bench, keys, tmp_path / name) as (_, depot, peer):
            try:
                peer.fetch(ref.digest, ref.size, timeout=20).result(60)
            except BulkError as error:
                return f"{type(error).__name__}: {error}"
            assert ref.digest in depot
            return ""

    for ref in (place.model, place.package):
        for one in (place.ada, place.runs, place.other):
            assert fetched(one.keys, ref, f"{id(one)}{ref.size}") == ""
        for one in (place.eve, place.idle, place.foreign):
            refused = fetched(one.keys, ref, f"{id(one)}{ref.size}")
            nothing = fetched(one.keys, NONE, f"{id(one)}none")
            assert refused.replace(ref.digest[:12], "") == nothing.replace(NONE.digest[:12], "")
    # Once the swarm is over, its nodes are told nothing more of it.
    place.ada.ask(user.StopSwarm(place.swarm))
    assert fetched(place.runs.keys, place.model, "after").startswith("BlobMissing: ")
    assert fetched(place.ada.keys, place.model, "after by ada") == ""


def test_who_knows_a_digest_gets_nothing_by_naming_it(place: Place, bench, tmp_path: Path) -> None:
    """Neither a user nor a node makes a blob its own by its digest."""
    assert place.eve.ask(user.FindMissingBlobs((place.model, NONE))).blobs == (place.model, NONE)
    assert place.ada.ask(user.FindMissingBlobs((place.model, NONE))).blobs == (NONE,)
    at = place.foreign.ran[0]
    place.foreign.say(place.own_swarm, node.ResultWritten(at, "loot", place.model))

    def asked() -> bool:
        acks = [one for one in place.foreign.heard if isinstance(one, node.JournalAck)]
        return any(one.missing == (place.model,) for one in acks)

    wait_until(asked)
    assert place.eve.ask(user.ReadFeed(place.own_swarm, "results")).items == ()
    # By sending it whole, it is shown to be the sender's; by other bytes it is not.
    with bulk(bench, place.ada.keys, tmp_path / "had") as (_, had, peer):
        peer.fetch(place.model.digest, place.model.size, timeout=20).result(60)
        content = had.path(place.model.digest).read_bytes()
    with bulk(bench, place.eve.keys, tmp_path / "eve") as (plane, depot, peer):
        forged = depot.path(place.package.digest)
        forged.parent.mkdir()
        forged.write_bytes(os.urandom(place.package.size))
        with pytest.raises(BlobCorrupt):
            peer.push(place.package.digest, place.package.size, timeout=20).result(20)
        assert place.eve.ask(user.FindMissingBlobs((place.package,))).blobs == (place.package,)
        assert depot.put(content) == place.model.digest == digest_of(content)
        before = plane.statistics.sent
        peer.push(place.model.digest, place.model.size, timeout=20).result(60)
        assert plane.statistics.sent - before == place.model.size
        assert place.eve.ask(user.FindMissingBlobs((place.model,))).blobs == ()
        peer.push(place.model.digest, place.model.size, timeout=20).result(60)
        assert plane.statistics.sent - before == place.model.size
    place.eve.ask(user.SetGlobal(place.own_swarm, "tag", place.model))
    assert place.foreign.ask(node.ReadGlobal(place.own_swarm, "tag")).value == place.model


def test_who_says_that_it_holds_a_value_is_given_nothing_by_it(
    place: Place, bench, tmp_path: Path
) -> None:
    """A node's word and a digest open nothing, to it or to who reads its swarms."""
    liar, loot, at = place.foreign, place.model, place.foreign.ran[0]
    want = spread.WantBlob(place.own_swarm, loot.digest, loot.size, holder=liar.node_id)
    recall = user.RecallResult(place.own_swarm, "loot", 0, liar.node_id, loot)

    def gets_nothing(*questions: spread.WantBlob) -> None:
        for question in questions * 2:
            assert in_the_end(liar.ask, question) == Code.RESULT_AWAY
        assert in_the_end(place.eve.ask, recall) == Code.RESULT_AWAY
        for number, keys in enumerate((liar.keys, place.eve.keys)):
            with bulk(bench, keys, tmp_path / f"loot-{number}") as (_, _, peer):
                fetched = peer.fetch(loot.digest, loot.size, timeout=20)
                assert isinstance(fetched.exception(60), BlobMissing)

    gets_nothing(want, *(replace(want, holder=f"made-up-{number}") for number in range(5)))
    liar.say(place.own_swarm, node.ResultWritten(at, "loot", loot, held=True))
    wait_until(lambda: place.eve.ask(user.ReadFeed(place.own_swarm, "results")).items)
    gets_nothing(want, replace(want, recall=True))
    # Neither is what stays there as another result, nor elsewhere.
    for wrong in (
        replace(recall, tag="other"),
        replace(recall, iteration=1),
        replace(recall, node_id=place.runs.node_id),
        replace(recall, value=place.package),
    ):
        assert place.eve.refusal(wrong).code == Code.RESULT_AWAY
    # Who has it may send it.
    with bulk(bench, place.ada.keys, tmp_path / "had") as (_, had, peer):
        peer.fetch(loot.digest, loot.size, timeout=20).result(60)
        liar.blobs[loot.digest] = had.path(loot.digest).read_bytes()
    assert place.eve.ask(recall).here
    with bulk(bench, place.eve.keys, tmp_path / "eve") as (_, _, peer):
        peer.fetch(loot.digest, loot.size, timeout=20).result(60)


def in_the_end(ask: Callable[[Message], Any], message: Message) -> str:
    """Why it is refused what may be on its way."""
    while True:
        try:
            answer = ask(message)
        except Refused as refused:
            return refused.code
        assert not getattr(answer, "here", False)
        assert getattr(answer, "wait", 1.0) > 0, answer


def test_what_a_restarted_manager_has_forgotten_is_sent_again(
    bench, admin: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who sent what is not stored, and a manager may be restarted before it is named."""
    admin.ask(users.AddUser(EVE, PASSWORD))
    admin.ask(users.GrantRole(EVE, "lab", "researcher"))
    _, _, port = bench.users_at.rpartition(":")
    target = Target("127.0.0.1", int(port), "t", server_key=bench.key)
    with UserAPI.over(Session(target, KeyPair.generate())) as api:
        api.connection.sign_in(sign_in.SignIn(EVE, PASSWORD))
        push = api.connection.push
        restarts: list[None] = []

        def push_and_restart(blobs) -> None:
            push(blobs)
            if len(restarts) < 1:
                restarts.append(bench.restart())

        monkeypatch.setattr(api.connection, "push", push_and_restart)
        module = api.send_module(Module("def main():\n    return 1\n", name="one"))
        assert module.owner_id == api.get_user().id
        restarts.clear()
        sent = api.send_swarm("lab", Reader(), wait=True)
        assert sent.status == "PENDING"
        restarts.clear()
        api.set_global(sent, "large", bytes(200_000))
        assert api.select_global(sent, "large") == bytes(200_000)
    assert restarts


def test_who_loses_a_role_loses_the_blobs(place: Place, bench, admin, tmp_path: Path) -> None:
    admin.ask(users.GrantRole(EVE, "lab", "viewer"))
    with bulk(bench, place.eve.keys, tmp_path / "eve") as (_, depot, peer):
        peer.fetch(place.model.digest, place.model.size, timeout=20).result(60)
        admin.ask(users.RevokeRole(EVE, "lab"))
        depot.delete(place.model.digest)
        with pytest.raises(BlobMissing):
            peer.fetch(place.model.digest, place.model.size, timeout=20).result(20)


def test_an_id_that_a_node_elsewhere_has_is_no_secret_given_away(place: Place, bench) -> None:
    def enrolled(alias: str) -> enrolment.Enrolled:
        token = place.eve.ask(CreateNodeToken("mine")).token
        client = bench.client(at=bench.nodes_at)
        return client.ask(enrolment.Enroll(token, alias, id_mode="alias"))

    taken = enrolled(place.idle.node_id)  # an id of Ada's
    assert taken.alias == place.idle.node_id
    assert taken.node_id not in place.private
    token = place.eve.ask(CreateNodeToken("mine")).token
    again = bench.client(at=bench.nodes_at)
    refusal = again.refusal(
        enrolment.Enroll(token, "other", id_mode="hardware", hardware_id="eve-node")
    )
    assert refusal.code == Code.ALIAS_TAKEN  # of her own cluster she is told
    nodes = {one.id for one in place.ada.ask(clusters.ListNodes("lab")).nodes}
    assert taken.node_id not in nodes
