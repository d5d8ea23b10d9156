from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest

from manta.apis import errors
from manta.console.exit_codes import Exit
from manta.manager.placement.place import WINDOW
from manta.node.journal import swarm as swarm_journal
from manta.node.link.manager import ManagerLink
from manta.node.runners.launcher import MOST_FAILURES
from manta.node.service.supervisor import NodeSupervisor
from manta.node.state import attempts
from manta.node.state.modules import ModuleFolders
from manta.node.tasks.supervisor import TaskSupervisor
from manta.protocol.base import Instance
from manta.protocol.node import TaskEnded, TaskError
from manta.protocol.states import AttemptState
from manta.testing import crash, wait_for_successor
from tests.support.launching import break_thread


def test_a_node_says_what_it_is(lab) -> None:
    data = lab.folder / "data"
    data.mkdir()
    (data / "a.bin").write_bytes(b"12345")
    lab.node(1, datasets={"pictures": str(data)}, labels={"room": "3"})
    api = lab.api()
    [node] = [n for n in api.list_nodes("lab") if n.alias == "node-1"]
    assert node.status == "CONNECTED"
    [dataset] = node.datasets.values()
    assert (dataset.name, dataset.size, dataset.format) == ("pictures", 5, "folder")
    assert node.platform_info.cores >= 1
    assert node.platform_info.labels == {"room": "3"}
    status = lab.state("node-1").read_status()
    assert status.node_id == node.id
    assert "Connected" in status.sentence
    lab.wait_until(lambda: api.get_node(node.id).load.memory_available > 0)


EVERYTHING = """
import numpy
from manta.light import Local, World

world, local = World(), Local()

def main():
    print("hello from", world.node_id)
    state = local.get_state("count", default=0) + 1
    local.set_state("count", state)
    local.set_state("large", numpy.full(100_000, state))
    assert local.get_state("large")[0] == state
    world.globals["mine"] = state
    assert world.globals["mine"] == state
    world.globals["big"] = numpy.full(100_000, state)
    assert world.globals["big"].sum() == state * 100_000
    world.results.add("state", state)
    world.results.add("large", numpy.full(50_000, world.iteration))
    assert sorted(world.globals) == ["big", "mine"]
    world.log_metrics({"state": state})
    world.progress(0.5, "half")
    found = world.results.select("large")
    assert [value[0] for value in found.values()] == [world.iteration], found
    resources = local.get_resources()
    assert resources.cpu_count >= 1 and resources.cpu_memory > 0 and resources.disk_free > 0
    assert 0 <= local.get_performance_metrics()["cpu_usage"] <= 1
    return {"rows": int(local.get_dataset("table").shape[0])}
"""


def test_a_task_has_all_that_it_may_ask(lab) -> None:
    np.save(lab.folder / "table.npy", np.zeros((7, 2)))
    node = lab.node(1, datasets={"table": str(lab.folder / "table.npy")})
    api = lab.api()
    swarm_id = lab.run(api, lab.swarm(EVERYTHING, datasets=["table"], iterations=3))
    assert sorted(api.list_result_tags(swarm_id)) == ["large", "state"]
    assert [task.output for task in api.get_tasks(swarm_id)] == [{"rows": 7}] * 3
    assert api.select_global(swarm_id, "mine") == 3
    logs = [line.text for line in api.collect_logs(swarm_id)]
    assert sum("hello from" in line for line in logs) == 3
    context = node.context
    lab.wait_until(lambda: not list(context.spool))
    lab.wait_until(lambda: not context.runtimes)
    lab.wait_until(lambda: not list(context.values))
    lab.wait_until(lambda: not list(context.state.kept.iterdir()))
    lab.wait_until(lambda: not list(context.state.tasks.iterdir()))


