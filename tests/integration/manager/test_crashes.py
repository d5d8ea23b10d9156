"""Every child of the manager's tree is crashed in mid-swarm, and the swarm completes."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from manta.actors import LocalRef
from manta.manager.store.sqlite import SqliteStore
from manta.protocol.clusters import ClusterInfo, CreateCluster, ListClusters, ListNodes
from manta.protocol.codes import Code
from manta.protocol.node import Assignment, JournalEntry, ResultWritten, TaskEnded, TaskStarted
from manta.protocol.spec import Edge, ModuleSpec, SwarmSpec, TaskSpec
from manta.protocol.user import (
    GetManagerStatus,
    GetSwarm,
    GetTasks,
    GetTree,
    PauseSwarm,
    ReadFeed,
    SendSwarm,
    StartSwarm,
    WaitSwarm,
)
from manta.protocol.values import Inline
from manta.testing import wait_until
from manta.testing.actors import crash, wait_for_successor
from manta.testing.manager import Client
from manta.testing.stores.faulty import Faults, FaultyStore

ROUNDS = 12
SPEC = SwarmSpec(
    name="fl",
    tasks=(
        TaskSpec("worker", "module"),
        TaskSpec("aggregator", "module", after=(Edge("worker"),), method="any", maximum=1),
    ),
    modules=(ModuleSpec("module", image="none"),),
    max_iteration=ROUNDS,
)


class Breaker:
    """A script for nodes: calls `strike` when the worker of node-1 runs in that iteration."""

    def __init__(self, iteration: int, strike: Callable[[], None]) -> None:
        self.iteration = iteration
        self.strike = strike
        self.struck = threading.Event()

    def __call__(self, assignment: Assignment) -> list[JournalEntry]:
        at = assignment.instance
        here = (at.iteration, at.alias, at.index) == (self.iteration, "worker", 0)
        if here and not self.struck.is_set():
            self.struck.set()
            self.strike()
        value = Inline(f"{at.alias}.{at.index}@{at.iteration}".encode())
        return [
            TaskStarted(at, 0.0),
            ResultWritten(at, "done", value),
            TaskEnded(at, "FINISHED", 0.0),
        ]


def path_of(what: str, cluster: ClusterInfo, swarm_id: str) -> str:
    return {
        "store": "manager/store",
        "blobs": "manager/blobs",
        "gateway": "manager/gateway",
        "cluster": f"manager/clusters/{cluster.id}",
        "swarm": f"manager/clusters/{cluster.id}/{swarm_id}",
    }[what]


def check(admin: Client, swarm_id: str, node_count: int) -> None:
    """It completed, and everything that was written is there once."""
    info = admin.ask(WaitSwarm(swarm_id, 30.0), 40)
    assert (info.status, info.iteration) == ("COMPLETED", ROUNDS - 1), info
    items = admin.ask(ReadFeed(swarm_id, "results", limit=10_000)).items
    found = sorted(item.value.data.decode() for item in items)
    assert found == sorted(
        f"{instance}@{iteration}"
        for iteration in range(ROUNDS)
        for instance in (*(f"worker.{index}" for index in range(node_count)), "aggregator.0")
    )
    tasks = admin.ask(GetTasks(swarm_id)).tasks
    assert {task.status for task in tasks} == {"FINISHED"}
    assert len(tasks) == ROUNDS * (node_count + 1)


@pytest.mark.parametrize("what", ["store", "blobs", "gateway", "cluster", "swarm"])
def test_a_child_that_crashes_in_mid_swarm_is_restarted_and_nothing_is_lost(
    bench, admin: Client, cluster: ClusterInfo, nodes, what: str
) -> None:
    old: list[LocalRef] = []

    def strike() -> None:
        ref = bench.system.find(path_of(what, cluster, swarm_id))
        old.append(ref)
        crash(ref)

    breaker = Breaker(3, strike)
    nodes(3, breaker)
    swarm_id = admin.ask(SendSwarm("lab", SPEC)).swarm_id
    admin.ask(StartSwarm(swarm_id))
    assert breaker.struck.wait(60)
    check(admin, swarm_id, 3)
    assert wait_for_successor(bench.system, old[0]) != old[0]
    shown = admin.ask(ListNodes("lab")).nodes
    connected = {node.alias for node in shown if node.status == "CONNECTED"}
    assert connected == {"node-1", "node-2", "node-3"}


def test_all_of_them_one_after_another(bench, admin: Client, cluster, nodes) -> None:
    strikes = iter(["store", "swarm", "gateway", "blobs", "cluster", "store"])
    lock = threading.Lock()
    struck: set[int] = set()

    def script(assignment: Assignment) -> list[JournalEntry]:
        at = assignment.instance
        with lock:
            if at.alias == "aggregator" and at.iteration % 2 and at.iteration not in struck:
                struck.add(at.iteration)
                crash(bench.system.find(path_of(next(strikes), cluster, swarm_id)))
        return Breaker(-1, lambda: None)(assignment)

    nodes(3, script)
    swarm_id = admin.ask(SendSwarm("lab", SPEC)).swarm_id
    admin.ask(StartSwarm(swarm_id))
    check(admin, swarm_id, 3)
    assert len(struck) == ROUNDS // 2


def test_an_orderly_restart_of_the_manager(bench, admin: Client, nodes) -> None:
    stopped = threading.Event()
    breaker = Breaker(3, stopped.set)
    started = nodes(3, breaker)
    swarm_id = admin.ask(SendSwarm("lab", SPEC)).swarm_id
    admin.ask(StartSwarm(swarm_id))
    assert stopped.wait(60)
    bench.stop()
    assert not bench.manager.home.manager_file.exists()
    bench.start()
    check(admin, swarm_id, 3)
    assert all(node.registrations >= 2 for node in started)
    assert [cluster.name for cluster in admin.ask(ListClusters()).clusters] == ["lab"]


# A store that fails.


@pytest.fixture
def faults(bench) -> Faults:
    """What to do to the manager's store."""
    faults = Faults()
    bench.restart(lambda: FaultyStore(SqliteStore(bench.home / "manta.db"), faults))
    return faults


