"""Whatever users have stored, a manager starts, and its threads grow with what runs alone."""

from __future__ import annotations

import threading

import pytest
from msgspec.structs import replace

from manta.actors import ActorDead, Refused, WhichChildren, runtime
from manta.manager.cluster import supervisor as cluster_supervisor
from manta.manager.ids import new_id
from manta.manager.quotas import memory
from manta.manager.quotas.table import Quota
from manta.manager.store.interface import AppendEvents, Put, Reference, Write
from manta.manager.store.records import (
    USER_ROLE,
    ClusterRecord,
    GrantRecord,
    KeyKind,
    KeyRecord,
    ModuleRecord,
    NodeRecord,
    QuotaRecord,
    RoleRecord,
    SwarmRecord,
    TokenRecord,
    UserRecord,
)
from manta.manager.store.sqlite import SqliteStore
from manta.manager.swarm.events import Created, Stopped, encode
from manta.protocol.clusters import (
    ClusterInfo,
    CreateNodeToken,
    DeleteCluster,
    GetNode,
    ListClusters,
    ListNodes,
    RemoveNode,
    StartCluster,
    StopCluster,
)
from manta.protocol.codes import Code
from manta.protocol.enrolment import Enroll
from manta.protocol.node import Capabilities, Daemon, DatasetInfo, Heartbeat, Load, Register
from manta.protocol.quotas import GetQuotas
from manta.protocol.spec import ModuleSpec
from manta.protocol.user import (
    GetSwarm,
    GetTree,
    ListSwarms,
    RemoveSwarm,
    SendSwarm,
    StopSwarm,
    SwarmInfo,
    WatchSwarms,
)
from manta.protocol.users import ListModules, ListUsers
from manta.protocol.values import BlobRef, Inline
from manta.testing import wait_until
from manta.testing.manager import Client
from tests.integration.manager.conftest import Bench
from tests.integration.manager.test_swarms import round_trip

CLUSTERS = 400


def everything(count: int) -> list[Write]:
    """All that one user can store, in so many clusters: in each a swarm that is over, a node that
    left, and a module."""
    user = UserRecord(new_id(), "ada@lab", "", 0.0, USER_ROLE)
    writes: list[Write] = [
        Put(user),
        Put(KeyRecord("k" * 40, KeyKind.USER, user.id, 0.0)),
        Put(RoleRecord("reader", ("swarm.read",))),
        Put(QuotaRecord("user", user.id, {"clusters": 1})),
    ]
    for number in range(count):
        cluster, swarm, module = new_id(), new_id(), new_id()
        digest = f"{number:064x}"
        info = SwarmInfo(swarm, f"s-{number}", cluster, "STOPPED", "stopped by ada@lab")
        events = (encode(Created(round_trip()), 0.0), encode(Stopped("ada@lab"), 1.0))
        spec = ModuleSpec(f"m-{number}", BlobRef(digest, 1))
        writes += (
            Put(ClusterRecord(cluster, f"c-{number}", user.id, 0.0)),
            Put(GrantRecord(user.id, cluster, "owner")),
            Put(NodeRecord(f"n-{number}", cluster, f"n-{number}", f"key-{number}", 0.0)),
            Put(KeyRecord(f"key-{number}", KeyKind.NODE, f"n-{number}", 0.0)),
            Put(TokenRecord(f"{number:064x}", "manta:node", cluster, 4e9)),
            Put(ModuleRecord(module, spec, user.id, 0.0, 0.0)),
            Reference(module, (digest,)),
            Put(SwarmRecord(info, user.id)),
            AppendEvents(swarm, 1, events),
            Reference(swarm, (digest,)),
        )
    return writes


@pytest.fixture
def crowded(bench: Bench) -> Bench:
    bench.stop()
    store = SqliteStore(bench.manager.home.database)
    store.commit(everything(CLUSTERS))
    store.close()
    return bench


def test_a_manager_starts_with_hundreds_of_clusters_and_has_no_thread_for_them(
    crowded: Bench, admin: Client
) -> None:
    before = threading.active_count()
    crowded.start()
    assert threading.active_count() - before < 20
    found = list(admin.ask(ListClusters()).clusters)
    assert len(found) == CLUSTERS + 1
    assert sum(one.node_count for one in found) == CLUSTERS + 4
    # All that can be read of what is at rest is read without a thread of its own.
    swarms = admin.ask(ListSwarms()).swarms
    assert {one.status for one in swarms} == {"STOPPED"}
    assert len(admin.ask(WatchSwarms()).swarms) == len(swarms)
    assert admin.ask(ListUsers()).users
    assert admin.ask(ListModules()).modules
    for number in range(20):
        [node] = admin.ask(ListNodes(f"c-{number}")).nodes
        assert node.status == "LOST"
        assert admin.ask(GetNode(node.id)) == node
    assert threading.active_count() - before < 20
    assert len(admin.ask(GetTree()).actors) < 20
    mine = {one.name: one.used for one in admin.ask(GetQuotas(user="ada@lab")).quotas}
    assert (mine["clusters"], mine["swarms"], mine["nodes"]) == (CLUSTERS, CLUSTERS, CLUSTERS)
    assert (mine["live-swarms"], mine["blobs"]) == (0, CLUSTERS)


