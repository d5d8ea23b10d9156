from __future__ import annotations

import math
from collections import Counter
from random import Random
from typing import Any

import msgspec
import pytest

from manta.transports.errors import LocalTransportError, RemoteProtocolError
from manta.transports.membership.actions import (
    Action,
    Died,
    Entered,
    LinkUp,
    Moved,
    Received,
    Send,
    Tick,
)
from manta.transports.membership.lifeguard import Health, Suspicion
from manta.transports.membership.members import MEMORY, MOST_GONE, Members, State
from manta.transports.membership.membership import MOST_MESSAGES, Membership
from manta.transports.membership.messages import (
    BUCKETS,
    CLAIM,
    LARGEST,
    PAGE,
    ROOM,
    Ack,
    Alive,
    Compare,
    Dead,
    Gossip,
    Message,
    Nack,
    Ping,
    PingRequest,
    Records,
    Refused,
    Suspect,
    announcement,
    decode,
    encode,
    size_of,
)
from manta.transports.membership.order import ProbeOrder
from manta.transports.membership.pace import pace_of
from manta.transports.membership.rumours import Rumours
from manta.transports.membership.timers import Timers
from manta.transports.membership.view import View


def key_of(number: int) -> str:
    return f"{number:040d}"


def alive(number: int, incarnation: int = 0, order: int = 0, session: int = 1) -> Alive:
    return Alive(key_of(number), session, incarnation, order, f"p{number}", ("tcp://1.2.3.4:5",))


def suspect(number: int, incarnation: int = 0, by: int = 99) -> Suspect:
    return Suspect(key_of(number), 1, incarnation, key_of(by))


# --- words ------------------------------------------------------------------------------------

MESSAGES: list[Message] = [
    Ping(1, 2, True, (alive(3),)),
    Ack(1, 2, (suspect(3),)),
    PingRequest(1, key_of(3), (alive(3),)),
    Nack(1),
    Gossip((alive(3), suspect(4))),
    Compare(1, 3, (5, 6)),
    Records(1, 64, (3, 4), (alive(3),)),
    Refused("There is no room."),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda one: type(one).__name__)
def test_what_is_said_is_heard(message: Message) -> None:
    assert decode(encode(message)) == message


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"garbage",
        encode(Refused("x" * 301)),
        encode(Gossip((alive(1),) * (PAGE + 1))),
        encode(Compare(1, BUCKETS, ())),
        encode(Compare(1, 0, (0,) * (BUCKETS + 1))),
        encode(Ping(1 << 32, 0)),
        encode(Ping(-1, 0)),
        msgspec.msgpack.encode([99, 1]),
        msgspec.msgpack.encode([5, [[1, "short", 0, 0, 0, "name", []]]]),
        msgspec.msgpack.encode([5, [[1, key_of(1), 0, 0, 0, "name", ["a"] * 9]]]),
        msgspec.msgpack.encode([5, [[9, key_of(1), 0, 0]]]),
    ],
)
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="no message about membership"):
        decode(data)


def test_what_is_too_large_is_not_looked_at() -> None:
    with pytest.raises(RemoteProtocolError, match=f"membership of {LARGEST + 1:,} bytes"):
        decode(bytes(LARGEST + 1))


def test_a_page_of_the_largest_claims_fits() -> None:
    most = alive(1, incarnation=(1 << 53) - 1, session=(1 << 32) - 1)
    page = Records(1, 64, tuple(range(64)), (msgspec.structs.replace(most, name="n" * 100),) * PAGE)
    assert len(encode(page)) < LARGEST


@pytest.mark.parametrize(
    ("name", "addresses", "why"),
    [
        ("", (), "length >= 1"),
        ("x" * 101, (), "length <= 100"),
        ("x", ("tcp://1.2.3.4:5",) * 9, "length <= 8"),
        ("x", ("tcp://" + "h" * 200 + ":5",) * 3, "give it fewer addresses"),
    ],
)
def test_a_peer_that_no_message_holds_is_told_so(
    name: str, addresses: tuple[str, ...], why: str
) -> None:
    with pytest.raises(LocalTransportError, match=why):
        announcement(key_of(1), 1, name, addresses)


# --- news -------------------------------------------------------------------------------------


def test_news_is_told_so_often_and_no_more() -> None:
    rumours = Rumours()
    rumours.put(alive(1), 3)
    assert [rumours.take() for _ in range(5)] == [(alive(1),)] * 3 + [()] * 2
    assert not rumours


def test_later_news_of_a_peer_takes_the_place_of_former_news() -> None:
    rumours = Rumours()
    rumours.put(alive(1), 5)
    rumours.put(suspect(1), 2)
    assert [rumours.take() for _ in range(3)] == [(suspect(1),), (suspect(1),), ()]


