"""Clusters and nodes by the SDK, call by call, on a real manager with real nodes."""

from __future__ import annotations

import inspect
import platform
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import psutil
import pytest

from manta import Module, Swarm, Task, UserAPI
from manta.apis import errors
from manta.cli.local.cluster import CLUSTER
from manta.protocol.tokens import peek
from manta.protocol.tree import Tree
from manta.protocol.user import GetTree
from manta.testing import wait_until
from manta.testing.clusters import client, running, wait_for_nodes
from tests.support.restarts import Restartable

HELD = Module(
    "import time\nfrom manta.light import World\ndef main():\n    world = World()\n"
    "    world.results.add('began', world.node_id)\n"
    "    while 'go' not in world.globals:\n        time.sleep(0.05)\n",
    name="held",
)
QUICK = Module("def main():\n    pass\n", name="quick")


class One(Swarm):
    def __init__(self, module: Module = QUICK, **arguments: object) -> None:
        self.task = Task(module, **arguments)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Restartable]:
    data = tmp_path_factory.mktemp("data")
    np.save(data / "numbers.npy", np.arange(3.0))
    with running(Restartable, 2, numbers=str(data / "numbers.npy")) as cluster:
        assert isinstance(cluster, Restartable)
        yield cluster


@pytest.fixture(scope="module")
def api(cluster: Restartable) -> Iterator[UserAPI]:
    with client(cluster) as api:
        # Threads that a first use starts belong to all tests.
        api.remove_swarm(api.send_swarm(CLUSTER, One()))
        yield api


@pytest.fixture
def own() -> Iterator[Restartable]:
    """A cluster for one test, which starts and ends processes of it."""
    with running(Restartable, 2) as cluster:
        assert isinstance(cluster, Restartable)
        yield cluster


@pytest.fixture
def own_api(own: Restartable) -> Iterator[UserAPI]:
    with client(own) as api:
        yield api


def at_work(api: UserAPI, count: int = 2, **arguments: object) -> str:
    """A swarm whose instances run until it has the global `go`."""
    swarm = api.deploy_swarm(CLUSTER, One(HELD, **arguments)).swarm_id
    wait_until(lambda: len(api.get_swarm_results(swarm)) == count)
    return swarm


def nodes_of(api: UserAPI, swarm: str) -> set[str]:
    return {task.node_alias for task in api.get_tasks(swarm)}


def test_what_a_stopped_cluster_means_for_its_nodes_and_swarms(api: UserAPI) -> None:
    runs, waits = at_work(api), api.send_swarm(CLUSTER, One())
    paused = api.pause_swarm(at_work(api))
    done = api.deploy_swarm(CLUSTER, One())
    assert api.wait_swarm(done, timeout=60).status == "COMPLETED"
    stopped = api.stop_cluster(CLUSTER)
    assert (stopped.name, stopped.status, stopped.node_count) == (CLUSTER, "STOPPED", 2)
    assert stopped == api.get_cluster(CLUSTER)
    for swarm in (runs, waits, paused):
        ended = api.wait_swarm(swarm, timeout=60)
        assert (ended.status, "cluster" in ended.reason) == ("STOPPED", True), ended
    assert api.get_swarm(done).status == "COMPLETED"
    wait_until(lambda: not any(node.load.tasks_running for node in api.list_nodes(CLUSTER)))
    # The nodes stay: they are connected, and wait.
    assert [node.status for node in api.list_nodes(CLUSTER)] == ["CONNECTED"] * 2
    for refused in (api.deploy_swarm, api.send_swarm, api.check_swarm):
        with pytest.raises(
            errors.WrongState, match=r"cluster 'local' is stopped; start it \(manta cluster start"
        ):
            refused(CLUSTER, One())
    assert api.stop_cluster(stopped) == stopped  # again: nothing changes
    started = api.start_cluster(stopped)
    assert (started.status, started.id) == ("RUNNING", stopped.id)
    assert api.wait_swarm(api.deploy_swarm(started, One()), timeout=60).status == "COMPLETED"
    assert api.get_swarm(runs).status == "STOPPED"  # what was stopped stays so


