"""A mesh of peers on this machine."""

from __future__ import annotations

import os
import signal
import socket
import threading

import numpy
import pytest

from manta import Mesh
from manta.light.errors import PeerLost, Timeout, UnknownPeer
from manta.mesh.errors import JoinFailed, MeshLost
from manta.mesh.settings import Keys
from manta.transports.security.keys import KeyPair
from tests.integration.mesh.conftest import PATIENCE, SECRET, Peers

pytestmark = pytest.mark.timeout(300)


def test_peers_that_joined_by_one_of_them_exchange_as_tasks_do(peers: Peers) -> None:
    peers.add(4)
    peers.meet(4)
    assert peers.each(lambda mesh: mesh.size) == [4] * 4
    assert peers.each(lambda mesh: mesh.rank) == [0, 1, 2, 3]
    assert len({tuple(mesh.peers) for mesh in peers.all}) == 1
    assert peers.each(lambda mesh: mesh.all_reduce(mesh.rank)) == [6] * 4
    array = numpy.arange(300_000, dtype="float32")
    for found in peers.each(lambda mesh: mesh.all_reduce(array)):
        assert numpy.array_equal(found, 4 * array)
    gathered = peers.each(lambda mesh: mesh.gather(mesh.rank, root=1))
    assert gathered == [None, [0, 1, 2, 3], None, None]
    given = peers.each(lambda mesh: mesh.scatter("abcd" if mesh.rank == 2 else None, root=2))
    assert given == ["a", "b", "c", "d"]
    assert peers.each(lambda mesh: mesh.barrier()) == [None] * 4
    one, *others = peers.each(lambda mesh: mesh)
    one.send(others[0].name, "greeting", {"to": "you"})
    one.send(others[0].id, "greeting", array)
    assert others[0].receive(one.name, "greeting", PATIENCE) == {"to": "you"}
    assert numpy.array_equal(others[0].receive(one.id, "greeting", PATIENCE), array)
    one.broadcast("news", [1, 2])
    assert [mesh.get_broadcast("news", PATIENCE) for mesh in others] == [[1, 2]] * 3
    with pytest.raises(UnknownPeer, match="no peer 'nobody'"):
        one.send("nobody", "greeting", 1)


def test_a_wrong_secret_does_not_let_in(peers: Peers) -> None:
    (one,) = peers.add()
    with pytest.raises(JoinFailed, match=f"{one.address} does not let this peer into the mesh"):
        Mesh.join(peers=[one.address], secret="another", timeout=PATIENCE)
    assert [known["state"] for known in one.status()["peers"]] == ["self"]


def test_nobody_at_the_address_is_an_error_that_names_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    with pytest.raises(JoinFailed, match=f"No peer of the mesh was reached within 1 s: {address}"):
        Mesh.join(peers=[address], secret=SECRET, timeout=1.0)


def test_a_peer_whose_only_address_is_its_own_is_the_first_in_its_mesh() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    with Mesh.join(listen=address, peers=[address], secret=SECRET, timeout=PATIENCE) as mesh:
        assert (mesh.rank, mesh.size, mesh.address) == (0, 1, address)
        assert mesh.all_reduce(5) == 5


def test_a_mesh_without_a_secret_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MANTA_MESH_SECRET", raising=False)
    with pytest.raises(JoinFailed, match="set MANTA_MESH_SECRET"):
        Mesh.join()


def test_two_meshes_with_one_secret_stay_apart(peers: Peers) -> None:
    (one,) = peers.add()
    with Mesh.join(secret=SECRET, timeout=PATIENCE) as other:
        with pytest.raises(Timeout, match="for 2 peers: 1 are in the view"):
            other.wait(2, timeout=1.0)
        assert (one.size, other.size) == (1, 1)


