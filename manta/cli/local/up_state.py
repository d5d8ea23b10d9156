"""What `manta up` keeps on disk while it runs: a state file, a lock that shows that it still runs,
and a profile that is in use meanwhile. `clear` removes all of it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import msgspec

from manta.apis.connect import profiles
from manta.transports.codec.decoders import json_decoder
from manta.transports.codec.stored import Damaged, Thing, read_stored_file

PROFILE = "up"
MOST = 1024 * 1024
"""Bytes of the state file, which lists all nodes."""


class Up(msgspec.Struct, frozen=True):
    pid: int
    folder: str
    """The folder of the manager, the nodes and their logs."""
    host: str
    port: int
    """0 until it is known."""
    cluster: str
    nodes: tuple[str, ...]
    previous: str | None
    """The profile that was in use before."""


def file(home: Path) -> Path:
    return home / "up.json"


def lock(home: Path) -> int | None:
    """Takes the lock; closing the descriptor releases it. None if another process has it."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(home / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def read(home: Path) -> Up | None:
    """Reads the state file, whether or not `manta up` still runs; None if it is damaged, too."""
    thing = Thing(f"{file(home)}", "what `manta up` began is not known", "run it again")
    try:
        return read_stored_file(thing, json_decoder(Up).decode, file(home), MOST)
    except (FileNotFoundError, Damaged):
        return None


def running(home: Path) -> Up | None:
    """Returns the state of a running `manta up`; the file alone may be stale."""
    return read(home) if is_locked(home) else None


def is_locked(home: Path) -> bool:
    if not (home / "up.lock").exists():
        return False
    fd = os.open(home / "up.lock", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def write(home: Path, up: Up) -> None:
    draft = file(home).with_suffix(".new")
    draft.write_bytes(msgspec.json.format(msgspec.json.encode(up)))
    os.replace(draft, file(home))


def clear(home: Path, folder: str | None = None) -> None:
    """Removes the profile and restores the previous one; only for the run in `folder`, if given."""
    found = read(home)
    if found is not None and folder not in (None, found.folder):
        return
    if found is not None:
        in_use = profiles.used_profile(home) == PROFILE
        if not (home / "profiles" / f"{PROFILE}.json").exists():
            profiles.save_profile(home, PROFILE, profiles.Profile())  # it failed before that
        profiles.remove_profile(home, PROFILE)
        if in_use and found.previous is not None:
            profiles.use_profile(home, found.previous)
    file(home).unlink(missing_ok=True)


def leave(home: Path) -> None:
    """Removes log and lock; the last thing to do before releasing the lock."""
    for name in ("up.log", "up.lock"):
        (home / name).unlink(missing_ok=True)
