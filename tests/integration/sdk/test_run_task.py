"""`manta.testing.run_task`: a task in this process, without a node."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from manta.light import Task
from manta.light.errors import DatasetNotFound, GlobalNotFound, NothingSent, NotInTask, Timeout
from manta.light.runtime.loader import NothingToRun
from manta.light.world import World
from manta.testing import run_task

EXAMPLES = Path(__file__).parents[3] / "examples"


class Doubling(Task):
    def run(self) -> int:
        value: int = self.world.globals["value"]
        self.world.globals["value"] = 2 * value
        self.world.results.add("seen", value)
        self.world.results.add("seen", value + 1)
        self.world.log_metrics({"loss": 0.5})
        self.world.progress(0.5, "half")
        self.world.schedule_next_iter(["node-2"], "worker")
        self.world.stop_swarm()
        self.local.set_state("rounds", self.local.get_state("rounds", 0) + 1)
        return value


def test_what_a_class_writes_is_returned() -> None:
    run = run_task(Doubling, globals={"value": 21}, state={"rounds": 4})
    assert run.output == 21
    assert run.globals == {"value": 42}
    assert run.results == {"seen": [21, 22]}
    assert run.metrics == [{"loss": 0.5}]
    assert run.progress == [(0.5, "half")]
    assert run.next_iterations == [(["node-2"], "worker")]
    assert run.stopped
    assert run.state == {"rounds": 5}


def test_setup_and_execute() -> None:
    class Living:
        world: World

        def setup(self) -> None:
            self.rounds = 10

        def execute(self) -> int:
            return self.rounds + self.world.iteration

    assert run_task(Living, iteration=3).output == 13


def test_a_script_with_main_runs_it_once() -> None:
    source = """
        from manta.light import World, Results
        world = World()
        base = world.get("base", 1)

        def main():
            Results().save(base, tag="base")
            return base + 1

        if __name__ == "__main__":
            main()
        """
    run = run_task(source, globals={"base": 5})
    assert (run.output, run.results) == (6, {"base": [5]})


def test_a_path_and_a_class_name(tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("NUMBER = 7\n")
    module = tmp_path / "tasks.py"
    module.write_text(
        "from manta.light import Task\nimport helper\n"
        "class One(Task):\n    def run(self):\n        return helper.NUMBER\n"
        "class Two(Task):\n    def run(self):\n        return 2\n"
    )
    before = set(sys.modules), list(sys.path), list(sys.argv), list(sys.meta_path)
    assert run_task(module, class_name="One").output == 7
    assert run_task(str(module), class_name="Two").output == 2
    assert (set(sys.modules), list(sys.path), list(sys.argv), list(sys.meta_path)) == before
    with pytest.raises(NothingToRun, match="several Task classes"):
        run_task(module)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        run_task(tmp_path / "nowhere.py")


def test_datasets_as_paths_and_as_arrays(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("one\ntwo\n")

    class Reading(Task):
        def run(self) -> Any:
            digits = self.local.get_dataset("digits")
            lines = self.local.read_file_lines("text")
            return [digits["x"].sum(), self.local.get_numpy_data("y").tolist(), lines]

    datasets = {"text": tmp_path / "text.txt", "digits": {"x": np.arange(4)}, "y": [1, 2]}
    assert run_task(Reading, datasets=datasets).output == [6, [1, 2], ["one", "two"]]
    with pytest.raises(DatasetNotFound, match="digits"):
        run_task(Reading)
    with pytest.raises(FileNotFoundError, match="'text'"):
        run_task(Reading, datasets={"text": tmp_path / "nothing"})


def test_results_of_tasks_before_it() -> None:
    class Averaging(Task):
        def run(self) -> Any:
            by_node = self.world.results.select("w")
            return [sorted(by_node), sum(self.world.get_results("w")) / len(by_node)]

    assert run_task(Averaging, results={"w": [1.0, 3.0]}).output == [["node-1", "node-2"], 2.0]
    assert run_task(Averaging, results={"w": {"a": 5.0}}).output == [["a"], 5.0]
    with pytest.raises(TypeError, match=r"results\['w'\]"):
        run_task(Averaging, results={"w": 1.0})


def test_what_a_node_offers_is_there(tmp_path: Path) -> None:
    """Every name of World and Local that the other tests here do not use."""
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.txt").write_text("one\ntwo")

    class Looking(Task):
        def run(self) -> Any:
            world, local = self.world, self.local
            world.log_metrics({"loss": 0.5}, step=3)
            world.set("b", 1)
            world.set_global("c", 2)
            world.set_result("r", 1)
            (local.scratch / "note").write_text("kept")
            resources, usage = local.get_resources(), local.get_performance_metrics()
            world.barrier()
            assert 0 < resources.available_memory <= resources.cpu_memory
            assert resources.disk_free > 0
            assert all(0 <= usage[f"{what}_usage"] <= 1 for what in ("cpu", "memory", "disk"))
            return {
                "known": [world.rank, world.size, world.node_id, world.iteration],
                "ids": [type(world.swarm_id), type(world.task_id)] == [str, str],
                "globals": [dict(world.globals), "c" in world.globals, world.get("x", 7)],
                "same": world.get("b") == world.globals["b"] == world.get_global("b"),
                "reduced": [world.all_reduce(3, op="mean"), world.reduce_scatter([4])],
                "gathered": [world.all_gather(5), world.gather(6, quorum=1.0, deadline=1)],
                "there": [local.exists("pictures", "a.txt"), local.exists("pictures", "b")],
                "names": [local.list_dir("pictures"), local.get_dataset("pictures").list_dir()],
                "path": local.dataset_path("pictures", "a.txt").read_text(),
                "lines": local.read_file_lines("pictures", "a.txt"),
                "bytes": local.get_binary_data("pictures", "a.txt").read(),
                "note": local.scratch.list_dir(),
                "nothing": [world.restore(), local.get_state("x", default=1)],
                "quality": local.get_network_quality() > 0.8,
            }

    run = run_task(Looking, globals={"a": 0}, datasets={"pictures": tmp_path / "pictures"})
    assert run.output == {
        "known": [0, 1, "node-1", 0],
        "ids": True,
        "globals": [{"a": 0, "b": 1, "c": 2}, True, 7],
        "same": True,
        "reduced": [3, 4],
        "gathered": [[5], {0: 6}],
        "there": [True, False],
        "names": [["a.txt"], ["a.txt"]],
        "path": "one\ntwo",
        "lines": ["one", "two"],
        "bytes": b"one\ntwo",
        "note": ["note"],
        "nothing": [None, 1],
        "quality": True,
    }
    assert (run.metrics, run.steps, run.results) == ([{"loss": 0.5}], [3], {"r": [1]})


def test_talk_with_others() -> None:
    class Talking(Task):
        def run(self) -> Any:
            world = self.world
            world.send_to_node("node-2", "t", 1)
            world.checkpoint({"step": world.restore()["step"] + 1})
            with world.lock("file"):
                world.broadcast("mine", 3)
            return [
                world.receive_from_node("node-2", "t"),
                world.get_broadcast("theirs"),
                world.get_broadcast("mine"),
                world.all_reduce(np.ones(2)).tolist(),
                world.gather(4),
                world.scatter([5]),
                world.share,
                world.peers[0].node_id,
            ]

    run = run_task(
        Talking,
        messages={("node-2", "t"): ["hello"]},
        broadcasts={"theirs": 2},
        checkpoint={"step": 1},
    )
    assert run.output == ["hello", 2, 3, [1.0, 1.0], [4], 5, 1.0, "node-1"]
    assert run.sent == [("node-2", "t", 1)]
    assert run.checkpoint == {"step": 2}
    assert run.broadcasts == {"mine": 3}
    with pytest.raises(Timeout, match="messages="):
        run_task(Talking, checkpoint={"step": 1})
    with pytest.raises(NothingSent, match="broadcasts="):
        run_task(Talking, messages={("node-2", "t"): [0]}, checkpoint={"step": 1})


def test_exceptions_and_what_cannot_be_sent_pass_through() -> None:
    class Failing(Task):
        def run(self) -> None:
            self.world.globals["x"] = self.world.globals.get("make", None) or object()

    with pytest.raises(TypeError, match="object"):
        run_task(Failing)

    class Missing(Task):
        def run(self) -> None:
            self.world.globals["nothing"]

    with pytest.raises(GlobalNotFound, match="'nothing'"):
        run_task(Missing)
    with pytest.raises(NotInTask):
        _ = World().iteration


def test_the_same_seed_draws_the_same_numbers() -> None:
    class Drawing(Task):
        def run(self) -> float:
            return float(np.random.rand())

    state = np.random.get_state()
    assert run_task(Drawing).output == run_task(Drawing).output
    assert run_task(Drawing).output != run_task(Drawing, iteration=1).output
    np.random.set_state(state)


def test_an_example_s_aggregator_averages_by_samples() -> None:
    updates = [
        {"model": {"w": np.full(3, 1.0)}, "samples": 1},
        {"model": {"w": np.full(3, 5.0)}, "samples": 3},
    ]
    run = run_task(
        EXAMPLES / "fl_digits" / "aggregator.py",
        results={"trained": updates},
        globals={"model": {"w": np.zeros(3)}},
    )
    assert run.globals["model"]["w"].tolist() == [4.0] * 3


@pytest.mark.parametrize(
    "form", ["def main():\n    return 7\n", "def main():\n    return 7\nmain()\n"]
)
def test_main_guarded_or_not(form: str) -> None:
    assert run_task(form).output == 7


def test_a_class_with_setup_and_execute_from_source() -> None:
    source = """
        class Living:
            def setup(self):
                self.seen = [self.world.node_id]
            def execute(self):
                self.logger.info("working")
                return self.seen
        """
    assert run_task(source).output == ["node-1"]


def test_exit_codes_are_as_on_a_node() -> None:
    assert run_task("import sys\ndef main():\n    sys.exit(0)\n").output is None
    with pytest.raises(SystemExit, match="3"):
        run_task("import sys\ndef main():\n    sys.exit(3)\n")


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((Doubling(),), TypeError, "give the class itself, not an object of it"),
        ((lambda: 1,), TypeError, "written with def"),
        ((Doubling, [1]), TypeError, "takes globals as a dict, not a list"),
        ((Doubling, {}, ["x"]), TypeError, "takes datasets as a dict"),
        ((Doubling, {}, {"x": object()}), TypeError, "datasets\\['x'\\] is neither a path"),
        ((Doubling, {"value": {1}}), TypeError, "value is of type set"),
        ((EXAMPLES,), FileNotFoundError, "no __init__.py"),
        (("x = 1\n",), NothingToRun, "nothing to run"),
        (("def main():\n    return {1}\n",), TypeError, "value is of type set"),
    ],
)
def test_what_it_does_not_take(
    arguments: tuple[Any, ...], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        run_task(*arguments)


def test_a_module_imports_what_lies_beside_it_and_nothing_else_of_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    worker = tmp_path / "a" / "worker.py"
    worker.write_text(
        "import near, importlib\n"
        "def main():\n"
        "    try:\n"
        "        return near.X, importlib.import_module('f' + 'ar').X\n"
        "    except ImportError as error:\n"
        "        return near.X, str(error)\n"
    )
    (tmp_path / "a" / "near.py").write_text("X = 'near'\n")
    (tmp_path / "far.py").write_text("X = 'far'\n")
    (tmp_path / "near.py").write_text("X = 'wrong'\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = list(sys.path)
    near, why = run_task(worker).output
    assert near == "near"
    assert why.startswith(f"'far' is at {tmp_path}/far.py, which is not packed with worker.py")
    assert run_task(worker, include=tmp_path / "far.py").output == ("near", "far")
    assert sys.path == before
    assert not {"near", "far"} & sys.modules.keys()

    worker.write_text("import near, far\ndef main(): return near.X\n")
    with pytest.raises(ModuleNotFoundError, match=r"put it beside worker\.py"):
        run_task(worker)
    monkeypatch.chdir(tmp_path)
    near, far = importlib.import_module("near"), importlib.import_module("far")
    with pytest.raises(ModuleNotFoundError, match="name it in include="):
        run_task(worker)
    assert run_task(worker, include=["far.py"]).output == "near"
    assert (sys.modules["near"], sys.modules["far"]) == (near, far), "those of the test are back"
    for name in ("near", "far"):
        monkeypatch.delitem(sys.modules, name)


def test_what_run_task_does_not_take_is_named() -> None:
    code = "def main():\n    pass\n"
    with pytest.raises(TypeError, match="takes include as a list of paths"):
        run_task(code, include={"a": 1})  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match="nosuch, which run_task"):
        run_task(code, include="nosuch")
    with pytest.raises(TypeError, match="iteration is -1"):
        run_task(code, iteration=-1)
