"""Faults as a command line has them."""

from __future__ import annotations

import pytest

from manta.mesh.fault_words import plan, said
from manta.mesh.faults import Faults, InvalidFaults
from manta.mesh.peer.faulty import number_of


def test_nothing_is_asked_for() -> None:
    assert plan(0.0, None, [], 7) is None


def test_all_that_a_command_line_may_say() -> None:
    assert plan(0.1, "20ms", ["0-4/5-7@10s..20s", "0,2/1@500ms"], 7) == Faults.of(
        {
            "seed": 7,
            "loss": 0.1,
            "delay": 0.02,
            "partitions": [
                {"sides": [[0, 1, 2, 3, 4], [5, 6, 7]], "from": 10, "until": 20},
                {"sides": [[0, 2], [1]], "from": 0.5},
            ],
        }
    )
    found = plan(0.0, "10ms..1min", [], 0)
    assert found is not None
    assert found.form()["delay"] == {"distribution": "uniform", "least": 0.01, "most": 60.0}


@pytest.mark.parametrize(
    ("delay", "partition", "words"),
    [
        ("fast", None, "'fast' in 'fast' is no time: write 20ms"),
        ("30ms..10ms", None, "give the shorter as `least`"),
        (None, "a/b", "is no partition: write 0-4/5-7@10s..20s"),
        (None, "4-0/5", "'4-0' in '4-0/5' are no peers"),
        (None, "0/1@", "is no time"),
        (None, "0-2/2-3", "rank 2 is there twice"),
        (None, "0/1@20s..10s", "give a later moment"),
    ],
)
def test_what_is_wrong_is_named(delay: str | None, partition: str | None, words: str) -> None:
    with pytest.raises(InvalidFaults, match=words):
        plan(0.0, delay, [] if partition is None else [partition], 0)


def test_a_plan_is_said_in_words() -> None:
    found = plan(0.1, "10ms..50ms", ["0-4/5@1s..2s"], 7)
    assert found is not None
    assert said(found.form()) == (
        "loss of 10 %, delay from 10 to 50 ms, a partition into 0-4 and 5 from 1 s until 2 s; "
        "seed 7"
    )


@pytest.mark.parametrize(
    ("name", "number"), [("peer-0", 0), ("peer-12", 12), ("7", 7), ("peer", None), ("4a", None)]
)
def test_peers_are_numbered_by_their_names(name: str, number: int | None) -> None:
    assert number_of(name) == number
