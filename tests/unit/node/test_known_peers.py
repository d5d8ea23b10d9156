"""Who may speak to a node, and of what."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from manta.node.peers.book import PeersAnew
from manta.node.peers.directory import DirectoryChanged, DirectoryOver
from manta.node.peers.known import KnownPeers
from manta.protocol.peers import Departed, Peer

ONE, TWO = (Peer(f"n{number}", f"node-{number}", f"key-{number}") for number in (1, 2))


def gone(peer: Peer, why: str) -> Departed:
    return Departed(peer.node_id, peer.alias, peer.key, why)


def known() -> KnownPeers:
    peers = KnownPeers()
    for swarm_id in ("s", "t"):
        assert peers.apply(DirectoryChanged(swarm_id, "", True, (ONE, TWO))) == []
    return peers


def test_a_key_speaks_of_the_swarms_in_which_it_has_a_part() -> None:
    peers = known()
    peers.apply(DirectoryChanged("u", "e", True, (ONE,)))
    assert peers.peer("s", "key-2") == peers.node("s", "n2") == TWO
    assert peers.peer("u", "key-2") is None
    assert peers.peer("s", "a stranger's") is None
    assert not peers.is_known("a stranger's")
    assert (peers.epoch("u"), peers.epoch("v")) == ("e", None)
    assert peers.keys == ("key-1", "key-2")
    assert (set(peers.spoken("key-1")), set(peers.spoken("key-2"))) == (set("stu"), set("st"))
    assert list(peers.spoken("a stranger's")) == []


def test_whose_swarms_are_shared_with_whom() -> None:
    peers = known()
    three = Peer("n3", "node-3", "key-3")
    peers.apply(DirectoryChanged("u", "e", True, (ONE, three)))
    assert peers.share("key-1", "key-2")
    assert peers.share("key-3", "key-1")
    assert not peers.share("key-2", "key-3")
    assert not peers.share("key-1", "a stranger's")
    assert peers.beside("key-1") == [TWO, three]
    assert peers.beside("key-3") == [ONE]
    assert peers.beside("a stranger's") == []


def test_who_is_lost_in_one_swarm_still_speaks_of_others() -> None:
    peers = known()
    lost = gone(TWO, "lost")
    assert peers.apply(DirectoryChanged("s", "", False, (), (lost,))) == []
    assert peers.peer("s", "key-2") is None
    assert peers.departed("s", "n2") == lost
    assert peers.peer("t", "key-2") == TWO
    assert peers.apply(DirectoryChanged("t", "", False, (), (lost,))) == ["key-2"]
    assert peers.apply(DirectoryChanged("s", "", False, (TWO,))) == []
    assert peers.departed("s", "n2") is None


def test_who_is_revoked_speaks_of_nothing_any_more() -> None:
    peers = known()
    revoked = gone(TWO, "revoked")
    assert peers.apply(DirectoryChanged("s", "", False, (), (revoked,))) == ["key-2"]
    assert peers.peer("t", "key-2") is None
    assert peers.departed("t", "n2") == revoked
    assert peers.apply(DirectoryChanged("t", "", False, (), (revoked,))) == []


def test_what_is_over_or_begins_anew_is_forgotten() -> None:
    peers = known()
    assert peers.apply(DirectoryOver("t")) == []
    assert peers.apply(DirectoryChanged("s", "restored", True, (ONE,))) == ["key-2"]
    assert peers.apply(DirectoryOver("s")) == ["key-1"]
    assert peers.apply(DirectoryOver("s")) == []
    assert peers.keys == ()


def test_all_that_is_told_anew_replaces_all() -> None:
    peers = known()
    anew = PeersAnew((DirectoryChanged("u", "", True, (ONE,)),), ())
    assert peers.apply(anew) == ["key-2"]
    assert peers.epoch("s") is None
    assert peers.peer("u", "key-1") == ONE


def test_a_node_with_another_key_speaks_with_that_alone() -> None:
    peers = known()
    peers.apply(DirectoryOver("t"))
    anew = Peer("n2", "node-2", "key-3")
    assert peers.apply(DirectoryChanged("s", "", False, (anew,))) == ["key-2"]
    assert peers.peer("s", "key-3") == anew


numbers = st.integers(1, 3)


@given(
    st.lists(
        st.tuples(
            st.sampled_from("st"),
            st.booleans(),
            st.frozensets(numbers),
            st.dictionaries(numbers, st.sampled_from(["lost", "revoked", "over"])),
        ),
        max_size=20,
    )
)
def test_the_ways_to_ask_agree(steps) -> None:
    peers, model = KnownPeers(), dict[str, set[int]]()
    for swarm_id, began, new, left in steps:
        gone = tuple(Departed(f"n{i}", "", f"k{i}", why) for i, why in left.items() if i not in new)
        told = tuple(Peer(f"n{i}", "", f"k{i}") for i in new)
        before = set(peers.keys)
        cut = peers.apply(DirectoryChanged(swarm_id, "", began, told, gone))
        model[swarm_id] = set(() if began else model.get(swarm_id, ())) - left.keys()
        for i, why in left.items():
            if why == "revoked" and i not in new:
                for members in model.values():
                    members.discard(i)
        model[swarm_id] |= new
        assert set(cut) == before - set(peers.keys)
        for at, members in model.items():
            for i in range(1, 4):
                found = peers.peer(at, f"k{i}")
                assert (found is not None) == (i in members)
                assert found == peers.node(at, f"n{i}")
        assert set(peers.keys) == {f"k{i}" for members in model.values() for i in members}


def test_a_node_is_found_by_id_or_alias_where_one_alone_has_it() -> None:
    peers = known()
    assert [peers.named("s", name) for name in ("n1", "node-2", "node-3")] == ["n1", "n2", None]
    assert peers.named("u", "n1") is None
    peers.apply(DirectoryChanged("s", "", False, (Peer("n3", "node-2", "key-3"),)))
    assert peers.named("s", "node-2") is None
