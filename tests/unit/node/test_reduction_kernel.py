"""Reducing range by range gives the bits, the errors and the warnings of reducing at once."""

from __future__ import annotations

import random
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manta.light.errors import CollectiveError
from manta.light.reduction import OPS, reduce
from manta.node.reduction import bfloat16, kernel
from manta.node.reduction.forms import Leaf, Source
from manta.node.reduction.kernel import Kernel

INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
FLOATS = ("float16", "float32", "float64")
COMPLEX = ("complex64", "complex128")
TIMES = ("datetime64[D]", "timedelta64[ns]")
DTYPES = ("bool", *INTEGERS, *FLOATS, *COMPLEX, *TIMES)
HALVES = "bfloat16"


@pytest.fixture(autouse=True, scope="module")
def small_blocks() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel, "BLOCK", 64)
        patch.setattr(kernel, "WIDENED", 16)
        yield


def values(dtype: str, count: int, seed: int, *, wild: bool) -> np.ndarray:
    """Random items; `wild`: any bits, else small numbers, of which integers often are even."""
    generator = np.random.default_rng(seed)
    kind = np.dtype(dtype).kind
    if wild and kind != "b":
        size = np.dtype(dtype).itemsize
        return np.frombuffer(generator.bytes(count * size), dtype).copy()
    if kind in "mM":
        found = generator.integers(-5, 50, count).astype(dtype)
        found[generator.random(count) < 0.1] = "NaT"
        return found
    if kind == "f" or kind == "c":
        return (generator.normal(size=count) * 3).astype(dtype)
    return (generator.integers(0, 2, count) * generator.choice([1, 2])).astype(dtype)


def in_ranges(
    made: Kernel, sources: list[list[Any]], size: int, seed: int, count: int
) -> tuple[bytes, list[bytes]]:
    """`sources`: each the bytes of a whole value, and whether it is interim."""
    generator = random.Random(seed)
    target = bytearray(size)
    notes, start = [], 0
    while start < size:
        stop = min(size, start + generator.randint(1, 30) * made.itemsize)
        parts = [Source(memoryview(data)[start:stop], interim) for data, interim in sources]
        note = made.reduce(start, memoryview(target)[start:stop], parts, count)
        notes += [note] if note else []
        start = stop
    generator.shuffle(notes)
    return bytes(target), notes


