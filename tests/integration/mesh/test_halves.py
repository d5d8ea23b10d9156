"""Half of the peers are frozen, then the other half, each a process of its own; all go on."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from typing import Any

import pytest

from tests.integration.mesh.conftest import PATIENCE, SECRET
from tests.support.children import Child, freeze
from tests.support.conversation import Conversation

pytestmark = pytest.mark.timeout(400)

CHILD = """
import json, sys
import numpy
from manta import Mesh
from manta.light.errors import PeerLost

place, size = int(sys.argv[1]), int(sys.argv[2])
door, secret, patience = sys.argv[3], sys.argv[4], float(sys.argv[5])
calls = 0

def wait(mesh):
    mesh.wait(size, patience)
    return [peer.node_alias for peer in mesh.peers]

def count(mesh):
    '''Who is there, who is left out, and which call of each peer is in the sum.'''
    global calls
    calls += 1
    given = numpy.zeros(size, dtype="int64")
    given[place] = calls
    there = [peer.node_alias for peer in mesh.peers]
    try:
        found = mesh.all_reduce(given, on_peer_lost="continue", timeout=patience).tolist()
    except PeerLost as error:
        return [there, str(error), None]
    return [there, [there[rank] for rank in mesh.left_out], found]

def send(mesh, to, number):
    mesh.send(to, "letter", number, patience)

def receive(mesh, source):
    return mesh.receive(source, "letter", patience)

peers = [door] if door else []
with Mesh.join(None, peers, secret, f"peer-{place}", timeout=patience) as mesh:
    print(json.dumps([mesh._client.pid, mesh.address]), flush=True)
    for line in sys.stdin:
        what, *arguments = json.loads(line)
        print(json.dumps(globals()[what](mesh, *arguments)), flush=True)
"""
SIZE = 8


class Peer(Conversation):
    """A process that has joined, and the one beside it, of `python -m manta.mesh.peer`."""

    process: Child[str]

    def __init__(self, place: int, door: str, undo: ExitStack) -> None:
        self.name = f"peer-{place}"
        self.place = place
        words = [str(place), str(SIZE), door, SECRET, str(PATIENCE)]
        self.process = undo.enter_context(
            Child([sys.executable, "-c", CHILD, *words], stdin=-1, stdout=-1, text=True)
        )
        undo.callback(self.close)
        self.found: list[list[int]] = []
        """What came of each call in which there was a sum."""

    def joined(self) -> str:
        """Waits for it; returns where others join by it."""
        self.beside, door = self.answer()
        return str(door)

    def counted(self) -> tuple[list[str], list[str] | str]:
        """Who was there, and who was left out, of a call that was begun."""
        there, left_out, found = self.answer()
        if found is not None:
            in_it = {f"peer-{place}" for place, call in enumerate(found) if call}
            assert in_it == set(there) - set(left_out), (there, left_out, found)
            self.found.append(found)
        return there, left_out

    def freeze(self) -> None:
        for pid in (self.process.pid, self.beside):
            freeze(pid)

    def thaw(self) -> None:
        for pid in (self.process.pid, self.beside):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def close(self) -> None:
        """It ends as its input does, and so does the one beside it."""
        assert self.process.stdin is not None
        self.process.stdin.close()


def each(peers: Iterable[Peer], what: str, *arguments: Any) -> list[Any]:
    """At the same time."""
    peers = list(peers)
    for peer in peers:
        peer.begin(what, *arguments)
    return [peer.answer() for peer in peers]


def count(peers: list[Peer]) -> list[tuple[list[str], list[str] | str]]:
    for peer in peers:
        peer.begin("count")
    return [peer.counted() for peer in peers]


def names(peers: Iterable[Peer]) -> list[str]:
    return sorted(peer.name for peer in peers)


def goes_on_alone(side: list[Peer], others: list[Peer], *, has_begun: bool = False) -> None:
    """Has a side make calls until it is a mesh of its own, all of which know whom they miss."""
    missing: set[str] = set()
    while True:
        found = [peer.counted() for peer in side] if has_begun else count(side)
        has_begun = False
        for _, left_out in found:
            missing.update(one for one in names(others) if one in left_out)
        if all(sorted(there) == names(side) and not left_out for there, left_out in found):
            break
    assert missing == set(names(others))


@pytest.fixture
def peers() -> Iterator[list[Peer]]:
    with ExitStack() as undo:
        first = Peer(0, "", undo)
        door = first.joined()
        others = [Peer(place, door, undo) for place in range(1, SIZE)]
        for peer in others:
            peer.joined()
        for peer in (first, *others):
            undo.callback(peer.thaw)  # all, before the first one is closed
        yield [first, *others]


def test_halves_that_are_frozen_one_after_the_other_are_one_mesh_again(peers: list[Peer]) -> None:
    one, two = peers[: SIZE // 2], peers[SIZE // 2 :]
    order = each(peers, "wait")[0]
    assert sorted(order) == names(peers)
    assert count(peers) == [(order, [])] * SIZE

    for peer in two:
        peer.begin("count")  # they are in a call when they are stopped
    for peer in two:
        peer.freeze()
    goes_on_alone(one, two)
    for peer, other in zip(one, two, strict=True):
        peer.begin("send", other.name, 1)
        assert peer.answer() is None

    for peer in one:
        peer.freeze()
    for peer in two:
        peer.thaw()
    goes_on_alone(two, one, has_begun=True)
    for peer, other in zip(two, one, strict=True):
        peer.begin("send", other.name, 1)
        assert peer.answer() is None

    for peer in one:
        peer.thaw()
    again = each(peers, "wait")
    assert again == again[:1] * SIZE
    assert sorted(again[0]) == names(peers)
    assert count(peers) == [(again[0], [])] * SIZE
    assert all(peer.found[-1] == peers[0].found[-1] for peer in peers)

    for peer in peers:  # no call of anybody's is in two sums
        for place in range(SIZE):
            calls = [found[place] for found in peer.found if found[place]]
            assert calls == sorted(set(calls)), (peer.name, place, peer.found)
    for peer, other in zip([*one, *two], [*two, *one], strict=True):  # each letter comes once
        peer.begin("send", other.name, 2)
        assert peer.answer() is None
    for peer, other in zip([*one, *two], [*two, *one], strict=True):
        for number in (1, 2):
            peer.begin("receive", other.name)
            assert peer.answer() == number
