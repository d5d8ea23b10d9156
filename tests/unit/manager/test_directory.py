from __future__ import annotations

import pytest

from manta.actors import Refused
from manta.manager.directory import Directory, SwarmEntry
from manta.manager.store.records import ClusterRecord, NodeRecord
from manta.protocol.codes import Code

DIRECTORY = Directory(
    [ClusterRecord("abc1", "lab", "u", 0.0), ClusterRecord("abd2", "home", "u", 0.0)],
    [
        NodeRecord("11aa", "abc1", "node-1", "k1", 0.0),
        NodeRecord("12bb", "abc1", "node-2", "k2", 0.0),
        NodeRecord("13cc", "abd2", "node-1", "k3", 0.0),
    ],
    [SwarmEntry("s1", "fl", "abc1"), SwarmEntry("s2", "fl", "abc1"), SwarmEntry("t3", "x", "abd2")],
)


def refusal(call: object, *arguments: object) -> Refused:
    assert callable(call)
    with pytest.raises(Refused) as caught:
        call(*arguments)
    return caught.value


@pytest.mark.parametrize("name", ["abc1", "abc", "lab"])
def test_a_cluster_is_known_by_id_prefix_and_name(name: str) -> None:
    assert DIRECTORY.cluster(name).id == "abc1"


def test_a_node_is_known_by_alias_where_that_is_enough() -> None:
    assert DIRECTORY.node("node-2").id == "12bb"
    assert DIRECTORY.node("node-1", "home").id == "13cc"
    assert DIRECTORY.node("13").id == "13cc"
    no = refusal(DIRECTORY.node, "node-1")
    assert no.code == Code.AMBIGUOUS
    assert no.data == {"ids": ["11aa", "13cc"]}
    assert "11aa, 13cc" in no.sentence


def test_a_swarm_is_known_by_its_name_if_it_is_the_only_one() -> None:
    assert DIRECTORY.swarm("x").id == DIRECTORY.swarm("t").id == "t3"
    assert refusal(DIRECTORY.swarm, "fl").code == Code.AMBIGUOUS


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (DIRECTORY.cluster, Code.UNKNOWN_CLUSTER),
        (DIRECTORY.node, Code.UNKNOWN_NODE),
        (DIRECTORY.swarm, Code.UNKNOWN_SWARM),
    ],
)
@pytest.mark.parametrize("name", ["nobody", ""])
def test_what_is_unknown_is_said_to_be(call: object, code: Code, name: str) -> None:
    no = refusal(call, name)
    assert no.code == code
    assert f"{name!r}" in no.sentence
    assert "`manta " in no.sentence


def test_an_alias_is_unique_in_its_cluster() -> None:
    assert refusal(DIRECTORY.check_alias, "node-1", "abc1").code == Code.ALIAS_TAKEN
    DIRECTORY.check_alias("node-1", "abc1", node_id="11aa")
    DIRECTORY.check_alias("node-2", "abd2")


def test_a_clusters_name_is_unique() -> None:
    assert refusal(DIRECTORY.check_cluster_name, "lab").code == Code.NAME_TAKEN
    assert refusal(DIRECTORY.check_cluster_name, "abc1").code == Code.NAME_TAKEN
    DIRECTORY.check_cluster_name("new")


def test_what_somebody_does_not_see_is_not_found_and_costs_no_copy_of_the_tables() -> None:
    asked: list[str] = []

    def sees(cluster_id: str) -> bool:
        asked.append(cluster_id)
        return cluster_id == "abd2"

    seen = DIRECTORY.within(sees)
    assert not asked
    assert seen.swarms is DIRECTORY.swarms
    assert seen.node("13cc").id == "13cc"
    assert asked == ["abd2"]
    assert seen.node("node-1").id == "13cc"  # the other node of that alias is not seen
    assert seen.cluster("ab").id == "abd2"
    for find, name in ((seen.cluster, "lab"), (seen.node, "11aa"), (seen.swarm, "s1")):
        assert refusal(find, name).code in (
            Code.UNKNOWN_CLUSTER,
            Code.UNKNOWN_NODE,
            Code.UNKNOWN_SWARM,
        )
    assert refusal(seen.node, "node-1", "lab").code == Code.UNKNOWN_CLUSTER
    assert DIRECTORY.node("11aa").id == "11aa"


def test_what_was_meant_is_named_if_the_user_may_see_it() -> None:
    part = DIRECTORY.within(lambda cluster_id: cluster_id == "abc1")
    for call, name, meant in (
        (DIRECTORY.cluster, "hom", "home"),
        (DIRECTORY.node, "nod-2", "node-2"),
        (part.cluster, "labb", "lab"),
    ):
        assert refusal(call, name).sentence.endswith(f" Did you mean {meant!r}?")
    assert "mean" not in refusal(part.cluster, "hom").sentence
    assert refusal(DIRECTORY.check_nodes, ["nod-2"], "abc1").sentence == (
        "There is no node 'nod-2' in this cluster; there are node-1 (11aa), node-2 (12bb). "
        "Did you mean 'node-2'?"
    )
    assert "node-2" not in refusal(DIRECTORY.check_nodes, ["nod-2"], "abd2").sentence[20:]
