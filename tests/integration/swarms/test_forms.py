"""Every form in which a swarm may be written, run on one cluster of four real nodes."""

from __future__ import annotations

import textwrap
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from manta import Condition, Module, Swarm, Task, UserAPI
from manta.apis import errors
from manta.apis.overviews import SwarmOverview
from manta.cli.local.cluster import CLUSTER, LocalCluster
from manta.testing import wait_until
from manta.testing.clusters import client, running

NODES = {"node-1", "node-2", "node-3", "node-4"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with running(LocalCluster, 4) as cluster:
        yield cluster


@pytest.fixture
def api(cluster: LocalCluster) -> Iterator[UserAPI]:
    with client(cluster) as api:
        yield api


WORKER = Module("from manta.light import World\ndef main():\n    return World().rank\n", name="w")


def module(code: str, name: str = "code") -> Module:
    return Module("import time\nfrom manta.light import World\n" + textwrap.dedent(code), name=name)


class One(Swarm):
    """One task, or several that run side by side."""

    def __init__(self, *tasks: Task, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.tasks = list(tasks)

    def execute(self) -> list[Task]:
        return self.tasks


def run(api: UserAPI, swarm: Swarm, status: str = "COMPLETED") -> SwarmOverview:
    ended = api.wait_swarm(api.deploy_swarm(CLUSTER, swarm), timeout=60)
    assert ended.status == status, ended.reason
    return ended


def placed(api: UserAPI, swarm: SwarmOverview, iteration: int | None = None) -> dict[str, Any]:
    """{alias: nodes of its instances, in order of rank}"""
    found: dict[str, list[str]] = {}
    tasks = api.get_tasks(swarm, iteration)
    for task in sorted(tasks, key=lambda task: (task.iteration, task.index, task.attempt)):
        found.setdefault(task.alias, []).append(task.node_alias)
    return found


# --- how a swarm is written ------------------------------------------------------------------


def test_tasks_as_attributes_are_called_and_lists_go_wherever_a_task_goes(api: UserAPI) -> None:
    class Called(Swarm):
        def __init__(self) -> None:  # no super().__init__()
            self.left = [Task(WORKER, "any") for _ in range(5)]
            self.right = Task(WORKER, "any", alias="right")
            self.middle = Task(WORKER, "any", alias="middle")
            self.last = Task(WORKER, "any", alias="last")

        def execute(self) -> Task:
            middle = self.middle([self.left, [self.right()]])
            return self.last(middle, [self.right], condition=Condition.FINISHED)

    swarm = run(api, Called())
    names = ["w", "w_1", "w_2", "w_3", "w_4"]
    assert swarm.name == "Called"
    assert placed(api, swarm).keys() == {*names, "right", "middle", "last"}
    started = {task.alias: task for task in api.get_tasks(swarm)}
    before = [started[name].ended_at or 0 for name in (*names, "right")]
    assert max(before) <= (started["middle"].started_at or 0)
    assert (started["middle"].ended_at or 0) <= (started["last"].started_at or 0)


def test_execute_may_return_a_list_or_a_single_root(api: UserAPI) -> None:
    one, other = Task(WORKER, "any", alias="one"), Task(WORKER, "any", alias="other")
    assert placed(api, run(api, One(one, other))).keys() == {"one", "other"}

    class Root(Swarm):
        def execute(self) -> Task:
            return Task(WORKER, "any")()

    assert placed(api, run(api, Root())).keys() == {"w"}


def test_without_execute_and_schedule_tasks_run_in_the_order_of_assignment(api: UserAPI) -> None:
    class Ordered(Swarm):
        name = "ordered"

        def __init__(self) -> None:
            self.zulu = Task(WORKER, "any", alias="first")
            self.pair = [Task(WORKER, "any", alias=f"pair{i}") for i in range(2)]
            self.alpha = Task(WORKER, "any", alias="end")

    swarm = run(api, Ordered())
    tasks = sorted(api.get_tasks(swarm), key=lambda task: task.started_at or 0)
    assert [task.alias for task in tasks][::3] == ["first", "end"]
    assert {task.alias for task in tasks[1:3]} == {"pair0", "pair1"}
    assert "pair0" in str(Ordered())
    assert "<svg" in Ordered()._repr_html_()


def test_a_schedule_repeats_and_max_iteration_is_a_ceiling_on_it(api: UserAPI) -> None:
    class Scheduled(Swarm):
        def __init__(self) -> None:
            super().__init__(max_iteration=2)
            self.worker = Task(WORKER)
            self.aggregator = Task(WORKER, "any", alias="aggregator")
            self.schedule = [("worker", "parallel"), ("aggregator", "sequential")] * 3

    swarm = run(api, Scheduled())
    assert swarm.iteration == 1
    assert Counter(task.alias for task in api.get_tasks(swarm)) == {"w": 8, "aggregator": 2}


def test_class_name_chooses_and_a_global_and_a_module_level_read_are_seen(api: UserAPI) -> None:
    code = """
        from manta.light import Task
        SEEN = World().globals["x"]
        class A(Task):
            def run(self):
                return ["A", SEEN]
        class B(Task):
            def run(self):
                return ["B", self.world.globals["x"]]
        """
    shared = module(code)
    swarm = One(Task(shared, "any", class_name="A"), Task(shared, "any", class_name="B", alias="b"))
    swarm.set_global("x", 7)
    outputs = {task.alias: task.output for task in api.get_tasks(run(api, swarm))}
    assert outputs == {"code": ["A", 7], "b": ["B", 7]}


def test_a_task_starts_with_the_first_result_or_when_all_have_ended(api: UserAPI) -> None:
    slow = module(
        """
        def main():
            world = World()
            if world.rank == 0:
                world.results.add("early", 1)
                while "go" not in world.globals:
                    time.sleep(0.02)
            else:
                time.sleep(0.3)
        """,
        "slow",
    )
    hurry = module("def main():\n    World().globals['go'] = True\n", "hurry")

    class Early(Swarm):
        def execute(self) -> list[Task]:
            first = Task(slow, maximum=2)
            late = Task(WORKER, "any", alias="late")(first)
            return [Task(hurry, "any")(first, condition=Condition.RESULT), late]

    swarm = run(api, Early())
    tasks = {task.alias: task for task in api.get_tasks(swarm) if task.index == 0}
    assert (tasks["hurry"].started_at or 0) < (tasks["slow"].ended_at or 0)
    assert (tasks["late"].started_at or 0) >= (tasks["slow"].ended_at or 0)


# --- where tasks run ---------------------------------------------------------------------------


def test_methods_and_how_many_they_take(api: UserAPI) -> None:
    wanted: dict[tuple[str, int | float], int] = {
        ("all", -1): 4,
        ("all", 3): 3,
        ("all", 0.5): 2,
        ("any", -1): 1,
        ("any", 2): 2,
        ("any", 0.75): 3,
        ("random", -1): 4,
        ("random", 2): 2,
        ("random", 0.1): 1,
        ("best_resources", -1): 4,
        ("best_resources", 1): 1,
        ("best_resources", 0.5): 2,
        ("all", 9): 4,
    }
    tasks = {
        f"{method}{maximum}".replace("-", "m").replace(".", "p"): (method, maximum)
        for method, maximum in wanted
    }
    plan = api.check_swarm(
        CLUSTER, One(*(Task(WORKER, m, maximum=x, alias=a) for a, (m, x) in tasks.items()))
    )
    counts = Counter(at.task for at in plan.placements)
    assert counts == {alias: wanted[key] for alias, key in tasks.items()}
    swarm = run(api, One(*(Task(WORKER, m, maximum=x, alias=a) for a, (m, x) in tasks.items())))
    nodes = placed(api, swarm)
    assert {alias: len(set(found)) for alias, found in nodes.items()} == dict(counts)


def test_replicas_are_the_total_whatever_the_method(api: UserAPI) -> None:
    methods = ("all", "any", "random", "best_resources")
    swarm = run(api, One(*(Task(WORKER, m, replicas=6, alias=m) for m in methods)))
    for method, nodes in placed(api, swarm).items():
        assert sorted(Counter(nodes).values()) == [1, 1, 2, 2], method
    ranks = sorted(task.output for task in api.get_tasks(swarm) if task.alias == "any")
    assert ranks == [0, 1, 2, 3, 4, 5]


def test_random_is_repeatable_by_seed_and_fractions_are_disjoint(api: UserAPI) -> None:
    def drawn(seed: int) -> list[dict[str, Any]]:
        parts = (
            Task(WORKER, "random", maximum=0.8, alias="train"),
            Task(WORKER, "random", maximum=0.2, alias="test"),
        )
        swarm = run(api, One(*parts, max_iteration=4, seed=seed))
        return [placed(api, swarm, iteration) for iteration in range(4)]

    one, again, other = drawn(1), drawn(1), drawn(2)
    assert one == again
    assert one != other
    for iteration in (*one, *other):
        assert len(iteration["train"]) == 3
        assert {*iteration["train"], *iteration["test"]} == NODES


def test_nodes_are_named_by_id_alias_and_unique_beginning(api: UserAPI) -> None:
    swarm = run(
        api,
        One(
            Task(WORKER, specified_ids=["node-1", "node-3"], alias="only"),
            Task(WORKER, excepted_ids=["node-1"], alias="but"),
            Task(WORKER, specified_ids=["node-2", "node-4"], excepted_ids=["node-3"], alias="both"),
        ),
    )
    found = {alias: set(nodes) for alias, nodes in placed(api, swarm).items()}
    assert found == {
        "only": {"node-1", "node-3"},
        "but": NODES - {"node-1"},
        "both": {"node-2", "node-4"},
    }
    with pytest.raises(errors.Unplaceable, match=r"'node-' in excepted_ids, which may be any of"):
        api.deploy_swarm(CLUSTER, One(Task(WORKER, excepted_ids=["node-"])))
    for argument in ("specified_ids", "excepted_ids"):
        with pytest.raises(errors.Unplaceable, match=f"'nod-9' in {argument}, which is not a node"):
            api.deploy_swarm(CLUSTER, One(Task(WORKER, **{argument: ["nod-9", "node-1"]})))  # type: ignore[arg-type]


def test_by_tag_it_runs_where_the_task_before_wrote_it(api: UserAPI) -> None:
    writer = module(
        """
        def main():
            world = World()
            if world.node_id in ("node-2", "node-4"):
                world.results.add("mark", world.node_id)
        """,
        "writer",
    )

    class Tagged(Swarm):
        def execute(self) -> list[Task]:
            first = Task(writer)
            return [
                Task(WORKER, "tag-mark", alias="all")(first),
                Task(WORKER, "tag-mark", maximum=1, alias="one")(first),
            ]

    found = placed(api, run(api, Tagged()))
    assert set(found["all"]) == {"node-2", "node-4"}
    assert len(found["one"]) == 1


# --- how long, how often, how it ends --------------------------------------------------------


def test_quorum_and_deadline_and_who_was_left_out(api: UserAPI) -> None:
    slow = module("def main():\n    time.sleep(60 if World().node_id == 'node-2' else 0)\n")
    began = time.monotonic()
    swarm = run(api, One(Task(slow, quorum=0.5, deadline=5)))
    assert 4.9 < time.monotonic() - began < 30
    states = {task.node_alias: task.status for task in api.get_tasks(swarm)}
    assert states.pop("node-2") == "CANCELLED"
    assert set(states.values()) == {"FINISHED"}
    assert any("node-2" in event.sentence for event in api.stream_events(swarm))
    failed = run(api, One(Task(slow, quorum=1.0, deadline=1.0)), "FAILED")
    assert "node-2" in failed.reason


def test_retries_timeout_and_priority(api: UserAPI) -> None:
    flaky = module(
        """
        def main():
            world = World()
            tries = world.globals.get("tries", 0)
            world.globals["tries"] = tries + 1
            if tries < 2:
                raise RuntimeError("not yet")
            return tries
        """
    )
    swarm = run(api, One(Task(flaky, "any", retries=2, priority=5)))
    states = [task.status for task in sorted(api.get_tasks(swarm), key=lambda t: t.attempt)]
    assert states == ["FAILED", "FAILED", "FINISHED"]
    assert len(api.collect_errors(swarm)) == 2
    failed = run(api, One(Task(flaky, "any", retries=1)), "FAILED")
    assert "not yet" in failed.reason
    late = module("def main():\n    time.sleep(60)\n")
    failed = run(api, One(Task(late, "any", timeout=0.5)), "FAILED")
    assert "timeout of 0.5 s" in failed.reason
    assert [task.status for task in api.get_tasks(failed)] == ["TIMEOUT"]


def test_iterations_by_count_by_tasks_and_by_both(api: UserAPI) -> None:
    goes_on = module(
        """
        def main():
            world = World()
            if world.iteration < 4:
                world.schedule_next_iter(["node-2"] if world.iteration else None)
        """
    )
    by_count = run(api, One(Task(WORKER, "any"), max_iteration=3))
    assert (by_count.iteration, by_count.max_iteration) == (2, 3)
    by_tasks = run(api, One(Task(goes_on, "any")))
    assert by_tasks.iteration == 4
    assert placed(api, by_tasks, 2)["code"] == ["node-2"]
    by_both = run(api, One(Task(goes_on, "any"), max_iteration=3))
    assert by_both.iteration == 2
    stops = module("def main():\n    World().iteration == 1 and World().stop_swarm()\n")
    stopped = run(api, One(Task(stops, "any"), max_iteration=9))
    assert stopped.iteration == 1
    for swarm in (by_count, by_tasks, by_both, stopped):
        assert swarm.reason


def test_states_and_their_reasons(api: UserAPI) -> None:
    waits = module(
        """
        def main():
            world = World()
            while world.iteration == 0 and "go" not in world.globals:
                time.sleep(0.05)
        """
    )
    sent = api.send_swarm(CLUSTER, One(Task(waits, "any"), max_iteration=2))
    assert (sent.status, sent.reason, sent.iteration) == ("PENDING", "not started", -1)
    assert api.start_swarm(sent).status == "ACTIVE"
    wait_until(lambda: api.get_swarm(sent).iteration == 0)
    paused = api.pause_swarm(sent)
    assert (paused.status, paused["reason"]) == ("PAUSED", "paused by user@localhost")
    api.set_global(sent, "go", True)
    wait_until(lambda: [task.status for task in api.get_tasks(sent)] == ["FINISHED"])
    time.sleep(0.3)
    assert api.get_swarm(sent).iteration == 0  # nothing new begins
    with pytest.raises(errors.WrongState, match="PAUSED"):
        api.pause_swarm(sent)
    assert api.resume_swarm(sent).status == "ACTIVE"
    ended = api.wait_swarm(sent, timeout=60)
    assert (ended.status, ended.iteration) == ("COMPLETED", 1)
    assert (ended.started_at or 0) < (ended.ended_at or 0)
    assert api.stop_swarm(api.send_swarm(CLUSTER, One(Task(WORKER)))).reason.startswith("stopped")
    broken = module("def main():\n    raise ValueError('broken')\n")
    failed = run(api, One(Task(broken, "any")), "FAILED")
    assert "broken" in failed.reason
    assert "node-" in failed.reason


def test_a_swarm_that_waits_for_its_nodes_says_for_what(api: UserAPI) -> None:
    swarm = One(Task(WORKER, datasets=["none-such"], alias="wants"))
    with pytest.raises(errors.Unplaceable, match="none-such"):
        api.deploy_swarm(CLUSTER, swarm)
    waiting = api.deploy_swarm(CLUSTER, swarm, wait=True)
    wait_until(lambda: "none-such" in api.get_swarm(waiting).reason)
    explained = api.explain_swarm(waiting)
    assert {(v.node_alias, v.accepted, v.rule) for v in explained.verdicts} == {
        (node, False, "datasets") for node in NODES
    }
    assert explained.problems == api.check_swarm(CLUSTER, swarm).problems
    assert api.stop_swarm(waiting).status == "STOPPED"


def test_check_and_explain_name_node_and_rule(api: UserAPI) -> None:
    plan = api.check_swarm(CLUSTER, One(Task(WORKER, "any", excepted_ids=["node-1"])))
    verdicts = {v.node_alias: (v.accepted, v.rule) for v in plan.verdicts}
    assert verdicts["node-1"] == (False, "excepted")
    assert sorted(verdicts.values()) == [
        (False, "excepted"),
        (False, "maximum"),
        (False, "maximum"),
        (True, "method"),
    ]
    assert all(v.reason for v in plan.verdicts)


def test_networks_and_set_cluster(api: UserAPI) -> None:
    speaks = module(
        """
        def main():
            world = World()
            other = f"node-{world.rank % 4 + 1 + 2 if world.rank < 2 else world.rank - 1}"
            try:
                world.send_to_node(other, "hello", 1)
            except Exception as error:
                return type(error).__name__
        """
    )
    swarm = One(Task(speaks, network="net"))
    swarm.add_network("net", "ring")
    swarm.set_cluster(CLUSTER)
    done = api.wait_swarm(api.deploy_swarm(swarm), timeout=60)
    assert done.status == "COMPLETED", done.reason
    # node-1 and node-3, node-2 and node-4 are opposite each other.
    assert [task.output for task in api.get_tasks(done)] == ["UnknownPeer"] * 4


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("on_disconnect", "replace"),
        ("redundancy", 2),
    ],
)
def test_what_is_for_later_is_refused_and_says_so(api: UserAPI, argument: str, value: Any) -> None:
    task = Task(WORKER, **{argument: value})
    with pytest.raises(errors.InvalidSwarm, match=rf"{argument}=.*cannot do yet: leave it out"):
        api.check_swarm(CLUSTER, One(task))


def test_names_of_modules_resolve_beside_the_swarm(api: UserAPI, tmp_path: Path) -> None:
    (tmp_path / "worker_module.py").write_text("def main():\n    return 'file'\n")
    package = tmp_path / "packed"
    package.mkdir()
    (package / "__init__.py").write_text("from packed.helper import x\ndef main():\n    return x\n")
    (package / "helper.py").write_text("x = 'package'\n")
    file = tmp_path / "swarm.py"
    file.write_text(
        "from manta import Module, Swarm, Task\n"
        "class Uses(Swarm):\n"
        "    def execute(self):\n"
        "        file = Module('worker_module.py', 'pytorch')\n"
        "        tasks = [Task(name, 'any') for name in ('worker_module', 'packed')]\n"
        "        return [*tasks, Task(file, 'any', alias='c')]\n"
    )
    from manta.cli.loading import load_swarm

    swarm = run(api, load_swarm(str(file), {}))
    outputs = {task.alias: task.output for task in api.get_tasks(swarm)}
    assert outputs == {"worker_module": "file", "packed": "package", "c": "file"}
