"""CURVE key pairs (RFC 26) and the files that keep them.

A public key is 40 characters of Z85 (RFC 32) and is its owner's identity. The
secret half is kept in a file of mode 0600 in a folder of mode 0700, or nowhere.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from manta.transports.errors import KeyFileError, LocalTransportError, remedied
from manta.transports.files import SMALL, FileTooLarge, read_at_most

KEY_CHARACTERS = 40
_Z85 = frozenset(
    "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
)


def check_key(key: str, what: str = "public key") -> str:
    """Return `key` if it looks like a CURVE key in Z85. Raises LocalTransportError."""
    if len(key) != KEY_CHARACTERS or not _Z85.issuperset(key):
        raise LocalTransportError(
            f"the {what} is not a CURVE key: expected {KEY_CHARACTERS} characters of Z85, "
            f"got {len(key)}; copy it again in full"
        )
    return key


@dataclass(frozen=True)
class KeyPair:
    """One identity. Both halves are Z85 text; the repr omits the secret."""

    public: str
    secret: str = field(repr=False)

    def __post_init__(self) -> None:
        check_key(self.public)
        check_key(self.secret, "secret key")

    @classmethod
    def generate(cls) -> KeyPair:
        """A new one, whose public half no command can take for an option."""
        import zmq

        while True:
            public, secret = zmq.curve_keypair()
            if not public.startswith(b"-"):
                return cls(public.decode("ascii"), secret.decode("ascii"))

    @classmethod
    def from_secret(cls, secret: str) -> KeyPair:
        """The pair of a secret key."""
        import zmq

        check_key(secret, "secret key")
        return cls(zmq.curve_public(secret.encode("ascii")).decode("ascii"), secret)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> KeyPair:
        """Read a file that `save` wrote.

        Raises KeyFileError when it is missing or malformed, or when another
        user could read or replace it.
        """
        return cls.of_fields(Path(path), read_fields(path))

    @classmethod
    def of_fields(cls, path: Path, fields: Mapping[str, str]) -> KeyPair:
        """The pair that the fields of a file hold. Raises KeyFileError."""
        try:
            pair = cls.from_secret(fields["secret"])
            if fields["public"] != pair.public:
                raise LocalTransportError("the two halves do not belong together")
        except (KeyError, LocalTransportError):
            # Without the cause, whose message could quote the secret.
            raise KeyFileError(
                f"{path} is not a key file, or is damaged: restore it from a backup, "
                "or delete it to get a new identity"
            ) from None
        return pair

    def save(self, path: str | os.PathLike[str], *, replace: bool = False) -> None:
        """Write the pair, whole or not at all, and make the folder if need be.

        Raises KeyFileError when the file exists and `replace` is not set, or
        when the folder is open to other users.
        """
        text = (
            f"# Manta key pair: keep it secret.\npublic = {self.public}\nsecret = {self.secret}\n"
        )
        write_private(Path(path), text, replace=replace)


def read_fields(path: str | os.PathLike[str]) -> dict[str, str]:
    """The lines `name = value` of a secret file. Raises KeyFileError."""
    check_private_folder(Path(path).parent)
    lines = read_private(path).splitlines()
    return dict(line.split(" = ", 1) for line in lines if " = " in line)


def make_private_folder(folder: str | os.PathLike[str]) -> None:
    """Make a folder of mode 0700, or check the one that is there. Raises KeyFileError.

    Folders above it that are missing get the same mode, whatever the umask is.
    """
    folder = Path(folder)
    try:
        missing = [one for one in (folder, *folder.parents) if not one.exists()]
        for one in reversed(missing):
            try:
                one.mkdir(mode=0o700)
            except FileExistsError:  # another process was faster
                continue
            one.chmod(0o700)
    except OSError as error:
        raise KeyFileError(f"cannot make the folder {folder}: {remedied(error)}") from error
    check_private_folder(folder)


def check_unwritable(path: str | os.PathLike[str]) -> None:
    """Raises KeyFileError if other users can change what is there; what is not there is good."""
    try:
        status = os.stat(path)
    except OSError:  # whoever reads it says what is wrong with it
        return
    if status.st_uid not in (os.geteuid(), 0):
        raise KeyFileError(
            f"{path} belongs to user id {status.st_uid}, not to this process's {os.geteuid()}: "
            f"check what is in it, and run `chown {os.geteuid()} {path}`"
        )
    if status.st_mode & 0o022:
        raise KeyFileError(
            f"{path} can be changed by other users (mode {stat.S_IMODE(status.st_mode):04o}): "
            f"check what is in it, and run `chmod go-w {path}`"
        )


def check_private_folder(folder: str | os.PathLike[str]) -> None:
    """Raises KeyFileError unless only this user can enter the folder."""
    try:
        status = os.stat(folder)
    except FileNotFoundError:
        raise KeyFileError(
            f"there is no folder {folder}: enrol or sign in first, or give the right path"
        ) from None
    except OSError as error:
        raise KeyFileError(f"cannot use the folder {folder}: {remedied(error)}") from error
    if not stat.S_ISDIR(status.st_mode):
        raise KeyFileError(f"{folder} is not a folder: move it away")
    _check_owner_and_mode(folder, status, 0o700)


def read_private(path: str | os.PathLike[str], bound: int = SMALL) -> str:
    """Read a secret file of mode 0600 and at most `bound` bytes. Raises KeyFileError."""
    try:
        # Checked on the open file, so that it cannot be replaced in between.
        # Non-blocking, so that a FIFO at this path is an error and not a hang.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise KeyFileError(
            f"there is no key file {path}: enrol or sign in first, or give the right path"
        ) from None
    except OSError as error:
        raise KeyFileError(f"cannot read the key file {path}: {remedied(error)}") from error
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise KeyFileError(f"{path} is not a file: move it away")
        _check_owner_and_mode(path, status, 0o600)
        return read_at_most(fd, bound).decode("utf-8")
    except FileTooLarge as error:
        raise KeyFileError(f"{path} is not what it should be: {error}; correct the path") from None
    except OSError as error:
        raise KeyFileError(f"cannot read {path}: {remedied(error)}") from error
    except UnicodeDecodeError:
        raise KeyFileError(
            f"{path} is damaged: restore it from a backup, or delete it to start anew"
        ) from None
    finally:
        os.close(fd)


def write_private(path: str | os.PathLike[str], text: str, *, replace: bool = False) -> None:
    """Write a secret file of mode 0600 in a folder of mode 0700, atomically and synced."""
    path = Path(path)
    make_private_folder(path.parent)
    draft = f"{path}.{os.urandom(8).hex()}"
    try:
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "w", encoding="utf-8") as file:
            os.fchmod(fd, 0o600)
            file.write(text)
            file.flush()
            os.fsync(fd)
        if replace:
            os.replace(draft, path)
        else:
            os.link(draft, path)  # unlike a rename, fails if the name is taken
    except FileExistsError:
        raise KeyFileError(
            f"{path} exists already and would be lost: delete it first if it is not needed"
        ) from None
    except OSError as error:
        raise KeyFileError(f"cannot write {path}: {remedied(error)}") from error
    finally:
        with suppress(FileNotFoundError):
            os.unlink(draft)


def _check_owner_and_mode(
    path: str | os.PathLike[str], status: os.stat_result, allowed: int
) -> None:
    if status.st_uid != os.geteuid():
        raise KeyFileError(
            f"{path} belongs to user id {status.st_uid}, not to this process's {os.geteuid()}: "
            f"run `chown {os.geteuid()} {path}`"
        )
    if status.st_mode & 0o077:
        raise KeyFileError(
            f"{path} is open to other users (mode {stat.S_IMODE(status.st_mode):04o}): "
            f"run `chmod {allowed:o} {path}`"
        )
