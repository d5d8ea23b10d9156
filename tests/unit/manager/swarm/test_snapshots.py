"""A swarm that goes on from a snapshot is the same as one that replays all of its events."""

from __future__ import annotations

import random
import sys
import zlib
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manta.manager.errors import StorageUnavailable, StoreError
from manta.manager.store.interface import PutPages, PutSnapshot
from manta.manager.swarm import snapshot_writer, snapshots, state, weight
from manta.manager.swarm.machine import SwarmMachine
from manta.manager.swarm.packed import Packed, decoder
from manta.manager.swarm.reads.queries import page, tasks
from manta.manager.swarm.snapshot_writer import SnapshotWriter
from manta.protocol.exchange import Broadcasted
from manta.protocol.node import MetricsLogged, ResultWritten
from manta.protocol.values import Inline
from manta.transports.codec.stored import Damaged
from tests.unit.manager.swarm.test_properties import Walk


class Kept:
    """What a store keeps of the snapshots."""

    def __init__(self) -> None:
        self.body, self.pages = b"", dict[str, bytes]()

    def take(self, machine: SwarmMachine) -> None:
        changed, more = snapshots.pages(machine.data, 1 << 40)
        assert not more
        self.pages.update(changed)
        self.body = snapshots.body(machine.data, machine.revision)
        snapshots.stored(machine.data, changed, self.pages.__getitem__)

    def continued(self, records: list) -> SwarmMachine:
        data, revision = snapshots.load(self.body, self.pages, self.pages.__getitem__)
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


def test_a_long_swarm_weighs_no_more_than_a_short_one(bench, make, monkeypatch) -> None:
    monkeypatch.setattr(state, "PAGE", 16)
    b, kept = bench(make.task("work"), max_iteration=200), Kept()
    weights = []
    while not b.state.final:
        for at in [i for held in b.told.values() for i in held]:
            said = ResultWritten(at, "loss", Inline(bytes(100)))
            b.end(at, entries=[MetricsLogged(at, {"loss": 0.5}, 1, b.now), said])
        kept.take(b.machine)
        weights.append(weight.weigh(b.machine.data))
    assert max(weights[100:]) < 1.1 * max(weights[:100])
    assert len(b.machine.data.results_of("loss", None)) == len(b.machine.data.results) >= 200
    first = b.machine.data.counting(0, "loss")
    assert first
    assert all(one.iteration == 0 and one.value == Inline(bytes(100)) for one in first)


def test_what_was_not_stored_is_part_of_the_next(bench, make) -> None:
    b = bench(make.task("work"), max_iteration=20)
    while not b.state.final:
        for instance in [i for held in b.told.values() for i in held]:
            b.end(instance)
    lost, _ = snapshots.pages(b.machine.data, 1 << 40)
    assert lost
    snapshots.not_stored(b.machine.data, lost)
    again, more = dict[str, bytes](), True
    while more:
        some, more = snapshots.pages(b.machine.data, 500)
        assert sum(map(len, some.values())) < 5000
        again |= some
    assert again == lost


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
        snapshots.load(kept.body, kept.pages, kept.pages.__getitem__)


# When they are stored.


class Store:
    """Takes what a SnapshotWriter writes, and answers when it is told to."""

    def __init__(self) -> None:
        self.writes: list[PutPages | PutSnapshot] = []
        self._then: list = []
        self.pages = dict[str, bytes]()

    def write(self, write, then) -> None:
        self.writes.append(write)
        self._then.append(then)

    @property
    def open(self) -> bool:
        return bool(self._then)

    def page(self, name: str) -> bytes:
        return self.pages[name]

    def answer(self, error: StoreError | None = None) -> None:
        if error is None:
            self.pages |= self.writes[-1].pages
        self._then.pop()(error)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "DUE": 40,
        "FINAL_DUE": 10,
        "AGAIN": 5,
        "PAGES": 2000,
        "BODY": 8000,
    }.items():
        monkeypatch.setattr(snapshot_writer, name, value)


def test_what_is_said_in_an_iteration_is_not_stored_with_each_snapshot(bench, make, small) -> None:
    b, store = bench(make.task("work"), nodes=1, max_iteration=3), Store()
    writer = SnapshotWriter("s", b.machine, cast(Any, store), 0, lambda: 0, store.page)
    at = b.running("work")[0]
    for number in range(60):
        b.say(at, Broadcasted(at, f"{number}", Inline(bytes(1000))))
        writer.write_if_due()
    assert not store.writes
    b.end(at)
    writer.write_if_due()
    [put] = store.writes
    assert isinstance(put, PutSnapshot)
    assert len(put.body) < 8000
    assert put.number == b.machine.revision


