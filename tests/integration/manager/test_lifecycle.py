"""What comes to an end: nodes that are lost or removed, swarms nobody asks for, blobs."""

from __future__ import annotations

import gc
import os
import threading
import time

import msgspec
import pytest

from manta.actors import ActorDead, Refused
from manta.manager import blobs
from manta.manager.cluster import nodes as cluster_nodes
from manta.manager.messages import Sweep
from manta.manager.swarm import supervisor as swarm
from manta.manager.swarm.machine import SwarmMachine
from manta.protocol.clusters import GetNode, RemoveNode
from manta.protocol.codes import Code
from manta.protocol.exchange import Broadcasted
from manta.protocol.node import (
    Assignment,
    GlobalWritten,
    JournalAck,
    JournalBatch,
    JournalEntry,
    MetricsLogged,
    ReadGlobal,
    ResultWritten,
    StopRequested,
    TaskEnded,
    TaskStarted,
)
from manta.protocol.spec import Edge, ModuleSpec, SwarmSpec, TaskSpec
from manta.protocol.user import (
    DeleteResults,
    GetSwarm,
    GetTasks,
    ListSwarms,
    ReadFeed,
    RemoveSwarm,
    SelectGlobal,
    SendSwarm,
    StartSwarm,
    StopSwarm,
    WaitSwarm,
)
from manta.protocol.users import RemoveModule, SendModule
from manta.protocol.values import BlobRef
from manta.testing import wait_until
from manta.testing.manager import Client, finish


def one_task(method: str = "all", package: BlobRef | None = None, **options) -> SwarmSpec:
    module = ModuleSpec("m", package, image="none")
    return SwarmSpec("one", (TaskSpec("task", "m", method=method, **options),), (module,))


def silent(assignment: Assignment) -> list[JournalEntry]:
    return [TaskStarted(assignment.instance, 0.0)]


def deploy(admin: Client, spec: SwarmSpec) -> str:
    swarm_id: str = admin.ask(SendSwarm("lab", spec)).swarm_id
    admin.ask(StartSwarm(swarm_id))
    return swarm_id


@pytest.fixture
def short_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_nodes, "terms", lambda _: {"ttl": 1.5, "grace": 0.3, "hold": 0.2})


@pytest.mark.usefixtures("short_leases")
@pytest.mark.parametrize("how", ["link down", "no heartbeat"])
def test_a_task_for_any_node_is_placed_again_when_its_node_is_lost(
    bench, admin: Client, how: str
) -> None:
    bench.restart()
    nodes = [bench.node(number, silent) for number in (1, 2, 3, 4)]
    for node in nodes:
        assert node.registered.wait(60)
    swarm_id = deploy(admin, one_task("any", maximum=1))
    wait_until(lambda: any(node.ran for node in nodes))
    [first] = [node for node in nodes if node.ran]
    for node in nodes:
        node.script = finish
    if how == "link down":
        first.close()
    else:
        first.heartbeat = False
    info = admin.ask(WaitSwarm(swarm_id, 60.0), 90)
    assert info.status == "COMPLETED", info
    attempts = admin.ask(GetTasks(swarm_id)).tasks
    assert [attempt.status for attempt in attempts] == ["INTERRUPTED", "FINISHED"]
    assert attempts[0].node_alias == first.alias != attempts[1].node_alias
    assert admin.ask(GetNode(first.alias)).status == "LOST"


@pytest.mark.usefixtures("short_leases")
def test_a_task_for_all_nodes_fails_naming_the_one_that_is_lost(bench, admin: Client) -> None:
    bench.restart()
    nodes = [bench.node(number, silent) for number in (1, 2, 3, 4)]
    for node in nodes:
        assert node.registered.wait(60)
    swarm_id = deploy(admin, one_task())
    wait_until(lambda: all(node.ran for node in nodes))
    nodes[1].close()
    info = admin.ask(WaitSwarm(swarm_id, 20.0), 30)
    assert info.status == "FAILED"
    assert "node-2" in info.reason


