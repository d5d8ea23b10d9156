"""The forms of a module, each on a real node: what runs, how often, and what is kept of it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

import pytest

from manta import Module, Swarm, Task, UserAPI
from manta.cli.local.cluster import CLUSTER, LocalCluster
from manta.testing.clusters import client, running
from tests.support.swarms import One, ended, errors, outputs


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with running(LocalCluster, 2) as cluster:
        yield cluster


@pytest.fixture
def api(cluster: LocalCluster) -> Iterator[UserAPI]:
    with client(cluster) as api:
        yield api


def test_every_import_path_leads_to_the_same_thing(api: UserAPI) -> None:
    (same,) = outputs(
        api,
        One(
            """
            import manta.light as light
            from manta.light import Task, World, Local, Results, Globals, MantaPath
            import manta.light.task, manta.light.world, manta.light.local, manta.light.results
            import manta.light.globals, manta.light.path, manta.light.errors, manta.light.utils
            from manta.light.utils import (
                numpy_to_bytes, bytes_to_numpy, dict_to_bytes, bytes_to_dict,
                torchmodel_to_bytes, bytes_to_torchmodel,
            )
            from manta.light.errors import (
                DataCorruptionError, ResourceExhaustionError, PeerLost, SwarmStopped, Timeout,
            )
            def main():
                return [
                    light.task.Task is Task,
                    light.world.World is World,
                    light.local.Local is Local,
                    light.results.Results is Results,
                    light.globals.Globals is Globals,
                    light.path.MantaPath is MantaPath,
                    issubclass(PeerLost, light.errors.LightError),
                ]
            """,
            method="any",
        ),
    )
    assert all(same)


RUN = """
    from manta.light import Task
    rounds = []
    class Worker(Task):
        def run(self):
            rounds.append(self.world.iteration)
            return rounds
"""
EXECUTE = """
    class Worker:
        def setup(self):
            self.setups = getattr(self, "setups", 0) + 1
            self.rounds = []
        def execute(self):
            self.rounds.append(self.world.iteration)
            return [self.setups, self.rounds]
"""
MAIN = """
    from manta.light import World
    rounds = []
    def main():
        rounds.append(World().iteration)
        return rounds
"""
GUARD = '\n    if __name__ == "__main__":\n        main()\n'
CALL = "\n    main()\n"
CLASS_BESIDE = "\n    class Helper:\n        def run(self):\n            raise RuntimeError\n"
FRESH = [[0], [1], [2]]


@pytest.mark.parametrize(
    ("source", "seen"),
    [
        (RUN, FRESH),
        (EXECUTE, [[1, [0]], [1, [0, 1]], [1, [0, 1, 2]]]),
        (MAIN, FRESH),
        (MAIN + GUARD, FRESH),
        (MAIN + CALL, FRESH),
        (MAIN + CLASS_BESIDE, FRESH),
        (CLASS_BESIDE + MAIN + GUARD, FRESH),
    ],
    ids=["run", "execute", "main", "guard", "call", "class beside", "class before"],
)
def test_a_form_of_a_module(api: UserAPI, source: str, seen: object) -> None:
    assert outputs(api, One(source, rounds=3, method="any", specified_ids=["node-1"])) == seen


def test_what_main_prints_it_prints_once_a_round(api: UserAPI) -> None:
    source = "def main():\n    print('working')\nmain()\n"
    done = ended(api, One(source, rounds=2, method="any"))
    assert [line.text for line in api.collect_logs(done) if line.stream == "stdout"] == [
        "working"
    ] * 2


CHOICE = """
    from manta.light import Task
    class First(Task):
        def run(self):
            return "first"
    class Second(Task):
        def run(self):
            return "second"
