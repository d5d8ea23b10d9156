"""What the report on the data plane computes: statistics, turns, goals and tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.benchmarks.data_plane.figures import (
    CALLS,
    FIGURES,
    LOCAL,
    MANTA,
    MS,
    Figure,
    Goal,
    Outcome,
    chosen,
)
from tests.benchmarks.data_plane.report import record, summary, text
from tests.benchmarks.data_plane.samples import percentile, ratio, spread
from tests.benchmarks.data_plane.turns import NotMeasured, allotted, alternate

SECONDS = st.floats(1e-6, 1e3)


# --- samples ---------------------------------------------------------------------------------


def test_a_spread_is_the_middle_the_ends_and_their_number() -> None:
    assert spread([3.0, 1.0, 2.0, 10.0]) == (2.5, 1.0, 10.0, 4)


@pytest.mark.parametrize(
    ("samples", "fraction", "expected"),
    [
        ([1.0], 0.95, 1.0),
        ([float(n) for n in range(1, 101)], 0.95, 95.0),
        ([float(n) for n in range(1, 101)], 1.0, 100.0),
        ([4.0, 3.0, 2.0, 1.0], 0.5, 2.0),
        ([4.0, 3.0, 2.0, 1.0], 0.0, 1.0),
    ],
)
def test_a_percentile_is_a_sample(samples: list[float], fraction: float, expected: float) -> None:
    assert percentile(samples, fraction) == expected


@given(st.lists(SECONDS, min_size=1), st.floats(0.01, 1.0))
def test_at_least_the_fraction_does_not_exceed_a_percentile(
    samples: list[float], fraction: float
) -> None:
    least = percentile(samples, fraction)
    assert sum(sample <= least for sample in samples) >= fraction * len(samples) - 1e-9


def test_a_ratio_of_turns_is_not_moved_by_load_that_both_sides_had() -> None:
    assert ratio([2.0, 20.0, 200.0], [1.0, 10.0, 100.0]) == 2.0


def test_a_ratio_of_uneven_numbers_is_that_of_the_medians() -> None:
    assert ratio([1.0, 4.0, 9.0], [2.0]) == 2.0


def test_there_is_no_ratio_to_nothing() -> None:
    assert ratio([1.0], [0.0]) is None
    assert ratio([1.0, 2.0], [0.0]) is None


@given(st.lists(st.tuples(SECONDS, SECONDS), min_size=1))
def test_a_ratio_lies_within_those_of_the_turns(pairs: list[tuple[float, float]]) -> None:
    ours, theirs = zip(*pairs, strict=True)
    each = [a / b for a, b in pairs]
    found = ratio(ours, theirs)
    assert found is not None
    assert min(each) <= found <= max(each)


# --- turns -----------------------------------------------------------------------------------


class Time:
    """A clock that moves when something is measured."""

    def __init__(self) -> None:
        self.now = 0.0
        self.order: list[str] = []

    def side(self, name: str, takes: float) -> Callable[[], Sequence[float]]:
        def measure() -> list[float]:
            self.now += takes
            self.order.append(name)
            return [takes]

        return measure

    def __call__(self) -> float:
        return self.now


def test_sides_are_measured_in_turns_and_the_first_turn_does_not_count() -> None:
    time = Time()
    sides = {"a": time.side("a", 1), "b": time.side("b", 2)}
    measured = alternate(sides, seconds=100, clock=time, turns=2, least=1)
    assert time.order == ["a", "b"] * 3
    assert measured.samples == {"a": [1, 1], "b": [2, 2]}


def test_there_is_no_turn_that_would_end_too_late() -> None:
    time = Time()
    measured = alternate({"a": time.side("a", 3)}, seconds=10, clock=time, turns=9, least=1)
    assert measured.samples == {"a": [3, 3, 3]}


def test_the_least_turns_are_taken_however_long_they_take() -> None:
    time = Time()
    measured = alternate({"a": time.side("a", 60)}, seconds=1, clock=time, turns=9, least=2)
    assert measured.samples == {"a": [60, 60]}


def test_without_a_warm_up_all_turns_count() -> None:
    time = Time()
    sides = {"a": time.side("a", 1)}
    measured = alternate(sides, seconds=9, clock=time, turns=2, least=1, warm_up=False)
    assert measured.samples == {"a": [1, 1]}


@pytest.mark.parametrize("fails", [1, 3])
def test_a_side_that_fails_is_named_and_the_others_go_on(fails: int) -> None:
    time, calls = Time(), count(1)

    def failing() -> list[float]:
        if next(calls) == fails:
            raise NotMeasured("it is not installed")
        return [1.0]

    sides = {"a": failing, "b": time.side("b", 1)}
    measured = alternate(sides, seconds=100, clock=time, turns=4, least=1)
    assert measured.samples == {"b": [1, 1, 1, 1]}
    assert measured.missing == {"a": "it is not installed"}
    assert next(calls) == fails + 1  # it was not asked again


@given(st.lists(st.floats(1, 100), min_size=1), st.floats(-10, 1e4))
def test_figures_that_take_what_they_are_allotted_end_in_time(
    wanted: list[float], budget: float
) -> None:
    left = budget
    for at, seconds in enumerate(wanted):
        given_ = allotted(left, seconds, sum(wanted[at + 1 :]))
        assert 0 <= given_ <= seconds
        left -= given_
    assert left >= min(budget, 0.0) - 1e-6


def test_a_figure_gets_what_it_wants_where_there_is_time() -> None:
    assert allotted(100, 10, 50) == 10


# --- figures ---------------------------------------------------------------------------------

FASTER = Figure("faster", "how long", "trip", MS, (Goal(0.5, "gloo"), Goal(40.0)))
MORE = Figure("more", "how many", "no_ops", CALLS, (Goal(1.0, "Ray"), Goal(1000.0)))


@pytest.mark.parametrize(("seconds", "holds"), [(0.02, True), (0.04, True), (0.041, False)])
def test_a_time_holds_up_to_its_limit(seconds: float, holds: bool) -> None:
    assert Outcome(FASTER, {MANTA: [seconds]}).holds(Goal(40.0)) is holds


@pytest.mark.parametrize(("rate", "holds"), [(999.0, False), (1000.0, True), (2000.0, True)])
def test_a_rate_holds_from_its_limit_on(rate: float, holds: bool) -> None:
    assert Outcome(MORE, {MANTA: [rate]}).holds(Goal(1000.0)) is holds


def test_a_goal_against_another_is_judged_by_the_ratio() -> None:
    samples = {MANTA: [1.0, 1.0], "gloo": [2.0, 2.0], "Ray": [2.0, 2.0]}
    assert Outcome(FASTER, samples).holds(Goal(0.5, "gloo"))
    assert not Outcome(FASTER, samples).holds(Goal(0.4, "gloo"))
    assert not Outcome(MORE, samples).holds(Goal(1.0, "Ray"))


def test_nothing_is_judged_that_was_not_measured() -> None:
    alone, without = Outcome(FASTER, {MANTA: [1.0]}), Outcome(FASTER, {"gloo": [1.0]})
    assert alone.holds(Goal(0.5, "gloo")) is None
    assert without.holds(Goal(0.5, "gloo")) is None
    assert without.holds(Goal(40.0)) is None


def test_names_are_unique_and_tell_figures_apart() -> None:
    names = [figure.name for figure in FIGURES]
    assert len(set(names)) == len(names)


def test_without_names_all_are_chosen_that_are_not_optional() -> None:
    assert {figure.name for figure in FIGURES} - {figure.name for figure in chosen([])} == {
        "large-value"
    }


def test_names_choose_what_begins_so() -> None:
    assert [figure.name for figure in chosen(["stage", "large"])] == ["stage", "large-value"]
    assert {figure.kind for figure in chosen(["all_reduce", "letter"])} == {
        "all_reduce",
        "trip",
        "stream",
    }


def test_figures_of_one_form_follow_each_other() -> None:
    forms = [figure.form == LOCAL for figure in chosen([])]
    assert forms == sorted(forms)


def test_a_name_with_which_none_begins_is_told_with_those_that_there_are() -> None:
    with pytest.raises(LookupError, match="'fedavgs'") as caught:
        chosen(["stage", "fedavgs"])
    assert "no-ops-forked" in str(caught.value)


# --- report ----------------------------------------------------------------------------------


def outcome() -> Outcome:
    return Outcome(
        FASTER,
        {MANTA: [0.030, 0.040, 0.035], "gloo": [0.1, 0.1, 0.1]},
        {"Open MPI": "mpirun is not installed"},
        ["load 1.0 before it"],
    )


def words(line: str) -> str:
    return " ".join(line.split())


def test_a_table_has_a_line_for_each_side_with_its_goals() -> None:
    head, manta, gloo, mpi, note = text(outcome())
    assert head == "faster: how long"
    assert words(manta) == "manta 35.0 ms (30.0 to 40.0; 3) [<= 40 ms: holds]"
    assert words(gloo) == "gloo 100 ms (100 to 100; 3) 0.350 x [<= 0.5 x: holds]"
    assert words(mpi) == "Open MPI not measured: mpirun is not installed"
    assert note.strip() == "load 1.0 before it"


def test_goals_of_sides_that_are_missing_are_shown() -> None:
    lines = list(text(Outcome(MORE, {MANTA: [500.0]})))
    assert "[>= 1000 a second: MISSES]" in lines[1]
    assert words(lines[2]) == "Ray not measured [>= 1 x: not judged]"


def test_a_figure_without_manta_says_why() -> None:
    lines = list(text(Outcome(MORE, missing={MANTA: "the swarm FAILED"})))
    assert "not measured: the swarm FAILED" in lines[1]


def test_large_numbers_are_grouped_and_small_ones_keep_three_digits() -> None:
    lines = list(text(Outcome(FASTER, {MANTA: [1.67, 0.00052]})))
    assert "835 ms (0.520 to 1,670; 2)" in lines[1]


def test_the_summary_counts_goals() -> None:
    outcomes = [outcome(), Outcome(MORE, {MANTA: [500.0]})]
    assert summary(outcomes) == "Goals: 2 hold, 1 missed, 1 not judged here."


def test_a_record_holds_all_and_is_json() -> None:
    told = json.loads(json.dumps(record([outcome()], {"cores": 2})))
    (figure,) = told["figures"]
    assert told["machine"] == {"cores": 2}
    assert figure["unit"] == "ms"
    assert figure["sides"][MANTA]["samples"] == [30.0, 40.0, 35.0]
    assert figure["sides"][MANTA]["manta_ratio"] is None
    assert figure["sides"]["gloo"]["manta_ratio"] == pytest.approx(0.35)
    assert figure["not_measured"] == {"Open MPI": "mpirun is not installed"}
    assert figure["goals"] == [
        {"limit": 0.5, "against": "gloo", "holds": True},
        {"limit": 40.0, "against": None, "holds": True},
    ]