def test_peers_are_admitted_by_their_keys() -> None:
    pairs = [KeyPair.generate() for _ in range(3)]
    known = [pair.public for pair in pairs[:2]]
    with Mesh.join(secret=Keys(pairs[0].secret, known), timeout=PATIENCE) as one:
        keys = Keys(pairs[1].secret, known)
        with Mesh.join(peers=[one.address], secret=keys, timeout=PATIENCE) as two:
            waiting = threading.Thread(target=one.wait, args=(2, PATIENCE))
            waiting.start()
            two.wait(2, PATIENCE)
            waiting.join()
            assert {peer.node_id for peer in one.peers} == {one.id, two.id}
        stranger = Keys(pairs[2].secret, [*known, pairs[2].public])
        with pytest.raises(JoinFailed):
            Mesh.join(peers=[one.address], secret=stranger, timeout=PATIENCE)


def test_a_killed_peer_is_named_in_one_call_and_the_next_goes_on(peers: Peers) -> None:
    peers.add(4)
    peers.meet(4)
    lost = next(mesh for mesh in peers.all if mesh.rank == 2)
    left = [mesh for mesh in peers.all if mesh is not lost]
    os.kill(lost._client.pid, signal.SIGKILL)
    for error in peers.each(lambda mesh: mesh.all_reduce(1, timeout=PATIENCE), left):
        assert isinstance(error, PeerLost), error
        assert lost.name in str(error)
    assert peers.each(lambda mesh: mesh.all_reduce(1, timeout=PATIENCE), left) == [3] * 3
    assert peers.each(lambda mesh: mesh.size, left) == [3] * 3
    with pytest.raises(PeerLost, match="nothing is left there"):
        left[0].receive(lost.id, "anything", PATIENCE)
    with pytest.raises(MeshLost, match="has ended"):
        lost.barrier()


def test_a_peer_that_dies_while_another_joins_is_named_in_one_call(peers: Peers) -> None:
    peers.add(4)
    peers.meet(4)
    lost = next(mesh for mesh in peers.all if mesh.rank == 1)
    left = [mesh for mesh in peers.all if mesh is not lost]
    (new,) = peers.add()
    waiting = threading.Thread(target=new.wait, args=(4, PATIENCE))
    waiting.start()
    os.kill(lost._client.pid, signal.SIGKILL)
    reduce = lambda mesh: mesh.all_reduce(1, timeout=PATIENCE)  # noqa: E731
    while (found := peers.each(reduce, left)) == [4] * 3:  # what it gave before it died
        pass
    for error in found:
        assert isinstance(error, PeerLost), found
        assert lost.name in str(error)
    peers.meet(4, left)  # it may have come later than that was told
    waiting.join()
    assert peers.each(reduce, [*left, new]) == [4] * 4


def test_calls_that_go_on_without_the_lost_say_who_that_is(peers: Peers) -> None:
    peers.add(3)
    peers.meet(3)
    lost = next(mesh for mesh in peers.all if mesh.rank == 0)
    left = [mesh for mesh in peers.all if mesh is not lost]
    os.kill(lost._client.pid, signal.SIGKILL)
    reduce = lambda mesh: mesh.all_reduce(1, on_peer_lost="continue", timeout=PATIENCE)  # noqa: E731
    assert peers.each(reduce, left) == [2, 2]
    assert [list(mesh.left_out) for mesh in left] == [[0], [0]]
    assert peers.each(lambda mesh: mesh.size, left) == [2, 2]


def test_a_newcomer_changes_nobodys_size_between_two_calls(peers: Peers) -> None:
    peers.add(3)
    peers.meet(3)
    before = list(peers.all)
    joined = threading.Event()

    def call(mesh: Mesh) -> list[int]:
        sizes = [mesh.size]
        while sizes[-1] < 4 and len(sizes) < 100_000:
            expected = mesh.size
            assert len(mesh.all_gather(joined.is_set())) == expected
            sizes.append(mesh.size)
        return sizes

    def join() -> None:
        (new,) = peers.add()
        joined.set()
        new.wait(4, PATIENCE)

    joining = threading.Thread(target=join)
    joining.start()
    found = peers.each(call, before)
    joining.join()
    assert found[0] == found[1] == found[2]
    assert found[0][-2:] == [3, 4]
    assert peers.each(lambda mesh: mesh.all_reduce(1)) == [4] * 4


