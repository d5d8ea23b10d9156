from __future__ import annotations

import pytest

from manta.protocol.roster import RosterInstance
from manta.protocol.spec import NetworkSpec
from manta.protocol.states import AttemptState
from manta.roster.networks import is_connected, neighbors


def on(*nodes: str) -> list[RosterInstance]:
    return [
        RosterInstance(rank, node, f"alias-{node}", 0, AttemptState.RUNNING)
        for rank, node in enumerate(nodes)
    ]


@pytest.mark.parametrize(
    ("topology", "expected"),
    [
        ("full", {"a", "b", "c", "d", "e", "f"}),
        ("ring", {"f", "a", "b"}),
        ("star", {"a", "b", "c", "d", "e", "f"}),
        ("torus", {"a", "b", "c", "d"}),
    ],
)
def test_neighbors_are_by_rank_in_the_network(topology: str, expected: set[str]) -> None:
    all_ = on("a", "b", "c", "d", "e", "f")
    assert neighbors(NetworkSpec("n", topology), all_[0], all_) == expected
    assert is_connected(NetworkSpec("n", topology), all_, all_)


@pytest.mark.parametrize("topology", ["full", "ring", "star", "torus"])
def test_who_is_alone_hears_itself(topology: str) -> None:
    all_ = on("a")
    assert neighbors(NetworkSpec("n", topology), all_[0], all_) == {"a"}


def test_instances_on_one_node_hear_each_other_and_what_is_beside_either() -> None:
    all_ = on("a", "a", "b", "c", "d")
    spec = NetworkSpec("n", "ring")
    assert neighbors(spec, all_[1], all_) == {"a", "b"}
    assert neighbors(spec, all_[2], all_) == {"a", "b", "c"}


def test_edges_name_nodes_by_id_or_alias() -> None:
    all_ = on("a", "b", "c")
    spec = NetworkSpec("n", "edges", (("a", "alias-c"),))
    assert neighbors(spec, all_[2], all_) == {"a", "c"}
    assert neighbors(spec, all_[1], all_) == {"b"}
    assert not is_connected(spec, all_, all_)
    assert is_connected(spec, all_, [all_[0], all_[2]])
