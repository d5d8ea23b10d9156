"""Whole swarms over nodes whose tasks run in containers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from manta import Module, Swarm, Task
from manta.node.runners.hardening import TASKS_USER
from tests.integration.docker.conftest import DockerLab

MANTA = str(Path(sys.executable).with_name("manta"))

EVERYTHING = """
import numpy
from manta.light import Local, World

world, local = World(), Local()

def main():
    print("hello from", world.node_id)
    state = local.get_state("count", default=0) + 1
    local.set_state("count", state)
    world.globals["big"] = numpy.full(500_000, state)
    assert world.globals["big"].sum() == state * 500_000
    world.results.add("large", numpy.full(500_000, world.iteration))
    found = world.results.select("large")
    assert [value[0] for value in found.values()] == [world.iteration], found
    world.log_metrics({"state": state})
    assert local.get_resources().cpu_count >= 1
    assert world.all_reduce(numpy.ones(3)).sum() == 3 * world.size
    return {"rows": int(local.get_dataset("table").shape[0]), "state": state}
"""


def test_an_image_that_knows_nothing_of_manta_runs_all_of_it(lab: DockerLab) -> None:
    import numpy as np

    np.save(lab.folder / "table.npy", np.zeros((7, 2)))
    lab.node(1, datasets={"table": str(lab.folder / "table.npy")})
    api = lab.api()
    module = Module(EVERYTHING, lab.engine.numpy(), name="task", datasets=["table"])
    swarm_id = lab.run(api, lab.of(module, iterations=2))
    outputs = [task.output for task in api.get_tasks(swarm_id)]
    assert outputs == [{"rows": 7, "state": 1}, {"rows": 7, "state": 2}]
    assert sorted(api.list_result_tags(swarm_id)) == ["large"]
    assert api.select_global(swarm_id, "big").shape == (500_000,)
    assert sum("hello from" in line.text for line in api.collect_logs(swarm_id)) == 2
    lab.gone()


class Worker:
    CODE = """
class Worker:
    def setup(self):
        self.rounds = 0
    def execute(self):
        from manta.light import World
        world = World()
        self.rounds += 1
        world.results.add("trained", [world.iteration, self.rounds])
"""


class Federated(Swarm):
    """A resident worker on each node, and an aggregator that starts afresh."""

    def __init__(self) -> None:
        super().__init__(max_iteration=3)
        self.worker = Task(Module(Worker.CODE, name="worker"), method="all")
        self.aggregator = Task(
            Module(
                "def main():\n"
                "    from manta.light import World\n"
                "    found = World().get_results('trained')\n"
                "    World().results.add('sum', sum(rounds for _, rounds in found))\n",
                name="aggregator",
            ),
            method="any",
        )

    def execute(self) -> Task:
        return self.aggregator(self.worker())


@pytest.mark.parametrize("lab", [2], indirect=True)
def test_two_nodes_of_containers_and_their_rounds(lab: DockerLab) -> None:
    lab.node(1)
    lab.node(2)
    api = lab.api()
    swarm_id = lab.run(api, Federated())
    sums = [item.value for item in api.stream_results(swarm_id, tag="sum")]
    assert sums == [2, 4, 6]
    assert api.list_nodes("lab")[0].platform_info.runners == ("docker",)
    assert api.list_nodes("lab")[0].platform_info.isolation == "docker"
    lab.gone()


@pytest.mark.parametrize("lab", [2], indirect=True)
def test_containers_of_two_nodes_exchange_over_their_planes(lab: DockerLab) -> None:
    """They have no network: each is handed its connection."""
    lab.node(1)
    lab.node(2)
    api = lab.api()
    code = """
def main():
    from manta.light import World
    world = World()
    other = f"node-{2 - world.rank}"
    for size in (10, 1_000_000):
        world.send_to_node(other, "t", bytes([world.rank]) * size)
    got = [world.receive_from_node(other, "t") for _ in range(2)]
    world.broadcast(f"of {world.rank}", world.rank)
    assert world.get_broadcast(f"of {1 - world.rank}") == 1 - world.rank
    return [len(value) for value in got if set(value) == {1 - world.rank}]
"""
    swarm = lab.run(api, lab.of(Module(code, name="talk"), method="all"))
    assert [task.output for task in api.get_tasks(swarm)] == [[10, 1_000_000]] * 2
    lab.gone()


CONFINED = """
import os, socket
from manta.light import Local

