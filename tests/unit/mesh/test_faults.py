from __future__ import annotations

import json
import random
from statistics import fmean
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manta.mesh.faults import LONGEST, Delivered, Dropped, Faults, InvalidFaults

EVERYTHING = {
    "seed": 7,
    "loss": 0.1,
    "delay": {"distribution": "uniform", "least": 0.01, "most": 0.05},
    "partitions": [{"sides": [[0, 1, 2], [3, 4]], "from": 10.0, "until": 20.0}],
}
FOREVER = {"partitions": [{"sides": [[0]]}]}


def delays(delay: Any, count: int = 2000) -> list[float]:
    fates = [Faults.of({"delay": delay}).fate(0, 1, number, 0.0) for number in range(count)]
    return [fate.delay for fate in fates if isinstance(fate, Delivered)]


def test_without_faults_everything_arrives_at_once() -> None:
    assert Faults.of({}) == Faults()
    assert {Faults().fate(0, 1, number, 5.0) for number in range(100)} == {Delivered(0.0)}


def test_one_in_ten_is_lost() -> None:
    fates = [Faults.of({"loss": 0.1}).fate(0, 1, number, 0.0) for number in range(5000)]
    assert 400 < fates.count(Dropped("loss")) < 600


@pytest.mark.parametrize(("loss", "fate"), [(0, Delivered()), (1, Dropped("loss"))])
def test_none_or_all_are_lost(loss: int, fate: object) -> None:
    assert {Faults.of({"loss": loss}).fate(0, 1, number, 0.0) for number in range(500)} == {fate}


def test_delays_are_those_of_the_distribution() -> None:
    assert {*delays(0.25)} == {0.25}
    uniform = delays({"distribution": "uniform", "least": 1, "most": 3})
    assert all(1 <= delay < 3 for delay in uniform)
    assert 1.9 < fmean(uniform) < 2.1
    exponential = delays({"distribution": "exponential", "mean": 3, "least": 1})
    assert min(exponential) >= 1
    assert 2.8 < fmean(exponential) < 3.2
    assert 0.3 < sum(delay > 3 for delay in exponential) / len(exponential) < 0.44  # 1 / e
    assert max(delays({"distribution": "exponential", "mean": 3600})) == LONGEST


def test_a_partition_keeps_sides_from_each_other_while_it_lasts() -> None:
    faults = Faults.of({"partitions": [{"sides": [[0, 1, 2], [3, 4]], "from": 10, "until": 20}]})
    parted, there = Dropped("partition"), Delivered()
    for moment, expected in ((9.9, there), (10.0, parted), (19.9, parted), (20.0, there)):
        assert faults.fate(0, 3, 0, moment) == expected
        assert faults.fate(3, 0, 0, moment) == expected
        assert faults.fate(0, 2, 0, moment) == there
    assert faults.fate(5, 6, 0, 15.0) == there  # whom no side names
    assert faults.fate(5, 0, 0, 15.0) == parted
    assert faults.fate(3, 6, 0, 15.0) == parted


def test_a_partition_without_an_end_never_heals() -> None:
    assert Faults.of(FOREVER).fate(0, 1, 0, 1e9) == Dropped("partition")


def test_several_partitions_add_up() -> None:
    faults = Faults.of({"partitions": [{"sides": [[0, 1]]}, {"sides": [[0]], "from": 5}]})
    assert faults.fate(0, 1, 0, 4.0) == Delivered()
    assert faults.fate(0, 1, 0, 5.0) == Dropped("partition")
    assert faults.fate(0, 2, 0, 4.0) == Dropped("partition")


def test_a_seed_gives_the_same_faults_in_whatever_order_and_at_whatever_time() -> None:
    names = [(a, b, number) for a in range(3) for b in range(3) for number in range(50)]
    faults = Faults.of({**EVERYTHING, "partitions": []})
    first = {name: faults.fate(*name, 0.0) for name in names}
    random.Random(1).shuffle(names)
    again = Faults.of(json.loads(json.dumps(faults.form())))
    assert {name: again.fate(*name, 1e6) for name in names} == first
    other = Faults.of({**EVERYTHING, "partitions": [], "seed": 8})
    assert {name: other.fate(*name, 0.0) for name in names} != first
    assert [first[0, 1, number] for number in range(50)] != [
        first[1, 0, number] for number in range(50)
    ]


