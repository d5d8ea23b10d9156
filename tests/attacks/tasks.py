"""Code that runs in tasks, on two nodes."""

from __future__ import annotations

import time

from manta.cli.local.cluster import CLUSTER
from tests.attacks.field import Attack, Place
from tests.support.swarms import One

FLOOD = """
from itertools import count
from manta.light import World
def main():
    world = World()
    for n in count():
        if n == 10:
            world.results.add("warm", n)
        {call}
"""
SECONDS = 5.0


def _flood(place: Place, call: str) -> str:
    """Eight instances do that for some seconds; then their swarm is stopped."""
    with place.connect() as api:
        deployed = api.deploy_swarm(CLUSTER, One(FLOOD.format(call=call), replicas=8))
        next(iter(api.stream_results(deployed, tag="warm", attempts="all")))
        time.sleep(SECONDS)
        began = time.monotonic()
        status = api.stop_swarm(deployed, force=True).status
        took = time.monotonic() - began
        api.remove_swarm(deployed)
    return f"{status} within {took:.1f} s"


def letters(place: Place) -> str:
    return _flood(place, "world.send_to_node('node-1', 't', n)")


def large_letters(place: Place) -> str:
    return _flood(place, "world.send_to_node('node-2', 't', n.to_bytes(8, 'big') * 9000)")


def lines(place: Place) -> str:
    return _flood(place, "print('a line of the flood', n)")


def metrics(place: Place) -> str:
    return _flood(place, "world.log_metrics({'loss': 1 / (n + 1)}, step=n)")


def progress(place: Place) -> str:
    return _flood(place, "world.progress((n % 100) / 100, 'so far so good')")


def barriers(place: Place) -> str:
    return _flood(place, "world.barrier()")


ATTACKS = [
    Attack("task", f"eight that send letters for {SECONDS:g} s", letters),
    Attack("task", f"eight that send values of 72 kB for {SECONDS:g} s", large_letters),
    Attack("task", f"eight that print for {SECONDS:g} s", lines),
    Attack("task", f"eight that log metrics for {SECONDS:g} s", metrics),
    Attack("task", f"eight that report progress for {SECONDS:g} s", progress),
    Attack("task", f"eight that meet in barriers for {SECONDS:g} s", barriers),
]
