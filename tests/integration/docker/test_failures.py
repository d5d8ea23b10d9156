"""What goes wrong with containers and their engine: a sentence each, and nothing left."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from manta import Module
from manta.node.doctor.configuration import examine
from tests.integration.docker.conftest import DockerLab
from tests.support.engine import running_engine

SLEEPS_ONCE = """
import time
from manta.light import Local

def main():
    local = Local()
    if local.get_state("tried") is None:
        local.set_state("tried", True)
        print("sleeping")
        time.sleep(600)
    return "awake"
"""


def sleeping(lab: DockerLab, swarm_id: str) -> None:
    api = lab.api()
    lab.wait_until(lambda: any(line.text == "sleeping" for line in api.collect_logs(swarm_id)))


@pytest.mark.parametrize("how", ["stop", "kill", "remove"])
@pytest.mark.parametrize("is_alone", [False, True])
def test_what_somebody_else_ended_costs_no_retry(lab: DockerLab, how: str, is_alone: bool) -> None:
    lab.node(1)
    api = lab.api()
    module = Module(SLEEPS_ONCE, name="task")
    if is_alone:
        module = Module(None, alone(lab, "echo sleeping; exec sleep 600"), name="task")
    deployed = api.deploy_swarm("lab", lab.of(module))
    sleeping(lab, deployed.swarm_id)
    [container] = lab.engine.containers()
    end = {
        "stop": lambda id_: lab.engine.client.stop(id_, timeout=1),
        "kill": lab.engine.client.kill,
        "remove": lambda id_: lab.engine.client.remove_container(id_, force=True),
    }
    end[how](container["Id"])
    lab.wait_until(lambda: len(api.get_tasks(deployed)) == 2)
    first = api.get_tasks(deployed)[0]
    assert first.status == "INTERRUPTED"
    assert first.error is not None
    assert "by somebody else than the node" in first.error.sentence
    if is_alone:
        api.stop_swarm(deployed, force=True)
    else:
        assert api.wait_swarm(deployed, timeout=60).status == "COMPLETED"
        assert api.get_tasks(deployed)[1].output == "awake"
    lab.gone()


def test_an_image_that_fails_after_a_signal_that_it_handled_has_failed(lab: DockerLab) -> None:
    lab.node(1)
    api = lab.api()
    image = alone(lab, "trap 'exit 3' USR1; echo sleeping; while :; do sleep 0.1; done")
    deployed = api.deploy_swarm("lab", lab.of(Module(None, image, name="task")))
    sleeping(lab, deployed.swarm_id)
    [container] = lab.engine.containers()
    lab.engine.client.kill(container["Id"], "SIGUSR1")
    assert api.wait_swarm(deployed, timeout=60).status == "FAILED"
    [task] = api.get_tasks(deployed)
    assert task.error is not None
    digest = lab.engine.client.inspect_image(image)["Id"][:19]
    assert f"exited with code 3. Its image is {image} ({digest})." in task.error.sentence
    lab.gone()


EATS = """
def main():
    data = []
    while True:
        data.append(bytearray(8 * 1024 * 1024))
