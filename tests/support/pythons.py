"""Which Pythons this machine has."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

OLDEST_MINOR = 10


def pythons() -> dict[str, str]:
    """The oldest and the newest of those that Manta supports: version -> executable."""
    found = {sys.version_info[1]: sys.executable}
    for minor in range(OLDEST_MINOR, OLDEST_MINOR + 10):
        path = shutil.which(f"python3.{minor}")
        if path is None or minor in found:
            continue
        ask = [path, "-c", "import sys; print(sys.executable)"]
        # pyenv has a stand-in for every version; this tells it which one is meant.
        environment = os.environ | {"PYENV_VERSION": f"3.{minor}"}
        done = subprocess.run(ask, env=environment, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            found[minor] = done.stdout.strip()
    return {f"3.{minor}": found[minor] for minor in (min(found), max(found))}


PYTHONS = pythons()