def test_a_cluster_its_token_its_nodes_and_the_end_of_all(
    own_api: UserAPI, own: Restartable
) -> None:
    made = own_api.create_cluster(name="second")
    assert made in list(own_api.stream_clusters())
    assert own_api.get_user().id == made.owner_id
    token = own_api.create_node_token(made, uses=2, ttl=60)
    assert 55 < peek(token).expires_at - time.time() <= 60
    assert 895 < peek(own_api.create_node_token("second")).expires_at - time.time() <= 900
    children = [own.enrol(f"guest-{i}", token) for i in range(2)]
    wait_until(lambda: len(own_api.list_available_node_ids(made)) == 2)
    assert own_api.get_cluster(made).node_count == 2
    third = own.enrol("guest-2", token)
    assert third.ended.wait(60)
    assert third.process.returncode == 6
    assert "used up" in third.log.read_text()
    # Cluster, nodes and swarms go together, and only once nothing runs.
    swarm = own_api.deploy_swarm(made, One(HELD))
    wait_until(lambda: len(own_api.get_swarm_results(swarm)) == 2)
    with pytest.raises(errors.WrongState, match=r"runs in the cluster 'second'; stop the cluster"):
        own_api.delete_cluster(made)
    own_api.stop_cluster(made)
    wait_until(lambda: own_api.get_swarm(swarm).ended)
    ids = own_api.list_node_ids(made)
    own_api.delete_cluster(made)
    calls: list[tuple[Callable[[Any], object], object]] = [
        (own_api.get_cluster, made),
        (own_api.list_nodes, "second"),
        (own_api.get_swarm, swarm),
        (own_api.get_node, ids[0]),
        (own_api.create_node_token, made),
    ]
    for call, name in calls:
        with pytest.raises(errors.NotFound):
            call(name)
    assert made.id not in own_api.list_cluster_ids()
    for child in children:
        assert child.ended.wait(60)
        assert child.process.returncode == 6


def test_what_is_told_of_a_node_is_true_of_this_machine(api: UserAPI) -> None:
    node = api.get_node("node-1")
    assert node.id == api.get_node("node-1", CLUSTER).id
    assert (node.id, node.alias, node.status) == ("node-1", "node-1", "CONNECTED")
    assert node.cluster_id == api.get_cluster(CLUSTER).id
    numbers = node.datasets["numbers"]
    assert (numbers.name, numbers.format, numbers.size) == ("numbers", "npy", 128 + 24)
    found = node.platform_info
    assert (found.architecture, found.system.split()[0]) == (
        platform.machine(),
        platform.system(),
    )
    assert found.hostname == platform.node()
    assert found.python == platform.python_version()
    assert found.runners == (found.isolation,)
    assert found.isolation in ("bwrap", "landlock", "limits")
    resources = api.get_node_resources("node-1")
    assert resources.cpu_count == psutil.cpu_count()
    assert resources.cpu_memory == psutil.virtual_memory().total - (256 << 20)  # reserved
    assert 0 < resources.disk_free <= psutil.disk_usage("/").total
    assert resources.gpu_available is bool(found.gpus)
    assert abs(time.time() - node.last_seen) < 30


@pytest.mark.parametrize("node", [None, "node-1"])
def test_the_trees_of_manager_and_node_are_read_on_from_a_path(
    api: UserAPI, node: str | None
) -> None:
    paths = [actor.path for actor in api.get_tree(node).actors]
    assert paths[0] == ("node" if node else "manager")
    rest = api.connection.ask(GetTree(node, paths[2]), Tree, again=True)
    assert [actor.path for actor in rest.actors] == paths[3:]
    assert not rest.more


def test_a_drained_node_finishes_takes_nothing_and_goes(own_api: UserAPI, own: Restartable) -> None:
    swarm, child = at_work(own_api), own.child("node-2")
    told = own_api.stream_nodes(CLUSTER, follow=True)
    resources = own_api.stream_node_resources("node-2", interval=0.05)
    assert [next(told).status for _ in range(2)] == ["CONNECTED"] * 2
    assert next(resources).cpu_count == psutil.cpu_count()
    own_api.drain_node("node-2")
    assert own_api.get_node("node-2").status == "DRAINING"
    assert own_api.list_available_node_ids(CLUSTER) == ["node-1"]
    assert next(node.status for node in told if node.alias == "node-2") == "DRAINING"
    assert next(resources).cpu_count == psutil.cpu_count()
    other = own_api.deploy_swarm(CLUSTER, One())
    assert own_api.wait_swarm(other, timeout=60).status == "COMPLETED"
    assert nodes_of(own_api, other.swarm_id) == {"node-1"}
    assert not child.ended.is_set()
    own_api.set_global(swarm, "go", True)
    assert own_api.wait_swarm(swarm, timeout=60).status == "COMPLETED"
    assert child.ended.wait(60)
    assert child.process.returncode == 0
    wait_until(lambda: own_api.get_node("node-2").status not in ("DRAINING", "CONNECTED"))
    assert list(resources) == []  # ends with the node
    own.again("node-2")
    wait_for_nodes(own_api, 2)
    back = own_api.deploy_swarm(CLUSTER, One())
    assert own_api.wait_swarm(back, timeout=60).status == "COMPLETED"
    assert nodes_of(own_api, back.swarm_id) == {"node-1", "node-2"}


