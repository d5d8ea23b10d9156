from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manta.roster.chance import chance
from manta.roster.topologies import InvalidTopology, Topology, grid, random_regular

ROOT = Path(__file__).parents[3]
TEXTS = ["full", "ring", "star", "torus", "random-regular", "random-regular:3:7"]


EIGHT = ((1, 5, 6), (0, 2, 4), (1, 4, 7), (5, 6, 7), (1, 2, 7), (0, 3, 6), (0, 3, 5), (2, 3, 4))


def all_neighbors(text: object, size: int) -> list[tuple[int, ...]]:
    topology = Topology.of(text)
    return [topology.neighbors(rank, size) for rank in range(size)]


@pytest.mark.parametrize(
    ("text", "size", "expected"),
    [
        ("full", 3, [(1, 2), (0, 2), (0, 1)]),
        ("ring", 4, [(1, 3), (0, 2), (1, 3), (0, 2)]),
        ("ring", 2, [(1,), (0,)]),
        ("star", 4, [(1, 2, 3), (0,), (0,), (0,)]),
        ("torus", 6, [(1, 2, 3), (0, 2, 4), (0, 1, 5), (0, 4, 5), (1, 3, 5), (2, 3, 4)]),
        ([(0, 1), (2, 1), [1, 0]], 4, [(1,), (0, 2), (1,), ()]),
    ],
)
def test_neighbors_are_those_of_the_topology(text: object, size: int, expected: Any) -> None:
    assert all_neighbors(text, size) == expected


def test_a_torus_has_four_neighbors_each_across_its_sides() -> None:
    assert grid(12) == (3, 4)
    assert Topology.of("torus").neighbors(0, 12) == (1, 3, 4, 8)
    assert all(len(found) == 4 for found in all_neighbors("torus", 12))


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 13, 97])
def test_a_torus_of_a_prime_size_is_a_ring(size: int) -> None:
    assert all_neighbors("torus", size) == all_neighbors("ring", size)


@given(st.sampled_from(TEXTS), st.integers(1, 60))
def test_neighbors_are_mutual_distinct_others_and_connected(text: str, size: int) -> None:
    topology = Topology.of(text)
    found = all_neighbors(text, size)
    reached, todo = {0}, [0]
    while todo:
        new = {*found[todo.pop()]} - reached
        reached |= new
        todo += new
    assert len(reached) == size
    assert topology.is_connected(size)
    for rank, others in enumerate(found):
        assert rank not in others
        assert list(others) == sorted({*others})
        assert all(rank in found[other] for other in others)
    links = topology.links(size)
    assert len(links) == sum(map(len, found)) // 2
    assert links == sorted({*links})


@given(st.integers(1, 40), st.integers(2, 12), st.integers(0, 10**17))
def test_a_random_regular_graph_has_the_degree(size: int, degree: int, seed: int) -> None:
    found = all_neighbors(f"random-regular:{degree}:{seed}", size)
    degrees = sorted(map(len, found))
    if size <= degree + 1:
        assert found == all_neighbors("full", size)
    else:  # where size and degree are both odd, one has a neighbor fewer
        assert degrees == [degree - size * degree % 2, *[degree] * (size - 1)]


def test_a_dense_random_regular_graph_has_the_degree_too() -> None:
    degrees = sorted(map(len, random_regular(19, 17, 1)))
    assert degrees == [16, *[17] * 18]


def test_seeds_give_different_graphs_and_each_always_the_same() -> None:
    first, second = (all_neighbors(f"random-regular:4:{seed}", 30) for seed in (1, 2))
    assert first != second
    random_regular.cache_clear()
    assert all_neighbors("random-regular:4:1", 30) == first


def test_a_random_regular_graph_is_the_same_in_every_process() -> None:
    """Sets and dictionaries hash otherwise there. The numbers hold across versions: peers of a
    mesh, which need not run the same one, have to agree."""
    program = "from manta.roster.topologies import random_regular; print(random_regular(8, 3, 5))"
    other = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONHASHSEED": "77", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert other.stdout.strip() == str(random_regular(8, 3, 5)) == str(EIGHT)


@pytest.mark.parametrize("text", [*TEXTS[:4], "random-regular:3:7"])
def test_the_text_of_a_topology_is_that_topology(text: str) -> None:
    assert str(Topology.of(text)) == text
    assert Topology.of(str(Topology.of("random-regular"))) == Topology.of("random-regular:4:0")


def test_pairs_may_leave_members_apart() -> None:
    pairs = Topology.of([(0, 1), (2, 3)])
    assert not pairs.is_connected(4)
    assert pairs.is_connected(2)
    assert pairs.neighbors(2, 3) == ()
    assert not pairs.is_connected(3)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("", "The topology is '': give"),
        ("Ring", '\'Ring\': give "full", "ring"'),
        ("edges", "'edges': give"),
        ("random-regular:", "'random-regular:': give"),
        ("random-regular:1", "degrees go from 2 to 32"),
        ("random-regular:33", "degrees go from 2 to 32"),
        ("random-regular:9999", "degrees go from 2 to 32"),
        ("random-regular:4:-1", "give"),
        ("random-regular:٤", "give"),
        ("x" * 1000, r"'x{56}\.\.\.: give"),
        (None, "The topology is None: give"),
        (3, "The topology is 3: give"),
        (b"ring", "b'ring': give"),
        ([], "no pairs"),
        ({}, "no pairs"),
        ([1], "1 is no pair of ranks"),
        (["01"], "'01' is no pair of ranks"),
        ([(0, 1, 2)], "no pair of ranks"),
        ([(0, -1)], "-1 in the pair .* is no rank: count from 0"),
        ([(0, True)], "True in the pair"),
        ([(0, 1.0)], "1.0 in the pair"),
        ([("a", "b")], "'a' in the pair"),
        ([(2, 2)], "joins a rank to itself"),
    ],
)
def test_what_is_no_topology_is_refused(given: Any, words: str) -> None:
    with pytest.raises(InvalidTopology, match=words):
        Topology.of(given)


@pytest.mark.parametrize(("rank", "size"), [(3, 3), (-1, 3), (0, 0)])
@pytest.mark.parametrize("text", [*TEXTS, [(0, 1)]])
def test_a_rank_that_is_not_there_has_no_neighbors(text: object, rank: int, size: int) -> None:
    with pytest.raises(ValueError, match=f"no rank {rank} among {size}"):
        Topology.of(text).neighbors(rank, size)


def test_nobody_has_no_links() -> None:
    assert Topology.of("full").links(0) == []
    assert Topology.of([(0, 1)]).is_connected(0)


def test_chance_is_uniform_and_by_name() -> None:
    drawn = [chance("a", number) for number in range(2000)]
    assert all(0 <= one < 1 for one in drawn)
    tenths = [sum(tenth <= 10 * one < tenth + 1 for one in drawn) for tenth in range(10)]
    assert all(150 <= count <= 250 for count in tenths)
    assert len({*drawn}) == 2000
    assert chance("a", 1) == drawn[1] != chance("a", "b")
