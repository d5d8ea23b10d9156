"""Who may fetch which blobs from a node."""

from __future__ import annotations

from typing import Any

import pytest

from manta.node.link import blob_server
from manta.node.link.blob_server import BlobOffers
from manta.node.peers.book import PeersAnew
from manta.node.peers.directory import DirectoryChanged, DirectoryOver
from manta.protocol.peers import Departed, Peer
from manta.transports.bulk.options import Verdict
from manta.transports.errors import BlobMissing
from manta.transports.security.admission import Standing

ONE, TWO = "1" * 64, "2" * 64


def directory(swarm_id: str, *keys: str, gone: str = "") -> DirectoryChanged:
    peers = tuple(Peer(f"id-{key}", f"node-{key}", key) for key in keys)
    departed = (Departed(f"id-{gone}", f"node-{gone}", gone, "revoked"),) if gone else ()
    return DirectoryChanged(swarm_id, "epoch", False, peers, departed)


def test_a_blob_is_for_the_nodes_of_the_swarm_for_which_it_was_fetched() -> None:
    offers = BlobOffers()
    offers.told(directory("s", "a", "b"))
    offers.told(directory("t", "c"))
    offers.offer(ONE, "s")
    assert offers.verdict("a", "fetch", ONE, 1) is Verdict.GRANTED
    assert offers.verdict("c", "fetch", ONE, 1) is not Verdict.GRANTED
    assert offers.verdict("a", "fetch", TWO, 1) is Verdict.REFUSED
    assert offers.admission.standing("c") is Standing.KNOWN
    assert offers.admission.standing("d") is Standing.DENIED


def test_nobody_pushes_to_a_node() -> None:
    offers = BlobOffers()
    offers.told(directory("s", "a"))
    offers.offer(ONE, "s")
    assert offers.verdict("a", "push", ONE, 1) is Verdict.REFUSED


def test_a_node_that_is_revoked_or_whose_swarm_is_over_is_cut_off_at_once() -> None:
    offers = BlobOffers()
    cut: list[str] = []
    offers.admission.watch(cut.append)
    offers.told(directory("s", "a", "b"))
    offers.offer(ONE, "s")
    offers.told(directory("s", gone="b"))
    assert cut == ["b"]
    assert offers.admission.denies("b")
    offers.told(DirectoryOver("s"))
    assert cut == ["b", "a"]
    assert offers.verdict("a", "fetch", ONE, 1) is Verdict.REFUSED


def test_who_is_told_anew_forgets_what_it_knew() -> None:
    offers = BlobOffers()
    offers.told(directory("s", "a"))
    offers.told(PeersAnew((directory("s", "b"),), ()))
    assert offers.admission.denies("a")
    assert not offers.admission.denies("b")


def test_what_is_offered_is_bounded(monkeypatch) -> None:
    monkeypatch.setattr(blob_server, "MOST", 2)
    offers = BlobOffers()
    offers.told(directory("s", "a"))
    for digest in (ONE, TWO, "3" * 64):
        offers.offer(digest, "s")
    assert offers.verdict("a", "fetch", ONE, 1) is Verdict.REFUSED
    assert offers.verdict("a", "fetch", TWO, 1) is Verdict.GRANTED


def test_a_swarm_is_given_what_comes_for_it_and_not_what_is_here_of_another() -> None:
    offers = BlobOffers()
    comes: Any = object()
    other: Any = object()
    offers.told(directory("s", "a", "c"))
    offers.told(directory("t", "b", "c"))
    with pytest.raises(BlobMissing):
        offers.given("a", ONE)
    offers.offer(ONE, "t")
    offers.offer(ONE, "s", comes)
    # The last one is of both.
    assert [offers.given(key, ONE) for key in "abc"] == [comes, None, None]
    assert (offers.is_of(ONE, "s"), offers.is_of(ONE, "t")) == (False, True)
    offers.withdraw(ONE, "s", other)
    assert [offers.given("a", ONE)] == [comes]
    offers.withdraw(ONE, "s", comes)
    with pytest.raises(BlobMissing):
        offers.given("a", ONE)
    assert offers.verdict("a", "fetch", ONE, 1) is not Verdict.GRANTED
    offers.offer(ONE, "s")
    offers.withdraw(ONE, "s", comes)
    assert offers.given("a", ONE) is None
    assert offers.is_of(ONE, "s")