def test_a_stopped_node_is_away_at_once_and_its_work_goes_elsewhere(
    own_api: UserAPI, own: Restartable
) -> None:
    swarm, child = at_work(own_api, replicas=2), own.child("node-2")
    own_api.stop_node(own_api.get_node("node-2"))
    assert child.ended.wait(60)
    assert child.process.returncode == 0
    wait_until(lambda: own_api.list_available_node_ids(CLUSTER) == ["node-1"], 15)
    for call in (own_api.stop_node, own_api.drain_node):
        with pytest.raises(errors.WrongState, match=r"'node-2' is not connected; stop it where"):
            call("node-2")
    running_at = lambda: [t.node_alias for t in own_api.get_tasks(swarm) if t.ended_at is None]  # noqa: E731
    wait_until(lambda: running_at() == ["node-1"] * 2, 15)
    own_api.set_global(swarm, "go", True)
    assert own_api.wait_swarm(swarm, timeout=60).status == "COMPLETED"
    own.again("node-2")
    wait_for_nodes(own_api, 2)


def test_what_a_node_ran_that_is_stopped_where_it_runs_does_not_come_back_to_it(
    own_api: UserAPI, own: Restartable
) -> None:
    swarm = at_work(own_api, 8, replicas=8)
    before = {task.index for task in own_api.get_tasks(swarm) if task.node_alias == "node-2"}
    own.end("node-2")
    wait_until(lambda: len(own_api.get_tasks(swarm)) == 8 + len(before), 15)
    again = [task for task in own_api.get_tasks(swarm) if task.attempt]
    assert {task.node_alias for task in again} == {"node-1"}
    assert {task.index for task in again} == before
    own_api.set_global(swarm, "go", True)
    assert own_api.wait_swarm(swarm, timeout=60).status == "COMPLETED"
    own.again("node-2")
    wait_for_nodes(own_api, 2)


@pytest.mark.filterwarnings("ignore::manta.apis.errors.Incomplete")  # until it is heard again
def test_a_removed_node_ends_and_comes_back_with_a_token_only(
    own_api: UserAPI, own: Restartable
) -> None:
    swarm, child = at_work(own_api, replicas=2), own.child("node-2")
    own_api.remove_node("node-2")
    with pytest.raises(errors.NotFound, match="no node 'node-2'; see `manta node list`"):
        own_api.get_node("node-2")
    assert child.ended.wait(60)
    assert child.process.returncode == 6
    assert own_api.list_node_ids(CLUSTER) == ["node-1"]
    assert own_api.get_cluster(CLUSTER).node_count == 1
    own.again("node-2")
    refused = own.child("node-2")
    assert refused.ended.wait(60)
    assert refused.process.returncode == 6
    assert "removed" in refused.log.read_text()
    own.enrol("node-2", own_api.create_node_token(CLUSTER))
    wait_for_nodes(own_api, 2)

    def results() -> int:
        with warnings.catch_warnings():  # it may not have told yet how what it ran ended
            warnings.simplefilter("ignore", errors.Incomplete)
            return len(own_api.get_swarm_results(swarm, attempts="all"))

    wait_until(lambda: results() == 3)  # what it ran is placed again
    own_api.set_global(swarm, "go", True)
    assert own_api.wait_swarm(swarm, timeout=60).status == "COMPLETED"


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda api: api.get_cluster("gone"), errors.NotFound, "no cluster 'gone'; see `manta"),
        (lambda api: api.start_cluster("gone"), errors.NotFound, "no cluster 'gone'"),
        (lambda api: api.stop_cluster("gone"), errors.NotFound, "no cluster 'gone'"),
        (lambda api: api.delete_cluster("gone"), errors.NotFound, "no cluster 'gone'"),
        (lambda api: api.create_node_token("gone"), errors.NotFound, "no cluster 'gone'"),
        (lambda api: api.list_swarms("gone"), errors.NotFound, "no cluster 'gone'"),
        (lambda api: api.list_available_node_ids("gone"), errors.NotFound, "no cluster 'gone'"),
        (lambda api: list(api.stream_nodes("gone")), errors.NotFound, "no cluster 'gone'"),
        (lambda api: api.get_node("gone"), errors.NotFound, "no node 'gone'; see `manta node"),
        (lambda api: api.get_node("gone", CLUSTER), errors.NotFound, "no node 'gone'"),
        (lambda api: api.get_node("node-1", "gone"), errors.NotFound, "no cluster 'gone'"),
        (lambda api: api.stop_node("gone"), errors.NotFound, "no node 'gone'"),
        (lambda api: api.drain_node("gone"), errors.NotFound, "no node 'gone'"),
        (lambda api: api.remove_node("gone"), errors.NotFound, "no node 'gone'"),
        (lambda api: api.get_node_resources("gone"), errors.NotFound, "no node 'gone'"),
        (lambda api: list(api.stream_node_resources("gone")), errors.NotFound, "no node 'gone'"),
        (lambda api: api.get_node("node-"), errors.Ambiguous, r"2 nodes \(node-1, node-2\); give"),
        (lambda api: api.get_node(""), errors.InvalidArgument, "The node is ''"),
        (lambda api: api.get_cluster(None), errors.InvalidArgument, "The cluster is None"),
        (lambda api: api.create_cluster(""), errors.InvalidArgument, "name is ''"),
        (lambda api: api.create_cluster(3), errors.InvalidArgument, "name is 3"),
        (lambda api: api.create_cluster(CLUSTER), errors.NameTaken, "'local' already"),
        (lambda api: api.create_node_token(CLUSTER, 0), errors.InvalidArgument, "uses is 0"),
        (lambda api: api.create_node_token(CLUSTER, 1.5), errors.InvalidArgument, "uses is 1.5"),
        (lambda api: api.create_node_token(CLUSTER, ttl=0), errors.InvalidArgument, "ttl is 0"),
        (
            lambda api: api.create_node_token(CLUSTER, ttl=86_401),
            errors.InvalidRequest,
            "86400 s at",
        ),
        (lambda api: api.stop_node("node-1", drain=1), errors.InvalidArgument, "drain is 1"),
        (
            lambda api: next(api.stream_nodes(CLUSTER, follow="yes")),
            errors.InvalidArgument,
            "follow is 'yes'",
        ),
    ],
)
def test_what_cannot_be_is_one_sentence(
    api: UserAPI, call: Callable[[UserAPI], object], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words) as refused:
        call(api)
    assert str(refused.value).endswith(".")
    assert "\n" not in str(refused.value)


