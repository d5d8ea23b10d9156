"""`manta_node reload` and `drain`: what a running node is told, while its tasks go on."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from manta import Module, Swarm, Task, UserAPI
from manta.console.exit_codes import Exit
from manta.testing import wait_until
from tests.integration.node.conftest import HOST, Command, Lab, lab, manta_node, port

__all__ = ["lab", "manta_node"]

pytestmark = pytest.mark.timeout(120)

WAITS = """
import os, time
def main():
    print("runs", flush=True)
    while not os.path.exists("{until}"):
        time.sleep(0.02)
    return "done"
"""


def started(lab: Lab, manta_node: Command, *more: object) -> UserAPI:
    where = ("--manager-host", HOST, "--manager-port", port(lab.file.nodes), "--id", "random")
    made = manta_node("config", "init", "edge", *where, "--runner", "limits", "--alias", "edge",
                      "--allow-unsandboxed", *more)  # fmt: skip
    assert made.returncode == 0, made.stderr
    api = lab.api()
    token = api.create_node_token("lab")
    done = manta_node("start", "edge", "--background", MANTA_NODE_TOKEN=token)
    assert done.returncode == 0, done.stderr
    wait_until(lambda: [one.alias for one in api.list_nodes("lab") if one.status == "CONNECTED"])
    return api


def runs(api: UserAPI, until: Path, **more: object) -> str:
    class One(Swarm):
        def execute(self) -> Task:
            code = WAITS.format(until=until)
            return Task(Module(code, name="code"), alias="worker", method="any", **more)  # type: ignore[arg-type]

    swarm = api.deploy_swarm("lab", One())
    for line in api.stream_logs(swarm):
        if line.text == "runs":
            return str(swarm)
    raise AssertionError(api.get_swarm(swarm).reason)


@pytest.mark.parametrize("lab", [0], indirect=True)
def test_a_changed_configuration_is_taken_over_while_tasks_go_on(
    lab: Lab, manta_node: Command, tmp_path: Path
) -> None:
    api = started(lab, manta_node)
    swarm = runs(api, tmp_path / "end")
    path = manta_node.home / "nodes" / "edge.toml"
    before = path.read_text()
    (tmp_path / "digits.csv").write_text("1\n")

    path.write_text(before + "\n[nothing]\nsuch = 1\n")
    wrong = manta_node("reload", "edge")
    assert wrong.returncode == Exit.LOCAL
    assert "nothing" in wrong.stderr

    changed = "[labels]\nroom = 'lab-3'\n[peers]\nlinks = 'sealed'\n[datasets.mappings]\n"
    path.write_text(f"{before}\n{changed}digits = '{tmp_path / 'digits.csv'}'\n")
    done = manta_node("reload", "edge", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["at_once"] == ["labels"]
    assert told["next_start"] == ["datasets.mappings"]
    assert told["restart"] == ["peers.links"]

    def known() -> bool:
        node = api.get_node("edge")
        return node.platform_info.labels == {"room": "lab-3"} and "digits" in node.datasets

    wait_until(known)
    assert api.get_swarm(swarm).status == "ACTIVE"
    (tmp_path / "end").touch()
    assert api.wait_swarm(swarm).status == "COMPLETED"
    assert [task.attempt for task in api.get_tasks(swarm)] == [0]

    os.kill(json.loads(manta_node("status", "edge", "--json").stdout)["pid"], signal.SIGHUP)
    log = manta_node.home / "state" / "nodes" / "edge" / "node.log"
    wait_until(lambda: log.read_text().count("the configuration was read again") == 2)


@pytest.mark.parametrize("lab", [0], indirect=True)
def test_a_drained_node_ends_once_nothing_runs(
    lab: Lab, manta_node: Command, tmp_path: Path
) -> None:
    api = started(lab, manta_node)
    swarm = runs(api, tmp_path / "end")
    done = manta_node("drain", "edge", "--deadline", "10m", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["deadline"] == 600.0
    wait_until(lambda: api.get_node("edge").status == "DRAINING")
    (tmp_path / "end").touch()
    assert api.wait_swarm(swarm).status == "COMPLETED"
    wait_until(lambda: manta_node("status", "edge", "--json").stdout.count('"stopped"'))
    assert any("Its node is drained" in line.text for line in api.collect_logs(swarm))


@pytest.mark.parametrize("lab", [0], indirect=True)
def test_what_runs_at_the_deadline_is_interrupted_and_told(
    lab: Lab, manta_node: Command, tmp_path: Path
) -> None:
    api = started(lab, manta_node)
    swarm = runs(api, tmp_path / "never")
    done = manta_node("drain", "edge", "--deadline", "1s", "--wait")
    assert done.returncode == 0, done.stderr
    assert "has ended" in done.stdout
    (found,) = [error for error in api.collect_errors(swarm) if error.attempt == 0]
    assert found.status == "INTERRUPTED"
    assert "its deadline of 1 s has passed" in found.sentence


def test_a_node_that_does_not_run_is_told_nothing(manta_node: Command) -> None:
    manta_node("config", "init", "edge", "--manager-host", HOST, "--allow-unsandboxed")
    for command in ("reload", "drain"):
        done = manta_node(command, "edge")
        assert done.returncode == Exit.LOCAL
        assert "does not run" in done.stderr
    assert manta_node("drain", "edge", "--deadline", "soon").returncode == Exit.USAGE
