"""Nodes delete what no result names any more, and nothing else, whatever comes in between."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from manta.manager.cluster import frees as module
from manta.manager.cluster.frees import Frees
from manta.manager.cluster.orders import ClusterNode, NodeOrders
from manta.manager.store.records import NodeRecord
from manta.manager.swarm.events import Freed, Needed
from manta.manager.swarm.messages import Orders, Restored
from manta.protocol.node import JournalAck
from manta.protocol.spread import FreedResults, FreeResults
from manta.protocol.user import SwarmInfo

A, B, C = (sign * 64 for sign in "abc")
Then = Callable[[FreedResults | None, BaseException | None], None]


class Lab:
    """A node, and who speaks to it: stands for the actor and for the node's link."""

    log = logging.getLogger("test")

    def __init__(self) -> None:
        self.told: list[Any] = []
        """What the node was told, in order."""
        self.asked: list[Then] = []
        record = NodeRecord("n", "cluster", "key", "node", 0.0)
        self.node = ClusterNode(record, link=self)  # type: ignore[arg-type]
        nodes = {"n": self.node}
        self.frees = Frees(self, nodes)  # type: ignore[arg-type]
        self.orders = NodeOrders(self, nodes, lambda *_: None, self.frees)  # type: ignore[arg-type]

    def tell(self, message: Any) -> None:
        self.told.append(message)

    def ask_future(self, message: Any, timeout: float) -> None:
        self.told.append(message)

    def pipe(self, future: None, then: Then) -> None:
        self.asked.append(then)

    def answers(self, *kept: str) -> None:
        self.asked.pop(0)(FreedResults(kept), None)

    def is_lost(self) -> None:
        self.asked.pop(0)(None, TimeoutError("it does not answer"))

    def freed(self) -> list[tuple[str, ...]]:
        """The digests of each message since this was called last."""
        told, self.told = self.told, []
        return [one.digests for one in told if isinstance(one, FreeResults)]


@pytest.fixture
def lab() -> Lab:
    return Lab()


def test_a_node_is_told_once_and_again_of_what_it_kept_or_did_not_hear(lab: Lab) -> None:
    lab.frees.add("n", "s", [A, B])
    lab.frees.add("n", "s", [C])
    assert lab.freed() == [(A, B)]
    lab.is_lost()
    assert lab.freed() == []
    lab.frees.tell("n")
    assert lab.freed() == [(C, A, B)]
    lab.answers(A)
    assert lab.freed() == []
    lab.frees.tell("n")  # after a heartbeat
    assert lab.freed() == [(A,)]
    lab.answers()
    lab.frees.tell("n")
    assert lab.freed() == []


def test_what_a_node_keeps_holds_up_nothing_else(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_FREED", 1)
    lab.frees.add("n", "s", [A, B])
    lab.frees.add("n", "other", [C])
    lab.answers(A)
    for digest in (C, A, B):
        lab.frees.tell("n")
        lab.answers(digest)
    assert lab.freed() == [(A,), (C,), (B,), (C,)]


@pytest.mark.parametrize("when", ["before it is told", "while it is asked", "after it kept it"])
def test_what_another_result_needs_is_not_freed_though_no_swarm_is_there_to_ask(
    lab: Lab, when: str
) -> None:
    lab.node.link = None if when == "before it is told" else lab.node.link
    lab.orders.apply(Orders("s", changes=(Freed("n", (A, B)),)))
    if when == "after it kept it":
        lab.answers(A)
    lab.orders.apply(Orders("s", changes=(Needed("n", A),)))
    lab.node.link = lab  # type: ignore[assignment]
    if when == "while it is asked":
        lab.answers(A)
    lab.freed()
    lab.frees.tell("n")
    assert lab.freed() == ([(B,)] if when == "before it is told" else [])


def test_the_node_is_told_to_keep_the_other_result_no_longer_only_after_its_value_is_spared(
    lab: Lab,
) -> None:
    """Else it could delete the value between the two."""
    seen: list[str] = []
    needed, tell = lab.frees.needed, lab.tell

    def notes_needed(node_id: str, swarm_id: str, digest: str) -> None:
        seen.append("needed")
        needed(node_id, swarm_id, digest)

    def notes_ack(message: Any) -> None:
        seen.append(type(message).__name__)
        tell(message)

    lab.frees.needed = notes_needed  # type: ignore[method-assign]
    lab.tell = notes_ack  # type: ignore[method-assign]
    ack = JournalAck("s", 1)
    lab.orders.apply(Orders("s", changes=(Needed("n", A),), messages=(("n", ack),)))
    assert seen == ["needed", "JournalAck"]


def test_what_is_freed_anew_while_the_node_is_asked_is_told_anew(lab: Lab) -> None:
    lab.frees.add("n", "s", [A])
    lab.frees.needed("n", "s", A)
    lab.frees.add("n", "s", [A])
    assert lab.freed() == [(A,)]
    lab.answers()
    assert lab.freed() == [(A,)]
    lab.answers()
    assert lab.freed() == []


def test_a_swarm_that_is_loaded_again_has_freed_what_its_log_says_and_no_more(lab: Lab) -> None:
    lab.frees.add("n", "s", [A, B])
    info = SwarmInfo("s", "swarm", "cluster", "ACTIVE")
    lab.orders.restored(Restored("s", info, {}, {}, freed={"n": (B, C)}), runs=False)
    assert lab.freed() == [(A, B)]
    lab.answers(A, B)
    lab.frees.tell("n")
    assert lab.freed() == [(B, C)]
    lab.answers()


def test_nothing_is_told_of_swarms_and_nodes_that_were_removed(lab: Lab) -> None:
    lab.frees.add("n", "s", [A])
    lab.frees.removed("s")
    lab.answers(A)
    lab.frees.add("n", "s", [B])
    lab.frees.forget("n")
    lab.answers(B)
    lab.frees.add("gone", "s", [C])
    lab.freed()
    lab.frees.tell("n")
    assert lab.freed() == []
