from __future__ import annotations

from manta.manager.cluster.backlogs import Backlogs
from manta.manager.views import Behind


def test_what_one_heartbeat_says_has_to_be_there_by_the_next() -> None:
    backlogs = Backlogs(3.0)
    assert not backlogs.heard("a", {"s": 5}, 0.0)
    assert backlogs.shown(1.0) == {}
    assert not backlogs.heard("a", {"s": 7}, 2.0)
    assert backlogs.heard("a", {"s": 9}, 3.0)
    assert backlogs.shown(3.0) == {"s": {"a": Behind(5, 0.0, returned=False)}}
    assert not backlogs.stored("a", "s", 4, 3.0)
    assert backlogs.stored("a", "s", 5, 3.0)
    assert backlogs.shown(3.0) == {}


def test_what_a_node_has_when_it_returns_is_told_at_once() -> None:
    backlogs = Backlogs(3.0)
    backlogs.registered("a", {"s": 5, "t": 2}, 0.0)
    assert backlogs.shown(0.0).keys() == {"s", "t"}
    assert backlogs.heard("a", {"t": 2}, 1.0)
    assert backlogs.shown(1.0) == {"t": {"a": Behind(2, 0.0, returned=True)}}


def test_what_is_over_or_gone_is_no_backlog() -> None:
    backlogs = Backlogs(3.0)
    for node_id in ("a", "b"):
        backlogs.registered(node_id, {"s": 5, "t": 2}, 0.0)
    backlogs.swarm_ended("s")
    backlogs.forget("a")
    assert backlogs.shown(0.0) == {"t": {"b": Behind(2, 0.0, returned=True)}}
    assert not backlogs.stored("a", "t", 2, 0.0)