def test_a_node_that_is_removed_under_load_is_not_heard_any_more(
    bench, admin: Client, cluster, nodes
) -> None:
    """Nothing handled, nothing sent, once the call has returned."""
    [node, _] = nodes(2, silent)
    swarm_id = deploy(admin, one_task("any", maximum=1, specified_ids=("node-1",)))
    wait_until(lambda: node.ran)
    stop = threading.Event()

    def load() -> None:
        count = 0
        while not stop.is_set():
            count += 1
            node.say(swarm_id, MetricsLogged(node.ran[0], {"n": float(count)}, count, 0.0))
            time.sleep(0.002)

    ref = bench.system.find(f"manager/clusters/{cluster.id}/{swarm_id}")
    metrics = ref._cell.actor._machine.data.metrics
    thread = threading.Thread(target=load)
    thread.start()
    wait_until(lambda: len(metrics) > 20)
    admin.ask(RemoveNode("node-1"))
    handled = len(metrics)
    time.sleep(0.1)  # what was on its way to the node has arrived
    heard = len(node.heard)
    time.sleep(0.5)
    stop.set()
    thread.join()
    assert len(metrics) == handled
    assert len(node.heard) == heard


def test_what_a_swarm_that_is_over_held_is_gone_before_any_collection(
    bench, admin: Client, cluster, nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swarm, "IDLE", 0.3)
    nodes(1)

    def machines() -> int:
        return sum(isinstance(one, SwarmMachine) for one in gc.get_objects())

    gc.collect()
    before = machines()
    gc.disable()
    try:
        swarm_id = deploy(admin, one_task())
        assert machines() == before + 1
        assert admin.ask(WaitSwarm(swarm_id, 10.0)).status == "COMPLETED"
        wait_until(lambda: machines() == before)
    finally:
        gc.enable()


def test_the_actor_of_a_swarm_that_is_over_ends_and_comes_back(
    bench, admin: Client, cluster, nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swarm, "IDLE", 0.3)
    [node] = nodes(1)
    swarm_id = deploy(admin, one_task())
    info = admin.ask(WaitSwarm(swarm_id, 10.0))
    assert info.status == "COMPLETED"

    def ended() -> bool:
        try:
            bench.system.find(f"manager/clusters/{cluster.id}/{swarm_id}")
        except ActorDead:
            return True
        return False

    wait_until(ended)
    assert admin.ask(ListSwarms()).swarms == (info,)
    assert ended()
    assert admin.ask(GetSwarm(swarm_id)) == info
    assert not ended()
    wait_until(ended)
    # It runs nowhere any more, and is not started to say so.
    with pytest.raises(Refused, match="runs nothing of a swarm"):
        node.ask(ReadGlobal(swarm_id, "none"))
    assert ended()
    # What a node sends late is taken down and acknowledged.
    at = node.ran[0]
    node.say(swarm_id, MetricsLogged(at, {"late": 1.0}, None, 0.0))
    wait_until(lambda: node.acknowledged[swarm_id] == 3)
    [late] = admin.ask(ReadFeed(swarm_id, "metrics")).items
    assert late.metrics == {"late": 1.0}


def test_blobs_go_when_no_swarm_needs_them(bench, admin: Client, nodes) -> None:
    nodes(1)
    depot = bench.manager.context.depot
    names = ("shared", "first", "fresh")
    digests = {name: depot.put(name.encode() * 100) for name in names}
    refs = {name: BlobRef(digest, len(name) * 100) for name, digest in digests.items()}

    def spec(*blobs: str) -> SwarmSpec:
        modules = tuple(ModuleSpec(name, refs[name]) for name in blobs)
        return SwarmSpec("one", (TaskSpec("task", modules[0].name),), modules)

    first = admin.ask(SendSwarm("lab", spec("shared", "first"))).swarm_id
    second = admin.ask(SendSwarm("lab", spec("shared"))).swarm_id
    old = time.time() - blobs.GRACE - 10
    for name in ("shared", "first"):
        os.utime(depot.path(digests[name]), (old, old))
    sweeper = bench.system.find("manager/blobs")

    def left() -> set[str]:
        sweeper.ask(Sweep(), timeout=60)
        return {name for name in names if digests[name] in depot}

    assert left() == {"shared", "first", "fresh"}
    admin.ask(RemoveSwarm(first))
    assert left() == {"shared", "fresh"}
    admin.ask(RemoveSwarm(second))
    assert left() == {"fresh"}


