"""What images get of Manta is enough by itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from manta.node.runners.runtime_copy import runtime_copy

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
