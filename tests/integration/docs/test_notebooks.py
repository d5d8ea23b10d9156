"""The notebooks of examples/notebooks run, and show what is stored in them and on the site; what a
cell shows is updated in place."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from manta.light.runtime.processes import marked
from manta.testing.waiting import wait_until
from tests.support.documents import ROOT, matches

FOLDER = ROOT / "examples" / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
WATCHED = """
import json, sys
from jupyter_client.manager import start_new_kernel

manager, client = start_new_kernel(kernel_name="python3")
heard = []
for cell in sys.argv[1].split("# %%"):
    asked, ended = client.execute(cell), False
    while not ended:
        message = client.get_iopub_msg(timeout=120)
        kind, content = message["msg_type"], message["content"]
        heard.append([kind, content])
        ended = kind == "status" and content["execution_state"] == "idle"
        ended = ended and message["parent_header"]["msg_id"] == asked
client.stop_channels()
manager.shutdown_kernel(now=True)
json.dump(heard, sys.stdout, default=str)
"""


def displayed(source: str) -> tuple[list[dict[str, str]], list[list[dict[str, str]]]]:
    """What these cells show when a kernel runs them: at first, and each update of that."""
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, source],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first, updates = list[dict[str, str]](), dict[str, list[dict[str, str]]]()
    for kind, content in json.loads(done.stdout):
        assert kind != "error", content["traceback"]
        if kind == "display_data":
            first.append(content["data"])
            updates[content["transient"]["display_id"]] = []
        elif kind == "update_display_data":
            updates[content["transient"]["display_id"]].append(content["data"])
    return first, [*updates.values()]


def outputs(path: Path) -> list[list[tuple[list[str], str]]]:
    """Of each cell, what it shows: in which forms, and as text."""
    found = []
    for cell in json.loads(path.read_text())["cells"]:
        shown = []
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            text = "".join(output.get("text", data.get("text/plain", "")))
            shown.append((sorted(data), re.sub(r" at 0x[0-9a-f]+", "", text)))
        found.append(shown)
    return found


@pytest.fixture(scope="module")
def today(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("notebooks")
    command = [sys.executable, str(ROOT / ".ci" / "notebooks.py"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=250)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_shows_what_is_stored_in_it(name: str, today: Path) -> None:
    kept, said = outputs(FOLDER / f"{name}.ipynb"), outputs(today / f"{name}.ipynb")
    assert len(kept) == len(said)
    for before, now in zip(kept, said, strict=True):
        assert [forms for forms, _ in before] == [forms for forms, _ in now]
        for (_, old), (_, new) in zip(before, now, strict=True):
            assert matches(old, new), f"run `make notebooks`:\n{new}"
    assert any("COMPLETED" in text for cell in kept for _, text in cell)


@pytest.mark.parametrize("name", NAMES)
def test_the_site_has_a_notebook_with_its_pictures(name: str) -> None:
    page = (ROOT / "docs" / "notebooks" / f"{name}.md").read_text()
    assert f"<!-- notebook: examples/notebooks/{name}.ipynb -->" in page
    spec = importlib.util.spec_from_file_location("docs_hooks", ROOT / ".ci" / "docs_hooks.py")
    assert spec is not None
    assert spec.loader is not None
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    made = hooks.notebook(FOLDER / f"{name}.ipynb")
    cells = json.loads((FOLDER / f"{name}.ipynb").read_text())["cells"]
    assert made.count("```python\n") == sum(cell["cell_type"] == "code" for cell in cells)
    drawn = sum(
        "image/png" in forms for cell in outputs(FOLDER / f"{name}.ipynb") for forms, _ in cell
    )
    assert made.count('src="data:image/png;base64,') == drawn
    assert "COMPLETED" in made


def test_a_run_is_one_output_that_is_updated_in_place() -> None:
    first, (updates,) = displayed(
        "from manta import Swarm, Task\n"
        "def measure(world):\n"
        "    print('<b>', world.iteration)\n"
        "class Rounds(Swarm):\n"
        "    def __init__(self):\n"
        "        super().__init__(max_iteration=3)\n"
        "        self.measure = Task(measure)\n"
        "# %%\n"
        "outcome = Rounds().run(nodes=1)"
    )
    assert len(first) == 1
    assert "starting a manager" in first[0]["text/plain"], "which is live"
    assert len(updates) > 3
    said = updates[-1]["text/plain"]
    assert "starting a manager" not in said
    assert said.endswith("COMPLETED: ran 3 iterations")
    assert "&lt;b&gt; 2" in updates[-1]["text/html"]


def test_a_view_lives_in_the_running_loop_while_other_cells_run() -> None:
    (first,), (updates,) = displayed(
        "import asyncio\n"
        "from manta.notebook import watch\n"
        "from manta.apis.overviews import SwarmOverview\n"
        "more = asyncio.Queue()\n"
        "def swarm(status):\n"
        "    return SwarmOverview('id', '<i>', 'lab', status, '', 0, 2, 0.0, None, None, 1)\n"
        "async def swarms():\n"
        "    while (status := await more.get()) is not None:\n"
        "        yield swarm(status)\n"
        "# %%\n"
        "view = watch(swarms())\n"
        "more.put_nowait('ACTIVE')\n"
        "await asyncio.sleep(0)\n"
        "while not more.empty(): await asyncio.sleep(0.01)\n"
        "# %%\n"
        "more.put_nowait('COMPLETED')\n"
        "more.put_nowait(None)\n"
        "await view"
    )
    assert "ACTIVE" in first["text/plain"]
    assert "&lt;i&gt;" in first["text/html"]
    assert "COMPLETED" in updates[-1]["text/plain"], "by a cell after it"
    assert "ACTIVE" not in updates[-1]["text/html"]


RESTARTED = """
import sys
from jupyter_client.manager import start_new_kernel

def show(message):
    sys.stdout.write(message["content"].get("text", ""))

manager, client = start_new_kernel(kernel_name="python3")
for cell in sys.argv[1:]:
    said = client.execute_interactive(cell, timeout=120, output_hook=show)
    assert said["content"]["status"] == "ok", said["content"]
    manager.restart_kernel(now=True)
    client.wait_for_ready(timeout=120)
client.stop_channels()
manager.shutdown_kernel(now=True)
"""


def test_a_kernel_that_restarts_in_mid_run_leaves_nothing_and_runs_again() -> None:
    cell = (
        "import manta, os\n"
        "def rests(world):\n"
        "    import time\n"
        "    world.results.add('there', 1)\n"
        "    time.sleep(600)\n"
        "class Rests(manta.Swarm):\n"
        "    def execute(self):\n"
        "        return manta.Task(rests)()\n"
        "cluster = manta.LocalCluster(nodes=1)\n"
        "api = cluster.__enter__()\n"
        "found = api.stream_results(api.deploy_swarm(Rests()), attempts='all')\n"
        "next(iter(found))\n"
        "print(cluster.folder)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", RESTARTED, cell, cell],
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = done.stdout.split()
    assert first != second
    wait_until(lambda: all(is_gone(folder) for folder in (first, second)))


def is_gone(folder: str) -> bool:
    return not Path(folder).exists() and not marked(f"MANTA_HOME={folder}")
