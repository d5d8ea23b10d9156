"""A local cluster whose processes do not come up: said at once, by whom, and nothing is left."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import pytest

from manta.apis.errors import ClusterDied
from manta.cli.local import cluster as local
from manta.cli.local.cluster import LocalCluster
from manta.console.interrupts import Interrupts
from manta.testing.clusters import client


def started(command: Callable[[str, list[str]], list[str] | None]) -> LocalCluster:
    """Of two nodes; `command` gives another one for some of the processes."""

    class Odd(LocalCluster):
        def command(self, log_name: str, arguments: list[str]) -> list[str]:
            return command(log_name, arguments) or super().command(log_name, arguments)

    interrupts = Interrupts()
    interrupts.finish()
    cluster = Odd(2, {}, interrupts)
    cluster.start()
    return cluster


def waited_in_vain(cluster: LocalCluster, seen: list[int]) -> str:
    try:
        with client(cluster) as api, pytest.raises(ClusterDied) as error:
            cluster.wait_for_nodes(api, seen.append)
    finally:
        cluster.stop(keep=False)
    assert not cluster.folder.exists()
    return str(error.value)


@pytest.mark.parametrize("which", ["node-2", "manager"])
def test_a_process_that_ends_is_told_at_once_with_its_last_words(which: str) -> None:
    words = "import sys, time; time.sleep(1); print('no room'); sys.exit(5)"
    began = time.monotonic()
    cluster = started(lambda name, _: [sys.executable, "-c", words] if name == which else None)
    said = waited_in_vain(cluster, [])
    assert time.monotonic() - began < local.READY / 2
    name = "the manager" if which == "manager" else which
    assert said.startswith(f"The process of {name} ended (exit code 5)."), said
    assert "no room" in said


def test_a_node_that_never_connects_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "READY", 6.0)
    idle = "import time; print('thinking'); time.sleep(60)"
    seen: list[int] = []
    cluster = started(lambda name, _: [sys.executable, "-uc", idle] if name == "node-2" else None)
    said = waited_in_vain(cluster, seen)
    assert said.startswith("node-2 did not connect within 6 s."), said
    assert "thinking" in said
    assert seen[-1] == 1
