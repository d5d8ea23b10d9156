"""Makes, verifies and restores backups of a manager's folder, also while the manager runs.

A backup is one tar archive with mode 0600. Its first member, `manifest.json`, lists all others
with size and BLAKE3 digest: the keys, the settings, the database as SQLite's backup interface
copied it at one moment, and each blob that this database names. Blobs that are encrypted stay so,
and the folder's key, which the operator's key encrypts, is with them: that key is in no backup.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import re
import secrets
import shutil
import sqlite3
import tarfile
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

import msgspec
from blake3 import blake3

from manta.console.local_manager import SETTINGS
from manta.manager.audit import copy_log, go_on, record_here, signing_seed
from manta.manager.errors import ManagerError, StoreError
from manta.manager.home import Home, RestoredFile
from manta.manager.ids import new_id
from manta.manager.store.migrations import MIGRATIONS
from manta.manager.store.verification import flaws
from manta.protocol.version import VERSION
from manta.transports.blobs.file_depot import SEALED
from manta.transports.codec.decoders import json_decoder
from manta.transports.codec.stored import Damaged, Thing, read_stored
from manta.transports.errors import KeyFileError
from manta.transports.security.folder_key import NAME as KEY_FILE
from manta.transports.security.keys import KeyPair
from manta.transports.security.owner_key import KeySource

if TYPE_CHECKING:
    from manta.transports.blobs.sealing import Sealer

FORMAT = 4
"""Those of format 1 have no settings, those before 3 no audit log, those before 4 nothing that is
encrypted."""
MANIFEST = "manifest.json"
DATABASE = "manta.db"
KEYS = ("manager.key", "signing.key")
AUDIT = "audit"
PIECE = 1 << 20
MOST_MANIFEST = 1 << 30
_DIGEST = re.compile(r"[0-9a-f]{64}")
_AUDIT = re.compile(rf"{AUDIT}/([0-9]{{12,}}\.log|head\.json)")
TRIES = 5
"""A blob may be deleted after the database was copied and before the blob is."""


class BackupError(ManagerError):
    """The message says which file and what to do."""


class Member(msgspec.Struct, frozen=True):
    size: int
    blake3: str


class Manifest(msgspec.Struct, frozen=True):
    id: str
    made_at: float
    version: str
    """The version of Manta that made it."""
    members: dict[str, Member]
    format: int = FORMAT

    @property
    def blobs(self) -> set[str]:
        return {_digest_of(name) for name in self.members if name.startswith("blobs/")}


@dataclass(frozen=True)
class Verdict:
    """What was verified, with a sentence for each flaw."""

    path: Path
    blobs: int
    size: int
    flaws: list[str]


def backup(home: Home, target: Path) -> Manifest:
    """Writes a backup, whole or not at all. Raises BackupError."""
    _check_home(home)
    if target.exists():
        raise BackupError(f"{target} is there already: name another file.")
    draft = target.with_name(f".{target.name}.part-{os.getpid()}")
    try:
        with tempfile.TemporaryDirectory(prefix=".manta-backup-", dir=target.parent) as folder:
            manifest = _write_patiently(home, draft, Path(folder))
        os.link(draft, target)  # fails if the target exists by now
    except FileExistsError:
        raise BackupError(f"{target} is there already: name another file.") from None
    except OSError as error:
        raise BackupError(f"{target} cannot be written: {error.strerror or error}.") from error
    except sqlite3.Error as error:
        raise BackupError(f"{home.database} cannot be copied: {error}.") from error
    finally:
        draft.unlink(missing_ok=True)
    _sync(target.parent)
    record_here(home, "backup", id=manifest.id, file=str(target), blobs=len(manifest.blobs))
    return manifest


def _write_patiently(home: Home, draft: Path, folder: Path) -> Manifest:
    tries = 0
    while True:
        try:
            return _write(home, draft, folder / f"{tries}.db")
        except FileNotFoundError as error:
            tries += 1
            if tries == TRIES:
                raise BackupError(
                    f"{error.filename} is needed and not there: "
                    "`manta manager verify` says what else is wrong."
                ) from None


def _check_home(home: Home) -> None:
    try:
        if not home.database.is_file():
            raise BackupError(f"There is no manager's database in {home.path}: give its --home.")
    except PermissionError:
        raise BackupError(f"{home.path} is another user's: ask that user.") from None


def _write(home: Home, draft: Path, copy: Path) -> Manifest:
    """Raises FileNotFoundError for a blob that was deleted since the database was copied."""
    _copy_database(home.database, copy)
    sources = {name: home.path / name for name in KEYS}
    if home.settings_file.exists():
        sources[SETTINGS] = home.settings_file
    sources[DATABASE] = copy
    log = copy_log(home, copy.with_suffix(".audit"))
    sources |= {f"{AUDIT}/{path.name}": path for path in log}
    if home.encryption.exists():
        sources[KEY_FILE] = home.encryption
    blobs = {_blob_name(home, digest): digest for digest in _named(copy)}
    sources |= {name: home.path / name for name in blobs}
    blobs = {name: digest for name, digest in blobs.items() if not name.endswith(SEALED)}
    members = {
        name: Member(path.stat().st_size, blobs.get(name) or _digest(path))
        for name, path in sources.items()
    }
    manifest = Manifest(new_id(), time.time(), VERSION, members)
    content = msgspec.json.format(msgspec.json.encode(manifest))
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
            _add(archive, MANIFEST, io.BytesIO(content), len(content))
            for name, path in sources.items():
                with open(path, "rb") as source:
                    hashing = _Hashing(source)
                    _add(archive, name, hashing, members[name].size)
                    if hashing.digest != members[name].blake3:
                        raise BackupError(f"{path} is damaged: its digest is another.")
        file.flush()
        os.fsync(file.fileno())
    return manifest


def _blob_name(home: Home, digest: str) -> str:
    name = f"blobs/{digest[:2]}/{digest}"
    sealed = f"{name}{SEALED}"
    return sealed if (home.path / sealed).exists() else name


def _digest_of(name: str) -> str:
    """Of the blob in a file of that name."""
    return name.rpartition("/")[2].removesuffix(SEALED)


def _add(archive: tarfile.TarFile, name: str, content: IO[bytes] | _Hashing, size: int) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, 0o600, int(time.time())
    archive.addfile(info, content)


class _Hashing:
    """Hashes a file while it is read."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self._hasher = blake3()

    def read(self, size: int = -1) -> bytes:
        piece = self._source.read(size)
        self._hasher.update(piece)
        return piece

    @property
    def digest(self) -> str:
        return self._hasher.hexdigest()


