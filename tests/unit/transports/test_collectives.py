"""Collectives on whole sets of peers: what members get, in which order, for how many bytes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import accumulate, pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manta.transports.collectives import course, planner, spreading, table
from manta.transports.collectives.actions import Deliver, Fail
from manta.transports.collectives.calls import Call, Entry, Kind, OnLost, Placement
from manta.transports.collectives.collective import Collective
from manta.transports.collectives.course import MAX_WANTS
from manta.transports.collectives.coverage import Coverage
from manta.transports.collectives.messages import (
    Aborted,
    Announcement,
    Done,
    Finished,
    Member,
    Message,
    Noted,
    Probe,
    Relayed,
    Want,
    Wanted,
)
from manta.transports.collectives.plans import PARTIAL, Buffer, whole
from manta.transports.collectives.reducing import blocks_of, parts_of
from manta.transports.collectives.table import Algorithm
from manta.transports.errors import RemoteProtocolError
from tests.support.collectives import Simulation, folded

INLINE = 64


@pytest.fixture(autouse=True, scope="module")
def small() -> Iterator[None]:
    """Sizes at which tests are quick, in the proportions of the real ones."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (table, planner, spreading):
            patch.setattr(module, "INLINE", INLINE)
        patch.setattr(table, "EXCHANGED", 16 * INLINE)
        patch.setattr(table, "PIPELINE", 4 * INLINE)
        patch.setattr(course, "REDUCED", 2 * INLINE)
        is_small = [row.algorithm is Algorithm.EXCHANGE for row in table.REDUCING]
        rows = zip(table.REDUCING, is_small, strict=True)
        scaled = [row._replace(size=INLINE) if small else row for row, small in rows]
        patch.setattr(table, "REDUCING", tuple(scaled))
        yield


def placed(ranks_by_peer: list[int], seed: int = 0, *, is_local: bool = False) -> Placement:
    nodes = [f"node-{peer}" for peer, count in enumerate(ranks_by_peer) for _ in range(count)]
    random.Random(seed).shuffle(nodes)
    return Placement.of("train", nodes, is_local=is_local)


def prepared(
    placement: Placement, call: Call, items: int, seed: int
) -> tuple[dict[int, Entry], dict[int, bytes]]:
    """Entries, and random values: of `items` where sizes must agree, else of up to so many."""
    generator = random.Random(seed)
    ranks = range(placement.size)
    one = tuple(generator.randint(0, items) * call.itemsize for _ in ranks)
    entries = {}
    for rank in ranks:
        sizes: tuple[int, ...] = (generator.randint(0, items) * call.itemsize,)
        if call.kind is Kind.ALL_REDUCE:
            sizes = (items * call.itemsize,)
        elif call.kind is Kind.REDUCE_SCATTER or (call.kind is Kind.SCATTER and rank == call.root):
            sizes = one
        elif call.kind in (Kind.BARRIER, Kind.SCATTER) or (
            call.kind is Kind.BROADCAST and rank != call.root
        ):
            sizes = ()
        entries[rank] = Entry(call, sizes)
    return entries, {rank: generator.randbytes(sum(entries[rank].sizes)) for rank in ranks}


def reduction(placement: Placement, call: Call, values: dict[int, bytes], lost=()) -> bytes:
    """In the promised order."""
    size = len(values[0])
    parts = []
    for buffer, _ in parts_of(call, placement, size, tuple(lost)):
        if buffer.role == PARTIAL:
            ranks = [rank for rank in placement.ranks[buffer.at] if rank not in lost]
            assert ranks == sorted(ranks)
            parts.append(folded(call.itemsize, [values[rank] for rank in ranks], final=False))
        else:
            parts.append(values[buffer.at])
    return folded(call.itemsize, parts, final=True)


