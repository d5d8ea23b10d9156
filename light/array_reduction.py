"""Reduces arrays or tensors of one shape and dtype. The rule is that of `manta.light.reduction`.

Both libraries have the same names for nearly all that is needed here, so that one code serves
both; `_Library` has the rest.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from manta.light.errors import CollectiveError

_INT64 = 2**63 - 1
_NAT = -(2**63)
TIMES = -_INT64, _INT64
"""The least and the most that a date or a duration may count."""
COARSER_UNIT = "give them in a coarser unit"
_COLUMNS = 65_536  # elements at a time, where each is an object of Python's
_FOLDS = {
    "sum": "add",
    "mean": "add",
    "min": "minimum",
    "max": "maximum",
    "prod": "multiply",
}
_EXACT_FOLDS: dict[str, Callable[[tuple[int, ...]], int]] = {
    "sum": sum,
    "mean": sum,
    "min": min,
    "max": max,
    "prod": math.prod,
}
_MEANINGFUL = {
    "b": ("mean", "min", "max", "prod"),
    "i": ("sum", "mean", "min", "max", "prod"),
    "u": ("sum", "mean", "min", "max", "prod"),
    "f": ("sum", "mean", "min", "max", "prod"),
    "c": ("sum", "mean", "prod"),
    "m": ("sum", "mean", "min", "max"),
    "M": ("mean", "min", "max"),
}
"""By the kind of a dtype, in numpy's letters."""
_CONVERTIBLE = {"b": "biufc", "i": "iufc", "u": "iufc", "f": "fc", "c": "c", "m": "", "M": ""}


class Refused(Exception):
    """Why values can't be reduced; the sentence goes on from where they are."""

    def __init__(self, reason: str, error: type[Exception] = CollectiveError) -> None:
        super().__init__(reason)
        self.error = error


class DoesNotFit(Refused):
    """An outcome that a dtype can't hold; `least` and `most` are its extremes."""

    def __init__(
        self, op: str, name: str, limits: tuple[int, int], extremes: tuple[int, int], remedy: str
    ) -> None:
        self.least, self.most = extremes
        beyond = self.least if self.least < limits[0] else self.most
        super().__init__(f"has the {op} {beyond}, which {name} can't hold: {remedy}.")


def wider_dtype(name: str) -> str:
    """The remedy where integers of this dtype can't hold an outcome."""
    wider = "" if name.endswith("64") else '"int64" or '
    return f'give dtype={wider}"float64"'


def not_whole() -> Refused:
    """Why there is no mean of bools that differ."""
    return Refused('is bool, and its mean a fraction: give dtype="float64" for that.')


def rounded_sentence(places: Sequence[str]) -> str:
    """Warns of integers whose mean was rounded, by their places, of which there is at least one."""
    more = f" and {len(places) - 1} more places" if len(places) > 1 else ""
    return (
        f"The mean of the integers in {places[0]}{more} has fractions and was rounded, as "
        'integers stay integers: give dtype="float64" to keep them.'
    )


def reduce_arrays(values: Sequence[Any], op: str, dtype: str | None) -> tuple[Any, bool]:
    """The reduction, of the shape and in the dtype of `values`, or in the one that is named.

    Also returns whether it is exact, which only a mean of integers may not be. Raises Refused.
    """
    library = _library(values)
    own = values[0].dtype
    target = own if dtype is None else library.dtype(dtype)
    kind, name = library.kind(own), library.name(own)
    if kind not in _MEANINGFUL:
        raise Refused(f"is an array of dtype {name}, which cannot be reduced.", TypeError)
    if target is None:
        raise Refused(f"is an array of numpy's, which has no dtype {dtype}.", TypeError)
    into = library.kind(target)
    if dtype is not None and into not in _CONVERTIBLE[kind]:
        raise Refused(f"is an array of dtype {name}, which does not become {dtype}.", TypeError)
    if op not in _MEANINGFUL[into]:
        remedy = ': give dtype="int64" to count, or op="max" for any' if into == "b" else ""
        raise Refused(f"is an array of dtype {name}, which has no {op}{remedy}.", TypeError)
    with library.quiet():
        if into in "fc":
            return library.cast(_floats(library, values, op, library.wide(target)), target), True
        if into in "mM":
            return _times(library, values, op), True
        outcome, is_exact = _integers(library, values, op)
    name = library.name(target)
    _check_fits(outcome, op, name, library.limits(target), wider_dtype(name))
    if not is_exact and into == "b":
        raise not_whole()
    return library.made(outcome, target, values[0].shape), is_exact