def test_faults_of_a_seed_are_the_same_in_every_version() -> None:
    faults = Faults.of({"seed": 7, "loss": 0.5})
    lost = [number for number in range(12) if faults.fate(0, 1, number, 0.0) == Dropped("loss")]
    assert lost == [1, 2, 7, 10, 11]


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "seed": st.integers(0, 2**63 - 1),
            "loss": st.floats(0, 1),
            "delay": st.floats(0, 3600),
        },
    )
)
def test_the_form_of_faults_is_what_they_are_made_of(form: dict[str, Any]) -> None:
    faults = Faults.of(form)
    assert Faults.of(json.loads(json.dumps(faults.form()))) == faults
    assert Faults.of(EVERYTHING).form() == EVERYTHING


@pytest.mark.parametrize(
    ("form", "words"),
    [
        (None, "faults: expected `object`, got `null`"),
        ([], "faults: expected `object`, got `array`"),
        ("loss", "faults: expected `object`, got `str`"),
        ({"los": 1}, "faults: object contains unknown field `los`"),
        ({"seed": -1}, "faults.seed: expected `int` >= 0"),
        ({"seed": 1.5}, "faults.seed: expected `int`, got `float`"),
        ({"seed": 2**63}, "faults.seed: "),
        ({"loss": 1.1}, "faults.loss: expected `float` <= 1.0"),
        ({"loss": -0.1}, "faults.loss: expected `float` >= 0.0"),
        ({"loss": float("nan")}, "faults.loss: "),
        ({"loss": True}, "faults.loss: expected `float`, got `bool`"),
        ({"loss": "0.1"}, "faults.loss: expected `float`, got `str`"),
        ({"delay": -1}, "faults.delay: expected `float` >= 0.0"),
        ({"delay": float("inf")}, "faults.delay: expected `float` <= 3600.0"),
        ({"delay": 4000}, "faults.delay: expected `float` <= 3600.0"),
        ({"delay": []}, "faults.delay: "),
        ({"delay": {"least": 1}}, "faults.delay: object missing required field `distribution`"),
        ({"delay": {"distribution": "gauss"}}, "faults.delay.distribution: invalid value 'gauss'"),
        ({"delay": {"distribution": "uniform", "least": 1}}, "missing required field `most`"),
        ({"delay": {"distribution": "uniform", "least": 2, "most": 1}}, "faults.delay.most: 1 is"),
        ({"delay": {"distribution": "exponential", "mean": 1, "least": 2}}, "faults.delay.mean: 1"),
        ({"delay": {"distribution": "exponential", "mean": 1, "x": 2}}, "unknown field `x`"),
        ({"partitions": {}}, "faults.partitions: expected `array`"),
        ({"partitions": [{}]}, r"faults.partitions\[0\]: object missing required field `sides`"),
        ({"partitions": [{"sides": []}]}, r"faults.partitions\[0\].sides: expected `array` of"),
        ({"partitions": [{"sides": [[]]}]}, r"faults.partitions\[0\].sides\[0\]: expected"),
        ({"partitions": [{"sides": [[-1]]}]}, r"sides\[0\]\[0\]: expected `int` >= 0"),
        ({"partitions": [{"sides": [["a"]]}]}, r"sides\[0\]\[0\]: expected `int`, got `str`"),
        ({"partitions": [{"sides": [[1], [2, 1]]}]}, r"sides\[1\]: rank 1 is there twice"),
        ({"partitions": [{"sides": [[1]], "from": -1}]}, r"partitions\[0\].from: expected"),
        ({"partitions": [{"sides": [[1]], "from": 5, "until": 5}]}, "until: 5 is not after `from`"),
        ({"partitions": [{"sides": [[1]], "until": float("inf")}]}, "until: expected"),
        ({"partitions": [FOREVER["partitions"][0]] * 1001}, "faults.partitions: expected `array`"),
        ({1: 2}, "faults: expected `str`"),
    ],
)
def test_what_describes_no_faults_is_refused_with_its_field(form: Any, words: str) -> None:
    with pytest.raises(InvalidFaults, match=words):
        Faults.of(form)