"""
WITH_MAIN = CHOICE + "\n    def main():\n        return 'main'\n"


@pytest.mark.parametrize(
    ("source", "class_name", "ran"),
    [
        (WITH_MAIN, None, "main"),
        (WITH_MAIN, "Second", "second"),
        (CHOICE, "First", "first"),
        (CHOICE.partition("class Second")[0], None, "first"),
    ],
)
def test_which_part_of_a_module_runs(
    api: UserAPI, source: str, class_name: str | None, ran: str
) -> None:
    assert outputs(api, One(source, method="any", class_name=class_name)) == [ran]


@pytest.mark.parametrize(
    ("source", "class_name", "words"),
    [
        (CHOICE, None, "several Task classes (First, Second) and no main()"),
        (
            CHOICE + "\n    globals()\n",
            "Third",
            "no class 'Third' (its Task classes: First, Second)",
        ),
        ("x = 1\ny = 2\n", None, "nothing to run"),
        ("class Odd:\n    pass\n", "Odd", "neither run() nor execute()"),
    ],
)
def test_a_module_without_a_choice_is_told_so(
    api: UserAPI, source: str, class_name: str | None, words: str
) -> None:
    assert any(words in s for s in errors(api, One(source, method="any", class_name=class_name)))


def test_reads_at_module_level_see_each_rounds_values(api: UserAPI) -> None:
    source = """
        from manta.light import Local, Results, World
        world, local, results = World(), Local(), Results()
        iteration = world.iteration
        count = world.globals.get("count", 0)
        cores = local.get_resources().cpu_count
        def main():
            world.set("count", count + 1)
            results.save([iteration, count], tag="seen")
            return [iteration, count, cores > 0]
        """
    assert outputs(api, One(source, rounds=3, method="any")) == [
        [0, 0, True],
        [1, 1, True],
        [2, 2, True],
    ]


def test_what_a_task_returns_is_kept_as_its_output(api: UserAPI) -> None:
    source = """
        import numpy as np
        def main():
            return {"a": np.arange(3), "b": (1, b"x"), 3: None}
        """
    (output,) = outputs(api, One(source, method="any"))
    assert output["a"].tolist() == [0, 1, 2]
    assert (output["b"], output[3]) == ((1, b"x"), None)
    assert outputs(api, One("def main():\n    pass\n", method="any")) == [None]


def test_world_local_and_results_work_on_their_own(api: UserAPI) -> None:
    source = """
        from manta.light import Local, Results, World
        def helper():
            World().globals["g"] = 1
            Local().set_state("s", 2)
            Results().save(3, tag="r")
        def main():
            helper()
            return [World().get("g"), Local().get_state("s"), Results().get_results("r")]
        """
    assert outputs(api, One(source, method="any")) == [[1, 2, [3]]]


def test_what_is_printed_and_logged_comes_with_node_task_and_iteration(api: UserAPI) -> None:
    source = """
        import sys
        from manta.light import Task
        class Talker(Task):
            def run(self):
                print("out", self.world.iteration)
                print("err", file=sys.stderr)
                self.logger.warning("log %s", 1)
        """
    done = ended(api, One(source, rounds=2, method="any", specified_ids=["node-2"]))
    lines = [
        (line.stream, line.text, line.node_alias, line.alias, line.iteration)
        for line in api.collect_logs(done)
    ]
    for at in (0, 1):
        mine = sorted(line for line in lines if line[-1] == at)
        assert mine == [
            ("stderr", "err", "node-2", "code", at),
            ("stdout", f"out {at}", "node-2", "code", at),
            ("warning", "log 1", "node-2", "code", at),
        ]


def test_a_line_is_there_while_its_task_still_runs(api: UserAPI) -> None:
    source = """
        import time
        from manta.light import World
        def main():
            print("waiting")
            while not World().get("go"):
                time.sleep(0.02)
        """
    swarm = api.deploy_swarm(CLUSTER, One(source, method="any"))
    for line in api.stream_logs(swarm):
        assert line.text == "waiting"
        assert api.get_swarm(swarm).status == "ACTIVE"
        api.set_global(swarm, "go", True)
    assert api.wait_swarm(swarm, timeout=60).status == "COMPLETED"


def test_a_read_sees_every_write_of_the_tasks_before_it(api: UserAPI) -> None:
    class Chain(Swarm):
        def execute(self) -> Task:
            write = """
                from manta.light import World
                def main():
                    world = World()
                    for number in range(50):
                        world.globals["last"] = number
                    world.globals[f"of {world.node_id}"] = world.iteration
                    world.results.add("r", world.rank)
                """
            read = """
                from manta.light import World
                def main():
                    world = World()
                    mine = [tag for tag in world.globals if tag.startswith("of ")]
                    return [world.get("last"), sorted(mine), world.get_results("r")]
                """
            writer = Task(Module(textwrap.dedent(write), name="writer"))
            reader = Task(Module(textwrap.dedent(read), name="reader"))
            return reader(writer())

    done = ended(api, Chain(max_iteration=3))
    assert done.status == "COMPLETED", done.reason
    seen = [task.output for task in api.get_tasks(done) if task.alias == "reader"]
    assert seen == [[49, ["of node-1", "of node-2"], [0, 1]]] * 6
