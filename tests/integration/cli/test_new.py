"""`manta new`: each template runs by the commands that are printed, and its tests pass."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from manta.cli.commands.new import FOLDER, TEMPLATES

ROOT = Path(__file__).parents[3]
BIN = Path(sys.executable).parent
SAYS = {
    "average": r"iteration   2 .*mean 6\n\nCOMPLETED: ran 3 iterations",
    "fl": r"iteration   9 .*accuracy (0\.9|1\.0)\d+\n\nCOMPLETED: ran 10 iterations",
    "fl-torch": r"iteration   9 .*accuracy (0\.9|1\.0)\d+\n\nCOMPLETED: ran 10 iterations",
    "mesh": r"4 peers found y = (2\.9|3\.0)\d x \+ (0\.9|1\.0)\d",
    "notebook": "",  # its last cell says
    "pipeline": r"count 15 .*most 24\b.*\n\nCOMPLETED",
}


def shell(command: str, home: Path, folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """As a user whose environment has Manta, its extras and pytest."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MANTA_")}
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        command,
        shell=True,
        cwd=folder,
        env={**kept, "PATH": path, "MANTA_HOME": str(home), **more},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )


def skip_without(template: str) -> None:
    for module in TEMPLATES[template].needs:
        if find_spec(module) is None:
            pytest.skip(f"{module} is not installed")


def test_every_template_is_tried_and_has_a_folder() -> None:
    assert set(SAYS) == set(TEMPLATES) == {path.name for path in FOLDER.iterdir()}


@pytest.mark.parametrize("template", TEMPLATES)
def test_what_a_template_makes_runs_at_once_and_passes_its_tests(
    template: str, tmp_path: Path
) -> None:
    skip_without(template)
    home = tmp_path / "home"
    made = shell(f"manta new 'a study' --template {template}", home, tmp_path)
    assert made.returncode == 0, made.stderr
    first, *commands = made.stdout.splitlines()
    assert first == "Created a study. Run it:"
    said = ""
    for command in commands:
        done = shell(command, home, tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        said = done.stdout
    if template == "notebook":
        written = json.loads((tmp_path / "a study" / "notebook.ipynb").read_text())
        *_, last = written["cells"]
        assert last["outputs"][0]["data"]["text/plain"] == ["6.0"]
    else:
        assert re.search(SAYS[template], said), said
    tested = shell("pytest 'a study'", home, tmp_path)
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert " passed" in tested.stdout
    assert "AStudy" in "".join(path.read_text() for path in (tmp_path / "a study").glob("*.*"))


@pytest.mark.parametrize("template", TEMPLATES)
def test_what_a_template_makes_is_in_good_form(template: str, tmp_path: Path) -> None:
    assert shell(f"manta new study --template {template}", tmp_path, tmp_path).returncode == 0
    options = f"--config {ROOT / 'pyproject.toml'} --no-cache --quiet study"
    for command in (f"ruff check --ignore D,T20 {options}", f"ruff format --check {options}"):
        done = shell(command, tmp_path, tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_made_is_told_as_json(tmp_path: Path) -> None:
    done = shell("manta new study --template pipeline --json", tmp_path, tmp_path)
    assert json.loads(done.stdout) == {
        "folder": "study",
        "template": "pipeline",
        "files": ["README.md", "swarm.py", "test_tasks.py"],
        "commands": ["manta run study/swarm.py --nodes 3"],
        "missing": [],
    }


def test_without_torch_one_sentence_says_so(tmp_path: Path) -> None:
    """At creation, and again to who runs it all the same."""
    (tmp_path / "hidden").mkdir()
    hide = "import sys; sys.modules['torch'] = None"  # find_spec, and imports, then see none
    (tmp_path / "hidden" / "sitecustomize.py").write_text(hide)
    without = {"PYTHONPATH": str(tmp_path / "hidden")}
    made = shell("manta new study --template fl-torch", tmp_path, tmp_path, **without)
    assert made.returncode == 0, made.stderr
    assert made.stdout.splitlines()[-1] == "Not installed yet: pip install torch"
    assert shell("python study/make_data.py", tmp_path, tmp_path, **without).returncode == 0
    done = shell("manta run study/swarm.py", tmp_path, tmp_path, **without)
    assert done.returncode != 0
    assert done.stderr == "Error: This swarm needs torch: pip install torch.\n"


def test_a_template_that_there_is_not_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    done = shell("manta new study --template ml", tmp_path, tmp_path)
    assert done.returncode == 2
    assert "'fl-torch'" in done.stderr
    assert not (tmp_path / "study").exists()