def refused(path):
    try:
        with open(path, "w") as file:
            file.write("x")
    except OSError as error:
        return error.strerror
    return "written"

def main():
    data = Local().dataset_path("data")
    module = os.path.dirname(os.path.abspath(__file__))
    try:
        socket.create_connection(("127.0.0.1", PORT), timeout=1)
        network = "connected"
    except OSError as error:
        network = "refused"
    return {
        "data": refused(data / "new"), "old": refused(data / "old"),
        "module": refused(os.path.join(module, "new")), "runtime": refused("/manta/runtime/new"),
        "socket": refused("/manta/socket/new"), "network": network,
        "interfaces": os.listdir("/sys/class/net"),
        "home": os.path.exists(STATE),
    }
"""


def test_a_container_sees_what_it_may_and_changes_nothing_of_it(lab: DockerLab) -> None:
    data = lab.folder / "data"
    data.mkdir()
    (data / "old").write_text("old")
    node = lab.node(1, datasets={"data": str(data)})
    api = lab.api()
    port = lab.file.users.rpartition(":")[2]
    state = repr(str(node.context.state.path))
    code = CONFINED.replace("PORT", port).replace("STATE", state)
    swarm_id = lab.run(api, lab.of(Module(code, name="task", datasets=["data"])))
    [task] = api.get_tasks(swarm_id)
    read_only = dict.fromkeys(
        ("data", "old", "module", "runtime", "socket"), "Read-only file system"
    )
    assert task.output == {
        **read_only,
        "network": "refused",
        "interfaces": ["lo"],
        "home": False,
    }
    assert (data / "old").read_text() == "old"


LINKS = """
from manta.light import Local
from manta.light.errors import DatasetNotFound

def said(path):
    try:
        return Local().get_binary_data("data", path).read()
    except DatasetNotFound as error:
        return str(error)

def main():
    names = ("secret", "up", "other", "inside")
    return [[said(name) for name in names], [open_raw(name) for name in names]]

def open_raw(path):
    import os
    try:
        return open(os.path.join(str(Local().dataset_path("data")), path), "rb").read()
    except OSError as error:
        return type(error).__name__
"""


def test_links_of_a_dataset_lead_no_container_out_of_it(lab: DockerLab) -> None:
    """Also not by the system's own calls: what they lead to is not in the container."""
    data, other = lab.folder / "data", lab.folder / "other"
    for folder in (data, other):
        folder.mkdir()
    secret = lab.folder / "secret"
    secret.write_text("secret")
    (other / "file").write_text("other")
    (data / "file").write_text("inside")
    for name, target in (
        ("secret", str(secret)),
        ("up", "../secret"),
        ("other", str(other / "file")),
        ("inside", "file"),
    ):
        (data / name).symlink_to(target)
    lab.node(1, datasets={"data": str(data), "other": str(other)})
    api = lab.api()
    swarm_id = lab.run(api, lab.of(Module(LINKS, name="task", datasets=["data"])))
    [task] = api.get_tasks(swarm_id)
    assert task.output is not None
    told, opened = task.output
    for name, sentence in zip(("secret", "up", "other"), told, strict=False):
        assert sentence.startswith(f"{name!r} of the dataset 'data' leads out of it, to ")
    assert told[3] == opened[3] == b"inside"
    assert opened[:3] == ["FileNotFoundError"] * 3


ALONE = """FROM BASE
ENTRYPOINT ["/bin/sh", "-c"]
CMD ["%s"]
"""


def alone(lab: DockerLab, script: str) -> Module:
    return Module(None, lab.engine.build(ALONE % script.replace('"', '\\"')), name="alone")


def test_an_image_alone_runs_its_own_entry_point(lab: DockerLab) -> None:
    lab.node(1)
    api = lab.api()
    module = alone(
        lab,
        "echo hello $MANTA_TASK $MANTA_ITERATION; echo oops >&2; cd $MANTA_SCRATCH && "
        "mkdir -p a && echo x > a/b",
    )
    swarm_id = lab.run(api, lab.of(module, iterations=2))
    tasks = api.get_tasks(swarm_id)
    assert [task.status for task in tasks] == ["FINISHED", "FINISHED"]
    lines = [(line.stream, line.text) for line in api.collect_logs(swarm_id)]
    assert sorted(lines) == [
        ("stderr", "oops"),
        ("stderr", "oops"),
        ("stdout", "hello alone 0"),
        ("stdout", "hello alone 1"),
    ]
    lab.gone()


