"""bfloat16, which numpy does not have: the upper half of a float32."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.uint16]
_HALF = np.uint32(16)


def widened(bits: Bits) -> NDArray[np.float32]:
    wide: NDArray[np.uint32] = bits.astype(np.uint32)
    np.left_shift(wide, _HALF, out=wide)
    return wide.view(np.float32)


def rounded(values: NDArray[np.float32], target: NDArray[Any]) -> None:
    """Writes the bits of `values`, to the nearest and half to even, into `target` (uint16).

    NaN becomes the quiet NaN of its sign (IEEE 754-2019, section 6.2), as rounding its bits could
    make it infinite.
    """
    bits = values.view(np.uint32)
    nearest: NDArray[np.uint32] = bits >> _HALF
    np.bitwise_and(nearest, np.uint32(1), out=nearest)
    np.add(nearest, np.uint32(0x7FFF), out=nearest)
    np.add(nearest, bits, out=nearest)
    is_nan = np.isnan(values)
    if is_nan.any():
        nearest[is_nan] = bits[is_nan] | np.uint32(0x0040_0000)
    np.right_shift(nearest, _HALF, out=nearest)
    target[...] = nearest
