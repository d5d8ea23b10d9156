"""Rounds end when a rule says so, and the metrics that it looks at are the means over clients."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manta.light.federated import Plateau, Reached
from manta.light.federated.errors import BadWeight, UnknownMetric
from manta.light.federated.metrics import mean_metrics

finite = st.floats(-1e6, 1e6)


def rounds(*values: float) -> list[dict[str, float]]:
    return [{"loss": value} for value in values]


def test_a_value_is_reached_by_the_last_round_alone() -> None:
    assert Reached("loss", at_most=1.0).holds(rounds(3.0, 1.0))
    assert not Reached("loss", at_most=1.0).holds(rounds(0.5, 1.5))
    assert not Reached("loss", at_least=2.0).holds([])


@pytest.mark.parametrize("rule", [Reached("loss", at_most=1), Reached("loss", at_least=1)])
def test_nan_reaches_nothing(rule: Reached) -> None:
    assert not rule.holds(rounds(math.nan))


@given(st.lists(finite, min_size=1, max_size=20), st.integers(1, 5), finite.map(abs))
def test_a_plateau_is_so_many_rounds_without_a_record(
    values: list[float], count: int, improvement: float
) -> None:
    last_record, record = 0, -math.inf
    for at, value in enumerate(values):
        if value > record + improvement:
            last_record, record = at, value
    expected = len(values) - 1 - last_record >= count
    rule = Plateau("loss", rounds=count, improvement=improvement)
    assert rule.holds(rounds(*values)) == expected
    mirrored = Plateau("loss", rounds=count, improvement=improvement, best="least")
    assert mirrored.holds(rounds(*(-value for value in values))) == expected


def test_nan_improves_nothing() -> None:
    assert Plateau("loss", rounds=2).holds(rounds(1.0, math.nan, math.nan))
    assert not Plateau("loss", rounds=2).holds(rounds(math.nan, 1.0))


def test_a_metric_that_nobody_measured_is_told_with_those_that_there_are() -> None:
    with pytest.raises(UnknownMetric, match=r"looks at 'acuracy'.* are 'accuracy', 'loss'"):
        Reached("acuracy", at_least=1).holds([{"accuracy": 1.0, "loss": 0.0}])


@pytest.mark.parametrize(
    "make",
    [
        lambda: Reached("loss"),
        lambda: Reached("loss", at_least=1, at_most=2),
        lambda: Reached("loss", at_least="much"),  # type: ignore[arg-type]
        lambda: Plateau("loss", rounds=0),
        lambda: Plateau("loss", improvement=-1),
        lambda: Plateau("loss", best="most"),  # type: ignore[arg-type]
    ],
)
def test_rules_that_make_no_sense_are_refused(make: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        make()  # type: ignore[operator]


@given(
    st.lists(
        st.tuples(st.dictionaries(st.sampled_from("ab"), finite), st.floats(0.5, 100)), max_size=8
    )
)
def test_metrics_are_weighted_means_over_those_who_have_them(
    told: list[tuple[dict[str, float], float]],
) -> None:
    means = mean_metrics(
        (str(at), metrics, examples) for at, (metrics, examples) in enumerate(told)
    )
    for name in "ab":
        having = [(one[name], examples) for one, examples in told if name in one]
        assert (name in means) == bool(having)
        if having:
            total = sum(examples for _, examples in having)
            expected = sum(value * examples for value, examples in having) / total
            assert means[name] == pytest.approx(expected, abs=1e-6)


def test_one_client_with_nan_makes_the_mean_nan() -> None:
    assert math.isnan(mean_metrics([("a", {"m": 1.0}, 1), ("b", {"m": math.nan}, 1)])["m"])


@pytest.mark.parametrize("examples", [0, -1, math.nan, math.inf, "many", None, True])
def test_examples_that_are_no_number_above_zero_are_told_with_the_client(examples: object) -> None:
    with pytest.raises(BadWeight, match="node-7"):
        mean_metrics([("node-7", {"m": 1.0}, examples)])  # type: ignore[list-item]


@pytest.mark.parametrize("metrics", [["loss"], {"loss": "low"}, {"loss": None}, None])
def test_metrics_that_are_no_numbers_are_told_with_the_client(metrics: object) -> None:
    with pytest.raises(TypeError, match="node-7"):
        mean_metrics([("node-7", metrics, 1)])  # type: ignore[list-item]
