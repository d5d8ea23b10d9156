"""Swarms from deployment to their end, with nodes that speak the protocol over real sockets."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any

import pytest
from blake3 import blake3
from msgspec.structs import replace

from manta.actors import Refused
from manta.manager.cluster import nodes as cluster_nodes
from manta.manager.cluster.supervisor import ClusterSupervisor
from manta.manager.store.interface import Put
from manta.manager.store.interface import RemoveSwarm as RemoveSwarmWrite
from manta.manager.store.records import ClusterRecord
from manta.manager.store.sqlite import SqliteStore
from manta.manager.swarm.messages import Orders
from manta.protocol.clusters import (
    ClusterInfo,
    CreateCluster,
    DeleteCluster,
    GetCluster,
    GetNode,
    ListClusters,
    ListNodes,
    RequestNodeStop,
    StartCluster,
    StopCluster,
)
from manta.protocol.codes import Code
from manta.protocol.node import (
    Assignment,
    Capabilities,
    DatasetInfo,
    GlobalWritten,
    Instance,
    JournalAck,
    JournalBatch,
    JournalEntry,
    LogAck,
    LogBatch,
    LogLine,
    MetricsLogged,
    NextIteration,
    ReadGlobal,
    ResultWritten,
    SelectResults,
    StopNode,
    StopRequested,
    TaskEnded,
    TaskError,
    TaskStarted,
)
from manta.protocol.spec import Edge, ModuleSpec, SwarmSpec, TaskSpec
from manta.protocol.user import (
    CheckSwarm,
    ExplainSwarm,
    FeedName,
    FindMissingBlobs,
    GetManagerStatus,
    GetSwarm,
    GetTasks,
    ListGlobalTags,
    ListSwarms,
    PauseSwarm,
    ReadFeed,
    RemoveSwarm,
    ResumeSwarm,
    SelectGlobal,
    SendSwarm,
    SetGlobal,
    StartSwarm,
    StopSwarm,
    SwarmInfo,
    WaitSwarm,
)
from manta.protocol.values import BlobRef, Inline
from manta.testing import wait_until
from manta.testing.manager import Client, finish


def round_trip(rounds: int = 1, **options) -> SwarmSpec:
    """worker (all) -> aggregator (any), so many times."""
    return SwarmSpec(
        name="fl",
        tasks=(
            TaskSpec("worker", "module", **options),
            TaskSpec("aggregator", "module", after=(Edge("worker"),), method="any", maximum=1),
        ),
        modules=(ModuleSpec("module", image="none"),),
        max_iteration=rounds,
    )


def work(assignment: Assignment) -> list[JournalEntry]:
    """Writes a result named after itself; the aggregator writes a global too."""
    at = assignment.instance
    value = Inline(f"{at.alias}.{at.index}@{at.iteration}".encode())
    entries: list[JournalEntry] = [TaskStarted(at, 0.0), ResultWritten(at, "done", value)]
    if at.alias == "aggregator":
        entries.append(GlobalWritten(at, "model", value))
        entries.append(MetricsLogged(at, {"loss": 0.5}, at.iteration, 0.0))
    return [*entries, TaskEnded(at, "FINISHED", 0.0)]


def silent(assignment: Assignment) -> list[JournalEntry]:
    return [TaskStarted(assignment.instance, 0.0)]


def deploy(admin: Client, spec: SwarmSpec, **options) -> str:
    swarm = admin.ask(SendSwarm("lab", spec, **options))
    assert swarm.status == "PENDING"
    assert admin.ask(StartSwarm(swarm.swarm_id)).status == "ACTIVE"
    return swarm.swarm_id


def ended(admin: Client, swarm_id: str, timeout: float = 10.0) -> SwarmInfo:
    return admin.ask(WaitSwarm(swarm_id, timeout), timeout + 5)


def read(admin: Client, swarm_id: str, feed: FeedName, **options) -> list:
    """To the end."""
    items, cursor = [], 0
    while True:
        page = admin.ask(ReadFeed(swarm_id, feed, after=cursor, wait=5.0, **options))
        items += page.items
        cursor = page.cursor
        if page.ended:
            return items


def test_a_swarm_runs_to_its_end(admin: Client, cluster: ClusterInfo, nodes) -> None:
    workers = nodes(3, work)
    swarm_id = deploy(admin, round_trip(rounds=3))
    info = ended(admin, swarm_id)
    assert (info.status, info.iteration, info.name) == ("COMPLETED", 2, "fl")
    assert [swarm.swarm_id for swarm in admin.ask(ListSwarms("lab")).swarms] == [swarm_id]
    assert admin.ask(GetSwarm(swarm_id[:6])) == admin.ask(GetSwarm("fl")) == info
    results = read(admin, swarm_id, "results")
    assert len(results) == 3 * (3 + 1)
    assert {item.node_alias for item in results} == {"node-1", "node-2", "node-3"}
    assert all(item.counts for item in results)
    done = read(admin, swarm_id, "results", limit=2, tag="done")
    assert done == results
    assert [item.metrics for item in read(admin, swarm_id, "metrics")] == [{"loss": 0.5}] * 3
    events = [event.kind for event in read(admin, swarm_id, "events")]
    assert events.count("iteration") >= 3
    assert events[-1] == "state"
    tasks = admin.ask(GetTasks(swarm_id)).tasks
    assert [task.status for task in tasks] == ["FINISHED"] * 12
    assert len(admin.ask(GetTasks(swarm_id, iteration=1)).tasks) == 4
    assert admin.ask(ListGlobalTags(swarm_id)).tags == ("model",)
    value = admin.ask(SelectGlobal(swarm_id, "model")).value
    assert value == Inline(b"aggregator.0@2")
    wait_until(
        lambda: all(len(node.journal[swarm_id]) == node.acknowledged[swarm_id] for node in workers)
    )


def test_tasks_read_what_those_before_them_wrote(admin: Client, nodes, cluster) -> None:
    seen: list[Any] = []
    answers: list[threading.Thread] = []

    def script(assignment: Assignment) -> list[JournalEntry]:
        at = assignment.instance
        if at.alias == "worker":
            return work(assignment)
        # From another thread: the link must not wait for itself.
        thread = threading.Thread(target=reads, args=(at,))
        answers.append(thread)
        thread.start()
        return []

    def reads(at: Instance) -> None:
        node = by_alias[0]
        seen.append(node.ask(SelectResults(at.swarm_id, "done", at.iteration)))
        seen.append(node.ask(ReadGlobal(at.swarm_id, "given")))
        node.say(at.swarm_id, *finish_at(at))

    def finish_at(at: Instance) -> list[JournalEntry]:
        return [TaskStarted(at, 0.0), TaskEnded(at, "FINISHED", 0.0)]

    by_alias = nodes(1, script)
    spec = round_trip()
    spec = SwarmSpec(
        spec.name, spec.tasks, spec.modules, globals={"given": Inline(b"x")}, max_iteration=1
    )
    swarm_id = deploy(admin, spec)
    assert ended(admin, swarm_id).status == "COMPLETED"
    for thread in answers:
        thread.join()
    results, value = seen
    assert [entry.value for entry in results.entries] == [Inline(b"worker.0@0")]
    assert value.value == Inline(b"x")


def test_a_long_poll_is_answered_when_there_is_something(admin: Client, bench, nodes) -> None:
    [node] = nodes(1, silent)
    swarm_id = deploy(admin, round_trip())
    page = admin.ask(ReadFeed(swarm_id, "results"))
    assert (page.items, page.ended) == ((), False)
    reader = bench.client(bench.admin_keys)
    reader.ask(GetSwarm(swarm_id))
    found = reader.gateway.ask_future(ReadFeed(swarm_id, "results", wait=10.0), timeout=15)
    logs = reader.gateway.ask_future(ReadFeed(swarm_id, "logs", wait=10.0), timeout=15)
    state = reader.gateway.ask_future(WaitSwarm(swarm_id, 10.0), timeout=15)
    wait_until(lambda: node.ran)
    assert not found.done()
    at = node.ran[0]
    node.say(swarm_id, ResultWritten(at, "tag", Inline(b"1")))
    assert [item.value for item in found.result(60).items] == [Inline(b"1")]
    assert not logs.done()
    node.log(swarm_id, LogLine(at, 0.0, "stdout", "hello"))
    [line] = logs.result(60).items
    assert (line.node_alias, line.line.text) == ("node-1", "hello")
    short = admin.ask(ReadFeed(swarm_id, "logs", after=logs.result().cursor, wait=0.05))
    assert (short.items, short.ended) == ((), False)
    assert not state.done()
    admin.ask(StopSwarm(swarm_id))
    assert state.result(60).status == "STOPPED"


def test_lines_are_kept_once_and_acknowledged(admin: Client, nodes) -> None:
    [node] = nodes(1, silent)
    swarm_id = deploy(admin, round_trip())
    wait_until(lambda: node.ran)
    at = node.ran[0]
    lines = tuple(LogLine(at, float(n), "stdout", f"line {n}") for n in range(1, 6))
    node.tell(LogBatch(swarm_id, 1, lines[:3]))
    node.tell(LogBatch(swarm_id, 2, lines[1:4]))  # partly known
    node.tell(LogBatch(swarm_id, 1, lines[:2]))  # all known
    node.tell(LogBatch(swarm_id, 9, lines[4:]))  # after a gap
    node.tell(LogBatch(swarm_id, 5, lines[4:]))
    wait_until(lambda: LogAck(swarm_id, 5) in node.heard)
    admin.ask(StopSwarm(swarm_id))
    assert [item.line for item in read(admin, swarm_id, "logs", limit=2)] == list(lines)


def test_entries_count_once_however_often_they_come(admin: Client, nodes) -> None:
    [node] = nodes(1, silent)
    swarm_id = deploy(admin, round_trip())
    wait_until(lambda: node.acknowledged.get(swarm_id) == 1)
    at = node.ran[0]
    entries = [ResultWritten(at, "tag", Inline(str(n).encode())) for n in range(3)]
    node.tell(JournalBatch(swarm_id, 4, tuple(entries[2:])))  # a gap
    node.tell(JournalBatch(swarm_id, 2, tuple(entries[:2])))
    node.tell(JournalBatch(swarm_id, 2, tuple(entries)))
    node.tell(JournalBatch(swarm_id, 1, (TaskStarted(at, 0.0), *entries)))
    wait_until(lambda: node.acknowledged.get(swarm_id) == 4)
    page = admin.ask(ReadFeed(swarm_id, "results", wait=5.0))
    assert [item.value.data for item in page.items] == [b"0", b"1", b"2"]


def test_what_names_a_missing_blob_is_not_acknowledged(admin: Client, bench, nodes) -> None:
    [node] = nodes(1, silent)
    swarm_id = deploy(admin, round_trip())
    wait_until(lambda: node.acknowledged.get(swarm_id) == 1)
    at, data = node.ran[0], b"large" * 1000
    blob = BlobRef(blake3(data).hexdigest(), len(data))
    node.say(
        swarm_id,
        ResultWritten(at, "first", Inline(b"1")),
        ResultWritten(at, "second", blob),
        ResultWritten(at, "third", Inline(b"3")),
    )
    wait_until(lambda: JournalAck(swarm_id, 2, (blob,)) in node.heard)
    assert admin.ask(FindMissingBlobs((blob,))).blobs == (blob,)
    assert bench.pushed(node, data) == blob
    assert admin.ask(FindMissingBlobs((blob,))).blobs == ()
    node.tell(JournalBatch(swarm_id, 3, tuple(node.journal[swarm_id][2:])))
    wait_until(lambda: node.acknowledged[swarm_id] == 4)
    items = admin.ask(ReadFeed(swarm_id, "results")).items
    assert [item.value for item in items] == [Inline(b"1"), blob, Inline(b"3")]


def test_what_cannot_be_placed_is_refused_with_reasons(admin: Client, cluster, nodes) -> None:
    spec = round_trip(datasets=("digits",))
    no = admin.refusal(SendSwarm("lab", spec))
    assert no.code == Code.UNPLACEABLE
    assert "no node is connected" in no.sentence
    nodes(1)
    no = admin.refusal(SendSwarm("lab", spec))
    assert no.code == Code.UNPLACEABLE
    assert "'digits'" in no.sentence
    assert no.data["problems"]
    plan = admin.ask(CheckSwarm("lab", spec)).plan
    assert plan.problems
    assert any(verdict.rule == "datasets" and not verdict.accepted for verdict in plan.verdicts)
    assert admin.ask(ListSwarms()).swarms == ()


def test_a_swarm_that_waits_starts_when_a_node_has_what_it_wants(
    admin: Client, bench, nodes
) -> None:
    nodes(1)
    swarm_id = deploy(admin, round_trip(datasets=("digits",)), wait=True)
    plan = admin.ask(ExplainSwarm(swarm_id)).plan
    assert any("digits" in problem for problem in plan.problems)
    has = Capabilities(datasets=(DatasetInfo("digits", 1, "npz"),))
    bench.node(2, work, capabilities=has)
    assert ended(admin, swarm_id).status == "COMPLETED"
    assert admin.ask(GetNode("node-2")).platform_info == has


def test_a_flawed_swarm_is_refused_whatever_waits(admin: Client, nodes) -> None:
    nodes(1)
    flawed = SwarmSpec("fl", (TaskSpec("a", "nowhere"),), ())
    assert admin.refusal(SendSwarm("lab", flawed, wait=True)).code == Code.INVALID
    missing = BlobRef("0" * 64, 10)
    spec = SwarmSpec("fl", (TaskSpec("a", "m"),), (ModuleSpec("m", missing),))
    no = admin.refusal(SendSwarm("lab", spec))
    assert no.code == Code.BLOB_MISSING
    assert no.data == {"digests": [missing.digest]}


def test_a_user_stops_pauses_resumes_and_removes(admin: Client, nodes) -> None:
    nodes(2, work)
    pending = admin.ask(SendSwarm("lab", round_trip(rounds=1)))
    for message in (PauseSwarm, ResumeSwarm):
        no = admin.refusal(message(pending.swarm_id))
        assert no.code == Code.WRONG_STATE
        assert "is PENDING" in no.sentence
    assert admin.ask(StopSwarm(pending.swarm_id)).status == "STOPPED"
    assert admin.refusal(StartSwarm(pending.swarm_id)).code == Code.WRONG_STATE
    admin.ask(RemoveSwarm(pending.swarm_id))
    assert admin.refusal(GetSwarm(pending.swarm_id)).code == Code.UNKNOWN_SWARM


def test_a_paused_swarm_goes_on_when_resumed(admin: Client, nodes) -> None:
    [node] = nodes(1, silent)
    swarm_id = deploy(admin, round_trip())
    wait_until(lambda: node.ran)
    assert admin.ask(PauseSwarm(swarm_id)).status == "PAUSED"
    no = admin.refusal(RemoveSwarm(swarm_id))
    assert no.code == Code.WRONG_STATE
    at = node.ran[0]
    node.say(swarm_id, TaskEnded(at, "FINISHED", 0.0))
    wait_until(lambda: node.acknowledged.get(swarm_id) == 2)
    assert len(node.ran) == 1
    node.script = finish
    assert admin.ask(ResumeSwarm(swarm_id)).status == "ACTIVE"
    assert ended(admin, swarm_id).status == "COMPLETED"


def test_globals_are_set_by_users_too(admin: Client, nodes) -> None:
    [node] = nodes(1, silent)
    swarm_id = deploy(admin, round_trip())
    admin.ask(SetGlobal(swarm_id, "rate", Inline(b"1")))
    assert admin.ask(SelectGlobal(swarm_id, "rate")).value == Inline(b"1")
    wait_until(lambda: node.ran)
    assert node.ask(ReadGlobal(swarm_id, "rate")).value == Inline(b"1")
    no = admin.refusal(SetGlobal(swarm_id, "big", BlobRef("1" * 64, 5)))
    assert no.code == Code.BLOB_MISSING
    assert admin.ask(SelectGlobal(swarm_id, "none")).value is None


def test_a_task_that_fails_takes_its_swarm_along(admin: Client, nodes) -> None:
    def fail(assignment: Assignment) -> list[JournalEntry]:
        at = assignment.instance
        error = TaskError("ZeroDivisionError", "division by zero", "Traceback ...")
        return [TaskStarted(at, 0.0), TaskEnded(at, "FAILED", 0.0, error=error)]

    nodes(1, fail)
    swarm_id = deploy(admin, round_trip())
    info = ended(admin, swarm_id)
    assert info.status == "FAILED"
    assert "division by zero" in info.reason
    [task] = admin.ask(GetTasks(swarm_id)).tasks
    assert task.error.traceback == "Traceback ..."


def test_tasks_steer_the_iterations(admin: Client, nodes) -> None:
    def script(assignment: Assignment) -> list[JournalEntry]:
        at = assignment.instance
        steer = StopRequested(at) if at.iteration == 4 else NextIteration(at)
        return [TaskStarted(at, 0.0), steer, TaskEnded(at, "FINISHED", 0.0)]

    nodes(1, script)
    spec = SwarmSpec("fl", (TaskSpec("t", "m"),), (ModuleSpec("m", image="none"),))
    info = ended(admin, deploy(admin, spec))
    assert (info.status, info.iteration) == ("COMPLETED", 4)


def test_clusters_come_and_go(admin: Client, cluster: ClusterInfo, nodes) -> None:
    assert cluster.node_count == 4
    assert admin.refusal(CreateCluster("lab")).code == Code.NAME_TAKEN
    made = admin.ask(CreateCluster("home"))
    assert (made.name, made.status, made.node_count) == ("home", "RUNNING", 0)
    assert set(admin.ask(ListClusters()).clusters) == {cluster, made}
    no = admin.refusal(SendSwarm("home", round_trip()))
    assert no.code == Code.UNPLACEABLE
    assert admin.ask(GetCluster(made.id[:5])) == made
    admin.ask(DeleteCluster("home"))
    assert admin.refusal(GetCluster(made.id)).code == Code.UNKNOWN_CLUSTER
    nodes(1, silent)
    swarm_id = deploy(admin, round_trip())
    no = admin.refusal(DeleteCluster("lab"))
    assert no.code == Code.WRONG_STATE
    unstarted = admin.ask(SendSwarm("lab", round_trip())).swarm_id
    assert admin.ask(StopCluster("lab")).status == "STOPPED"
    for id_ in (swarm_id, unstarted):  # by now, so that the cluster can be deleted
        stopped = admin.ask(GetSwarm(id_))
        assert (stopped.status, stopped.reason) == ("STOPPED", "stopped by the stop of its cluster")
    assert admin.refusal(SendSwarm("lab", round_trip())).code == Code.WRONG_STATE
    assert admin.ask(StartCluster("lab")).status == "RUNNING"
    admin.ask(SendSwarm("lab", round_trip()))
    admin.ask(DeleteCluster("lab"))
    assert admin.ask(ListClusters()).clusters == ()
    assert admin.ask(ListSwarms()).swarms == ()


def test_a_cluster_is_not_deleted_under_a_swarm_whose_start_it_has_yet_to_hear_of(
    admin: Client, nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The start is answered when it has."""
    held, release = threading.Event(), threading.Event()
    take = ClusterSupervisor._orders

    def hold(self: ClusterSupervisor, orders: Orders) -> None:
        held.set()
        release.wait(60)
        take(self, orders)

    nodes(1, silent)
    monkeypatch.setattr(ClusterSupervisor, "_orders", hold)
    with ThreadPoolExecutor(1) as pool:
        deployed = pool.submit(deploy, admin, round_trip())
        assert held.wait(60)
        with pytest.raises(FutureTimeout):
            deployed.result(0.5)
        release.set()
        deployed.result(60)
    assert admin.refusal(DeleteCluster("lab")).code == Code.WRONG_STATE
    assert [found.name for found in admin.ask(ListClusters()).clusters] == ["lab"]


