"""Command lines of Manta's own processes."""

from __future__ import annotations

import sys


def module_command(module: str, *arguments: str) -> list[str]:
    """The command line that runs a module of Manta's in a process of its own.

    With -P, since Python would look first into the folder in which it is started: a random.py
    there would hide Python's own, and whatever is called so would be run.
    """
    return [sys.executable, "-P", "-m", module, *arguments]
