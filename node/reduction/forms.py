"""What is reduced, by its form. Without numpy, which a plane imports once it has to reduce."""

from __future__ import annotations

from typing import NamedTuple

Bytes = memoryview | bytes | bytearray


class Leaf(NamedTuple):
    """An array within a value. Its bytes are of this machine's order."""

    start: int
    stop: int
    dtype: str
    """numpy's name, or "bfloat16"."""
    where: str = "value"
    said: str = ""
    """How messages name the dtype, if otherwise."""
    into: str = ""
    """A dtype of integers that the outcome is to fit into, if not its own."""


class Source(NamedTuple):
    """The same range of one value, or of an interim result."""

    data: Bytes
    is_interim: bool = False
