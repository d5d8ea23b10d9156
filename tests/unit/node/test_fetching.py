"""A blob that is being fetched, and whom the manager is asked for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from manta.node.link.fetching import Fetching, FetchKey
from manta.protocol.peers import Peer
from manta.protocol.spread import MOST_FAILED, SPREAD
from manta.protocol.values import BlobRef


def fetching(holder: str = "", size: int = SPREAD) -> Any:
    arriving: Any = SimpleNamespace(written=0)
    return Fetching(BlobRef("a" * 64, size), "swarm", holder, arriving, [], 100.0)


def test_it_is_given_up_once_nothing_more_comes() -> None:
    one = fetching()
    assert not one.is_late(99.0, 100.0)
    one.arriving.written = 10
    assert not one.is_late(150.0, 100.0)
    assert not one.is_late(249.0, 100.0)
    one.arriving.written = 0  # it began anew, and has to come further than before
    assert not one.is_late(249.0, 100.0)
    one.arriving.written = 10
    assert one.is_late(250.0, 100.0)


def test_what_the_manager_says_is_any_swarms_and_what_a_node_says_its_own() -> None:
    assert fetching().key == FetchKey("a" * 64, "")
    assert fetching("node").key == FetchKey("a" * 64, "swarm")


def test_what_stays_on_a_node_is_never_fetched_without_asking() -> None:
    small, held = fetching(size=10), fetching("node", size=10)
    assert not small.may_spread
    assert held.may_spread
    for number in range(MOST_FAILED):
        assert not held.question().recall
        held.failed_at(Peer(f"n{number}", "alias", "key"))
    assert held.question().recall
    held.failed_at(Peer("one more", "alias", "key"))
    assert len(held.question().failed) == MOST_FAILED
    assert held.may_spread
