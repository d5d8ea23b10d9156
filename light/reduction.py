"""Reduces values of several instances to one, element by element, in the order of their ranks.

A value is a number, an array or a tensor, or a nest of dicts and lists of these. The order is
the same wherever it is done, and so is the outcome, to the bit. There is one rule, for numpy and
torch alike:

- Arrays, tensors and numpy's scalars keep their shape, their kind and their dtype, unless another
  dtype is asked for.
- Floats and complex numbers are reduced in their own precision, those below 32 bits in float32.
  What is too large is infinite, but no mean of finite numbers is. NaN prevails.
- Integers are exact. An outcome that their dtype can't hold raises CollectiveError. A mean is
  rounded to the nearest, half to even, and a warning says so.
- Bools have min, max and prod, and a mean where all are the same. Times have what means something:
  dates mean, min and max, durations a sum too; NaT prevails. Complex numbers have no min and max.
- Python's own numbers have no dtype: a sum of bools is an int, integers have no bounds, a mean is
  a float. Together with numpy's scalars they make Python's numbers.
- What has no meaning is refused: other dtypes, masked arrays, values of different forms.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from manta.light.array_reduction import Refused, reduce_arrays, rounded_sentence
from manta.light.errors import CollectiveError

OPS = ("sum", "mean", "min", "max", "prod")


def reduce(
    values: Sequence[tuple[int, Any]], op: str, dtype: str | None = None, where: str = "value"
) -> Any:
    """The reduction of `values`, pairs of rank and value, of which there is at least one.

    `dtype` is what arrays, tensors and numpy's scalars are reduced in and come back with. Raises
    CollectiveError, which names the place, where values do not match (it names two ranks) or an
    outcome does not fit, and TypeError for what cannot be reduced.
    """
    if op not in OPS:
        raise ValueError(f"op is {op!r}: give one of {', '.join(OPS)}.")
    rounded: list[str] = []
    outcome = _reduce(values, op, dtype, where, rounded)
    if rounded:
        warnings.warn(rounded_sentence(rounded), RuntimeWarning, stacklevel=3)
    return outcome


def _reduce(
    values: Sequence[tuple[int, Any]], op: str, dtype: str | None, where: str, rounded: list[str]
) -> Any:
    """`rounded` takes the places of integers whose mean was rounded."""
    ranks = [rank for rank, _ in values]
    leaves = _alike([value for _, value in values])
    check_forms([(rank, form_of(leaf)) for rank, leaf in zip(ranks, leaves, strict=True)], where)
    first = leaves[0]
    if isinstance(first, dict):
        return {
            key: _reduce([(r, v[key]) for r, v in values], op, dtype, f"{where}[{key!r}]", rounded)
            for key in first
        }
    if isinstance(first, list | tuple):
        items = [
            _reduce([(r, v[i]) for r, v in values], op, dtype, f"{where}[{i}]", rounded)
            for i in range(len(first))
        ]
        return type(first)(items) if type(first) in (list, tuple) else items
    try:
        if _is_array(first):
            outcome, is_exact = reduce_arrays(leaves, op, dtype)
            if not is_exact:
                rounded.append(where)
            return outcome[()] if is_numpys_scalar(first) else outcome
        if isinstance(first, bool | int | float):
            return _numbers(leaves, op)
    except Refused as refused:
        raise refused.error(f"{where} {refused}") from None
    raise TypeError(
        f"{where} is a {type(first).__name__}, which cannot be reduced: give numbers, arrays, "
        "tensors, or dicts and lists of these."
    )


def check_forms(forms: Sequence[tuple[int, str]], where: str = "value") -> None:
    """Checks that `forms`, pairs of rank and form, agree. Raises CollectiveError."""
    rank, first = forms[0]
    for other, form in forms[1:]:
        if form != first:
            raise CollectiveError(
                f"{where} of rank {rank} is {first}, of rank {other} {form}: "
                "all instances must give values of one form."
            )


def form_of(value: Any) -> str:
    """What must be the same for all ranks, in words.

    The order of bytes need not: that of the lowest rank is kept.
    """
    if isinstance(value, dict):
        return f"a dict of {sorted(map(repr, value))}"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    if _is_array(value):
        dtype = getattr(value.dtype, "name", value.dtype)
        if is_numpys_scalar(value):
            return f"a number of dtype {dtype}"
        return f"an array of shape {tuple(value.shape)} and dtype {dtype}"
    if isinstance(value, bool | int | float):
        return "a number"
    return f"a {type(value).__name__}"


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")


def is_numpys_scalar(value: Any) -> bool:
    """Is it a scalar of numpy's, which has a dtype?"""
    numpy: Any = sys.modules.get("numpy")
    return isinstance(value, getattr(numpy, "generic", ()))


def _alike(leaves: list[Any]) -> list[Any]:
    """With numpy's scalars as Python's numbers where both meet."""
    is_numpys = [is_numpys_scalar(leaf) for leaf in leaves]
    if all(is_numpys) or not any(is_numpys):
        return leaves
    others = (leaf for leaf, numpys in zip(leaves, is_numpys, strict=True) if not numpys)
    if not all(isinstance(other, bool | int | float) for other in others):
        return leaves
    return [
        leaf.item() if numpys and leaf.dtype.kind in "biuf" else leaf
        for leaf, numpys in zip(leaves, is_numpys, strict=True)
    ]


def _numbers(values: Sequence[Any], op: str) -> Any:
    """Raises Refused where a float can't hold what integers make."""
    try:
        return _NUMBERS[op](values)
    except OverflowError:
        raise Refused(f"has a {op} beyond any float: give smaller integers.") from None


def _sum(values: Sequence[Any]) -> Any:
    if not any(isinstance(value, float) for value in values):
        return sum(values)
    try:
        return math.fsum(values)
    except (OverflowError, ValueError):  # beyond any float, or infinity less infinity
        return sum(map(float, values))


def _mean(values: Sequence[Any]) -> float:
    count = len(values)
    total = _sum(values)
    if not isinstance(total, float) or math.isfinite(total):
        return float(total / count)
    bits = count.bit_length()  # smaller by a power of two, which changes no digit
    return math.ldexp(_sum([math.ldexp(value, -bits) for value in values]) / count, bits)


def _extreme(fold: Callable[[Sequence[Any]], Any]) -> Callable[[Sequence[Any]], Any]:
    return lambda values: next((value for value in values if value != value), fold(values))


_NUMBERS: dict[str, Callable[[Sequence[Any]], Any]] = {
    "sum": _sum,
    "mean": _mean,
    "min": _extreme(min),
    "max": _extreme(max),
    "prod": math.prod,
}
