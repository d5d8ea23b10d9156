"""Planes of one user's nodes on one machine: what they share instead of sending it."""

from __future__ import annotations

import os
import socket
from contextlib import closing
from pathlib import Path
from typing import cast

import pytest

from manta.node.plane.local import LocalSocket
from manta.node.plane.parcels import SEALS
from manta.protocol.peers import LinkKind
from manta.transports.errors import DownReason
from tests.integration.node.test_plane_links import is_linked, letters_pass, wait
from tests.support.planes import Node, Place, Planes, memory, planes


def bulk_state(lab: Planes, at: int, other: int) -> DownReason | None:
    return lab.nodes[at].bulk.peer(lab.nodes[other].peer.key).state


def is_local(node: Node, other: Node) -> bool:
    return bool(node.run(node.plane.paths.is_local, other.peer.key))


def test_a_large_value_is_shared_with_a_node_of_this_machine(tmp_path: Path) -> None:
    with planes(2, local=tmp_path) as lab:
        lab.introduce()
        lab.enroll()
        one, two = (node.attempt(lab.at(rank)) for rank, node in enumerate(lab.nodes))
        fd = memory(os.urandom(3_000_000), SEALS)
        letter = {"k": "send_letter", "n": 1, "to": "id-2", "tag": "x", "value": [3_000_000]}
        one.socket.send({**letter, "timeout": 20.0}, (fd,))
        assert one.socket.receive() is not None
        two.begin("receive_letter", source="id-1", tag="x", number=0, timeout=20.0)
        received = two.socket.receive()
        assert received is not None
        message, (got,) = received
        assert message["size"] == 3_000_000
        assert os.path.sameopenfile(fd, got)
        assert is_local(lab.nodes[0], lab.nodes[1])
        assert is_local(lab.nodes[1], lab.nodes[0])
        for each in (fd, got):
            os.close(each)
        for end in (one, two):
            end.close()


def test_nodes_of_one_machine_that_are_to_be_linked_as_others_are_share_nothing(
    tmp_path: Path,
) -> None:
    """One of both is enough."""
    with planes(1, local=tmp_path) as lab:
        lab.nodes.append(Node(2, tmp_path / "other", Place()))
        lab.introduce()
        letters_pass(lab)
        one, other = lab.nodes
        assert not is_local(one, other)
        assert not is_local(other, one)


def test_a_socket_that_is_gone_leaves_the_network(tmp_path: Path) -> None:
    with planes(2, local=tmp_path) as lab:
        for path in tmp_path.iterdir():
            path.unlink()
        lab.introduce()
        letters_pass(lab)
        assert not is_local(lab.nodes[0], lab.nodes[1])


def test_only_who_shares_the_machine_learns_that_a_node_is_there(tmp_path: Path) -> None:
    with planes(3, local=tmp_path) as lab:
        one, two, three = (cast("LocalSocket", node.plane.paths._socket) for node in lab.nodes)
        keys = [node.peer.key for node in lab.nodes]
        mark = one.mark(keys[1])
        assert two.find(keys[0], mark) is not None
        assert three.find(keys[0], mark) is None  # it was for another
        assert one.find(keys[1], mark) is None  # said back to whoever said it
        assert two.find(keys[2], mark) is None
        for other in ("", mark[::-1], "ä" * 32):
            assert two.find(keys[0], other) is None
        assert not any(key in mark or str(tmp_path) in mark for key in keys)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
def test_another_user_s_socket_is_left_alone(tmp_path: Path) -> None:
    with planes(2, local=tmp_path) as lab:
        one, two = lab.nodes
        here = cast("LocalSocket", one.plane.paths._socket)
        address = here.find(two.peer.key, said(two, one))
        assert address is not None
        path = Path(address.removeprefix("unix://"))
        path.unlink()
        ready, told = os.pipe()
        child = os.fork()
        if not child:
            try:
                listening = socket.socket(socket.AF_UNIX)
                listening.bind(str(path))
                os.setuid(65534)
                listening.listen()  # whose user is then told of it
                os.write(told, b"x")
                listening.accept()[0].recv(1)
            finally:
                os._exit(0)
        os.close(told)
        assert os.read(ready, 1) == b"x"
        os.close(ready)
        assert here.find(two.peer.key, said(two, one)) is None
        os.waitpid(child, 0)


def said(teller: Node, told: Node) -> str:
    return cast("LocalSocket", teller.plane.paths._socket).mark(told.peer.key)


def test_sockets_of_planes_that_were_killed_are_taken_away(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with (
        closing(socket.socket(socket.AF_UNIX)) as killed,
        closing(socket.socket(socket.AF_UNIX)) as new,
    ):
        for sock, name in ((killed, "killed"), (new, "new")):
            sock.bind(str(tmp_path / name))
        os.utime(tmp_path / "killed", (0, 0))
        with planes(1, local=tmp_path):
            assert not (tmp_path / "killed").exists()
            assert (tmp_path / "new").exists()


def test_a_link_by_what_a_machine_shares_ends_with_the_key(tmp_path: Path) -> None:
    with planes(2, local=tmp_path) as lab:
        lab.introduce()
        letters_pass(lab)
        wait(lambda: bulk_state(lab, 1, 0) is None)
        one, two = lab.nodes
        one.run(one.plane.links.forget, [two.peer.key])
        wait(lambda: not is_linked(lab, 1, 0), 1.0)
        wait(lambda: bulk_state(lab, 1, 0) is not None, 1.0)


def test_what_became_of_links_is_reported(tmp_path: Path) -> None:
    with planes(2, local=tmp_path) as lab:
        lab.introduce()
        letters_pass(lab)
        one, two = lab.nodes
        wait(lambda: one.reported and one.reported[0].round_trip, 30.0)
        [link] = one.reported
        assert (link.node_id, link.alias, link.kind) == ("id-2", "node-2", LinkKind.LOCAL)
        assert link.sent > 1_000_000
        assert link.received > 1_000_000
        assert 0 < link.round_trip < 10
        one.run(one.plane.links.forget, [two.peer.key])
        wait(lambda: [one.kind for one in two.reported] == [LinkKind.DOWN])
        wait(lambda: "denied" in two.reported[0].error)