class Joined(Swarm):
    def __init__(self, *edges: tuple[str, str]) -> None:
        self.task = Task(QUICK, network="pairs")
        self.add_network("pairs", edges)


def test_a_network_joins_nodes_that_there_are(api: UserAPI) -> None:
    for edge, name in ((("node-1", "node-9"), "node-9"), (("node-", "node-2"), "node-")):
        with pytest.raises(
            errors.Unplaceable,
            match=rf"network 'pairs' joins '{name}', which is neither id nor alias of a node of "
            r"this cluster; correct it \(manta node list\)\.",
        ):
            api.deploy_swarm(CLUSTER, Joined(("node-1", "node-2"), edge))
    ended = api.wait_swarm(api.deploy_swarm(CLUSTER, Joined(("node-1", "node-2"))), timeout=60)
    assert ended.status == "COMPLETED"


TEXTS = "name email password old new tag role module task"
GOOD: dict[str, Any] = {
    **dict.fromkeys(TEXTS.split(), "some text"),
    "cluster": CLUSTER,
    "node": "node-1",
    "user": "user@localhost",
    "quota": "clusters",
    "limit": 5,
    "rights": ["swarm.read"],
    "value": 1,
    "content": QUICK,
}
WRONG = (object(), 3.5, [1], "", None)
SECONDS = {"timeout", "ttl", "interval"}  # of which 3.5 is a good value


def wrong_calls(swarm: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every method, with each of its arguments wrong in each way, and the others right."""
    for method, call in inspect.getmembers(UserAPI, inspect.isfunction):
        if method[0] == "_" or method in ("over", "close"):
            continue
        names = list(inspect.signature(call).parameters.values())[1:]
        deploys = method in ("check_swarm", "deploy_swarm", "send_swarm")
        good = {**GOOD, "swarm": One() if deploys else swarm}
        if method == "send_module":
            good["module"] = QUICK
        for name in names:
            for wrong in WRONG:
                if (wrong is None and name.default is None and not deploys) or (
                    wrong == 3.5 and name.name in SECONDS
                ):
                    continue
                if (method, name.name) == ("set_global", "value"):
                    continue
                if (method, name.name, wrong) == ("select_global", "tag", ""):
                    continue  # whatever a manager lists can be read
                needed = {
                    one.name: good[one.name]
                    for one in names
                    if one.default is one.empty or (deploys and one.name == "swarm")
                }
                yield method, name.name, {**needed, name.name: wrong}


def test_no_argument_of_a_wrong_type_reaches_the_manager(api: UserAPI) -> None:
    """It would break the protocol, and cost the connection."""
    swarm = api.send_swarm(CLUSTER, One()).swarm_id
    seen = 0
    for method, name, arguments in wrong_calls(swarm):
        call = getattr(api, method)
        streams = inspect.isgeneratorfunction(call)
        with pytest.raises((errors.InvalidArgument, errors.InvalidRequest)) as refused:
            _ = next(call(**arguments)) if streams else call(**arguments)
        assert str(refused.value).endswith("."), (method, name)
        seen += 1
    assert seen > 300
    assert api.get_swarm(swarm).status == "PENDING"
    api.stop_swarm(swarm)
