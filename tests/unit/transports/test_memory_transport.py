"""The network in memory: the same seed gives the same run, and each fault does what it says.

What it shares with real sockets is in tests/conformance/test_transport.py."""

from __future__ import annotations

import random
from functools import partial

import pytest

from manta.testing import FakeClock
from manta.testing.memory.medium import Faults
from manta.testing.memory.network import MemoryNetwork, public_key_of
from manta.testing.transports import RecordingHandler, echo
from manta.transports.errors import DownReason
from manta.transports.security.admission import Admission
from manta.transports.security.keys import check_key


class Pair:
    def __init__(self, network, on_message=None):
        self.network = network
        self.server, self.client = network.transport("server"), network.transport("client")
        self.at_server, self.at_client = RecordingHandler(on_message), RecordingHandler()
        self.admission = Admission([self.client.public_key])
        self.listener = self.server.listen("tcp://server:0", self.at_server, self.admission)
        self.link = self.client.dial(self.listener.address, self.server.public_key, self.at_client)
        network.run_while(lambda: not (self.at_client.links and self.at_server.links))

    def send(self, count):
        for number in range(count):
            if self.link.state is None:
                self.link.send([b"%d" % number])

    @property
    def heard(self):
        return [int(message[0]) for message in self.at_server.messages]


def storm(seed):
    """Everything that can go wrong, for a minute; returns the trace."""
    trace = []
    faults = Faults(
        delay=(0.001, 0.2), loss=0.01, drop=0.02, duplicate=0.05, reorder=0.1, silence=2.0
    )
    network = MemoryNetwork(
        rng=random.Random(seed), faults=faults, trace=lambda at, text: trace.append((at, text))
    )
    pair = Pair(network, echo)
    for round in range(60):
        pair.send(10)
        network.run_for(0.5)
        if round % 10 == 3:
            network.partition(pair.client, pair.server)
        if round % 10 == 7:
            network.heal(pair.client, pair.server)
        network.run_for(0.5)
    return trace


def test_a_seed_replays_the_identical_run():
    first, again, other = storm(7), storm(7), storm(8)
    assert first == again
    assert first != other
    assert len(first) > 500


def test_time_is_that_of_the_clock_and_moves_with_the_network():
    clock = FakeClock()
    network = MemoryNetwork(clock, faults=Faults(delay=(0.25, 0.25)))
    pair = Pair(network)
    assert clock.now() == pytest.approx(0.75)  # dialled, greeted, answered
    pair.link.send([b"0"])
    network.run_for(0.2)
    assert pair.heard == []
    network.run_for(0.1)
    assert pair.heard == [0]
    assert clock.now() == pytest.approx(1.05)


def test_a_clock_of_somebody_elses_is_not_moved():
    class Standing:
        time = 0.0

        def now(self):
            return self.time

    clock = Standing()
    network = MemoryNetwork(clock)
    calls = []
    network.call_later(1.0, lambda: calls.append("later"))
    network.call_later(0.0, lambda: calls.append("now"))
    assert network.step()
    assert not network.step()
    assert calls == ["now"]
    clock.time = 1.0
    network.run_until(1.0)
    assert calls == ["now", "later"]


def test_events_of_one_time_run_in_the_order_of_their_making():
    network = MemoryNetwork()
    calls: list[int] = []
    for number in range(10):
        network.call_later(1.0, partial(calls.append, number))
    network.run_for(2.0)
    assert calls == list(range(10))


def test_delay_alone_keeps_the_order():
    pair = Pair(MemoryNetwork(faults=Faults(delay=(0.001, 1.0))))
    pair.send(50)
    pair.network.run_for(5.0)
    assert pair.heard == list(range(50))


@pytest.mark.parametrize(
    ("faults", "same_order", "complete", "once"),
    [
        (Faults(reorder=0.5, delay=(0.01, 0.01)), False, True, True),
        (Faults(duplicate=0.5), True, True, False),
        (Faults(drop=0.5), True, False, True),
    ],
    ids=["reorder", "duplicate", "drop"],
)
def test_single_messages_suffer_when_asked_to(faults, same_order, complete, once):
    pair = Pair(MemoryNetwork(faults=faults))
    pair.send(200)
    pair.network.run_for(5.0)
    assert (pair.heard == sorted(pair.heard)) is same_order
    assert (set(pair.heard) == set(range(200))) is complete
    assert (len(pair.heard) == len(set(pair.heard))) is once
    assert pair.at_client.downs == []