"""


def test_a_round_that_takes_more_memory_than_it_asked_for(lab: DockerLab) -> None:
    lab.node(1)
    api = lab.api()
    module = Module(EATS, name="task", resources={"memory": 64 * 1024 * 1024})
    swarm_id = lab.run(api, lab.of(module), "FAILED")
    [task] = api.get_tasks(swarm_id)
    assert task.status == "FAILED"
    assert task.error is not None
    assert task.error.kind == "ResourceExhaustionError"
    assert task.error.sentence.startswith(
        "task.0 was killed (SIGKILL): it took more memory than it may, 64 MiB: have its"
    )
    lab.gone()


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ("check=True)", "died with <Signals.SIGKILL: 9>"),
        ("check=False); os._exit(3)", "task.0 ended its process with exit code 3"),
        ("check=False); os.abort()", "task.0 was ended by SIGABRT"),
    ],
)
def test_a_round_whose_child_takes_more_memory_than_it_asked_for(
    lab: DockerLab, end: str, said: str
) -> None:
    eats = "x = [bytearray(1 << 20) for _ in range(1000)]"
    code = (
        "import os, subprocess, sys\n"
        "def main():\n"
        f"    subprocess.run([sys.executable, '-c', {eats!r}], {end}\n"
    )
    lab.node(1)
    api = lab.api()
    module = Module(code, name="task", resources={"memory": 96 * 1024 * 1024})
    swarm_id = lab.run(api, lab.of(module), "FAILED")
    [task] = api.get_tasks(swarm_id)
    assert task.error is not None
    assert said in task.error.sentence
    told = (
        "a process that it started was killed: together they took more memory than it may, 96 MiB"
    )
    assert told in task.error.sentence
    lab.gone()


def test_an_image_alone_whose_child_takes_more_memory_than_it_asked_for(lab: DockerLab) -> None:
    lab.node(1)
    api = lab.api()
    eats = "python3 -c 'x = [bytearray(1 << 20) for _ in range(1000)]'"
    image = alone(lab, f"{eats} || exit 3")
    module = Module(None, image, name="task", resources={"memory": 64 * 1024 * 1024})
    swarm_id = lab.run(api, lab.of(module), "FAILED")
    [task] = api.get_tasks(swarm_id)
    assert task.error is not None
    assert (
        "ended with code 3: it took more memory than it may, 64 MiB: have its"
        in task.error.sentence
    )
    lab.gone()


def alone(lab: DockerLab, script: str) -> str:
    """An image that runs the script when it is started."""
    return lab.engine.build(f'FROM BASE\nENTRYPOINT ["/bin/sh", "-c"]\nCMD ["{script}"]\n')


def test_an_image_alone_that_takes_more_memory_than_it_asked_for(lab: DockerLab) -> None:
    lab.node(1)
    api = lab.api()
    image = alone(lab, "exec python3 -c 'x = [bytearray(1 << 20) for _ in range(1000)]'")
    module = Module(None, image, name="task", resources={"memory": 64 * 1024 * 1024})
    swarm_id = lab.run(api, lab.of(module), "FAILED")
    [task] = api.get_tasks(swarm_id)
    assert task.status == "FAILED"
    assert task.error is not None
    assert "was killed (SIGKILL): it took more memory than it may, 64 MiB" in task.error.sentence
    lab.gone()


def test_an_image_that_does_not_heed_sigterm_is_killed(lab: DockerLab) -> None:
    lab.node(1)
    api = lab.api()
    image = alone(lab, "trap : TERM; echo sleeping; while :; do sleep 0.1; done")
    deployed = api.deploy_swarm("lab", lab.of(Module(None, image, name="task")))
    sleeping(lab, deployed.swarm_id)
    api.stop_swarm(deployed, force=True)
    lab.gone()


def test_an_engine_that_goes_away_under_an_image_alone(
    lab: DockerLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is known of it: when the engine is back soon, how it ended, else it is given up."""
    with running_engine() as engine:
        monkeypatch.setenv("DOCKER_HOST", engine.address)
        lab.engine = engine
        node = lab.node(1)
        api = lab.api()
        module = Module(None, alone(lab, "echo sleeping; exec sleep 600"), name="task")

        def first_attempt(deployed: Any) -> str:
            lab.wait_until(lambda: api.get_tasks(deployed)[0].status == "INTERRUPTED")
            error = api.get_tasks(deployed)[0].error
            assert error is not None
            return error.sentence

        deployed = api.deploy_swarm("lab", lab.of(module))
        sleeping(lab, deployed.swarm_id)
        engine.stop()
        engine.start()
        assert "ended with its engine" in first_attempt(deployed)
        api.stop_swarm(deployed, force=True)
        lab.gone()

        monkeypatch.setattr("manta.node.runners.docker.PATIENCE", 1.0)
        deployed = api.deploy_swarm("lab", lab.of(module))
        sleeping(lab, deployed.swarm_id)
        engine.stop()
        assert "The container engine does not answer" in first_attempt(deployed)
        api.stop_swarm(deployed, force=True)
        engine.start()
        lab.gone()
        node.stop()
        engine.hang_up()