def test_a_cluster_at_rest_is_started_by_whoever_needs_it(crowded: Bench, admin: Client) -> None:
    crowded.start()
    [swarm] = [one for one in admin.ask(ListSwarms()).swarms if one.name == "s-7"]
    assert admin.ask(GetSwarm(swarm.swarm_id)).status == "STOPPED"
    assert admin.ask(StopCluster("c-1")).status == "STOPPED"
    assert admin.ask(StartCluster("c-1")).status == "RUNNING"
    admin.ask(RemoveNode("n-2"))
    assert admin.ask(ListNodes("c-2")).nodes == ()
    admin.ask(DeleteCluster("c-3"))
    token = admin.ask(CreateNodeToken("c-4")).token
    node = crowded.client(at=crowded.nodes_at)
    enrolled = node.ask(Enroll(token, "fresh", id_mode="random"))
    assert {one.alias for one in admin.ask(ListNodes("c-4")).nodes} == {"n-4", "fresh"}
    assert node.ask(Register("fresh", Capabilities())).node_id == enrolled.node_id
    assert admin.ask(SendSwarm("c-5", round_trip(), wait=True)).status == "PENDING"


def test_what_a_node_says_of_itself_is_bounded_since_it_stays_in_memory(
    bench: Bench, admin: Client, cluster: ClusterInfo
) -> None:
    token = admin.ask(CreateNodeToken("lab")).token
    node = bench.client(at=bench.nodes_at)
    node.ask(Enroll(token, "large", id_mode="random"))
    for large in (
        Register("large", Capabilities(labels={f"{n}": "" for n in range(2001)})),
        Register("large", Capabilities(datasets=(DatasetInfo("d" * 300_000, 1, "csv"),))),
        Register("large", Capabilities(), trouble="x" * 300_000),
    ):
        refusal = node.refusal(large)
        assert refusal.code == Code.INVALID
        assert "a node may have 2,000 and 262,144" in refusal.sentence
    daemon = Daemon("d" * 1000, "place", "host", 1)
    refusal = node.refusal(Register("large", Capabilities(), daemon=daemon))
    assert "names itself in more than 1,000 bytes" in refusal.sentence
    journals = {f"{n:016x}": n for n in range(20_000)}  # these are not kept
    assert node.ask(Register("large", Capabilities(), journals=journals)).alias == "large"
    many = Capabilities(labels={f"{n}": "" for n in range(2001)})
    refusal = node.refusal(Heartbeat(0, Load(), capabilities=many))
    assert "a node may have 2,000 and 262,144" in refusal.sentence


def test_a_cluster_comes_to_rest_when_nothing_happens_in_it_and_goes_on_where_it_was(
    bench: Bench, admin: Client, cluster: ClusterInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_supervisor, "REST", 0.2)
    for one in admin.ask(ListNodes("lab")).nodes:
        admin.ask(RemoveNode(one.id))
    bench.restart()
    path = f"manager/clusters/{cluster.id}"
    admin.ask(StopCluster("lab"))
    admin.ask(StartCluster("lab"))
    assert _lives(bench, path)
    wait_until(lambda: not _lives(bench, path))
    swarm = admin.ask(SendSwarm("lab", round_trip(), wait=True)).swarm_id
    assert admin.ask(GetSwarm(swarm)).status == "PENDING"
    assert _lives(bench, path)


def test_a_cluster_with_a_node_or_a_swarm_that_is_not_over_does_not_rest(
    bench: Bench, admin: Client, cluster: ClusterInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_supervisor, "REST", 600.0)
    bench.restart()
    path = f"manager/clusters/{cluster.id}"
    node = bench.node(1)
    assert node.registered.wait(60)
    actor = bench.system.find(path)
    for _ in range(2):
        actor.tell(cluster_supervisor._LookForRest())
    assert actor.ask(WhichChildren(), timeout=60) == []


def _lives(bench: Bench, path: str) -> bool:
    try:
        bench.system.find(path)
    except ActorDead:
        return False
    return True


