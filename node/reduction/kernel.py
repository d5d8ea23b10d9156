"""Reduces a range of several values into a range of their reduction.

The rule is that of `manta.light.array_reduction`, and done over all ranges of a value the bits are
those that it makes of the whole. Whole blocks at a time are reduced there; what makes up most of
all bytes (floats of 32 and 64 bits, and extremes) is reduced here, straight into the target: no
memory of a range's size is needed beside it.

Ranks of one peer may be reduced first, to an *interim* result, where that has the width of a value
(`local_first`). That of a mean is the sum of the values over a power of two, chosen for the number
of all members: it changes no digit (but of numbers below 1e-37, or 1e-306 with 64 bits), and the
interim sum of finite numbers can't be infinite where their mean is not.

What integers may have to say goes into *notes*, one for each range, of which `conclude` makes the
error or the warning for the whole value, the same as if it had been reduced at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from manta.light.array_reduction import (
    COARSER_UNIT,
    TIMES,
    DoesNotFit,
    Refused,
    not_whole,
    reduce_arrays,
    rounded_sentence,
    wider_dtype,
)
from manta.node.reduction import bfloat16
from manta.node.reduction.forms import Bytes, Leaf, Source
from manta.transports.collectives.coverage import Coverage

BLOCK = 256 * 1024
"""Bytes of each source that are reduced at once: they stay in a core's cache meanwhile."""
WIDENED = 15 * 1024
"""Items at a time of what is widened first: memory for them stays below what malloc maps anew
each time (128 KiB), whose page faults would cost half of the speed."""
_END = 1 << 62
_BFLOAT16 = "bfloat16"
_NARROW = ("float16", _BFLOAT16)
_DIRECT = ("float32", "float64", "complex64", "complex128")
_FOLDS: dict[str, Any] = {
    "sum": np.add,
    "mean": np.add,
    "min": np.minimum,
    "max": np.maximum,
    "prod": np.multiply,
}


class Conclusion(NamedTuple):
    """What all members are to be told about an outcome."""

    error: Exception | None
    warning: str
    """Empty if there is none."""


class Note(NamedTuple):
    """About a leaf, or a range of it."""

    is_rounded: bool
    """Its mean has fractions."""
    least: int = 0
    most: int = 0
    """The extremes of what does not fit; both 0 if it does."""


class Kernel:
    """Reduces values of one form by one operation, of `members` members."""

    def __init__(self, op: str, leaves: Sequence[Leaf], members: int) -> None:
        """Raises TypeError for what can't be reduced by this operation, whatever its values."""
        self.op = op
        self.leaves = tuple(leaves)
        self._scale = 2.0 ** -members.bit_length()
        covered = Coverage()
        for leaf in leaves:
            covered.add(leaf.start, leaf.stop)
        self._gaps = covered.missing(0, _END)
        for leaf in leaves:
            try:
                reduce_arrays([np.empty(0, _carrier(leaf))], op, leaf.into or None)
            except Refused as refused:
                raise refused.error(f"{leaf.where} {refused}") from None

    @property
    def itemsize(self) -> int:
        """No range may begin or end within so many bytes."""
        sizes = {_numpy(leaf).itemsize for leaf in self.leaves}
        return sizes.pop() if len(sizes) == 1 else 16

    @property
    def local_first(self) -> bool:
        """Have interim results the width of values?"""
        is_extreme = self.op in ("min", "max")
        return is_extreme or all(leaf.dtype in _DIRECT for leaf in self.leaves)

    @property
    def reproducible(self) -> bool:
        """Does every machine come to the same bits? Sums, products and quotients of floats are
        rounded alike everywhere (IEEE 754), but products of complex numbers are several of these,
        which some processors round once."""
        kinds = {_numpy(leaf).kind for leaf in self.leaves}
        return self.op != "prod" or "c" not in kinds

    @property
    def noted(self) -> bool:
        """May there be notes?"""
        kinds = {_numpy(leaf).kind for leaf in self.leaves if leaf.dtype != _BFLOAT16}
        return self.op not in ("min", "max") and bool(kinds & set("biumM"))

    def reduce(
        self,
        start: int,
        target: Bytes,
        sources: Sequence[Source],
        count: int = 0,
    ) -> bytes:
        """Reduces the range that begins at byte `start`, in the order of `sources`. Bytes of no
        leaf become 0.

        `count` says of how many members' values the outcome is; without, it is an interim result.
        Returns the note, if there is one.
        """
        stop = start + len(target)
        notes: dict[int, Note] = {}
        for low, high in self._gaps:
            low, high = max(low, start), min(high, stop)
            if low < high:
                memoryview(target)[low - start : high - start] = bytes(high - low)
        with np.errstate(all="ignore"):
            for number, leaf in enumerate(self.leaves):
                dtype = _numpy(leaf)
                block = BLOCK if self._is_direct(leaf) else WIDENED * dtype.itemsize
                for low, high in _blocks(max(start, leaf.start), min(stop, leaf.stop), block):
                    items = (high - low) // dtype.itemsize
                    parts = [
                        (np.frombuffer(data, dtype, items, low - start), is_interim)
                        for data, is_interim in sources
                    ]
                    out = np.frombuffer(target, dtype, items, low - start)
                    note = self._block(leaf, parts, out, count)
                    if note is not None:
                        notes[number] = _joined(notes.get(number), note)
        return _packed(notes) if notes else b""

    def _is_direct(self, leaf: Leaf) -> bool:
        """Is it reduced straight into the target?"""
        if leaf.dtype in _NARROW:
            return False
        is_extreme = self.op in ("min", "max") and _numpy(leaf).kind in "biu"
        return is_extreme or leaf.dtype in _DIRECT

    def _block(
        self, leaf: Leaf, parts: list[tuple[Any, bool]], out: Any, count: int
    ) -> Note | None:
        if self._is_direct(leaf):
            self._floats(parts, out, count)
            return None
        arrays = [part for part, _ in parts]
        if leaf.dtype in _NARROW:
            self._narrow(leaf, arrays, out, count)
            return None
        try:
            outcome, is_exact = reduce_arrays(arrays, self.op, leaf.into or None)
        except DoesNotFit as refused:
            return Note(False, refused.least, refused.most)
        except Refused:  # bools that differ have no mean
            return Note(True)
        out[...] = outcome
        return None if is_exact else Note(True)

    def _floats(self, parts: list[tuple[Any, bool]], out: Any, count: int) -> None:
        if self.op == "mean":
            self._mean(parts, out, count)
        else:
            _fold(_FOLDS[self.op], [part for part, _ in parts], out)

    def _narrow(self, leaf: Leaf, arrays: list[Any], out: Any, count: int) -> None:
        """In float32, block by block."""
        widen = bfloat16.widened if leaf.dtype == _BFLOAT16 else _widened
        wide = [(widen(array), False) for array in arrays]
        total = np.empty(out.shape, np.float32)
        self._floats(wide, total, count)
        if leaf.dtype == _BFLOAT16:
            bfloat16.rounded(total, out)
        else:
            out[...] = total

    def _mean(self, parts: list[tuple[Any, bool]], out: Any, count: int) -> None:
        scale = self._scale
        if not count:
            down = [part if is_interim else part * scale for part, is_interim in parts]
            _fold(np.add, down, out)
            return
        _fold(np.add, [part / scale if is_interim else part for part, is_interim in parts], out)
        np.divide(out, count, out=out)
        finite = np.isfinite(out)
        if finite.all():
            return
        if not any(is_interim for _, is_interim in parts):
            scale = 2.0 ** -count.bit_length()
        down = [part if is_interim else part * scale for part, is_interim in parts]
        total = np.empty_like(out)
        _fold(np.add, down, total)
        np.copyto(out, total / count / scale, where=~finite)

    def conclude(self, notes: Iterable[bytes]) -> Conclusion:
        """What the notes of all ranges come to, whatever their order. Raises ValueError for notes
        that no range gave."""
        found: dict[int, Note] = {}
        for note in notes:
            for number, one in _unpacked(note).items():
                found[number] = _joined(found.get(number), one)
        rounded = []
        for number in sorted(found):
            if not 0 <= number < len(self.leaves):
                raise ValueError(f"a note is about leaf {number} of {len(self.leaves)}")
            leaf = self.leaves[number]
            is_rounded, least, most = found[number]
            refused: Refused | None = None
            if least or most:
                refused = _unfit(self.op, leaf, (least, most))
            elif is_rounded and "bool" in (leaf.dtype, leaf.into):
                refused = not_whole()
            if refused is not None:
                return Conclusion(refused.error(f"{leaf.where} {refused}"), "")
            rounded.append(leaf.where)
        return Conclusion(None, rounded_sentence(rounded) if rounded else "")


