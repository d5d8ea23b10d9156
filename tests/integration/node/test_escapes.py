"""Tasks of a real node that try to get out, at each level of isolation, against a table."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from manta import Module, Swarm, Task
from manta.node.isolation.limits import Means
from manta.protocol.isolation import DOCKER, GVISOR
from tests.support import isolated
from tests.support.engine import TestEngine
from tests.support.escape import outside

ENGINES = {DOCKER: ("engine", "docker_host"), GVISOR: ("gvisor_engine", "gvisor_host")}


@pytest.fixture(scope="module", params=[*isolated.LEVELS, *ENGINES])
def level(request: pytest.FixtureRequest) -> str:
    """Asks for what it needs, before a test is watched for leaks."""
    if request.param in ENGINES:
        request.getfixturevalue(ENGINES[request.param][0])
    return str(request.param)


@pytest.fixture
def engine_of(request: pytest.FixtureRequest, level: str) -> TestEngine | None:
    return request.getfixturevalue(ENGINES[level][1]) if level in ENGINES else None


@pytest.fixture
def node(lab, level: str, engine_of: TestEngine | None, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("MANTA_HOME", str(lab.folder / "home"))
    monkeypatch.setattr("manta.node.service.node.choose_runner", isolated.choose(level))
    resources = {"max_concurrent_tasks": 2, "scratch_mb": outside.DISK >> 20}
    containers = {} if engine_of is None else {"default_image": engine_of.base()}
    listening = {"listen": "127.0.0.1:0"}
    return lab.node(1, resources=resources, peers=listening, containers=containers)


class Probing(Swarm):
    def __init__(self, code: str, memory: int | None = None) -> None:
        super().__init__()
        self.code, self.memory = code, memory

    def execute(self) -> Task:
        resources = {"memory": self.memory} if self.memory else None
        return Task(Module(self.code, name="probe", resources=resources))


@pytest.fixture
def targets(
    lab, level: str, node: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, Any]]:
    """With another task beside it, which has a file, a socket and a process."""
    api = lab.api()
    victim = api.deploy_swarm("lab", Probing(outside.VICTIM))
    lab.wait_until(lambda: len(api.get_swarm_results(victim)))
    [mine] = lab.folder.rglob("mine")
    other = mine.parent
    with outside.aims(lab.folder) as found:
        monkeypatch.setenv("MANTA_TEST_SECRET", found["word"])
        state = node.context.state
        files = [
            state.status_file,
            state.identity_file,
            lab.folder / "node-1.toml",
        ]
        files += [*state.journal.iterdir(), *state.audit.rglob("*")]
        yield found | {
            "manager": [port_of(lab.file.nodes), port_of(lab.file.users)],
            "node": [port_of(address) for address in node.context.peer_socket.addresses],
            "key": str(state.key_file),
            "node's files": list(map(str, files)),
            "other file": str(mine),
            "other socket": str(other / "socket"),
            "other process": (
                int(outside.alive("runsc-sandbox")[0])  # whose processes no other kernel knows
                if level == GVISOR
                else outside.in_folder_of(mine)
            ),
        }
    api.stop_swarm(victim)


def port_of(address: str) -> tuple[str, int]:
    return "127.0.0.1", int(address.rpartition(":")[2])


def deploy(lab, targets: dict[str, Any], probes: tuple[str, ...], memory: int | None = None) -> Any:
    """The answers, or the error of a task that was ended for it."""
    api = lab.api()
    deployed = api.deploy_swarm("lab", Probing(outside.code(targets, probes), memory))
    api.wait_swarm(deployed, timeout=60)
    [task] = api.get_tasks(deployed)
    return task.output if task.status == "FINISHED" else task.error


def test_tasks_reach_what_the_table_says_and_no_more(lab, level: str, targets) -> None:
    answers = deploy(lab, targets, outside.QUIET)
    assert answers.keys() == set(outside.QUIET)
    assert outside.unexpected(answers, level, is_root=os.getuid() == 0) == {}


def test_tasks_take_what_they_may_and_no_more(lab, level: str, targets) -> None:
    """It is refused, or ended with the arithmetic, as the node may make control groups or not."""
    forked = deploy(lab, targets, ("forks",))
    assert forked == {"forks": "closed"} or any(
        told in forked.sentence
        for told in ("may have 200: start fewer", "than it may, 200: start fewer")
    )
    took = deploy(lab, targets, ("memory",), memory=outside.MEMORY)
    assert took == {"memory": "closed"} or "256 MiB: have its module or" in took.sentence
    filled = deploy(lab, targets, ("disk",))
    assert "MB in its scratch folder, and 16.8 MB are allowed" in filled.sentence


def test_nothing_outlives_a_task_whatever_it_does(
    lab, level: str, node, engine_of: TestEngine | None, targets
) -> None:
    if level == "limits" and node.context.runner.holder.plan.processes is not Means.GROUP:
        pytest.skip("at this level nothing but a control group does that")
    deploy(lab, targets, ("outlive",))
    lab.wait_until(lambda: not outside.alive(targets["name"]))
    if engine_of is not None:
        lab.wait_until(lambda: len(engine_of.containers()) == 1)  # the other task's
