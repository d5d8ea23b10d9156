"""An id of this machine."""

from __future__ import annotations

import hashlib
from pathlib import Path


def hardware_id(name: str) -> str:
    """This machine and the configuration's name, hashed; "" where the machine has no id."""
    for path in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        try:
            machine = Path(path).read_text().strip()
        except OSError:
            continue
        if machine:
            return hashlib.sha256(f"manta node {machine} {name}".encode()).hexdigest()[:32]
    return ""
