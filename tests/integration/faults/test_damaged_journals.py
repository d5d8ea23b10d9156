"""A node's journal is damaged while it is down: nothing is counted twice, and nothing waits."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from manta import Module, Swarm, Task
from manta.cli.local.cluster import CLUSTER
from manta.node.journal.records import _HEAD, decode
from manta.testing import wait_until
from manta.testing.clusters import client, running
from tests.support.restarts import Restartable

CODE = """
import time
from pathlib import Path
from manta.light import World
def main():
    runs = Path({runs!r})
    runs.write_text(runs.read_text() + "run ")
    world = World()
    world.results.add("value", 1)
    world.globals["done"] = 1
    while not Path({go!r}).exists():
        time.sleep(0.02)
    world.results.add("after", 1)
    return 5
"""


def _remove(path: Path) -> None:
    path.unlink()


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _first(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[_HEAD.size + 3] ^= 0x20
    path.write_bytes(data)


def _last(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-2] ^= 0x01
    path.write_bytes(data)


def _second(path: Path) -> None:
    data = bytearray(path.read_bytes())
    length = _HEAD.unpack_from(data)[0]
    data[2 * _HEAD.size + length + 1] ^= 0x80
    path.write_bytes(data)


def _noise(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 8)


@pytest.mark.parametrize("damage", [_remove, _empty, _first, _second, _last, _noise])
def test_an_attempt_whose_results_count_is_interrupted_and_counted_once(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    runs, go = tmp_path / "runs", tmp_path / "go"
    runs.write_text("")

    class Once(Swarm):
        def execute(self) -> Task:
            code = textwrap.dedent(CODE).format(runs=str(runs), go=str(go))
            return Task(Module(code, name="once"), method="all")

    with running(Restartable, 1) as cluster, client(cluster) as api:
        assert isinstance(cluster, Restartable)
        swarm = api.deploy_swarm(CLUSTER, Once())
        wait_until(lambda: "done" in api.list_global_tags(swarm))
        cluster.kill("node-1")
        [journal] = (cluster.folder / "state").glob("*/journal/*.journal")
        assert len(decode(journal.read_bytes())[0]) >= 4  # as it is, it tells all
        damage(journal)
        go.touch()
        cluster.again("node-1")
        ended = api.wait_swarm(swarm, timeout=60)
        assert ended.status == "COMPLETED", ended.reason
        attempts = api.get_tasks(swarm)
        assert [attempt.status for attempt in attempts] == ["INTERRUPTED", "FINISHED"]
        assert [attempt.output for attempt in attempts] == [None, 5]
        (error,) = api.collect_errors(swarm)
        unknown = damage is not _last  # else it is still known to have begun
        assert ("had begun, and its node has lost what it knew of it" in error.sentence) is unknown
        assert runs.read_text() == "run run "  # the second is another attempt, which says so
        for tag in ("value", "after"):
            counted = [one for one in api.select_results(swarm, tag) if one.counts]
            assert [(one.attempt, one.value) for one in counted] == [(1, 1)]