def expected(
    placement: Placement,
    call: Call,
    entries: dict[int, Entry],
    values: dict[int, bytes],
    rank: int,
    total: bytes,
) -> list[bytes]:
    """What a rank gets; `total` is the reduction of all values."""
    if call.kind is Kind.ALL_REDUCE:
        return [total]
    sizes = entries[call.root].sizes
    ends = list(accumulate(sizes, initial=0))
    if call.kind is Kind.REDUCE_SCATTER:
        return [total[ends[rank] : ends[rank + 1]]]
    if call.kind is Kind.SCATTER:
        return [values[call.root][ends[rank] : ends[rank + 1]]]
    if call.kind is Kind.BROADCAST:
        return [values[call.root]]
    if call.kind is Kind.ALL_GATHER or (call.kind is Kind.GATHER and rank == call.root):
        return [values[other] for other in sorted(values)]
    return []


def reduced(
    placement: Placement, call: Call, entries: dict[int, Entry], values: dict[int, bytes]
) -> bytes:
    """In the order that was promised for these peers."""
    if not call.kind.reduces:
        return b""
    algorithm = planner.algorithm_of(call, placement, entries[0].sizes)
    if algorithm is Algorithm.RING:
        return around(placement, call, entries, values)
    return reduction(placement, call, values)


def around(
    placement: Placement, call: Call, entries: dict[int, Entry], values: dict[int, bytes]
) -> bytes:
    """In the order of a ring, block by block."""
    count = len(placement.ranks)
    parts = []
    for ranks in placement.ranks:
        some = [values[rank] for rank in ranks]
        parts.append(folded(call.itemsize, some, final=False) if len(some) > 1 else some[0])
    outcome = b""
    for block in blocks_of(call, placement, entries[0].sizes, ()):
        order = [(block.owner + 1 + at) % count for at in range(count)]
        total, *rest = [parts[peer][block.start : block.stop] for peer in order]
        for at, part in enumerate(rest):
            total = folded(call.itemsize, [total, part], final=at == len(rest) - 1)
        outcome += total
    return outcome


