"""What modules require, in containers."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from manta import Module
from tests.integration.docker.conftest import DockerLab
from tests.support.engine import PYTHON
from tests.support.pythons import PYTHONS
from tests.support.wheels import wheel

pytestmark = pytest.mark.timeout(240)

CODE = """
import subprocess, sys
import greeting

def main():
    command = [sys.executable, "-c", "import greeting; print(greeting.VERSION)"]
    started = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    try:
        open(greeting.__file__, "a")
    except OSError as error:
        return [greeting.VERSION, started.strip(), type(error).__name__]
"""


@pytest.fixture
def index(tmp_path: Path) -> Path:
    wheel(tmp_path / "index", "greeting", "2.0")
    return tmp_path / "index"


@pytest.mark.skipif(
    f"{sys.version_info.major}.{sys.version_info.minor}" != PYTHON,
    reason=f"the engine's base image has Python {PYTHON}, and this is another",
)
def test_an_image_with_the_node_s_python_has_what_is_required(lab: DockerLab, index: Path) -> None:
    lab.node(1, requirements={"index": str(index)})
    api = lab.api()
    module = Module(CODE, name="task", requirements=["greeting"])
    [task] = api.get_tasks(lab.run(api, lab.of(module)))
    assert task.output == ["2.0", "2.0", "PermissionError"]  # nor is it the task's
    lab.gone()


def test_an_image_with_another_python_is_refused_with_the_remedy(
    lab: DockerLab, index: Path
) -> None:
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    image = lab.engine.python(next(PYTHONS[each] for each in PYTHONS if each != here))
    lab.node(1, requirements={"index": str(index)})
    api = lab.api()
    module = Module(CODE, image, name="task", requirements=["greeting"])
    [task] = api.get_tasks(lab.run(api, lab.of(module), "FAILED"))
    assert task.error is not None
    assert "was installed for the node's Python" in task.error.sentence
    assert "take an image with that Python" in task.error.sentence
    lab.gone()