def at_once(arrays: list[Any], op: str, dtype: str | None = None) -> tuple[Any, str, Any]:
    """The outcome, the warning, the error."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            return reduce(list(enumerate(arrays)), op, dtype), _said(told), None
        except (CollectiveError, TypeError) as error:
            return None, "", error


def bits(data: bytes, dtype: np.dtype) -> bytes:
    """The same for each NaN: which one a sum of two is depends on how many are summed at a time."""
    found = np.frombuffer(data, dtype).copy()
    parts = found.view(found.real.dtype) if dtype.kind == "c" else found
    if dtype.kind in "fc":
        parts[np.isnan(parts)] = np.nan
    return found.tobytes()


def _said(told: list[warnings.WarningMessage]) -> str:
    return str(told[0].message) if told else ""


@settings(max_examples=400, deadline=None)
@given(
    dtype=st.sampled_from(DTYPES),
    op=st.sampled_from(OPS),
    count=st.integers(1, 5),
    items=st.sampled_from([1, 7, 40, 130]),
    wild=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_ranges_make_what_the_whole_makes(dtype, op, count, items, wild, seed) -> None:
    arrays = [values(dtype, items, seed + rank, wild=wild) for rank in range(count)]
    expected, warning, error = at_once(arrays, op)
    leaf = Leaf(0, arrays[0].nbytes, dtype)
    if isinstance(error, TypeError):
        with pytest.raises(TypeError) as refused:
            Kernel(op, [leaf], count)
        assert str(refused.value) == str(error)
        return
    made = Kernel(op, [leaf], count)
    sources = [[array.tobytes(), False] for array in arrays]
    outcome, notes = in_ranges(made, sources, leaf.stop, seed, count)
    conclusion = made.conclude(notes)
    assert type(conclusion.error) is type(error)
    assert str(conclusion.error) == str(error)
    assert conclusion.warning == warning
    assert not notes or made.noted
    if error is None:
        assert bits(outcome, expected.dtype) == bits(expected.tobytes(), expected.dtype)


@pytest.mark.parametrize("dtype", COMPLEX)
@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_single_item_is_rounded_as_each_of_many(dtype: str, count: int) -> None:
    arrays = [values(dtype, 2000, rank, wild=True) for rank in range(count)]
    many, _, _ = at_once(arrays, "prod")
    for at in range(2000):
        parts = [array[at : at + 1] for array in arrays]
        alone, _, _ = at_once(parts, "prod")
        made = Kernel("prod", [Leaf(0, parts[0].nbytes, dtype)], count)
        sources = [[part.tobytes(), False] for part in parts]
        outcome, _ = in_ranges(made, sources, parts[0].nbytes, 0, count)
        expected = bits(many[at : at + 1].tobytes(), many.dtype)
        assert bits(alone.tobytes(), many.dtype) == expected
        assert bits(outcome, many.dtype) == expected


@settings(max_examples=200, deadline=None)
@given(
    op=st.sampled_from(("sum", "mean", "prod")),
    dtypes=st.lists(st.sampled_from(("bool", *INTEGERS, "float32")), min_size=1, max_size=4),
    seed=st.integers(0, 10_000),
)
def test_of_several_arrays_the_first_that_fails_is_named(op, dtypes, seed) -> None:
    if op == "sum":
        dtypes = [dtype for dtype in dtypes if dtype != "bool"]
    nests, leaves, at = [], [], 0
    for rank in range(3):
        nests.append(
            {
                str(number): values(dtype, 20, seed * 7 + number * 3 + rank, wild=seed % 3 == 0)
                for number, dtype in enumerate(dtypes)
            }
        )
    buffers = [bytearray() for _ in nests]
    for name in nests[0]:
        size = nests[0][name].nbytes
        leaves.append(Leaf(at, at + size, nests[0][name].dtype.name, f"value[{name!r}]"))
        padding = -size % 16
        for buffer, nest in zip(buffers, nests, strict=True):
            buffer += nest[name].tobytes() + bytes(padding)
        at += size + padding
    expected, warning, error = at_once(nests, op)
    made = Kernel(op, leaves, 3)
    outcome, notes = in_ranges(made, [[one, False] for one in buffers], at, seed, 3)
    conclusion = made.conclude(notes)
    assert str(conclusion.error) == str(error)
    assert conclusion.warning == warning
    if error is None:
        for leaf, array in zip(leaves, expected.values(), strict=True):
            own = outcome[leaf.start : leaf.stop]
            assert bits(own, array.dtype) == bits(array.tobytes(), array.dtype)


@settings(max_examples=200, deadline=None)
@given(
    dtype=st.sampled_from(("float32", "float64", *COMPLEX, "int16", "uint64", "bool", *TIMES)),
    op=st.sampled_from(OPS),
    groups=st.lists(st.integers(1, 3), min_size=2, max_size=4),
    seed=st.integers(0, 10_000),
)
def test_interim_results_keep_the_order_of_the_peers(dtype, op, groups, seed) -> None:
    if np.dtype(dtype).kind not in "fc":
        op = "max"
    elif dtype in COMPLEX and op in ("min", "max"):
        op = "sum"
    count, items = sum(groups), 40
    arrays = [values(dtype, items, seed + rank, wild=False) for rank in range(count)]
    made = Kernel(op, [Leaf(0, arrays[0].nbytes, dtype)], count)
    assert made.local_first
    sources: list[list[Any]] = []
    summed, left = [], list(arrays)
    for size in groups:
        group, left = left[:size], left[size:]
        parts = [[array.tobytes(), False] for array in group]
        if size == 1:
            sources += parts
        else:
            interim, _ = in_ranges(made, parts, arrays[0].nbytes, seed, 0)
            sources.append([interim, True])
        summed.append(at_once(group, "sum" if op == "mean" else op)[0])
    outcome, _ = in_ranges(made, sources, arrays[0].nbytes, seed, count)
    expected = at_once(summed, "sum" if op == "mean" else op)[0]
    if op == "mean":
        expected = expected / count
    assert outcome == expected.tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_mean_of_finite_numbers_is_infinite_on_whichever_peers(dtype: str) -> None:
    large = np.full(100, np.finfo(dtype).max, dtype)
    made = Kernel("mean", [Leaf(0, large.nbytes, dtype)], 5)
    interim, _ = in_ranges(made, [[large.tobytes(), False]] * 3, large.nbytes, 0, 0)
    raw = [large.tobytes(), False]
    for sources in ([[interim, True], raw, raw], [raw, raw, [interim, True]], [raw] * 5):
        outcome, _ = in_ranges(made, sources, large.nbytes, 0, 5)
        assert np.isfinite(np.frombuffer(outcome, dtype)).all()
        assert np.allclose(np.frombuffer(outcome, dtype), large)
    huge = np.full(100, np.inf, dtype)
    outcome, _ = in_ranges(made, [[interim, True], [huge.tobytes(), False]], large.nbytes, 0, 5)
    assert np.isinf(np.frombuffer(outcome, dtype)).all()


def test_where_interim_results_are_wider_there_are_none() -> None:
    for dtype in ("float16", HALVES, "int32", "bool"):
        assert not Kernel("prod", [Leaf(0, 4, dtype)], 2).local_first
        assert Kernel("max", [Leaf(0, 4, dtype)], 2).local_first
    mixed = [Leaf(0, 4, "float32"), Leaf(16, 24, "int64")]
    assert not Kernel("sum", mixed, 2).local_first
    assert Kernel("sum", mixed, 2).itemsize == 16
    assert Kernel("sum", mixed[:1], 2).itemsize == 4
    assert not Kernel("sum", mixed[:1], 2).noted


def test_products_of_complex_numbers_are_for_one_machine_to_make() -> None:
    assert not Kernel("prod", [Leaf(0, 4, "float32"), Leaf(16, 32, "complex64")], 2).reproducible
    assert Kernel("sum", [Leaf(0, 16, "complex64")], 2).reproducible
    assert Kernel("prod", [Leaf(0, 16, "float64")], 2).reproducible


# bfloat16.


def nearest_half(value: float) -> int:
    """The bits of a float32, rounded by its exact value."""
    bits = int(np.float32(value).view(np.uint32))
    low, high = bits & 0xFFFF_0000, (bits & 0xFFFF_0000) + 0x1_0000
    rest = bits & 0xFFFF
    if rest == 0x8000:
        return (low if low >> 16 & 1 == 0 else high) >> 16
    return (low if rest < 0x8000 else high) >> 16


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=20))
def test_halves_are_rounded_to_the_nearest_and_half_to_even(numbers: list[float]) -> None:
    array = np.array(numbers, np.float32)
    target = np.empty(len(numbers), np.uint16)
    bfloat16.rounded(array, target)
    assert target.tolist() == [nearest_half(number) for number in numbers]
    again = np.empty_like(target)
    bfloat16.rounded(bfloat16.widened(target), again)
    assert again.tolist() == target.tolist()


@pytest.mark.parametrize("bits", [0x7F80_0001, 0x7FFF_FFFF, 0xFFC0_0000, 0xFF80_FFFF])
def test_not_a_number_stays_none(bits: int) -> None:
    target = np.empty(1, np.uint16)
    bfloat16.rounded(np.array([bits], np.uint32).view(np.float32), target)
    assert np.isnan(bfloat16.widened(target)).all()


@settings(max_examples=100, deadline=None)
@given(op=st.sampled_from(OPS), count=st.integers(1, 5), seed=st.integers(0, 10_000))
def test_halves_are_reduced_in_float32(op, count, seed) -> None:
    generator = np.random.default_rng(seed)
    arrays = [generator.integers(0, 2**16, 60).astype(np.uint16) for _ in range(count)]
    made = Kernel(op, [Leaf(0, 120, HALVES)], count)
    outcome, notes = in_ranges(
        made, [[array.tobytes(), False] for array in arrays], 120, seed, count
    )
    assert notes == []
    wide = at_once([*map(bfloat16.widened, arrays)], op)[0]
    target = np.empty(60, np.uint16)
    bfloat16.rounded(wide, target)
    found = np.frombuffer(outcome, np.uint16)
    assert found.tolist() == target.tolist()


@settings(max_examples=50, deadline=None)
@given(op=st.sampled_from(OPS), count=st.integers(1, 4), seed=st.integers(0, 10_000))
def test_tensors_of_halves_agree(op, count, seed) -> None:
    torch = pytest.importorskip("torch")
    generator = np.random.default_rng(seed)
    arrays = [generator.integers(0, 2**16, 60).astype(np.uint16) for _ in range(count)]
    tensors = [torch.from_numpy(array.view(np.int16)).view(torch.bfloat16) for array in arrays]
    made = Kernel(op, [Leaf(0, 120, HALVES)], count)
    sources = [[array.tobytes(), False] for array in arrays]
    outcome, _ = in_ranges(made, sources, 120, seed, count)
    expected = at_once(tensors, op)[0].view(torch.int16).numpy().view(np.uint16)
    found = np.frombuffer(outcome, np.uint16)
    is_nan = np.isnan(bfloat16.widened(expected))
    assert (np.isnan(bfloat16.widened(found)) == is_nan).all()
    assert found[~is_nan].tolist() == expected[~is_nan].tolist()


# Another dtype for the outcome, and names as the task knows them.


def test_an_outcome_may_have_to_fit_into_fewer_bits() -> None:
    arrays = [np.array([200, 1], "int64"), np.array([200, 1], "int64")]
    _, _, error = at_once(arrays, "sum", "uint8")
    made = Kernel("sum", [Leaf(0, 16, "int64", into="uint8")], 2)
    sources = [[array.tobytes(), False] for array in arrays]
    _, notes = in_ranges(made, sources, 16, 0, 2)
    assert str(made.conclude(notes).error) == str(error)
    small = [[np.array([100, 1], "int64").tobytes(), False]] * 2
    outcome, notes = in_ranges(made, small, 16, 0, 2)
    assert made.conclude(notes).error is None
    assert np.frombuffer(outcome, "int64").tolist() == [200, 2]


def test_messages_name_dtypes_as_the_task_does() -> None:
    top = np.array([127], "int8")
    made = Kernel("sum", [Leaf(0, 1, "int8", "value['w']", "torch.int8")], 2)
    _, notes = in_ranges(made, [[top.tobytes(), False]] * 2, 1, 0, 2)
    assert str(made.conclude(notes).error) == (
        "value['w'] has the sum 254, which torch.int8 can't hold: "
        'give dtype="int64" or "float64".'
    )


@pytest.mark.parametrize("note", [b"", b"[", b"[[1]]", b'[[7, true, "0", "0"]]', b"7"])
def test_what_is_no_note_is_refused(note: bytes) -> None:
    with pytest.raises(ValueError, match="note"):
        Kernel("sum", [Leaf(0, 4, "int32")], 2).conclude([note])


def test_bytes_that_no_array_covers_become_zero() -> None:
    made = Kernel("sum", [Leaf(8, 24, "float32"), Leaf(32, 40, "float32")], 2)
    data = np.ones(16, np.float32).tobytes()
    target = bytearray(b"old!" * 16)
    for start, stop in ((0, 20), (20, 36), (36, 64)):
        parts = [Source(memoryview(data)[start:stop])] * 2
        made.reduce(start, memoryview(target)[start:stop], parts, 2)
    twos = np.frombuffer(target, np.float32)
    assert twos.tolist() == [0.0] * 2 + [2.0] * 4 + [0.0] * 2 + [2.0] * 2 + [0.0] * 6
    target[:] = b"old!" * 16
    Kernel("sum", [], 2).reduce(0, target, [Source(data)] * 2, 2)
    assert not any(target)
