"""The manager's audit log, for its process and for commands that act on its folder.

Acts of users are recorded by the gateway (`manta.manager.gateway.recorder`), those of whoever owns
the folder here.
"""

from __future__ import annotations

import logging
import os
import pwd
import shutil
import time
from pathlib import Path
from typing import Any

from manta.audit import folder as files
from manta.audit.keys import SealKey
from manta.audit.log import AuditLog
from manta.audit.records import Head, Record, digest_of
from manta.manager.home import Home
from manta.transports.errors import KeyFileError
from manta.transports.security.keys import read_private

log = logging.getLogger("manta.manager")


def signing_seed(home: Home) -> bytes:
    """Raises KeyFileError; ValueError for a file that holds none, without a quote of it."""
    try:
        seed = bytes.fromhex(read_private(home.signing_key))
    except ValueError:
        seed = b""
    if len(seed) != 32:
        raise ValueError(f"{home.signing_key} is damaged")
    return seed


def log_of(home: Home, seed: bytes) -> AuditLog:
    return AuditLog(home.audit, SealKey(seed))


def record_here(home: Home, act: str, **about: Any) -> None:
    """Records what the owner of the folder does, perhaps beside a manager that runs. That it could
    not be recorded is logged by this process, and undoes nothing."""
    try:
        audit = log_of(home, signing_seed(home))
    except (KeyFileError, ValueError) as error:
        log.error("the audit log of %s lacks that of %s: %s", home.path, act, error)
        return
    audit.record(Record(time.time(), act, about={"operator": _operator(), **about}))
    audit.close()


def _operator() -> str:
    """Who runs this process."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


# Backups.


def copy_log(home: Home, target: Path) -> list[Path]:
    """Copies the log as it is at one moment, perhaps beside a manager that writes it; returns the
    files. Raises OSError."""
    target.mkdir(mode=0o700)
    if not home.audit.is_dir():
        return []
    opened = []
    with files.locked(home.audit):
        head = home.audit / files.HEAD
        for path in (*files.segments(home.audit), *([head] if head.exists() else [])):
            file = path.open("rb")
            opened.append((path.name, file, os.fstat(file.fileno()).st_size))
    copies = []
    for name, file, size in opened:
        copies.append(target / name)
        with file, copies[-1].open("xb") as copy:
            while size and (piece := file.read(min(size, 1 << 20))):
                copy.write(piece)
                size -= len(piece)
    return copies


def go_on(draft: Home, home: Home, backup: str, made_at: float) -> None:
    """Chooses which log a folder that was restored into `draft` goes on with, and records that.

    It is that of the folder which it takes the place of, where that continues the one in the
    backup: then nothing that was recorded since is lost. Raises OSError, KeyFileError, ValueError.
    """
    seed = signing_seed(draft)
    key = SealKey(seed)
    restored = files.read_head(draft.audit, {key.id: key.public}) or Head()
    if _continues(home, seed, restored):
        shutil.rmtree(draft.audit, ignore_errors=True)
        shutil.copytree(home.audit, draft.audit)
        record_here(draft, "manager-restored", backup=backup, made_at=made_at)
    else:
        about = {"backup": backup, "made_at": made_at, "record": restored.number}
        record_here(draft, "log-restored", **about)


def _continues(home: Home, seed: bytes, head: Head) -> bool:
    """Whether the folder's log has the line with which the other one ends."""
    try:
        if signing_seed(home) != seed:
            return False
        paths = files.segments(home.audit)
        lines = (line for path in paths for line in files.lines(path))
        return not head.number or any(digest_of(one[:-1]) == head.digest for one in lines)
    except (OSError, ValueError, KeyFileError):  # there is none, or it cannot be read
        return False
