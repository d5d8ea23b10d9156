"""The packages that a Python has, by name and version."""

from __future__ import annotations

import os
from collections.abc import Iterable

from manta.light.wire import MAX_PACKAGES

_LONGEST = 100  # characters of a name, or of a version
_SUFFIXES = (".dist-info", ".egg-info")


def installed(path: Iterable[str]) -> list[tuple[str, str]]:
    """Names and versions, in order, as the folders of `path` are called in which their metadata lie
    (the specification of recorded projects): no file is read for it."""
    found: dict[str, str] = {}
    for folder in path:
        try:
            names = os.listdir(folder or ".")
        except OSError:
            continue  # an archive, or a folder that is not there
        for name in names:
            stem, suffix = os.path.splitext(name)
            project, dash, version = stem.encode("utf-8", "replace").decode().partition("-")
            if suffix in _SUFFIXES and dash:
                version = version.partition("-")[0]
                found.setdefault(project[:_LONGEST], version[:_LONGEST])
    return sorted(found.items())[:MAX_PACKAGES]
