"""The rule of reductions over dtypes, operations and shapes, for numpy and torch alike."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest

from manta.light import arguments
from manta.light.errors import CollectiveError
from manta.light.reduction import OPS, reduce

INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
FLOATS = ("float16", "bfloat16", "float32", "float64")
COMPLEX = ("complex64", "complex128")
SHAPES = {"0-d": (), "empty": (0, 3), "line": (4,), "cube": (2, 3, 2)}
LAYOUTS = ("plain", "fortran", "strided", "big-endian", "read-only")
EXPECTED = {"sum": 6, "mean": 2, "min": 1, "max": 3, "prod": 6}
MEANINGLESS = {
    ("bool", "sum"): "has no sum: give dtype",
    **{(dtype, op): f"has no {op}" for dtype in COMPLEX for op in ("min", "max")},
}


def of(op: str, *values: Any, dtype: str | None = None) -> Any:
    return reduce(list(enumerate(values)), op, dtype)


class Numpy:
    """What a table needs of a library."""

    @staticmethod
    def has(dtype: str) -> bool:
        return dtype != "bfloat16"

    @staticmethod
    def array(values: Any, dtype: str) -> Any:
        return np.array(values).astype(dtype)

    @staticmethod
    def name(array: Any) -> str:
        assert isinstance(array, np.ndarray)
        return str(array.dtype.name)

    @staticmethod
    def laid_out(array: Any, layout: str) -> Any:
        if layout == "fortran" and array.ndim > 1:
            return np.asfortranarray(array)
        if layout == "strided" and array.ndim:
            return np.repeat(array, 2, axis=0)[::2]
        if layout == "big-endian":
            return array.astype(array.dtype.newbyteorder(">"))
        if layout == "read-only":
            array.flags.writeable = False
        return array


class Torch:
    @staticmethod
    def has(dtype: str) -> bool:
        return True

    @staticmethod
    def array(values: Any, dtype: str) -> Any:
        torch = pytest.importorskip("torch")
        return torch.tensor(values).to(getattr(torch, dtype))

    @staticmethod
    def name(array: Any) -> str:
        assert type(array).__module__ == "torch"
        return str(array.dtype).removeprefix("torch.")

    @staticmethod
    def laid_out(array: Any, layout: str) -> Any:
        if layout == "fortran" and array.ndim > 1:
            return array.mT.contiguous().mT
        if layout == "strided" and array.ndim:
            return array.repeat_interleave(2, dim=0)[::2]
        if layout == "read-only" and array.is_floating_point():
            array.requires_grad_()
        return array


LIBRARIES = pytest.mark.parametrize("library", [Numpy, Torch])


@LIBRARIES
@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("dtype", ["bool", *INTEGERS, *FLOATS, *COMPLEX])
def test_shape_and_dtype_are_kept_whatever_the_layout(library: Any, dtype: str, op: str) -> None:
    if not library.has(dtype):
        pytest.skip("no such dtype")
    for shape in SHAPES.values():
        for layout in LAYOUTS:
            given = []
            for rank in range(3):
                filled = np.full(shape, rank + 1).tolist() if shape else rank + 1
                if shape == (0, 3):
                    filled = np.empty(shape).tolist()
                array = library.array(filled, dtype).reshape(shape)
                given.append(library.laid_out(array, layout))
            before = [array.tolist() for array in given]
            if (dtype, op) in MEANINGLESS:
                with pytest.raises(TypeError, match=MEANINGLESS[dtype, op]):
                    of(op, *given)
                continue
            outcome = of(op, *given)
            assert tuple(outcome.shape) == shape
            assert library.name(outcome) == dtype
            assert outcome.dtype == given[0].dtype
            expected = 1 if dtype == "bool" else EXPECTED[op]
            assert outcome.tolist() == np.full(shape, expected).tolist()
            assert [array.tolist() for array in given] == before


@LIBRARIES
@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_are_exact_or_refused_with_the_remedy(library: Any, dtype: str) -> None:
    info = np.iinfo(dtype)

    def array(*values: int) -> Any:
        if library is Torch:
            torch = pytest.importorskip("torch")
            return torch.tensor(values, dtype=getattr(torch, dtype))
        return np.array(values, dtype)

    top = array(info.max, 1)
    assert of("sum", top, array(0, 1)).tolist() == [info.max, 2]
    assert of("mean", top, top, top).tolist() == [info.max, 1]
    assert of("max", top, array(0, 1)).tolist() == [info.max, 1]
    assert of("min", top, array(0, 1)).tolist() == [0, 1]
    assert of("prod", top, array(1, 1)).tolist() == [info.max, 1]
    assert of("prod", top, top, array(0, 1)).tolist() == [0, 1]
    for op in ("sum", "prod"):
        with pytest.raises(CollectiveError, match=r"can't hold: give dtype=.*float64") as refused:
            of(op, top, array(2, 1))
        assert str(info.max + 2 if op == "sum" else info.max * 2) in str(refused.value)
        assert ("int64" in str(refused.value).partition("give")[2]) is not dtype.endswith("64")
    wide = of("sum", top, top, dtype="float64")
    assert library.name(wide) == "float64"
    assert wide.tolist() == [float(info.max) * 2, 2.0]
    if not dtype.endswith("64"):
        assert of("sum", top, top, dtype="int64").tolist() == [info.max * 2, 2]
    if info.min:
        low = array(info.min, -1)
        assert of("mean", low, low).tolist() == [info.min, -1]
        assert of("sum", low, top).tolist() == [-1, 0]
        with pytest.raises(CollectiveError, match=str(info.min - 1)):
            of("sum", low, array(-1, 0))


@LIBRARIES
def test_sums_of_integers_may_pass_beyond_their_dtype_on_the_way(library: Any) -> None:
    parts = [library.array([number], "int64") for number in (2**62, 2**62, 2**62, -(2**62))]
    with pytest.raises(CollectiveError, match=str(2**63)):
        of("sum", *parts)
    more = library.array([-(2**62)], "int64")
    assert of("sum", *parts, more).tolist() == [2**62]
    assert of("mean", *parts[:3]).tolist() == [2**62]


@LIBRARIES
def test_a_mean_of_integers_is_rounded_half_to_even_and_told_once(library: Any) -> None:
    low, high = library.array([1, 2, -3, 7], "int32"), library.array([2, 3, -4, 7], "int32")
    with pytest.warns(RuntimeWarning, match=r"in value\['a'\] and 1 more places") as told:
        outcome = of("mean", {"a": low, "b": [low]}, {"a": high, "b": [high]})
    assert len(told) == 1
    assert 'dtype="float64"' in str(told[0].message)
    assert outcome["a"].tolist() == outcome["b"][0].tolist() == [2, 2, -4, 7]
    assert of("mean", low, high, dtype="float64").tolist() == [1.5, 2.5, -3.5, 7]
    big = [library.array([2**62 + part], "int64") for part in (0, 1)]
    with pytest.warns(RuntimeWarning, match="rounded"):
        assert of("mean", *big).tolist() == [2**62]


@LIBRARIES
def test_bools_are_counted_where_asked_for(library: Any) -> None:
    yes, no = library.array([True, True], "bool"), library.array([True, False], "bool")
    assert of("max", yes, no).tolist() == [True, True]
    assert of("min", yes, no).tolist() == of("prod", yes, no).tolist() == [True, False]
    assert of("sum", yes, no, dtype="int64").tolist() == [2, 1]
    assert of("mean", yes, no, dtype="float64").tolist() == [1, 0.5]
    assert of("mean", yes, yes).tolist() == [True, True]
    with pytest.raises(CollectiveError, match=r"value is bool.*dtype=\"float64\""):
        of("mean", yes, no)


@LIBRARIES
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_half_precision_accumulates_in_float32(library: Any, dtype: str) -> None:
    if library is Numpy and dtype != "float16":
        pytest.skip("no such dtype")
    ones = [library.array([1.0], dtype)] * 2100
    assert of("mean", *ones).tolist() == [1]
    small = library.array([256.0], dtype)
    one = library.array([1.0], dtype)
    mean = of("mean", small, one, one)
    assert mean.tolist() == library.array([86.0], dtype).tolist()
    assert of("max", small, one).tolist() == [256]
    if dtype == "float16":
        large = library.array([60000.0], dtype)
        assert of("mean", large, large).tolist() == large.tolist()
        assert of("sum", large, large).tolist() == [math.inf]
        assert of("sum", large, large, dtype="float32").tolist() == [120000.0]


@LIBRARIES
@pytest.mark.parametrize(("dtype", "large"), [("float32", 3e38), ("float64", 1.7e308)])
def test_no_mean_of_finite_numbers_is_infinite(library: Any, dtype: str, large: float) -> None:
    array = library.array([large, 1.0, -large, 5e-324], dtype)
    assert of("mean", array, array).tolist() == array.tolist()
    assert of("mean", array, array, array).tolist() == pytest.approx(array.tolist(), rel=1e-6)
    assert of("sum", array, array).tolist()[0] == math.inf


@LIBRARIES
def test_infinity_and_nan_prevail_without_a_warning(library: Any) -> None:
    array = library.array([math.inf, math.nan, math.inf, 1.0], "float32")
    other = library.array([1.0, 1.0, -math.inf, math.nan], "float32")
    for op in OPS:
        for outcome in (of(op, array, other).tolist(), of(op, other, array).tolist()):
            assert math.isnan(outcome[1])
            assert math.isnan(outcome[3])
    assert of("mean", array, other).tolist()[0] == math.inf
    assert math.isnan(of("sum", array, other).tolist()[2])


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("dtype", [*INTEGERS, "float16", "float32", "float64", "complex64", "bool"])
def test_scalars_of_numpy_stay_scalars(dtype: str, op: str) -> None:
    given = [np.dtype(dtype).type(rank + 1) for rank in range(3)]
    if (dtype, op) in MEANINGLESS:
        with pytest.raises(TypeError, match="has no"):
            of(op, *given)
        return
    outcome = of(op, *given)
    assert type(outcome) is type(given[0])
    assert outcome == (1 if dtype == "bool" else EXPECTED[op])


def test_scalars_of_numpy_and_numbers_of_python_make_numbers_of_python() -> None:
    outcome = of("mean", np.float32(2.5), 1, np.float64(1))
    assert type(outcome) is float
    assert outcome == 1.5
    assert type(of("sum", 1, np.int64(2))) is int
    assert round(of("mean", np.float32(2.5), np.float32(2.5)), 2) == 2.5


def test_scalars_and_arrays_differ() -> None:
    with pytest.raises(CollectiveError, match="a number of dtype float32, of rank 1 an array of"):
        of("sum", np.float32(1), np.array(1, "f4"))
    with pytest.raises(CollectiveError, match="a number of dtype float32, of rank 1 a number of"):
        of("sum", np.float32(1), np.float64(1))


def test_the_order_of_bytes_is_that_of_the_lowest_rank() -> None:
    outcome = of("sum", np.array([1], ">i4"), np.array([2], "<i4"))
    assert outcome.dtype == np.dtype(">i4")
    assert outcome.tolist() == [3]


def test_times_have_what_means_something() -> None:
    days = [
        np.array(["2024-01-01", "NaT"], "M8[D]"),
        np.array(["2024-01-03", "2024-01-03"], "M8[D]"),
    ]
    assert of("mean", *days).astype(str).tolist() == ["2024-01-02", "NaT"]
    assert of("min", *days).astype(str).tolist() == ["2024-01-01", "NaT"]
    assert of("max", *days[::-1]).dtype == "M8[D]"
    spans = [np.array(3, "m8[s]"), np.array(6, ">m8[s]")]
    for op, expected in {"sum": 9, "mean": 4, "min": 3, "max": 6}.items():
        outcome = of(op, *spans)
        assert outcome.shape == ()
        assert outcome == np.timedelta64(expected, "s")
    assert (
        type(of("max", np.datetime64("2024-01-01"), np.datetime64("2025-01-01"))) is np.datetime64
    )
    for shape in ((2,), (1,), (2, 1), (0,), ()):  # more counts of nanoseconds than 64 bits hold
        instants = [np.full(shape, f"2026-01-0{day}", "M8[ns]") for day in range(1, 10)]
        assert of("mean", *instants).shape == shape
        assert (of("mean", *instants) == np.datetime64("2026-01-05")).all()
        assert (of("max", *instants) == np.datetime64("2026-01-09")).all()
    with pytest.raises(TypeError, match=r"dtype datetime64\[D\], which has no sum"):
        of("sum", *days)
    with pytest.raises(TypeError, match=r"timedelta64\[s\], which has no prod"):
        of("prod", *spans)
    with pytest.raises(CollectiveError, match="a coarser unit"):
        of("sum", *[np.array([2**62], "m8[ns]")] * 2)
    with pytest.raises(CollectiveError, match=r"datetime64\[D\], of rank 1.*datetime64\[s\]"):
        of("min", days[0], days[0].astype("M8[s]"))
    with pytest.raises(TypeError, match="does not become float64"):
        of("mean", *days, dtype="float64")


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.array([(1, 2.0)], [("a", "i4"), ("b", "f8")]), "cannot be reduced"),
        (np.array([None]), "dtype object, which cannot be reduced"),
        (np.array(["a"]), "cannot be reduced"),
        (np.ma.masked_array([1, 2], [False, True]), "a masked array.*filled"),
        (np.str_("a"), "cannot be reduced"),
    ],
)
@pytest.mark.parametrize("op", OPS)
def test_what_has_no_meaning_is_refused_with_its_place(array: Any, words: str, op: str) -> None:
    with pytest.raises(TypeError, match=rf"value\['w'\] .*{words}"):
        of(op, {"w": array}, {"w": array})


@LIBRARIES
def test_a_dtype_that_cannot_hold_what_is_given_is_refused(library: Any) -> None:
    halves = library.array([1.5], "float64")
    with pytest.raises(TypeError, match="float64, which does not become int64"):
        of("sum", halves, halves, dtype="int64")
    with pytest.raises(TypeError, match="complex64, which does not become float32"):
        of("sum", *[library.array([1j], "complex64")] * 2, dtype="float32")
    many = library.array([200], "int64")
    with pytest.raises(CollectiveError, match=r"400, which (torch\.)?uint8 can't hold"):
        of("sum", many, many, dtype="uint8")
    assert library.name(of("sum", many, many, dtype="float16")) == "float16"


def test_numpy_has_no_bfloat16() -> None:
    with pytest.raises(TypeError, match="no dtype bfloat16"):
        of("sum", np.ones(1), np.ones(1), dtype="bfloat16")


def test_both_libraries_agree_to_the_bit() -> None:
    torch = pytest.importorskip("torch")
    generator = np.random.default_rng(0)
    for dtype in ("float16", "float32", "float64", "int16", "complex64"):
        arrays = [(generator.normal(size=50) * 5).astype(dtype) for _ in range(5)]
        for op in ("sum", "mean"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)
                tensors = of(op, *map(torch.from_numpy, arrays))
                assert of(op, *arrays).tobytes() == tensors.numpy().tobytes(), (dtype, op)


def test_numbers_of_python_follow_the_same_rule() -> None:
    nan, inf = math.nan, math.inf
    for op in OPS:
        assert math.isnan(of(op, 1.0, nan))
        assert math.isnan(of(op, nan, 1.0))
    assert math.isnan(of("mean", inf, -inf))
    assert math.isnan(of("sum", inf, -inf))
    assert of("sum", 1e308, 1e308) == inf
    assert of("mean", 1.7e308, 1.7e308) == 1.7e308
    assert of("mean", 2**63, 2**63) == 2.0**63
    assert of("sum", 2**63, 2**63) == 2**64
    with pytest.raises(CollectiveError, match="value has a mean beyond any float"):
        of("mean", 10**400, 10**400)


def test_a_dtype_is_named_as_each_library_names_it() -> None:
    torch = pytest.importorskip("torch")
    for given in (np.float64, np.dtype("f8"), np.dtype(">f8"), torch.float64, float, "float64"):
        assert arguments.dtype(given) == "float64"
    assert arguments.dtype(int) == "int64"
    assert arguments.dtype(torch.bfloat16) == "bfloat16"
    assert arguments.dtype(None) is None
    for wrong in ("f8", bool, "str", 30, np.str_):
        with pytest.raises(ValueError, match=r"dtype is .*give one of float64"):
            arguments.dtype(wrong)
