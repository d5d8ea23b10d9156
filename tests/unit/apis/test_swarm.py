from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from manta.apis.errors import InvalidArgument, InvalidValue
from manta.apis.module import Module
from manta.apis.swarm import Swarm, Task, definition_of

SOURCE = "def main():\n    pass\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "some"}, "Task's method is 'some'.*best_resources"),
        ({"method": "tag-"}, "Task's method"),
        ({"method": None}, "Task's method"),
        ({"maximum": 0}, "Task's maximum is 0: give a count of 1 or more"),
        ({"maximum": 1.5}, "Task's maximum is 1.5"),
        ({"maximum": -2}, "Task's maximum is -2"),
        ({"maximum": True}, "Task's maximum is True"),
        ({"maximum": float("nan")}, "Task's maximum is nan"),
        ({"maximum": "3"}, r"Task's maximum is '3': .* or -1 for no limit\.$"),
        ({"maximum": None}, "Task's maximum is None"),
        ({"replicas": 0}, r"Task's replicas is 0: give a whole number from 1 to 1000000\.$"),
        ({"replicas": -1}, "Task's replicas is -1: give a whole number"),
        ({"replicas": 2.5}, r"Task's replicas is 2\.5: give a whole number"),
        ({"gpu": 1}, "Task's gpu is 1: give True or False"),
        ({"network": 3}, "Task's network is 3: give a list of strings"),
        ({"specified_ids": [None]}, "an entry of Task's specified_ids is None: give a string"),
        ({"replicas": 2, "maximum": 3}, "replicas=2 and maximum=3"),
        ({"fixed": 1}, "Task's fixed is 1: give True or False"),
        ({"excepted_ids": ["a"], "specified_ids": ["a", "b"]}, "'a' in excepted_ids and in spec"),
        ({"specified_ids": []}, "no node may run it"),
        ({"specified_ids": ["a", "a"]}, "'a' twice"),
        ({"excepted_ids": 3}, "Task's excepted_ids is 3: give a list"),
        ({"alias": ""}, "Task's alias is ''"),
        ({"alias": "x" * 201}, "1 to 200"),
        ({"alias": "a\nb"}, "Task's alias"),
        ({"class_name": "not a name"}, "Task's class_name"),
        ({"timeout": 0}, "Task's timeout is 0: give seconds"),
        ({"timeout": -1}, r"Task's timeout is -1: give seconds, more than 0\.$"),
        ({"timeout": "1"}, "Task's timeout is '1': give seconds"),
        ({"timeout": float("inf")}, r"Task's timeout is inf: give seconds, more than 0\.$"),
        ({"timeout": float("nan")}, r"Task's timeout is nan: give seconds, more than 0\.$"),
        ({"timeout": True}, r"Task's timeout is True: give seconds, more than 0\.$"),
        ({"quorum": 0.5, "deadline": True}, r"deadline is True: give seconds, more than 0\.$"),
        ({"retries": -1}, "Task's retries is -1"),
        ({"retries": 1.0}, "Task's retries is 1.0: give a whole number"),
        ({"quorum": 1.5}, r"Task's quorum is 1\.5: give a fraction above 0 and up to 1, such"),
        ({"quorum": True}, "Task's quorum is True"),
        ({"quorum": 0}, "Task's quorum is 0"),
        ({"quorum": "all"}, "Task's quorum is 'all': give a fraction, or \"alive\""),
        ({"deadline": "auto"}, 'deadline="auto" and no quorum'),
        ({"quorum": 0.5, "deadline": "soon"}, "Task's deadline is 'soon'"),
        ({"quorum": 0.5, "deadline": -1}, "Task's deadline is -1: give seconds"),
        ({"priority": "high"}, "Task's priority is 'high': give a whole number from -1000 to"),
        ({"priority": 1001}, "Task's priority is 1001"),
        ({"resources": {"ram": 1}}, "'ram': it takes cpu, memory, disk, gpu"),
        ({"resources": {"gpu_memry": 1}}, r"nothing else\. Did you mean 'gpu_memory'\?"),
        ({"resources": {"gpu_shared": True}}, "gpu_memory, how much of it the task needs"),
        ({"resources": {"gpu": 0, "gpu_memory": 1}}, "has gpu 0 and gpu_memory: leave one of them"),
        (
            {"resources": {"labels": "room"}},
            r"resources\['labels'\] is 'room': give a dict such as",
        ),
        ({"resources": {"labels": {"room": 3}}}, r"resources\['labels'\] is 3: give a string"),
        ({"resources": {"arch": 64}}, r"resources\['arch'\] is 64: give a string"),
        ({"resources": {"memory": "lots"}}, r"Task's resources\['memory'\] is 'lots'"),
        ({"resources": [1]}, "Task's resources"),
        ({"datasets": [3]}, "Task's datasets is 3"),
    ],
)
def test_bad_arguments_of_a_task(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        Task(SOURCE, **arguments)


def test_numbers_of_numpy_are_seconds_and_fractions() -> None:
    import numpy as np

    given: dict[str, Any] = {"timeout": np.int64(3), "quorum": np.float32(0.5)}
    task = Task(SOURCE, deadline=np.float64(2), **given)
    assert (task.timeout, task.quorum, task.deadline) == (3.0, 0.5, 2.0)
    assert type(task.timeout) is float


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((None,), "nothing to run"),
        ((3,), "python_program is 3"),
        (("",), "python_program is empty"),
        (("a\0b",), "null character"),
        ((SOURCE, "an image"), "Module's image is 'an image'"),
        ((SOURCE, 3), "Module's image is 3: give a string"),
        ((SOURCE, None, ""), "Module's name"),
        ((SOURCE, None, None, {"a": 1}), "Module's datasets"),
        ((SOURCE, None, None, None, "one"), "MAJOR.MINOR.PATCH"),
        ((SOURCE, None, None, None, None, 3), "Module's requirements"),
        ((SOURCE, None, None, None, None, None, {"gpu": -1}), "gpu"),
        ((SOURCE, None, None, None, None, None, None, 3), "Module's include"),
        ((None, "busybox:1", None, None, None, None, None, ["a"]), "include adds files"),
    ],
)
def test_bad_arguments_of_a_module(arguments: tuple, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        Module(*arguments)


@pytest.mark.parametrize("wrong", [3, "worker", None, Module(SOURCE), [3], {"a": 1}])
def test_a_task_runs_after_tasks_only(wrong: Any) -> None:
    with pytest.raises(
        InvalidArgument, match=r"Task 'later' was called with .*which is not a task"
    ):
        Task(SOURCE, alias="later")(wrong)


@pytest.mark.parametrize("wrong", [3, "finished", None, True, []])
def test_a_condition_is_one_of_two(wrong: Any) -> None:
    before = Task(SOURCE)
    with pytest.raises(
        InvalidArgument, match=r"condition of task 'later' is .*: give Condition\.FINISHED or Cond"
    ):
        Task(SOURCE, alias="later")(before, condition=wrong)


@pytest.mark.parametrize("wrong", [3, None, b"x", [1], Task(SOURCE)])
def test_what_is_no_module(wrong: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"Task's module is .*: give a Module, a path, or a"):
        Task(wrong)


def test_nodes_and_clusters_may_be_overviews() -> None:
    class Known:
        id = "n1"

    assert Task(SOURCE, specified_ids=[Known(), "n2"]).specified_ids == ("n1", "n2")  # type: ignore[list-item]
    assert Task(SOURCE, excepted_ids=Known()).excepted_ids == ("n1",)  # type: ignore[arg-type]
    swarm = Swarm()
    swarm.set_cluster(Known())
    assert definition_of(swarm).cluster == "n1"
    with pytest.raises(InvalidArgument, match="The cluster is 3: give a string"):
        swarm.set_cluster(3)


def test_a_class_of_mantas_is_no_module() -> None:
    with pytest.raises(InvalidArgument, match="class_name"):
        Task(Module)


def test_class_name_of_an_image_alone() -> None:
    with pytest.raises(InvalidArgument, match="an image alone"):
        Task(Module(None, "busybox:1"), class_name="Worker")


def test_defaults() -> None:
    assert Task(SOURCE).maximum == -1
    assert Task(SOURCE, method="any").maximum == 1
    assert Task(SOURCE, method="any", maximum=3).maximum == 3
    assert Module("fl/worker.py", "pytorch").name == "worker"
    assert Module("fl/worker.py", "pytorch").image == "manta_light:pytorch"
    assert Module(Path("fl/worker.py"), "python:3.10").image == "python:3.10"
    assert Module(None, "registry.example/team/tool:2").name == "tool"
    assert Module(SOURCE, datasets="digits").datasets == ("digits",)
    assert Task("worker_module").alias == "worker_module"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("2 GiB", 2 << 30), ("1.5kb", 1500), ("10", 10), (7, 7), ("3Mi", 3 << 20)],
)
def test_sizes(text: str | int, expected: int) -> None:
    assert Module(SOURCE, resources={"memory": text}).resources == {"memory": expected}