def test_what_an_iteration_leaves_goes_soon_and_not_with_much_beside_it(
    bench, admin: Client, nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blobs, "SHORTEST", 0.2)
    monkeypatch.setattr(blobs, "RELEASED_BYTES", 2500)
    [node] = nodes(1, silent)
    depot = bench.manager.context.depot
    swarm_id = deploy(admin, one_task())
    wait_until(lambda: bool(node.ran))
    at = node.ran[0]
    values = [f"{number}".encode() * 1000 for number in range(6)]
    refs = [bench.pushed(node, value) for value in values]
    told = [GlobalWritten(at, "model", ref) for ref in refs]
    node.say(swarm_id, *told, TaskEnded(at, "FINISHED", 0.0))
    # Five were replaced: those beyond the bound go, the others have a minute.
    wait_until(lambda: sum(ref.digest in depot for ref in refs) == 3)
    assert [ref.digest in depot for ref in refs] == [False, False, False, True, True, True]
    monkeypatch.setattr(blobs, "RELEASED_GRACE", 0.2)
    wait_until(lambda: sum(ref.digest in depot for ref in refs) == 1)
    assert refs[-1].digest in depot


def test_the_package_of_a_removed_module_goes_unless_a_swarm_needs_it(
    bench, admin: Client, nodes
) -> None:
    depot = bench.manager.context.depot
    refs = {}
    for name in ("free", "used"):
        data = name.encode() * 1000
        refs[name] = BlobRef(depot.put(data), len(data))
        old = time.time() - blobs.GRACE - 10
        admin.ask(SendModule(ModuleSpec(name, refs[name], version="1.0.0")))
        os.utime(depot.path(refs[name].digest), (old, old))
    spec = SwarmSpec("one", (TaskSpec("task", "used"),), (ModuleSpec("used", refs["used"]),))
    swarm_id = admin.ask(SendSwarm("lab", spec, wait=True)).swarm_id

    def left() -> set[str]:
        for ref in refs.values():
            if ref.digest in depot:
                os.utime(depot.path(ref.digest), (old, old))
        bench.system.find("manager/blobs").ask(Sweep(), timeout=60)
        return {name for name, ref in refs.items() if ref.digest in depot}

    assert left() == {"free", "used"}
    for name in refs:
        admin.ask(RemoveModule(name))
    assert left() == {"used"}
    admin.ask(StopSwarm(swarm_id))
    admin.ask(RemoveSwarm(swarm_id))
    assert left() == set()


