"""Meshes in virtual time: who is in them is known to all, whatever fails and whoever lies.

As in `test_simulation.py`: fifty seeds in every run, and `--seed N` replays one identically.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from manta.transports.membership.actions import (
    AddressChanged,
    AliveAgain,
    Cut,
    Died,
    Entered,
    Joined,
    LeftMesh,
    LinkUp,
    Moved,
    Pause,
    Received,
    Refusal,
    Resume,
    Suspected,
)
from manta.transports.membership.members import MOST
from manta.transports.membership.membership import MOST_MESSAGES
from manta.transports.membership.messages import (
    Alive,
    Claim,
    Dead,
    Gossip,
    Left,
    Message,
    Suspect,
)
from tests.simulation.membership import Net, Peer, key_of

TROUBLE = 40.0
"""Seconds in which things go wrong."""
PATIENCE = 60.0
"""Seconds after that in which all agree again."""


@pytest.fixture(scope="module")
def seen() -> Counter[str]:
    """What the seeds of this run went through."""
    return Counter()


def eight(seed: int = 1, *, loss: float = 0.0) -> tuple[Net, list[Peer]]:
    net = Net(seed, loss=loss)
    peers = net.mesh(8)
    net.until(lambda: net.agree(peers), 10)
    net.run(5)
    return net, peers


# --- whatever fails ---------------------------------------------------------------------------


class Scenario:
    def __init__(self, seed: int) -> None:
        self.net = Net(seed)
        self.seen: Counter[str] = Counter()
        random = self.random = self.net.random
        self.net.loss = random.choice((0.0, 0.02, 0.1))
        self.net.delay = random.choice(((0.0002, 0.002), (0.001, 0.05)))
        self.count = random.randint(2, 10)
        self.net.mesh(self.count)

    def run(self) -> None:
        net = self.net
        while net.now < TROUBLE:
            net.run(self.random.expovariate(1.0))
            self._trouble()
        for peer in list(net.peers.values()):
            if peer.is_frozen:
                peer.thaw()
        net.heal()
        first, *others = net.peers.values()
        for other in others:  # whoever is alone dials whom it was given: nobody may know it
            first.take(LinkUp(other.key))
            other.take(LinkUp(first.key))
        net.until(lambda: net.agree(net.peers.values()), PATIENCE)
        self._check()

    def _trouble(self) -> None:
        net, random = self.net, self.random
        peers = list(net.peers.values())
        peer = random.choice(peers)
        match random.randrange(9):
            case 0 if len(peers) > 2:
                net.kill(peer, closed=random.random() < 0.7)
                self.seen["killed"] += 1
            case 1 if len(peers) > 2 and not peer.is_frozen:
                net.leave(peer)
                self.seen["left"] += 1
            case 2 if not peer.is_frozen:
                peer.freeze()
                net.after(random.uniform(0.1, 15), peer.thaw)
                self.seen["frozen"] += 1
            case 3 if all(one.side == 0 for one in peers):
                near = [one for one in peers if random.random() < 0.5]
                net.part(near, [one for one in peers if one not in near])
                net.after(random.uniform(0.1, 15), net.heal)
                self.seen["parted"] += 1
            case 4 if not peer.is_frozen:
                peer.take(Moved((f"tcp://10.1.0.{random.randrange(200)}:7000",)))
                self.seen["moved"] += 1
            case 5 if len(peers) > 2:  # the same key at once again: a process that is restarted
                net.kill(peer, closed=random.random() < 0.7)
                others = [one for one in peers if one is not peer and one.side == peer.side]
                if others:
                    net.start(peer.number, [random.choice(others)]).side = peer.side
                    self.seen["restarted"] += 1
            case _ if len(peers) < 12:
                near = [one for one in peers if one.side == 0]
                if near:
                    net.start(self.count, [random.choice(near)])
                    self.count += 1
                    self.seen["joined"] += 1

    def _check(self) -> None:
        net = self.net
        assert not net.false_deaths
        for peer in net.peers.values():
            view = peer.machine.view
            assert view.peers[view.ranks[peer.key]] == peer.machine.me
            assert view.digest == next(iter(net.peers.values())).machine.view.digest
            self.seen.update(type(action).__name__ for _, action in peer.said)


def test_all_agree_again_whatever_failed(seed: int, seen: Counter[str]) -> None:
    scenario = Scenario(seed)
    scenario.run()
    seen["runs"] += 1
    seen.update(scenario.seen)


@pytest.mark.parametrize("failed", [81, 101, 107, 132, 136])
def test_a_seed_that_once_failed(failed: int) -> None:
    Scenario(failed).run()


def test_the_seeds_went_through_everything(seen: Counter[str]) -> None:
    """A simulation in which nothing goes wrong proves nothing."""
    if seen["runs"] < 50:
        pytest.skip("asks for fifty seeds")
    for what in ("killed", "left", "frozen", "parted", "moved", "restarted", "joined"):
        assert seen[what] >= 20, f"hardly a seed saw that one {what}"
    for kind in (Joined, Suspected, AliveAgain, LeftMesh, Died, AddressChanged):
        assert seen[kind.__name__], f"no seed said {kind.__name__}"


def test_a_seed_replays_identically() -> None:
    def said() -> list[object]:
        scenario = Scenario(3)
        scenario.run()
        return [peer.said for peer in scenario.net.peers.values()]

    assert said() == said()


# --- how soon ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed_", range(10))
def test_one_of_eight_that_is_killed_is_named_on_all_within_a_second(seed_: int) -> None:
    net, peers = eight(seed_)
    net.kill(peers[seed_ % 8])
    rest = [peer for peer in peers if peer.is_up]
    assert net.until(lambda: net.agree(rest), 5) < 0.8


@pytest.mark.parametrize("seed_", range(10))
def test_one_of_eight_that_is_frozen_is_named_on_all_within_three_seconds(seed_: int) -> None:
    net, peers = eight(seed_)
    peers[seed_ % 8].freeze()
    rest = [peer for peer in peers if not peer.is_frozen]
    assert net.until(lambda: net.agree(rest), 5) < 2.9


@pytest.mark.parametrize("loss", [0.0, 0.1])
def test_who_says_that_it_stands_still_is_dead_at_once_until_it_goes_on(loss: float) -> None:
    net = Net(5, loss=loss)
    peers = net.mesh(8)
    net.until(lambda: net.agree(peers), 20)
    still, *rest = peers
    still.freeze()  # that others give it up is right
    still.is_frozen = False
    still.take(Pause())
    still.is_frozen = True
    assert still.machine.due is None
    most = 0.1 if loss == 0 else 2.5
    net.until(lambda: all(still.number not in peer.view for peer in rest), most)
    net.run(30)
    assert net.agree(rest)
    still.is_frozen, still.since = False, net.now
    still.take(Resume())
    net.until(lambda: net.agree(peers), 10)
    assert net.false_deaths == []
    for peer in rest:
        assert [one.was_dead for one in peer.of(AliveAgain)] == [True]


def test_who_is_slow_for_less_than_a_second_is_not_given_up() -> None:
    net, peers = eight()
    for peer in peers:
        for _ in range(3):
            peer.freeze()
            net.run(0.9)
            peer.thaw()
            net.run(0.5)
    assert not net.deaths


def test_of_many_with_loss_none_is_given_up_but_the_dead_within_ten_periods() -> None:
    net = Net(5, loss=0.1, delay=(0.001, 0.1), is_wire=False)
    peers = net.grown(256)
    net.run(10)
    period = peers[0].machine.pace.period
    for peer in peers[:3]:
        at = net.now
        net.kill(peer, closed=False)
        net.run(15 * period)
        took = [when - at for when, _, key in net.deaths if key == peer.key]
        assert len(took) == len(net.peers)
        assert max(took) < 10 * period
    assert not net.false_deaths


def test_news_of_nothing_costs_as_much_with_many_as_with_few() -> None:
    cost = []
    for size in (16, 128):
        net = Net(1, loss=0.1, is_wire=False)
        peers = net.grown(size)
        net.run(40)
        cost.append(sum(peer.sent for peer in peers) / size / 40 * peers[0].machine.pace.period)
    assert cost[1] < 1.3 * cost[0]


# --- joining and leaving ----------------------------------------------------------------------


def test_one_joins_by_any_and_takes_the_last_rank() -> None:
    net, peers = eight()
    ranks = peers[0].machine.view.ranks
    ninth = net.start(0x99, [peers[5]])
    net.until(lambda: net.agree([*peers, ninth]), 3)
    after = peers[0].machine.view.ranks
    assert after == {**ranks, ninth.key: 8}


def test_many_that_join_at_once_agree_on_ranks() -> None:
    net = Net(2)
    first = net.start(0)
    peers = [first, *(net.start(number, [first]) for number in range(1, 40))]
    net.until(lambda: net.agree(peers), 10)
    assert sorted(first.machine.view.ranks.values()) == list(range(40))
    assert first.machine.view.ranks[first.key] == 0


def test_a_page_that_is_lost_is_asked_for_again() -> None:
    net = Net(4, loss=0.5)
    peers = net.mesh(4)
    net.until(lambda: all(peer.of(Entered) for peer in peers), 30)
    net.loss = 0.0
    net.until(lambda: net.agree(peers), 30)


def test_of_those_that_only_find_each_other_one_is_the_first() -> None:
    net = Net(6)
    peers = [net.start(0, joins=True)]
    for number in range(1, 4):
        peers.append(net.start(number, peers))
    net.until(lambda: net.agree(peers), 10)
    assert all(len(peer.of(Entered)) == 1 for peer in peers)


def test_who_finds_nobody_waits() -> None:
    net = Net(7)
    alone = net.start(0, joins=True)
    net.run(60)
    assert not alone.said
    assert alone.machine.due is not None


def test_a_link_with_itself_is_nothing() -> None:
    net = Net(8)
    peer = net.start(0)
    peer.take(LinkUp(peer.key))
    peer.take(Received(peer.key, Gossip((Dead(peer.key, 0, 0, peer.key),))))
    net.run(5)
    assert peer.view == {0}
    assert not peer.machine.peers()


def test_two_meshes_whose_peers_are_linked_become_one() -> None:
    net = Net(9)
    one, other = net.mesh(4), [net.start(10)]
    for number in range(11, 14):
        other.append(net.start(number, [other[0]]))
    net.part(one, other)
    net.run(5)
    net.heal()
    one[2].take(LinkUp(other[1].key))
    other[1].take(LinkUp(one[2].key))
    net.until(lambda: net.agree([*one, *other]), 5)


def test_who_leaves_is_not_called_dead() -> None:
    net, peers = eight(loss=0.2)
    net.leave(peers[3])
    rest = [peer for peer in peers if peer.is_up]
    net.until(lambda: net.agree(rest), 10)
    for peer in rest:
        assert [one.peer.key for one in peer.of(LeftMesh)] == [peers[3].key]
        assert not peer.of(Died)


def test_a_full_mesh_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("manta.transports.membership.beliefs.MOST", 8)
    net, peers = eight()
    ninth = net.start(9, [peers[2]])
    net.run(3)
    assert peers[2].view == set(range(8))
    assert ninth.of(Refusal)[0].sentence == "The mesh has 8 peers, and room for no more."
    assert MOST >= 1_000


# --- what changes -----------------------------------------------------------------------------


def test_an_address_that_changes_is_told_once_to_each() -> None:
    net, peers = eight(loss=0.1)
    peers[4].take(Moved(("tcp://10.9.9.9:1",)))
    net.run(10)
    for peer in peers[:4] + peers[5:]:
        changed = peer.of(AddressChanged)
        assert [one.former for one in changed] == [("tcp://10.0.0.4:7000",)]
        assert changed[0].peer.addresses == ("tcp://10.9.9.9:1",)
    assert net.agree(peers)


def test_a_process_that_begins_anew_is_another_peer_of_the_same_key() -> None:
    net, peers = eight(loss=0.05)
    net.kill(peers[2], closed=False)
    again = net.start(2, [peers[6]])
    now = [*peers[:2], again, *peers[3:]]
    net.until(lambda: net.agree(now), 10)
    for peer in now:
        if peer is not again:
            assert [one.sentence for one in peer.of(Died)] == ["it began anew"]
            assert [one.peer.session for one in peer.of(Joined) if one.peer.key == again.key] == [
                peers[2].machine.me.session,
                again.machine.me.session,
            ]
    assert peers[0].machine.view.ranks[again.key] == 7


def test_late_news_does_not_bring_the_dead_back() -> None:
    net, peers = eight()
    was = peers[7].machine.me
    net.kill(peers[7])
    rest = peers[:7]
    net.until(lambda: net.agree(rest), 5)
    for peer in rest:
        peer.take(Received(rest[0].key, Gossip((was,))))
    net.run(20)
    assert net.agree(rest)
    assert not any(peer.of(AliveAgain) for peer in rest)


# --- partitions and freezes -------------------------------------------------------------------


@pytest.mark.parametrize("seed_", range(5))
def test_a_mesh_that_was_parted_is_one_again(seed_: int) -> None:
    net, peers = eight(seed_, loss=0.02)
    ranks = peers[0].machine.view.ranks
    net.part(peers[:5], peers[5:])
    net.until(lambda: net.agree(peers[:5]) and net.agree(peers[5:]), 10)
    net.run(60)
    assert net.agree(peers[:5])
    assert net.agree(peers[5:])
    net.heal()
    net.until(lambda: net.agree(peers), 15)
    assert peers[6].machine.view.ranks == ranks
    for peer in peers:
        others = 3 if peer in peers[:5] else 5
        assert len(peer.of(Died)) == others
        assert len([one for one in peer.of(AliveAgain) if one.was_dead]) == others


@pytest.mark.parametrize("seconds", [0.8, 5.0, 60.0])
@pytest.mark.parametrize("seed_", range(3))
def test_half_of_the_peers_frozen_and_thawed(seed_: int, seconds: float) -> None:
    net, peers = eight(seed_)
    for peer in peers[::2]:
        peer.freeze()
    net.run(seconds)
    if seconds > 20:
        assert net.agree(peers[1::2])
    for peer in peers[::2]:
        peer.thaw()
    net.until(lambda: net.agree(peers), 10)
    net.run(10)
    assert net.agree(peers)
    for peer in peers[::2]:  # what they did not hear while they were frozen proves nothing
        assert not peer.of(Died)


# --- those that lie ---------------------------------------------------------------------------

Lie = Callable[[Net, Alive, Peer], Claim]
LIES: dict[str, Lie] = {
    "suspect": lambda net, of, liar: Suspect(of.key, of.session, of.incarnation, liar.key),
    "suspect, say others": lambda net, of, liar: Suspect(
        of.key, of.session, of.incarnation, key_of(net.random.randrange(8))
    ),
    "dead": lambda net, of, liar: Dead(of.key, of.session, of.incarnation, liar.key),
    "left": lambda net, of, liar: Left(of.key, of.session, of.incarnation),
    "dead, later": lambda net, of, liar: Dead(of.key, of.session, of.incarnation + 900, liar.key),
    "dead, at the end of time": lambda net, of, liar: Dead(
        of.key, of.session, (1 << 53) - 1, liar.key
    ),
    "elsewhere": lambda net, of, liar: Alive(
        of.key, of.session, of.incarnation + 1, of.order, of.name, ("tcp://6.6.6.6:6",)
    ),
    "elsewhere, at the end of time": lambda net, of, liar: Alive(
        of.key, of.session, (1 << 53) - 1, of.order, of.name, ("tcp://6.6.6.6:6",)
    ),
    "begun anew": lambda net, of, liar: Alive(
        of.key, 6, 0, of.order, of.name, ("tcp://6.6.6.6:6",)
    ),
}


@pytest.mark.parametrize("loss", [0.0, 0.1])
@pytest.mark.parametrize("lie", LIES)
def test_who_answers_stays_whatever_one_says(lie: str, loss: float) -> None:
    net, peers = eight(11, loss=loss)
    liar, victim = peers[1], peers[6]

    def lies() -> None:
        if net.now < 40:
            net.after(0.05, lies)
        of = victim.machine.me if net.random.random() < 0.5 else known(liar, victim)
        for other in peers:
            if other is not liar:
                net.carry(liar, other.key, Gossip((LIES[lie](net, of, liar),)))

    lies()
    sent = sum(peer.sent for peer in peers)
    net.run(40)
    assert not net.deaths
    assert not any(peer.of(LeftMesh) for peer in peers)
    assert (sum(peer.sent for peer in peers) - sent) / 8 / 40 < 8_000
    net.until(lambda: net.agree(peers), 10)
    assert all(known(peer, victim) == victim.machine.me for peer in peers if peer is not victim)


@pytest.mark.parametrize("lie", ["elsewhere, at the end of time", "begun anew"])
def test_who_is_lied_to_before_it_knows_better_learns_better(lie: str) -> None:
    net, peers = eight(15)
    liar, victim = peers[1], peers[6]
    ninth = net.start(9, [peers[0]])
    ninth.take(Received(liar.key, Gossip((LIES[lie](net, victim.machine.me, liar),))))
    assert known(ninth, victim).addresses == ("tcp://6.6.6.6:6",)
    net.until(lambda: net.agree([*peers, ninth]), 10)
    assert not any(peer.of(Died) for peer in peers)


def known(peer: Peer, other: Peer) -> Alive:
    found = peer.machine.peer(other.key)
    assert found is not None
    return found[0]


def test_many_that_are_accused_at_once_stay_all() -> None:
    net, peers = eight(12)
    liar = peers[0]

    def lies() -> None:
        if net.now < 30:
            net.after(0.1, lies)
        claims = tuple(
            Dead(of.key, of.session, of.incarnation, liar.key)
            for of in (peer.machine.me for peer in peers[1:])
        )
        for other in peers[1:]:
            net.carry(liar, other.key, Gossip(claims))

    lies()
    net.run(40)
    assert not net.deaths
    assert net.agree(peers)


def test_who_floods_is_cut_and_told_why_and_nobody_is_lost_by_it() -> None:
    net, peers = eight(13)
    liar, other = peers[0], peers[1]
    flood: Message = Gossip(())
    for _ in range(20 * MOST_MESSAGES):
        other.take(Received(liar.key, flood))
    cut = other.of(Cut)
    assert cut[0].peer == liar.key
    assert cut[0].sentence == "it sends more than 200 messages about membership in a second"
    assert len(cut) == 1
    net.run(20)
    assert net.agree(peers)
    assert not net.deaths


def test_peers_that_do_not_exist_are_gone_again() -> None:
    net, peers = eight(14)
    made_up = tuple(
        Alive(key_of(7_000 + number), 1, 0, 9, "nobody", ("tcp://6.6.6.6:6",))
        for number in range(10)
    )
    net.carry(peers[0], peers[1].key, Gossip(made_up))
    net.run(1)
    assert len(peers[1].view) == 18
    net.until(lambda: net.agree(peers), 60)
    assert not net.false_deaths
