"""Statistics of data that stay where they are are those of the whole."""

from __future__ import annotations

import itertools
import statistics as std

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manta.light.federated.errors import BadModel, BadUpdate, CohortTooSmall, NoUpdates
from manta.light.federated.statistics import (
    combine,
    histogram,
    mean,
    moments,
    quantile,
    variance,
)

numbers = st.floats(-1e6, 1e6)
parts = st.lists(st.lists(numbers, min_size=1, max_size=9), min_size=2, max_size=6)


@given(parts)
def test_moments_are_those_of_the_whole(given_) -> None:
    whole = combine({f"c{n}": moments(part, minimum=1) for n, part in enumerate(given_)})
    values = list(itertools.chain(*given_))
    assert whole["count"] == len(values)
    assert float(mean(whole)) == pytest.approx(std.fmean(values), rel=1e-9, abs=1e-6)
    assert float(variance(whole)) == pytest.approx(std.pvariance(values), rel=1e-6, abs=1e-4)


def test_no_digits_are_lost_where_means_are_large() -> None:
    values = 1e9 + np.random.default_rng(1).normal(size=(1000, 2))
    halves = {"a": moments(values[:300]), "b": moments(values[300:])}
    np.testing.assert_allclose(variance(combine(halves), ddof=1), values.var(axis=0, ddof=1))
    naive = (values**2).mean(axis=0) - values.mean(axis=0) ** 2
    assert (abs(naive - values.var(axis=0)) > 1).any(), "the values are no test"


@given(parts, st.floats(0, 1))
def test_a_quantile_is_right_to_the_width_of_a_bin(given_, fraction) -> None:
    edges = np.linspace(-1e6, 1e6, 201)
    whole = combine({f"c{n}": histogram(p, edges, minimum=1) for n, p in enumerate(given_)})
    values = sorted(itertools.chain(*given_))
    found, count = quantile(whole, fraction), len(values)
    below = sum(value < found - 1e4 - 1e-3 for value in values)
    above = sum(value > found + 1e4 + 1e-3 for value in values)
    assert below <= fraction * count + 1e-6
    assert above <= (1 - fraction) * count + 1e-6


def test_quantiles_of_many_are_numpys() -> None:
    values = np.random.default_rng(2).normal(50, 10, 5000)
    edges = np.arange(0, 101)
    whole = combine({str(n): histogram(part, edges) for n, part in enumerate(np.split(values, 5))})
    for fraction in (0.01, 0.25, 0.5, 0.9):
        assert quantile(whole, fraction) == pytest.approx(np.quantile(values, fraction), abs=0.5)


def test_a_quantile_beyond_the_edges_says_so() -> None:
    summary = histogram(np.arange(100), [50, 60])
    assert summary["counts"].tolist() == [50, 11, 39]
    with pytest.raises(ValueError, match="50 records are below and 39 above, of 100"):
        quantile(summary, 0.1)
    assert 50 <= quantile(summary, 0.55) <= 60


def test_nothing_is_told_of_few() -> None:
    with pytest.raises(CohortTooSmall, match="There are 9 records, and nothing is told of fewer"):
        moments(np.ones(9))
    with pytest.raises(CohortTooSmall, match="2 records"):
        histogram(np.ones(2), [0, 1], minimum=3)
    one = {"a": moments(np.ones(10))}
    with pytest.raises(
        CohortTooSmall, match="There are 1 clients, and nothing is told of fewer than 2"
    ):
        combine(one)
    two = {**one, "b": moments(np.ones(10))}
    with pytest.raises(CohortTooSmall, match="There are 20 records"):
        combine(two, records=21)
    with pytest.raises(NoUpdates):
        combine({})
    assert combine(one, minimum=1)["count"] == 10


GOOD = moments(np.arange(10.0))
BINS = histogram(np.arange(10.0), [0, 5, 10])


@pytest.mark.parametrize(
    ("first", "wrong", "said"),
    [
        (GOOD, {"count": 1}, "no summary"),
        (GOOD, None, "no summary"),
        (GOOD, {**GOOD, "mean": np.array(np.nan)}, "NaN"),
        (GOOD, {**GOOD, "mean": np.zeros(2)}, "another shape"),
        (GOOD, {**GOOD, "count": np.array(0)}, "number of records above 0"),
        (GOOD, {**GOOD, "count": np.array(-5)}, "no count"),
        (GOOD, {**GOOD, "count": np.array(2.5)}, "no count"),
        (GOOD, {**GOOD, "squares": np.array(-1.0)}, "no sum of squares"),
        (GOOD, {**GOOD, "mean": 1.0}, "no array"),
        (GOOD, BINS, "another kind"),
        (BINS, {**BINS, "edges": BINS["edges"] + 1}, "others than those of other clients"),
        (BINS, {**BINS, "counts": -BINS["counts"]}, "no count"),
    ],
)
def test_a_wrong_summary_is_named(first, wrong, said) -> None:
    with pytest.raises(BadUpdate, match=f"client 'b'.*{said}"):
        combine({"a": first, "b": wrong})


@pytest.mark.parametrize(
    "values", [[np.nan] * 10, np.full(10, np.inf), ["x"] * 10, np.zeros((10, 2, 2)), [None] * 10]
)
def test_values_that_are_no_numbers_are_refused(values) -> None:
    with pytest.raises(BadModel):
        moments(values)


@pytest.mark.parametrize("edges", [[1], [1, 1], [2, 1], [0, np.inf], [[0, 1]], [0, np.nan]])
def test_edges_that_are_none_are_refused(edges) -> None:
    with pytest.raises(BadModel, match="edges"):
        histogram(np.zeros(10), edges)


def test_a_variance_needs_more_records_than_it_takes_away() -> None:
    with pytest.raises(ValueError, match="ddof is 1, and there are 1 records"):
        variance(moments([1.0], minimum=1), ddof=1)