def _floats(library: _Library, values: Sequence[Any], op: str, dtype: Any) -> Any:
    def folded(scale: float) -> Any:
        parts = (library.cast(value, dtype) for value in values)
        return _folded(library, op, parts if scale == 1 else (part * scale for part in parts))

    if op != "mean":
        return folded(1)
    count = len(values)
    mean = library.asarray(folded(1) / count)
    finite = library.module.isfinite(mean)
    if not finite.all():  # smaller by a power of two, which changes no digit
        scale = 2.0 ** -count.bit_length()
        mean = library.module.where(finite, mean, folded(scale) / count / scale)
    return mean


def _folded(library: _Library, op: str, parts: Iterable[Any]) -> Any:
    fold = getattr(library.module, _FOLDS[op])
    iterator = iter(parts)
    total = library.copied(next(iterator))
    is_single = math.prod(total.shape) == 1
    for part in iterator:
        # In place, numpy rounds the product of two single complex items as it rounds no others.
        fold(library.copied(total) if is_single else total, part, out=total)
    return total


def _integers(library: _Library, values: Sequence[Any], op: str) -> tuple[Any, bool]:
    """An array of int64 where that is known to be enough, else a list of Python's integers, and
    whether it is exact."""
    count = len(values)
    if not math.prod(values[0].shape):
        return [], True
    peaks = [_peak(library, value) for value in values]
    if (math.prod(peaks) if op == "prod" else sum(peaks)) <= _INT64:
        total = _folded(library, op, (library.cast(value, library.int64) for value in values))
        if op != "mean":
            return total, True
        return library.asarray(_rounded(total, count)), bool((total % count == 0).all())
    totals = list(map(_EXACT_FOLDS[op], _columns(values)))
    if op != "mean":
        return totals, True
    return [_rounded(total, count) for total in totals], all(t % count == 0 for t in totals)


def _check_fits(outcome: Any, op: str, name: str, limits: tuple[int, int], remedy: str) -> None:
    """Raises DoesNotFit."""
    if isinstance(outcome, list):
        least, most = min(outcome, default=0), max(outcome, default=0)
    else:
        least, most = int(outcome.min()), int(outcome.max())
    if least < limits[0] or most > limits[1]:
        raise DoesNotFit(op, name, limits, (least, most), remedy)


def _peak(library: _Library, value: Any) -> int:
    """What no element exceeds, whatever its sign."""
    wide = library.cast(value, library.int64)
    least, most = int(wide.min()), int(wide.max())
    if least < 0 and library.limits(value.dtype)[0] == 0:
        return 2**64  # an unsigned one that is beyond int64
    return max(-least, most)


def _rounded(total: Any, count: int) -> Any:
    """`total / count`, to the nearest, half to even: of an integer or of an array."""
    quotient, rest = total // count, 2 * (total % count)
    return quotient + ((rest > count) | ((rest == count) & (quotient % 2 == 1)))


def _columns(values: Sequence[Any]) -> Iterator[tuple[int, ...]]:
    """Each element's values, as Python's integers."""
    runs = [value.reshape(-1) for value in values]
    for at in range(0, len(runs[0]), _COLUMNS):
        yield from zip(*[run[at : at + _COLUMNS].tolist() for run in runs], strict=True)


def _times(library: _Library, values: Sequence[Any], op: str) -> Any:
    """Times are counts of their unit; one of them is NaT."""
    own, where = values[0].dtype, library.module.where
    counts = [value.astype(own.newbyteorder("=")).view("int64") for value in values]
    missing = sum(count == _NAT for count in counts) > 0
    present = [library.asarray(where(count == _NAT, 0, count)) for count in counts]
    outcome, _ = _integers(library, present, op)
    _check_fits(outcome, op, own.name, TIMES, COARSER_UNIT)
    whole = library.made(outcome, library.int64, values[0].shape)
    return library.asarray(where(missing, _NAT, whole)).view(own.newbyteorder("=")).astype(own)