def leave_former_view(mesh: Mesh) -> None:
    """Its calls there, of which the last hears that others have left, are two at most."""
    former = mesh.status()["view"]["token"]
    for _ in range(2):
        try:
            found = mesh.all_reduce(1, on_peer_lost="continue", timeout=PATIENCE)
        except PeerLost:
            found = 0
        assert found in (0, 5 - len(mesh.left_out))
        if mesh.status()["view"]["token"] != former:
            return
    raise AssertionError("it is in its former view yet")


def test_frozen_peers_are_lost_and_come_back_and_leave_nothing_that_others_lack(
    peers: Peers, capfd: pytest.CaptureFixture[str]
) -> None:
    peers.add(5)
    peers.meet(5)
    frozen = [mesh for mesh in peers.all if mesh.rank >= 3]
    left = [mesh for mesh in peers.all if mesh.rank < 3]
    peers.each(lambda mesh: os.kill(mesh._client.pid, signal.SIGSTOP), frozen)
    try:
        reduce = lambda mesh: mesh.all_reduce(1, on_peer_lost="continue", timeout=PATIENCE)  # noqa: E731
        while left[0].size == 5:
            assert peers.each(reduce, left) == [3] * 3
        assert peers.each(lambda mesh: mesh.size, left) == [3] * 3
        left[0].send(frozen[0].id, "waits", "for you")
    finally:
        peers.each(lambda mesh: os.kill(mesh._client.pid, signal.SIGCONT), frozen)
    waiting = threading.Thread(target=peers.meet, args=(5, left))
    waiting.start()
    assert peers.each(leave_former_view, frozen) == [None, None]
    waiting.join()
    assert peers.each(lambda mesh: mesh.all_reduce(1, timeout=PATIENCE)) == [5] * 5
    assert frozen[0].receive(left[0].id, "waits", PATIENCE) == "for you"
    for mesh in (*frozen, *left):
        mesh.leave()
    assert "others lack what is theirs" not in capfd.readouterr().err


def test_a_peer_that_leaves_is_said_to_have_left(peers: Peers) -> None:
    peers.add(3)
    peers.meet(3)
    one, two, three = peers.each(lambda mesh: mesh)
    three.send(one.id, "last", "words")
    assert one.receive(three.id, "last", PATIENCE) == "words"
    three.leave()
    happened = []
    for event in one.events(PATIENCE):
        happened.append(event["event"])
        if event["event"] == "left":
            assert event["name"] == three.name
            break
    assert "died" not in happened
    with pytest.raises(PeerLost):
        one.receive(three.id, "last", PATIENCE)
    for error in peers.each(lambda mesh: mesh.barrier(PATIENCE), [one, two]):
        assert isinstance(error, PeerLost), error
        assert "has left the mesh" in str(error)
    assert peers.each(lambda mesh: mesh.barrier(PATIENCE), [one, two]) == [None, None]


def test_a_lock_is_one_peers_at_a_time_and_free_when_that_dies(peers: Peers) -> None:
    peers.add(3)
    peers.meet(3)
    inside: list[str] = []

    def count(mesh: Mesh) -> None:
        for _ in range(5):
            with mesh.lock("the lock", PATIENCE):
                inside.append(mesh.id)
                assert len(inside) == 1
                inside.remove(mesh.id)

    assert peers.each(count) == [None] * 3
    one, two, three = peers.each(lambda mesh: mesh)
    with one.lock("held"), pytest.raises(Timeout, match=f"'held' is held by {one.name}"):
        two.lock("held", timeout=0.5).__enter__()
    held = three.lock("held", PATIENCE)
    held.__enter__()
    os.kill(three._client.pid, signal.SIGKILL)
    with two.lock("held", PATIENCE):
        assert two.size == 3, "the loss is told in a call"
    with pytest.raises(MeshLost):
        held.__exit__(None, None, None)


def test_a_view_that_was_long_in_use_is_renewed(peers: Peers) -> None:
    peers.add(2)
    peers.meet(2)
    array = numpy.ones(8 << 20, dtype="float32")
    tokens = set()
    for _ in range(16):
        assert [float(found[0]) for found in peers.each(lambda m: m.all_reduce(array))] == [2.0] * 2
        tokens.add(peers.all[0].status()["view"]["token"])
    assert len(tokens) > 1
    assert peers.each(lambda mesh: mesh.size) == [2, 2]
