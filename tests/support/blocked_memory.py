"""Memory that nobody can read or write until it is let go: as that of a file on a disk that hangs.

Another process lets it go (userfaultfd(2)), as a thread that waits for such memory with Python's
lock stops all threads of its own.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import platform
import struct
import subprocess
import sys
from types import TracebackType

import pytest

PATIENCE = 5.0
"""Seconds from when somebody waits for it until it is let go unasked."""
_CALL = {"x86_64": 323, "aarch64": 282}.get(platform.machine())
_USER_MODE_ONLY = 1  # which needs no privilege
_API, _REGISTER, _ZEROPAGE = 0xC018AA3F, 0xC020AA00, 0xC020AA04

_KEEPER = f"""
import fcntl, select, struct, sys
fault, address, size = map(int, sys.argv[1:])
select.select([fault], [], [])
print("waits", flush=True)
asked = select.select([sys.stdin], [], [], {PATIENCE})[0]
fcntl.ioctl(fault, {_ZEROPAGE}, struct.pack("QQQq", address, size, 0, 0))
print("asked" if asked else "unasked", flush=True)
"""


class BlockedMemory:
    """`view` of that many bytes, zero at first. Skips the test where the system has none."""

    def __init__(self, size: int) -> None:
        self._size = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        self._memory = mmap.mmap(-1, self._size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.view = memoryview(self._memory)[:size]
        self._keeper: subprocess.Popen[str] | None = None

    def __enter__(self) -> BlockedMemory:
        libc = ctypes.CDLL(None, use_errno=True)
        fault = -1 if _CALL is None else libc.syscall(_CALL, os.O_CLOEXEC | _USER_MODE_ONLY)
        if fault < 0:
            pytest.skip(f"userfaultfd: {os.strerror(ctypes.get_errno())}")
        try:
            address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
            fcntl.ioctl(fault, _API, struct.pack("QQQ", 0xAA, 0, 0))
            fcntl.ioctl(fault, _REGISTER, struct.pack("QQQQ", address, self._size, 1, 0))
            self._keeper = subprocess.Popen(
                [sys.executable, "-c", _KEEPER, *map(str, (fault, address, self._size))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=[fault],
                text=True,
            )
        finally:
            os.close(fault)
        return self

    def wait(self) -> None:
        """Until somebody waits for it."""
        assert self._keeper is not None
        assert self._keeper.stdout is not None
        assert self._keeper.stdout.readline() == "waits\n"

    def let_go(self) -> bool:
        """Whether it was blocked until now."""
        assert self._keeper is not None
        told, _ = self._keeper.communicate("\n")
        return told == "asked\n"

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._keeper is not None:
            self._keeper.kill()
            self._keeper.communicate()