@pytest.mark.parametrize("version", ["1.0.0", "0.10.3", ">=1.0, <2", "==1.*", "~=1.2"])
def test_versions_and_ranges(version: str) -> None:
    module = Module("worker", version=version)
    assert module.version == version
    assert module.is_range == (version[0] in "=<>~")


@pytest.mark.parametrize("version", ["1", "1.0", "^1.2.3", "01.0.0", "1.0.0.0", "1.*", "", ",", 1])
def test_what_is_no_version(version: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"version is .*: give MAJOR\.MINOR\.PATCH"):
        Module("worker", version=version)


def test_a_range_is_of_registered_modules() -> None:
    with pytest.raises(InvalidArgument, match="names registered modules"):
        Module(SOURCE, version=">=1.0")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_iteration": 0}, "max_iteration is 0"),
        ({"max_iteration": 2.0}, "whole number"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_bad_arguments_of_a_swarm(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        Swarm(**arguments)


def test_super_init_may_be_left_out() -> None:
    class Plain(Swarm):
        def __init__(self, rounds: int) -> None:
            self.rounds = rounds
            self.set_global("rate", 0.1)
            self.set_cluster("lab")

    definition = definition_of(Plain(rounds=3))
    assert tuple(definition) == ("Plain", {"rate": 0.1}, "lab", None, 0, {}, "")
    assert definition_of(Plain(4)).globals is not definition.globals


def test_global_that_cannot_be_sent_names_the_place() -> None:
    with pytest.raises(
        InvalidValue, match=re.escape("global 'model' cannot be sent: value[\"a\"]")
    ):
        Swarm().set_global("model", {"a": {1, 2}})
    with pytest.raises(TypeError):
        Swarm().set_global("model", object())


def test_tag_must_be_a_name() -> None:
    with pytest.raises(InvalidArgument, match="tag of a global"):
        Swarm().set_global("", 1)


def test_what_is_no_swarm() -> None:
    with pytest.raises(InvalidArgument, match=r"give an object, Swarm\(\)"):
        definition_of(Swarm)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="is not a swarm"):
        definition_of(3)  # type: ignore[arg-type]


def test_users_attributes_do_not_meet_the_swarms() -> None:
    class Busy(Swarm):
        def __init__(self) -> None:
            self.cluster = self.graph = self.state = "mine"

    assert definition_of(Busy()).globals == {}


@pytest.mark.parametrize(
    ("given", "means"),
    [
        ("all", "all"),
        ("references", "references"),
        (["model"], ("model",)),
        (("a", "b"), ("a", "b")),
        ([], "references"),
    ],
)
def test_collect_says_what_is_copied(given: Any, means: object) -> None:
    assert Task(SOURCE, collect=given).collect == means


@pytest.mark.parametrize("given", ["", "some", 3, None, [""], ["a", "a"], {"a": 1}, b"all"])
def test_a_collect_that_means_nothing_is_refused(given: Any) -> None:
    with pytest.raises(InvalidArgument, match="Task's collect"):
        Task(SOURCE, collect=given)