class _Numpy:
    def __init__(self) -> None:
        import numpy

        self.module: Any = numpy
        self.int64: Any = numpy.dtype("int64")

    def asarray(self, value: Any) -> Any:
        """Operations make scalars of zero-dimensional arrays."""
        return self.module.asarray(value)

    def copied(self, value: Any) -> Any:
        return self.module.array(value)

    def cast(self, value: Any, dtype: Any) -> Any:
        """Not copied where that is its dtype."""
        return value.astype(dtype, copy=False)

    def made(self, outcome: Any, dtype: Any, shape: tuple[int, ...]) -> Any:
        """Of a list of integers, or of an array that needs a cast only."""
        if isinstance(outcome, list):
            return self.module.array(outcome, dtype).reshape(shape)
        return self.cast(outcome, dtype)

    def dtype(self, name: str) -> Any:
        """None where there is none of this name."""
        try:
            return self.module.dtype(name)
        except TypeError:
            return None

    def kind(self, dtype: Any) -> str:
        letter: str = dtype.kind
        return letter

    def name(self, dtype: Any) -> str:
        name: str = dtype.name
        return name

    def wide(self, dtype: Any) -> Any:
        """What floats of this dtype are reduced in."""
        return self.module.result_type(dtype, "float32" if dtype.kind == "f" else "complex64")

    def limits(self, dtype: Any) -> tuple[int, int]:
        if dtype.kind == "b":
            return 0, 1
        info = self.module.iinfo(dtype)
        return int(info.min), int(info.max)

    def quiet(self) -> AbstractContextManager[None]:
        """Infinity and NaN are outcomes like others, without a warning."""
        quiet: AbstractContextManager[None] = self.module.errstate(all="ignore")
        return quiet


class _Torch:
    def __init__(self) -> None:
        import torch

        self.module = torch
        self.int64 = torch.int64

    def asarray(self, value: Any) -> Any:
        return value

    def copied(self, value: Any) -> Any:
        return value.clone()

    def cast(self, value: Any, dtype: Any) -> Any:
        return value.detach().to(dtype)

    def made(self, outcome: Any, dtype: Any, shape: tuple[int, ...]) -> Any:
        if isinstance(outcome, list):
            return self.module.tensor(outcome, dtype=dtype).reshape(shape)
        return self.cast(outcome, dtype)

    def dtype(self, name: str) -> Any:
        return getattr(self.module, name, None)

    def kind(self, dtype: Any) -> str:
        if dtype == self.module.bool:
            return "b"
        return "c" if dtype.is_complex else "f" if dtype.is_floating_point else "i"

    def name(self, dtype: Any) -> str:
        return str(dtype)

    def wide(self, dtype: Any) -> Any:
        least = self.module.complex64 if dtype.is_complex else self.module.float32
        return least if dtype.itemsize < least.itemsize else dtype

    def limits(self, dtype: Any) -> tuple[int, int]:
        if dtype == self.module.bool:
            return 0, 1
        info = self.module.iinfo(dtype)
        return info.min, info.max

    def quiet(self) -> AbstractContextManager[None]:
        return nullcontext()


_Library = _Numpy | _Torch


def _library(values: Sequence[Any]) -> _Library:
    """Raises Refused for what is neither numpy's nor torch's."""
    torch: Any = sys.modules.get("torch")
    if all(isinstance(value, getattr(torch, "Tensor", ())) for value in values):
        return _Torch()
    numpy: Any = sys.modules.get("numpy")
    for value in values:
        if isinstance(value, numpy.ma.MaskedArray):
            remedy = "give its .filled(...) and its mask apart from each other"
            raise Refused(f"is a masked array, which cannot be reduced: {remedy}.", TypeError)
        if not isinstance(value, numpy.ndarray | numpy.generic):
            name = f"{type(value).__module__}.{type(value).__qualname__}"
            raise Refused(f"is a {name}: give an array of numpy's or a tensor.", TypeError)
    return _Numpy()
