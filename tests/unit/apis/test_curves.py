"""What is drawn of metrics: curves of means or of nodes, by iteration or by step."""

from __future__ import annotations

import math

import pytest

from manta.apis.curves import MOST_CURVES, MOST_GRAPHS, Curve, graphs
from manta.apis.errors import InvalidArgument, NotFound
from manta.apis.overviews import MetricsOverview


def logged(
    iteration: int,
    node: str = "a",
    *,
    step: int | None = None,
    task: str = "w",
    index: int = 0,
    **metrics: float,
) -> MetricsOverview:
    return MetricsOverview(0.0, node, node, task, index, iteration, 0, metrics, step)


def test_a_mean_is_taken_at_each_iteration_of_those_who_logged_it() -> None:
    items = [logged(0, "a", m=1.0), logged(0, "b", m=3.0), logged(1, "b", m=5.0)]
    [graph] = graphs(items)
    assert graph == ("m", "iteration", (Curve("mean of 2", (0, 1), (2.0, 5.0)),))


def test_each_node_has_its_curve_and_a_node_that_runs_several_one_for_each() -> None:
    items = [logged(0, "a", m=1.0), logged(0, "b", m=2.0), logged(0, "b", index=1, m=3.0)]
    [graph] = graphs(items, by="node")
    assert [(curve.label, curve.y) for curve in graph.curves] == [
        ("a", (1.0,)),
        ("b.0", (2.0,)),
        ("b.1", (3.0,)),
    ]


def test_tasks_that_log_the_same_metric_are_told_apart() -> None:
    items = [logged(0, "a", m=1.0), logged(0, "b", m=2.0), logged(0, "a", task="s", m=3.0)]
    assert [curve.label for curve in graphs(items)[0].curves] == ["w, mean of 2", "s"]
    labels = [curve.label for curve in graphs(items, by="node")[0].curves]
    assert labels == ["w on a", "w on b", "s on a"]


def test_what_is_logged_again_counts_as_it_was_last() -> None:
    items = [logged(0, m=1.0), logged(1, m=2.0), logged(0, m=9.0)]
    assert graphs(items)[0].curves[0][1:] == ((0, 1), (9.0, 2.0))


def test_a_mean_with_nan_is_nan_and_one_of_both_infinities_too() -> None:
    items = [logged(0, "a", m=math.nan), logged(0, "b", m=1.0)]
    items += [logged(1, "a", m=math.inf), logged(1, "b", m=-math.inf)]
    assert all(math.isnan(y) for y in graphs(items)[0].curves[0].y)


def test_the_mean_of_the_largest_numbers_is_finite() -> None:
    items = [logged(0, node, m=1.7e308) for node in "abc"]
    assert graphs(items)[0].curves[0].y[0] == pytest.approx(1.7e308)


@pytest.mark.parametrize(
    ("steps", "axis"),
    [
        ([(0, 0), (0, 10), (1, 20)], "step"),
        ([(0, 0), (0, 1), (1, 0)], "iteration"),  # each iteration counts anew
        ([(0, None), (0, 1)], "iteration"),
    ],
)
def test_steps_are_the_axis_where_they_identify_each_value(
    steps: list[tuple[int, int | None]], axis: str
) -> None:
    assert graphs(logged(i, step=step, m=1.0) for i, step in steps)[0].axis == axis


def test_a_metric_without_steps_has_no_graph_by_step() -> None:
    with pytest.raises(InvalidArgument, match="No value of 'm' was logged with a step"):
        graphs([logged(0, m=1.0)], axis="step")


def test_a_metric_that_nobody_logged_is_named_with_the_nearest() -> None:
    with pytest.raises(NotFound, match=r"'los': there are loss.*Did you mean 'loss'"):
        graphs([logged(0, loss=1.0)], ["los"])
    with pytest.raises(NotFound, match="has logged a metric so far"):
        graphs([])


def test_more_than_can_be_told_apart_is_refused_with_the_remedy() -> None:
    metrics = {f"m{at}": 1.0 for at in range(MOST_GRAPHS + 1)}
    many = MetricsOverview(0.0, "a", "a", "w", 0, 0, 0, metrics, None)
    with pytest.raises(InvalidArgument, match="name those to draw, of m0, "):
        graphs([many])
    assert len(graphs([many], ["m3", "m3"])) == 1
    items = [logged(0, f"n{at}", m=1.0) for at in range(MOST_CURVES + 1)]
    with pytest.raises(InvalidArgument, match="draw means"):
        graphs(items, by="node")
    assert graphs(items)[0].curves[0].label == f"mean of {MOST_CURVES + 1}"
