"""Tasks whose modules require packages, on real nodes, at each level of isolation."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from manta import Module, Swarm, Task, UserAPI
from manta.apis.errors import Unplaceable
from tests.integration.node.conftest import CLUSTER
from tests.support import isolated
from tests.support.wheels import wheel

CODE = """
import multiprocessing, subprocess, sys
import greeting

def spoken(_):
    import greeting
    return greeting.VERSION

def main():
    said = subprocess.run(["greeting-say"], capture_output=True, text=True, check=True).stdout
    command = [sys.executable, "-c", "import greeting; print(greeting.VERSION)"]
    started = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    import msgpack, socket
    try:
        open(greeting.__file__, "a").write("VERSION = 0")
        changed = True
    except OSError:
        changed = False
    return [greeting.VERSION, said.strip(), started.strip(), changed]
"""


class Once(Swarm):
    def __init__(self, *requirements: str, code: str = CODE, tasks: int = 1) -> None:
        super().__init__()
        for number in range(tasks):
            module = Module(code, name="code", requirements=requirements)
            setattr(self, f"task{number}", Task(module, alias=f"task{number}"))


@pytest.fixture
def index(tmp_path: Path) -> Path:
    code = "def say():\n    print('hello')"
    wheel(tmp_path / "index", "greeting", "2.0", requires=["letters"], code=code)
    wheel(tmp_path / "index", "letters")
    return tmp_path / "index"


def outputs(api: UserAPI, swarm_id: str) -> list[Any]:
    return [task.output for task in api.get_tasks(swarm_id)]


def lines(api: UserAPI, swarm_id: str) -> list[str]:
    return [line.text for line in api.collect_logs(swarm_id)]


@pytest.mark.parametrize("level", isolated.LEVELS)
def test_a_task_has_what_its_module_requires(
    lab, index: Path, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("manta.node.service.node.choose_runner", isolated.choose(level))
    node = lab.node(1, requirements={"index": str(index)})
    api = lab.api()
    swarm_id = lab.run(api, Once("greeting==2.0"))
    [(version, said, started, changed)] = outputs(api, swarm_id)
    assert (version, said, started) == ("2.0", "hello", "2.0")
    assert changed == (level == "limits")  # where a task may do all that the node's user can
    assert any(
        "installs what module 'code' requires: greeting==2.0" in x for x in lines(api, swarm_id)
    )
    assert len(node.context.environments.there) == 1


def test_what_it_requires_goes_before_what_the_node_has(lab, tmp_path: Path) -> None:
    wheel(tmp_path / "index", "numpy", "99.0", code="ndarray = None")
    lab.node(1, requirements={"index": str(tmp_path / "index")})
    api = lab.api()
    code = "def main():\n    import numpy\n    return numpy.VERSION\n"
    assert outputs(api, lab.run(api, Once("numpy", code=code))) == ["99.0"]


def test_tasks_that_want_the_same_wait_for_one_installation(lab, index: Path) -> None:
    lab.node(1, requirements={"index": str(index)}, resources={"max_concurrent_tasks": 4})
    api = lab.api()
    swarm_id = lab.run(api, Once("greeting", code="import greeting\ndef main(): pass\n", tasks=4))
    said = [line for line in lines(api, swarm_id) if "was installed in" in line]
    assert len(set(said)) <= 1, said


def test_what_does_not_resolve_fails_the_task_with_the_installer_s_words(lab, index: Path) -> None:
    lab.node(1, requirements={"index": str(index)})
    api = lab.api()
    swarm_id = lab.run(api, Once("greeting>=3"), "FAILED")
    [task] = api.get_tasks(swarm_id)
    assert task.error is not None
    assert task.error.kind == "RequirementsError"
    assert (
        "The requirements of module 'code' on node 'node-1' can't be installed"
        in task.error.sentence
    )
    assert "greeting" in task.error.sentence


def test_a_check_says_what_would_be_installed_and_where_it_is_there(lab, index: Path) -> None:
    lab.node(1, requirements={"index": str(index)})
    api = lab.api()
    told = api.check_swarm(CLUSTER, Once("greeting"))
    assert told.provided == ("Module 'code' requires greeting: to be installed on node-1.",)
    lab.run(api, Once("greeting"))
    there = ("Module 'code' requires greeting: there on node-1.",)
    lab.wait_until(
        lambda: api.check_swarm(CLUSTER, Once("greeting")).provided == there,
        what=lambda: api.check_swarm(CLUSTER, Once("greeting")).provided,
    )


def test_a_node_that_may_install_nothing_is_passed_over_and_says_why(lab) -> None:
    lab.node(1, requirements={"allow": False})
    api = lab.api()
    with pytest.raises(Unplaceable, match="node-1 installs nothing that module 'code' requires"):
        api.deploy_swarm(CLUSTER, Once("greeting"))


def test_a_task_that_requires_something_has_no_network(
    lab, index: Path, bubblewrap: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("manta.node.service.node.choose_runner", isolated.choose("bwrap"))
    lab.node(1, requirements={"index": str(index)})
    api = lab.api()
    code = f"""
import socket
import letters

def main():
    try:
        socket.create_connection(("127.0.0.1", {lab.file.users.rpartition(":")[2]}), 5)
    except OSError as error:
        return type(error).__name__
"""
    assert outputs(api, lab.run(api, Once("letters", code=code))) == ["ConnectionRefusedError"]


def test_a_daemon_imports_no_installer_to_start() -> None:
    dear = {"venv", "packaging.requirements", "manta.node.environments.building"}
    code = "import sys, manta.node.daemon.process, manta.node.service; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not dear & set(done.stdout.split())