def test_its_owner_can_see_who_ran_what_with_which_data(lab) -> None:
    np.save(lab.folder / "table.npy", np.zeros((7, 2)))
    lab.node(1, datasets={"table": str(lab.folder / "table.npy")})
    api = lab.api()
    code = "def main():\n    return 1\n"
    swarm_id = lab.run(api, lab.swarm(code, datasets=["table"], iterations=2))
    folder = lab.state("node-1").audit
    lab.wait_until(
        lambda: [ran.status for ran in attempts.read(folder, running=True)[0]] == ["FINISHED"] * 2
    )
    runs, damaged = attempts.read(folder, running=True)
    assert not damaged
    assert [(ran.user, ran.swarm_id, ran.task, ran.iteration) for ran in runs] == [
        ("me@localhost", swarm_id, "task.0", iteration) for iteration in (0, 1)
    ]
    for ran in runs:
        assert (ran.datasets, ran.status) == (("table",), "FINISHED")
        assert 0 < ran.began <= (ran.ended or 0)


ROUNDS = """
import time
import numpy
from manta.light import World

class Worker:
    def setup(self):
        self.rounds = 0

    def execute(self):
        world = World()
        self.rounds += 1
        total = world.globals["total"]
        world.results.add("value", numpy.full(20_000, world.iteration))
        time.sleep(0.05)
        world.globals["total"] = total + 1
        return self.rounds
"""

CHILDREN = (
    "manager-link",
    "peer-hub",
    "peer-directory",
    "plane",
    "light",
    "datasets",
    "metrics",
    "tasks/*",
)


@pytest.mark.parametrize("child", CHILDREN)
def test_each_child_may_crash_in_mid_swarm(lab, child: str) -> None:
    node = lab.node(1)
    api = lab.api()
    swarm = lab.swarm(ROUNDS, iterations=12, retries=2)
    swarm.set_global("total", 0)
    deployed = api.deploy_swarm("lab", swarm)
    lab.wait_until(lambda: api.get_swarm(deployed).iteration >= 3)

    def find() -> str:
        if child != "tasks/*":
            return f"node/{child}"
        lab.wait_until(lambda: node.context.runtimes)
        return next(iter(node.context.runtimes))

    for _ in range(2):
        ref = node.system.find(find())
        crash(ref)
        wait_for_successor(node.system, ref)
        time.sleep(0.1)
    ended = api.wait_swarm(deployed, timeout=60)
    assert ended.status == "COMPLETED", ended
    assert ended.iteration == 11
    assert api.select_global(deployed, "total") >= 12
    tasks = api.get_tasks(deployed)
    finished = [task.iteration for task in tasks if task.status == "FINISHED"]
    assert finished == list(range(12))
    if child != "tasks/*":
        assert len(tasks) == 12, [task for task in tasks if task.status != "FINISHED"]


def test_the_thread_that_starts_tasks_may_fail_in_mid_swarm(lab) -> None:
    node = lab.node(1)
    api = lab.api()
    swarm = lab.swarm(ROUNDS, iterations=12)
    swarm.set_global("total", 0)
    deployed = api.deploy_swarm("lab", swarm)
    lab.wait_until(lambda: api.get_swarm(deployed).iteration >= 3)
    scratch = set(node.context.state.tasks.iterdir())
    break_thread(node.context.runner.launcher)
    ended = api.wait_swarm(deployed, timeout=60)
    assert ended.status == "COMPLETED", ended
    tasks = api.get_tasks(deployed)
    assert [task.iteration for task in tasks if task.status == "FINISHED"] == list(range(12))
    told = [task.error.sentence for task in tasks if task.status == "INTERRUPTED"]
    assert all("thread that starts tasks has failed (none is left)" in one for one in told), told
    assert len(told) <= 1  # none where it had no attempt just then
    lab.wait_until(lambda: not scratch & set(node.context.state.tasks.iterdir()))
    words = "The thread that starts tasks has failed once since the node began"
    lab.wait_until(lambda: words in lab.state("node-1").read_status().notice)
    assert not lab.finished


