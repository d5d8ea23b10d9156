"""Meshes of 8 to 1,000 peers in virtual time: who is given up falsely, how soon the dead are named,
and what it costs. Goals: with 1,000 peers and 10 % loss no false death in an hour, and the dead are
named within 10 protocol periods (p99); bytes do not grow with the number of peers.

A message takes 1 to 100 ms, short times being more likely, or is lost. Every 45 seconds a peer dies
without a sign, and another begins in its place when all have named it. *First* is the time until
one peer gives the dead one up, *all* until every peer has. Bytes are of messages, as they are
encoded, without what links add. `python -m tests.benchmarks.membership 600` simulates ten minutes.
"""

from __future__ import annotations

import statistics
import sys
import time

from manta.transports.membership.actions import Suspected
from tests.simulation.membership import Net, Peer

SIZES = (8, 64, 256, 1_000)
LOSSES = (0.0, 0.1)
HOUR = 3_600.0
EVERY = 45.0
"""Seconds between deaths."""
DELAY = (0.001, 0.1)


class Deaths:
    """Kills one peer after another, and notes how soon the others name it."""

    def __init__(self, net: Net, peers: list[Peer]) -> None:
        self.net, self.next = net, len(peers)
        self.first: list[float] = []
        self.all: list[float] = []

    def one(self) -> None:
        """In periods."""
        net = self.net
        victim = net.random.choice(list(net.peers.values()))
        at = net.now
        net.deaths.clear()
        net.kill(victim, closed=False)
        net.run(EVERY / 2)
        took = [when - at for when, _, key in net.deaths if key == victim.key]
        period = next(iter(net.peers.values())).machine.pace.period
        self.first.append(min(took) / period)
        self.all.append(max(took) / period if len(took) == len(net.peers) else float("inf"))
        net.start(self.next, [net.random.choice(list(net.peers.values()))])
        self.next += 1
        net.run(EVERY / 2)


def report(size: int, loss: float, seconds: float) -> str:
    begun = time.process_time()
    net = Net(1, loss=loss, delay=DELAY, is_wire=False)
    peers = net.grown(size)
    net.run(30)
    deaths, sent, from_ = Deaths(net, peers), _sent(net), net.now
    quiet = EVERY
    net.run(quiet)
    idle = (_sent(net) - sent) / size / quiet
    gone = 0
    while net.now < from_ + seconds:
        before = set(net.peers.values())
        deaths.one()
        gone += sum(peer.sent for peer in before - set(net.peers.values()))
    total = (_sent(net) + gone - sent) / size / (net.now - from_)
    period = peers[0].machine.pace.period
    suspected = sum(len(peer.of(Suspected)) for peer in net.peers.values())
    return (
        f"{size:6,} {loss:5.0%} {period:7.2f} s {len(net.false_deaths):12} "
        f"{_spread(deaths.first)} {_spread(deaths.all)} {idle:11.0f} {idle * period:9.0f} "
        f"{total:9.0f} {suspected / size:10.1f} {time.process_time() - begun:8.0f} s"
    )


def _sent(net: Net) -> int:
    return sum(peer.sent for peer in net.peers.values())


def _spread(periods: list[float]) -> str:
    ordered = sorted(periods)
    worst = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    return f"{statistics.median(ordered):6.1f} {worst:5.1f}"


def main(seconds: float = HOUR) -> None:
    print(
        f"{'peers':>6} {'loss':>5} {'period':>9} {'false deaths':>12} {'first, p50, p99':>12} "
        f"{'all':>8} {'B/s a peer':>14} {'B/period':>9} {'with deaths':>9} {'suspicions':>8} {'CPU':>6}"
    )
    for size in SIZES:
        for loss in LOSSES:
            print(report(size, loss, seconds), flush=True)


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
