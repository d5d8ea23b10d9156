"""Arrays of a value, one after the other in one range of bytes, as a node's plane reduces them.

Only what the plane reduces to the very bits of `manta.light.reduction` is fused: arrays of numpy's
and tensors of torch's, of dtypes that both know. Where a dtype is asked for that is wider, arrays
are widened first, and where it is narrower, the outcome is narrowed in the end.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

from manta.light.array_reduction import Refused, reduce_arrays
from manta.light.reduction import form_of, is_numpys_scalar

ALIGNED = 64
"""Bytes: arrays begin at a multiple of it. The node's part knows it, too."""
LEAST = 16 * 1024
"""Bytes of arrays from which the plane reduces them. Smaller values go to all as they are: a
message costs as much as that many bytes, and so each is reduced where it is wanted."""
MOST_LEAVES = 4096
PLACES = 32
"""Forms that are told, so that a difference is named by its place."""
_WORD = 200
"""Characters of a place."""
_TENSORS = frozenset(
    {
        *("bool", "uint8", "int8", "int16", "int32", "int64"),
        *("float16", "bfloat16", "float32", "float64", "complex64", "complex128"),
    }
)


class Leaf:
    """An array within a value."""

    def __init__(self, array: Any, where: str, carrier: str, into: str, target: str) -> None:
        self.array = array
        self.where = where
        self.carrier = carrier
        """The dtype that is reduced, by numpy's name, or bfloat16."""
        self.into = into
        """A dtype of integers that the outcome is to fit into, if it is another."""
        self.target = target
        """The dtype of the outcome, if it is another than the array's."""
        self.start = 0

    @property
    def is_tensor(self) -> bool:
        return hasattr(self.array, "numel")

    @property
    def count(self) -> int:
        return self.array.numel() if self.is_tensor else self.array.size  # type: ignore[no-any-return]

    @property
    def size(self) -> int:
        """In bytes, as it is reduced."""
        return self.count * _itemsize(self.carrier)

    @property
    def said(self) -> str:
        """How messages name the dtype."""
        name = self.into or self.target or self.carrier
        return f"torch.{name}" if self.is_tensor else name

    def write(self, memory: memoryview) -> None:
        """Into memory that begins where the value does."""
        if not self.size:
            return
        shape, part = tuple(self.array.shape), memory[self.start : self.start + self.size]
        if self.is_tensor:
            import torch

            tensor = torch.frombuffer(part, dtype=getattr(torch, self.carrier))
            tensor.view(shape).copy_(self.array.detach())
            return
        import numpy

        into = numpy.frombuffer(part, self.carrier).reshape(shape)
        numpy.copyto(into, self.array, casting="unsafe")

    def read(self, memory: memoryview, start: int) -> Any:
        """The outcome, over memory that begins at byte `start` of the value."""
        shape = tuple(self.array.shape)
        part = memory[self.start - start : self.start - start + self.size]
        if self.is_tensor:
            import torch

            kind = getattr(torch, self.carrier)
            made = torch.frombuffer(part, dtype=kind) if len(part) else torch.empty(0, dtype=kind)
            return made.view(shape).to(getattr(torch, self.target or self.carrier))
        import numpy

        array = numpy.frombuffer(part, self.carrier).reshape(shape)
        return array.astype(self.target or self.array.dtype, copy=False)


