"""A swarm that goes on from a snapshot is the same as one that replays all of its events."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manta.manager.swarm import snapshots
from manta.manager.swarm.machine import SwarmMachine
from manta.manager.swarm.packed import Packed, decoder
from manta.manager.swarm.reads.queries import page, tasks
from manta.protocol.node import MetricsLogged
from manta.transports.codec.stored import Damaged
from tests.unit.manager.swarm.test_properties import Walk

PAGES = ("runs", "results", "metrics", "events")


class Kept:
    """What a store keeps of the snapshots."""

    def __init__(self) -> None:
        self.body, self.pages = b"", dict[str, bytes]()

    def take(self, machine: SwarmMachine) -> None:
        self.body, changed = snapshots.take(machine.data, machine.revision)
        self.pages.update(changed)

    def continued(self, records: list) -> SwarmMachine:
        data, revision = snapshots.load(self.body, self.pages)
        return SwarmMachine.replay("s", "c", records[revision:], (data, revision))


@given(st.randoms(use_true_random=False), st.integers(1, 60), st.integers(1, 12))
@settings(deadline=None)
def test_any_swarm_continues_from_any_snapshot(bench, make, random, steps, every) -> None:
    walk, kept = Walk(bench, make, random), Kept()
    kept.take(walk.b.machine)
    for step in range(steps):
        if walk.b.state.final:
            break
        walk.step()
        if step % every == 0:
            kept.take(walk.b.machine)
    machine = walk.b.machine
    for other in (
        kept.continued(walk.b.records),
        SwarmMachine.replay("s", "c", walk.b.records),
    ):
        assert other.data == machine.data
        assert other.revision == machine.revision
        assert other.desired() == machine.desired()
        for at, attempt in other.data.live.items():
            run = other.data.runs[at.iteration][at.alias]
            assert run.instances[at.index].attempts[at.attempt] is attempt


def test_a_long_swarm_stores_each_page_once(bench, make) -> None:
    b, kept = bench(make.task("work"), max_iteration=300), Kept()
    stored = 0
    while not b.state.final:
        for instance in [i for held in b.told.values() for i in held]:
            b.end(instance, entries=[MetricsLogged(instance, {"loss": 0.5}, 1, b.now)])
        before = dict(kept.pages)
        kept.take(b.machine)
        stored += sum(before.get(name) != content for name, content in kept.pages.items())
    assert stored == len(kept.pages)
    assert len(kept.body) < 300_000
    other = kept.continued(b.records)
    assert other.data == b.machine.data
    assert tasks(other) == tasks(b.machine)
    for feed in ("metrics", "events"):
        for after in (0, 255, 256, 700):
            assert page(other, feed, after) == page(b.machine, feed, after)


def test_what_was_not_stored_is_part_of_the_next(bench, make) -> None:
    b = bench(make.task("work"), max_iteration=20)
    while not b.state.final:
        for instance in [i for held in b.told.values() for i in held]:
            b.end(instance)
    _, lost = snapshots.take(b.machine.data, b.machine.revision)
    assert lost
    snapshots.not_stored(b.machine.data, lost)
    assert snapshots.take(b.machine.data, b.machine.revision)[1] == lost


@pytest.mark.parametrize("damage", ["cut", "empty", "missing page"])
def test_a_damaged_snapshot_is_refused(bench, make, damage: str) -> None:
    b, kept = bench(make.task("work"), max_iteration=20), Kept()
    while not b.state.final:
        for instance in [i for held in b.told.values() for i in held]:
            b.end(instance)
    kept.take(b.machine)
    match damage:
        case "cut":
            kept.body = kept.body[:-1]
        case "empty":
            kept.body = b""
        case "missing page":
            kept.pages.popitem()
    with pytest.raises(Damaged, match="all events are replayed"):
        snapshots.load(kept.body, kept.pages)


# The list itself.

NUMBERS = decoder(int)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 9)), max_size=80))
def test_a_packed_list_is_a_list(changes) -> None:
    packed, plain = Packed[int](NUMBERS, 4), list[int]()
    for position, value in changes:
        if position < len(plain):
            packed[position] = plain[position] = value
            assert packed[position] == value
        else:
            packed.append(value)
            plain.append(value)
        if value == 0:
            packed.settle()
        assert list(packed) == plain
        assert list(packed.between(position, position + 7)) == plain[position : position + 7]
    assert packed == plain
    assert packed[-3:] == plain[-3:]
    stored = packed.changes()
    for at, content in stored.items():
        assert NUMBERS.decode(zlib.decompress(content)) == plain[at * 4 : at * 4 + 4]
    with pytest.raises(IndexError):
        packed[len(plain)]
