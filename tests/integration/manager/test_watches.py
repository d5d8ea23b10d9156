"""Long polls of lists: what changed is told at once, and only to those who may know."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from manta.actors import Refused
from manta.protocol.clusters import (
    ClusterInfo,
    Clusters,
    CreateCluster,
    DeleteCluster,
    ListNodes,
    Nodes,
    RemoveNode,
    StopCluster,
    WatchClusters,
    WatchNodes,
)
from manta.protocol.codes import Code
from manta.protocol.sign_in import Logout, SignIn
from manta.protocol.spec import ModuleSpec, SwarmSpec, TaskSpec
from manta.protocol.user import RemoveSwarm, SendSwarm, StartSwarm, StopSwarm, WatchSwarms
from manta.protocol.users import (
    AddUser,
    GrantRole,
    RemoveModule,
    RevokeRole,
    SendModule,
    WatchModules,
)
from manta.testing.actors import crash
from manta.testing.manager import Client

LONG = 30.0
SOON = 5.0
"""Seconds: far less than a poll waits."""
MODULE = ModuleSpec("code", image="none")
SPEC = SwarmSpec("watched", (TaskSpec("task", "code"),), (MODULE,))


def parked(client: Client, message: Any) -> Future[Any]:
    """A poll that has reached the manager and is held back there."""
    future = client.gateway.ask_future(message, timeout=LONG)
    with pytest.raises(TimeoutError):
        future.result(0.15)
    return future


def refused(future: Future[Any]) -> str:
    with pytest.raises(Refused) as error:
        future.result(SOON)
    return error.value.code


def of(bench, admin: Client, email: str, cluster: str | None, role: str = "viewer") -> Client:
    admin.ask(AddUser(email, "correct-horse"))
    if cluster is not None:
        admin.ask(GrantRole(email, cluster, role))
    client = bench.client()
    client.ask(SignIn(email, "correct-horse"))
    return client


def test_a_node_is_told_when_it_comes_and_when_it_goes(
    bench, admin: Client, cluster: ClusterInfo
) -> None:
    first: Nodes = admin.ask(WatchNodes(cluster.name, wait=LONG))
    assert {node.alias for node in first.nodes} == {f"node-{n}" for n in range(1, 5)}
    assert {node.status for node in first.nodes} == {"DISCONNECTED"}
    poll = parked(admin, WatchNodes(cluster.name, first.revision, LONG))
    node = bench.node(3, heartbeat=False)
    page: Nodes = poll.result(SOON)
    assert {(one.alias, one.status) for one in page.nodes} == {("node-3", "CONNECTED")}
    assert node.registered.wait(SOON)
    page = admin.ask(WatchNodes(cluster.name, page.revision))
    assert {one.alias for one in page.nodes} <= {"node-3"}
    poll = parked(admin, WatchNodes(cluster.name, page.revision, LONG))
    node.close()
    page = poll.result(SOON)
    assert {(one.alias, one.status) for one in page.nodes} == {("node-3", "DISCONNECTED")}
    # What is removed is not told, and nobody who waits is answered for it.
    last = admin.ask(WatchNodes(cluster.name))
    poll = parked(admin, WatchNodes(cluster.name, last.revision, LONG))
    admin.ask(RemoveNode("node-4"))
    with pytest.raises(TimeoutError):
        poll.result(0.2)
    assert {one.alias for one in admin.ask(WatchNodes(cluster.name)).nodes} == {
        one.alias for one in admin.ask(ListNodes(cluster.name)).nodes
    }


def test_a_heartbeat_is_told_with_its_load(bench, admin: Client, cluster: ClusterInfo) -> None:
    node = bench.node(1)
    assert node.registered.wait(SOON)
    revision, seen = "", set()
    for _ in range(4):
        page: Nodes = admin.ask(WatchNodes(cluster.name, revision, LONG))
        revision = page.revision
        seen |= {one.last_seen for one in page.nodes if one.alias == "node-1"}
    assert len(seen) > 1


def test_what_does_not_change_is_told_when_the_time_is_over(
    admin: Client, cluster: ClusterInfo
) -> None:
    revision = admin.ask(WatchNodes(cluster.name)).revision
    for message in (WatchNodes(cluster.name, revision, 0.3), WatchModules(wait=0.3)):
        began = time.monotonic()
        page = admin.ask(message)
        assert 0.3 <= time.monotonic() - began < SOON
        assert not (page.nodes if isinstance(page, Nodes) else page.modules)
    assert admin.ask(WatchNodes(cluster.name, "another.7")).nodes  # of another manager: all


def test_clusters_as_they_are_made_and_change(bench, admin: Client, cluster: ClusterInfo) -> None:
    viewer = of(bench, admin, "viewer@lab", cluster.name)
    polls: list[Future[Clusters]] = []
    first = [client.ask(WatchClusters()) for client in (admin, viewer)]
    polls = [
        parked(client, WatchClusters(page.revision, LONG))
        for client, page in zip((admin, viewer), first, strict=True)
    ]
    admin.ask(CreateCluster("second"))
    told = polls[0].result(SOON)
    assert [one.name for one in told.clusters] == ["second"]
    with pytest.raises(TimeoutError):
        polls[1].result(0.2)  # not his business
    admin.ask(GrantRole("viewer@lab", "second", "viewer"))
    assert [one.name for one in polls[1].result(SOON).clusters] == ["second"]
    poll = parked(viewer, WatchClusters(viewer.ask(WatchClusters()).revision, LONG))
    admin.ask(StopCluster("second"))
    assert [(one.name, one.status) for one in poll.result(SOON).clusters] == [("second", "STOPPED")]
    poll = parked(viewer, WatchClusters(viewer.ask(WatchClusters()).revision, LONG))
    admin.ask(RemoveNode("node-2"))
    assert [(one.name, one.node_count) for one in poll.result(SOON).clusters] == [(cluster.name, 3)]


def test_swarms_of_one_cluster_and_of_all_that_one_may_read(
    bench, admin: Client, cluster: ClusterInfo
) -> None:
    viewer = of(bench, admin, "viewer@lab", cluster.name)
    admin.ask(CreateCluster("second"))
    here = parked(viewer, WatchSwarms(cluster.name, wait=LONG))
    everywhere = parked(viewer, WatchSwarms(wait=LONG))
    hidden = admin.ask(SendSwarm("second", SPEC, wait=True)).swarm_id
    for poll in (here, everywhere):
        with pytest.raises(TimeoutError):
            poll.result(0.2)
    swarm = admin.ask(SendSwarm(cluster.name, SPEC, wait=True)).swarm_id
    for poll in (here, everywhere):
        assert [one.swarm_id for one in poll.result(SOON).swarms] == [swarm]
    steps: list[tuple[Callable[[str], Any], str]] = [(StartSwarm, "ACTIVE"), (StopSwarm, "STOPPED")]
    for act, status in steps:
        poll = parked(viewer, WatchSwarms(since=viewer.ask(WatchSwarms()).revision, wait=LONG))
        admin.ask(act(swarm))
        assert [one.status for one in poll.result(SOON).swarms] == [status]
    poll = parked(viewer, WatchSwarms(since=viewer.ask(WatchSwarms()).revision, wait=LONG))
    admin.ask(GrantRole("viewer@lab", "second", "viewer"))
    assert [one.swarm_id for one in poll.result(SOON).swarms] == [hidden]
    admin.ask(RemoveSwarm(swarm))
    assert [one.swarm_id for one in viewer.ask(WatchSwarms()).swarms] == [hidden]


def test_modules_as_they_are_sent(admin: Client) -> None:
    poll = parked(admin, WatchModules(admin.ask(WatchModules()).revision, LONG))
    sent = admin.ask(SendModule(MODULE))
    page = poll.result(SOON)
    assert [one.id for one in page.modules] == [sent.id]
    poll = parked(admin, WatchModules(page.revision, LONG))
    again = admin.ask(SendModule(MODULE))
    assert [one.updated_at for one in poll.result(SOON).modules] == [again.updated_at]
    admin.ask(RemoveModule(sent.id))
    assert admin.ask(WatchModules()).modules == ()


def test_who_may_no_longer_know_is_told_so_at_once(
    bench, admin: Client, cluster: ClusterInfo
) -> None:
    admin.ask(CreateCluster("second"))
    viewer = of(bench, admin, "viewer@lab", "second")
    poll = parked(viewer, WatchNodes("second", wait=LONG))
    admin.ask(RevokeRole("viewer@lab", "second"))
    assert refused(poll) == Code.FORBIDDEN
    poll = parked(admin, WatchNodes("second", wait=LONG))
    swarms = parked(admin, WatchSwarms("second", wait=LONG))
    admin.ask(StopCluster("second"))
    admin.ask(DeleteCluster("second"))
    assert refused(poll) == refused(swarms) == Code.UNKNOWN_CLUSTER
    admin.ask(GrantRole("viewer@lab", cluster.name, "viewer"))
    since = viewer.ask(WatchNodes(cluster.name)).revision
    poll = parked(viewer, WatchNodes(cluster.name, since, LONG))
    viewer.ask(Logout())
    with bench.node(1):
        assert poll.exception(SOON) is not None


def test_a_part_of_the_manager_that_restarts_tells_anew(
    bench, admin: Client, cluster: ClusterInfo
) -> None:
    first: Nodes = admin.ask(WatchNodes(cluster.name))
    poll = parked(admin, WatchNodes(cluster.name, first.revision, LONG))
    crash(bench.system.find(f"manager/clusters/{cluster.id}"))
    page: Nodes = poll.result(SOON)
    assert {one.alias for one in page.nodes} <= {f"node-{n}" for n in range(1, 5)}
    bench.restart()
    again: Nodes = admin.ask(WatchNodes(cluster.name, page.revision, LONG))
    assert len(again.nodes) == 4
