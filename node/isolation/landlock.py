"""Landlock: what a process and all that it starts may do with files, TCP and other processes.

Needs no privilege and can't be undone (https://docs.kernel.org/userspace-api/landlock.html). What
the kernel can refuse grew with the versions of its interface (ABI); of what it does not know
nothing is asked, and `gaps` says what that leaves open:

| ABI | Linux | refuses |
|---|---|---|
| 1 | 5.13 | to open, make and remove files where no rule allows it |
| 2 | 5.19 | to move and link files from folder to folder; before, that is refused everywhere |
| 3 | 6.2 | to cut files short |
| 4 | 6.7 | to bind and connect TCP sockets |
| 5 | 6.10 | ioctl on devices |
| 6 | 6.12 | to connect to abstract Unix sockets, and to signal processes, outside |

Every version keeps a process from tracing, and looking into, processes outside. None refuses to
connect to a Unix socket that has a path, to list processes, or to read what a file is called, how
large it is and who may use it.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Iterable
from enum import IntFlag
from typing import Final, NamedTuple

LATEST: Final = 7
"""The version that was looked at. With 7 (Linux 6.15) came words for audit logs, and no rights."""
_CREATE, _ADD, _RESTRICT = 444, 445, 446  # system calls, on all architectures
_GET_VERSION = 1
_PATH_BENEATH = 1


class Access(IntFlag):
    """LANDLOCK_ACCESS_FS of `linux/landlock.h`."""

    EXECUTE = 1 << 0
    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    READ_DIR = 1 << 3
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHAR = 1 << 6
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    MAKE_SOCK = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK = 1 << 11
    MAKE_SYM = 1 << 12
    REFER = 1 << 13
    TRUNCATE = 1 << 14
    IOCTL_DEV = 1 << 15


LIST: Final = Access.READ_DIR
READ: Final = Access.READ_FILE | LIST
RUN: Final = READ | Access.EXECUTE
DEVICE: Final = Access.READ_FILE | Access.WRITE_FILE | Access.TRUNCATE | Access.IOCTL_DEV
UNLISTED: Final = (
    Access.READ_FILE | Access.WRITE_FILE | Access.TRUNCATE | Access.MAKE_REG | Access.REMOVE_FILE
)
"""Files that are found by their names alone."""
OWN: Final = (
    RUN
    | UNLISTED
    | Access.REMOVE_DIR
    | Access.MAKE_DIR
    | Access.MAKE_SOCK
    | Access.MAKE_FIFO
    | Access.MAKE_SYM
    | Access.REFER
)
"""A folder of the task's own: all but devices."""

_FILES = Access.EXECUTE | Access.WRITE_FILE | Access.READ_FILE | Access.TRUNCATE | Access.IOCTL_DEV
"""What a rule may say of something that is no folder."""
_BITS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}  # of Access, by ABI
_GAPS = {
    3: "a file that may be written may be cut short",
    4: "TCP is not refused",
    5: "devices that may be read take every ioctl",
    6: "abstract Unix sockets and signals reach what the user runs outside",
}


class Rule(NamedTuple):
    """What may be done with a file, or beneath a folder."""

    path: str
    access: Access
    may_lack: bool = False
    """Whether there may be no such file."""


def available() -> int:
    """The ABI that the running kernel has, 0 for none."""
    return max(0, int(_libc().syscall(_CREATE, None, 0, _GET_VERSION)))


def handled(abi: int) -> Access:
    """The rights that are refused where no rule gives them."""
    return Access((1 << _BITS[min(abi, max(_BITS))]) - 1)


def attributes(abi: int, *, internet: bool = False) -> bytes:
    """`struct landlock_ruleset_attr`, as long as that version knows it: everything is refused, but
    for TCP with `internet`."""
    tcp = 0 if internet else 0b11  # bind and connect
    scopes = 0b11  # abstract Unix sockets and signals
    words = [int(handled(abi))] + [tcp] * (abi >= 4) + [scopes] * (abi >= 6)
    return struct.pack(f"={len(words)}Q", *words)


def gaps(abi: int) -> tuple[str, ...]:
    """What stays open as the kernel is older."""
    return tuple(gap for since, gap in _GAPS.items() if abi < since)


def restrict(rules: Iterable[Rule], abi: int | None = None, *, internet: bool = False) -> None:
    """Refuses this thread, and all that it starts, everything but what the rules allow.

    `abi`: act as a kernel of that version. `internet`: TCP is not refused. `privileges.drop` comes
    first. Raises OSError, with the path of the rule to blame.
    """
    abi = available() if abi is None else abi
    given = attributes(abi, internet=internet)
    ruleset = _call(_CREATE, given, len(given), 0)
    try:
        for rule in rules:
            _add(ruleset, rule, handled(abi))
        _call(_RESTRICT, ruleset, 0)
    finally:
        os.close(ruleset)


def _add(ruleset: int, rule: Rule, handled: Access) -> None:
    try:
        fd = os.open(rule.path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        if rule.may_lack:
            return
        raise
    try:
        access = rule.access & handled
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            access &= _FILES
        if access:
            attribute = struct.pack("=Qi", access, fd)
            _call(_ADD, ruleset, _PATH_BENEATH, attribute, 0, path=rule.path)
    finally:
        os.close(fd)


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    return libc


def _call(number: int, *arguments: object, path: str = "landlock") -> int:
    wide = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    result = int(_libc().syscall(ctypes.c_long(number), *wide))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return result