def test_a_message_has_room_for_so_much_and_all_news_gets_its_turn() -> None:
    rumours = Rumours()
    for number in range(100):
        rumours.put(alive(number), 2)
    told: Counter[str] = Counter()
    while rumours:
        news = rumours.take()
        assert len(news) >= 10 or len(told) == 100
        assert len(encode(PingRequest((1 << 32) - 1, key_of(1), news))) <= ROOM
        told.update(claim.key for claim in news)
        assert max(told.values()) == 1 or len(told) == 100
    assert set(told.values()) == {2}


def test_what_is_told_first_is_not_told_twice() -> None:
    rumours = Rumours()
    rumours.put(suspect(1), 2)
    assert rumours.take([suspect(1, by=7)]) == (suspect(1, by=7),)


# --- order ------------------------------------------------------------------------------------


def test_each_is_probed_once_in_a_round() -> None:
    order = ProbeOrder(Random(1))
    for number in range(20):
        order.add(key_of(number))
    first = [order.next() for _ in range(20)]
    second = [order.next() for _ in range(20)]
    assert sorted(map(str, first)) == sorted(map(str, second)) == [key_of(n) for n in range(20)]
    assert first != second


@pytest.mark.parametrize("seed", range(20))
def test_who_comes_and_goes_disturbs_no_other(seed: int) -> None:
    random = Random(seed)
    order = ProbeOrder(random)
    for number in range(20):
        order.add(key_of(number))
    seen = [order.next() for _ in range(10)]
    for number in range(20, 25):
        order.add(key_of(number))
    order.remove(key_of(3))
    while (key := order.next()) not in seen:
        seen.append(key)
    assert len(set(seen)) == len(seen)
    assert {key_of(number) for number in range(20)} - set(seen) <= {key_of(3)}


def test_of_few_all_are_chosen_but_the_one() -> None:
    order = ProbeOrder(Random(1))
    for number in range(3):
        order.add(key_of(number))
    assert sorted(order.some(3, but=key_of(1))) == [key_of(0), key_of(2)]
    assert sorted(order.some(3)) == [key_of(0), key_of(1), key_of(2)]
    assert ProbeOrder(Random(1)).next() is None


def test_of_many_some_are_chosen_without_the_one() -> None:
    order = ProbeOrder(Random(1))
    for number in range(30):
        order.add(key_of(number))
    for _ in range(100):
        chosen = order.some(3, but=key_of(1))
        assert len(set(chosen)) == 3
        assert key_of(1) not in chosen


# --- times ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "period", "shortest"),
    [(1, 0.25, 1.0), (8, 0.25, 1.0), (64, 0.5, 1.0), (1_000, 0.83, 1.99), (100_000, 1.0, 4.0)],
)
def test_the_pace_follows_from_the_size(size: int, period: float, shortest: float) -> None:
    pace = pace_of(size)
    assert (round(pace.period, 2), round(pace.shortest, 2)) == (period, shortest)
    assert pace.longest == 3 * pace.shortest


def test_a_suspicion_is_the_shorter_the_more_confirm_it() -> None:
    pace = pace_of(8)
    suspicion = Suspicion(0, 10.0, pace, {"a"})
    dues = [suspicion.due]
    for by in "bcd":
        assert suspicion.confirm(by)
        assert not suspicion.confirm(by)
        dues.append(suspicion.due)
    assert dues[0] == 10 + pace.longest
    assert dues == sorted(dues, reverse=True)
    assert math.isclose(dues[-1], 10 + pace.shortest)
    assert not suspicion.confirm("e"), "enough accuse it"


@pytest.mark.parametrize(("size", "accusers"), [(2, 1), (3, 2), (4, 3), (5, 4), (6, 4)])
def test_where_there_are_few_fewer_are_enough(size: int, accusers: int) -> None:
    pace = pace_of(size)
    suspicion = Suspicion(0, 0.0, pace, {"a"})
    for by in "bcd"[: accusers - 1]:
        assert suspicion.due > pace.shortest + 0.1
        suspicion.confirm(by)
    assert math.isclose(suspicion.due, pace.shortest)


def test_a_suspicion_of_one_whose_link_was_closed_lasts_a_period() -> None:
    pace = pace_of(8)
    assert Suspicion(0, 5.0, pace, {"a"}, is_closed=True).due == 5 + pace.period


def test_doubt_in_oneself_has_bounds() -> None:
    health = Health()
    health.better()
    assert health.doubt == 0
    health.worse(100)
    assert health.doubt == 8


