"""How large values go where the port for them is not reached, or none is wanted."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from manta.node.plane import bulk_paths, value_files
from manta.node.plane.envelope import BulkAt
from manta.protocol.peers import LinkKind
from manta.transports.sealed import dialler
from manta.transports.sealed.endpoint import BulkEndpoint
from manta.transports.sealed.peer import BulkPeer
from tests.integration.node.test_plane_links import is_linked, letters_pass, wait
from tests.integration.node.test_plane_relays import NOWHERE, Relay, is_relayed
from tests.support.planes import Node, Place, Planes


def bulk(lab: Planes, at: int) -> BulkPeer:
    """With the other, as that node has it."""
    peer: BulkPeer = lab.nodes[at].bulk.peer(lab.nodes[1 - at].peer.key)
    return peer


@contextmanager
def two_nodes(folder: Path, *places: Place) -> Iterator[Planes]:
    nodes: list[Node] = []
    try:
        for number, place in enumerate(places, 1):
            nodes.append(Node(number, folder / str(number), place))
        yield Planes(nodes)
    finally:
        for node in nodes:
            node.close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk_paths, "LOOK", 0.2)
    monkeypatch.setattr(dialler, "SELDOM", 0.2)


@pytest.mark.usefixtures("quick")
def test_where_the_port_for_large_values_is_shut_they_go_over_the_link_until_it_is_open(
    tmp_path: Path,
) -> None:
    with (
        closing(socket.socket()) as shut,
        two_nodes(tmp_path, Place(), Place()) as lab,
    ):
        shut.bind(("127.0.0.1", 0))  # nobody listens there yet
        one, two = lab.nodes
        port = shut.getsockname()[1]
        tell = two.plane.paths.link_up

        def told(key: str) -> BulkAt:
            at = tell(key)
            return BulkAt(port, at.ticket, at.mark)

        two.plane.paths.link_up = told  # type: ignore[method-assign]
        lab.introduce(n1=())  # so that the first node dials
        letters_pass(lab)
        assert bulk(lab, 0).is_makeshift
        assert bulk(lab, 1).is_makeshift
        wait(lambda: one.reported and str(port) in one.reported[0].error, 30.0)
        [link] = one.reported
        assert link.kind == LinkKind.DIRECT
        assert "large values go over the link" in link.error
        wait(lambda: two.reported and "open port" in two.reported[0].error, 30.0)
        shut.listen()
        two.bulk.listen(f"tcp://127.0.0.1:{port}", fd=shut.fileno())
        wait(lambda: bulk(lab, 0).connected and not bulk(lab, 0).is_makeshift)
        wait(lambda: bulk(lab, 1).connected and not bulk(lab, 1).is_makeshift)
        letters_pass(lab, iteration=1)
        wait(lambda: not one.reported[0].error, 30.0)


@pytest.mark.parametrize("over_links", [(True, False), (False, True), (True, True)])
def test_where_one_of_two_wants_it_so_large_values_go_over_the_link_alone(
    tmp_path: Path, over_links: tuple[bool, bool]
) -> None:
    with two_nodes(tmp_path, *(Place(over_links=each) for each in over_links)) as lab:
        lab.introduce()
        letters_pass(lab)
        for at in (0, 1):
            assert bulk(lab, at).connected
            assert not bulk(lab, at).is_makeshift  # nothing better is tried for
            assert bulk(lab, at).sent == 1_000_000
            assert not lab.nodes[at].bulk._diallers
        wait(lambda: lab.nodes[0].reported, 30.0)
        assert not lab.nodes[0].reported[0].error


def test_a_disk_that_hangs_holds_up_no_letter_on_their_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs, may_go, nameless = threading.Event(), threading.Event(), value_files.nameless

    def made(folder: Path, size: int) -> int:
        hangs.set()
        assert may_go.wait(20)
        return nameless(folder, size)

    monkeypatch.setattr(value_files, "nameless", made)
    with two_nodes(tmp_path, Place(over_links=True), Place(most=0)) as lab:
        lab.introduce()
        lab.enroll()
        one, two = (lab.nodes[rank].attempt(lab.at(rank)) for rank in (0, 1))
        also = lab.nodes[1].connect(lab.at(1))
        large = os.urandom(1_000_000)
        one.call("send_letter", to="id-2", tag="large", value=large, timeout=20.0)
        two.begin("receive_letter", source="id-1", tag="large", number=0, timeout=20.0)
        try:
            assert hangs.wait(20)
            one.call("send_letter", to="id-2", tag="t", value=b"small", timeout=20.0)
            told = also.call("receive_letter", source="id-1", tag="t", number=0, timeout=20.0)
            assert told == b"small"
        finally:
            may_go.set()
        assert two.end() == large
        for end in (one, two, also):
            end.close()


def test_so_they_do_over_a_relayed_link(tmp_path: Path) -> None:
    with closing(Relay()) as relay:
        place = Place(relay=relay.at, over_links=True)
        with two_nodes(tmp_path, place, replace(place, over_links=False)) as lab:
            relay.admit(*lab.nodes)
            lab.introduce(**NOWHERE)
            letters_pass(lab)
            assert is_relayed(lab, 0, 1)
            assert len(relay.transport.hub) == 1  # no stream for them besides the link's


@pytest.mark.usefixtures("quick")
def test_a_link_that_is_made_anew_carries_large_values_again(tmp_path: Path) -> None:
    with two_nodes(tmp_path, Place(over_links=True), Place()) as lab:
        lab.introduce()
        letters_pass(lab)
        one, two = lab.nodes
        one.run(one.plane.links.end, two.peer.key, "a test")
        wait(lambda: is_linked(lab, 0, 1) and is_linked(lab, 1, 0))
        letters_pass(lab, iteration=1)


def test_who_says_anew_all_the_time_where_it_listens_is_not_dialled_as_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dialled: list[str] = []

    def refused(self: dialler.Dialler, address: str) -> socket.socket:
        dialled.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(dialler.Dialler, "_dial", refused)
    monkeypatch.setattr(dialler, "SELDOM", 1.0)
    with two_nodes(tmp_path, Place(), Place()) as lab:
        one, two = lab.nodes
        lab.introduce(n1=())
        wait(lambda: dialled)
        ticket = BulkEndpoint.ticket(one.bulk, two.peer.key).pack()
        for port in range(1, 201):
            one.run(one.plane.paths.told, two.peer.key, BulkAt(port, ticket))
        wait(lambda: "tcp://127.0.0.1:200" in dialled)
        assert len(dialled) < 30
