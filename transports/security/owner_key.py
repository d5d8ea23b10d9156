"""The key of an owner, with which what is kept on a disk is encrypted.

It has 32 bytes, written as 64 hexadecimal digits, and lies where the owner says: in a file that
nobody else can read (`file:PATH`), in an environment variable (`env:NAME`), or in the kernel's
keyring (`keyring:DESCRIPTION`, a key of type `user`; see keyrings(7)).
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
from typing import NamedTuple

from manta.transports.errors import KeyFileError
from manta.transports.security.keys import read_private

KINDS = ("file", "env", "keyring")
_DIGITS = re.compile("[0-9a-fA-F]{64}")
_WANTED = "write 64 hexadecimal digits there, as `openssl rand -hex 32` prints"

_CALLS = {"x86_64": (249, 250), "aarch64": (218, 219), "riscv64": (218, 219)}
"""Numbers of request_key(2) and keyctl(2), by machine."""
_LINK, _READ = 8, 11
_PROCESS, _USER = -2, -4
"""Operations of keyctl(2), and keyrings that always have these numbers."""


class KeySource(NamedTuple):
    """Where an owner's key is; as text, `kind:name`."""

    kind: str
    name: str

    @classmethod
    def parse(cls, text: str) -> KeySource:
        """Raises ValueError, which does not quote the text: it may be the key itself."""
        kind, _, name = text.partition(":")
        if kind not in KINDS or not name or "\0" in name:
            raise ValueError('it must be "file:PATH", "env:NAME" or "keyring:DESCRIPTION"')
        return cls(kind, name)

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"

    def read(self) -> bytes:
        """The key. Raises KeyFileError, which names the place and what to do."""
        if self.kind == "file":
            text = read_private(os.path.expanduser(self.name))
        elif self.kind == "env":
            text = os.environ.get(self.name, "")
            if not text:
                raise KeyFileError(
                    f"the environment variable {self.name}, which is to hold the key of what is "
                    "encrypted here, is not set: set it"
                )
        else:
            text = _from_keyring(self.name)
        if not _DIGITS.fullmatch(text.strip()):
            raise KeyFileError(f"{self} holds no key: {_WANTED}")
        return bytes.fromhex(text.strip())


def _from_keyring(description: str) -> str:
    """Raises KeyFileError."""
    calls = _CALLS.get(platform.machine())
    if calls is None:
        raise KeyFileError(f"no keyring is read on {platform.machine()}: keep the key in a file")
    request_key, keyctl = calls
    # What the user's keyring holds may be read once a keyring of this process refers to it.
    _call(keyctl, _LINK, ctypes.c_long(_USER), ctypes.c_long(_PROCESS))
    name = description.encode()
    key, trouble = _call(request_key, b"user", name, None, ctypes.c_long(0))
    content = ctypes.create_string_buffer(256)
    length = -1
    if key >= 0:
        length, trouble = _call(keyctl, _READ, ctypes.c_long(key), content, ctypes.c_size_t(256))
    if length < 0:
        raise KeyFileError(
            f"the kernel's keyring gives no key {description!r} ({os.strerror(trouble)}): add it "
            f'with `keyctl add user {description} "$(openssl rand -hex 32)" @u` or, if there is '
            "one, with its digits"
        )
    return content.raw[: min(length, 256)].decode("ascii", "replace")


def _call(number: int, *arguments: object) -> tuple[int, int]:
    """What a system call returns, and its error's number."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    found = int(libc.syscall(ctypes.c_long(number), *arguments))
    return found, ctypes.get_errno()