def _copy_database(source: Path, target: Path) -> None:
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
    with (
        contextlib.closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as from_,
        contextlib.closing(sqlite3.connect(target)) as to,
    ):
        from_.backup(to)
        to.execute("PRAGMA journal_mode = DELETE")  # one file, without a log beside it


def _named(database: Path) -> set[str]:
    """Returns the digests of all blobs that are needed. Raises sqlite3.Error."""
    return {digest for digest in _references(database) if _DIGEST.fullmatch(digest)}


def _references(database: Path) -> set[str]:
    """Those that are damaged, too."""
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        rows = connection.execute("SELECT DISTINCT CAST(digest AS BLOB) FROM blob_references")
        return {digest.decode(errors="replace") for (digest,) in rows}


# Verifying.


def verify_home(home: Home) -> Verdict:
    """Raises BackupError if there is no manager's folder."""
    _check_home(home)
    flaws = _fatal_flaws(home)
    named = set[str]() if flaws else _named(home.database)
    flaws = flaws or list(_database_flaws(home.database))
    try:
        home.read_settings()
    except (OSError, Damaged) as error:
        flaws.append(str(error))
    size, sealer = 0, None
    try:
        sealer = _sealer(home)
    except (OSError, ValueError, KeyFileError) as error:
        flaws.append(f"Encrypted blobs are not verified: {error}.")
    for digest in sorted(named):
        path = home.path / _blob_name(home, digest)
        try:
            size += path.stat().st_size
            if path.suffix != SEALED:
                whole = _digest(path) == digest
            else:
                whole = sealer is None or sealer.is_whole(path, digest)
            if not whole:
                flaws.append(f"{path} is damaged: its digest is another.")
        except FileNotFoundError:
            if digest in _named(home.database):  # else it was released meanwhile
                flaws.append(f"{path} is named in the database and not there.")
        except OSError as error:
            flaws.append(f"{path} cannot be read: {error.strerror}.")
    return Verdict(home.path, len(named), size, flaws)


