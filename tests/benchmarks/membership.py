"""Meshes of 8 to 1,000 peers in virtual time: who is given up falsely, how soon the dead are named,
and what it costs. Goals: with 1,000 peers and 10 % loss no false death in an hour, and the dead are
named within 10 protocol periods (p99); bytes do not grow with the number of peers.

A message takes 0.5 to 50 ms, short times being more likely, or is lost. Every 45 seconds a peer
dies without a sign, and another begins in its place. *First* is the time until one peer gives the
dead one up, *all* until every peer has, median and p99. Bytes are those that a peer sends in a
second, as messages are encoded, without what links add: *idle* while nobody dies or joins.

`python -m tests.benchmarks.membership 600 8 64` simulates ten minutes of 8 and of 64 peers.
"""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Sequence

from tests.simulation.membership import Net, Peer

SIZES = (8, 64, 256, 1_000)
LOSSES = (0.0, 0.1)
HOUR = 3_600.0
EVERY = 45.0
"""Seconds between deaths."""
DELAY = (0.0005, 0.05)


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
    gc.freeze()  # a million members are not looked through again and again
    net.run(30)
    deaths, idle, began = Deaths(net, peers), net.sent, net.now
    net.run(EVERY)
    idle, sent = net.sent - idle, net.sent
    while net.now < began + seconds:
        deaths.one()
    sent = net.sent - sent
    gc.unfreeze()
    period = peers[0].machine.pace.period
    return (
        f"{size:6,}{loss:7.0%}{period:9.2f}{len(net.false_deaths):14}"
        f"{_spread(deaths.first)}{_spread(deaths.all)}"
        f"{idle / size / EVERY:11.0f}{sent / size / (net.now - began - EVERY):8.0f}"
        f"{time.process_time() - begun:8.0f}"
    )


def _spread(periods: list[float]) -> str:
    ordered = sorted(periods)
    worst = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    return f"{statistics.median(ordered):9.1f}{worst:6.1f}"


def main(seconds: float = HOUR, sizes: Sequence[int] = SIZES) -> None:
    print(
        f"{'peers':>6}{'loss':>7}{'period/s':>9}{'false deaths':>14}{'first p50   p99':>16}"
        f"{'all p50   p99':>15}{'idle B/s':>10}{'B/s':>8}{'CPU s':>8}"
    )
    for size in sizes:
        for loss in LOSSES:
            print(report(size, loss, seconds), flush=True)


if __name__ == "__main__":
    arguments = sys.argv[1:]
    main(float(arguments[0]) if arguments else HOUR, [*map(int, arguments[1:])] or SIZES)
