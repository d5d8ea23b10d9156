"""Whether a process that has imported packages may be forked.

A forked child has only the thread that forked. What another thread held or was about to do is
lost, so the child of a process with Python threads, or with a native pool that does not expect a
fork, may hang. Two expect it: OpenBLAS ends its threads before a fork and starts them again, and
jemalloc, which pandas brings along with pyarrow, takes its locks before one.
"""

from __future__ import annotations

import _thread
import os
import sys
from typing import Any

_OPENBLAS = "openblas"
_JEMALLOC = "jemalloc_bg_thd"


def obstacle() -> str | None:
    """Why this process must not be forked, or None."""
    if _thread._count() > 0:
        return "importing it started a thread"
    torch: Any = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "cuda") and torch.cuda.is_initialized():
        return "importing it initialised CUDA"
    if _holds_gpu():
        return "importing it initialised the GPU's driver"
    native = sum(name != _JEMALLOC for name in _thread_names()) - 1
    if native and native > _openblas_threads():
        return "importing it started a pool of native threads"
    return None


def _thread_names() -> list[str]:
    names = []
    for thread in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{thread}/comm") as file:
                names.append(file.read().strip())
        except OSError:
            continue  # it has ended
    return names


def _holds_gpu() -> bool:
    for fd in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            continue  # the descriptor of the listing itself
        if target.startswith(("/dev/nvidia", "/dev/kfd")):
            return True
    return False


def _openblas_threads() -> int:
    """How many threads the OpenBLAS libraries in this process may have started."""
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
        libraries = {
            line[line.index("/") :].strip()
            for line in file
            if _OPENBLAS in line.rpartition("/")[2].lower()
        }
    if not libraries:
        return 0
    setting = os.environ.get("OPENBLAS_NUM_THREADS") or os.environ.get("OMP_NUM_THREADS") or ""
    count = int(setting) if setting.isdecimal() else os.cpu_count() or 1
    return len(libraries) * (count - 1)
