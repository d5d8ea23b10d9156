"""What other users may read of a folder."""

from __future__ import annotations

import os
from pathlib import Path


def unreadable(folder: Path) -> list[str]:
    """What they may not, the folder itself included; links are as what they lead to."""
    found = []
    for place, _, names in os.walk(folder):
        for path in (place, *(os.path.join(place, name) for name in names)):
            mode, wanted = os.stat(path).st_mode, 0o5 if path == place else 0o4
            if mode & wanted != wanted:
                found.append(os.path.relpath(path, folder))
    return found
