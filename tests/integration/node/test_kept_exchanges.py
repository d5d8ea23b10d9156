"""What a node's disk keeps of the exchange of swarms, and planes that cannot read it."""

from __future__ import annotations

import contextlib
import logging
import shutil
from pathlib import Path
from typing import Any

import psutil
import pytest

from manta import UserAPI
from manta.apis.overviews import SwarmOverview
from manta.manager.cluster.nodes import ClusterNodes
from manta.node.service.supervisor import NodeSupervisor
from tests.integration.node.conftest import CLUSTER, Lab
from tests.support.swarms import One

pytestmark = [pytest.mark.parametrize("lab", [2], indirect=True)]

CODE = """
    import time
    from manta.light import World
    def main():
        world = World()
        if world.rank == 0:
            world.send_to_node("node-2", "small", 1)
            world.send_to_node("node-2", "large", bytes(3_000_000))
            return
        while not world.globals.get("go"):
            time.sleep(0.05)
        return len(world.receive_from_node("node-1", "large", timeout=60))
"""


def files(lab: Lab) -> list[Path]:
    found = lab.state("node-1").plane.rglob("*")
    return [path for path in found if path.is_file() and path.name != "lock"]


def planes() -> set[int]:
    found = set()
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it is ending
            if "manta.node.plane" in child.cmdline():
                found.add(child.pid)
    return found


def sent(lab: Lab) -> tuple[UserAPI, SwarmOverview]:
    """A swarm of which node-1 has sent all that it has to, and of which node-2 takes none."""
    for number in (1, 2):
        lab.node(number)
    api = lab.api()
    swarm = api.deploy_swarm(CLUSTER, One(CODE, specified_ids=["node-1", "node-2"]))
    lab.wait_until(lambda: "FINISHED" in {one.status for one in api.get_tasks(swarm)})
    assert len(files(lab)) == 2
    return api, swarm


def stop_first(lab: Lab) -> None:
    lab.nodes[0].stop()
    lab.wait_until(lambda: lab.state("node-1").read_status().state == "stopped")  # type: ignore[union-attr]
    lab.finished.clear()


@pytest.mark.parametrize("is_removed", [False, True], ids=["stopped", "removed"])
def test_it_goes_when_the_node_is_back(lab: Lab, is_removed: bool) -> None:
    api, swarm = sent(lab)
    stop_first(lab)
    api.stop_swarm(swarm)
    api.wait_swarm(swarm, timeout=60)
    if is_removed:
        api.remove_swarm(swarm)
    before = planes()
    assert files(lab)
    lab.node(1)
    lab.wait_until(lambda: not files(lab))
    assert planes() <= before
    assert not lab.finished


def test_under_an_older_database_it_stays(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.stop_manager()
    home, older, newer = (lab.folder / name for name in ("manager", "older", "newer"))
    shutil.copytree(home, older)
    lab.start_manager()
    api, swarm = sent(lab)
    stop_first(lab)
    lab.stop_manager()
    home.rename(newer)
    older.rename(home)
    asked: list[tuple[str, bool]] = []
    has_ended: Any = ClusterNodes._has_ended

    def noted(nodes: ClusterNodes, swarm_id: str) -> bool:
        asked.append((swarm_id, has_ended(nodes, swarm_id)))
        return asked[-1][1]

    monkeypatch.setattr(ClusterNodes, "_has_ended", noted)
    lab.start_manager()
    before = planes()
    lab.node(1)
    lab.wait_until(lambda: len(asked) > 2)
    assert set(asked) == {(swarm.swarm_id, False)}
    assert len(files(lab)) == 2
    assert planes() <= before
    lab.stop_manager()
    shutil.rmtree(home)
    newer.rename(home)
    lab.start_manager()
    lab.wait_for(lab.state("node-1"), "connected")
    assert len(files(lab)) == 2
    api.stop_swarm(swarm)
    api.wait_swarm(swarm, timeout=60)
    lab.wait_until(lambda: not files(lab))


def test_a_plane_that_ends_at_once_again_and_again_ends_nothing_else(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(NodeSupervisor, "intensity", 1)
    api, swarm = sent(lab)
    stop_first(lab)
    values = lab.state("node-1").plane / "values"
    aside = values.rename(lab.folder / "aside")
    values.touch()  # the plane cannot have its folder there
    with caplog.at_level(logging.INFO):
        lab.node(1)
        lab.wait_until(lambda: caplog.text.count("the plane closed its connection") >= 4)
        assert not lab.finished
        assert lab.state("node-1").read_status().state == "connected"  # type: ignore[union-attr]
        values.unlink()
        aside.rename(values)
        api.set_global(swarm, "go", True)
        done = api.wait_swarm(swarm, timeout=60)
    assert done.status == "COMPLETED", done
    assert [task.output for task in api.get_tasks(swarm)] == [None, 3_000_000]
