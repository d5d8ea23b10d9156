"""Runs Python in a process that confines itself first, and says how that ended."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[2]
LANDLOCK = """
from manta.node.isolation import landlock, privileges
from manta.node.isolation.landlock import *
privileges.drop()
landlock.restrict({rules}, {abi})
"""
SECCOMP = """
from manta.node.isolation import privileges, seccomp
privileges.drop()
seccomp.install(seccomp.program({how}))
"""


def run(confinement: str, code: str, timeout: float = 50.0) -> str:
    """What the code prints, after the confinement. Fails if it ends otherwise than with 0."""
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(confinement) + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert ended.returncode == 0, (ended.returncode, ended.stderr)
    return ended.stdout
