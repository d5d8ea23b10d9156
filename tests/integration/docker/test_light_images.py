"""The images for tasks, built as they are written, and a task in each."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from manta import Module
from tests.integration.docker.conftest import DockerLab
from tests.support.engine import PYTHON, tool

IMAGES = Path(__file__).parents[3] / "light" / "images"
BASE = """FROM BASE
RUN apt-get update -qq \\
    && apt-get install -qq -y --no-install-recommends python3-venv >/dev/null
"""

pytestmark = pytest.mark.timeout(600)


def built(lab: DockerLab, target: str, folder: Path) -> str:
    """From wheels alone: there is no registry, and the image does not know this network."""
    wheels, base = folder / "wheels", lab.engine.build(BASE)
    shutil.copytree(IMAGES, folder, dirs_exist_ok=True)
    requirements = ["-r", str(IMAGES / "latest.txt")]
    if target == "pytorch":
        requirements += ["-r", str(IMAGES / "pytorch.txt")]
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "download"]
    platform = ["--only-binary=:all:", "--python-version", PYTHON, "--dest", str(wheels)]
    subprocess.run([*pip, *platform, *requirements], check=True)
    dockerfile = (IMAGES / "Dockerfile").read_text()
    # Each stage has its wheels where pip looks for them, and in no layer of the image as published.
    local = dockerfile.replace("/opt/task/\nRUN", "/opt/task/\nCOPY wheels /wheels\nRUN")
    assert local.count("COPY wheels") == dockerfile.count("FROM ")
    (folder / "Dockerfile").write_text(local)
    name = f"manta_light:{target}"
    command = [tool("docker"), "--host", lab.engine.address, "build", "--quiet"]
    command += ["--network", "host", "--target", target, "--tag", name]
    command += ["--build-arg", f"BASE={base}"]
    command += ["--build-arg", "PIP_OPTIONS=--no-index --find-links /wheels", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    return name


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("latest", "import numpy\ndef main():\n    return int(numpy.arange(4).sum())\n"),
        ("pytorch", "import torch\ndef main():\n    return int(torch.arange(4).sum())\n"),
    ],
)
def test_a_task_runs_in_it(lab: DockerLab, tmp_path: Path, target: str, code: str) -> None:
    """By the name that a module's `image` has for short."""
    assert built(lab, target, tmp_path) == f"manta_light:{target}"
    lab.node(1)
    api = lab.api()
    swarm_id = lab.run(api, lab.of(Module(code, target, name="task")))
    assert [task.output for task in api.get_tasks(swarm_id)] == [6]
    user = lab.engine.client.inspect_image(f"manta_light:{target}")["Config"]["User"]
    assert user == "65532:65532"
    lab.gone()