def test_what_is_due_later_is_called_in_order() -> None:
    timers, called = Timers(), list[str]()
    timers.at(2.0, called.append, "second")
    timers.at(1.0, called.append, "first")
    timers.at(2.0, called.append, "third")
    timers.shift(1.0)
    assert timers.due == 2.0
    timers.run(2.9)
    assert called == ["first"]
    timers.run(3.0)
    assert called == ["first", "second", "third"]


# --- views ------------------------------------------------------------------------------------


def test_ranks_follow_from_the_order_of_joining_and_then_from_keys() -> None:
    peers = [alive(5, order=0), alive(9, order=1), alive(2, order=1), alive(1, order=2)]
    view = View.of(1, peers)
    assert view.ranks == {key_of(5): 0, key_of(2): 1, key_of(9): 2, key_of(1): 3}
    other = View.of(77, reversed([alive(5, order=0, incarnation=4), *peers[1:]]))
    assert other.digest == view.digest
    assert View.of(1, peers[1:]).digest != view.digest
    assert View.of(1, [alive(5, session=2), *peers[1:]]).digest != view.digest


def test_the_dead_are_remembered_for_a_while_and_not_too_many() -> None:
    members = Members(alive(0))
    for number in range(1, MOST_GONE + 11):
        members.bury(members.add(alive(number)), State.DEAD, float(number))
    assert len(members.gone) == MOST_GONE
    assert members.get(key_of(10)) is None
    members.forget(MEMORY + 500)
    assert members.get(key_of(500)) is None
    assert members.get(key_of(501)) is not None
    assert members.living == 0
    assert members.digests == [0] * BUCKETS


def test_digests_are_of_those_that_live() -> None:
    one, other = Members(alive(0)), Members(alive(1))
    one.announce(alive(0))
    one.add(alive(1))
    other.announce(alive(1))
    other.add(alive(0))
    assert one.digests == other.digests
    member = one.add(alive(2))
    assert one.digests != other.digests
    one.bury(member, State.DEAD, 0.0)
    assert one.digests == other.digests


# --- the machine ------------------------------------------------------------------------------


class Mine:
    """A machine that knows some others, by what a peer told it."""

    def __init__(self, *others: Alive) -> None:
        self.machine = Membership(alive(0), Random(1), joins=True, now=0.0)
        self.machine.handle(Tick(), 0.0)
        self.now = 0.0
        if others:
            seed = others[0].key
            self.hear(seed, Gossip((others[0],)))
            (asked,) = self.sent(self.last, Compare)
            self.hear(seed, Records(asked.number, BUCKETS, (), others))

    def hear(self, sender: str, message: Message) -> list[Action]:
        self.last = self.machine.handle(Received(sender, message), self.now)
        return self.last

    @staticmethod
    def sent(actions: list[Action], kind: type) -> list[Any]:
        sends = [one.message for one in actions if isinstance(one, Send)]
        return [message for message in sends if isinstance(message, kind)]

    def until(self, most: float) -> list[Action]:
        """Ticks until that time."""
        actions: list[Action] = []
        while (due := self.machine.due) is not None and due <= most:
            self.now = due
            actions += self.machine.handle(Tick(), due)
        self.now = most
        return actions


def test_who_was_told_who_is_there_enters_and_says_so() -> None:
    mine = Mine(alive(1), alive(2, order=4))
    entered = [one for one in mine.last if isinstance(one, Entered)]
    assert entered[0].view.ranks == {key_of(1): 0, key_of(2): 1, key_of(0): 2}
    (gossip,) = mine.sent(mine.last, Gossip)
    assert mine.machine.me in gossip.news
    assert mine.machine.me.order == 5


def test_a_page_that_is_not_the_last_is_followed_by_a_question_for_the_next() -> None:
    machine = Membership(alive(0), Random(1), joins=True, now=0.0)
    first = machine.handle(LinkUp(key_of(1)), 0.0)
    assert [ping.asks for ping in Mine.sent(first, Ping)] == [True, True]
    actions = machine.handle(Received(key_of(1), Ack(1, 1, (alive(1),))), 0.0)
    (asked,) = Mine.sent(actions, Compare)
    actions = machine.handle(Received(key_of(1), Records(asked.number, 20, (3,), (alive(2),))), 0.1)
    (asked,) = Mine.sent(actions, Compare)
    assert (asked.at, len(asked.digests)) == (20, BUCKETS - 20)
    assert not [one for one in actions if isinstance(one, Entered)]


def test_an_address_beyond_bounds_is_refused_and_changes_nothing() -> None:
    mine = Mine(alive(1))
    with pytest.raises(LocalTransportError, match="fewer addresses"):
        mine.machine.handle(Moved(("tcp://" + "h" * 250 + ":1",) * 4), 1.0)
    assert mine.machine.me.addresses == ("tcp://1.2.3.4:5",)


