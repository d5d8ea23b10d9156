"""Every record goes to one node, as a scheme says, and a node without any is told of."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manta.apis.errors import InvalidArgument
from manta.federated import partition
from manta.federated.partition import EmptyShard

LABELS = np.repeat(np.arange(10), 100)


def test_examples_come_out_as_they_say() -> None:
    assert doctest.testmod(partition).failed == 0
    schemes = ("iid", "dirichlet", "shards", "quantity", "by_id", "by_time")
    assert all(">>> " in (getattr(partition, name).__doc__ or "") for name in schemes)


def schemes(seed: int, nodes: int = 5):
    return {
        "iid": partition.iid(1000, nodes, seed=seed),
        "dirichlet": partition.dirichlet(LABELS, nodes, alpha=1.0, seed=seed),
        "shards": partition.shards(LABELS, nodes, seed=seed),
        "quantity": partition.quantity(1000, nodes, alpha=5.0, seed=seed),
        "by_id": partition.by_id([f"id-{n % 13}" for n in range(1000)], nodes, seed=seed),
        "by_time": partition.by_time(np.random.default_rng(seed).normal(size=1000), nodes),
    }


@given(st.integers(0, 50))
def test_every_record_goes_to_one_node(seed: int) -> None:
    for found in schemes(seed).values():
        assert len(found) == 5
        assert sorted(np.concatenate(found).tolist()) == list(range(1000))
        assert all((np.diff(shard) > 0).all() for shard in found)


def test_the_seed_decides() -> None:
    for name, found in schemes(1).items():
        again, other = schemes(1)[name], schemes(2)[name]
        assert all((a == b).all() for a, b in zip(found, again, strict=True))
        assert name == "by_time" or any(
            a.tolist() != b.tolist() for a, b in zip(found, other, strict=True)
        )


def labels_held(found) -> float:
    """How many labels a node has at least ten records of, on average."""
    return float(np.mean([(np.bincount(LABELS[s], minlength=10) >= 10).sum() for s in found]))


def test_a_smaller_alpha_is_more_skewed() -> None:
    skews = [
        labels_held(partition.dirichlet(LABELS, 5, alpha=alpha, seed=3))
        for alpha in (0.05, 0.5, 100.0)
    ]
    assert skews == sorted(skews)
    assert skews[0] < 4
    assert skews[-1] == 10
    sizes = [len(s) for s in partition.quantity(1000, 5, alpha=0.5, seed=1)]
    even = [len(s) for s in partition.quantity(1000, 5, alpha=1000.0, seed=1)]
    assert max(sizes) - min(sizes) > max(even) - min(even)


def test_shards_have_few_labels() -> None:
    found = partition.shards(LABELS, 5, per_node=2, seed=1)
    assert all(len(set(LABELS[s])) <= 4 for s in found)
    assert [len(s) for s in found] == [200] * 5


def test_ids_are_not_divided() -> None:
    ids = np.array([f"h{n % 7}" for n in range(1000)])
    assert [set(ids[s]) for s in partition.by_id(ids)] == [{f"h{n}"} for n in range(7)]
    dealt = partition.by_id(ids, 3)
    held = [set(ids[s]) for s in dealt]
    assert sum(map(len, held)) == 7
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 143


def test_time_passes_from_node_to_node() -> None:
    times = np.array(["2024-05-01", "2023-01-01", "2024-01-01", "2022-01-01"], "datetime64[D]")
    assert [s.tolist() for s in partition.by_time(times, 2)] == [[1, 3], [0, 2]]


@pytest.mark.parametrize(
    "make",
    [
        lambda: partition.iid(3, 5),
        lambda: partition.dirichlet([0, 0, 0, 1], 4, alpha=0.01),
        lambda: partition.shards([0, 1], 3),
        lambda: partition.quantity(10, 9, alpha=0.01),
        lambda: partition.by_id(["a", "b"], 3),
        lambda: partition.by_time([1, 2], 3),
        lambda: partition.dirichlet(LABELS, 5, alpha=0.1, minimum=500),
    ],
)
def test_an_empty_shard_is_told_of_with_a_remedy(make) -> None:
    with pytest.raises(EmptyShard, match=r"of \d+ nodes have (no record|fewer than 500).*: try "):
        make()


@pytest.mark.parametrize(
    "make",
    [
        lambda: partition.iid(10, 0),
        lambda: partition.iid(10, 2.0),  # type: ignore[arg-type]
        lambda: partition.dirichlet(LABELS, 2, alpha=0),
        lambda: partition.dirichlet(LABELS.reshape(10, 100), 2, alpha=1),
        lambda: partition.dirichlet([], 2, alpha=1),
        lambda: partition.by_id([None, object()]),
        lambda: partition.by_time([1.0, float("nan")], 1),
        lambda: partition.shards(LABELS, 2, per_node=0),
    ],
)
def test_wrong_arguments_are_refused(make) -> None:
    with pytest.raises(InvalidArgument):
        make()
