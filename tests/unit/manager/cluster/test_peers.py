"""Which nodes are told of which, and that they all end up with what they should have."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from manta.manager.cluster.peers import MOST_DEPARTED, Directories, Known
from manta.protocol.peers import Peer, PeersChanged

HERE, THERE = "127.0.0.1", "10.0.0.9"


def node(number: int, *addresses: str, seen_at: str = "") -> Known:
    found = addresses or (f"tcp://10.0.0.{number}:70",)
    return Known(f"n{number}", f"node-{number}", f"key-{number}", found, seen_at)


def cluster(count: int = 3, **options) -> Directories:
    directories = Directories(**options)
    for number in range(1, count + 1):
        directories.here(node(number))
    directories.begins("s", "")
    return directories


def placed(directories: Directories, *numbers: int, iteration: int = 0, swarm: str = "s") -> dict:
    for number in numbers:
        directories.assigned(swarm, f"n{number}", iteration)
    return told(directories)


def told(directories: Directories) -> dict[str, PeersChanged]:
    news = directories.flush()
    assert len({(node_id, change.swarm_id) for node_id, change in news}) == len(news)
    return dict(news)


def named(change: PeersChanged) -> set[str]:
    return {peer.node_id for peer in change.peers}


def test_those_that_are_placed_are_told_of_each_other_and_nobody_else_is() -> None:
    directories = cluster(3)
    news = placed(directories, 1, 2)
    assert set(news) == {"n1", "n2"}
    assert news["n1"] == PeersChanged(
        "s",
        "",
        1,
        0,
        (
            Peer("n1", "node-1", "key-1", ("tcp://10.0.0.1:70",)),
            Peer("n2", "node-2", "key-2", ("tcp://10.0.0.2:70",)),
        ),
    )
    assert directories.versions("n1") == {"s": 1}
    assert directories.versions("n3") == {}
    assert directories.page("n3", "s", 0, "") is None
    assert directories.page("n1", "other", 0, "") is None


def test_who_comes_later_is_told_the_whole_and_the_others_of_him() -> None:
    directories = cluster(3)
    placed(directories, 1, 2)
    news = placed(directories, 3)
    assert (news["n3"].since, named(news["n3"])) == (0, {"n1", "n2", "n3"})
    assert (news["n1"].since, news["n1"].version, named(news["n1"])) == (1, 2, {"n3"})
    assert placed(directories, 1, 2, 3) == {}


def test_the_same_nodes_again_and_again_are_told_nothing_new() -> None:
    directories = cluster(2)
    placed(directories, 1, 2)
    for iteration in range(1, 5):
        assert placed(directories, 1, iteration=iteration) == {}
        assert placed(directories, 2, iteration=iteration) == {}


def test_who_had_no_part_for_an_iteration_is_over_and_told_so() -> None:
    directories = cluster(3)
    placed(directories, 1, 2, 3)
    assert placed(directories, 1, 2, iteration=1) == {}
    news = placed(directories, 1, iteration=2)
    [gone] = news["n1"].departed
    assert (gone.node_id, gone.why) == ("n3", "over")
    assert news["n3"].departed == (gone,)
    assert news["n3"].peers == ()
    assert directories.versions("n3") == {}
    news = placed(directories, 3, iteration=2)
    assert (news["n3"].since, named(news["n1"])) == (0, {"n3"})
    assert news["n1"].departed == ()


@pytest.mark.parametrize(
    ("leaves", "why"), [(Directories.lost, "lost"), (Directories.removed, "revoked")]
)
def test_who_is_lost_or_removed_leaves_at_once(leaves, why: str) -> None:
    directories = cluster(3)
    directories.begins("t", "")
    placed(directories, 1, 2)
    placed(directories, 2, 3, swarm="t")
    leaves(directories, "n2", "so it is")
    news = directories.flush()
    assert [(id_, change.swarm_id) for id_, change in news] == [("n1", "s"), ("n3", "t")]
    for _, change in news:
        assert change.peers == ()
        [gone] = change.departed
        assert (gone.node_id, gone.alias, gone.key) == ("n2", "node-2", "key-2")
        assert (gone.why, gone.sentence) == (why, "so it is")
    assert directories.versions("n2") == {}
    # Who asks for the whole is told why, too.
    page = directories.page("n1", "s", 0, "")
    assert page is not None
    assert [one.why for one in page.departed] == [why]


def test_who_was_lost_and_is_back_is_told_the_whole() -> None:
    directories = cluster(2)
    placed(directories, 1, 2)
    directories.lost("n2", "silent")
    told(directories)
    directories.back("n2")
    news = told(directories)
    assert (news["n2"].since, named(news["n2"])) == (0, {"n1", "n2"})
    assert named(news["n1"]) == {"n2"}
    directories.back("n2")
    directories.here(node(2))
    assert told(directories) == {}


def test_other_addresses_are_told() -> None:
    directories = cluster(2)
    placed(directories, 1, 2)
    directories.here(node(2, "tcp://10.0.0.2:71"))
    [peer] = told(directories)["n1"].peers
    assert peer.addresses == ("tcp://10.0.0.2:71",)


def test_a_loopback_address_is_told_only_where_it_leads_there() -> None:
    directories = Directories()
    directories.here(node(1, "tcp://127.0.0.1:70", "tcp://10.0.0.1:70", seen_at=HERE))
    directories.here(node(2, "tcp://127.0.0.1:71", seen_at=HERE))
    directories.here(node(3, "tcp://localhost:72", "tcp://10.0.0.3:72", seen_at=THERE))
    directories.begins("s", "")
    news = placed(directories, 1, 2, 3)
    seen = {id_: {p.node_id: p.addresses for p in change.peers} for id_, change in news.items()}
    assert seen["n1"]["n2"] == ("tcp://127.0.0.1:71",)
    assert seen["n2"]["n1"] == ("tcp://127.0.0.1:70", "tcp://10.0.0.1:70")
    assert seen["n3"]["n1"] == ("tcp://10.0.0.1:70",)
    assert seen["n3"]["n2"] == ()
    # Where the manager sees a node, others may reach it.
    assert seen["n1"]["n3"] == ("tcp://10.0.0.3:72", "tcp://10.0.0.9:72")


def test_nodes_that_are_not_to_be_told_are_in_no_directory() -> None:
    directories = cluster(2)
    directories.here(replace(node(3), addresses=None))
    news = placed(directories, 1, 2, 3)
    assert set(news) == {"n1", "n2"}
    assert named(news["n1"]) == {"n1", "n2"}
    assert directories.versions("n3") == {}


def test_one_that_only_dials_is_told_and_has_no_address() -> None:
    directories = cluster(1)
    directories.here(replace(node(2, seen_at=THERE), addresses=()))
    news = placed(directories, 1, 2)
    assert [peer.addresses for peer in news["n1"].peers] == [("tcp://10.0.0.1:70",), ()]
    assert named(news["n2"]) == {"n1", "n2"}


def test_another_timeline_is_told_whole() -> None:
    directories = cluster(2)
    placed(directories, 1, 2)
    directories.begins("s", "restored")
    for change in told(directories).values():
        assert (change.epoch, change.since, change.version) == ("restored", 0, 2)
        assert named(change) == {"n1", "n2"}


def test_a_restarted_swarm_gives_no_version_a_second_meaning() -> None:
    directories = cluster(3)
    placed(directories, 1, 2)
    directories.restored("s", "", {"n1": 4, "n3": 3, "unknown": 4})
    news = told(directories)
    assert {change.version for change in news.values()} == {2}
    assert named(news["n1"]) == {"n1", "n3"}


def test_after_a_restart_those_that_were_there_are_told_of() -> None:
    directories = Directories()
    directories.here(node(1))
    directories.here(node(2))
    directories.here(node(3))
    directories.restored("s", "", {"n1": 1, "n2": 0, "n3": 1})
    directories.lost("n3", "before")
    assert named(told(directories)["n1"]) == {"n1", "n2"}
    directories.here(node(3))
    assert named(told(directories)["n1"]) == {"n3"}


def test_the_directory_of_a_swarm_that_is_over_is_nobody_s() -> None:
    directories = cluster(2)
    placed(directories, 1, 2)
    directories.ended("s")
    assert directories.versions("n1") == {}
    directories.removed("n1", "")
    assert placed(directories, 2) == {}


def test_what_is_too_large_for_a_message_is_fetched_in_pages() -> None:
    directories = cluster(30, page_bytes=500)
    for number in range(1, 31):
        directories.assigned("s", f"n{number}", 0)
    for change in told(directories).values():
        assert (change.since, change.peers) == (-1, ())
    found: list[str] = []
    after, more = "", True
    while more:
        page = directories.page("n1", "s", 1, after)
        assert page is not None
        assert len(msgspec.msgpack.encode(page)) < 700
        found += [peer.node_id for peer in page.peers]
        after, more = found[-1], page.more
    assert found == sorted(f"n{number}" for number in range(1, 31))
    # Of another version it is the first page again.
    page = directories.page("n1", "s", 7, "n9")
    assert page is not None
    assert page.peers[0].node_id == "n1"


def test_of_those_that_departed_a_bounded_number_is_remembered() -> None:
    directories = cluster(MOST_DEPARTED + 50)
    for number in range(1, MOST_DEPARTED + 51):
        directories.assigned("s", f"n{number}", 0)
    directories.flush()
    for number in range(2, MOST_DEPARTED + 51):
        directories.removed(f"n{number}", "")
    directories.flush()
    page = directories.page("n1", "s", 0, "")
    assert page is not None
    assert len(page.departed) == MOST_DEPARTED


class Cluster(RuleBasedStateMachine):
    """Nodes that apply what they are told, and fetch what they missed, know what they should."""

    def __init__(self) -> None:
        super().__init__()
        self.directories = Directories(page_bytes=300)
        self.known: dict[str, Known] = {}
        self.away: set[str] = set()
        self.last: dict[str, dict[str, int]] = {"s": {}, "t": {}}
        self.iteration = {"s": 0, "t": 0}
        self.held: dict[tuple[str, str], tuple[int, dict[str, Peer]]] = {}
        for swarm_id in self.last:
            self.directories.begins(swarm_id, "")

    numbers = st.integers(1, 5)
    swarms = st.sampled_from("st")

    @rule(number=numbers, port=st.integers(70, 72))
    def registers(self, number: int, port: int) -> None:
        one = node(number, f"tcp://10.0.0.{number}:{port}")
        self.known[one.node_id] = one
        self.away.discard(one.node_id)
        self.directories.here(one)

    @rule(number=numbers)
    def is_lost(self, number: int) -> None:
        if f"n{number}" in self.known:
            self.away.add(f"n{number}")
        self.directories.lost(f"n{number}", "")

    @rule(number=numbers)
    def is_back(self, number: int) -> None:
        self.away.discard(f"n{number}")
        self.directories.back(f"n{number}")

    @rule(number=numbers)
    def is_removed(self, number: int) -> None:
        node_id = f"n{number}"
        self.known.pop(node_id, None)
        self.away.discard(node_id)
        for members in self.last.values():
            members.pop(node_id, None)
        self.held = {key: value for key, value in self.held.items() if key[0] != node_id}
        self.directories.removed(node_id, "")

    @rule(number=numbers, swarm_id=swarms, ahead=st.booleans())
    def is_assigned(self, number: int, swarm_id: str, ahead: bool) -> None:
        node_id = f"n{number}"
        if node_id in self.known:
            self.iteration[swarm_id] += ahead
            self.last[swarm_id][node_id] = self.iteration[swarm_id]
            self.directories.assigned(swarm_id, node_id, self.iteration[swarm_id])

    @rule(lossy=st.sets(numbers))
    def is_told(self, lossy: set[int]) -> None:
        for node_id, change in self.directories.flush():
            if int(node_id[1:]) in lossy:
                continue
            key = node_id, change.swarm_id
            version, peers = self.held.get(key, (-1, {}))
            if node_id in {one.node_id for one in change.departed}:
                self.held.pop(key, None)
            elif change.since in (0, version):
                kept = {} if change.since == 0 else peers
                gone = {one.node_id for one in change.departed}
                kept = {id_: peer for id_, peer in kept.items() if id_ not in gone}
                new = {peer.node_id: peer for peer in change.peers}
                self.held[key] = change.version, {**kept, **new}

    @precondition(lambda self: not self.directories._dirty)
    @invariant()
    def all_know_what_they_should(self) -> None:
        for node_id in self.known:
            versions = self.directories.versions(node_id)
            there = node_id not in self.away
            assert set(versions) == {s for s in self.last if there and node_id in self.members(s)}
            for swarm_id, version in versions.items():
                held = self.held.get((node_id, swarm_id), (-1, {}))
                if held[0] != version:
                    held = version, self.fetched(node_id, swarm_id)
                    self.held[node_id, swarm_id] = held
                assert set(held[1]) == self.members(swarm_id) - self.away
                for id_, peer in held[1].items():
                    assert peer.addresses == self.known[id_].addresses

    def fetched(self, node_id: str, swarm_id: str) -> dict[str, Peer]:
        found: dict[str, Peer] = {}
        version, after, more = 0, "", True
        while more:
            page = self.directories.page(node_id, swarm_id, version, after)
            assert page is not None
            found |= {peer.node_id: peer for peer in page.peers}
            version, more, after = page.version, page.more, max(found, default="")
        return found

    def members(self, swarm_id: str) -> set[str]:
        latest = max(self.last[swarm_id].values(), default=0)
        latest = max(latest, self.iteration[swarm_id])
        return {id_ for id_, last in self.last[swarm_id].items() if last >= latest - 1}


TestCluster = Cluster.TestCase
TestCluster.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