def test_a_large_state_is_stored_when_a_part_of_it_has_been_said_since(
    bench, make, small, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot_writer, "BODY", 100_000)
    monkeypatch.setattr(snapshot_writer, "SMALL", 5000)
    b, store, said = bench(make.task("work"), nodes=1, max_iteration=3), Store(), [0]
    writer = SnapshotWriter("s", b.machine, cast(Any, store), 0, lambda: said[0], store.page)
    at = b.running("work")[0]
    b.say(at, *(Broadcasted(at, f"{n}", Inline(bytes(1000))) for n in range(40)))
    for length, stored in ((0, 0), (5000, 0), (15_000, 1), (16_000, 1), (30_000, 2)):
        said[0] = length
        for _ in range(60):
            b.say(at, Broadcasted(at, "0", Inline(b"x")))
            writer.write_if_due()
            if store.writes and store.open:
                store.answer()
        assert len(store.writes) == stored, length


def test_many_pages_are_stored_in_parts_one_after_the_other(
    bench, make, small, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot_writer, "BODY", 100_000)
    b, store = bench(make.task("work"), nodes=1, max_iteration=3), Store()
    writer = SnapshotWriter("s", b.machine, cast(Any, store), 0, lambda: 0, store.page)
    at = b.running("work")[0]
    values = random.Random(1)
    for _ in range(10):  # more than a page of results
        said = (ResultWritten(at, f"{n}", Inline(values.randbytes(20))) for n in range(256))
        b.say(at, *said)
        writer.write_if_due()
    assert [type(one) for one in store.writes] == [PutPages]
    writer.write_if_due()
    assert len(store.writes) == 1, "the next is stored once this one is"
    store.answer(StorageUnavailable("full"))
    writer.write_if_due()
    assert len(store.writes) == 1, "it is tried again in its time"
    for _ in range(5):
        b.say(at, ResultWritten(at, "more", Inline(b"x")))
    writer.write_if_due()
    while isinstance(store.writes[-1], PutPages):
        store.answer()
    parts = [one.pages for one in store.writes[1:]]
    assert len(parts) > 3
    assert all(sum(map(len, one.values())) < 20_000 for one in parts)
    body, pages = store.writes[-1].body, {k: v for one in parts for k, v in one.items()}
    assert snapshots.load(body, pages, pages.__getitem__)[0] == b.machine.data


# The list itself.

NUMBERS = decoder(int)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 9)), max_size=80))
def test_a_packed_list_is_a_list(changes) -> None:
    packed, plain, stored = Packed[int](NUMBERS, 4), list[int](), dict[int, bytes]()
    for position, value in changes:
        if position < len(plain):
            packed[position] = plain[position] = value
            assert packed[position] == value
        else:
            packed.append(value)
            plain.append(value)
        if value == 0:
            packed.settle()
        if value == 1:
            stored |= (changed := packed.changes(1 << 40))
            packed.let_go(changed, stored.__getitem__)
            assert packed.held_size == 0
        assert list(packed) == plain
        assert list(packed.between(position, position + 7)) == plain[position : position + 7]
    assert packed == plain
    assert packed[-3:] == plain[-3:]
    stored |= packed.changes(1 << 40)
    for at, content in stored.items():
        assert NUMBERS.decode(zlib.decompress(content)) == plain[at * 4 : at * 4 + 4]
    with pytest.raises(IndexError):
        packed[len(plain)]


def test_a_page_that_changed_while_it_was_stored_is_held_until_it_is_stored_again() -> None:
    packed, stored = Packed[int](NUMBERS, 2), dict[int, bytes]()
    for number in range(6):
        packed.append(number)
    first = packed.changes(1 << 40)
    packed[0] = 10
    second = packed.changes(1 << 40)
    assert first.keys() > second.keys() == {0}
    stored |= first
    packed.let_go(first, stored.__getitem__)
    assert packed[0] == 10
    packed.change_again(second)  # it was not stored after all
    assert packed.changes(1 << 40) == second
    stored |= second
    packed.let_go(second, stored.__getitem__)
    assert packed.held_size == 0
    assert list(packed) == [10, 1, 2, 3, 4, 5]
    packed.settle()
    assert not packed.has_changes


def test_of_pages_that_were_let_go_nothing_is_kept() -> None:
    packed, stored, sizes = Packed[int](NUMBERS, 1), dict[int, bytes](), list[int]()
    for number in range(4000):
        packed.append(number)
        if number % 100 == 99:
            changed = packed.changes(1 << 40)
            stored |= changed
            packed.let_go(changed, stored.__getitem__)
            sizes.append(sum(map(sys.getsizeof, vars(packed).values())))
    assert len(packed) == 4000
    assert packed[7] == 7
    assert sizes[-1] == sizes[1]
