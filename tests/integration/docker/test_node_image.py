"""The image manta/node, built as it is written, and a node in it against a real manager."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest

from manta import Module
from manta.protocol.version import VERSION
from tests.integration.docker.conftest import DockerLab
from tests.support.engine import TestEngine, tool

ROOT = Path(__file__).parents[3]

BASE = """FROM BASE
RUN apt-get update -qq \\
    && apt-get install -qq -y --no-install-recommends python3-venv >/dev/null
"""


OWNER = 12345
"""The user id of the operator, which the image does not know."""


@pytest.fixture(scope="module")
def image(engine: TestEngine, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Built from wheels alone: there is no registry, and the image does not know this network."""
    folder = tmp_path_factory.mktemp("image")
    base = engine.build(BASE)
    engine.hang_up()
    wheels = folder / "wheels"
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    alone = ["--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "wheel", *alone, "--wheel-dir", wheels, ROOT], check=True)
    lock = ROOT / "packaging" / "node.lock"
    platform = ["--only-binary=:all:", "--python-version", "3.11", "--require-hashes"]
    subprocess.run([*pip, "download", *platform, "--dest", wheels, "-r", lock], check=True)
    for file in (ROOT / "packaging" / "image" / "Dockerfile", ROOT / "packaging" / "sbom.py", lock):
        shutil.copy(file, folder)
    command = [tool("docker"), "--host", engine.address, "build", "--quiet"]
    command += ["--network", "host", "--tag", "manta/node", "--build-arg", f"BASE={base}"]
    command += ["--build-arg", "PIP_OPTIONS=--no-index --find-links /build/wheels", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    return "manta/node"


@pytest.mark.parametrize("lab", [0], indirect=True)
def test_a_node_in_its_image_enrols_runs_and_ends(lab: DockerLab, image: str) -> None:
    api = lab.api()
    client = lab.engine.client
    host, _, port = lab.file.nodes.removeprefix("tcp://").rpartition(":")
    container = client.create_container(
        image,
        environment={
            "MANTA_NODE_TOKEN": api.create_node_token("lab"),
            "MANTA_NODE_ALIAS": "boxed",
            "MANTA_NODE_MANAGER_HOST": host,
            "MANTA_NODE_MANAGER_PORT": port,
            "MANTA_NODE_ALLOW_UNSANDBOXED": "true",
        },
        host_config=client.create_host_config(network_mode="host"),
    )["Id"]
    client.start(container)
    try:
        lab.wait_until(
            lambda: [n.alias for n in api.list_nodes("lab") if n.status == "CONNECTED"],
            what=lambda: client.logs(container).decode(),
        )
        code = (
            "import os\ndef main():\n"
            "    return [os.getcwd(), os.path.exists('/opt/manta'), os.getuid()]\n"
        )
        swarm_id = lab.run(api, lab.of(Module(code, name="task")))
        [task] = api.get_tasks(swarm_id)
        assert task.node_alias == "boxed"
        assert task.output[0].startswith("/root/.manta/state/nodes/default/tasks/")
        assert task.output[1:] == [True, 10001]  # the image's own user, which is not root
        client.stop(container, timeout=20)
        assert client.inspect_container(container)["State"]["ExitCode"] == 0
    finally:
        client.remove_container(container, force=True, v=True)


@pytest.mark.parametrize("lab", [0], indirect=True)
def test_it_lists_what_it_holds(lab: DockerLab, image: str) -> None:
    client = lab.engine.client
    assert client.inspect_image(image)["Config"]["User"] == "10001:10001"

    def said(*command: str) -> str:
        container = client.create_container(image, command[1:], entrypoint=command[0])["Id"]
        try:
            client.start(container)
            assert client.wait(container)["StatusCode"] == 0
            return str(client.logs(container, stderr=False).decode())
        finally:
            client.remove_container(container, force=True, v=True)

    bill = json.loads(said("cat", "/opt/manta/sbom.cdx.json"))
    listed = {one["purl"].partition("?")[0] for one in bill["components"]}
    installed = json.loads(said("/opt/manta/bin/pip", "list", "--format=json"))
    for one in installed:
        name = re.sub(r"[-_.]+", "-", one["name"]).lower()
        assert f"pkg:pypi/{name}@{quote(one['version'])}" in listed
    system = said("dpkg-query", "--show", "--showformat=${Package} ${Version}\\n").split("\n")
    assert len(system) > 50
    for line in filter(None, system):
        name, version = line.split()
        assert f"pkg:deb/debian/{quote(name)}@{quote(version)}" in listed
    assert bill["metadata"]["component"]["version"] == VERSION
    assert "build" not in said("ls", "/").split()


@pytest.mark.parametrize("lab", [0], indirect=True)
def test_it_reads_the_home_that_its_operator_mounts(
    lab: DockerLab, image: str, tmp_path: Path
) -> None:
    api = lab.api()
    client = lab.engine.client
    host, _, port = lab.file.nodes.removeprefix("tcp://").rpartition(":")
    home = tmp_path / "home"
    (home / "nodes").mkdir(parents=True)
    (home / "nodes" / "edge.toml").write_text(
        f"[identity]\nsecured_token = '{api.create_node_token('lab')}'\nalias = 'mounted'\n"
        f"id = 'random'\n[network]\nmanager_host = '{host}'\nmanager_port = {port}\n"
        "[containers]\nallow_unsandboxed = true\n"
    )
    for path in (home, *home.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
        os.chown(path, OWNER, OWNER)
    config = client.create_host_config(network_mode="host", binds=[f"{home}:/root/.manta"])
    container = client.create_container(
        image, command=["start", "edge"], user=f"{OWNER}:{OWNER}", host_config=config
    )["Id"]
    client.start(container)
    try:
        lab.wait_until(
            lambda: [n.alias for n in api.list_nodes("lab") if n.status == "CONNECTED"],
            what=lambda: client.logs(container).decode(),
        )
        swarm_id = lab.run(api, lab.of(Module("import os\ndef main(): return os.getuid()\n")))
        [task] = api.get_tasks(swarm_id)
        assert (task.node_alias, task.output) == ("mounted", OWNER)
        client.stop(container, timeout=20)
        key = home / "state" / "nodes" / "edge" / "node.key"
        assert key.stat().st_uid == OWNER
    finally:
        client.remove_container(container, force=True, v=True)


@pytest.mark.parametrize("lab", [0], indirect=True)
def test_beside_it_run_its_tasks_if_it_may_use_the_engine(
    lab: DockerLab, image: str, tmp_path: Path
) -> None:
    """What it names the engine finds elsewhere, or is told of by the node to be its own alone."""
    api = lab.api()
    client = lab.engine.client
    host, _, port = lab.file.nodes.removeprefix("tcp://").rpartition(":")
    home, data = tmp_path / "home", tmp_path / "data"
    (home / "nodes").mkdir(parents=True)
    data.mkdir()
    (data / "lines.txt").write_text("a\nb\n")
    (home / "nodes" / "edge.toml").write_text(
        f"[identity]\nsecured_token = '{api.create_node_token('lab')}'\nalias = 'beside'\n"
        f"id = 'random'\n[network]\nmanager_host = '{host}'\nmanager_port = {port}\n"
        f"[containers]\nrunner = 'docker'\ndefault_image = '{lab.engine.base()}'\n"
        "[datasets.mappings]\nlines = '/data/lines.txt'\nown = '/etc/passwd'\n"
    )
    for path in (home, *home.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
        os.chown(path, OWNER, OWNER)
    socket = lab.engine.address.removeprefix("unix://")
    config = client.create_host_config(
        network_mode="host",
        binds=[
            f"{home}:/root/.manta",
            f"{data}:/data:ro",
            f"{socket}:/var/run/docker.sock",
        ],
        group_add=[str(os.stat(socket).st_gid)],
    )
    container = client.create_container(
        image, command=["start", "edge"], user=f"{OWNER}:{OWNER}", host_config=config
    )["Id"]
    client.start(container)
    try:
        lab.wait_until(
            lambda: [n.alias for n in api.list_nodes("lab") if n.status == "CONNECTED"],
            what=lambda: client.logs(container).decode(),
        )
        code = (
            "import os\nfrom manta.light import Local\ndef main():\n"
            "    with open('mine', 'w') as file:\n        file.write('x')\n"
            "    return [os.path.exists('/opt/manta'), os.getuid(), "
            "Local().read_file_lines('lines')]\n"
        )
        swarm_id = lab.run(api, lab.of(Module(code, name="task", datasets=["lines"])))
        [task] = api.get_tasks(swarm_id)
        assert (task.node_alias, task.output) == ("beside", [False, OWNER, ["a", "b"]])
        module = Module("def main():\n    pass\n", name="task", datasets=["own"])
        swarm_id = lab.run(api, lab.of(module), "FAILED")
        error = api.get_tasks(swarm_id)[0].error
        assert error is not None
        assert "/etc/passwd is in the node's own container alone" in error.sentence
        lab.wait_until(lambda: [c["Id"] for c in lab.engine.containers()] == [container])
        assert list((home / "state" / "nodes" / "edge" / "tasks").iterdir()) == []
        client.stop(container, timeout=20)
    finally:
        client.remove_container(container, force=True, v=True)
