"""A node's state folder: who it is, whom it belongs to, what it must not forget.

```
node.key        the node's CURVE key pair
encryption.json the key of what is encrypted here, itself encrypted with its owner's
identity.json   its manager's public key; node_id, cluster_id and alias once registered
lock            held by the daemon that runs; its process id inside
status.json     what that daemon last said of itself
member.json     of which cluster of this machine's nodes it is one, if of any
images.json     the images that it has pulled itself
audit/          what ran here, for whom, with which data, and what left: sealed
journal/        what is to be told to the manager, one file per swarm
spool/          blobs that the journal names
values/         values that tasks read or write, and that memory should not hold
modules/        unpacked modules, by digest: the latest
environments/   what modules require, installed: the latest
kept/           what tasks keep for their swarm (`set_state`)
results/        results that stay here (`collect`), by swarm, until it is removed
tasks/          scratch folders
runtime/        what containers mount of Manta
```
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from manta.node.errors import IdentityError, StateInUse, StorageError
from manta.node.state.records import Identity, Member, Status
from manta.transports.blobs.file_depot import SEALED
from manta.transports.codec.decoders import json_decoder
from manta.transports.codec.stored import Damaged, Thing, read_stored_file
from manta.transports.errors import remedied
from manta.transports.files import SMALL

if TYPE_CHECKING:
    from manta.transports.blobs.sealing import Sealer
    from manta.transports.security.keys import KeyPair
    from manta.transports.security.owner_key import KeySource


class StateLock:
    """Lets one daemon use a state folder, until it is released or the process ends."""

    PATIENCE = 2.0  # seconds for a predecessor that is about to end

    def __init__(self, folder: Path) -> None:
        self._fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + self.PATIENCE
        try:
            while not _locks(self._fd, fcntl.LOCK_EX):
                if time.monotonic() > deadline:
                    raise StateInUse(
                        f"Another node daemon (process {_holder(self._fd) or 'unknown'}) uses "
                        f"{folder}: stop it with `manta_node stop`, or give this one a "
                        "configuration of its own."
                    )
                time.sleep(0.05)
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)
        except (OSError, StateInUse):
            os.close(self._fd)
            raise

    def release(self) -> None:
        os.close(self._fd)


def _locks(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(fd: int) -> str:
    """Returns the process id in the lock's file."""
    return os.pread(fd, 20, 0).decode("ascii", "replace").strip()


