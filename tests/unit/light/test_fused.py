"""Which arrays the planes reduce, and how they come out again."""

from __future__ import annotations

import re
import sys
from typing import Any

import numpy as np
import pytest

from manta.light.collectives.fused import Fused, forms, fused, rebuilt, told_forms
from manta.light.collectives.numbers import of_arrays
from manta.light.errors import MissingPackage
from manta.light.reduction import reduce
from manta.node.reduction.forms import Leaf, Source
from manta.node.reduction.kernel import Kernel


def through(values: list, op: str, dtype: str | None = None) -> object:
    """Reduced as planes do."""
    found = [fused(value, op, dtype) for value in values]
    made = [one for one in found if one is not None]
    assert len(made) == len(values)
    memory = [bytearray(one.stop) for one in made]
    for one, into in zip(made, memory, strict=True):
        one.write(memoryview(into))
    leaves = [Leaf(*leaf) for leaf in made[0].ranges()]
    kernel = Kernel(op, leaves, len(values))
    assert made[0].stop % kernel.itemsize == 0
    target = bytearray(made[0].stop)
    note = kernel.reduce(0, target, [Source(data) for data in memory], len(values))
    error = kernel.conclude([note] if note else []).error
    if error is not None:
        raise error
    first = made[0]
    outcome = {leaf.where: leaf.read(memoryview(target), 0) for leaf in first.leaves}
    return rebuilt(values[0], outcome.__getitem__)


def same(got: object, wanted: object) -> None:
    if isinstance(wanted, dict):
        assert isinstance(got, dict)
        assert list(got) == list(wanted)
        for key in wanted:
            same(got[key], wanted[key])
    elif isinstance(wanted, list | tuple):
        assert type(got) is type(wanted)
        for one, other in zip(got, wanted, strict=True):
            same(one, other)
    else:
        assert isinstance(wanted, np.ndarray)
        assert isinstance(got, np.ndarray)
        assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape)
        assert got.tobytes() == wanted.tobytes()


ARRAYS = {
    "f2": np.arange(7, dtype="f2") / 3,
    "f4": np.arange(12, dtype="f4").reshape(3, 4).T / 7,
    "f8": np.arange(5, dtype=">f8") / 11,
    "i1": np.arange(6, dtype="i1"),
    "u2": np.arange(6, dtype="u2"),
    "i8": np.arange(4)[::2],
    "b1": np.array([True, False, True]),
    "c8": np.arange(3, dtype="c8") * 1j,
    "zero": np.array(3.5),
    "none": np.empty((0, 3), "f4"),
    "days": np.array([1, 2, 3], "m8[D]"),
}


@pytest.mark.parametrize("op", ["sum", "mean", "min", "max", "prod"])
@pytest.mark.parametrize(
    "dtype", [None, "float32", "float16", "int64", "int8", "complex128", "float64"]
)
@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_are_reduced_to_the_bits_of_tasks_or_left_to_them(name, op, dtype) -> None:
    values = [ARRAYS[name] for _ in range(3)]
    if fused(values[0], op, dtype) is None:
        return
    try:
        with np.errstate(all="ignore"):
            wanted = reduce(list(enumerate(values)), op, dtype)
    except RuntimeWarning:
        return
    except Exception as error:
        with pytest.raises(type(error), match=re.escape(str(error))):
            through(values, op, dtype)
        return
    same(through(values, op, dtype), wanted)


def test_nests_keep_their_containers_and_merge_floats_that_follow_each_other() -> None:
    value = {"b": [ARRAYS["f4"], (ARRAYS["f4"], ARRAYS["i8"])], "a": ARRAYS["f4"]}
    found = fused(value, "sum", None)
    assert found is not None
    assert [leaf[2] for leaf in found.ranges()] == ["float32", "int64"]
    same(through([value, value], "sum"), reduce([(0, value), (1, value)], "sum"))


def test_what_is_not_for_planes_is_left_to_tasks() -> None:
    for value in (1.0, [1, 2], {"a": "text"}, np.array(["a"]), np.array([None]), []):
        assert fused(value, "sum", None) is None
    assert fused(np.ones(3, bool), "sum", None) is None  # refused, in the words of tasks
    assert fused(np.ma.masked_array([1.0]), "sum", None) is None
    mixed = fused({"w": np.ones(3), "n": 3, "loss": np.float32(1)}, "sum", None)
    assert mixed is not None
    assert mixed.rest == {"value['n']": 3, "value['loss']": np.float32(1)}


def test_places_of_values_one_after_the_other_follow_each_other() -> None:
    parts = [fused(np.arange(5, dtype="f4"), "sum", None) for _ in range(3)]
    whole = Fused.of([part for part in parts if part is not None])
    assert [leaf.start for leaf in whole.leaves] == [0, 20, 40]
    assert whole.ranges() == [[0, 60, "float32", "value", "float32", ""]]


def test_forms_that_differ_are_told_apart_however_many_there_are() -> None:
    many = {f"k{at}": np.ones(3) for at in range(100)}
    first, digest = told_forms(forms(many))
    assert len(first) == 32
    many["k99"] = np.ones(4)
    other, unlike = told_forms(forms(many))
    assert digest != unlike
    assert first[0] == other[0]


def test_torch_s_tensors_are_reduced_to_the_bits_of_tasks() -> None:
    torch = pytest.importorskip("torch")
    for name in ("float16", "bfloat16", "float32", "float64", "int32", "bool", "complex64"):
        for op in ("sum", "mean", "max", "prod"):
            values = [
                (torch.arange(9) * (rank + 1) / 2).to(getattr(torch, name)) for rank in (0, 1)
            ]
            if fused(values[0], op, None) is None:
                continue
            try:
                wanted = reduce(list(enumerate(values)), op)
            except RuntimeWarning:
                continue
            except Exception as error:
                with pytest.raises(type(error)):
                    through(values, op)
                continue
            got = through(values, op)
            assert got.dtype == wanted.dtype  # type: ignore[attr-defined]
            assert torch.equal(got, wanted)


@pytest.mark.parametrize("value", [1.5, {"loss": 2, "right": True}])
def test_numbers_to_be_reduced_in_private_need_numpy_and_say_so(
    value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(MissingPackage, match=r"all_reduce\(private=True\) of a number needs numpy"):
        of_arrays(value, "sum")