def test_a_full_disk_refuses_says_so_and_resumes(
    bench, admin: Client, nodes, faults: Faults
) -> None:
    breaker = Breaker(3, lambda: setattr(faults, "full", True))
    nodes(3, breaker)
    swarm_id = admin.ask(SendSwarm("lab", SPEC)).swarm_id
    admin.ask(StartSwarm(swarm_id))
    assert breaker.struck.wait(60)
    wait_until(lambda: "disk is full" in admin.ask(GetManagerStatus()).health["store"])
    for message in (CreateCluster("new"), SendSwarm("lab", SPEC), PauseSwarm(swarm_id)):
        no = admin.refusal(message)
        assert no.code == Code.STORAGE
        assert "disk is full" in no.sentence
    assert [cluster.name for cluster in admin.ask(ListClusters()).clusters] == ["lab"]
    assert admin.ask(GetSwarm(swarm_id)).status == "ACTIVE"
    faults.full = False
    check(admin, swarm_id, 3)
    assert admin.ask(GetManagerStatus()).health["store"] == "ok"
    admin.ask(CreateCluster("new"))


@pytest.mark.parametrize("fault", ["crash_before_commit", "crash_after_commit"])
def test_a_crash_of_the_store_in_a_commit(admin: Client, nodes, faults: Faults, fault: str) -> None:
    breaker = Breaker(3, lambda: setattr(faults, fault, True))
    nodes(3, breaker)
    swarm_id = admin.ask(SendSwarm("lab", SPEC)).swarm_id
    admin.ask(StartSwarm(swarm_id))
    check(admin, swarm_id, 3)
    assert not getattr(faults, fault)


def test_a_log_that_cannot_be_read_costs_its_own_swarm_only(
    bench, admin: Client, cluster, nodes
) -> None:
    nodes(3, Breaker(-1, lambda: None))
    good, bad = (admin.ask(SendSwarm("lab", SPEC)).swarm_id for _ in range(2))
    bench.stop()
    store = SqliteStore(bench.home / "manta.db")
    store._writer.execute("UPDATE events SET body = x'00' WHERE swarm_id = ?", (bad,))
    store.close()
    bench.start()
    admin.ask(StartSwarm(good))
    check(admin, good, 3)
    [broken] = [
        s for s in bench.manager.context.cluster(cluster.id).swarms.values() if s.swarm_id == bad
    ]
    assert broken.status == "FAILED"
    assert "cannot be read" in broken.reason


def test_the_tree_tells_what_has_crashed(bench, admin: Client, cluster: ClusterInfo) -> None:
    before = {actor.path: actor for actor in admin.ask(GetTree()).actors}
    assert before["manager"].state == "running"
    assert {"manager/store", "manager/blobs", f"manager/clusters/{cluster.id}"} <= before.keys()
    old = bench.system.find("manager/blobs")
    crash(old)
    wait_for_successor(bench.system, old)
    after = {actor.path: actor for actor in admin.ask(GetTree()).actors}
    assert (before["manager/blobs"].restarts, before["manager/blobs"].last_exit) == (0, "")
    assert after["manager/blobs"].restarts == 1
    assert "crash" in after["manager/blobs"].last_exit
    assert after["manager/store"].restarts == 0