def test_a_node_whose_thread_that_starts_tasks_fails_for_ever_ends_and_says_so(lab) -> None:
    node = lab.node(1)
    api = lab.api()
    slow = "import time\ndef main():\n    time.sleep(600)\n"
    deployed = api.deploy_swarm("lab", lab.swarm(slow))
    lab.wait_until(lambda: node.context.runtimes)
    for _ in range(MOST_FAILURES + 1):
        break_thread(node.context.runner.launcher).join(60)
    [(code, sentence)] = lab.finished
    assert code == Exit.INTERNAL
    assert "within 60 s" in sentence
    lab.wait_until(lambda: api.get_tasks(deployed)[0].status == "INTERRUPTED")
    api.stop_swarm(deployed, force=True)


def test_a_manager_that_comes_back_is_told_everything_once(lab) -> None:
    node = lab.node(1)
    api = lab.api()
    code = """
import time
from manta.light import World
def main():
    world = World()
    for number in range(10):
        world.results.add("number", number)
        print("line", number)
        world.log_metrics({"number": number}, step=number)
        time.sleep(0.1)
"""
    deployed = api.deploy_swarm("lab", lab.swarm(code))
    lab.wait_until(lambda: api.get_tasks(deployed) and api.get_tasks(deployed)[0].started_at)
    lab.stop_manager()
    lab.wait_for(lab.state("node-1"), "unreachable", "lost", "closed")
    time.sleep(1.2)
    assert node.context.journals.unacknowledged_ends()
    lab.start_manager()
    lab.wait_for(lab.state("node-1"), "connected")
    api = lab.api()
    ended = api.wait_swarm(deployed, timeout=60)
    assert ended.status == "COMPLETED", ended
    [task] = api.get_tasks(deployed)
    assert task.status == "FINISHED"
    numbers = [point.metrics["number"] for point in api.get_metrics(deployed)]
    assert numbers == list(range(10))
    lines = [line.text for line in api.collect_logs(deployed)]
    assert lines == [f"line {number}" for number in range(10)]


def test_failures_have_their_words(lab) -> None:
    lab.node(1)
    api = lab.api()
    cases = {
        "def main():\n    raise ValueError('no such luck')\n": "no such luck",
        "def main():\n    import os\n    os._exit(3)\n": "3",
        "import nowhere_to_be_found\ndef main():\n    pass\n": "nowhere_to_be_found",
        "x = 1\n": "main",
    }
    for code, word in cases.items():
        swarm_id = lab.run(api, lab.swarm(code), "FAILED")
        [task] = api.get_tasks(swarm_id)
        assert task.status == "FAILED"
        assert word in task.error.sentence, task.error
    slow = "import time\ndef main():\n    time.sleep(60)\n"
    swarm_id = lab.run(api, lab.swarm(slow, timeout=0.3), "FAILED")
    [task] = api.get_tasks(swarm_id)
    assert task.status == "TIMEOUT"


def test_a_task_goes_on_while_its_manager_is_away_and_its_journal_is_full(
    lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swarm_journal, "ENTRIES_BOUND", 5)
    node = lab.node(1)
    api = lab.api()
    gone, logged = lab.folder / "gone", lab.folder / "logged"
    code = f"""
import pathlib, time
from manta.light import World
from manta.light.errors import Timeout

def main():
    world = World()
    world.results.add("begun", True)
    while not pathlib.Path({str(gone)!r}).exists():
        time.sleep(0.01)
    for step in range(50):
        world.log_metrics({{"loss": step}})
    try:
        with world.lock("l", timeout=0.2):
            pass
    except Timeout as error:
        world.progress(1.0, "locked")
        pathlib.Path({str(logged)!r}).write_text(str(error))
    world.results.add("ended", True)
"""
    deployed = api.deploy_swarm("lab", lab.swarm(code))
    lab.wait_until(lambda: api.list_result_tags(deployed) == ["begun"])
    lab.wait_until(lambda: not node.context.journals.unacknowledged())
    lab.stop_manager()
    lab.wait_until(lambda: not node.context.is_registered)
    gone.touch()
    lab.wait_until(lambda: logged.exists() and logged.read_text())
    assert logged.read_text().startswith("Waited 0.2 s in vain: the manager has yet to take 5 ent")
    lab.start_manager()
    assert api.wait_swarm(deployed, timeout=60).status == "COMPLETED"
    assert sorted(api.list_result_tags(deployed)) == ["begun", "ended"]
    assert len(api.get_metrics(deployed)) == 5
    text = "[calls for metrics or progress left out: 46; the manager was away too long]"
    assert text in [line.text for line in api.collect_logs(deployed)]


