"""Which device files of GPUs a task has, at each level: special files stand for the GPUs."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from manta.node.runners import bwrap, landlock
from manta.node.runners.gpus import Gpu
from manta.node.runners.interface import Runner
from manta.node.runners.landlock import LandlockRunner
from manta.protocol.isolation import BWRAP
from manta.protocol.machine import GpuInfo
from tests.support.harness import Node

FOUND = """
import os
def main():
    found = {{}}
    for number in range(2):
        try:
            found[number] = os.read(os.open({folder!r} + f"/nvidia{{number}}", os.O_RDWR), 1) == b""
        except OSError:
            found[number] = False
    return found, os.environ["CUDA_VISIBLE_DEVICES"]
"""


@pytest.fixture
def cards(tmp_path: Path) -> tuple[Gpu, ...]:
    found = []
    for number in range(2):
        device = tmp_path / f"nvidia{number}"
        try:
            os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        except PermissionError:
            device.touch()
        device.chmod(0o666)
        found.append(Gpu(GpuInfo("A", 1 << 30, f"GPU-{number}"), device, f"GPU-{number}"))
    return tuple(found)


@pytest.fixture
def node(level: str, tmp_path: Path) -> Iterator[Node]:
    if level == BWRAP:
        runner: Runner = bwrap.BwrapRunner(bwrap.find([Path.home()]))
    else:
        runner = LandlockRunner(landlock.find([Path.home()]), [])
    node = Node(tmp_path / "node", runner)
    yield node
    node.close()


def test_a_task_has_the_gpus_that_it_was_given_and_no_others(
    node: Node, cards: tuple[Gpu, ...], tmp_path: Path
) -> None:
    code = FOUND.format(folder=str(tmp_path))
    for mine in ((), cards[:1], cards[1:], cards):
        has, visible = node.start(code, gpus=mine).run().output
        assert has == {n: gpu in mine for n, gpu in enumerate(cards)}
        assert visible == ",".join(gpu.name for gpu in mine)
