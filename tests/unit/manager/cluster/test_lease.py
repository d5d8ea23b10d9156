"""Who is there, who is lost, and when to believe it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manta.manager.cluster.lease import (
    Away,
    Isolated,
    Leases,
    Lost,
    NodeStateChanged,
    Reunited,
    Silent,
    heartbeat_interval,
    terms,
)
from manta.manager.views import Silence
from manta.protocol.states import NodeState

CONNECTED, DISCONNECTED, LOST, DRAINING = (
    NodeState.CONNECTED,
    NodeState.DISCONNECTED,
    NodeState.LOST,
    NodeState.DRAINING,
)


def leases(count, **changes):
    made = Leases(**changes)
    for n in range(count):
        made.connected(f"n{n}", 0.0)
    return made


def keep(made, names, until, start=0.0):
    """These are heard every second; returns all that is decided, with its time."""
    decided = []
    now = start
    while now < until:
        now += 1.0
        for name in names:
            decided += [(now, a) for a in made.heard(name, now)]
        decided += [(now, a) for a in made.tick(now)]
    return decided


def test_a_silent_node_is_lost_after_lease_and_grace():
    made = leases(3)
    assert keep(made, ["n0", "n1"], 30) == [
        (5.0, Silent("n2")),
        (10.0, NodeStateChanged("n2", DISCONNECTED)),
        (15.0, Away("n2")),
        (20.0, NodeStateChanged("n2", LOST)),
        (20.0, Lost("n2", "no sign of life for 20 s")),
    ]


def test_a_dropped_link_leaves_what_is_left_of_the_lease():
    made = leases(3)
    keep(made, ["n0", "n1", "n2"], 5)
    assert made.disconnected("n2", 5.5) == [NodeStateChanged("n2", DISCONNECTED)]
    assert made.disconnected("n2", 5.6) == []
    decided = keep(made, ["n0", "n1"], 40, start=5.0)
    assert [(t, type(a)) for t, a in decided] == [
        (11.0, Away),
        (25.0, NodeStateChanged),
        (25.0, Lost),
    ]


def test_a_node_whose_link_dropped_is_expected_back_at_once():
    made = leases(4)
    made.disconnected("n1", 1.0)
    made.disconnected("n2", 1.0)
    made.disconnected("n3", 1.0)
    assert all(made.is_returning(f"n{n}") for n in (1, 2, 3))
    made.heard("n0", 2.0)
    assert made.next_deadline() == 6.0
    made.connected("n1", 2.0)
    assert not made.is_returning("n1")
    assert made.said_goodbye("n2", 3.0) == [Away("n2")]
    assert made.removed("n3", 3.0) == [Lost("n3", "it was removed from the cluster"), Away("n3")]
    made.disconnected("n1", 4.0)
    assert [a for _, a in keep(made, ["n0"], 9, start=4.0)] == [Away("n1")]
    assert not made.is_returning("n1")
    assert not made.is_returning("stranger")


@pytest.mark.parametrize("away", [0.1, 9, 14.9])
def test_back_in_time_is_nothing_lost(away):
    made = leases(2, hold=100.0)
    made.disconnected("n1", 5.0)
    assert keep(made, ["n0"], 5 + away - 1 if away > 1 else 5.0, start=5.0) == []
    assert made.connected("n1", 5 + away) == [NodeStateChanged("n1", CONNECTED)]


def test_lost_and_back():
    made = leases(2)
    keep(made, ["n0"], 30)
    assert made.state("n1") is LOST
    assert made.connected("n1", 31.0) == [NodeStateChanged("n1", CONNECTED)]
    assert made.connected("n1", 32.0) == []


@pytest.mark.parametrize("silence", [12, 30])
def test_a_node_that_was_silent_over_a_link_that_held_need_only_be_heard(silence):
    made = leases(3)
    keep(made, ["n0", "n1"], silence)
    assert made.state("n2") is (DISCONNECTED if silence < 20 else LOST)
    assert made.heard("n2", silence + 1) == [NodeStateChanged("n2", CONNECTED)]


def test_who_is_away_must_register_before_it_is_heard():
    made = leases(2)
    made.disconnected("n1", 1.0)
    made.heard("n1", 2.0)
    assert made.state("n1") is DISCONNECTED
    assert made.heard("stranger", 2.0) == []


def test_goodbye_shortens_it_to_the_grace():
    made = leases(2)
    keep(made, ["n0", "n1"], 5)
    made.said_goodbye("n1", 5.0)
    assert made.disconnected("n1", 5.1) == []
    assert [(t, a) for t, a in keep(made, ["n0"], 30, start=5.0) if isinstance(a, Lost)] == [
        (15.0, Lost("n1", "it stopped and did not come back"))
    ]
    assert made.said_goodbye("n1", 31.0) == []
    assert made.said_goodbye("stranger", 31.0) == []


def test_removed_is_lost_at_once():
    made = leases(2)
    assert made.removed("n1", 1.0) == [Lost("n1", "it was removed from the cluster")]
    assert made.removed("n1", 1.0) == []
    with pytest.raises(KeyError):
        made.state("n1")


def test_draining_survives_a_reconnect():
    made = leases(1)
    assert made.set_draining("n0", 1.0, draining=True) == [NodeStateChanged("n0", DRAINING)]
    assert made.set_draining("n0", 1.0, draining=True) == []
    made.disconnected("n0", 2.0)
    assert made.set_draining("n0", 2.0, draining=False) == []
    made.set_draining("n0", 2.0, draining=True)
    assert made.connected("n0", 3.0) == [NodeStateChanged("n0", DRAINING)]
    assert made.set_draining("n0", 4.0, draining=False) == [NodeStateChanged("n0", CONNECTED)]


def test_who_was_gone_before_a_restart_is_not_expected_at_once():
    made = Leases()
    made.restarted(["n0", "n1"], 0.0, gone={"n1"})
    assert made.is_returning("n0")
    assert not made.is_returning("n1")
    assert made.state("n1") is DISCONNECTED


def test_grace_after_a_restart():
    made = Leases()
    assert made.restarted(["n0", "n1"], 100.0) == [
        NodeStateChanged("n0", DISCONNECTED),
        NodeStateChanged("n1", DISCONNECTED),
    ]
    assert made.connected("n0", 103.0) == [NodeStateChanged("n0", CONNECTED)]
    decided = keep(made, ["n0"], 170, start=103.0)
    assert [(t, type(a)) for t, a in decided] == [
        (105.0, Away),
        (160.0, NodeStateChanged),
        (160.0, Lost),
    ]


@pytest.mark.parametrize(
    ("nodes", "gone", "isolated"),
    [(1, 1, False), (2, 1, False), (2, 2, True), (3, 2, True), (4, 2, False), (4, 3, True),
     (20, 10, False), (20, 11, True), (20, 20, True)],
)  # fmt: skip
def test_isolation(nodes, gone, isolated):
    made = leases(nodes)
    decided = [a for _, a in keep(made, [f"n{n}" for n in range(gone, nodes)], 300)]
    lost = [a for a in decided if isinstance(a, Lost)]
    said = [a for a in decided if isinstance(a, Isolated)]
    assert len(lost) == (0 if isolated else gone)
    assert len(said) == isolated
    if isolated:
        assert said[0].node_ids == tuple(f"n{n}" for n in range(gone))
        assert said[0].sentence.startswith(f"{gone} of {nodes} nodes went silent at once: is the")


def test_isolation_ends_when_enough_are_back():
    made = leases(4)
    keep(made, ["n3"], 50)
    assert made.state("n0") is DISCONNECTED
    back = made.connected("n0", 51.0)
    assert back[0] == NodeStateChanged("n0", CONNECTED)
    assert isinstance(back[1], Reunited)  # two of four: less than 55 %
    decided = keep(made, ["n3", "n0"], 90, start=51.0)
    lost = [(t, a.node_id) for t, a in decided if isinstance(a, Lost)]
    assert lost == [(61.0, "n1"), (61.0, "n2")]


def test_isolation_ends_when_the_dead_are_removed():
    made = leases(3)
    keep(made, ["n2"], 50)
    assert [type(a) for a in made.removed("n0", 51.0)] == [Lost, Reunited]


def test_goodbyes_prove_no_isolation():
    made = leases(4)
    for name in ("n0", "n1", "n2"):
        made.said_goodbye(name, 1.0)
    lost = [a.node_id for _, a in keep(made, ["n3"], 30, start=1.0) if isinstance(a, Lost)]
    assert lost == ["n0", "n1", "n2"]


def test_nodes_lost_long_ago_do_not_count():
    made = leases(4)
    keep(made, ["n1", "n2", "n3"], 30)
    decided = keep(made, ["n2", "n3"], 60, start=30.0)
    assert [a.node_id for _, a in decided if isinstance(a, Lost)] == ["n1"]


def test_a_suspended_manager_blames_nobody():
    made = leases(3)
    keep(made, ["n0", "n1", "n2"], 5)
    assert made.tick(500.0) == []
    assert keep(made, ["n0", "n1", "n2"], 540, start=500.0) == []


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from("chdgrt"), st.floats(0, 15))))
def test_the_next_deadline_is_when_something_happens(steps):
    """A shell that ticks at each deadline finds each node lost in bounded time, or says why not."""
    made = leases(4)
    now = 0.0
    gone = set()
    isolated = False

    def note(actions):
        nonlocal isolated
        for action in actions:
            if isinstance(action, Lost):
                assert action.node_id not in gone
                gone.add(action.node_id)
            elif isinstance(action, NodeStateChanged):
                if action.state is CONNECTED:
                    gone.discard(action.node_id)
            elif isinstance(action, Away):
                assert not made.is_returning(action.node_id)
            elif not isinstance(action, Silent):
                assert isinstance(action, Isolated) is not isolated
                isolated = isinstance(action, Isolated)

    def run_until(end):
        while (due := made.next_deadline()) is not None and due <= end:
            note(made.tick(due))
            after = made.next_deadline()
            assert after is None or after > due

    for number, act, pause in steps:
        now += pause
        run_until(now)
        name = f"n{number}"
        match act:
            case "c":
                gone.discard(name)
                note(made.connected(name, now))
            case "h":
                note(made.heard(name, now))
            case "d":
                note(made.disconnected(name, now))
            case "g":
                note(made.said_goodbye(name, now))
            case "r":
                gone.discard(name)
                note(made.removed(name, now))
                gone.discard(name)
            case "t":
                note(made.tick(now))
    run_until(now + 100)
    assert made.next_deadline() is None
    for name in [f"n{n}" for n in range(4)]:
        try:
            state = made.state(name)
        except KeyError:
            continue
        assert state is LOST or (isolated and state is DISCONNECTED)


def test_a_missed_heartbeat_is_told_long_before_the_lease_ends():
    made = leases(3)
    assert made.silences() == {}
    keep(made, ["n0", "n1"], 5)
    assert made.silences() == {"n2": Silence(0.0, 20.0, "silent")}
    assert made.heard("n2", 5.5) == [Silent("n2")]
    assert made.silences() == {}
    assert made.state("n2") is CONNECTED


def test_each_way_to_be_away_says_since_when_and_when_it_is_lost():
    made = leases(5, restart_grace=60.0)
    made.disconnected("n1", 1.0)
    made.said_goodbye("n2", 2.0)
    assert made.silences() == {
        "n1": Silence(0.0, 20.0, "unlinked"),
        "n2": Silence(0.0, 12.0, "stopped"),
    }
    returned = Leases()
    returned.restarted(["n0", "n1"], 100.0, gone={"n1"})
    assert returned.silences() == {
        "n0": Silence(100.0, 160.0, "awaited"),
        "n1": Silence(100.0, 160.0, "unlinked"),
    }
    returned.connected("n0", 101.0)
    assert set(returned.silences()) == {"n1"}


def test_while_most_are_silent_none_has_a_time_at_which_it_is_lost():
    made = leases(3)
    keep(made, ["n2"], 30)
    assert {silence.lost_at for silence in made.silences().values()} == {None}


def test_after_the_loss_there_is_nothing_to_wait_for():
    made = leases(2)
    keep(made, ["n0"], 30)
    assert made.silences() == {}


def test_time_that_the_manager_slept_is_no_silence():
    made = leases(2)
    keep(made, ["n0", "n1"], 5)
    made.tick(500.0)
    assert made.silences() == {}


@pytest.mark.parametrize("lease", [2.0, 5.0, 20.0, 90.0, 600.0])
def test_a_lease_of_any_length_is_how_long_a_silent_node_is_waited_for(lease):
    made = leases(3, **terms(lease))
    step = heartbeat_interval(lease)
    decided, now = [], 0.0
    while now <= 1.2 * lease:
        now += step
        while (due := made.next_deadline()) is not None and due <= now:
            decided += [(due, a) for a in made.tick(due)]
        for name in ("n0", "n1"):
            assert made.heard(name, now) == []
    first, last = decided[0], [t for t, a in decided if isinstance(a, Lost)]
    assert first == (1.5 * step, Silent("n2"))
    assert last == [pytest.approx(lease)]


def test_the_lease_that_is_given_by_default_is_twenty_seconds():
    plain, named = Leases(), Leases(**terms(20.0))
    assert vars(plain) == vars(named)
    assert heartbeat_interval(20.0) == 3.0
