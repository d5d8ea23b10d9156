"""Identifies this machine."""

from __future__ import annotations

import hashlib
from pathlib import Path


def hardware_id(name: str) -> str:
    """Returns a hash of the machine's id and the configuration's name; "" if it has no id."""
    for path in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        try:
            machine = Path(path).read_text().strip()
        except OSError:
            continue
        if machine:
            return hashlib.sha256(f"manta node {machine} {name}".encode()).hexdigest()[:32]
    return ""
