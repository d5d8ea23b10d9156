"""What a disk may return instead of what was written."""

from __future__ import annotations

from random import Random


def damaged(data: bytes, random: Random) -> bytes:
    """Random bytes, the data cut short, or with one bit flipped."""
    match random.randrange(3):
        case 0:
            return random.randbytes(random.randrange(1, 2 * len(data) + 2))
        case 1:
            return data[: random.randrange(len(data))]
        case _:
            flipped = bytearray(data)
            flipped[random.randrange(len(data))] ^= 1 << random.randrange(8)
            return bytes(flipped)
