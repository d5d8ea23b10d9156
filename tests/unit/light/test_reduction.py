from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manta.light.errors import CollectiveError
from manta.light.reduction import reduce


def of(op: str, *values: Any) -> Any:
    return reduce(list(enumerate(values)), op)


@pytest.mark.parametrize(
    ("op", "outcome"), [("sum", 7), ("mean", 7 / 3), ("min", 1), ("max", 4), ("prod", 8)]
)
def test_numbers(op: str, outcome: float) -> None:
    assert of(op, 1, 2, 4) == outcome


def test_numbers_keep_their_kind() -> None:
    assert type(of("sum", True, True)) is int
    assert type(of("mean", 1, 3)) is float
    assert type(of("max", 1, 3)) is int


def test_the_values_given_are_left_as_they_were() -> None:
    values = [np.arange(3.0), np.arange(3.0)]
    for op in ("sum", "mean", "min", "max", "prod"):
        of(op, *values)
    assert values[0].tolist() == values[1].tolist() == [0, 1, 2]


def test_nests_are_reduced_leaf_by_leaf() -> None:
    one = {"w": [np.ones(2), 1], "b": (2.0,)}
    other = {"b": (4.0,), "w": [np.full(2, 3.0), 5]}
    found = of("mean", one, other)
    assert found["w"][0].tolist() == [2, 2]
    assert found["w"][1] == 3
    assert found["b"] == (3.0,)


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        ({"a": 1}, {"b": 1}, "value of rank 0 is a dict of"),
        ({"a": [1]}, {"a": [1, 2]}, "value['a'] of rank 0 is a list of 1, of rank 1 a list of 2"),
        (np.ones(2), np.ones(3), "shape (2,)"),
        (np.ones(2), np.ones(2, "float32"), "float32"),
        (1, "a", "of rank 1 a str"),
    ],
)
def test_values_of_other_forms_name_the_place_and_the_ranks(
    one: Any, other: Any, words: str
) -> None:
    with pytest.raises(CollectiveError) as refused:
        of("sum", one, other)
    assert words in str(refused.value)


def test_what_cannot_be_reduced_is_refused() -> None:
    with pytest.raises(TypeError, match=r"value\['name'\] is a str"):
        of("sum", {"name": "a"}, {"name": "b"})
    with pytest.raises(ValueError, match="give one of sum, mean"):
        of("median", 1, 2)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=6))
def test_arrays_and_numbers_agree(values: list[float]) -> None:
    for op in ("sum", "mean", "min", "max"):
        arrays = of(op, *[np.array([value]) for value in values])
        assert arrays[0] == pytest.approx(of(op, *values), rel=1e-9, abs=1e-6)


def test_tensors() -> None:
    torch = pytest.importorskip("torch")
    one, other = torch.tensor([1.0, 5.0]), torch.tensor([3.0, 1.0])
    assert of("sum", one, other).tolist() == [4, 6]
    assert of("mean", one, other).tolist() == [2, 3]
    assert of("min", one, other).tolist() == [1, 1]
    assert of("max", one, other).tolist() == [3, 5]
    assert of("prod", one, other).tolist() == [3, 5]
    assert one.tolist() == [1, 5]
