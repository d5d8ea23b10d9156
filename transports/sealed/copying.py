"""Copies of bytes for which no other thread waits.

Python copies within its lock. Where one side lies in a file, the system may have to read or write
the disk first, and all threads of the process would stand still until it has.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from manta.transports.interface import Buffer


def copy(into: memoryview, data: Buffer) -> None:
    """Fills memory without Python's lock. Raises ValueError for data of another size."""
    import numpy as np  # which takes 0.1 s, and most processes copy nothing so

    target, source = np.frombuffer(into, np.uint8), np.frombuffer(data, np.uint8)
    if target.size != source.size:
        raise ValueError(f"{source.size} bytes do not fill {target.size}")
    ctypes.memmove(target.ctypes.data, source.ctypes.data, target.size)