def test_an_image_that_fails_is_a_task_that_failed(lab: DockerLab) -> None:
    lab.node(1)
    api = lab.api()
    swarm_id = lab.run(api, lab.of(alone(lab, "printf 'last words'; exit 3")), "FAILED")
    [task] = api.get_tasks(swarm_id)
    assert task.status == "FAILED"
    assert task.error is not None
    assert task.error.sentence.startswith(
        "alone.0 failed: its image's entry point exited with code 3. Its image is manta-test:"
    )
    assert task.error.last_lines == ("last words",)
    swarm_id = lab.run(api, lab.of(alone(lab, "sleep 600"), timeout=0.5), "FAILED")
    [task] = api.get_tasks(swarm_id)
    assert task.status == "TIMEOUT"
    lab.gone()


def test_an_image_that_is_not_to_be_had(lab: DockerLab) -> None:
    lab.node(1)
    api = lab.api()
    for image in ("localhost:1/nobody/nothing:1", "localhost:1/NO-Image"):
        module = Module("def main():\n    pass\n", image, name="task")
        swarm_id = lab.run(api, lab.of(module), "FAILED")
        [task] = api.get_tasks(swarm_id)
        assert task.status == "FAILED"
        assert task.error is not None
        sentence = task.error.sentence
        assert sentence.startswith(f"The image {image!r} is not on node 'node-1' and cannot be")
        assert "Bring it there (docker pull, load or build)" in sentence


def test_an_image_without_python(lab: DockerLab) -> None:
    lab.node(1)
    api = lab.api()
    image = lab.engine.build("FROM BASE\nRUN rm /usr/bin/python3*\n")
    swarm_id = lab.run(api, lab.of(Module("def main():\n    pass\n", image, name="t")), "FAILED")
    [task] = api.get_tasks(swarm_id)
    assert task.error is not None
    assert "has no python3" in task.error.sentence, task.error


def test_an_image_alone_that_has_nothing_to_run(lab: DockerLab) -> None:
    lab.node(1)
    api = lab.api()
    image = lab.engine.build("FROM BASE\nENTRYPOINT []\nCMD []\n")
    swarm_id = lab.run(api, lab.of(Module(None, image, name="t")), "FAILED")
    [task] = api.get_tasks(swarm_id)
    assert task.status == "FAILED"
    assert task.error is not None
    assert "refused: No command specified" in task.error.sentence


def test_on_a_node_of_both_only_modules_with_an_image_run_in_one(
    bubblewrap: None, lab: DockerLab
) -> None:
    node = lab.node(1, containers={"runner": "auto"})
    assert node.context.runner.names == ("docker", "bwrap")
    api = lab.api()
    code = "import os\ndef main():\n    return os.path.exists('/manta/runtime')\n"
    for image, inside in ((None, False), (lab.engine.base(), True)):
        swarm_id = lab.run(api, lab.of(Module(code, image, name="task")))
        [task] = api.get_tasks(swarm_id)
        assert task.output is inside
    lab.gone()


def test_what_a_container_writes_can_be_removed(lab: DockerLab) -> None:
    node = lab.node(1)
    api = lab.api()
    code = """
import os
def main():
    os.makedirs("deep/er")
    os.chmod("deep/er", 0o500)
    return os.getuid()
"""
    swarm_id = lab.run(api, lab.of(Module(code, name="task")))
    [task] = api.get_tasks(swarm_id)
    assert task.output == (TASKS_USER if os.getuid() == 0 else os.getuid())
    lab.gone()
    assert node.context.state.tasks.exists()


def test_manta_run_in_containers(lab: DockerLab) -> None:
    file = lab.folder / "swarm.py"
    file.write_text(
        "from manta import Module, Swarm, Task\n"
        "class Hello(Swarm):\n"
        "    def execute(self):\n"
        "        code = 'import os\\ndef main():\\n    print(sorted(os.listdir(\"/manta\")))\\n'\n"
        f"        return Task(Module(code, {lab.engine.base()!r}, name='hello'))\n"
    )
    command = [MANTA, "run", str(file), "--nodes", "1", "--runner", "docker"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done
    assert "['module', 'runtime', 'scratch', 'socket']" in done.stdout + done.stderr
    assert not lab.engine.containers()
