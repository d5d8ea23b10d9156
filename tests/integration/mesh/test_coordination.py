"""Who leads, who does which item, and who is given work, among several peers."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import chain

import pytest

from manta import Mesh
from manta.light.errors import Timeout
from manta.mesh.coordinators import Leader, Market, Outcome, Sharing
from manta.mesh.errors import MeshLost
from tests.integration.mesh.conftest import PATIENCE, Peers

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def undo() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def kill(mesh: Mesh) -> None:
    os.kill(mesh._client.pid, signal.SIGKILL)


def test_the_lowest_id_leads_and_the_next_one_when_it_dies(peers: Peers, undo: ExitStack) -> None:
    peers.add(3)
    peers.meet(3)
    ranked = sorted(peers.all, key=lambda mesh: mesh.id)
    leaders = {mesh: undo.enter_context(mesh.leader("it")) for mesh in ranked}

    def told(mesh: Mesh, after: int) -> tuple[str, bool]:
        found = leaders[mesh].wait(after, PATIENCE)
        return found.leader, found.is_me

    first = peers.each(lambda mesh: told(mesh, 0))
    assert set(first) == {(ranked[0].id, True), (ranked[0].id, False)}
    epochs = {leaders[mesh].wait(0, PATIENCE).epoch for mesh in ranked}
    assert len(epochs) == 1
    kill(ranked[0])
    left = ranked[1:]
    assert set(peers.each(lambda mesh: told(mesh, max(epochs)), left)) == {
        (ranked[1].id, True),
        (ranked[1].id, False),
    }
    with pytest.raises(MeshLost):
        leaders[ranked[0]].wait(max(epochs), PATIENCE)


def test_who_does_not_take_part_is_waited_for(peers: Peers, undo: ExitStack) -> None:
    peers.add(2)
    peers.meet(2)
    first = min(peers.all, key=lambda mesh: mesh.id)
    leader: Leader = undo.enter_context(first.leader())
    assert leader.now is None
    with pytest.raises(Timeout, match="in vain for a leader"):
        leader.wait(timeout=0.3)


def test_each_item_is_done_once(peers: Peers, undo: ExitStack) -> None:
    peers.add(3)
    peers.meet(3)
    shares = {mesh: undo.enter_context(mesh.share(12)) for mesh in peers.all}

    def work(mesh: Mesh) -> list[int]:
        mine = []
        for item in shares[mesh].items(PATIENCE):
            mine.append(item.number)
            shares[mesh].done(item, item.number**2)
        return mine

    assert sorted(chain.from_iterable(peers.each(work))) == list(range(12))
    for found in peers.each(lambda mesh: shares[mesh].wait(PATIENCE)):
        assert [(one.run, one.result) for one in found] == [(1, n**2) for n in range(12)]


def test_what_a_lost_worker_had_is_done_again(peers: Peers, undo: ExitStack) -> None:
    peers.add(3)
    peers.meet(3)
    shares: dict[Mesh, Sharing] = {
        mesh: undo.enter_context(mesh.share(9, "squares")) for mesh in peers.all
    }
    lost = next(mesh for mesh in peers.all if mesh.rank == 1)
    left = [mesh for mesh in peers.all if mesh is not lost]
    begun = next(shares[lost].items(PATIENCE))
    kill(lost)

    def work(mesh: Mesh) -> list[tuple[int, int]]:
        mine = []
        for item in shares[mesh].items(PATIENCE):
            mine.append((item.number, item.run))
            shares[mesh].done(item)
        return mine

    done = dict(chain.from_iterable(peers.each(work, left)))
    assert sorted(done) == list(range(9))
    assert done[begun.number] == 2
    for found in peers.each(lambda mesh: shares[mesh].wait(PATIENCE), left):
        assert {one.worker for one in found} <= {mesh.id for mesh in left}
    with pytest.raises(ValueError, match="is not being done here"):
        shares[left[0]].done(begun)


def test_work_goes_to_those_that_offer_room_and_again_when_one_dies(
    peers: Peers, undo: ExitStack
) -> None:
    peers.add(3)
    peers.meet(3)
    manager, small, large = peers.each(lambda mesh: mesh)
    markets: dict[Mesh, Market] = {
        mesh: undo.enter_context(mesh.market(room, "work"))
        for mesh, room in ((manager, 0), (small, 4), (large, 6))
    }
    markets[manager].offer("frames", 10)
    lost = next(markets[large].parts(PATIENCE))
    assert (lost.manager, lost.work, lost.units) == (manager.id, "frames", 6)
    part = next(markets[small].parts(PATIENCE))
    assert part.units == 4
    with pytest.raises(ValueError, match="give another name"):
        markets[manager].offer("frames", 1)
    kill(large)

    def work() -> None:
        markets[small].done(part)
        for more in markets[small].parts(PATIENCE):
            markets[small].done(more)
            if more.units < 4:
                return

    working = threading.Thread(target=work)
    working.start()
    assert markets[manager].outcome("frames", PATIENCE) == Outcome(10, 0, 6)
    working.join()
    assert not markets[small].is_wanted(part)
