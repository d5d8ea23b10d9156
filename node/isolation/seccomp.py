"""A filter of system calls (seccomp, mode 2), as a program of classic BPF.

`program` makes it of the list in `syscalls`: `bwrap --seccomp FD` reads it from a descriptor, and
`install` gives it to the kernel for this process and all that it starts. The format is
`struct sock_filter` of `linux/filter.h`, over `struct seccomp_data` of `linux/seccomp.h`. A call by
another table of numbers (x32, or 32-bit code) is refused as one that the kernel does not have.

libseccomp would compile the same, and needs its shared library on the machine, which the bindings
on the package index do not bring along.
"""

from __future__ import annotations

import ctypes
import os
import struct
from errno import EACCES, EAFNOSUPPORT, ENOSYS, EPERM
from typing import Final, NamedTuple

from manta.node.isolation.syscalls import AARCH64, DENIED, LAST, SHARED_IPC, X86_64

_LOAD, _EQUAL, _GREATER, _ANY_BIT, _RETURN = 0x20, 0x15, 0x25, 0x45, 0x06
_ALLOW = 0x7FFF0000
_ERRNO = 0x00050000
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
_PR_SET_SECCOMP, _MODE_FILTER = 22, 2

NAMESPACES: Final = 0x7E020000
"""CLONE_NEWNS, CGROUP, UTS, IPC, USER, PID and NET of `linux/sched.h`."""
TERMINAL_INPUT: Final = (0x5412, 0x541C)
"""TIOCSTI and TIOCLINUX, which type into a terminal."""
PERSONALITIES: Final = (0, 0xFFFFFFFF)
"""That which every process has, and the question which it is."""
SET_USER_ID: Final = 0o4000
"""S_ISUID. The bit for groups stays, which folders of shared data have and copies of them get."""
LOCAL: Final = (1,)
"""AF_UNIX."""
INTERNET: Final = (2, 10)
"""AF_INET and AF_INET6."""


class Architecture(NamedTuple):
    audit: int
    """AUDIT_ARCH of `linux/audit.h`."""
    numbers: dict[str, int]


ARCHITECTURES: Final = {
    "x86_64": Architecture(0xC000003E, X86_64),
    "aarch64": Architecture(0xC00000B7, AARCH64),
}
"""By `os.uname().machine`."""


class _SockFprog(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def program(
    machine: str | None = None, *, internet: bool = False, shares_ipc: bool = True
) -> bytes:
    """The filter for a machine of that architecture, this one's by default.

    `internet`: sockets of AF_INET and AF_INET6 may be made, as where a network namespace or
    Landlock says where they lead. `shares_ipc`: the task has no IPC namespace of its own. Raises
    LookupError for an architecture of which the numbers of calls are not known.
    """
    machine = os.uname().machine if machine is None else machine
    if machine not in ARCHITECTURES:
        raise LookupError(
            f"System calls of {machine} are not known here, so a task can't be kept from any: "
            f"there are filters for {' and '.join(ARCHITECTURES)}."
        )
    audit, numbers = ARCHITECTURES[machine]
    groups = (*DENIED, SHARED_IPC) if shares_ipc else DENIED
    refused = sorted(
        (numbers[call], group.errno) for group in groups for call in group.calls if call in numbers
    )
    families = LOCAL + INTERNET if internet else LOCAL
    code = [
        (_LOAD, 0, 0, _ARCH),
        (_EQUAL, 1, 0, audit),
        _refuse(ENOSYS),
        (_LOAD, 0, 0, _NUMBER),
        (_GREATER, 0, 1, LAST),
        _refuse(ENOSYS),
    ]
    for number, errno in refused:
        code += [(_EQUAL, 0, 1, number), _refuse(errno)]
    code += _when(numbers["clone"], 0, [(_ANY_BIT, 0, 1, NAMESPACES), _refuse(EPERM)])
    code += _when(numbers["ioctl"], 1, _none_of(TERMINAL_INPUT))
    code += _when(numbers["personality"], 0, _one_of(PERSONALITIES, EPERM))
    for call, mode in (("chmod", 1), ("fchmod", 1), ("fchmodat", 2), ("fchmodat2", 2)):
        if call in numbers:
            code += _when(numbers[call], mode, [(_ANY_BIT, 0, 1, SET_USER_ID), _refuse(EPERM)])
    unknown = _one_of(families, EAFNOSUPPORT)
    closed = () if internet else INTERNET
    code += _when(numbers["socket"], 0, [*_none_of(closed, EACCES), *unknown])
    code += _when(numbers["socketpair"], 0, _one_of(LOCAL, EAFNOSUPPORT))
    code.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


_Code = list[tuple[int, int, int, int]]


def _refuse(errno: int) -> tuple[int, int, int, int]:
    return (_RETURN, 0, 0, _ERRNO | errno)


def _when(number: int, argument: int, code: _Code) -> _Code:
    """Runs `code` on the low half of an argument of one call, which is allowed if that ends.

    The kernel itself takes no more than that of all of them but the flags of `clone`, of which
    those for namespaces lie there.
    """
    body = [(_LOAD, 0, 0, _ARGUMENTS + 8 * argument), *code, (_RETURN, 0, 0, _ALLOW)]
    return [(_EQUAL, 0, len(body), number), *body]


def _none_of(values: tuple[int, ...], errno: int = EPERM) -> _Code:
    return [step for value in values for step in ((_EQUAL, 0, 1, value), _refuse(errno))]


def _one_of(values: tuple[int, ...], errno: int) -> _Code:
    allow = (_RETURN, 0, 0, _ALLOW)
    return [*(step for value in values for step in ((_EQUAL, 0, 1, value), allow)), _refuse(errno)]


def install(filter: bytes) -> None:
    """Filters what this thread, and all that it starts, calls from now on; it can't be undone.

    `privileges.drop` comes first. Raises OSError.
    """
    wanted = _SockFprog(len(filter) // 8, filter)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(wanted), 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "seccomp")