def _sealer(home: Home) -> Sealer | None:
    """None where nothing is encrypted. Raises OSError, ValueError, KeyFileError."""
    if not home.encryption.exists():
        return None
    source = home.read_settings().encryption_key_from
    return home.sealer(KeySource.parse(source) if source else None)


def _fatal_flaws(home: Home) -> list[str]:
    """Those with which no manager can start."""
    flaws = list(_unusable(home.database))
    try:
        KeyPair.load(home.key)
        signing_seed(home)
    except (KeyFileError, ValueError, OSError) as error:
        flaws.append(str(error))
    return flaws


def verify_file(file: Path) -> Verdict:
    """Raises BackupError if the file is not a backup at all."""
    with _opened(file) as (archive, manifest), tempfile.TemporaryDirectory() as folder:
        flaws = list(_unpack(archive, manifest, file, Path(folder), keep={DATABASE}))
        database = Path(folder) / DATABASE
        if database.exists() and not flaws:
            flaws += _unusable(database, str(file))
        if database.exists() and not flaws:
            flaws += _database_flaws(database, str(file))
            flaws += [
                f"{file}: the blob {digest} is named in its database and not in it."
                for digest in sorted(_named(database) - manifest.blobs)
            ]
        size = sum(member.size for member in manifest.members.values())
    return Verdict(file, len(manifest.blobs), size, flaws)


def _unusable(database: Path, name: str = "") -> Iterator[str]:
    name = name or str(database)
    try:
        connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
        with contextlib.closing(connection):
            rows = connection.execute("PRAGMA integrity_check").fetchall()
            yield from (f"{name}: {row}." for (row,) in rows if row != "ok")
            [(version,)] = connection.execute("SELECT COALESCE(MAX(version), 0) FROM migrations")
            if version > len(MIGRATIONS):
                yield f"{name}: a later version of Manta wrote it; install that version."
    except (sqlite3.Error, StoreError) as error:
        yield f"{name}: {error}; restore a backup."


def _database_flaws(database: Path, name: str = "") -> Iterator[str]:
    """Flaws of single things in a database that can be used."""
    name = name or str(database)
    try:
        yield from flaws(database, name)
        for digest in sorted(_references(database) - _named(database)):
            yield f"{name}: {digest!r}, which names a blob that is needed, is damaged."
    except (sqlite3.Error, StoreError) as error:
        yield f"{name}: {error}; restore a backup."


def _unpack(
    archive: tarfile.TarFile,
    manifest: Manifest,
    file: Path,
    folder: Path,
    keep: Iterable[str] | None = None,
) -> Iterator[str]:
    """Writes the members (those of `keep`, or all) into the folder; yields their flaws."""
    left = dict(manifest.members)
    try:
        for info in archive:
            if info.offset == 0:
                continue  # the manifest
            wanted = left.pop(info.name, None)
            if wanted is None or not info.isfile():
                yield f"{file}: {info.name} is not in its manifest."
                continue
            source = archive.extractfile(info)
            assert source is not None
            path = folder / info.name
            kept = keep is None or info.name in keep
            if kept:
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            hashing = _Hashing(source)
            with _private(path) if kept else open(os.devnull, "wb") as target:
                shutil.copyfileobj(hashing, target, PIECE)
                if kept:
                    target.flush()
                    os.fsync(target.fileno())
            if (info.size, hashing.digest) != (wanted.size, wanted.blake3):
                yield f"{file}: {info.name} is damaged: its digest is another."
    except (tarfile.TarError, EOFError) as error:
        yield f"{file} is cut off or damaged ({error})."
    yield from (f"{file}: {name} is missing." for name in left)


def _private(path: Path) -> IO[bytes]:
    return open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[tuple[tarfile.TarFile, Manifest]]:
    """Raises BackupError."""
    try:
        with open(file, "rb") as content, tarfile.open(fileobj=content, mode="r:") as archive:
            first = archive.next()
            found = archive.extractfile(first) if first else None
            if first is None or found is None or first.name != MANIFEST:
                raise BackupError(f"{file} is not a backup of a manager: it has no manifest.")
            if first.size > MOST_MANIFEST:
                raise BackupError(f"{file} is damaged: its manifest has {first.size} bytes.")
            thing = Thing(
                f"The manifest of {file}", "nothing can be restored", "use another backup"
            )
            manifest = read_stored(thing, json_decoder(Manifest).decode, found.read())
            if not 1 <= manifest.format <= FORMAT:
                raise BackupError(
                    f"{file} was made by Manta {manifest.version} in a format that this version "
                    "does not know: install that version."
                )
            _check_names(file, manifest)
            yield archive, manifest
    except OSError as error:
        raise BackupError(f"{file} cannot be read: {error.strerror or error}.") from error
    except Damaged as error:
        raise BackupError(str(error)) from None
    except tarfile.TarError as error:
        raise BackupError(f"{file} is not a backup of a manager ({error}).") from None