def test_a_suspect_that_is_pinged_is_told_first_that_it_is_one() -> None:
    mine = Mine(alive(1))
    actions = mine.until(2.0)
    pings = [one for one in mine.sent(actions, Ping) if one.news]
    assert any(isinstance(ping.news[0], Suspect) for ping in pings)


def test_others_are_asked_to_ping_one_that_does_not_answer() -> None:
    mine = Mine(*(alive(number) for number in range(1, 8)))
    actions = mine.until(0.6)
    requests = mine.sent(actions, PingRequest)
    assert len({request.target for request in requests}) >= 1
    assert len(requests) >= 3


def test_a_helper_answers_for_the_peer_or_says_that_it_has_no_answer() -> None:
    mine = Mine(alive(1), alive(2))
    actions = mine.hear(key_of(1), PingRequest(77, key_of(2)))
    (ping,) = mine.sent(actions, Ping)
    actions = mine.hear(key_of(2), Ack(ping.number, 1))
    assert [one.number for one in mine.sent(actions, Ack)] == [77]
    mine.hear(key_of(1), PingRequest(78, key_of(2)))
    actions = mine.until(mine.now + 0.2)
    assert [one.number for one in mine.sent(actions, Nack)] == [78]
    actions = mine.hear(key_of(1), PingRequest(79, key_of(55)))
    assert [one.number for one in mine.sent(actions, Nack)] == [79]


def test_an_answer_of_another_answers_no_probe() -> None:
    mine = Mine(alive(1), alive(2))
    sends: list[tuple[str, Any]] = []
    while not sends:
        actions = mine.until(mine.now + 0.01)
        sends = [(one.peer, one.message) for one in actions if isinstance(one, Send)]
        sends = [(peer, message) for peer, message in sends if isinstance(message, Ping)]
    ((peer, ping),) = sends
    probed = mine.machine._members.get(peer)
    assert probed is not None
    for liar in ({key_of(1), key_of(2)} - {peer}).pop(), key_of(33):
        mine.hear(liar, Ack(ping.number, 1))
        assert mine.machine._prober.is_probing(probed)
    mine.hear(peer, Ack(ping.number, 1))
    assert not mine.machine._prober.is_probing(probed)


def test_a_suspect_that_says_anything_is_not_given_up() -> None:
    mine = Mine(alive(1), alive(2))
    said: list[Action] = []
    for _ in range(60):
        said += mine.until(mine.now + 0.4)
        said += mine.hear(key_of(1), Gossip(()))
        said += mine.hear(key_of(2), Gossip((suspect(1), Dead(key_of(1), 1, 0, key_of(2)))))
    died = {one.peer.key for one in said if isinstance(one, Died)}
    assert key_of(1) not in died
    assert mine.machine.view.ranks.keys() >= {key_of(1), key_of(2)}


def test_one_that_is_alone_has_nobody_to_gossip_to() -> None:
    machine, ticks = Membership(alive(0), Random(1), joins=False, now=0.0), 0
    while machine.due is not None and machine.due < 25.0:
        machine.handle(Tick(), machine.due)
        ticks += 1
    assert ticks < 120  # a period is 0.25 s


def test_late_word_of_a_former_life_is_asked_about_before_it_counts() -> None:
    mine = Mine(alive(1), alive(2))

    def session() -> int:
        found = mine.machine.peer(key_of(1))
        assert found is not None
        return found[0].session

    mine.hear(key_of(1), Gossip((alive(1, session=2),)))
    assert session() == 2
    actions = mine.hear(key_of(1), Gossip((alive(1, session=1),)))
    assert session() == 2
    (ping,) = mine.sent(actions, Ping)
    assert ping.asks
    mine.hear(key_of(1), Ack(ping.number, 1, (alive(1, session=1),)))  # it was no late word
    assert session() == 1


def test_what_comes_beyond_bounds_is_not_answered() -> None:
    mine = Mine(alive(1))
    answered = [bool(mine.sent(mine.hear(key_of(1), Ping(1, 1)), Ack)) for _ in range(300)]
    assert answered.count(True) == MOST_MESSAGES - 2  # two were heard before
    mine.until(2.0)
    assert mine.sent(mine.hear(key_of(1), Ping(1, 1)), Ack)


def test_one_that_is_linked_and_not_known_is_asked_again_who_it_is() -> None:
    mine = Mine(alive(1))
    mine.machine.handle(LinkUp(key_of(7)), mine.now)
    asked = [
        one
        for one in mine.until(20.0)
        if isinstance(one, Send) and one.peer == key_of(7) and isinstance(one.message, Ping)
    ]
    assert len(asked) >= 5


def test_claims_are_as_small_as_their_bound_says() -> None:
    assert size_of(alive(1)) < 100
    assert size_of(suspect(1)) < 100
    assert CLAIM < ROOM
