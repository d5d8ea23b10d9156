"""Gives up what a process may do beyond its user's rights, for itself and all that it starts."""

from __future__ import annotations

import ctypes
import os

_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _CLEAR_ALL = 24, 38, 47, 4
_VERSION_3 = 0x20080522  # _LINUX_CAPABILITY_VERSION_3
_SETPCAP = 8


def drop() -> None:
    """Leaves no capability, and gains none by any program, setuid or of root's. Raises OSError.

    The bounding set is that of who may change it; with the others empty and no new privileges it
    gives nothing.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    _check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    if effective() >> _SETPCAP & 1:
        for number in range(_last() + 1):
            _check(libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0), "capability bounding set")
    libc.prctl(_PR_CAP_AMBIENT, _CLEAR_ALL, 0, 0, 0)  # none there before Linux 4.3
    header, none = (ctypes.c_uint32 * 2)(_VERSION_3, 0), (ctypes.c_uint32 * 6)()
    _check(libc.capset(header, none), "capset")


def effective() -> int:
    """The capabilities that this thread has, a bit each."""
    with open("/proc/thread-self/status") as file:
        return next(int(line.split()[1], 16) for line in file if line.startswith("CapEff:"))


def _last() -> int:
    with open("/proc/sys/kernel/cap_last_cap") as file:
        return int(file.read())


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
