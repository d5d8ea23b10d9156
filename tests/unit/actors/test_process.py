"""What a process that runs many actors asks of Python and of its C library."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

ARENAS = """
import ctypes, tempfile, threading
from manta.actors.process import prepare_process

if {prepared}:
    prepare_process()
libc = ctypes.CDLL(None)
libc.fopen.restype = libc.malloc.restype = ctypes.c_void_p
libc.malloc_info.argtypes = [ctypes.c_int, ctypes.c_void_p]
libc.fclose.argtypes = [ctypes.c_void_p]
begun = threading.Barrier(5)

def take():
    libc.malloc(1000)
    begun.wait()

threads = [threading.Thread(target=take) for _ in range(4)]
for one in threads:
    one.start()
begun.wait()
with tempfile.NamedTemporaryFile() as file:
    stream = libc.fopen(file.name.encode(), b"w")
    libc.malloc_info(0, stream)
    libc.fclose(stream)
    print(file.read().count(b"<heap nr"))
"""


def arenas(*, prepared: bool, **environment: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", ARENAS.format(prepared=prepared)],
        env=environment, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="arenas are glibc's")
def test_all_threads_share_one_arena_unless_the_operator_says_otherwise() -> None:
    assert arenas(prepared=False) > 2
    assert arenas(prepared=True) == 1
    assert arenas(prepared=True, MALLOC_ARENA_MAX="2") == 2