GOES_ON = (Kind.ALL_REDUCE, Kind.ALL_GATHER, Kind.GATHER, Kind.BARRIER)


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(Kind),
    peers=st.lists(st.integers(1, 5), min_size=1, max_size=8),
    items=st.sampled_from([0, 1, 2, 7, 30, 100, 400]),
    itemsize=st.integers(1, 16),
    chunk=st.sampled_from([1, 17, 200, 10_000]),
    local_first=st.booleans(),
    goes_on=st.booleans(),
    noted=st.booleans(),
    is_local=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_all_get_what_was_promised(
    kind, peers, items, itemsize, chunk, local_first, goes_on, noted, is_local, seed
) -> None:
    placement = placed(peers, seed, is_local=is_local)
    root = seed % placement.size if kind.has_root else 0
    on_lost: OnLost = "continue" if goes_on and kind in GOES_ON else "raise"
    call = Call(kind, f"{kind.value}()", root, itemsize, on_lost, local_first, noted)
    entries, values = prepared(placement, call, items, seed)
    chunk = max(chunk, items * itemsize // 30)
    simulation = Simulation(placement, entries, values, seed, chunk).run()
    total = reduced(placement, call, entries, values)
    for rank in range(placement.size):
        outcome, found = simulation.outcome(rank)
        assert found == expected(placement, call, entries, values, rank, total)
        assert outcome.ranks == tuple(range(placement.size))
        assert outcome.lost == {}
        assert outcome.weight == 1
    assert all(peer.is_closed for peer in simulation.peers.values())


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(Kind),
    peers=st.lists(st.integers(1, 3), min_size=9, max_size=33),
    items=st.sampled_from([0, 1, 8, 200, 500]),
    itemsize=st.sampled_from([1, 2, 3, 4, 8]),
    local_first=st.booleans(),
    goes_on=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_many_peers_do_too(kind, peers, items, itemsize, local_first, goes_on, seed) -> None:
    placement = placed(peers, seed)
    root = seed % placement.size if kind.has_root else 0
    on_lost: OnLost = "continue" if goes_on and kind in GOES_ON else "raise"
    call = Call(kind, f"{kind.value}()", root, itemsize, on_lost, local_first)
    entries, values = prepared(placement, call, items, seed)
    simulation = Simulation(placement, entries, values, seed, max(50, items * itemsize // 3)).run()
    total = reduced(placement, call, entries, values)
    for rank in range(placement.size):
        _, found = simulation.outcome(rank)
        assert found == expected(placement, call, entries, values, rank, total)
    assert all(peer.is_closed for peer in simulation.peers.values())


SOME_LOST = {
    "kind": st.sampled_from(GOES_ON),
    "peers": st.one_of(
        st.lists(st.integers(1, 3), min_size=2, max_size=6),
        st.lists(st.integers(1, 2), min_size=17, max_size=19),
    ),
    "items": st.sampled_from([0, 1, 30, 100, 400]),
    "itemsize": st.sampled_from([1, 3, 4]),
    "losses": st.lists(
        st.tuples(st.integers(0, 18), st.integers(0, 500), st.booleans()), min_size=1, max_size=3
    ),
    "local_first": st.booleans(),
    "noted": st.booleans(),
    "seed": st.integers(0, 100_000),
}


def lose(simulation: Simulation, losses: list[tuple[int, int, bool]]) -> set[int]:
    """Each of `losses` is a peer, after how many events it happens, and whether the peer dies, or
    just its last member never calls; the first peer stays. Returns the ranks that may be lost."""
    ranks: set[int] = set()
    for peer, steps, dies in losses:
        peer = peer % len(simulation.peers)
        simulation.run(steps)
        if not peer:
            continue
        there = simulation.placement.ranks[peer]
        ranks.update(there if dies else there[-1:])
        if not dies:
            simulation.miss(there[-1])
        elif peer not in simulation.dead:
            simulation.kill(peer)
    simulation.run()
    return ranks


def nothing_came_twice(simulation: Simulation) -> None:
    came: dict[tuple, list[tuple[int, int]]] = {}
    for span, _, to in simulation.carried:
        buffer = span.buffer._replace(start=0, stop=0)
        came.setdefault((buffer, to), []).append((span.start, span.stop))
    for spans in came.values():
        spans.sort()
        assert all(one[1] <= other[0] for one, other in pairwise(spans))


@settings(max_examples=250, deadline=None)
@given(**SOME_LOST)
def test_those_that_are_left_go_on(
    kind, peers, items, itemsize, losses, local_first, noted, seed
) -> None:
    placement = placed(peers, seed)
    call = Call(kind, f"{kind.value}()", 0, itemsize, "continue", local_first, noted)
    entries, values = prepared(placement, call, items, seed)
    simulation = Simulation(placement, entries, values, seed, max(20, items * itemsize // 4))
    may_be_lost = lose(simulation, losses)
    agreed = set()
    for at, peer in simulation.peers.items():
        if at in simulation.dead:
            continue
        assert not peer.failed
        assert peer.is_closed or may_be_lost.issuperset(placement.ranks[at])
        for rank in placement.ranks[at]:
            if rank not in peer.delivered:
                assert rank in may_be_lost
                continue
            outcome, found = simulation.outcome(rank)
            if kind is Kind.GATHER and rank != call.root:
                continue
            agreed.add((outcome.ranks, tuple(outcome.lost)))
            assert set(outcome.ranks) | set(outcome.lost) == set(range(placement.size))
            assert set(outcome.lost) <= may_be_lost
            assert outcome.weight == len(outcome.ranks) / placement.size
            if kind is Kind.ALL_REDUCE:
                assert found == [reduction(placement, call, values, outcome.lost)]
                if noted and items:
                    assert covers(outcome.notes, items * itemsize)
            elif kind is not Kind.BARRIER:
                assert found == [values[one] for one in outcome.ranks]
    assert len(agreed) == 1
    nothing_came_twice(simulation)


@settings(max_examples=200, deadline=None)
@given(
    peers=st.lists(st.integers(1, 3), min_size=1, max_size=6),
    items=st.sampled_from([0, 1, 100, 400]),
    enough=st.tuples(st.integers(1, 18), st.integers(0, 18)),
    steps=st.integers(0, 100),
    missing=st.sets(st.integers(0, 17), max_size=4),
    loss=st.integers(0, 5),
    seed=st.integers(0, 10_000),
)
def test_a_gather_takes_what_is_enough(peers, items, enough, steps, missing, loss, seed) -> None:
    placement = placed(peers, seed)
    count = placement.size
    call = Call(Kind.GATHER, "gather()", seed % count)
    entries, values = prepared(placement, call, items, seed)
    simulation = Simulation(placement, entries, values, seed, max(20, items // 4))
    root = placement.peer_of[call.root]
    machine = simulation.peers[root].machine
    silent = {rank % count for rank in missing} - {call.root}
    simulation.called |= silent
    quorum, later = min(enough[0], count), min(enough[1], count)
    simulation.perform(root, machine.suffice(quorum))
    simulation.run(steps)
    if loss < len(peers) and loss != root:
        simulation.kill(loss)
    simulation.run()
    if call.root not in simulation.peers[root].delivered and not machine.has_failed:
        assert count - len(silent) < quorum or loss < len(peers)
        simulation.perform(root, machine.suffice(later))
        simulation.run()
    if call.root in simulation.peers[root].delivered:
        outcome, found = simulation.outcome(call.root)
        assert found == [values[rank] for rank in outcome.ranks]
        assert len(outcome.ranks) >= min(quorum, later)
        assert set(outcome.lost.values()) <= {"it was late", "its node was lost"}
        simulation.called -= silent
        for rank in silent:
            simulation.call(rank)
        simulation.run()
        for at, peer in simulation.peers.items():
            if at not in simulation.dead:
                assert peer.is_closed
                assert peer.delivered.keys() == set(placement.ranks[at])
    elif machine.has_failed:
        assert simulation.dead


def covers(notes: tuple[bytes, ...], size: int) -> bool:
    """Do notes of all parts of an outcome come along, each once?"""
    spans = sorted(tuple(map(int, note.decode().split("-"))) for note in notes)
    return spans[0][0] == 0 and [one[1] for one in spans] == [*[two[0] for two in spans[1:]], size]


@settings(max_examples=250, deadline=None)
@given(**SOME_LOST, anything=st.sampled_from(Kind), root=st.integers(0, 20))
def test_a_loss_is_told_to_all_that_wait_in_vain(
    kind, peers, items, itemsize, losses, local_first, noted, seed, anything, root
) -> None:
    placement = placed(peers, seed)
    kind = anything
    root = root % placement.size if kind.has_root else 0
    call = Call(kind, f"{kind.value}()", root, itemsize, "raise", local_first, noted)
    entries, values = prepared(placement, call, items, seed)
    simulation = Simulation(placement, entries, values, seed, max(20, items * itemsize // 4))
    may_be_lost = lose(simulation, losses)
    total = reduced(placement, call, entries, values)
    names = [placement.named([rank]) for rank in may_be_lost]
    for at, peer in simulation.peers.items():
        if at in simulation.dead:
            continue
        for rank in placement.ranks[at]:
            if rank in peer.failed:
                error, sentence = peer.failed[rank]
                assert error == "PeerLost"
                assert sentence.startswith(f"{kind.value} waits for")
                assert sentence.endswith("in vain.")
                assert any(name in sentence for name in names)
            elif rank in peer.delivered:
                _, found = simulation.outcome(rank)
                assert found == expected(placement, call, entries, values, rank, total)
            else:
                assert rank in may_be_lost
    nothing_came_twice(simulation)


# Members that do not agree.


def disagree(
    placement: Placement, one: tuple[int, Entry], other: tuple[int, Entry], seed: int
) -> list[str]:
    """Two members call, nobody else ever does. Returns what those were told that wait."""
    entries = dict([one, other])
    values = {rank: bytes(sum(entry.sizes)) for rank, entry in entries.items()}
    simulation = Simulation(placement, entries, values, seed).run()
    told = []
    for rank in entries:
        peer = simulation.peers[placement.peer_of[rank]]
        if rank not in peer.delivered:
            error, sentence = peer.failed[rank]
            assert error == "CollectiveError"
            told.append(sentence)
    for peer in simulation.peers.values():
        late = [rank for rank in range(placement.size) if rank not in entries]
        assert not peer.delivered.keys() & set(late)
    return told


def brought(kind: Kind, rank: int, root: int, size: int, words: str, count: int) -> Entry:
    sizes: tuple[int, ...] = (size,)
    if kind is Kind.REDUCE_SCATTER or (kind is Kind.SCATTER and rank == root):
        sizes = (size,) * count
    elif kind in (Kind.BARRIER, Kind.SCATTER) or (kind is Kind.BROADCAST and rank != root):
        sizes = ()
    return Entry(Call(kind, words, root), sizes)


@settings(max_examples=200, deadline=None)
@given(
    kinds=st.lists(st.sampled_from(Kind), min_size=2, max_size=2, unique=True),
    roots=st.tuples(st.integers(0, 50), st.integers(0, 50)),
    ranks=st.lists(st.integers(0, 50), min_size=2, max_size=2),
    peers=st.one_of(
        st.lists(st.integers(1, 3), min_size=2, max_size=5),
        st.lists(st.integers(1, 2), min_size=17, max_size=20),
    ),
    size=st.sampled_from([0, 8, 200]),
    seed=st.integers(0, 1000),
)
def test_two_that_make_different_calls_hear_of_each_other_whoever_else_is_late(
    kinds, roots, ranks, peers, size, seed
) -> None:
    placement = placed(peers, seed)
    count = placement.size
    one, other = ranks[0] % count, ranks[1] % count
    if one == other:
        other = (one + 1) % count
    sides = []
    for rank, kind, root in zip((one, other), kinds, roots, strict=True):
        root = root % count if kind.has_root else 0
        sides.append((rank, brought(kind, rank, root, size, f"{kind.value}(x)", count)))
    for sentence in disagree(placement, sides[0], sides[1], seed):
        low, high = sorted(sides, key=lambda side: side[0])
        assert sentence == (
            f"train.{low[0]} called {low[1].call.words} where train.{high[0]} called "
            f"{high[1].call.words}: all instances of 'train' must make the same calls in the "
            "same order."
        )


@pytest.mark.parametrize("count", [2, 4, 20])
def test_two_of_different_forms_hear_of_each_other(count: int) -> None:
    placement = placed([1] * count)
    call = Call(Kind.ALL_REDUCE, "all_reduce(op='sum')", itemsize=4)
    forms = (("value['a']", "a number"), ("value['b']", "an array of shape (3,) and dtype float32"))
    unlike = (forms[0], ("value['b']", "an array of shape (2,) and dtype float32"))
    one, other = Entry(call, (400,), forms, b"1"), Entry(call, (400,), unlike, b"2")
    told = disagree(placement, (1, one), (count - 1, other), 0) if count > 2 else []
    told += disagree(placement, (0, other), (1, one), 0)
    assert len(told) == (2 if count == 2 else 4)
    assert (
        "value['b'] of rank 0 is an array of shape (2,) and dtype float32, of rank 1 an array of "
        "shape (3,) and dtype float32: all instances must give values of one form." in told
    )
    beyond = disagree(placement, (0, one), (1, one._replace(digest=b"3")), 0)
    assert "of another beyond its first places" in beyond[0]
    wider = one._replace(call=call._replace(itemsize=8), forms=unlike, digest=b"2")
    assert disagree(placement, (0, one), (1, wider), 0)[0].startswith("value['b'] of rank 0 is")
    newer = one._replace(call=call._replace(noted=True))
    assert "noted=True" in disagree(placement, (0, one), (1, newer), 0)[0]
    longer = disagree(placement, (0, one), (1, one._replace(sizes=(404,))), 0)
    assert longer[0].startswith("value of rank 0 has 400 bytes, of rank 1 404: ")


def test_whoever_calls_after_it_has_failed_is_told_the_same() -> None:
    placement = placed([1, 1, 1])
    call = Call(Kind.BARRIER, "barrier")
    entries = {0: Entry(call), 1: Entry(call._replace(words="other")), 2: Entry(call)}
    simulation = Simulation(placement, entries, dict.fromkeys(entries, b""))
    simulation.pending.clear()
    simulation.call(0)
    simulation.call(1)
    simulation.run()
    simulation.call(2)
    simulation.run()
    sentences = {simulation.peers[rank].failed[rank][1] for rank in entries}
    assert len(sentences) == 1


# An attempt that takes the place of another.


def test_a_next_attempt_finds_what_the_first_contributed() -> None:
    placement = placed([1, 1])
    call = Call(Kind.ALL_REDUCE, "all_reduce", itemsize=1)
    entries = {rank: Entry(call, (300,)) for rank in range(2)}
    values = {0: bytes(300), 1: bytes([7]) * 300}
    simulation = Simulation(placement, entries, values).run()
    machine = simulation.peers[0].machine
    (again,) = machine.contributed(0, entries[0])
    assert again == Deliver(0, simulation.outcome(0)[0])
    (refused,) = machine.contributed(0, Entry(call._replace(words="other"), (300,)))
    assert isinstance(refused, Fail)
    assert refused.error == "CollectiveError"


def test_it_says_whom_it_waits_for() -> None:
    placement = Placement.of("train", ["a", "b", "b"])
    machine = Collective(placement, 0)
    assert machine.waits_for() == ""
    machine.contributed(0, Entry(Call(Kind.BARRIER, "barrier")))
    assert machine.waits_for() == "barrier waits for train.1 on b, train.2 on b"
    machine.member_lost(0, "failed")  # it has called: that counts
    assert machine.waits_for()
    (told,) = machine.peer_lost(1, "no answer for 10 s")
    assert told == Fail(
        0,
        "PeerLost",
        "barrier waits for train.1 on b (no answer for 10 s), train.2 on b (no answer for 10 s) "
        "in vain.",
    )


# Bytes.


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 16, 17, 33])
@pytest.mark.parametrize("kind", [Kind.ALL_REDUCE, Kind.REDUCE_SCATTER])
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_large_reduction_costs_the_least_bytes(kind: Kind, count: int, ranks: int) -> None:
    """Those of Thakur, Rabenseifner and Gropp (2005), up to the rounding of blocks."""
    placement = placed([ranks] * count)
    call = Call(kind, "reduce", itemsize=4, local_first=True)
    size = 4 * 64 * count * ranks
    cuts = (size,) if kind is Kind.ALL_REDUCE else (size // count // ranks,) * count * ranks
    entries = {rank: Entry(call, cuts) for rank in range(count * ranks)}
    simulation = Simulation(placement, entries, {rank: bytes(size) for rank in entries}).run()
    halves = 2 if kind is Kind.ALL_REDUCE else 1
    for peer in range(count):
        assert simulation.sent_by(peer) == halves * size * (count - 1) // count


@pytest.mark.parametrize("count", [2, 3, 5, 16, 17, 33])
def test_small_values_cost_few_messages(count: int) -> None:
    placement = placed([1] * count)
    call = Call(Kind.ALL_REDUCE, "reduce")
    size = INLINE if count <= 16 else 16
    entries = {rank: Entry(call, (size,)) for rank in range(count)}
    simulation = Simulation(placement, entries, {rank: bytes(size) for rank in entries}).run()
    rounds = (count - 1).bit_length()
    for peer in range(count):
        assert simulation.sent_by(peer) == (count - 1) * size
        assert simulation.told[peer] == (count - 1 if count <= 16 else rounds + (peer > 0))


@pytest.mark.parametrize("count", [2, 3, 4, 7, 16, 33])
@pytest.mark.parametrize("size", [INLINE, 5 * INLINE, 100 * INLINE])
@pytest.mark.parametrize("kind", [Kind.ALL_GATHER, Kind.GATHER, Kind.SCATTER, Kind.BROADCAST])
def test_a_value_crosses_no_link_more_than_it_must(kind: Kind, size: int, count: int) -> None:
    placement = placed([1] * count)
    call = Call(kind, "move", root=count // 2)
    entries = {
        rank: brought(kind, rank, call.root, size, "move", count)._replace(call=call)
        for rank in range(count)
    }
    values = {rank: bytes(sum(entry.sizes)) for rank, entry in entries.items()}
    simulation = Simulation(placement, entries, values, chunk=100 * INLINE).run()
    total = count * (count - 1) if kind is Kind.ALL_GATHER else count - 1
    assert sum(simulation.moved.values()) == total * size
    most = max(map(simulation.sent_by, range(count)))
    if kind is Kind.ALL_GATHER:
        assert most <= (count - 1) * size
    elif kind is Kind.BROADCAST and size > INLINE:
        is_chain = size == 100 * INLINE and count > 2
        assert most <= (size if is_chain else (count - 1).bit_length() * size)


def test_peers_on_one_machine_get_memory_from_its_owner() -> None:
    placement = placed([1] * 6, is_local=True)
    call = Call(Kind.BROADCAST, "broadcast")
    entries = {rank: Entry(call, (9999,) if rank == 0 else ()) for rank in range(6)}
    simulation = Simulation(placement, entries, {0: bytes(9999), **dict.fromkeys(range(1, 6), b"")})
    simulation.run()
    assert {source for source, _ in simulation.moved if simulation.moved[source, _]} == {0}


# Plans.


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(Kind),
    peers=st.lists(st.integers(1, 5), min_size=1, max_size=33),
    items=st.sampled_from([0, 1, 5, 100, 3000]),
    itemsize=st.integers(1, 16),
    local_first=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_nobody_waits_for_what_nobody_sends(
    kind, peers, items, itemsize, local_first, seed
) -> None:
    placement = placed(peers, seed)
    root = seed % placement.size if kind.has_root else 0
    call = Call(kind, "call", root, itemsize, local_first=local_first)
    entries, _ = prepared(placement, call, items, seed)
    sizes = {rank: entry.sizes for rank, entry in entries.items()}
    plans = [planner.plan(call, placement, me, sizes) for me in range(len(peers))]
    sent = {one.key: (me, one.peer) for me, plan in enumerate(plans) for one in plan.sends}
    awaited = {one.key: (one.peer, me) for me, plan in enumerate(plans) for one in plan.receives}
    assert sent == awaited
    for plan in plans:
        written = [one.span for one in plan.receives]
        written += [one.target for one in plan.reductions]
        by_buffer: dict[Buffer, list[tuple[int, int]]] = {}
        for span in written:
            by_buffer.setdefault(span.buffer, []).append((span.start, span.stop))
        for spans in by_buffer.values():
            spans.sort()
            assert all(one[1] <= two[0] for one, two in pairwise(spans))
        if kind.reduces:
            assert all(one.span.start % itemsize == 0 for one in plan.sends)


@given(
    peers=st.integers(1, 33),
    size=st.integers(0, 5000),
    itemsize=st.integers(1, 16),
    lost=st.sets(st.integers(0, 32)),
)
def test_blocks_are_even_and_those_that_are_left_keep_theirs(peers, size, itemsize, lost) -> None:
    placement = placed([1] * peers)
    call = Call(Kind.ALL_REDUCE, "reduce", itemsize=itemsize)
    size -= size % itemsize
    lost = tuple(sorted(rank for rank in lost if rank < peers))
    if len(lost) == peers:
        return
    first = blocks_of(call, placement, (size,), ())
    blocks = blocks_of(call, placement, (size,), lost)
    for some in (first, blocks):
        assert [block.start for block in some] == [0, *[block.stop for block in some[:-1]]][
            : len(some)
        ]
        assert sum(block.stop - block.start for block in some) == size
        assert all(block.start % itemsize == 0 for block in some)
    assert {block for block in first if block.owner not in lost} <= set(blocks)
    assert not {block.owner for block in blocks} & set(lost)
    lengths = [block.stop - block.start for block in first]
    if len(first) == peers:
        assert max(lengths) - min(lengths) <= 2 * max(64, itemsize)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60))), st.integers(0, 60))
def test_coverage_is_a_set_of_bytes(ranges, start) -> None:
    coverage, there = Coverage(), set()
    for low, high in ranges:
        coverage.add(low, high)
        there |= set(range(low, high))
    reach = start
    while reach in there:
        reach += 1
    assert coverage.reach(start) == reach
    missing = coverage.missing(start, 60)
    assert {at for low, high in missing for at in range(low, high)} == set(range(start, 60)) - there
    assert all(one[1] < two[0] for one, two in pairwise(missing))


# What is no call, no placement, or no message.


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (Entry(Call(Kind.ALL_REDUCE, "x"), ()), "sizes"),
        (Entry(Call(Kind.ALL_REDUCE, "x", itemsize=4), (6,)), "whole items"),
        (Entry(Call(Kind.REDUCE_SCATTER, "x"), (6,)), "sizes"),
        (Entry(Call(Kind.BROADCAST, "x", root=5), (6,)), "sizes"),
        (Entry(Call(Kind.GATHER, "x", root=5), (6,)), "no rank 5"),
        (Entry(Call(Kind.ALL_GATHER, "x"), (-1,)), "sizes"),
        (Entry(Call(Kind.REDUCE_SCATTER, "x", on_lost="continue"), (6, 6)), "go on"),
    ],
)
def test_what_no_member_can_bring_is_refused(entry: Entry, words: str) -> None:
    placement = placed([1, 1])
    with pytest.raises(ValueError, match=words):
        Collective(placement, 0).contributed(0, entry)
    with pytest.raises(RemoteProtocolError, match=words):
        Collective(placement, 0).heard(1, Announcement(1, (Member(1, entry),)))


def test_a_placement_is_checked() -> None:
    placement = Placement.of("train", ["b", "a", "b"])
    assert placement.ranks == ((0, 2), (1,))
    assert placement.nodes == ("b", "a")
    for ranks in [((1,), (0,)), ((0, 0),), ((0,), ()), ((0,), (2,)), ((1, 0),)]:
        with pytest.raises(ValueError, match="no members"):
            Placement("train", tuple("ab"[: len(ranks)]), ranks)


CALL = Call(Kind.ALL_GATHER, "all_gather")
FOREIGN = [
    Announcement(2, ()),
    Announcement(1, (Member(0, Entry(CALL, (4,)), ((-1, b"four"),)),)),
    Announcement(1, (Member(1, Entry(CALL, (4,)), ((-1, b"fives"),)),)),
    Announcement(1, (Member(1, Entry(CALL, (4,))),)),
    Announcement(1, (), (7,)),
    Probe(Member(0, Entry(CALL, (4,)))),
    Relayed(1, (Announcement(1, ()),)),
    Relayed(-1, ()),
    Relayed(1 << 40, ()),
    Wanted((), (Want("key", whole(Buffer("value", 0, 4))),) * (MAX_WANTS + 1)),
]


@pytest.mark.parametrize("message", FOREIGN, ids=range(len(FOREIGN)))
def test_a_peer_that_breaks_the_protocol_is_found_out(message: Message) -> None:
    machine = Collective(placed([1, 1, 1]), 0)
    with pytest.raises(RemoteProtocolError):
        machine.heard(1, message)


ENTRY = Entry(CALL, (4,), (("value", "a number"),), b"digest")
MESSAGES: list[Message] = [
    Announcement(1, (Member(1, ENTRY, ((-1, b"four"),)),), (2,), Done((2,), (b"note",))),
    Probe(Member(1, ENTRY)),
    Relayed(1, (Announcement(1, ()),)),
    Wanted((), (Want("key", whole(Buffer("value", 0, 4))),)),
    Noted((1,), (b"note",)),
    Finished(),
    Aborted("PeerLost", "In vain."),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_messages_can_be_decoded_by_their_types(message: Message) -> None:
    data = msgspec.msgpack.encode(message)
    assert msgspec.msgpack.decode(data, type=type(message)) == message


def test_who_was_given_up_by_others_is_told() -> None:
    machine = Collective(placed([1, 1, 1]), 0)
    call = Call(Kind.ALL_REDUCE, "all_reduce()", on_lost="continue")
    machine.contributed(0, Entry(call, (4,)), {-1: b"four"})
    (fail,) = machine.heard(1, Announcement(1, (), (0,)))
    assert isinstance(fail, Fail)
    assert fail.error == "PeerLost"
    assert "goes on without train.0 on node-" in fail.sentence
