"""How much memory processes take, and clusters whose nodes have little of it for values."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from manta.cli.local import cluster as local
from manta.cli.local.cluster import LocalCluster
from manta.testing.clusters import running

MIB = 1 << 20
NOW = "RssAnon"
"""What a process has now, without what it shares: a value is in the memory of the task that made
it."""
MOST = "VmHWM"
"""The most that it ever had."""


def memory(pid: int, what: str) -> int:
    """Bytes, as /proc counts them."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{what}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"process {pid} has no {what}")


class Growth:
    """Of processes, from now on."""

    def __init__(self, pids: list[int], what: str) -> None:
        self._what = what
        self._before = {pid: memory(pid, what) for pid in pids}
        self._most = dict(self._before)

    def look(self) -> None:
        for pid, most in self._most.items():
            self._most[pid] = max(most, memory(pid, self._what))

    def check(self, most: int) -> None:
        """None has grown by that."""
        self.look()
        for pid, before in self._before.items():
            grown = self._most[pid] - before
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[1:3]
            print(f"{command}: {before / MIB:.0f} MiB, grown by {grown / MIB:.0f}")
            assert grown < most


@contextmanager
def little_memory(make: Callable[..., LocalCluster], nodes: int) -> Iterator[LocalCluster]:
    """A cluster whose nodes keep 8 MB of values in memory, and so none of more than 1 MB."""
    write = local.node_config

    def with_limit(*arguments: Any) -> str:
        return write(*arguments).replace("[resources]\n", "[resources]\nvalue_memory_mb = 8\n")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "node_config", with_limit)
        with running(make, nodes) as cluster:
            yield cluster


def megabytes(quick: int, full: int, moved: int) -> pytest.MarkDecorator:
    """Tests with a value of `quick` megabytes, and in full of so many, which moves gigabytes."""
    is_quick = os.environ.get("MANTA_FULL") != "1"
    why = f"MANTA_FULL=1 moves more than a quarter of {moved} GB"
    marks = [pytest.mark.skipif(is_quick, reason=why), pytest.mark.timeout(1200)]
    return pytest.mark.parametrize("megabytes", [quick, pytest.param(full, marks=marks)])
