"""What images get of Manta is enough by itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from manta.node.runners.runtime_copy import runtime_copy
from tests.support.modes import unreadable

IMPORTS = {
    "light": "from manta.light import Local, Results, Task, World",
    "mesh": "from manta import AsyncMesh, Mesh",
}


@pytest.mark.parametrize("what", IMPORTS)
def test_the_copy_needs_nothing_else(tmp_path: Path, what: str) -> None:
    folder = runtime_copy(tmp_path / "runtime")
    code = f"import sys; sys.path.insert(0, {str(folder)!r}); {IMPORTS[what]}"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_whoever_is_in_a_container_may_read_it_whatever_the_umask_is(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        folder = runtime_copy(tmp_path / "runtime")
    finally:
        os.umask(before)
    assert unreadable(folder) == []
    (folder / "manta").chmod(0o700)  # as an earlier version has left it
    assert unreadable(runtime_copy(tmp_path / "runtime")) == []
