"""Members that do not agree, or call again; peers that break the protocol."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manta.transports.collectives.actions import Cancel, Deliver, Expect, Fail, Ready, Send, Tell
from manta.transports.collectives.calls import Call, Entry, Kind, OnLost, Placement
from manta.transports.collectives.collective import Collective
from manta.transports.collectives.course import MAX_WANTS
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
from manta.transports.collectives.plans import Buffer, whole
from manta.transports.errors import RemoteProtocolError
from tests.support.collective_calls import (
    brought,
    placed,
    small_sizes,
)
from tests.support.collectives import Simulation


@pytest.fixture(autouse=True, scope="module")
def small() -> Iterator[None]:
    with small_sizes():
        yield


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


# What is no call, no placement, or no message.


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (Entry(Call(Kind.ALL_REDUCE, "x"), ()), "sizes"),
        (Entry(Call(Kind.ALL_REDUCE, "x", itemsize=4), (6,)), "whole items"),
        (Entry(Call(Kind.REDUCE_SCATTER, "x"), (6,)), "sizes"),
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


def test_what_a_peer_would_have_reduced_with_a_lost_member_is_not_awaited_any_more() -> None:
    placement = Placement.of("train", ["a", "b", "b", "b"])
    call = Call(Kind.ALL_REDUCE, "all_reduce()", on_lost="continue", local_first=True)
    machine = Collective(placement, 0)
    actions = machine.contributed(0, Entry(call, (400,)))
    (first,) = [
        one.transfer for one in actions if isinstance(one, Expect) and "partial" in one[0][0]
    ]
    actions = machine.heard(1, Announcement(1, (Member(1, Entry(call, (400,))),), (3,)))
    assert Cancel(first.key) in actions
    actions = machine.heard(1, Announcement(1, (Member(2, Entry(call, (400,))),), (3,)))
    expected = [one.transfer for one in actions if isinstance(one, Expect)]
    assert {one.span.buffer.lost for one in expected} == {(3,)}


def test_a_call_of_which_all_are_lost_before_a_member_here_calls_has_failed() -> None:
    placement = Placement.of("train", ["a", "b", "b"])
    call = Call(Kind.ALL_REDUCE, "all_reduce()", on_lost="continue")
    machine = Collective(placement, 0)
    machine.heard(1, Announcement(1, (Member(1, Entry(call, (100_000,))),)))
    machine.left_out()
    machine.peer_lost(1)
    assert machine.has_failed
    assert machine.failure[0] == "PeerLost"
    assert "has lost all that would take part: train.0 on a" in machine.failure[1]


def test_what_others_called_is_forgotten_with_a_failure() -> None:
    placement = Placement.of("train", ["a", "b"])
    entry = Entry(Call(Kind.BARRIER, "barrier()"), forms=(("x" * 900, "y" * 900),) * 20)
    machine = Collective(placement, 0)
    machine.heard(1, Announcement(1, (Member(1, entry),)))
    assert machine.weight > 20 * 1800
    machine.abort("ResourceExhaustionError", "no room")
    assert machine.weight == 0


@pytest.mark.parametrize(
    "entry",
    [
        Entry(Call(Kind.BARRIER, "b" * 1_001)),
        Entry(Call(Kind.BARRIER, "barrier()"), before="b" * 1_001),
        Entry(Call(Kind.BARRIER, "barrier()"), forms=(("x", "y"),) * 33),
        Entry(Call(Kind.BARRIER, "barrier()"), forms=(("x", "y" * 1_001),)),
        Entry(Call(Kind.BARRIER, "barrier()"), digest=b"d" * 65),
    ],
)
@pytest.mark.parametrize("kind", [Announcement, Probe])
def test_who_announces_more_words_than_a_call_has_breaks_the_protocol(
    entry: Entry, kind: type
) -> None:
    machine = Collective(Placement.of("train", ["a", "b"]), 0)
    member = Member(1, entry)
    told = Probe(member) if kind is Probe else Announcement(1, (member,))
    with pytest.raises(RemoteProtocolError):
        machine.heard(1, told)


# Members that need not wait.


def three(kind: Kind, size: int) -> Simulation:
    """Peers with a member each, which is yet to call."""
    placement = Placement.of("train", ["a", "b", "c"])
    on_lost: OnLost = "continue" if kind is Kind.GATHER else "raise"
    entries = {}
    for rank in range(3):
        entry = brought(kind, rank, 0, size, kind.value, 3)
        entries[rank] = entry._replace(call=entry.call._replace(on_lost=on_lost))
    values = {rank: bytes(sum(entry.sizes)) for rank, entry in entries.items()}
    return Simulation(placement, entries, values)


def begun(kind: Kind, size: int, *, without: int) -> Simulation:
    """All but one member have called."""
    simulation = three(kind, size)
    del simulation.pending[without]
    return simulation.run()


@pytest.mark.parametrize("size", [3, 500])
@pytest.mark.parametrize(("kind", "late"), [(Kind.GATHER, 0), (Kind.SCATTER, 2)])
def test_who_only_gives_is_done_when_the_others_have_what_they_want(
    kind: Kind, late: int, size: int
) -> None:
    simulation = begun(kind, size, without=late)
    gives = 1 if kind is Kind.GATHER else 0
    assert simulation.peers[gives].delivered
    assert not simulation.peers[gives].is_closed
    simulation.call(late)
    simulation.run()
    assert all(peer.is_closed for peer in simulation.peers.values())
    assert all(len(simulation.outcome(rank)) for rank in range(3))


def test_a_gather_that_went_without_a_member_is_done_when_that_one_has_come() -> None:
    simulation = begun(Kind.GATHER, 3, without=2)
    root = simulation.peers[0]
    simulation.perform(0, root.machine.suffice(2))
    simulation.run()
    assert simulation.outcome(0)[0].ranks == (0, 1)
    assert simulation.peers[1].is_closed
    assert not root.is_closed
    simulation.call(2)
    simulation.run()
    assert all(peer.is_closed for peer in simulation.peers.values())
    assert Buffer("value", 2, 3) not in root.memory


def test_who_gives_again_what_is_over_hears_that_it_is() -> None:
    simulation = begun(Kind.GATHER, 3, without=0)
    simulation.call(0)
    simulation.run()
    again = Announcement(1, (Member(1, simulation.entries[1], ((-1, bytes(3)),)),))
    assert simulation.peers[0].machine.heard(1, again) == [Tell(1, Finished())]


def test_a_gather_without_a_root_any_more_is_done_everywhere() -> None:
    simulation = begun(Kind.GATHER, 3, without=0)
    simulation.miss(0)
    simulation.run()
    assert all(peer.is_closed for peer in simulation.peers.values())


@pytest.mark.parametrize(
    ("kind", "told"), [(Kind.ALL_GATHER, (0, 1, 2)), (Kind.GATHER, (0,)), (Kind.SCATTER, (1,))]
)
def test_what_can_t_be_sent_is_told_to_those_that_wait_for_it(
    kind: Kind, told: tuple[int, ...]
) -> None:
    simulation = three(kind, 500)
    sender, to = (1, 0) if kind is not Kind.SCATTER else (0, 1)
    peer = simulation.peers[sender]
    while not any(one.to == to for one in peer.sending.values()):
        assert simulation.pending
        simulation.run(1)
    key = next(key for key, one in peer.sending.items() if one.to == to)
    actions = peer.machine.unsent(key, "It can't.")
    if key in peer.sending and not any(action == Cancel(key) for action in actions):
        del peer.sending[key]
    simulation.perform(sender, actions)
    simulation.run()
    failed = {rank for one in simulation.peers.values() for rank in one.failed}
    assert failed == set(told)
    for one in simulation.peers.values():
        assert all(why == ("RequestFailed", "It can't.") for why in one.failed.values())


def test_of_what_is_over_only_what_was_called_is_kept() -> None:
    simulation = begun(Kind.ALL_GATHER, 3, without=2)
    simulation.call(2)
    simulation.run()
    for at, peer in simulation.peers.items():
        assert peer.is_closed
        assert isinstance(peer.machine, Collective)
        assert not peer.machine._roll._data
        assert not peer.machine._course.flow._there
        before = peer.machine.weight
        message = Announcement((at + 1) % 3, (Member((at + 1) % 3, simulation.entries[0]),))
        assert not peer.machine.heard((at + 1) % 3, message)
        assert peer.machine.weight == before


def test_nothing_goes_to_a_peer_whose_members_come_while_it_goes_on_without_others() -> None:
    """It has no plan of the round in which this one yet asks who has what came of the call."""
    placement = Placement.of("train", ["a", "b", "b", "c"])
    call = Call(Kind.ALL_REDUCE, "all_reduce()", itemsize=4, on_lost="continue")
    entries = {rank: Entry(call, (4_000,)) for rank in range(placement.size)}
    (own,), (first, second), (lost,) = placement.ranks
    machine = Collective(placement, 0, directly=True)
    machine.contributed(own, entries[own])
    machine.heard(1, Announcement(1, (Member(first, entries[first]),)))
    assert Tell(1, Announcement(0, ())) in machine.peer_lost(2)
    actions = machine.heard(1, Announcement(1, (Member(second, entries[second]),), (lost,)))
    assert not [one for one in actions if isinstance(one, Send | Ready)]
