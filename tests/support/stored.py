"""What earlier versions left on disk, as `tests/fixtures/make.py` had it made."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

FIXTURES = Path(__file__).parents[1] / "fixtures"
VERSIONS = sorted(path.parent.name for path in FIXTURES.glob("*/state.tar.gz"))


class Stored:
    """One version's, unpacked into a folder."""

    def __init__(self, version: str, folder: Path) -> None:
        with tarfile.open(FIXTURES / version / "state.tar.gz") as archive:
            archive.extractall(folder, filter="tar")  # folders keep their modes
        self.home = folder / "home"
        """Of a user who signed in, with manager and nodes that were killed at work."""
        self.up = folder / "up"
        """Of a user whose `manta up` was killed."""
        self.said: dict[str, Any] = json.loads((folder / "said.json").read_text())
        """What that version's commands said of the swarm that had completed, and more."""
        self.under_way: str = self.said["under way"]
        self.done: str = self.said["ps"]["swarm_id"]

    def node(self, name: str) -> Path:
        return self.home / "state" / "nodes" / name


def holds(now: Any, then: Any) -> bool:
    """Whether all that was said then is said now. Objects may have new fields."""
    if isinstance(then, dict):
        return all(key in now and holds(now[key], value) for key, value in then.items())
    if isinstance(then, list):
        return len(now) == len(then) and all(map(holds, now, then))
    return bool(now == then)
