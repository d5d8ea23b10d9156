"""Runs commands as a user without privileges, whoever runs the tests."""

from __future__ import annotations

import os
import shlex
import stat
import sys
from pathlib import Path

from manta.node.runners.local import SOURCES

NOBODY = 65534


def as_ordinary_user(command: list[str], scratch: Path) -> list[str]:
    """The command, as nobody if the tests run as root, in a mount namespace in which nobody can
    reach Python and the sources; and `scratch`, which has to be empty, becomes nobody's."""
    if os.getuid() != 0:
        return command
    os.chown(scratch, NOBODY, NOBODY)
    needed = [*map(Path, (sys.prefix, sys.base_prefix)), SOURCES, scratch]
    lines = ["set -e"]
    closed = sorted({top for path in needed for top in [_closed(path)] if top is not None})
    for number, top in enumerate(closed):
        within = [path for path in needed if path.is_relative_to(top)]
        kept = [f"/mnt/{number}-{at}" for at, _ in enumerate(within)]
        lines.append("mount -t tmpfs none /mnt")
        for path, keep in zip(within, kept, strict=True):
            lines.append(f"mkdir {keep}; mount --bind {shlex.quote(str(path))} {keep}")
        lines.append(f"mount -t tmpfs -o mode=755 none {shlex.quote(str(top))}")
        for path, keep in zip(within, kept, strict=True):
            lines.append(f"mkdir -p {shlex.quote(str(path))}")
            lines.append(f"mount --bind {keep} {shlex.quote(str(path))}")
    user = f"setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups --"
    lines.append(f"exec {user} {shlex.join(command)}")
    script = "\n".join(lines)
    return ["unshare", "--mount", "--propagation=private", "sh", "-c", script]


def _closed(path: Path) -> Path | None:
    """The highest folder above it that is closed to others."""
    for folder in reversed(path.parents):
        if not folder.stat().st_mode & stat.S_IXOTH:
            return folder
    return None
