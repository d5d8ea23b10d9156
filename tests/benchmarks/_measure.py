"""What the reports share: whole processes timed, memory as the kernel counts it."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path


def wall(command: Sequence[str], runs: int, warmup: int = 1, **options: object) -> list[float]:
    """Seconds of each counted run of a process that must succeed."""
    seconds = []
    for run in range(warmup + runs):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, **options)  # type: ignore[call-overload]
        if run >= warmup:
            seconds.append(time.perf_counter() - start)
    return seconds


def python(code: str, *flags: str) -> list[str]:
    return [sys.executable, *flags, "-c", code]


def spread(values: Sequence[float], unit: str = "ms") -> str:
    """`median (min to max)`; values in seconds for ms."""
    scale = 1000 if unit == "ms" else 1
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle * scale:.0f} {unit} ({low * scale:.0f} to {high * scale:.0f})"


def pss(pid: int) -> int:
    """Bytes: shared pages are divided among those who share them (proc(5), smaps_rollup)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise LookupError(f"no Pss in /proc/{pid}/smaps_rollup")
