"""The folder in which Manta keeps a user's files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


class NoHome(Exception):
    """Nobody knows where this user's files are kept."""


def home_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Returns MANTA_HOME, by default ~/.manta. Raises NoHome."""
    if given := environment.get("MANTA_HOME"):
        return Path(given)
    try:
        return Path.home() / ".manta"
    except RuntimeError:
        raise NoHome(
            f"The user {os.getuid()} has no home folder: set MANTA_HOME to a folder for Manta's "
            "files, or HOME."
        ) from None
