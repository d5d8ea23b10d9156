from __future__ import annotations

from manta.manager.cluster import unknown
from manta.manager.cluster.unknown import TOLD, UnknownSwarms

NAMES = {"a": "edge", "b": "attic"}


def test_who_reports_how_many_and_what_to_do_is_told() -> None:
    swarms = UnknownSwarms()
    assert swarms.sentence(NAMES, 0.0) == ""
    assert swarms.report("a", ["x"], 0.0) == 1
    one = swarms.sentence(NAMES, 0.0)
    assert one.startswith("edge reports a swarm that this manager does not know: its database is")
    assert "put a newer database back, or deploy it again" in one
    assert swarms.report("b", ["x", "y"], 1.0) == 2
    assert swarms.sentence(NAMES, 1.0).startswith("attic, edge report 2 swarms that")


def test_it_is_told_for_a_while() -> None:
    swarms = UnknownSwarms()
    swarms.report("a", ["x"], 0.0)
    assert swarms.report("a", [], 10.0) == 0  # by now it was told to forget it
    assert swarms.sentence(NAMES, TOLD - 1) != ""
    assert swarms.sentence(NAMES, TOLD) == ""


def test_swarms_that_were_removed_meanwhile_are_no_news(monkeypatch) -> None:
    monkeypatch.setattr(unknown, "MOST", 2)
    swarms = UnknownSwarms()
    for swarm_id in ("x", "y", "z"):
        swarms.removed(swarm_id)
    assert swarms.report("a", ["y", "z"], 0.0) == 0
    assert swarms.sentence(NAMES, 0.0) == ""
    assert swarms.report("a", ["x"], 0.0) == 1  # no more than so many are remembered


def test_a_node_that_reports_swarms_without_end_takes_little() -> None:
    swarms = UnknownSwarms()
    assert swarms.report("a", [f"{n}" for n in range(50_000)], 0.0) == 50_000
    assert swarms.report("b", ["x" * 4_000_000], 0.0) == 0
    assert sum(len(one.swarms) for one in swarms._reports.values()) == 1000


def test_results_of_swarms_that_were_removed_are_over_and_others_stay() -> None:
    swarms = UnknownSwarms()
    swarms.removed("x")
    assert swarms.holds("a", ["x", "y"]) == (("x",), True)
    assert swarms.holds("a", ["x", "y"]) == (("x",), False)  # it is told once
    said = swarms.sentence(NAMES, TOLD * 10)
    assert said.startswith("edge keeps results of a swarm that this manager does not know: put")
    assert "manta_node results --delete" in said
    assert swarms.holds("a", ["y", "z"]) == ((), True)
    assert swarms.holds("b", ["z"]) == ((), True)
    assert "attic, edge keep results of 2 swarms" in swarms.sentence(NAMES, 0.0)
    assert swarms.holds("a", []) == ((), False)
    swarms.forget("b")
    assert swarms.sentence(NAMES, 0.0) == ""


def test_what_is_forgotten_of_removals_is_told(monkeypatch) -> None:
    monkeypatch.setattr(unknown, "MOST", 2)
    swarms = UnknownSwarms()
    assert [swarms.removed(swarm_id) for swarm_id in ("x", "y", "z")] == ["", "", "x"]
    assert swarms.holds("a", ["x", "z"]) == (("z",), True)


def test_a_node_that_holds_results_without_end_takes_little() -> None:
    swarms = UnknownSwarms()
    for first in range(0, 10_000, 100):
        swarms.holds("a", [f"{first + n}" for n in range(100)])
    assert sum(map(len, swarms._held.values())) == 1000
