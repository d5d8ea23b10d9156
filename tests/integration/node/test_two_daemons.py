"""Two daemons with one node's key: one works, both say so, and nothing runs on both."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest

from manta import Module, Swarm, Task
from manta.cli.local.cluster import CLUSTER
from manta.node.service import Node
from manta.node.state import StateFolder
from manta.testing import wait_until
from manta.testing.clusters import client, running
from tests.support.restarts import QuickToGiveUp

LEFT_OUT = shutil.ignore_patterns("light")  # the socket
CODE = """
import time
from pathlib import Path
def main():
    runs = Path({runs!r})
    with runs.open("a") as file:
        file.write("run ")
    while not Path({go!r}).exists():
        time.sleep(0.02)
    return 5
"""


def twin(lab) -> Node:
    """With a copied state folder, as of a machine that was cloned."""
    state = lab.state("twin")
    shutil.copytree(lab.known(1).path, state.path, ignore=LEFT_OUT)
    return lab.start(lab.config("twin", identity={"alias": "node-1"}), state)


def state_of(folder: Path) -> str:
    status = StateFolder(folder).read_status()
    return status.state if status else ""


def test_the_second_is_refused_and_both_say_so(lab, caplog: pytest.LogCaptureFixture) -> None:
    runs, go = lab.folder / "runs", lab.folder / "go"
    lab.node(1)
    api = lab.api()
    code = CODE.format(runs=str(runs), go=str(go))
    swarm = api.deploy_swarm("lab", lab.swarm(code))
    lab.wait_until(runs.exists)
    second = twin(lab)
    status = lab.state("twin").read_status
    lab.wait_until(lambda: status().state == "held")
    assert "Another daemon holds this node, with the same key: process" in status().sentence
    lab.wait_until(lambda: lab.state("node-1").read_status().notice)
    [node] = api.list_nodes("lab")
    assert node.status == "CONNECTED"
    for said in (
        lab.state("node-1").read_status().notice,
        node.notice,
        api.explain_swarm(swarm).problems[0],
    ):
        assert said.startswith("Another daemon with this node's key was refused: process"), said
    logged = [record.getMessage() for record in caplog.records]
    assert any("was refused, as process" in line for line in logged)  # the manager's
    assert any("Another daemon with this node's key was" in line for line in logged)
    assert any("Another daemon holds this node" in line for line in logged)
    assert second.context.tasks_running == 0
    go.touch()
    assert api.wait_swarm(swarm, timeout=60).status == "COMPLETED"
    assert runs.read_text() == "run "


def test_it_takes_over_when_the_first_has_stopped(lab) -> None:
    first = lab.node(1)
    twin(lab)
    status = lab.state("twin").read_status
    lab.wait_until(lambda: status().state == "held")
    first.stop()
    lab.wait_until(lambda: status().state == "connected")
    lab.run(lab.api(), lab.swarm("def main():\n    return 1\n"))


def test_the_first_ends_when_it_comes_back_after_another_took_over(tmp_path: Path) -> None:
    runs, go = tmp_path / "runs", tmp_path / "go"

    class One(Swarm):
        def execute(self) -> Task:
            return Task(Module(CODE.format(runs=str(runs), go=str(go)), name="one"), method="any")

    with running(QuickToGiveUp, 1) as cluster, client(cluster) as api:
        assert isinstance(cluster, QuickToGiveUp)
        swarm = api.deploy_swarm(CLUSTER, One(), wait=True)
        wait_until(runs.exists)
        state = cluster.folder / "state"
        shutil.copytree(state / "node-1", state / "twin", ignore=LEFT_OUT)
        config = str(cluster.folder / "node-1.toml")
        arguments = ["--config", config, "--state", str(state / "twin")]
        cluster._spawn("twin", "twin", ["manta.node", *arguments])
        wait_until(lambda: state_of(state / "twin") == "held")
        first = cluster.child("node-1")
        first.process.send_signal(signal.SIGSTOP)
        wait_until(lambda: state_of(state / "twin") == "connected")
        first.process.send_signal(signal.SIGCONT)
        assert first.ended.wait(60)
        assert "Another daemon has taken this node over" in first.log.read_text()
        go.touch()
        ended = api.wait_swarm(swarm, timeout=60)
        assert ended.status == "COMPLETED", ended.reason
        told = [(task.attempt, task.status) for task in api.get_tasks(swarm)]
        assert told == [(0, "INTERRUPTED"), (1, "FINISHED")]
        assert runs.read_text() == "run run "