class Fused:
    """The arrays of a value. `rest` are its other leaves."""

    def __init__(self) -> None:
        self.leaves: list[Leaf] = []
        self.rest: dict[str, Any] = {}
        """By place."""
        self.stop = 0

    @classmethod
    def of(cls, parts: list[Fused]) -> Fused:
        """Of several values, one after the other."""
        found = cls()
        for at, part in enumerate(parts):
            found.rest |= {f"{at} {where}": leaf for where, leaf in part.rest.items()}
            for leaf in part.leaves:
                leaf.start += found.stop
                found.leaves.append(leaf)
            found.stop += part.stop
        return found

    def add(self, leaf: Leaf, *, aligned: bool) -> None:
        if aligned:
            self.stop = -(-self.stop // ALIGNED) * ALIGNED
        leaf.start = self.stop
        self.stop += leaf.size
        self.leaves.append(leaf)

    def ranges(self) -> list[list[Any]]:
        """The leaves as requests have them. Floats that follow each other are one: nothing that
        is said about them names a place."""
        found: list[list[Any]] = []
        for leaf in self.leaves:
            stop = leaf.start + leaf.size
            floats = leaf.carrier[:1] == "f" or leaf.carrier[:2] in ("bf", "co")
            if floats and found and found[-1][2] == leaf.carrier:
                found[-1][1] = stop
                continue
            where = leaf.where[:_WORD]
            found.append([leaf.start, stop, leaf.carrier, where, leaf.said, leaf.into])
        return found

    def write(self, memory: memoryview) -> None:
        for leaf in self.leaves:
            leaf.write(memory)


def fused(value: Any, op: str, dtype: str | None) -> Fused | None:
    """None where it has no arrays, or one that is not for the plane."""
    if "numpy" not in sys.modules and "torch" not in sys.modules:
        return None
    found = Fused()
    arrays: list[Leaf] = []
    for where, leaf in leaves(value):
        made = _leaf(leaf, where, op, dtype)
        if made is not None:
            arrays.append(made)
        elif hasattr(leaf, "shape") and not is_numpys_scalar(leaf):
            return None
        else:
            found.rest[where] = leaf
    if not arrays or len(arrays) > MOST_LEAVES:
        return None
    for one in arrays:
        found.add(one, aligned=True)
    if len(arrays) > 1:
        found.stop = -(-found.stop // ALIGNED) * ALIGNED
    return found


def leaves(value: Any, where: str = "value") -> Iterator[tuple[str, Any]]:
    """Each with its place, in an order that is the same for all members."""
    if isinstance(value, dict):
        for key in sorted(value, key=repr):
            yield from leaves(value[key], f"{where}[{key!r}]")
    elif isinstance(value, list | tuple):
        for at, item in enumerate(value):
            yield from leaves(item, f"{where}[{at}]")
    else:
        yield where, value


def rebuilt(value: Any, take: Callable[[str], Any], where: str = "value") -> Any:
    """A value with the same containers, and what `take` has for each place."""
    if isinstance(value, dict):
        return {key: rebuilt(item, take, f"{where}[{key!r}]") for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [rebuilt(item, take, f"{where}[{at}]") for at, item in enumerate(value)]
        return type(value)(items) if type(value) in (list, tuple) else items
    return take(where)


def forms(value: Any, where: str = "value") -> Iterator[tuple[str, str]]:
    """What must be the same for all members, in the order in which it is compared."""
    yield where, form_of(value)
    if isinstance(value, dict):
        for key in sorted(value, key=repr):
            yield from forms(value[key], f"{where}[{key!r}]")
    elif isinstance(value, list | tuple):
        for at, item in enumerate(value):
            yield from forms(item, f"{where}[{at}]")


def told_forms(found: Iterator[tuple[str, str]]) -> tuple[list[tuple[str, str]], bytes]:
    """The first of them, and what stands for all."""
    from hashlib import blake2b

    digest = blake2b(digest_size=16)
    first: list[tuple[str, str]] = []
    for where, form in found:
        digest.update(f"{where}\0{form}\0".encode("utf-8", "surrogatepass"))
        if len(first) < PLACES:
            first.append((where[:_WORD], form[: 2 * _WORD]))
    return first, digest.digest()


def _leaf(value: Any, where: str, op: str, dtype: str | None) -> Leaf | None:
    """None for what is not for the plane."""
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if numpy is not None and type(value) in (numpy.ndarray, numpy.memmap):
        own = value.dtype.name
        if value.dtype.kind not in "biufcmM" or own in ("float128", "complex256", "longdouble"):
            return None
        empty = numpy.empty(0, value.dtype)
    elif torch is not None and isinstance(value, torch.Tensor):
        own = str(value.dtype).rpartition(".")[2]
        is_plain = value.layout == torch.strided and value.device.type != "meta"
        if own not in _TENSORS or value.is_quantized or not is_plain:
            return None
        if op == "prod" and own.startswith("complex"):
            return None  # torch multiplies them in another way
        empty = torch.empty(0, dtype=value.dtype)
    else:
        return None
    try:
        reduce_arrays([empty], op, dtype)
    except Refused:
        return None  # the task says so, to all
    found = _carried(own, dtype)
    if found is None or (hasattr(value, "numel") and not {*found} <= {*_TENSORS, ""}):
        return None
    return Leaf(value, where, *found)


def _carried(own: str, dtype: str | None) -> tuple[str, str, str] | None:
    """What is reduced, what it is to fit into, and what comes of it."""
    if dtype is None or dtype == own:
        return own, "", ""
    if dtype.startswith(("float", "bfloat", "complex")):
        wide = {"float16": "float32", "bfloat16": "float32"}.get(dtype, dtype)
        return wide, "", dtype
    if _holds(dtype, own):
        return dtype, "", dtype
    if _holds(own, dtype):
        return own, dtype, dtype
    return None


def _holds(wide: str, narrow: str) -> bool:
    """Does a dtype of integers hold all that another does?"""
    if narrow == "bool":
        return True
    if wide == "bool" or (wide[0] == "u" and narrow[0] != "u"):
        return False
    more = _itemsize(wide) - _itemsize(narrow)
    return more > 0 or (more == 0 and wide[0] == narrow[0])


def _itemsize(name: str) -> int:
    digits = "".join(one for one in name.partition("[")[0] if one.isdigit())
    return int(digits or 8) // 8
