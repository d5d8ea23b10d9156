"""A node whose disk takes nothing more says so, gets no work, keeps what runs, and recovers."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest

from manta.node.state import StateFolder

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")

WAITS = """
import time
from pathlib import Path
def main():
    Path({here!r}).touch()
    while not Path({go!r}).exists():
        time.sleep(0.02)
    return 5
"""
PLAIN = "def main():\n    return 7\n"

Break = Callable[[StateFolder], AbstractContextManager[None]]


def mount(*arguments: object) -> None:
    done = subprocess.run(["mount", *map(str, arguments)], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"this machine does not let tests mount: {done.stderr!r}")


@contextmanager
def small_disk(folder: Path, megabytes: int = 6) -> Iterator[None]:
    folder.mkdir(parents=True)
    mount("-t", "tmpfs", "-o", f"size={megabytes}m,mode=0700", "tmpfs", folder)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def full(state: StateFolder) -> Iterator[None]:
    filler = state.path / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            pass
    yield
    filler.unlink()


@contextmanager
def read_only(state: StateFolder) -> Iterator[None]:
    """What is open already can still be written, as nobody may take that away."""
    view = state.path.with_name("view")
    view.mkdir()
    mount("--bind", state.path, view)
    mount("-o", "remount,ro,bind", view)
    mount("--move", view, state.path)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(state.path)], check=True)


@pytest.fixture
def disk(lab) -> Iterator[None]:
    with ExitStack() as undo:
        undo.enter_context(small_disk(lab.state("node-1").path))
        lab.undo.push(undo.pop_all())  # after the node that uses it has stopped
        yield


@pytest.mark.parametrize("breaks", [full, read_only])
def test_a_node_that_cannot_write(lab, disk: None, breaks: Break) -> None:
    go = lab.folder / "go"
    lab.node(1, resources={"max_concurrent_tasks": 4})
    api, state = lab.api(), lab.state("node-1")
    here = lab.folder / "here"
    runs = api.deploy_swarm("lab", lab.swarm(WAITS.format(here=str(here), go=str(go))))
    lab.wait_until(here.exists)
    with breaks(state):
        bound = api.deploy_swarm("lab", lab.swarm(PLAIN, method="all"), wait=True)
        free = api.deploy_swarm("lab", lab.swarm(PLAIN, method="any"), wait=True)
        lab.wait_until(lambda: api.list_nodes("lab")[0].notice)
        [node] = api.list_nodes("lab")
        assert node.status == "CONNECTED"
        assert f"node-1 cannot write in {state.path}" in node.notice
        assert "it gets no new work" in node.notice
        lab.wait_until(lambda: node.notice in api.explain_swarm(free).problems)
        go.touch()
        ended = api.wait_swarm(runs, timeout=60)  # what ran goes on
        assert ended.status == "COMPLETED", ended.reason
        later = api.deploy_swarm("lab", lab.swarm(PLAIN, method="any"), wait=True)
        verdicts = api.explain_swarm(later).verdicts
        assert [verdict.rule for verdict in verdicts if not verdict.accepted] == ["able"]
        assert not any(api.get_swarm(swarm).ended for swarm in (bound, free, later))
    for swarm in (bound, free, later):
        ended = api.wait_swarm(swarm, timeout=60)
        assert ended.status == "COMPLETED", ended.reason
        tries = [task.status for task in api.get_tasks(swarm)]
        assert tries.count("FINISHED") == 1
        assert len(tries) <= 3, tries
    lab.wait_until(lambda: not api.list_nodes("lab")[0].notice)
