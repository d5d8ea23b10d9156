"""Which attempt a task's name means, and what is told of it."""

from __future__ import annotations

import pytest

from manta.apis.errors import InvalidArgument, NotFound
from manta.apis.failures import TaskExplanation, meant_of, task_name
from manta.protocol.bundle import Bundle
from manta.protocol.node import Instance, TaskError
from manta.protocol.task_ids import endings
from manta.protocol.user import TaskInfo

ERROR = TaskError("ValueError", "It failed.", "line 1", ("last",), Bundle("bwrap", exit_code=-9))


def task(
    alias: str, index: int, iteration: int, attempt: int = 0, *, failed: bool = False
) -> TaskInfo:
    at = Instance("3f2a", alias, index, iteration, attempt)
    placed = 10.0 * iteration + attempt
    return TaskInfo(at, "", "FINISHED", "n", "node", placed, error=ERROR if failed else None)


def test_all_ends_of_an_id_mean_the_attempt() -> None:
    found = endings(Instance("3f2a", "a.b", 1, 2, 3))
    assert found == ("a.b", "a.b.1", "a.b.1.2", "a.b.1.2.3")


def test_a_name_has_a_swarm_and_a_task() -> None:
    assert task_name("3f2a.a.b.1") == ("3f2a", "a.b.1")
    for wrong in ("3f2a", "3f2a.", ".worker", 7):
        with pytest.raises(InvalidArgument):
            task_name(wrong)  # type: ignore[arg-type]


def test_of_several_it_is_the_latest_that_failed_or_the_latest() -> None:
    first, failed = task("worker", 0, 0, failed=True), task("worker", 0, 1, 1, failed=True)
    tasks = [first, task("worker", 0, 1), failed, task("worker", 1, 2), task("other", 0, 3)]
    assert meant_of(tasks, "3f2a", "worker") is failed
    assert meant_of(tasks, "3f2a", "worker.0.0") is first
    assert meant_of(tasks, "3f2a", "worker.1") is tasks[3]
    with pytest.raises(NotFound, match="Did you mean 'worker'"):
        meant_of(tasks, "3f2a", "workr")


def test_what_a_node_wrote_as_packages_is_taken_as_texts_or_not_at_all() -> None:
    failed = task("worker", 0, 0, failed=True)
    assert TaskExplanation.of(failed, {"numpy": 1}).packages == {"numpy": "1"}
    assert TaskExplanation.of(failed, ["numpy"]).packages == {}


def test_an_attempt_that_did_not_fail_has_no_bundle() -> None:
    found = TaskExplanation.of(task("worker", 0, 0), None)
    assert (found.has_bundle, found.kind, found.timeline) == (False, "", ())
    assert TaskExplanation.of(task("worker", 0, 0, failed=True), None).exit_code == -9