def test_a_value_that_the_manager_will_never_take_fails_its_swarm_with_the_arithmetic(lab) -> None:
    node = lab.node(1)
    api = lab.api()
    api.set_quota("unnamed-bytes", 100_000, role="user")
    code = """
import numpy
from manta.light import World

def main():
    World().results.add("large", numpy.arange(100_000.0))
    World().results.add("small", 1)
"""
    failed = lab.run(api, lab.swarm(code), "FAILED")
    (error,) = api.collect_errors(failed)
    assert "ResourceExhaustionError" in str(error)
    assert "the quota unnamed-bytes is 97.7 KiB (set for the role user): do with less" in str(error)
    lab.wait_until(lambda: not node.context.journals.unacknowledged())
    assert not list(node.context.spool)
    lab.run(api, lab.swarm(code.replace("100_000.0", "10_000.0")))


def test_a_stopped_swarm_ends_its_tasks(lab) -> None:
    node = lab.node(1)
    api = lab.api()
    slow = "import time\ndef main():\n    time.sleep(60)\n"
    deployed = api.deploy_swarm("lab", lab.swarm(slow))
    lab.wait_until(lambda: node.context.tasks_running)
    lab.wait_until(lambda: node.context.runtimes)
    api.stop_swarm(deployed)
    lab.wait_until(lambda: not node.context.runtimes and not node.context.tasks_running)
    assert api.wait_swarm(deployed, timeout=60).status == "STOPPED"