def test_a_swarm_that_was_started_is_counted_by_its_cluster_at_once(
    admin: Client, cluster: ClusterInfo, nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes(1, silent)
    swarm_id = admin.ask(SendSwarm("lab", round_trip())).swarm_id
    take = ClusterSupervisor._orders

    def late(self: ClusterSupervisor, orders: Orders) -> None:
        if orders.info is not None and orders.info.status == "ACTIVE":
            time.sleep(0.3)  # what the cluster had to do first
        take(self, orders)

    monkeypatch.setattr(ClusterSupervisor, "_orders", late)
    admin.ask(StartSwarm(swarm_id))
    assert admin.refusal(DeleteCluster("lab")).code == Code.WRONG_STATE
    assert admin.ask(ListSwarms()).swarms[0].status == "ACTIVE"


def test_a_stop_that_the_manager_did_not_live_to_pass_on_reaches_the_swarms(
    bench, admin: Client, nodes, cluster: ClusterInfo
) -> None:
    nodes(1, silent)
    swarm_id = deploy(admin, round_trip())
    bench.stop()
    store = SqliteStore(bench.home / "manta.db")
    record = store.get(ClusterRecord, cluster.id)
    assert record is not None
    store.commit([Put(replace(record, status="STOPPED"))])
    store.close()
    bench.start()
    assert ended(admin, swarm_id).reason == "stopped by the stop of its cluster"


def test_nodes_are_shown_as_they_are(admin: Client, nodes, cluster: ClusterInfo) -> None:
    [node, _] = nodes(2)
    shown = {info.alias: info for info in admin.ask(ListNodes("lab")).nodes}
    assert [shown[f"node-{n}"].status for n in (1, 2, 3)] == [
        "CONNECTED",
        "CONNECTED",
        "DISCONNECTED",
    ]
    status = admin.ask(GetManagerStatus())
    assert (status.clusters, status.nodes_connected, status.swarms_active) == (1, 2, 0)
    assert status.health == {"store": "ok"}
    admin.ask(RequestNodeStop("node-1", drain=True))
    assert StopNode(drain=True) in node.heard
    assert admin.ask(GetNode("node-1")).status == "DRAINING"
    assert admin.refusal(RequestNodeStop("node-3")).code == Code.WRONG_STATE
    node.close()
    wait_until(lambda: admin.ask(GetNode("node-1")).status == "DISCONNECTED")


def test_a_node_drains_as_long_as_it_says_so(
    admin: Client, nodes, bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_nodes, "ANSWER_TIMEOUT", 1.0)
    [node] = nodes(1)

    def status() -> str:
        return admin.ask(GetNode("node-1")).status

    # It is told once and does not hear: it goes on, and gets work again.
    node.deaf = True
    admin.connection.wait_up(60.0)
    with pytest.raises(Refused, match=r"'node-1' did not answer") as refused:
        admin.gateway.ask(RequestNodeStop("node-1", drain=True), timeout=5)
    assert refused.value.code == Code.UNAVAILABLE
    wait_until(lambda: status() == "CONNECTED")
    # It hears, and is asked nothing more: whoever manages it, it drains.
    node.deaf = False
    admin.ask(RequestNodeStop("node-1", drain=True))
    assert status() == "DRAINING"
    time.sleep(1.5)
    assert status() == "DRAINING"
    bench.restart()
    wait_until(lambda: status() != "DISCONNECTED")
    assert status() == "DRAINING"
    # It is started anew, with what it was told forgotten.
    node.draining = False
    wait_until(lambda: status() == "CONNECTED")
    # It is stopped where it runs.
    node.draining = True
    wait_until(lambda: status() == "DRAINING")


@pytest.mark.parametrize("kind", [JournalBatch, LogBatch])
def test_a_node_may_forget_what_it_holds_of_a_removed_swarm(admin: Client, nodes, kind) -> None:
    [node] = nodes(1)
    at = Instance("gone", "t", 0, 0)
    if kind is JournalBatch:
        node.tell(JournalBatch("gone", 7, (TaskStarted(at, 0.0),)))
        wait_until(lambda: JournalAck("gone", 7) in node.heard)
    else:
        node.tell(LogBatch("gone", 7, (LogLine(at, 0.0, "stdout", "x"),)))
        wait_until(lambda: LogAck("gone", 7) in node.heard)


def test_swarms_that_start_at_the_same_time_share_the_nodes(admin, cluster, nodes) -> None:
    all_nodes = nodes(4, silent, capabilities=Capabilities(cores=4, max_concurrent_tasks=2))
    spec = SwarmSpec(
        "one",
        (TaskSpec("task", "module", method="any", maximum=1),),
        (ModuleSpec("module", image="none"),),
    )
    sent = [admin.ask(SendSwarm("lab", spec)).swarm_id for _ in range(12)]
    asked = [admin.gateway.ask_future(StartSwarm(swarm_id), timeout=10.0) for swarm_id in sent]
    assert {future.result().status for future in asked} == {"ACTIVE"}
    wait_until(lambda: sum(len(node.ran) for node in all_nodes) == 12)
    assert max(len(node.ran) for node in all_nodes) <= 4
    for swarm_id in sent:
        admin.ask(StopSwarm(swarm_id, force=True))


def test_a_swarm_that_is_being_removed_is_not_started_again(
    admin: Client, nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes(1)
    swarm = admin.ask(SendSwarm("lab", round_trip())).swarm_id
    removing, go = threading.Event(), threading.Event()
    commit = SqliteStore.commit

    def slow(store: SqliteStore, writes) -> None:
        if any(isinstance(write, RemoveSwarmWrite) for write in writes):
            removing.set()
            assert go.wait(60)
        commit(store, writes)

    monkeypatch.setattr(SqliteStore, "commit", slow)
    with ThreadPoolExecutor(1) as pool:
        removed = pool.submit(admin.ask, RemoveSwarm(swarm))
        assert removing.wait(60)
        try:
            assert admin.refusal(StartSwarm(swarm)).code == Code.UNKNOWN_SWARM
        finally:
            go.set()
        removed.result(60)
    assert swarm not in {info.swarm_id for info in admin.ask(ListSwarms()).swarms}
