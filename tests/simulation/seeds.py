"""Runs seeds of a simulation: what fails shows the end of its trace, and replays identically."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Protocol, TypeVar

ROOT = Path(__file__).parents[2]
SHOWN = 80
"""Lines of a failing seed's trace."""


class Simulated(Protocol):
    @property
    def trace(self) -> list[str]: ...

    def run(self) -> None: ...


S = TypeVar("S", bound=Simulated)


def run(make: Callable[[int], S], seed: int) -> S:
    scenario = make(seed)
    try:
        scenario.run()
    except Exception:
        print(f"\nThe end of seed {seed}; replay it: pytest tests/simulation --seed {seed}")
        print("\n".join(scenario.trace[-SHOWN:]))
        raise
    return scenario


def digest(make: Callable[[int], S], seed: int) -> str:
    """Of all that happens."""
    trace = "\n".join(run(make, seed).trace)
    return blake2b(trace.encode(), digest_size=16).hexdigest()


def digest_elsewhere(make: type[S], seed: int) -> str:
    """The same in another process, whose sets and dictionaries hash otherwise."""
    program = (
        f"from {__name__} import digest; from {make.__module__} import {make.__name__}; "
        f"print(digest({make.__name__}, {seed}))"
    )
    told = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": "77", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return told.stdout.strip()
