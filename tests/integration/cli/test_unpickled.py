"""No process of Manta's takes a pickle apart, whatever a swarm exchanges."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.lab import manta

HOOK = """
import os, sys
SEEN = {seen!r}
def note(what):
    with open(SEEN, "a") as file:
        file.write(f"{{what}} {{os.getpid()}} {{' '.join(sys.orig_argv[1:4])}}\\n")
def hook(event, args):
    if event == "pickle.find_class":
        note(f"unpickles {{args}}")
sys.addaudithook(hook)
"""

WORK = """
import pickle

import numpy as np

from manta.light import Results, World

{hook}


def main():
    world = World()
    value = {{"a": np.arange(10), "b": [1.5, "two", None, (3, b"4")]}}
    world.globals[f"of {{world.rank}}"] = value
    world.broadcast("all", value)
    world.get_broadcast("all")
    world.send_to_node(world.node_id, "own", value)
    assert world.receive_from_node(world.node_id, "own")["b"] == value["b"]
    assert (world.all_reduce(value["a"]) == 2 * value["a"]).all()
    world.checkpoint(value)
    Results().save(value, tag="found")
    if {loads}:
        pickle.loads(pickle.dumps(np.ndarray))
    return value
"""

SWARM = """
from manta import Swarm, Task


class Exchanging(Swarm):
    def execute(self):
        return Task("work.py", replicas=2)()
"""


@pytest.mark.parametrize("loads", [False, True], ids=["by Manta", "by a task of its own accord"])
def test_nothing_is_unpickled(tmp_path: Path, loads: bool) -> None:
    seen, site = tmp_path / "seen", tmp_path / "site"
    site.mkdir()
    hook = HOOK.format(seen=str(seen))
    (site / "sitecustomize.py").write_text(f"{hook}\nnote('began')\n")
    file = tmp_path / "swarm.py"
    file.write_text(SWARM)
    (tmp_path / "work.py").write_text(WORK.format(hook=hook, loads=loads))
    # No sandbox: what watches lies outside of it, and tells what it has seen there.
    options = ["--nodes", "2", "--runner", "limits"]
    done = manta("run", file, *options, PYTHONPATH=site, MANTA_HOME=tmp_path / "home")
    assert done.returncode == 0, done.stderr
    lines = seen.read_text().splitlines()
    began = {line.split()[1] for line in lines if line.startswith("began")}
    assert len(began) >= 4  # the command, the manager, two nodes
    assert any(line.startswith("unpickles") for line in lines) is loads