def test_a_manager_starts_with_more_live_swarms_than_it_can_have_threads(
    bench: Bench, admin: Client, cluster: ClusterInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = [admin.ask(SendSwarm("lab", round_trip(), wait=True)).swarm_id for _ in range(12)]
    launch, started = runtime.ThreadedCell._start_actor_loop, []

    def only_a_few(cell: runtime.ThreadedCell) -> None:
        if cell.address.path.split("/")[-1] in sent:
            started.append(cell)
            if len(started) > 5:
                raise RuntimeError("can't start new thread")
        launch(cell)

    monkeypatch.setattr(runtime.ThreadedCell, "_start_actor_loop", only_a_few)
    bench.restart()
    assert [one.name for one in admin.ask(ListClusters()).clusters] == ["lab"]
    wait_until(lambda: len(started) == 12)
    wait_until(lambda: sum(one.status == "FAILED" for one in admin.ask(ListSwarms()).swarms) == 7)
    failed = [one for one in admin.ask(ListSwarms()).swarms if one.status == "FAILED"]
    assert all("it cannot be started: " in one.reason for one in failed)
    monkeypatch.undo()
    bench.restart()  # with threads enough, all is as it was
    wait_until(lambda: {one.status for one in admin.ask(ListSwarms()).swarms} == {"PENDING"})


def _is_read(client: Client, swarm: str) -> bool:
    try:
        client.ask(GetSwarm(swarm))
    except Refused:
        return False
    return True


def test_a_manager_starts_with_more_swarms_than_it_has_memory_for(
    bench: Bench, admin: Client, cluster: ClusterInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = replace(round_trip(), globals={"g": Inline(bytes(10_000))})
    for _ in range(12):
        admin.ask(SendSwarm("lab", spec, wait=True))
    monkeypatch.setattr(memory, "here", lambda: memory.Memory(360_000))
    monkeypatch.setattr(cluster_supervisor, "TRY_AGAIN", 0.1)
    bench.restart()
    wait_until(lambda: sum(one.status == "FAILED" for one in admin.ask(ListSwarms()).swarms) >= 6)
    there = admin.ask(ListSwarms()).swarms
    failed = [one for one in there if one.status == "FAILED"]
    assert len(failed) < 9
    assert all("it is not loaded: " in one.reason for one in failed)
    assert all("the quota memory-bytes is 58.6 KiB" in one.reason for one in failed)
    refusal = admin.refusal(SendSwarm("lab", spec, wait=True))
    assert refusal.code == Code.QUOTA
    for one in there:  # what is not needed any more makes room
        if one.status == "PENDING":
            admin.ask(RemoveSwarm(one.swarm_id))
    one = failed[0].swarm_id
    wait_until(lambda: _is_read(admin, one))
    assert admin.ask(GetSwarm(one)).status == "PENDING"
    monkeypatch.undo()
    bench.restart()  # with memory enough, all is as it was
    wait_until(lambda: {one.status for one in admin.ask(ListSwarms()).swarms} == {"PENDING"})


def test_a_swarm_that_cannot_be_started_is_not_kept(
    bench: Bench, admin: Client, cluster: ClusterInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch = runtime.ThreadedCell._start_actor_loop

    def no_more(cell: runtime.ThreadedCell) -> None:
        if cell.address.path.startswith(f"manager/clusters/{cluster.id}/"):
            raise RuntimeError("can't start new thread")
        launch(cell)

    monkeypatch.setattr(runtime.ThreadedCell, "_start_actor_loop", no_more)
    reply = admin.gateway.ask_future(SendSwarm("lab", round_trip(), wait=True), timeout=20)
    refusal = reply.exception(60)
    assert isinstance(refusal, Refused)
    assert "was not kept, as it cannot be started" in refusal.sentence
    wait_until(lambda: admin.ask(ListSwarms()).swarms == ())
    wait_until(lambda: bench.manager.context.reader.all(SwarmRecord) == [])
    assert bench.manager.context.quotas.ledger.used(Quota.SWARMS, cluster.owner_id) == 0


def test_swarms_that_are_over_have_no_more_actors_than_a_few_however_many_are_read(
    bench: Bench, admin: Client, cluster: ClusterInfo
) -> None:
    over = [admin.ask(SendSwarm("lab", round_trip(), wait=True)).swarm_id for _ in range(30)]
    for swarm in over:
        admin.ask(StopSwarm(swarm))
    bench.restart()
    for swarm in over * 2:
        assert admin.ask(GetSwarm(swarm), 20.0).status == "STOPPED"
    path = f"manager/clusters/{cluster.id}/"
    actors = [one.path for one in admin.ask(GetTree()).actors if one.path.startswith(path)]
    assert 0 < len(actors) <= cluster_supervisor.LOADED
