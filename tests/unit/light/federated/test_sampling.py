"""Clients are drawn by seed, in proportion, whatever the order in which they are given."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manta.light.federated import sample_by_availability, sample_by_size, sample_uniform
from manta.light.federated.errors import TooFewClients

names = st.sets(st.text(max_size=5), min_size=1, max_size=20)


@given(names, st.integers(), st.data())
def test_a_sample_does_not_depend_on_the_order(clients, seed, data) -> None:
    seed %= 2**53
    count = data.draw(st.integers(1, len(clients)))
    ordered = sorted(clients)
    drawn = sample_uniform(ordered, count, seed=seed)
    assert drawn == sample_uniform(
        random.Random(seed).sample(ordered, len(ordered)), count, seed=seed
    )
    assert len(set(drawn)) == count
    assert set(drawn) <= clients
    assert drawn == sample_by_size(dict.fromkeys(clients, 1), count, seed=seed)


@given(names, st.integers(0, 100))
def test_a_client_that_leaves_takes_one_place_at_most(clients, seed) -> None:
    count = max(1, len(clients) // 2)
    before = set(sample_uniform(clients, count, seed=seed))
    left = clients - {min(clients)}
    if len(left) >= count:
        assert len(before - set(sample_uniform(left, count, seed=seed))) <= 1


def frequencies(draw) -> Counter[str]:
    found: Counter[str] = Counter()
    for iteration in range(4000):
        found.update(draw(iteration))
    return found


def test_chances_are_in_proportion() -> None:
    even = frequencies(lambda i: sample_uniform("abcd", 2, seed=1, iteration=i))
    assert all(abs(even[name] - 2000) < 150 for name in "abcd")
    sizes = {"a": 1, "b": 3, "c": 0, "d": 4}
    by_size = frequencies(lambda i: sample_by_size(sizes, 1, seed=2, iteration=i))
    assert all(abs(by_size[name] - 500 * size) < 150 for name, size in sizes.items())
    up = {"a": 1.0, "b": 0.5, "c": 0.0, "d": True}
    by_chance = frequencies(lambda i: sample_by_availability(up, 1, seed=3, iteration=i))
    assert all(abs(by_chance[name] - 1600 * chance) < 150 for name, chance in up.items())


@pytest.mark.parametrize(
    "draw",
    [
        lambda: sample_uniform(["a"], 2, seed=0),
        lambda: sample_uniform([], 1, seed=0),
        lambda: sample_by_size({"a": 5, "b": 0}, 2, seed=0),
        lambda: sample_by_availability({"a": False}, 1, seed=0),
    ],
)
def test_more_than_there_are_cannot_be_drawn(draw) -> None:
    with pytest.raises(TooFewClients, match="are to be drawn, and there are"):
        draw()


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="size of client 'a' is -1"):
        sample_by_size({"a": -1}, 1, seed=0)
    with pytest.raises(ValueError, match=r"availability of client 'a' is 1\.5"):
        sample_by_availability({"a": 1.5}, 1, seed=0)
    with pytest.raises(ValueError, match="count is 0"):
        sample_uniform(["a"], 0, seed=0)
    with pytest.raises(TypeError, match="seed is an int"):
        sample_uniform(["a"], 1, seed=0.5)  # type: ignore[arg-type]