class StateFolder:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.key_file = path / "node.key"
        self.identity_file = path / "identity.json"
        self.status_file = path / "status.json"
        self.member_file = path / "member.json"
        self.images_file = path / "images.json"
        self.log_file = path / "node.log"
        self.audit = path / "audit"
        self.owner = path / "owner"
        self.journal = path / "journal"
        self.values = path / "values"
        self.spool = path / "spool"
        self.modules = path / "modules"
        self.environments = path / "environments"
        self.kept = path / "kept"
        self.results = path / "results"
        self.tasks = path / "tasks"
        self.runtime = path / "runtime"
        self.plane = path / "plane"

    def kept_of(self, swarm_id: str) -> Path:
        return self.kept / hashlib.sha256(swarm_id.encode()).hexdigest()[:32]

    def open(self) -> StateLock:
        """Make the folder and take it for this process.

        Raises StateInUse, KeyFileError, StorageError.
        """
        from manta.transports.security.keys import make_private_folder

        make_private_folder(self.path)
        lock = None
        try:
            lock = StateLock(self.path)
            remove_folder(self.tasks)  # scratch of tasks that are gone
            for folder in (self.journal, self.modules, self.kept, self.results, self.tasks):
                folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            if lock is not None:
                lock.release()
            raise self._unwritable(error) from error
        return lock

    def announce(self, status: Status) -> None:
        """Write a daemon's first status, which shows that the folder is writable.

        Raises StorageError.
        """
        try:
            self.write_status(status)
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> StorageError:
        return StorageError(f"The state folder {self.path} cannot be written: {remedied(error)}.")

    def key(self) -> KeyPair:
        """Returns the node's key pair; makes it if there is none. Raises KeyFileError."""
        from manta.transports.security.keys import KeyPair

        if self.key_file.exists():
            return KeyPair.load(self.key_file)
        pair = KeyPair.generate()
        pair.save(self.key_file)
        return pair

    def sealer(self, source: KeySource | None) -> Sealer | None:
        """What encrypts values that are kept here, with the owner's key; None where they are not
        encrypted. Raises KeyFileError."""
        from manta.transports.security.folder_key import folder_key

        def has_sealed() -> bool:
            kept = (self.spool, self.results)
            return any(True for folder in kept for _ in folder.rglob(f"*{SEALED}"))

        key = folder_key(self.path, source, "encryption.key_from in its configuration", has_sealed)
        if key is None:
            return None
        from manta.transports.blobs.sealing import Sealer

        return Sealer(key)

    def shredder(self) -> Sealer | None:
        """What deletes values of a node that does not run, without its owner's key; None where none
        was given."""
        from manta.transports.security.folder_key import NAME

        if not (self.path / NAME).exists():
            return None
        from manta.transports.blobs.sealing import Sealer

        return Sealer.shredder()

    def read_identity(self) -> Identity | None:
        """Returns None if the node has not enrolled. Raises IdentityError."""
        remedy = "restore it, or delete it and enrol the node with a new token"
        thing = Thing(f"{self.identity_file}", "the node's manager is not known", remedy)
        try:
            return read_stored_file(thing, json_decoder(Identity).decode, self.identity_file)
        except FileNotFoundError:
            return None
        except Damaged as error:
            raise IdentityError(str(error)) from error
        except OSError as error:
            raise IdentityError(
                f"{self.identity_file} cannot be read: {error.strerror}; {remedy}."
            ) from error

    def write_identity(self, identity: Identity) -> None:
        """Raises KeyFileError."""
        from manta.transports.security.keys import write_private

        text = msgspec.json.format(msgspec.json.encode(identity)).decode()
        write_private(self.identity_file, text + "\n", replace=True)

    def read_status(self) -> Status | None:
        """Returns the last daemon's status, whether or not that daemon still runs.

        Raises Damaged, OSError.
        """
        remedy = "(re)start the node, which writes it anew"
        thing = Thing(f"{self.status_file}", "how the node stands is not known", remedy)
        path = self.status_file
        try:
            return read_stored_file(thing, json_decoder(Status).decode, path, 16 * SMALL)
        except FileNotFoundError:
            return None

    def write_status(self, status: Status) -> None:
        """Replace the status atomically. Raises OSError."""
        draft = self.status_file.with_suffix(".new")
        draft.write_bytes(msgspec.json.format(msgspec.json.encode(status)))
        os.replace(draft, self.status_file)

    def read_member(self) -> Member | None:
        """Returns None for a node that belongs to no cluster of this machine.

        Raises Damaged, OSError.
        """
        thing = Thing(
            f"{self.member_file}",
            "of which cluster the node is one is not known",
            f"stop it (`manta_node stop {self.path.name}`) and start its cluster again",
        )
        try:
            return read_stored_file(thing, json_decoder(Member).decode, self.member_file)
        except FileNotFoundError:
            return None

    def write_member(self, member: Member) -> None:
        """Raises KeyFileError."""
        from manta.transports.security.keys import write_private

        write_private(self.member_file, msgspec.json.encode(member).decode() + "\n", replace=True)

    def running_pid(self) -> int | None:
        """Returns the process id of the daemon that holds the folder, or None."""
        try:
            fd = os.open(self.path / "lock", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            holder = "" if _locks(fd, fcntl.LOCK_SH) else _holder(fd)
            return int(holder) if holder.isdecimal() else None
        finally:
            os.close(fd)


def open_to_readers(folder: Path) -> None:
    """Let every user read what is in a folder, and start what its owner may, whatever the umask
    was: tasks in containers may be another user's. Follows no link. Raises OSError."""
    for place, _, names in os.walk(folder):
        for path in (place, *(os.path.join(place, name) for name in names)):
            mode = os.lstat(path).st_mode
            wanted = mode | 0o444 | (0o111 if mode & stat.S_IXUSR else 0)
            if wanted != mode and not stat.S_ISLNK(mode):
                os.chmod(path, stat.S_IMODE(wanted))


def remove_folder(folder: Path) -> None:
    """Remove a folder, with folders that a task has locked; whatever cannot be removed stays. Of a
    link in its place nothing is followed."""
    if folder.is_symlink():
        with contextlib.suppress(OSError):
            folder.unlink()
        return
    shutil.rmtree(folder, ignore_errors=True)
    if not folder.exists():
        return
    _unlock(folder)
    for above, names, _ in os.walk(folder):
        for name in names:
            _unlock(Path(above, name))
    shutil.rmtree(folder, ignore_errors=True)


def _unlock(folder: Path) -> None:
    """Make a folder writable. Does not follow links, which may lead out of it."""
    with contextlib.suppress(OSError):
        fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            os.chmod(f"/proc/self/fd/{fd}", 0o700)
        finally:
            os.close(fd)