def _check_names(file: Path, manifest: Manifest) -> None:
    """Checks that no name leads out of the folder and that none is missing. Raises BackupError."""
    digests = {_digest_of(name) for name in manifest.members}
    blobs = {f"blobs/{digest[:2]}/{digest}" for digest in digests if _DIGEST.fullmatch(digest)}
    known = blobs | {f"{name}{SEALED}" for name in blobs}
    known |= {name for name in manifest.members if _AUDIT.fullmatch(name)}
    strange = manifest.members.keys() - known - {DATABASE, SETTINGS, KEY_FILE, *KEYS}
    if strange or not manifest.members.keys() >= {DATABASE, *KEYS}:
        raise BackupError(f"{file} is damaged: its manifest names other files than a manager has.")


# Restoring.


class Restored(NamedTuple):
    manifest: Manifest
    kept: Path | None
    """Where the folder that was there before is now."""
    flaws: list[str]
    """Of single things that were damaged when the backup was made."""


def restore(file: Path, home: Home, *, replace: bool = False) -> Restored:
    """Creates the folder from the backup.

    Raises BackupError: when a manager runs there, when the folder is not empty unless
    `replace`, and when the backup is damaged: then nothing has changed.
    """
    there = home.path.is_dir() and any(home.path.iterdir())
    if home.path.exists() and not home.path.is_dir():
        raise BackupError(f"{home.path} is not a folder: give another --home.")
    if there and (home.is_in_use() or home.is_kept()):
        raise BackupError(f"A manager runs in {home.path}: stop it first (manta manager stop).")
    if there and not replace:
        raise BackupError(
            f"{home.path} is not empty: give another --home, or --replace, which keeps what is "
            "there under another name."
        )
    draft = Home(home.path.with_name(f".{home.path.name}.part-{os.getpid()}"))
    try:
        with _opened(file) as (archive, manifest):
            draft.path.mkdir(mode=0o700, parents=True)
            fatal = list(_unpack(archive, manifest, file, draft.path))
        if fatal := fatal or _fatal_flaws(draft):
            raise BackupError(f"Nothing was restored: {fatal[0]}")
        if SETTINGS not in manifest.members and home.settings_file.exists():
            shutil.copy(home.settings_file, draft.settings_file)
        flaws = verify_home(draft).flaws
        restored = RestoredFile(f"{manifest.id}.{secrets.token_hex(4)}", manifest.made_at)
        with _private(draft.restored_file) as target:
            target.write(msgspec.json.encode(restored))
        go_on(draft, home, restored.backup, manifest.made_at)
        kept = _put_in_place(draft, home)
        return Restored(
            manifest, kept, [one.replace(str(draft.path), str(home.path)) for one in flaws]
        )
    except OSError as error:
        raise BackupError(
            f"{home.path} cannot be written: {error.strerror or error}; nothing has changed."
        ) from error
    finally:
        shutil.rmtree(draft.path, ignore_errors=True)


def _put_in_place(draft: Home, home: Home) -> Path | None:
    """Holds the old folder's lock until it is moved, so that no manager can start in it."""
    if not home.path.exists():
        draft.path.rename(home.path)
        return None
    if not any(home.path.iterdir()):
        draft.path.replace(home.path)
        return None
    aside = home.path.with_name(f"{home.path.name}.{time.strftime('%Y%m%d-%H%M%S')}")
    lock = os.open(home.lock, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        home.path.rename(aside)
        draft.path.rename(home.path)
    except BlockingIOError:
        raise BackupError(f"A manager was started in {home.path}: stop it first.") from None
    finally:
        os.close(lock)
    return aside


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        hashing = _Hashing(file)
        while hashing.read(PIECE):
            pass
        return hashing.digest


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
