"""Machines with little shared memory, or none: containers have 64 MB at /dev/shm, and sandboxes may
not let a process make any."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
UNSHARE = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]
SHM = 'mount -t tmpfs -o {} tmpfs /dev/shm && exec "$@"'
MEMFD_CREATE = {"x86_64": 319, "aarch64": 279}.get(platform.machine())

RUN = """
import json, sys
from manta.cli.local.cluster import LocalCluster
from manta.testing.clusters import client, running, wait_for_nodes
from tests.support.swarms import One, outputs
with running(LocalCluster, 2) as cluster, client(cluster) as api:
    wait_for_nodes(api, 2)
    print(json.dumps(outputs(api, One(sys.argv[1]))))
"""
LARGE = """
    import numpy as np
    from manta.light import World
    def main():
        world = World()
        other = f"node-{2 - world.rank}"
        value = np.full(100_000_000, world.rank + 1, "u1")
        world.send_to_node(other, "letter", value)
        got = world.receive_from_node(other, "letter")
        if world.rank == 0:
            world.broadcast("all", value)
        heard = world.get_broadcast("all")
        world.results.add("value", value)
        total = world.all_reduce(value)
        return [int(one[-1]) for one in (got, heard, total)]
    """
SOME = """
    import numpy as np
    from manta.light import World
    from manta.light.errors import LightError
    def main():
        world = World()
        other = f"node-{2 - world.rank}"
        world.send_to_node(other, "small", world.rank)
        told = [world.receive_from_node(other, "small"), world.all_reduce(1)]
        world.results.add("value", bytes(1_000_000))
        world.set(f"of {world.rank}", bytes(1_000_000))
        told.append(len(world.get(f"of {world.rank}")))
        for large in (
            lambda: world.send_to_node(other, "large", bytes(1_000_000)),
            lambda: world.broadcast("large", bytes(1_000_000)),
            lambda: world.all_gather(bytes(1_000_000)),
            lambda: world.all_reduce(np.ones(125_000)),
        ):
            try:
                told.append(large())
            except LightError as error:
                told.append(f"{type(error).__name__}: {error}")
        return told
    """


def outcome(prefix: list[str], code: str, **how: Any) -> list[Any]:
    """What instances on two nodes return."""
    done = subprocess.run(
        [*prefix, sys.executable, "-P", "-c", RUN, code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **how,
    )
    assert not done.returncode, done.stderr[-4000:]
    found: list[Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("options", ["size=64m", "size=4k,ro"], ids=["64 MB", "none"])
def test_what_is_at_dev_shm_does_not_matter(options: str) -> None:
    prefix = [*UNSHARE, "sh", "-c", SHM.format(options), "sh"]
    can = shutil.which("unshare") and not subprocess.run([*prefix, "true"], check=False).returncode
    if not can:
        pytest.skip("this machine does not let tests mount")
    assert outcome(prefix, LARGE) == [[2, 1, 3], [1, 1, 3]]


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_uint16),
        ("then", ctypes.c_uint8),
        ("other", ctypes.c_uint8),
        ("value", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    _fields_ = (("count", ctypes.c_uint16), ("begin", ctypes.POINTER(_Instruction)))


_FILTER = (_Instruction * 4)(
    _Instruction(0x20, 0, 0, 0),  # the number of the call
    _Instruction(0x15, 0, 1, MEMFD_CREATE or 0),
    _Instruction(0x06, 0, 0, 0x0005_0001),  # fails with EPERM
    _Instruction(0x06, 0, 0, 0x7FFF_0000),  # is carried out
)
_PROGRAM = _Program(len(_FILTER), _FILTER)
_libc = ctypes.CDLL(None, use_errno=True)


def refuse_memory() -> None:
    """No process that comes of this one makes shared memory."""
    if _libc.prctl(38, 1, 0, 0, 0) or _libc.prctl(22, 2, ctypes.byref(_PROGRAM), 0, 0):
        raise OSError(ctypes.get_errno(), "the calls of a process cannot be restricted")


@pytest.mark.skipif(MEMFD_CREATE is None, reason="the number of the call is not known")
def test_without_shared_memory_large_values_are_files_and_what_cannot_be_is_refused() -> None:
    """What tasks send to each other has to be memory that nobody can change any more."""
    for at, told in enumerate(outcome([], SOME, preexec_fn=refuse_memory)):
        assert told[:3] == [1 - at, 2, 1_000_000]
        for refused in told[3:]:
            assert refused.startswith("ResourceExhaustionError: "), refused
            assert "memory for a value of 10" in refused, refused
            assert "Operation not permitted" in refused, refused
