"""Each call of the SDK while the manager is away: killed and started again, and gone for good."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from manta import Module, Swarm, Task, UserAPI
from manta.apis.errors import ConnectionFailed, ManagerUnreachable, NoAnswer
from manta.apis.sync import connection
from manta.cli.exit_codes import of_error
from manta.cli.local.cluster import CLUSTER, LocalCluster
from manta.console.exit_codes import Exit
from manta.testing import wait_until
from manta.testing.clusters import client, running, wait_for_nodes
from tests.support.children import freeze
from tests.support.restarts import Restartable
from tests.unit.test_troubleshooting import quoted

TELLS = """
import time
from manta.light import World

def main():
    world = World()
    world.globals["seen"] = True
    for step in range(3):
        print("step", step)
        world.results.add("step", step)
        world.log_metrics({"value": step}, step=step)
    while not world.globals.get("go", False):
        time.sleep(0.05)
"""


class Tells(Swarm):
    def execute(self) -> Task:
        return Task(Module(TELLS, name="tells"))


@pytest.fixture
def cluster() -> Iterator[Restartable]:
    with running(Restartable, 1) as cluster:
        assert isinstance(cluster, Restartable)
        yield cluster


def told(api: UserAPI, swarm: str) -> bool:
    return len(api.get_metrics(swarm)) == 3 and len(api.collect_logs(swarm)) >= 3


Call = Callable[[UserAPI, str], Any]
READS: dict[str, Call] = {
    "list_clusters": lambda api, _: [one.id for one in api.list_clusters()],
    "list_cluster_ids": lambda api, _: api.list_cluster_ids(),
    "get_cluster": lambda api, _: api.get_cluster(CLUSTER).owner_id,
    "list_nodes": lambda api, _: [(one.id, one.alias) for one in api.list_nodes(CLUSTER)],
    "get_node": lambda api, _: api.get_node("node-1").platform_info.cores,
    "list_swarms": lambda api, _: [one.swarm_id for one in api.list_swarms()],
    "get_swarm": lambda api, swarm: api.get_swarm(swarm).status,
    "wait_swarm": lambda api, swarm: api.wait_swarm(swarm, 50).status,
    "get_tasks": lambda api, swarm: [(one.alias, one.status) for one in api.get_tasks(swarm)],
    "explain_swarm": lambda api, swarm: str(api.explain_swarm(swarm)),
    "check_swarm": lambda api, _: api.check_swarm(CLUSTER, Tells()).problems,
    "get_swarm_results": lambda api, swarm: [
        one.value for one in api.get_swarm_results(swarm)("step")
    ],
    "select_results": lambda api, swarm: str(api.select_results(swarm, "step")),
    "list_result_tags": lambda api, swarm: api.list_result_tags(swarm),
    "select_global": lambda api, swarm: api.select_global(swarm, "seen"),
    "list_global_tags": lambda api, swarm: api.list_global_tags(swarm),
    "get_metrics": lambda api, swarm: [one.step for one in api.get_metrics(swarm)],
    "collect_logs": lambda api, swarm: [one.text for one in api.collect_logs(swarm)],
    "collect_errors": lambda api, swarm: api.collect_errors(swarm),
    "stream_results": lambda api, swarm: [one.value for one in api.stream_results(swarm)],
    "stream_metrics": lambda api, swarm: [one.step for one in api.stream_metrics(swarm)],
    "stream_logs": lambda api, swarm: [one.text for one in api.stream_logs(swarm)],
    "list_modules": lambda api, _: api.list_modules(),
    "get_user": lambda api, _: api.get_user().email,
    "list_users": lambda api, _: [one.email for one in api.list_users()],
}


def test_what_was_asked_while_the_manager_was_away_is_answered_as_before(
    cluster: Restartable,
) -> None:
    with client(cluster) as api, ThreadPoolExecutor(len(READS)) as pool:
        swarm = api.deploy_swarm(CLUSTER, Tells()).swarm_id
        wait_until(lambda: told(api, swarm))
        api.set_global(swarm, "go", True)
        assert api.wait_swarm(swarm, 30).status == "COMPLETED"
        before = {name: read(api, swarm) for name, read in READS.items()}
        cluster.kill("manager")
        asked = {name: pool.submit(read, api, swarm) for name, read in READS.items()}
        time.sleep(1.0)
        assert not any(future.done() for future in asked.values())
        cluster.again("manager")
        assert {name: future.result(60) for name, future in asked.items()} == before
        wait_for_nodes(api, 1)


def test_who_waits_for_a_swarm_sees_its_end_though_the_manager_was_killed(
    cluster: Restartable,
) -> None:
    with client(cluster) as api, ThreadPoolExecutor(6) as pool:
        swarm = api.deploy_swarm(CLUSTER, Tells()).swarm_id
        wait_until(lambda: told(api, swarm))

        def told_of_its_end() -> str:
            told = (one for one in api.stream_swarms(follow=True) if one.swarm_id == swarm)
            return next(one.status for one in told if one.ended)

        def told_of_a_module() -> str:
            return next(one.name for one in api.stream_modules(follow=True))

        waits: list[Future[Any]] = [
            pool.submit(api.wait_swarm, swarm, 90),
            pool.submit(lambda: list(api.stream_results(swarm))),
            pool.submit(lambda: list(api.stream_logs(swarm))),
            pool.submit(lambda: api.get_swarm_results(swarm, "step", wait=True)),
            pool.submit(told_of_its_end),
            pool.submit(told_of_a_module),
        ]
        time.sleep(0.3)
        cluster.kill("manager")
        cluster.again("manager")
        wait_for_nodes(api, 1)
        api.set_global(swarm, "go", True)
        api.send_module(Module("def main(): pass\n", name="later"))
        status, results, lines, kept, end, module = (wait.result(60) for wait in waits)
        assert (end, module) == ("COMPLETED", "later")
        assert status.status == "COMPLETED"
        assert [item.value for item in results] == [0, 1, 2]
        assert [item.value for item in kept] == [0, 1, 2]
        assert [line.text for line in lines if line.text.startswith("step")] == [
            f"step {step}" for step in range(3)
        ]


def test_a_manager_that_is_gone_is_told_by_every_call_in_time(
    cluster: Restartable, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes: dict[str, Call] = {
        "create_cluster": lambda api, _: api.create_cluster(name="late"),
        "deploy_swarm": lambda api, _: api.deploy_swarm(CLUSTER, Tells()),
        "stop_swarm": lambda api, swarm: api.stop_swarm(swarm),
        "set_global": lambda api, swarm: api.set_global(swarm, "x", 1),
        "delete_results": lambda api, swarm: api.delete_results(swarm),
        "create_node_token": lambda api, _: api.create_node_token(CLUSTER),
        "drain_node": lambda api, _: api.drain_node("node-1"),
        "add_user": lambda api, _: api.add_user("late@lab", "correct-horse"),
        "rotate_token": lambda api, _: api.rotate_token(),
    }
    patience = 3.0
    monkeypatch.setattr(connection, "PATIENCE", patience)
    with client(cluster) as api:
        swarm = api.deploy_swarm(CLUSTER, Tells()).swarm_id
        wait_until(lambda: told(api, swarm))
        cluster.kill("manager")
        calls = READS | changes
        outcomes: dict[str, tuple[BaseException | None, float]] = {}

        def ask(name: str) -> None:
            began, error = time.monotonic(), None
            try:
                calls[name](api, swarm)
            except ConnectionFailed as failure:
                error = failure
            outcomes[name] = error, time.monotonic() - began

        threads = [threading.Thread(target=ask, args=(name,)) for name in calls]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        cluster.again("manager")
        assert outcomes.keys() == calls.keys()
        for name, (error, took) in outcomes.items():
            assert isinstance(error, ManagerUnreachable), name
            assert f"127.0.0.1:{cluster.user_port}" in str(error), name
            assert took < patience + 5.0, name
        monkeypatch.undo()
        wait_for_nodes(api, 1)
        assert [one.name for one in api.list_clusters()] == [CLUSTER]  # none was made late
        api.stop_swarm(swarm, force=True)


def test_what_was_asked_of_a_manager_that_then_died_may_have_been_carried_out() -> None:
    """Killed between the request, which has reached it, and its answer."""
    with running(LocalCluster, 0) as cluster, client(cluster) as api, ThreadPoolExecutor(1) as own:
        manager = cluster.children[0].process
        assert [found.name for found in api.list_clusters()] == ["local"]
        freeze(manager.pid)
        # Longer than what the link says by itself while nobody reads it.
        rights = [f"a.right.of.some.length.{number}" for number in range(100)]
        asked = own.submit(api.create_role_definition, "auditor", rights)
        wait_until(lambda: unread(cluster.user_port) >= 2000)
        manager.kill()
        with pytest.raises(NoAnswer) as lost:
            asked.result(30)
    (message,) = [each for each in quoted() if "it may have been carried out" in each]
    assert str(lost.value).endswith(message.lstrip("…"))
    assert of_error(lost.value) is Exit.UNREACHABLE


def unread(port: int) -> int:
    """Bytes that have come in at that port, and that nobody has read."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(
        int(queues.partition(":")[2], 16)
        for _, local, _, state, queues, *_ in lines
        if local.endswith(f":{port:04X}") and state == "01"
    )