def _numpy(leaf: Leaf) -> np.dtype[Any]:
    """What its bytes are read as."""
    return np.dtype("uint16" if leaf.dtype == _BFLOAT16 else leaf.dtype)


def _widened(halves: NDArray[np.float16]) -> NDArray[np.float32]:
    return halves.astype(np.float32)


def _carrier(leaf: Leaf) -> np.dtype[Any]:
    """What its items are reduced as."""
    return np.dtype("float32" if leaf.dtype == _BFLOAT16 else leaf.dtype)


def _blocks(low: int, high: int, size: int) -> Iterator[tuple[int, int]]:
    for start in range(low, high, size):
        yield start, min(start + size, high)


def _fold(fold: Any, parts: Sequence[Any], out: Any) -> None:
    if len(parts) == 1:
        out[...] = parts[0]
        return
    # In place, numpy rounds the product of two single complex items as it rounds no others.
    is_single = out.size == 1
    fold(parts[0].copy() if is_single else parts[0], parts[1], out=out)
    for part in parts[2:]:
        fold(out.copy() if is_single else out, part, out=out)


def _unfit(op: str, leaf: Leaf, extremes: tuple[int, int]) -> DoesNotFit:
    dtype = np.dtype(leaf.into or leaf.dtype)
    name = leaf.said or dtype.name
    if dtype.kind in "mM":
        return DoesNotFit(op, name, TIMES, extremes, COARSER_UNIT)
    limits = (0, 1)
    if dtype.kind != "b":
        limits = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    return DoesNotFit(op, name, limits, extremes, wider_dtype(name))


def _joined(one: Note | None, other: Note) -> Note:
    if one is None:
        return other
    least, most = min(one.least, other.least), max(one.most, other.most)
    return Note(one.is_rounded or other.is_rounded, least, most)


def _packed(notes: dict[int, Note]) -> bytes:
    """Numbers in hexadecimal: of any length, which decimal ones are not."""
    lines = [
        [leaf, one.is_rounded, f"{one.least:x}", f"{one.most:x}"] for leaf, one in notes.items()
    ]
    return json.dumps(lines).encode()


def _unpacked(note: bytes) -> dict[int, Note]:
    """Raises ValueError."""
    try:
        return {
            int(leaf): Note(bool(is_rounded), int(least, 16), int(most, 16))
            for leaf, is_rounded, least, most in json.loads(note)
        }
    except (TypeError, ValueError) as error:
        raise ValueError(f"{note!r:.100} is no note of a reduction: {error}") from None
