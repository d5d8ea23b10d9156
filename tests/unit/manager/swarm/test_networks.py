"""Who may talk to whom in a network."""

from __future__ import annotations

import pytest

from manta.actors import Refused
from manta.manager.placement.validity import flaws
from manta.manager.swarm.reads.exchange import check_peer
from manta.protocol.exchange import (
    Broadcasted,
    ReadBroadcast,
    ReadContributions,
    ReadMessage,
    Receiving,
    Sent,
)
from manta.protocol.spec import NetworkSpec
from tests.unit.manager.swarm.test_exchange import given_values, read, worker


def ring(bench, make, **changes):
    network = NetworkSpec("ring", "ring")
    return bench(make.task("worker", network="ring"), networks=(network,), nodes=4, **changes)


def test_only_neighbors_may_talk(bench, make):
    b = ring(bench, make)
    one = worker(b, 0)
    for node in ("id2", "id4", "id1"):
        check_peer(b.machine, one, node, "x")
    with pytest.raises(Refused, match=r"worker.0 may not talk to node-3.*ring"):
        check_peer(b.machine, one, "id3", "node-3")
    b.say(one, Sent(one, "id3", "t", make.value("no")), Sent(one, "id2", "t", make.value("yes")))
    three, two = worker(b, 2), worker(b, 1)
    b.say(three, Receiving(three, "id1", "t"))
    b.say(two, Receiving(two, "id1", "t"))
    assert not read(b, ReadMessage(three, "id1", "t", 0)).ready
    assert given_values(b, ReadMessage(two, "id1", "t", 0)) == ["yes"]
    assert any("dropped" in sentence for sentence in b.sentences("ignored"))


def test_a_broadcast_reaches_neighbors_only(bench, make):
    b = ring(bench, make)
    one = worker(b, 0)
    b.say(one, Broadcasted(one, "t", make.value("hello")))
    assert given_values(b, ReadBroadcast(worker(b, 3), "t")) == ["hello"]
    assert not read(b, ReadBroadcast(worker(b, 2), "t")).ready


def test_star_and_edges(bench, make):
    networks = NetworkSpec("star", "star"), NetworkSpec("pairs", "edges", (("node-1", "id2"),))
    b = bench(
        make.task("hub", method="any", network="star"),
        make.task("worker", network="star"),
        make.task("pair", network="pairs"),
        networks=networks,
        nodes=3,
    )
    check_peer(b.machine, worker(b, 2), "id1", "node-1")
    with pytest.raises(Refused):
        check_peer(b.machine, worker(b, 2), "id2", "node-2")
    pair = b.running("pair")
    check_peer(b.machine, pair[1], "id1", "node-1")
    with pytest.raises(Refused):
        check_peer(b.machine, pair[0], "id3", "node-3")
    never = read(b, ReadContributions(pair[0], 0, "barrier"))
    assert never.error == "CollectiveError"
    assert "add edges" in never.sentence
    assert not read(b, ReadContributions(worker(b, 0), 0, "barrier")).error


@pytest.mark.parametrize(
    ("networks", "network", "words"),
    [
        ((), "ring", "which the swarm does not have (it has none)"),
        ((NetworkSpec("r", "rng"),), "r", "use full, ring, star, torus or edges"),
        ((NetworkSpec("r", "ring"), NetworkSpec("r", "full")), "r", "described twice"),
        ((NetworkSpec("r", "edges"),), "r", "give edges"),
        ((NetworkSpec("r", "edges", (("a", "a"),)),), "r", "to itself"),
    ],
)
def test_a_network_that_cannot_be_is_refused(make, networks, network, words):
    spec = make.spec(make.task("worker", network=network), networks=networks)
    assert any(words in flaw for flaw in flaws(spec))
