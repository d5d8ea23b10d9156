"""What planes tell each other of collectives fits their links, however much it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from manta.light.errors import ResourceExhaustionError, Timeout
from manta.node.plane.collectives import early, memory, peers, post
from manta.node.plane.collectives.pieces import COST
from manta.transports.errors import LinkOverflow, MessageTooLarge
from manta.transports.zeromq.links import ZmqLink
from tests.integration.node.test_plane_collectives import members, until
from tests.support.planes import SWARM

pytestmark = pytest.mark.timeout(120)


class Watched:
    """Links of planes: what was sent over them, and what they did not take."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.refused: list[str] = []


@pytest.fixture
def links(monkeypatch: pytest.MonkeyPatch) -> Watched:
    found, send = Watched(), ZmqLink.send

    def watched(link: ZmqLink, message: Any) -> None:
        found.sizes.append(sum(map(len, message)))
        try:
            send(link, message)
        except (LinkOverflow, MessageTooLarge) as error:
            found.refused.append(str(error))
            raise

    monkeypatch.setattr(ZmqLink, "send", watched)
    return found


@pytest.mark.parametrize("kind", ["all_gather", "gather", "scatter", "all_reduce", "barrier"])
def test_many_small_values_of_a_node_are_told_in_parts_that_links_take(
    kind: str, links: Watched
) -> None:
    """70 members on one node bring 60 KiB each, more than a link takes at once."""
    size, nbytes = 72, 60 * 1024
    values = [bytes([at]) * nbytes for at in range(size)]
    total = np.full(nbytes // 8, float(sum(range(size))))

    def work(world: Any) -> Any:
        if kind == "scatter":
            return world.scatter(values if world.rank == 70 else None, root=70)
        if kind == "gather":
            return world.gather(values[world.rank], root=71)
        if kind == "all_gather":
            return world.all_gather(values[world.rank])
        if kind == "barrier":
            return world.barrier()
        return world.all_reduce(np.full(nbytes // 8, float(world.rank)))

    with members([0] * 70 + [1, 1]) as them:
        for rank, got in enumerate(them.run(work)):
            if isinstance(got, BaseException):
                raise got
            if kind == "scatter":
                assert got == values[rank]
            elif kind == "all_gather" or (kind == "gather" and rank == 71):
                assert got == values
            elif kind == "all_reduce":
                assert np.array_equal(got, total)
            else:
                assert got is None
    assert links.refused == []
    assert max(links.sizes) < 1 << 20


def gives(calls: int) -> Any:
    def work(world: Any) -> int:
        for at in range(calls):
            world.gather(bytes([at % 256]) * 60_000)
        return calls

    return work


def takes(calls: int) -> Any:
    return lambda world: [world.gather(b"")[1][0] for _ in range(calls)]


def last_of(calls: int) -> Any:
    return lambda world: [world.gather(b"") for _ in range(calls)][-1]


def test_gathers_that_are_ahead_wait_for_a_node_that_is_not_reached_and_none_is_lost(
    links: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More is called than a link takes, while none is up; then all of it is told."""
    monkeypatch.setattr(peers, "FULL", 2 << 20)
    calls = 400
    with members([0, 1]) as them:
        assert them.run(lambda world: world.all_gather(world.rank)) == [[0, 1]] * 2
        one, two = them.planes.nodes
        for node, other in ((one, two), (two, one)):
            node.run(node.plane.links.forget, [other.peer.key])
        giving = them.begin(1, gives(calls))
        desk = two.plane._desks._desks[SWARM]
        until(lambda: two.run(desk._waits.parked))
        assert len(two.run(lambda: desk.calls.open)) < 60
        taking = them.begin(0, takes(calls))
        them.planes.introduce()
        assert giving.result(60) == calls
        assert taking.result(60) == [at % 256 for at in range(calls)]
        until(lambda: not two.run(lambda: desk.calls.open))
    assert links.refused == []


def test_what_is_told_again_when_links_come_up_again_and_again_fits_them(links: Watched) -> None:
    calls = 300
    with members([0, 1]) as them:
        one, two = them.planes.nodes
        giving, taking = them.begin(1, gives(calls)), them.begin(0, takes(calls))
        for _ in range(5):
            count = len(links.sizes)
            until(lambda count=count: len(links.sizes) > count + 20 or taking.done())
            two.run(two.plane.links.end, one.peer.key, "a test")
        assert giving.result(60) == calls
        assert taking.result(60) == [at % 256 for at in range(calls)]
    assert links.refused == []


def test_what_waits_for_a_roster_is_bounded_and_heard_when_it_has_come(
    links: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(early, "OF_A_NODE", 200_000)
    calls = 40
    with members([0, 1]) as them:
        one, two = them.planes.nodes
        assert them.run(lambda world: world.all_gather(world.rank)) == [[0, 1]] * 2
        them.planes.enroll(them.on, iteration=1, told=[two])
        ahead = two.attempt(them.planes.at(1, iteration=1))
        fields = {"kind": "gather", "words": "gather()", "timeout": 30.0, "sizes": [50_000]}
        for number in range(calls):
            ahead.call("call_collective", number=number, value=b"x" * 50_000, **fields)
        desk, desks = one.plane._desks._desks[SWARM], one.plane._desks
        until(lambda: one.run(lambda: desk.peers._stalled))
        assert 0 < one.run(lambda: desks._message_room.of(SWARM, two.id)) <= 200_000
        them.planes.enroll(them.on, iteration=1)
        until(lambda: len(one.run(lambda: desk.calls.open)) == calls)
        assert one.run(lambda: desks._message_room.of(SWARM, two.id)) == 0
        ahead.close()
    assert links.refused == []


def test_more_calls_that_only_another_node_has_made_than_there_is_room_for_fail_for_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Their root, which is yet to come to them, is told the arithmetic."""
    monkeypatch.setattr(memory, "LEAST_SMALL", 4 << 20)
    with members([0, 1], most=16 << 20) as them:
        node, other = them.planes.nodes
        # What it gives counts there twice until it was told, and none of that is to be short.
        other.run(lambda: setattr(other.plane._desks._pool._small, "most", 64 << 20))
        assert them.begin(1, gives(40)).result(20) == 40
        until(lambda: node.run(lambda: node.plane._desks._desks[SWARM].calls._refused))
        error = them.begin(0, takes(40)).exception(20)
        assert isinstance(error, ResourceExhaustionError)
        assert "before instances on another node have" in str(error)
        assert "value_memory_mb" in str(error)


def test_what_is_remembered_of_calls_that_are_only_announced_counts() -> None:
    """Their values are large, and move once the root is there."""
    with members([0, 1]) as them:
        assert them.run(lambda world: world.all_gather(world.rank)) == [[0, 1]] * 2

        def work(world: Any) -> None:
            for _ in range(50):
                world.gather(bytes(100_000))

        them.begin(1, work).result(20)
        node = them.planes.nodes[0]
        desks = node.plane._desks
        until(lambda: len(node.run(lambda: desks._desks[SWARM].calls.open)) == 50)
        assert node.run(lambda: desks._pool._small.used) > 50 * COST
        assert [len(got) for got in them.begin(0, last_of(50)).result(40)] == [0, 100_000]
        them.planes.enroll(them.on, iteration=1)
        until(lambda: node.run(lambda: desks._pool._small.used) == 0)


def test_a_call_that_waits_for_a_node_to_hear_more_ends_in_time_and_names_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(peers, "FULL", 100_000)
    with members([0, 1]) as them:
        assert them.run(lambda world: world.all_gather(world.rank)) == [[0, 1]] * 2
        one, two = them.planes.nodes
        for node, other in ((one, two), (two, one)):
            node.run(node.plane.links.forget, [other.peer.key])
        assert them.begin(1, gives(2)).result(20) == 2
        error = them.begin(1, lambda world: world.gather(b"x", timeout=0.2)).exception(20)
        assert isinstance(error, Timeout)
        assert str(error) == (
            "Waited 0.2 s in vain: gather waits until node-1 has taken what it was told of the "
            "collectives before it."
        )


def test_what_is_too_long_to_be_told_is_refused_to_all_with_the_arithmetic(
    links: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(post, "LONGEST", 50_000)
    with members([0, 0, 1]) as them:
        for error in them.run(lambda world: world.all_gather(bytes(60_000))):
            assert isinstance(error, ResourceExhaustionError)
            assert "What one node is to tell another of collective 0 of 'worker'" in str(error)
        assert them.run(lambda world: world.all_gather(1)) == [[1, 1, 1]] * 3
    assert links.refused == []
