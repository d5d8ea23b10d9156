"""What `manta up` leaves while it runs: a file, a lock that tells whether that still holds, and
a profile that is in use meanwhile. `clear` takes all of it away again."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import msgspec

from manta.apis.connect import profiles
from manta.transports.codec.decoders import json_decoder

PROFILE = "up"


class Up(msgspec.Struct, frozen=True):
    pid: int
    folder: str
    """Of manager, nodes and their logs."""
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
    """A descriptor that holds the lock until it is closed; None while another process has it."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(home / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def read(home: Path) -> Up | None:
    """Says nothing on whether it still runs."""
    try:
        return json_decoder(Up).decode(file(home).read_bytes())
    except (FileNotFoundError, ValueError):
        return None


def running(home: Path) -> Up | None:
    """What runs: a file alone proves nothing, its process id may be a stranger's by now."""
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
    """Remove the profile, and use the one of before; of the run in `folder` only, if given."""
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
    """The last thing that who holds the lock does before he lets go of it."""
    for name in ("up.log", "up.lock"):
        (home / name).unlink(missing_ok=True)
