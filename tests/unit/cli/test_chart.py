"""Charts of characters: bounded, with gaps, in ASCII where nothing else can be shown."""

from __future__ import annotations

import math
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manta.apis.curves import MOST_CURVES, Curve, Graph
from manta.cli.chart import NARROWEST, ROWS, WIDEST, chart
from manta.console import text


def shown(*curves: Curve, columns: int = 40, plain: bool = True, metric: str = "loss") -> list[str]:
    return [str(one) for one in chart(Graph(metric, "iteration", curves), columns, plain=plain)]


def test_a_line_goes_from_corner_to_corner_with_its_values_at_the_edges() -> None:
    lines = shown(Curve("mean of 4", (0, 1), (1.0, 0.0)))
    assert lines[0] == "loss by iteration"
    assert lines[1].startswith("1.0 |*")
    assert lines[ROWS].startswith("0.0 |")
    assert lines[ROWS].endswith("*")
    assert len(lines[ROWS]) == 40
    assert lines[ROWS + 1] == f"    +{'-' * 35}"
    assert lines[ROWS + 2] == f"     0{'1':>34}"
    assert lines[ROWS + 3 :] == ["* mean of 4"]
    assert sum(line.count(".") for line in lines[1 : ROWS + 1]) == 33 + 3  # and in three numbers


def test_nan_and_infinities_are_gaps_that_are_counted() -> None:
    lines = shown(Curve("a", (0, 1, 2, 3), (0.0, math.nan, math.inf, 1.0)))
    assert "".join(lines[1 : ROWS + 1]).count("*") == 2
    assert not any("." in line[5:] for line in lines[1 : ROWS + 1])
    assert lines[-1] == "2 values not drawn: NaN or infinite."


def test_a_metric_that_is_never_a_number_has_no_axes() -> None:
    assert shown(Curve("a", (0,), (math.nan,))) == [
        "loss by iteration",
        "* a",
        "1 value not drawn: NaN or infinite.",
    ]


@pytest.mark.parametrize("plain", [True, False])
def test_each_curve_has_a_mark_of_its_own(plain: bool) -> None:
    curves = [Curve(f"n{at}", (at,), (float(at),)) for at in range(MOST_CURVES)]
    lines = shown(*curves, plain=plain)
    marks = {line[0] for line in lines[-MOST_CURVES:]}
    assert len(marks) == MOST_CURVES
    drawn = "".join(lines[1 : ROWS + 1])
    assert all(mark in drawn for mark in marks)
    assert all(line.isascii() for line in lines) is plain


NUMBERS = st.floats(allow_nan=True, allow_infinity=True) | st.sampled_from(
    [sys.float_info.max, -sys.float_info.max, 5e-324, 0.0]
)


@given(
    points=st.dictionaries(st.integers(0, 2**63), NUMBERS, min_size=1, max_size=20),
    columns=st.integers(0, 300),
    plain=st.booleans(),
)
def test_whatever_is_logged_it_is_as_wide_as_allowed(
    points: dict[int, float], columns: int, plain: bool
) -> None:
    ordered = sorted(points.items())
    curve = Curve("é" * 200, tuple(x for x, _ in ordered), tuple(y for _, y in ordered))
    lines = chart(Graph("loss\n" * 50, "step", (curve,)), columns, plain=plain)
    widest = max(NARROWEST, min(columns, WIDEST))
    assert max(map(text.width, lines)) <= widest
    assert not any("\n" in str(one) for one in lines)
