"""Peers that leave as soon as they have what they came for."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest

from manta import Mesh
from manta.light.errors import PeerLost
from tests.integration.mesh.conftest import PATIENCE, Peers
from tests.integration.mesh.test_run import manta

pytestmark = pytest.mark.timeout(300)

LARGE = 300_000
CALLS: dict[str, tuple[Callable[[Mesh], Any], Any]] = {
    "all_reduce": (lambda mesh: mesh.all_reduce(mesh.rank), 6),
    "reduce_scatter": (lambda mesh: mesh.reduce_scatter(numpy.ones(4))[0], 4.0),
    "all_gather": (lambda mesh: mesh.all_gather(mesh.rank), [0, 1, 2, 3]),
    "barrier": (lambda mesh: mesh.barrier(), None),
    "scatter": (lambda mesh: mesh.scatter([7] * 4 if mesh.rank == 0 else None), 7),
    "large all_reduce": (lambda mesh: mesh.all_reduce(numpy.ones(LARGE)).sum(), 4.0 * LARGE),
    "large all_gather": (lambda mesh: len(mesh.all_gather(numpy.ones(LARGE))), 4),
    "large scatter": (
        lambda mesh: mesh.scatter([numpy.ones(LARGE)] * 4 if mesh.rank == 0 else None).size,
        LARGE,
    ),
    "large gather": (
        lambda mesh: len(mesh.gather(numpy.ones(LARGE)) or ()) + 4 * (mesh.rank > 0),
        4,
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_who_leaves_after_a_call_leaves_nobody_without_what_comes_of_it(
    peers: Peers, name: str
) -> None:
    call, expected = CALLS[name]
    peers.add(4)
    peers.meet(4)

    def last(mesh: Mesh) -> Any:
        with mesh:
            return call(mesh)

    assert peers.each(last) == [expected] * 4


def test_a_script_whose_peers_end_with_a_call_ends_well_again_and_again(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from manta import Mesh\nwith Mesh.join(timeout=100) as mesh:\n"
        "    print(len(mesh.all_gather(mesh.id)))\n"
    )
    for _ in range(3):
        several: list[subprocess.Popen[str]] = [
            manta("mesh", "run", script, "--peers", 3) for _ in range(3)
        ]
        for out, err in [one.communicate() for one in several]:
            assert sorted(out.splitlines()) == [f"peer-{at} | 3" for at in range(3)], out + err


def gone(mesh: Mesh, other: Mesh) -> None:
    for event in mesh.events(PATIENCE):
        if event["event"] == "left" and event["id"] == other.id:
            return
    raise AssertionError("it has not left")


def test_letters_and_broadcasts_are_there_though_their_sender_has_left(peers: Peers) -> None:
    peers.add(3)
    peers.meet(3)
    sender, *others = peers.each(lambda mesh: mesh)
    array = numpy.arange(LARGE, dtype="float32")
    for mesh in others:
        sender.send(mesh.id, "small", "word")
        sender.send(mesh.id, "large", array)
    sender.broadcast("news", array)
    sender.leave()
    for mesh in others:
        gone(mesh, sender)
        assert mesh.receive(sender.id, "small", PATIENCE) == "word"
        assert numpy.array_equal(mesh.receive(sender.id, "large", PATIENCE), array)
        assert numpy.array_equal(mesh.get_broadcast("news", PATIENCE), array)
        with pytest.raises(PeerLost):
            mesh.receive(sender.id, "small", PATIENCE)


def test_items_that_a_peer_has_done_count_though_it_has_left(peers: Peers) -> None:
    peers.add(3)
    peers.meet(3)
    sharings = {mesh: mesh.share(6, "items") for mesh in peers.all}
    first = peers.all[2]
    done = []
    for item in sharings[first].items(PATIENCE):
        sharings[first].done(item, "by the first")
        done.append(item.number)
        break
    first.leave()
    others = [mesh for mesh in peers.all if mesh is not first]

    def work(mesh: Mesh) -> list[Any]:
        for item in sharings[mesh].items(PATIENCE):
            sharings[mesh].done(item, "by another")
        return [one.result for one in sharings[mesh].wait(PATIENCE)]

    for results in peers.each(work, others):
        assert [at for at, one in enumerate(results) if one == "by the first"] == done
        assert len(results) == 6


def test_who_leaves_waits_a_while_for_those_that_do_not_come_and_says_so_to_them(
    peers: Peers,
) -> None:
    peers.add(2)
    peers.meet(2)
    root, other = peers.each(lambda mesh: mesh)
    array = numpy.ones(LARGE)
    assert other.gather(array, root=0) is None
    other.leave()
    gone(root, other)
    with pytest.raises(PeerLost, match="has left the mesh"):
        root.gather(array, root=0, timeout=PATIENCE)
