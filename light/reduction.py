"""Reduces values of several instances to one, element by element, in the order of their ranks.

A value is a number, an array or a tensor, or a nest of dicts and lists of these. The order is
the same wherever it is done, and so is the outcome, to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from manta.light.errors import CollectiveError

OPS = ("sum", "mean", "min", "max", "prod")


def reduce(values: Sequence[tuple[int, Any]], op: str) -> Any:
    """The reduction of `values`, pairs of rank and value, of which there is at least one.

    Numbers stay numbers: a sum of bools is an int, a mean a float. Arrays keep their dtype, except
    that the mean of integers or bools is float64 and their sum at least int64, as numpy has it.
    Raises CollectiveError, which names the place and two ranks, when values do not match.
    """
    if op not in OPS:
        raise ValueError(f"op is {op!r}: give one of {', '.join(OPS)}.")
    return _reduce(values, op, "value")


def _reduce(values: Sequence[tuple[int, Any]], op: str, where: str) -> Any:
    check_forms([(rank, form_of(value)) for rank, value in values], where)
    first = values[0][1]
    if isinstance(first, dict):
        return {
            key: _reduce([(r, value[key]) for r, value in values], op, f"{where}[{key!r}]")
            for key in first
        }
    if isinstance(first, list | tuple):
        items = [
            _reduce([(r, value[i]) for r, value in values], op, f"{where}[{i}]")
            for i in range(len(first))
        ]
        return type(first)(items) if type(first) in (list, tuple) else items
    leaves = [value for _, value in values]
    if isinstance(first, bool | int | float):
        return _NUMBERS[op](leaves)
    if hasattr(first, "shape") and hasattr(first, "dtype"):
        return _arrays(leaves, op)
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
    """What must be the same for all ranks, in words."""
    if isinstance(value, dict):
        return f"a dict of {sorted(map(repr, value))}"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"an array of shape {tuple(value.shape)} and dtype {value.dtype}"
    if isinstance(value, bool | int | float):
        return "a number"
    return f"a {type(value).__name__}"


_NUMBERS: dict[str, Callable[[Sequence[Any]], Any]] = {
    "sum": sum,
    "mean": lambda values: math.fsum(values) / len(values),
    "min": min,
    "max": max,
    "prod": math.prod,
}


def _arrays(values: Sequence[Any], op: str) -> Any:
    if type(values[0]).__module__.partition(".")[0] == "torch":
        return _tensors(values, op)
    import numpy

    first = values[0]
    if op in ("min", "max"):
        fold = numpy.minimum if op == "min" else numpy.maximum
        total = numpy.array(first)
        for value in values[1:]:
            fold(total, value, out=total)
        return total
    kind = numpy.result_type(first)
    if kind.kind in "bui":
        dtype: Any = numpy.float64 if op == "mean" else numpy.sum(numpy.zeros(0, kind)).dtype
    else:
        dtype = kind
    total = numpy.array(first, dtype=dtype)
    for value in values[1:]:
        if op == "prod":
            total *= value
        else:
            total += value
    if op == "mean":
        total /= len(values)
    return total


def _tensors(values: Sequence[Any], op: str) -> Any:
    import torch

    first = values[0]
    if op == "mean" and not (first.is_floating_point() or first.is_complex()):
        first = first.to(torch.float64)
    elif op in ("sum", "prod") and first.dtype == torch.bool:
        first = first.to(torch.int64)
    total = first.clone()
    for value in values[1:]:
        if op in ("min", "max"):
            total = torch.minimum(total, value) if op == "min" else torch.maximum(total, value)
        elif op == "prod":
            total = total * value
        else:
            total = total + value
    return total / len(values) if op == "mean" else total
