"""Models as `{name: array}`: their forms, what is trained in them, and arithmetic on them.

Three kinds of arrays are told apart. *Parameters* are floats that training moves. *Buffers* are
floats that training only records, such as the running mean and variance of a batch normalisation;
nobody but who made the model knows which these are, so strategies are given their names.
*Integers*, bools included, are counters and indices, known by their dtype. Parameters are
optimised, buffers are averaged, and integers are neither.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Literal, NamedTuple, TypeAlias

from manta.light.federated.errors import BadModel, BadUpdate
from manta.light.federated.lazy import np

Arrays: TypeAlias = Mapping[str, Any]
"""Arrays of numpy's by name."""
Kind = Literal["parameter", "buffer", "integer"]

ABOUT = "about:"
"""Begins the names of what an update says of itself, such as `about:steps`."""
BLOCK = 65_536
"""Elements that are worked on at a time, where that saves memory."""
RESERVED = ("about", "control")
"""What no name of a model may have before a colon, as updates have more than a model's arrays."""
_SHOWN = 3  # names in a sentence


class Form(NamedTuple):
    """What an array of an update must be like."""

    shape: tuple[int, ...]
    dtype: Any

    @property
    def is_float(self) -> bool:
        return bool(self.dtype.kind == "f")

    def __str__(self) -> str:
        return f"{self.dtype.name} of shape {self.shape}"


def forms_of(arrays: Any, what: str = "The model") -> dict[str, Form]:
    """The form of each array. Raises BadModel, which begins with `what`."""
    if not isinstance(arrays, Mapping) or not arrays:
        raise BadModel(f"{what} is {arrays!r:.60}: give a dict of arrays by name, at least one.")
    forms = {}
    for name, array in arrays.items():
        if not isinstance(name, str):
            raise BadModel(f"{what} has an array named {name!r:.60}: names are str.")
        if (problem := no_array(array)) is not None:
            raise BadModel(f"{what}'s {name!r:.80} {problem}.")
        forms[name] = Form(array.shape, array.dtype)
    return forms


def no_array(array: Any) -> str | None:
    """Why this is no array of numbers, if it is none."""
    if isinstance(array, np.ma.MaskedArray):
        return "is a masked array: give its .filled(...)"
    if not isinstance(array, np.ndarray):
        name = f"{type(array).__module__}.{type(array).__qualname__}"
        remedy = ": make it one with np.asarray(...)" if isinstance(array, np.generic) else ""
        return f"is a {name}, no array of numpy's{remedy}"
    if array.dtype.kind not in "fiub":
        return f"is of dtype {array.dtype.name}: give floats, integers or bools"
    return None


def kinds(params: Arrays, buffers: Sequence[str] = ()) -> dict[str, Kind]:
    """Which arrays are parameters, buffers and integers.

    `buffers` are names of the float arrays that are not trained, or patterns of `fnmatch` with
    `*` and `?`. Raises BadModel for a pattern that fits none of the arrays.

    >>> import numpy as np
    >>> model = {"w": np.ones(2), "bn.mean": np.ones(2), "bn.batches": np.array(7)}
    >>> kinds(model, buffers=["bn.*"])
    {'w': 'parameter', 'bn.mean': 'buffer', 'bn.batches': 'integer'}
    """
    forms = forms_of(params)
    for name in forms:
        if name.partition(":")[0] in RESERVED and ":" in name:
            raise BadModel(f"The model has an array named {name!r:.80}: give it another name.")
    chosen = matching(params, buffers, "buffers")
    found: dict[str, Kind] = {}
    for name, form in forms.items():
        found[name] = (
            "integer" if not form.is_float else "buffer" if name in chosen else "parameter"
        )
    return found


def matching(arrays: Arrays, patterns: Sequence[str], what: str) -> set[str]:
    """The names that any of the patterns fits. Raises BadModel for one that fits none."""
    chosen: set[str] = set()
    for pattern in patterns:
        fitting = {name for name in arrays if fnmatchcase(name, pattern)}
        if not fitting:
            raise BadModel(f"{what}: {pattern!r:.80} fits none of {shown(arrays)}.")
        chosen |= fitting
    return chosen


def shown(names: Mapping[str, Any] | set[str]) -> str:
    """Some of the names, in words."""
    ordered = sorted(names)
    more = f" and {len(ordered) - _SHOWN} more" if len(ordered) > _SHOWN else ""
    return ", ".join(f"{name!r:.80}" for name in ordered[:_SHOWN]) + more