def test_an_engine_that_goes_away_and_comes_back(
    lab: DockerLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_engine() as engine:
        monkeypatch.setenv("DOCKER_HOST", engine.address)
        lab.engine = engine
        node = lab.node(1)
        api = lab.api()
        deployed = api.deploy_swarm("lab", lab.of(Module(SLEEPS_ONCE, name="task")))
        sleeping(lab, deployed.swarm_id)
        engine.stop()
        lab.wait_until(lambda: api.get_tasks(deployed)[0].status == "INTERRUPTED")
        first = api.get_tasks(deployed)[0]
        assert first.error is not None
        engine.start()
        assert api.wait_swarm(deployed, timeout=60).status == "COMPLETED"
        lab.gone()
        node.stop()
        engine.hang_up()


def test_without_an_engine_the_swarm_fails_and_says_so(
    lab: DockerLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = lab.node(1)
    api = lab.api()
    engine = node.context.runner._engine
    engine.close()
    monkeypatch.setattr(engine, "address", "unix:///nowhere/docker.sock")
    monkeypatch.setattr(engine, "_client", None)
    swarm_id = lab.run(api, lab.of(Module("def main():\n    pass\n", name="task")), "FAILED")
    error = api.get_tasks(swarm_id)[0].error
    assert error is not None
    assert "The container engine does not answer (unix:///nowhere/docker.sock)" in error.sentence


def left_behind(lab: DockerLab) -> list[str]:
    """What the doctor says of it."""
    findings = examine("node-1", lab.state("node-1"), offline=True)
    return [one.sentence + one.remedy for one in findings if one.check == "containers"]


@pytest.mark.parametrize("is_alone", [False, True])
def test_a_daemon_that_was_killed_finds_its_containers_and_leaves_nothing(
    lab: DockerLab, is_alone: bool
) -> None:
    api = lab.api()
    if is_alone:
        module = Module(None, alone(lab, "exec sleep 600"), name="task")
    else:
        module = Module(SLEEPS_ONCE, name="task")
    with lab.daemon() as node:
        lab.wait_for(lab.state("node-1"), "connected")
        deployed = api.deploy_swarm("lab", lab.of(module))
        lab.wait_until(lambda: any(c["State"] == "running" for c in lab.engine.containers()))
        if not is_alone:
            sleeping(lab, deployed.swarm_id)
        node.send_signal(signal.SIGKILL)
        node.wait(60)
    [left] = lab.engine.containers()
    assert left["State"] == "running"
    logs = lab.engine.client.inspect_container(left["Id"])["HostConfig"]["LogConfig"]
    assert logs == {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "1"}}
    assert left["Id"][:12] in "".join(left_behind(lab))
    with lab.daemon():
        lab.wait_until(lambda: left["Id"] not in [c["Id"] for c in lab.engine.containers()])
        lab.wait_until(lambda: len(api.get_tasks(deployed)) == 2)
        first = api.get_tasks(deployed)[0]
        assert first.status == "INTERRUPTED"
        log = (lab.state("node-1").path / "node.log").read_text()
        assert f"The container of {deployed.swarm_id}" in log
        assert "which the daemon before this one has left, was removed" in log
        if is_alone:
            api.stop_swarm(deployed)
        else:
            assert api.wait_swarm(deployed, timeout=60).status == "COMPLETED"
        lab.wait_until(lambda: not lab.engine.containers(), what=lab.engine.containers)
    assert lab.engine.containers() == []
    assert left_behind(lab) == []


def test_a_node_that_is_stopped_takes_its_containers_along(lab: DockerLab) -> None:
    node = lab.node(1)
    api = lab.api()
    deployed = api.deploy_swarm("lab", lab.of(Module(SLEEPS_ONCE, name="task")))
    sleeping(lab, deployed.swarm_id)
    node.stop()
    assert lab.engine.containers() == []
    assert not list(Path(node.context.state.tasks).iterdir())
    assert not [t for t in threading.enumerate() if t.name.startswith("manta-container")]
    assert os.environ["DOCKER_HOST"] == lab.engine.address
