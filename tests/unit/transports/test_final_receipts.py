"""Letters of groups whose attempts are never made again: what was received is forgotten."""

from __future__ import annotations

from manta.transports.exchange.channels import Member
from manta.transports.exchange.group import Group
from manta.transports.exchange.letters import RECEIVED, Attempt
from tests.unit.transports.test_exchange import Net

ONE, TWO = Attempt(0, Member("one", 0), 0), Attempt(0, Member("two", 0), 0)


def final_net() -> Net:
    net = Net()
    for name, peer in net.peers.items():
        peer.group = Group(name, peer, net.roster, is_final=True)
    net.peers["a"].group.begin(ONE)
    net.peers["b"].group.begin(TWO)
    net.settle()
    return net


def exchange(net: Net, number: int) -> bytes:
    """The letter with that number, from a to b."""
    a, b = net.peers["a"], net.peers["b"]
    sent, got = ("sent", number), ("got", number)
    a.group.send(a.ask(sent), ONE, "b", "tag", b"%d" % number, 9.0, 0.0)
    net.settle()
    b.group.receive(b.ask(got), TWO, "a", "tag", number, 9.0, 0.0)
    net.settle()
    value = b.answers.pop(got)
    assert a.answers.pop(sent) is None
    assert isinstance(value, bytes)
    return value


def test_neither_end_keeps_what_was_received() -> None:
    net = final_net()
    for number in range(5_000):
        assert exchange(net, number) == b"%d" % number
        assert net.peers["a"].group.letters.kept.letters <= RECEIVED + 1
        assert net.peers["b"].group.letters.kept.letters <= RECEIVED + 1


def test_links_that_fail_bring_no_letter_twice() -> None:
    net = final_net()
    for number in range(200):
        if number % 7 == 0:
            net.down("a", "b")
        assert exchange(net, number) == b"%d" % number


def test_a_thread_that_asks_for_what_another_has_received_is_answered() -> None:
    net = final_net()
    for number in range(3 * RECEIVED):
        exchange(net, number)
    b = net.peers["b"]
    b.group.receive(b.ask("late"), TWO, "a", "tag", 0, 9.0, 0.0)
    assert b.answers["late"] is None