def test_a_broken_connection_is_told_to_both_and_heals():
    pair = Pair(MemoryNetwork(faults=Faults(loss=0.05)))
    for _ in range(100):
        pair.send(5)
        pair.network.run_for(1.0)
    assert DownReason.LOST in pair.at_client.reasons
    assert set(pair.at_server.reasons) == {DownReason.LOST}
    assert len(pair.at_server.downs) in (len(pair.at_server.links), len(pair.at_server.links) - 1)
    assert pair.link.state is None


def test_break_links_loses_what_is_on_its_way():
    pair = Pair(MemoryNetwork(faults=Faults(delay=(0.1, 0.1))))
    pair.send(3)
    pair.network.break_links(pair.client, pair.server)
    pair.network.run_for(2.0)
    assert pair.heard == []
    assert pair.at_client.reasons == [DownReason.LOST]
    assert pair.link.state is None


def test_a_short_partition_only_delays():
    pair = Pair(MemoryNetwork(faults=Faults(silence=5.0)))
    pair.network.partition(pair.client, pair.server)
    pair.send(5)
    pair.network.run_for(3.0)
    assert pair.heard == []
    pair.network.heal(pair.client, pair.server)
    pair.network.run_for(1.0)
    assert pair.heard == list(range(5))
    pair.network.run_for(10.0)
    assert pair.at_client.downs == pair.at_server.downs == []


def test_a_long_partition_is_silence_and_then_out_of_reach():
    pair = Pair(MemoryNetwork(faults=Faults(silence=5.0, unreachable=4.0)))
    pair.network.partition(pair.client, pair.server)
    pair.send(5)
    pair.network.run_for(20.0)
    assert pair.at_client.reasons == [DownReason.SILENT, DownReason.UNREACHABLE]
    assert pair.at_server.reasons == [DownReason.SILENT]
    pair.network.heal(pair.client, pair.server)
    pair.network.run_for(10.0)
    assert pair.link.state is None
    assert pair.heard == []  # they were lost, and said to be


def test_isolate_cuts_off_from_all():
    network = MemoryNetwork()
    pair = Pair(network)
    network.isolate(pair.server)
    network.run_for(10.0)
    assert pair.link.state is not None
    network.rejoin(pair.server)
    network.run_for(10.0)
    assert pair.link.state is None


def test_a_crash_is_silent_within_and_loud_without():
    network = MemoryNetwork()
    pair = Pair(network, echo)
    address = pair.listener.address
    pair.send(3)
    network.crash(pair.server)
    network.run_for(1.0)
    assert pair.at_server.messages == []
    assert pair.at_server.downs == []
    assert pair.at_client.reasons == [DownReason.LOST, DownReason.UNREACHABLE]
    heard = RecordingHandler()
    restarted = network.transport("server")
    assert restarted.public_key == pair.server.public_key
    restarted.listen(address, heard, pair.admission)
    network.run_for(2.0)
    assert pair.link.state is None
    assert len(heard.links) == 1


def test_another_major_version_is_told_apart():
    network = MemoryNetwork()
    old, new = network.transport("old"), network.transport("new", major=2)
    listener = new.listen("tcp://new:1", RecordingHandler(), Admission(guests=True))
    link = old.dial(listener.address, new.public_key, RecordingHandler())
    network.run_for(1.0)
    assert link.state is DownReason.VERSION


def test_a_handlers_error_can_be_had_by_the_test():
    def fail(link, message):
        raise ZeroDivisionError

    pair = Pair(MemoryNetwork(raise_errors=True), fail)
    pair.send(1)
    with pytest.raises(ZeroDivisionError):
        pair.network.run_for(1.0)


def test_named_keys_are_keys():
    assert check_key(public_key_of("a")) != check_key(public_key_of("b"))
    assert public_key_of("a") == public_key_of("a")