def test_blobs_of_deleted_results_go_and_are_not_asked_for_again(
    bench, admin: Client, nodes
) -> None:
    [node] = nodes(1, silent)
    depot = bench.manager.context.depot
    swarm_id = deploy(admin, one_task())
    wait_until(lambda: node.acknowledged.get(swarm_id) == 1)
    at = node.ran[0]
    data = {name: name.encode() * 1000 for name in ("gone", "kept", "said")}
    refs = {name: bench.pushed(node, content) for name, content in data.items()}

    def left() -> set[str]:
        for ref in refs.values():
            if ref.digest in depot:
                old = time.time() - blobs.GRACE - 10
                os.utime(depot.path(ref.digest), (old, old))
        bench.system.find("manager/blobs").ask(Sweep(), timeout=60)
        return {name for name, ref in refs.items() if ref.digest in depot}

    said = Broadcasted(at, "tag", refs["said"])
    written = [ResultWritten(at, name, refs[name]) for name in ("gone", "kept")]
    node.say(swarm_id, *written, said)
    wait_until(lambda: node.acknowledged[swarm_id] == 4)
    assert left() == {"gone", "kept", "said"}
    no = admin.refusal(DeleteResults(swarm_id, "none"))
    assert (no.code, "it has gone, kept." in no.sentence) == (Code.UNKNOWN_TAG, True)
    assert admin.ask(DeleteResults(swarm_id, "gone")).count == 1
    assert left() == {"kept", "said"}
    [item] = admin.ask(ReadFeed(swarm_id, "results")).items
    assert item.value == refs["kept"]

    # The acknowledgement was lost: the node says the same again, and is not asked for the blob.
    node.tell(JournalBatch(swarm_id, 1, tuple(node.journal[swarm_id])))
    node.tell(JournalBatch(swarm_id, 5, (StopRequested(at),)))
    wait_until(lambda: node.acknowledged[swarm_id] == 5)
    assert not [ack for ack in node.heard if isinstance(ack, JournalAck) and ack.missing]
    # What is written anew is asked for, though it was here once.
    node.journal[swarm_id].append(StopRequested(at))
    node.say(swarm_id, ResultWritten(at, "gone", refs["gone"]))
    wait_until(lambda: JournalAck(swarm_id, 5, (refs["gone"],)) in node.heard)
    depot.put(data["gone"])
    node.tell(JournalBatch(swarm_id, 6, tuple(node.journal[swarm_id][5:])))
    wait_until(lambda: node.acknowledged[swarm_id] == 6)
    bench.restart()
    wait_until(lambda: node.registrations == 2)
    depot = bench.manager.context.depot
    assert admin.ask(DeleteResults(swarm_id)).count == 2
    assert left() == {"said"}


def test_the_blob_of_an_overwritten_global_goes_by_itself(
    bench, admin: Client, nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blobs, "RELEASED_GRACE", 1.0)
    monkeypatch.setattr(blobs, "SHORTEST", 0.2)
    [node] = nodes(1, silent)
    depot = bench.manager.context.depot
    swarm_id = deploy(admin, msgspec.structs.replace(one_task(), max_iteration=2))
    wait_until(lambda: node.ran)
    at = node.ran[0]
    old, new = (bench.pushed(node, text * 1000) for text in (b"old", b"new"))
    node.say(swarm_id, GlobalWritten(at, "model", old), GlobalWritten(at, "model", new))
    wait_until(lambda: node.acknowledged.get(swarm_id) == 3)
    os.utime(depot.path(old.digest), (0, 0))
    assert bench.system.find("manager/blobs").ask(Sweep(), timeout=60) == 0
    node.say(swarm_id, TaskEnded(at, "FINISHED", 0.0))
    wait_until(lambda: len(node.ran) == 2)
    # Somebody may just have been told of it: it is spared for a while.
    assert depot.path(old.digest).stat().st_mtime > 0
    wait_until(lambda: old.digest not in depot)
    assert admin.ask(SelectGlobal(swarm_id, "model")).value == new
    assert new.digest in depot


def test_nobody_is_disturbed_by_a_task_that_ends_twice(bench, admin: Client, nodes) -> None:
    [node] = nodes(1, silent)
    spec = SwarmSpec(
        "two",
        (TaskSpec("a", "m"), TaskSpec("b", "m", after=(Edge("a"),))),
        (ModuleSpec("m", image="none"),),
    )
    swarm_id = deploy(admin, spec)
    wait_until(lambda: node.ran)
    at = node.ran[0]
    node.script = finish
    node.say(swarm_id, TaskEnded(at, "FINISHED", 0.0), TaskEnded(at, "FAILED", 0.0))
    assert admin.ask(WaitSwarm(swarm_id, 10.0)).status == "COMPLETED"
    assert len(node.ran) == 2
