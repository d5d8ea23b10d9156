"""The SDK against a real manager and real nodes."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from manta import AsyncUserAPI, Module, Results, Swarm, Task, UserAPI
from manta.apis import errors
from manta.apis.connect.profiles import Target
from manta.apis.connect.session import Session
from manta.apis.sync import connection
from manta.cli.local.cluster import CLUSTER, HOST
from manta.testing import wait_until
from manta.transports.security.keys import KeyPair
from tests.integration.sdk.conftest import ONE, Rounds, Stage, one


def test_clusters(stage: Stage) -> None:
    api = stage.api
    made = api.create_cluster("lab")
    assert (made.name, made.status, made["node_count"]) == ("lab", "RUNNING", 0)
    with pytest.raises(errors.NameTaken, match="lab"):
        api.create_cluster("lab")
    assert {cluster.name for cluster in api.list_clusters()} == {CLUSTER, "lab"}
    assert api.get_cluster(made.id[:10]) == api.get_cluster("lab") == api.get_cluster(made)
    assert api.stop_cluster(made).status == "STOPPED"
    with pytest.raises(errors.RequestRefused, match="stopped"):
        api.deploy_swarm(made, ONE())
    assert api.start_cluster("lab").status == "RUNNING"
    with pytest.raises(errors.Unplaceable, match="task"):
        api.deploy_swarm(made, ONE())
    api.delete_cluster(made)
    with pytest.raises(errors.NotFound, match="lab"):
        api.get_cluster("lab")


def test_nodes(stage: Stage) -> None:
    nodes = stage.api.list_nodes(CLUSTER)
    assert sorted(node.alias for node in nodes) == ["node-1", "node-2"]
    node = stage.api.get_node("node-2", CLUSTER)
    assert node.status == "CONNECTED"
    assert node.datasets["numbers"].format == "npy"
    assert node.resources.cpu_count >= 1
    assert node["platform_info"].isolation in ("bwrap", "landlock", "limits")
    assert stage.api.get_node(node.id[:8]).id == node.id
    with pytest.raises(errors.NotFound, match="node-9"):
        stage.api.get_node("node-9")
    with pytest.raises(errors.NotFound, match="gone"):
        stage.api.list_nodes("gone")


def test_node_token(stage: Stage) -> None:
    from manta.protocol.tokens import NODE_AUDIENCE, peek

    claims = peek(stage.api.create_node_token(CLUSTER, uses=3, ttl=60))
    assert claims.audience == NODE_AUDIENCE
    assert claims.manager_key == stage.cluster.manager_keys.public


READS = {
    "swarm": "get_swarm get_tasks explain_swarm wait_swarm get_swarm_results list_result_tags "
    "stream_results list_global_tags get_metrics stream_metrics collect_logs stream_logs "
    "collect_errors stream_events",
    "cluster": "get_cluster list_nodes list_node_ids list_available_node_ids stream_nodes "
    "stream_and_fetch_nodes list_swarms list_swarm_ids stream_swarms stream_and_fetch_swarms",
    "node": "get_node get_node_resources",
    "user": "get_user",
}


def count(answer: object) -> int:
    """Of what was read; 1 of a single thing."""
    if inspect.isgenerator(answer) or isinstance(answer, list | Results):
        return len(list(answer))
    return 1


def test_an_overview_is_taken_wherever_an_id_is(own: UserAPI, finished: str) -> None:
    api = own
    swarm, cluster = api.get_swarm(finished), api.get_cluster(CLUSTER)
    node, user = api.get_node("node-1"), api.get_user()
    assert swarm["swarm_id"] == swarm.swarm_id == finished
    forms: dict[str, tuple[object, object]] = {
        "swarm": (finished, swarm),
        "cluster": (cluster.id, cluster),
        "node": (node.id, node),
        "user": (user.id, user),
    }
    for kind, methods in READS.items():
        for method in methods.split():
            by_id, by_overview = (getattr(api, method)(form) for form in forms[kind])
            assert count(by_id) == count(by_overview), method
    assert len(api.select_results(swarm, "sum")) == 6
    assert (api.select_global(swarm, "seen") == api.select_global(finished, "seen")).all()
    assert next(api.stream_node_resources(node)).cpu_count == node.resources.cpu_count
    assert len(api.collect_logs(swarm, node=node)) == 3
    assert len(list(api.stream_logs(swarm, node=node, task="worker"))) == 3
    # Of a swarm and of a node: the cluster that they are in.
    assert api.get_cluster(swarm) == api.get_cluster(node) == cluster  # type: ignore[arg-type]


def test_a_swarm_is_led_by_its_overview_from_beginning_to_end(stage: Stage) -> None:
    api = stage.api
    code = "import time\ndef main():\n    time.sleep(100)\n"
    swarm = one(code, specified_ids=[api.get_node("node-1")])()
    assert len(api.check_swarm(api.get_cluster(CLUSTER), swarm).placements) == 1
    sent = api.send_swarm(api.get_cluster(CLUSTER), swarm)
    api.set_global(sent, "x", 1)
    assert api.select_global(sent, "x") == 1
    for change, status in (
        (api.start_swarm, "ACTIVE"),
        (api.pause_swarm, "PAUSED"),
        (api.resume_swarm, "ACTIVE"),
        (api.stop_swarm, "STOPPED"),
    ):
        assert change(sent).status == api.get_swarm(sent).status == status
    api.remove_swarm(sent)
    with pytest.raises(errors.NotFound, match=f"no swarm '{sent.swarm_id}'"):
        api.get_swarm(sent)


def test_unknown_swarms_are_told_by_every_call(stage: Stage) -> None:
    api = stage.api
    writes = "start_swarm pause_swarm resume_swarm stop_swarm remove_swarm"
    for method in [*READS["swarm"].split(), *writes.split()]:
        with pytest.raises(
            errors.NotFound,
            match=r"^There is no swarm 'gone'; see `manta ps` for those there are\.$",
        ):
            count(getattr(api, method)("gone"))
    for method in ("select_results", "select_global"):
        with pytest.raises(errors.NotFound, match="no swarm 'gone'"):
            getattr(api, method)("gone", "tag")


def test_what_was_meant_by_a_name_that_is_not_there(stage: Stage, finished: str) -> None:
    api, module = stage.api, Module("def main():\n    pass\n", name="kept")
    api.send_module(module)
    wrong: list[tuple[str, Callable[[], object]]] = [
        (CLUSTER, lambda: api.list_nodes(CLUSTER[:-1] + "x")),
        ("rounds", lambda: api.get_swarm("round")),
        ("node-1", lambda: api.get_node("node-11")),
        ("node-2", lambda: api.collect_logs(finished, "nod-2")),
        ("worker", lambda: api.collect_logs(finished, task="workr")),
        ("kept", lambda: api.get_module("kep")),
        ("large", lambda: api.select_results(finished, "lrge")),
        ("large", lambda: api.get_swarm_results(finished)("lrge")),
        ("large", lambda: api.delete_results(finished, "lrge")),
        ("seen", lambda: api.select_global(finished, "sen")),
    ]
    for meant, call in wrong:
        with pytest.raises(errors.NotFound) as raised:
            call()
        assert str(raised.value).endswith(f" Did you mean {meant!r}?")
    unknown = one("def main():\n    pass\n", datasets=["nombers"])()
    (problem,) = api.check_swarm(CLUSTER, unknown).problems
    assert problem.endswith(" Did you mean 'numbers'?")
    with pytest.raises(errors.ModuleError, match="none of that name; the nearest is kept"):
        api.check_swarm(CLUSTER, one("kepd")())


def test_globals(stage: Stage, finished: str) -> None:
    api = stage.api
    assert set(api.list_global_tags(finished)) == {"model", "seen"}
    assert (api.select_global(finished, "seen") == np.arange(100_000) + 1).all()
    with pytest.raises(errors.NotFound, match="no global 'gone': it has"):
        api.select_global(finished, "gone")
    with pytest.raises(errors.InvalidValue, match="global 'x' cannot be sent"):
        api.set_global(finished, "x", object())


def test_metrics_logs_tasks(stage: Stage, finished: str) -> None:
    api = stage.api
    metrics = api.get_metrics(finished)
    assert sorted((m.iteration, m.metrics["rank"]) for m in metrics) == [
        (i, r) for i in range(3) for r in range(2)
    ]
    assert len(list(api.stream_metrics(finished))) == 6
    lines = api.collect_logs(finished, node="node-1")
    assert api.collect_logs(finished, "node-1", limit=2) == lines[-2:]
    assert api.collect_logs(finished, node="node-1", limit=99) == lines
    second = api.collect_logs(finished, node="node-1", iteration=1)
    assert second == [line for line in lines if line.iteration == 1]
    assert list(api.stream_logs(finished, "node-1", iteration=1)) == second
    with pytest.raises(errors.InvalidArgument, match="limit is 0"):
        api.collect_logs(finished, limit=0)
    assert [line.text for line in lines] == ["iteration 0", "iteration 1", "iteration 2"]
    assert len(list(api.stream_logs(finished, task="worker"))) == 6
    with pytest.raises(errors.NotFound, match=r"no task 'gone': there is worker"):
        list(api.stream_logs(finished, task="gone"))
    with pytest.raises(errors.NotFound, match=r"no node 'gone'"):
        api.collect_logs(finished, node="gone")
    tasks = api.get_tasks(finished)
    assert len(tasks) == 6
    assert {task.status for task in tasks} == {"FINISHED"}
    assert sorted(task.output["rank"] for task in api.get_tasks(finished, 1)) == [0, 1]
    kinds = [event.kind for event in api.stream_events(finished)]
    assert kinds.count("iteration") == 6
    assert kinds[-1] == "state"


def test_swarms(stage: Stage, finished: str) -> None:
    api = stage.api
    found = api.get_swarm(finished[:12])
    assert (found.status, found["name"], found.iteration) == ("COMPLETED", "rounds", 2)
    assert finished in [swarm.swarm_id for swarm in api.list_swarms(CLUSTER)]
    assert "3 iterations" in found.reason
    with pytest.raises(errors.NotFound, match="gone"):
        api.get_swarm("gone")
    with pytest.raises(errors.RequestRefused, match="COMPLETED"):
        api.start_swarm(finished)


def test_deploy_with_set_cluster_and_stop(stage: Stage) -> None:
    swarm = one("import time\ndef main():\n    time.sleep(100)\n")()
    with pytest.raises(errors.InvalidArgument, match="has no cluster"):
        stage.api.deploy_swarm(swarm)
    swarm.set_cluster(stage.api.get_cluster(CLUSTER))
    deployed = stage.api.deploy_swarm(swarm)
    assert deployed["swarm_id"] == deployed.swarm_id
    with pytest.raises(errors.WaitTimeout, match="still ACTIVE after"):
        stage.api.wait_swarm(deployed, timeout=0.2)
    assert stage.api.explain_swarm(deployed).placements
    assert stage.api.stop_swarm(deployed).status == "STOPPED"
    assert stage.api.wait_swarm(deployed).status == "STOPPED"
    assert list(stage.api.stream_results(deployed)) == []


def test_send_then_start(stage: Stage) -> None:
    sent = stage.api.send_swarm(CLUSTER, ONE())
    assert stage.api.get_swarm(sent).status == "PENDING"
    stage.api.set_global(sent, "large", np.arange(50_000))
    stage.api.set_global(sent, "small", {"a": (1, None)})
    assert (stage.api.select_global(sent, "large") == np.arange(50_000)).all()
    assert stage.api.select_global(sent, "small") == {"a": (1, None)}
    stage.api.start_swarm(sent)
    assert stage.api.wait_swarm(sent, timeout=60).status == "COMPLETED"


def test_check(stage: Stage) -> None:
    plan = stage.api.check_swarm(CLUSTER, Rounds())
    assert sorted(at.node_alias for at in plan.placements) == ["node-1", "node-2"]
    assert plan.problems == ()
    plan = stage.api.check_swarm(CLUSTER, one("def main():\n    pass\n", datasets=["gone"])())
    assert "gone" in plan.problems[0]
    assert {verdict.accepted for verdict in plan.verdicts} == {False}


def test_unplaceable_is_refused_with_reasons(stage: Stage) -> None:
    with pytest.raises(errors.Unplaceable, match="gone") as refused:
        stage.api.deploy_swarm(CLUSTER, one("def main():\n    pass\n", datasets=["gone"])())
    assert refused.value.problems


def test_errors_of_tasks(stage: Stage) -> None:
    code = "def main():\n    print('before')\n    raise RuntimeError('broken')\n"
    deployed = stage.api.deploy_swarm(CLUSTER, one(code, method="any")())
    ended = stage.api.wait_swarm(deployed, timeout=60)
    assert ended.status == "FAILED"
    (error,) = stage.api.collect_errors(deployed)
    assert "broken" in error.sentence
    assert "line 3, in main" in error.traceback
    assert error.last_lines[0] == "before"


def test_unknown_key_may_do_nothing(stage: Stage) -> None:
    with (
        UserAPI.over(stage.session(KeyPair.generate())) as stranger,
        pytest.raises(errors.NotAuthenticated),
    ):
        stranger.list_clusters()


def test_wrong_server_key(stage: Stage) -> None:
    server_key = KeyPair.generate().public
    target = Target(HOST, stage.cluster.user_port, "test", server_key=server_key)
    with (
        UserAPI.over(Session(target, stage.cluster.keys)) as api,
        pytest.raises(errors.WrongServerKey),
    ):
        api.list_clusters()


def test_nobody_there(stage: Stage) -> None:
    target = Target(HOST, 1, "test", server_key=stage.cluster.manager_keys.public)
    began = time.monotonic()
    with (
        UserAPI.over(Session(target, stage.cluster.keys)) as api,
        pytest.raises(errors.ManagerUnreachable, match=f"{HOST}:1"),
    ):
        api.list_clusters()
    assert time.monotonic() - began < 5


def test_asynchronously(stage: Stage, finished: str) -> None:
    async def main() -> None:
        async with AsyncUserAPI.over(stage.session()) as api:
            deployed = await api.deploy_swarm(CLUSTER, Rounds())
            seen = [result.tag async for result in api.stream_results(deployed, "sum")]
            assert seen == ["sum"] * 6
            assert (await api.get_swarm(deployed)).status == "COMPLETED"
            results, tags = await asyncio.gather(
                api.get_swarm_results(finished), api.list_global_tags(finished)
            )
            assert len(results) == 14
            assert len(tags) == 2

    asyncio.run(main())


def test_values_are_sent_however_many_can_be_asked_for_at_once(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "MOST_BLOBS", 2)

    class Many(Swarm):
        def __init__(self) -> None:
            for number in range(5):
                self.set_global(f"model-{number}", np.full(50_000, number))

        def execute(self) -> Task:
            return Task(Module("def main():\n    return 1\n", name="task"), method="any")

    sent = stage.api.send_swarm(CLUSTER, Many())
    for number in range(5):
        assert (stage.api.select_global(sent, f"model-{number}") == number).all()


def test_the_same_values_are_sent_many_times_at_once(stage: Stage) -> None:
    class Large(Swarm):
        def __init__(self) -> None:
            self.set_global("model", np.arange(500_000))

        def execute(self) -> Task:
            return Task(Module("def main():\n    return 'at once'\n", name="task"), method="any")

    async def main() -> None:
        async with AsyncUserAPI.over(stage.session()) as api:
            sent = await asyncio.gather(*(api.send_swarm(CLUSTER, Large()) for _ in range(12)))
            ones = np.ones(500_000)
            await asyncio.gather(*(api.set_global(swarm, "ones", ones) for swarm in sent))
            read = await asyncio.gather(*(api.select_global(swarm, "ones") for swarm in sent))
            assert all((one == ones).all() for one in read)
            await asyncio.gather(*(api.start_swarm(swarm) for swarm in sent))
            ended = await asyncio.gather(*(api.wait_swarm(swarm, 60) for swarm in sent))
            assert [swarm.status for swarm in ended] == ["COMPLETED"] * 12

    asyncio.run(main())


def test_closing_ends_a_stream(stage: Stage) -> None:
    swarm = stage.api.deploy_swarm(
        CLUSTER, one("import time\ndef main():\n    time.sleep(100)\n")()
    )
    api = UserAPI.over(stage.session())
    stream = api.stream_events(swarm)
    next(stream)
    api.close()
    with pytest.raises(errors.ApiClosed):
        list(stream)
    with pytest.raises(errors.ApiClosed):
        api.get_swarm(swarm)
    stage.api.stop_swarm(swarm, force=True)


def test_logs_folder_is_where_it_is_said(stage: Stage) -> None:
    assert {path.name for path in Path(stage.cluster.log_folder).iterdir()} == {
        "manager.log",
        "node-1.log",
        "node-2.log",
    }


def test_whether_the_manager_is_available(stage: Stage) -> None:
    assert stage.api.is_available()
    stranger = UserAPI.over(stage.session(KeyPair.generate()))
    assert stranger.is_available(), "it answers, if only with a refusal"
    stranger.disconnect()
    with pytest.raises(errors.ApiClosed):
        stranger.is_available()
    nobody = Target(HOST, 1, "test", server_key=KeyPair.generate().public)
    with UserAPI.over(Session(nobody, KeyPair.generate())) as away:
        assert not away.is_available()


def test_ids_streams_and_resources(stage: Stage, finished: str) -> None:
    api = stage.api
    (cluster,) = [found for found in api.stream_clusters() if found.name == CLUSTER]
    assert cluster.id in api.list_cluster_ids()
    assert [found.id for found in api.stream_and_fetch_clusters()] == api.list_cluster_ids()
    nodes = list(api.stream_nodes(CLUSTER))
    assert [node.id for node in nodes] == api.list_node_ids(CLUSTER) == ["node-1", "node-2"]
    assert api.list_available_node_ids(CLUSTER) == ["node-1", "node-2"]
    assert api.list_node_ids(CLUSTER, available=True) == ["node-1", "node-2"]
    assert isinstance(api.stream_and_fetch_nodes(CLUSTER), list)
    assert [node.alias for node in api.stream_and_fetch_nodes(CLUSTER)] == ["node-1", "node-2"]
    assert finished in api.list_swarm_ids(CLUSTER)
    assert [swarm.swarm_id for swarm in api.stream_swarms()] == api.list_swarm_ids()
    fetched = {swarm.swarm_id: swarm for swarm in api.stream_and_fetch_swarms(CLUSTER)}
    assert fetched[finished].status == "COMPLETED"
    # What is left comes with a heartbeat.
    wait_until(lambda: api.get_node_resources("node-1", CLUSTER).available_memory)
    resources = api.get_node_resources("node-1", CLUSTER)
    assert resources.cpu_count >= 1
    assert 0 < resources.available_memory <= resources.cpu_memory
    stream = api.stream_node_resources(nodes[0], interval=0.01)
    assert [next(stream).cpu_count for _ in range(3)] == [resources.cpu_count] * 3
    with pytest.raises(errors.InvalidArgument):
        next(api.stream_node_resources("node-1", interval=0))


def test_a_stream_that_follows_tells_of_what_is_new(stage: Stage) -> None:
    stream = stage.api.stream_clusters(follow=True)
    known = {next(stream).id for _ in stage.api.list_cluster_ids()}
    made = stage.api.create_cluster(name="followed")
    try:
        assert next(stream).id == made.id not in known
    finally:
        stage.api.stop_cluster(made)
        stage.api.delete_cluster(made)
