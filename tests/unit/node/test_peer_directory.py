"""A node knows the directories that it should have, whatever was lost on the way."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from manta.manager.cluster.peers import Directories as ManagersDirectories
from manta.manager.cluster.peers import Known
from manta.node.peers import directory
from manta.node.peers.directory import (
    Directories,
    DirectoryAction,
    DirectoryChanged,
    DirectoryOver,
)
from manta.protocol.peers import Departed, FetchPeers, Peer, Peers, PeersChanged

ONE, TWO, THREE = (Peer(f"n{i}", f"node-{i}", f"key-{i}", (f"tcp://h:{i}",)) for i in (1, 2, 3))
LOST = Departed("n2", "node-2", "key-2", "lost", "no sign of life")


def only(actions: list[DirectoryAction]) -> DirectoryChanged:
    [action] = actions
    assert isinstance(action, DirectoryChanged)
    return action


def held() -> Directories:
    """A node that has one directory, in version 3."""
    directories = Directories()
    directories.registered("n1", {})
    directories.changed(PeersChanged("s", "", 3, 0, (ONE, TWO)))
    return directories


def test_the_first_is_told_whole() -> None:
    directories = Directories()
    assert directories.registered("n1", {}) == []
    began = only(directories.changed(PeersChanged("s", "e", 3, 0, (ONE, TWO), (LOST,))))
    assert began == DirectoryChanged("s", "e", True, (ONE, TWO), (LOST,))
    assert directories.peer("s", "n2") == TWO
    assert directories.peer("s", "n3") is None
    assert directories.peer("t", "n2") is None
    assert directories.all() == [began]


def test_a_change_that_continues_it_is_applied() -> None:
    directories = held()
    told = only(directories.changed(PeersChanged("s", "", 4, 3, (THREE,), (LOST,))))
    assert told == DirectoryChanged("s", "", False, (THREE,), (LOST,))
    assert directories.peer("s", "n2") is None
    assert directories.departed("s", "n2") == LOST
    # It comes back, and why it was away is forgotten.
    told = only(directories.changed(PeersChanged("s", "", 5, 4, (TWO,))))
    assert told.peers == (TWO,)
    assert directories.departed("s", "n2") is None


def test_a_change_that_does_not_continue_it_leads_to_the_whole() -> None:
    directories = held()
    assert directories.changed(PeersChanged("s", "", 6, 5, (THREE,))) == [FetchPeers("s")]
    assert directories.changed(PeersChanged("s", "", 7, 6)) == []
    told = only(directories.fetched("s", Peers("s", "", 7, (ONE, THREE), (LOST,))))
    assert told == DirectoryChanged("s", "", False, (THREE,), (LOST,))
    assert directories.heard_versions({"s": 7}) == []


def test_what_is_said_twice_is_heard_once() -> None:
    directories = held()
    change = PeersChanged("s", "", 4, 3, (THREE,))
    assert directories.changed(change) != []
    assert directories.changed(change) == []


def test_of_whom_the_whole_no_longer_names_nothing_but_that_is_known() -> None:
    directories = held()
    directories.changed(PeersChanged("s", "", 9, -1))
    told = only(directories.fetched("s", Peers("s", "", 9, (ONE,))))
    assert told.departed == (Departed("n2", "node-2", "key-2", "over"),)


def test_the_whole_comes_in_pages_and_begins_anew_when_it_changes() -> None:
    directories = held()
    assert directories.heard_versions({"s": 7}) == [FetchPeers("s")]
    assert directories.heard_versions({"s": 7}) == []
    pages = [Peers("s", "", 7, (one,), more=one is not THREE) for one in (ONE, TWO, THREE)]
    assert directories.fetched("s", pages[0]) == [FetchPeers("s", 7, "n1")]
    anew = Peers("s", "", 8, (ONE,), more=True)
    assert directories.fetched("s", anew) == [FetchPeers("s", 8, "n1")]
    told = only(directories.fetched("s", Peers("s", "", 8, (THREE,))))
    assert ([one.node_id for one in told.peers], told.departed[0].node_id) == (["n3"], "n2")


def test_a_change_that_overtook_the_answer_is_not_undone() -> None:
    directories = held()
    directories.heard_versions({"s": 4})
    assert directories.changed(PeersChanged("s", "", 5, 4, (), (LOST,))) == []
    assert directories.fetched("s", Peers("s", "", 4, (ONE, TWO))) == [FetchPeers("s")]
    told = only(directories.fetched("s", Peers("s", "", 5, (ONE,), (LOST,))))
    assert told.departed == (LOST,)


def test_a_fetch_that_failed_is_repeated_with_the_next_heartbeat() -> None:
    directories = held()
    directories.heard_versions({"s": 7})
    directories.fetch_failed("s")
    assert directories.fetched("s", Peers("s", "", 7)) == []
    assert directories.heard_versions({"s": 7}) == [FetchPeers("s")]


def test_what_is_too_large_is_fetched_as_often_as_it_takes() -> None:
    directories = Directories()
    directories.registered("n1", {})
    for version in (1, 2, 3):
        assert directories.changed(PeersChanged("s", "", version, -1)) == [FetchPeers("s")]
        directories.fetch_failed("s")
    assert directories.all() == []
    assert directories.heard_versions({"s": 3}) == [FetchPeers("s")]
    assert only(directories.fetched("s", Peers("s", "", 3, (ONE,)))).peers == (ONE,)


def test_after_a_registration_all_is_fetched_and_peers_stay_meanwhile() -> None:
    directories = held()
    assert directories.registered("n1", {"s": 3}) == [FetchPeers("s")]
    assert directories.peer("s", "n2") == TWO
    # The same again: there is nothing to tell.
    assert directories.fetched("s", Peers("s", "", 1, (ONE, TWO))) == []
    assert directories.heard_versions({"s": 1}) == []


def test_another_timeline_begins_anew() -> None:
    directories = held()
    directories.registered("n1", {"s": 1})
    told = only(directories.fetched("s", Peers("s", "restored", 1, (ONE, THREE))))
    assert told == DirectoryChanged("s", "restored", True, (ONE, THREE))
    told = only(directories.changed(PeersChanged("s", "restored again", 2, 0, (ONE,))))
    assert told.began
    assert directories.peer("s", "n3") is None


def test_what_is_over_is_forgotten() -> None:
    directories = held()
    myself = Departed("n1", "node-1", "key-1", "over")
    assert directories.changed(PeersChanged("s", "", 9, 8, (), (myself,))) == [DirectoryOver("s")]
    assert directories.peer("s", "n2") is None
    assert directories.over("s") == []
    assert held().heard_versions({}) == [DirectoryOver("s")]
    assert held().registered("n1", {}) == [DirectoryOver("s")]


def test_what_a_manager_can_name_is_bounded(monkeypatch) -> None:
    monkeypatch.setattr(directory, "MOST_PEERS", 3)
    monkeypatch.setattr(directory, "MOST_SWARMS", 2)
    directories = Directories()
    directories.registered("n1", {})
    for number in range(9):
        versions = {f"s{i}": 1 for i in range(number)}
        assert len(directories.heard_versions(versions)) <= 2
    assert len(directories._held) == 2
    directories.changed(PeersChanged("s1", "", 1, 0, (ONE,)))
    for number in range(2, 9):
        peer = Peer(f"n{number}", "x", "k")
        directories.changed(PeersChanged("s1", "", number, number - 1, (peer,)))
    assert len(directories._held["s1"].peers) == 3
    # Pages without an end are not asked for.
    directories.heard_versions({"s1": 99})
    asked = 0
    while asked < 9:
        page = Peers("s1", "", 99, (Peer(f"m{asked}", "x", "k"),), more=True)
        if not any(isinstance(one, FetchPeers) for one in directories.fetched("s1", page)):
            break
        asked += 1
    assert asked == 2


class Together(RuleBasedStateMachine):
    """One node with what a manager's directories tell, over a line that loses messages, and a
    plane that is fed: in the end the plane knows whom the manager names."""

    def __init__(self) -> None:
        super().__init__()
        self.node = Directories()
        self.plane: dict[str, dict[str, Peer]] = {}
        self.fetching: list[FetchPeers] = []

    @initialize()
    def begins(self) -> None:
        self.restarted(frozenset())

    numbers = st.integers(1, 4)
    swarms = st.sampled_from("st")

    @rule(known=st.frozensets(st.integers(1, 4)))
    def restarted(self, known: frozenset[int]) -> None:
        """The manager was; the node registers with it."""
        self.manager = ManagersDirectories(page_bytes=150)
        self.iteration = 0
        for number in {1, *known}:
            self.comes(number, 70)
        for swarm_id in "st":
            members = {f"n{number}": 0 for number in {1, *known}}
            self.manager.restored(swarm_id, "", members if known else {})
        self.manager.flush()
        self.fetching = []
        self.feed(self.node.registered("n1", self.manager.versions("n1")))

    @rule(number=numbers, port=st.integers(70, 71))
    def comes(self, number: int, port: int) -> None:
        self.manager.here(
            Known(f"n{number}", f"node-{number}", f"k{number}", (f"tcp://10.0.0.1:{port}",))
        )

    @rule(number=st.integers(2, 4), removed=st.booleans())
    def leaves(self, number: int, removed: bool) -> None:
        (self.manager.removed if removed else self.manager.lost)(f"n{number}", "gone")

    @rule(number=numbers, swarm_id=swarms, ahead=st.booleans())
    def assigned(self, number: int, swarm_id: str, ahead: bool) -> None:
        self.iteration += ahead
        self.manager.assigned(swarm_id, f"n{number}", self.iteration)

    @rule(swarm_id=swarms, epoch=st.sampled_from(["", "restored"]))
    def begins_anew(self, swarm_id: str, epoch: str) -> None:
        self.manager.begins(swarm_id, epoch)

    @rule(swarm_id=swarms)
    def ends(self, swarm_id: str) -> None:
        self.manager.ended(swarm_id)

    @rule(arrives=st.booleans())
    def is_told(self, arrives: bool) -> None:
        for node_id, change in self.manager.flush():
            if arrives and node_id == "n1":
                self.feed(self.node.changed(change))

    @rule(arrives=st.booleans())
    def is_answered(self, arrives: bool) -> None:
        if self.fetching:
            self.answer(self.fetching.pop(0), arrives)

    def answer(self, asked: FetchPeers, arrives: bool = True) -> None:
        page = self.manager.page("n1", asked.swarm_id, asked.version, asked.after)
        if page is None or not arrives:
            self.node.fetch_failed(asked.swarm_id)
        else:
            self.feed(self.node.fetched(asked.swarm_id, page))

    @rule()
    def in_the_end(self) -> None:
        self.is_told(True)
        for _ in range(3):
            self.feed(self.node.heard_versions(self.manager.versions("n1")))
            while self.fetching:
                self.answer(self.fetching.pop(0))
        versions = self.manager.versions("n1")
        assert set(self.plane) == set(versions)
        for swarm_id, peers in self.plane.items():
            named = [peer.node_id for peer in peers.values()]
            page, shown = self.manager.page("n1", swarm_id, 0, ""), list[Peer]()
            while page is not None:
                shown += page.peers
                if not page.more:
                    break
                after = page.peers[-1].node_id
                page = self.manager.page("n1", swarm_id, page.version, after)
            assert sorted(named) == [peer.node_id for peer in shown]
            assert {peer.node_id: peer for peer in shown} == peers
            assert all(self.node.peer(swarm_id, id_) == peer for id_, peer in peers.items())

    def feed(self, actions) -> None:
        for action in actions:
            match action:
                case FetchPeers():
                    self.fetching.append(action)
                case DirectoryOver(swarm_id):
                    del self.plane[swarm_id]
                case DirectoryChanged(swarm_id, _, began, peers, departed):
                    known = {} if began else self.plane[swarm_id]
                    gone = {one.node_id for one in departed}
                    assert not gone & {peer.node_id for peer in peers}
                    kept = {id_: peer for id_, peer in known.items() if id_ not in gone}
                    self.plane[swarm_id] = kept | {peer.node_id: peer for peer in peers}


TestTogether = Together.TestCase
TestTogether.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