def check_update(client: str, update: Any, forms: Mapping[str, Form]) -> None:
    """Checks names, shapes, dtypes, and that all floats are finite. Raises BadUpdate."""
    if not isinstance(update, Mapping):
        raise BadUpdate(client, None, f"it is {update!r:.60}, no dict of arrays by name")
    if update.keys() != forms.keys():
        missing = forms.keys() - update.keys()
        surplus = {str(name) for name in update.keys() - forms.keys()}
        reasons = [f"it lacks {shown(missing)}"] if missing else []
        reasons += [f"it has {shown(surplus)}, which the model has not"] if surplus else []
        raise BadUpdate(client, None, " and ".join(reasons))
    for name, form in forms.items():
        array = update[name]
        if (problem := no_array(array)) is not None:
            raise BadUpdate(client, name, problem)
        if (array.shape, array.dtype.newbyteorder("=")) != (
            form.shape,
            form.dtype.newbyteorder("="),
        ):
            is_form = Form(array.shape, array.dtype)
            raise BadUpdate(client, name, f"is {is_form}, and the model's is {form}")
        if form.is_float and not is_finite(array):
            kind = "NaN" if np.isnan(array).any() else "infinite values"
            raise BadUpdate(client, name, f"has {kind}")


def is_finite(array: Any) -> bool:
    """Whether no element is NaN or infinite."""
    flat = array.reshape(-1)
    with np.errstate(all="ignore"):
        # No sum is finite of which a part is not; one that is not may have overflowed. einsum's is
        # faster than sum's, and starts no threads of a BLAS, which wait for each other.
        return bool(np.isfinite(np.einsum("i->", flat)) or np.isfinite(flat).all())


def delta(trained: Arrays, start: Arrays) -> dict[str, Any]:
    """What a client sends: how training has moved the model from where it began.

    Floats are subtracted, `trained - start`, in their own dtype; integers are sent as they are.
    Raises BadModel where the two differ in names, shapes or dtypes.

    >>> import numpy as np
    >>> delta({"w": np.array([1.0, 5.0])}, {"w": np.array([1.0, 2.0])})
    {'w': array([0., 3.])}
    """
    check_same(trained, start)
    return {
        name: np.asarray(array - start[name]) if array.dtype.kind == "f" else array
        for name, array in trained.items()
    }


def check_same(arrays: Arrays, model: Arrays, what: str = "The trained model") -> None:
    """Checks that both have the same names, shapes and dtypes. Raises BadModel."""
    forms, wanted = forms_of(arrays, what), forms_of(model)
    for name in sorted(forms.keys() | wanted.keys()):
        if forms.get(name) != wanted.get(name):
            has = f"is {forms[name]}" if name in forms else "is missing"
            wants = f"{wanted[name]}" if name in wanted else "none"
            raise BadModel(f"{what}'s {name!r:.80} {has}, and the model's is {wants}.")


def squared_norm(arrays: Arrays) -> float:
    """The squared Euclidean norm of all floats together, summed in float64.

    >>> import numpy as np
    >>> squared_norm({"w": np.array([3.0, 4.0]), "batches": np.array(9)})
    25.0
    """
    total = 0.0
    for array in arrays.values():
        if array.dtype.kind == "f":
            for block in blocks(array):
                wide = block.astype(np.float64)
                total += float(wide @ wide)
    return total


def blocks(array: Any) -> Iterator[Any]:
    """Flat slices of an array, in order."""
    flat = array.reshape(-1)
    for at in range(0, flat.size, BLOCK):
        yield flat[at : at + BLOCK]


def prefixed(prefix: str, arrays: Arrays) -> dict[str, Any]:
    """The arrays under `prefix:name`, so that several models fit in one dict.

    >>> prefixed("momentum", {"w": 1})
    {'momentum:w': 1}
    """
    return {f"{prefix}:{name}": array for name, array in arrays.items()}


def unprefixed(prefix: str, arrays: Arrays) -> dict[str, Any]:
    """Those that are named `prefix:name`, by their name.

    >>> unprefixed("momentum", {"momentum:w": 1, "w": 2})
    {'w': 1}
    """
    start = f"{prefix}:"
    return {
        name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)
    }
