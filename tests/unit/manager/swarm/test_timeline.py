"""What a swarm whose log went back makes of its nodes, as they register."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

from manta.manager.swarm.events import NodeLost, Rewound
from manta.manager.swarm.timeline import Timeline
from manta.protocol.node import TaskStarted
from manta.protocol.states import SwarmState


def timeline(b: Any, backup: str = "") -> Timeline:
    restored = SimpleNamespace(backup=backup, made_at=b.now) if backup else None
    context: Any = SimpleNamespace(restored=restored, started_at=1.0)
    here = [SimpleNamespace(id=view.id, connected=True) for view in b.nodes]
    view: Any = SimpleNamespace(aliases={}, node_views=here)
    return Timeline(context, view, b.machine, logging.LoggerAdapter(logging.getLogger("test"), {}))


def test_what_a_node_has_when_it_registers_first_after_a_restoration_is_passed_over(bench, make):
    b = bench(make.task("w"), nodes=2)
    b.feed(Rewound("backup"))
    told = timeline(b, "backup")
    assert told.registered("id1", 0, 5) == Rewound("backup", {"id1": 5})
    b.feed(Rewound("backup", {"id1": 5}))
    assert b.machine.applied("id1") == 5
    assert told.registered("id1", 5, 9) is None  # the link broke: it told this since
    assert told.registered("id2", 0, 0) == Rewound("backup", {"id2": 0})
    b.feed(Rewound("backup", {"id2": 0}))
    assert told.registered("id2", 0, 3) is None
    assert b.replayed().data.heard_since == b.machine.data.heard_since == {"id1", "id2"}


def test_where_nothing_went_back_all_counts_that_a_node_has(bench, make):
    b = bench(make.task("w"), nodes=1)
    assert timeline(b).registered("id1", 0, 5) is None


def test_a_node_that_is_given_something_after_a_restoration_has_told_all_since(bench, make):
    b = bench(make.task("w", method="any"), nodes=2)
    here = b.node_of(b.running("w")[0])
    other = next(view.id for view in b.nodes if view.id != here)
    b.nodes = [view for view in b.nodes if view.id == other]
    b.feed(Rewound("backup"))
    b.wait_for(9)
    b.nodes_changed()
    assert b.node_of(b.running("w")[0]) == other
    told = timeline(b, "backup")
    assert told.registered(other, 0, 3) is None
    assert told.registered(here, 0, 3) == Rewound("backup", {here: 3})


def test_an_older_database_shows_by_a_node_and_costs_those_that_are_here_already_nothing(
    bench, make
):
    b = bench(make.task("w"), nodes=2)
    for at in list(b.running("w").values()):
        b.say(at, TaskStarted(at, b.now))
    told = timeline(b)
    assert told.registered("id2", 1, 4) is None
    rewound = told.registered("id1", 2, 3)
    assert rewound == Rewound("older than its nodes at 1.000", {"id1": 3, "id2": 1})
    b.feed(rewound)
    assert told.registered("id2", 1, 4) is None
    assert told.registered("id2", 6, 7) == Rewound(rewound.backup, {"id2": 7})


def test_a_swarm_that_is_over_goes_back_to_nothing(bench, make):
    b = bench(make.task("w"), nodes=1)
    b.feed(NodeLost("id1", "gone"))
    assert b.state is SwarmState.FAILED
    assert timeline(b).registered("id1", 7, 9) is None
