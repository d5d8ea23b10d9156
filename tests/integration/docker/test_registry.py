"""Images that are only in a registry: a real one, on the loopback."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from manta import Module
from manta.node.runners import docker
from manta.testing import wait_until
from tests.integration.docker.conftest import DockerLab
from tests.support.engine import TestEngine, tool
from tests.support.ports import free_ports

CONFIG = """
version: 0.1
storage:
  filesystem:
    rootdirectory: {folder}
http:
  addr: 127.0.0.1:{port}
"""


class Registry:
    def __init__(self, folder: Path, port: int, engine: TestEngine) -> None:
        self.blobs = folder / "docker/registry/v2/blobs/sha256"
        self._name = f"127.0.0.1:{port}"
        self._engine = engine

    def image(self, name: str) -> str:
        """One of a few hundred kilobytes that says its version; only the registry has it."""
        client = self._engine.client
        image = f"{self._name}/{name}"
        with tempfile.TemporaryDirectory(prefix="manta-tiny-") as folder:
            shutil.copy(tool("docker-init"), Path(folder, "tini"))
            Path(folder, "name").write_text(name)  # so that no two share a layer
            recipe = 'FROM scratch\nCOPY files /\nENTRYPOINT ["/tini", "--version"]\n'
            built = self._engine.build(recipe, Path(folder))
        client.tag(built, image)
        for step in client.push(image, stream=True, decode=True):
            assert "error" not in step, step
        client.remove_image(image)
        client.remove_image(built)
        return image


@pytest.fixture
def registry(lab: DockerLab) -> Iterator[Registry]:
    folder = Path(tempfile.mkdtemp(prefix="manta-registry-"))
    [port] = free_ports(1)
    (folder / "config.yml").write_text(CONFIG.format(folder=folder, port=port))
    command = [tool("setpriv"), "--pdeathsig=KILL", tool("docker-registry"), "serve"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*command, str(folder / "config.yml")], stdout=log, stderr=log)
    with process:
        try:
            wait_until(lambda: _answers(port), what=(folder / "log").read_text)
            yield Registry(folder, port, lab.engine)
        finally:
            process.kill()
    shutil.rmtree(folder)


def _answers(port: int) -> bool:
    with socket.socket() as door:
        return door.connect_ex(("127.0.0.1", port)) == 0


def test_an_image_that_only_the_registry_has_is_pulled_once(
    lab: DockerLab, registry: Registry
) -> None:
    image = registry.image("hello:1")
    lab.node(1)
    api = lab.api()
    swarm_id = lab.run(api, lab.of(Module(None, image, name="task"), replicas=2))
    assert [task.status for task in api.get_tasks(swarm_id)] == ["FINISHED", "FINISHED"]
    lines = [line.text for line in api.collect_logs(swarm_id)]
    assert sum("tini version" in line for line in lines) == 2
    assert f"The image {image!r} is not on node 'node-1': pulling it." in lines
    assert any(line.startswith(f"The image {image!r} was pulled in ") for line in lines)

    swarm_id = lab.run(api, lab.of(Module(None, image, name="task")))
    assert not any("pull" in line.text for line in api.collect_logs(swarm_id))
    lab.engine.client.remove_image(image)
    lab.gone()


def test_images_that_the_node_has_pulled_go_where_they_take_too_much_and_no_others(
    lab: DockerLab, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, api = lab.engine.client, lab.api()
    names = [registry.image(f"kept:{number}") for number in range(4)]
    others, used = names[0], names[1]
    for step in client.pull(others, stream=True, decode=True):
        assert "error" not in step, step

    def runs(image: str) -> None:
        lab.run(api, lab.of(Module(None, image, name="task")))

    def there() -> set[str]:
        found = {name for one in client.images() for name in one["RepoTags"] or ()}
        return found & set(names)

    with lab.node(1):
        runs(others)
        runs(used)
        runs(names[2])
    container = client.create_container(used)["Id"]
    assert there() == {others, used, names[2]}
    with lab.node(1, containers={"images_mb": 0}):  # at its start
        assert there() == {others, used}
        runs(names[3])
        assert there() == {others, used, names[3]}  # its container could be yet to be made
        monkeypatch.setattr(docker, "_RECENT", 0.0)
        runs(others)
        lab.wait_until(lambda: there() == {others, used})
        client.remove_container(container)
        runs(others)
        lab.wait_until(lambda: there() == {others})
    client.remove_image(others)


def failure(lab: DockerLab, image: str) -> str:
    api = lab.api()
    swarm_id = lab.run(api, lab.of(Module(None, image, name="task")), "FAILED")
    [task] = api.get_tasks(swarm_id)
    assert task.status == "FAILED"
    assert task.error is not None
    sentence = task.error.sentence
    assert sentence.startswith(f"The image {image!r} is not on node 'node-1' and cannot be pulled:")
    assert "Bring it there (docker pull, load or build)" in sentence
    return sentence


def test_an_image_that_the_registry_does_not_have(lab: DockerLab, registry: Registry) -> None:
    image = registry.image("hello:1")
    lab.node(1)
    assert "manifest unknown" in failure(lab, image.replace("hello:1", "hello:2"))
    assert "not found" in failure(lab, image.replace("hello:1", "nothing:1"))
    lab.run(lab.api(), lab.of(Module(None, image, name="task")))  # and what failed can be mended
    lab.engine.client.remove_image(image)


def test_an_image_whose_pull_breaks_off(lab: DockerLab, registry: Registry) -> None:
    image = registry.image("broken:1")
    [largest, *_] = sorted(
        registry.blobs.glob("*/*/data"), key=lambda file: file.stat().st_size, reverse=True
    )
    largest.unlink()
    lab.node(1)
    failure(lab, image)
