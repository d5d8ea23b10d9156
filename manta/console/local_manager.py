"""Where the manager of this machine listens, or did when it ran last: what both command lines,
and the SDK, fill in for a host and port that nobody gave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from manta.transports.files import read_bounded

SETTINGS = "settings.json"
"""In the manager's folder: the settings that it was last started with."""
_HERE = ("localhost", "127.0.0.1", "::1")


def remembered_port(home: Path, door: Literal["nodes", "users"], host: object) -> int | None:
    """Returns the port, if `host` is this machine and a manager has run in `home`/manager."""
    if host not in _HERE:
        return None
    try:
        address = json.loads(read_bounded(home / "manager" / SETTINGS))[door]
        return int(address.rpartition(":")[2])
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None  # none has; a manager that starts says what is wrong with its file
