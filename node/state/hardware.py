"""Identifies this machine, and a folder of it."""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path

from manta.transports.files import read_bounded


def hardware_id(name: str) -> str:
    """Returns a hash of the machine's id and the configuration's name; "" if it has no id."""
    machine = _machine_id()
    return _digest(f"manta node {machine} {name}") if machine else ""


def place_of(folder: Path) -> str:
    """Returns a hash that a copy of the folder does not share, on this machine or another."""
    found = folder.resolve()
    return _digest(f"{_machine_id()} {platform.node()} {found} {found.stat().st_ino}")


def _machine_id() -> str:
    for path in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        try:
            machine = read_bounded(path).decode().strip()
        except (OSError, ValueError):  # none, or nothing that is one
            continue
        if machine:
            return machine
    return ""


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:32]
