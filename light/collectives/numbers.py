"""Numbers as arrays without dimensions, which the planes reduce, and back."""

from __future__ import annotations

from typing import Any

from manta.light.collectives.fused import leaves, rebuilt
from manta.light.errors import MissingPackage
from manta.light.reduction import is_numpys_scalar

NOT_PRIVATE = (
    "all_reduce(private=True) takes numbers, arrays of numpy's and tensors of torch's, and dicts "
    "and lists of these, of dtypes that both reduce: what is anything else, all other instances "
    "would be given as it is."
)


def of_arrays(value: Any, op: str) -> Any:
    """The value with arrays in place of numbers. A sum of bools is an integer, and a mean of any
    numbers a float, as of Python's own."""
    found = {where: _array(leaf, op) for where, leaf in leaves(value)}
    return rebuilt(value, found.__getitem__)


def numbers_of(value: Any, outcome: Any) -> Any:
    """What came of it, with numbers where the value has them."""
    given, found = dict(leaves(value)), dict(leaves(outcome))
    return rebuilt(value, lambda where: _number(given[where], found[where]))


def _array(leaf: Any, op: str) -> Any:
    if not is_numpys_scalar(leaf) and not isinstance(leaf, bool | int | float):
        return leaf
    try:
        import numpy
    except ImportError as error:
        raise MissingPackage(
            "all_reduce(private=True) of a number needs numpy, which is not installed here: "
            "install it, or name it in the module's requirements."
        ) from error
    if is_numpys_scalar(leaf):
        return numpy.asarray(leaf)
    return numpy.asarray(float(leaf) if op == "mean" else leaf + 0)


def _number(leaf: Any, outcome: Any) -> Any:
    if is_numpys_scalar(leaf):
        return outcome[()]
    return outcome.item() if isinstance(leaf, bool | int | float) else outcome