def test_what_a_stopping_task_supervisor_never_read_is_not_run_by_the_next(
    lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, release, stopping = threading.Event(), threading.Event(), threading.Event()
    report, stop = TaskSupervisor._report, NodeSupervisor._stop_task

    def hold_after_first_iteration(self: TaskSupervisor, entry: Any) -> None:
        report(self, entry)
        if isinstance(entry, TaskEnded) and entry.instance.iteration == 0:
            held.set()
            release.wait(60)

    def tell_stop(self: NodeSupervisor, task: Any) -> None:
        stop(self, task)
        stopping.set()

    monkeypatch.setattr(TaskSupervisor, "_report", hold_after_first_iteration)
    monkeypatch.setattr(NodeSupervisor, "_stop_task", tell_stop)
    node = lab.node(1)
    api = lab.api()
    code = (
        "import time\nfrom manta.light import World\n"
        "def main():\n    time.sleep(60 * World().iteration)\n"
    )
    deployed = api.deploy_swarm("lab", lab.swarm(code, iterations=2))
    assert held.wait(60)
    lab.wait_until(lambda: len(api.get_tasks(deployed)) == 2 and node.context.tasks_running)
    api.stop_swarm(deployed, force=True)
    assert stopping.wait(60)
    release.set()
    tasks = node.context.state.tasks
    lab.wait_until(lambda: not node.context.runtimes and not list(tasks.iterdir()))
    lab.wait_until(lambda: api.get_tasks(deployed)[1].status == "CANCELLED")
    lab.wait_until(lambda: not node.context.tasks_running)


def test_a_link_that_ends_with_unacknowledged_entries_ends_as_it_should(
    lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was sent last is sent again after the next start: no timer waits for it."""
    node = lab.node(1)
    reasons = []
    stop = ManagerLink.on_stop

    def with_an_entry(self: ManagerLink, reason: Any) -> None:
        error = TaskError("Cancelled", "It was the last.")
        instance = Instance("0" * 16, "task", 0, 0, 0)
        self._context.journals.append(TaskEnded(instance, AttemptState.CANCELLED, 0.0, error=error))
        try:
            stop(self, reason)
        except Exception as failure:
            reasons.append(failure)
            raise

    monkeypatch.setattr(ManagerLink, "on_stop", with_an_entry)
    node.stop()
    assert reasons == []


def test_more_tasks_than_places_wait_their_turn(lab) -> None:
    node = lab.node(1, resources={"max_concurrent_tasks": 2})
    api = lab.api()
    code = "import time\ndef main():\n    time.sleep(0.3)\n"
    deployed = api.deploy_swarm("lab", lab.swarm(code, replicas=5))
    lab.wait_until(lambda: node.context.tasks_queued == 3)
    assert node.context.tasks_running == 2
    assert api.wait_swarm(deployed, timeout=60).status == "COMPLETED"
    queued = sorted(task.timings.queued for task in api.get_tasks(deployed))
    assert queued[0] < 0.3  # shorter than a task: it waited for none
    assert queued[-1] > 0.4


def test_more_replicas_than_a_node_is_given_at_a_time(lab) -> None:
    node = lab.node(1, resources={"max_concurrent_tasks": 2})
    api = lab.api()
    code = "from manta.light import World\ndef main():\n    return World().rank, World().size\n"
    deployed = api.deploy_swarm("lab", lab.swarm(code, replicas=WINDOW + 100))
    lab.wait_until(lambda: node.context.tasks_queued > 0)
    assert node.context.tasks_running + node.context.tasks_queued <= WINDOW
    assert api.wait_swarm(deployed, timeout=60).status == "COMPLETED"
    outputs = sorted(task.output for task in api.get_tasks(deployed))
    assert outputs == [(rank, WINDOW + 100) for rank in range(WINDOW + 100)]


def test_a_stop_from_afar(lab) -> None:
    node = lab.node(1)
    api = lab.api()
    info = api.get_node("node-1")
    api.stop_node(info.id)
    lab.wait_until(lambda: lab.finished)
    assert lab.finished[0][0] == 0
    node.stop()
    lab.wait_until(lambda: api.get_node(info.id).status != "CONNECTED")


def test_a_drained_node_finishes_what_it_runs(lab) -> None:
    node = lab.node(1)
    api = lab.api()
    gate = lab.folder / "gate"
    code = (
        "import os, time\n"
        "def main():\n"
        f"    while not os.path.exists({str(gate)!r}):\n"
        "        time.sleep(0.01)\n"
    )
    deployed = api.deploy_swarm("lab", lab.swarm(code))
    lab.wait_until(lambda: node.context.tasks_running)
    api.stop_node("node-1", drain=True)
    lab.wait_until(lambda: api.get_node("node-1").status == "DRAINING")
    assert not lab.finished
    gate.touch()
    assert api.wait_swarm(deployed, timeout=60).status == "COMPLETED"
    lab.wait_until(lambda: lab.finished)
    assert lab.finished[0] == (0, "the node was drained")


def test_a_removed_node_ends(lab) -> None:
    lab.node(1)
    api = lab.api()
    api.remove_node("node-1")
    lab.wait_until(lambda: lab.finished)
    code, sentence = lab.finished[0]
    assert code == 6
    assert "removed" in sentence
    with pytest.raises(errors.NotFound):
        api.get_node("node-1")


def test_modules_that_nobody_uses_do_not_pile_up(lab) -> None:
    node = lab.node(1)
    folders = node.context.modules = ModuleFolders(node.context.state.modules, most=2)
    api = lab.api()
    for number in range(4):
        lab.run(api, lab.swarm(f"def main():\n    return {number}\n"))
    assert len(list(node.context.state.modules.iterdir())) == 2
    lab.wait_until(lambda: not folders.used)
