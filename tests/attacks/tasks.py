"""Code that runs in tasks, on two nodes."""

from __future__ import annotations

import textwrap
import time

from manta import Module, Swarm, Task
from manta.cli.local.cluster import CLUSTER
from tests.attacks.field import Attack, Place, Told

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
SECONDS = 3.0
PATIENCE = 2.0
"""Seconds within which a swarm is stopped, whatever its tasks do."""
INSTANCES = 8


class _Floods(Swarm):
    """Tasks that do each of these without an end."""

    def __init__(self, *calls: str) -> None:
        super().__init__()
        share, rest = divmod(INSTANCES, len(calls))
        for number, call in enumerate(calls):
            code = textwrap.dedent(FLOOD).format(call=call)
            task = Task(Module(code, name=f"code-{number}"), replicas=share + (number < rest))
            setattr(self, f"flood_{number}", task)


def _flood(place: Place, *calls: str) -> Told:
    """Eight instances do that for some seconds; then their swarm is stopped."""
    with place.connect() as api:
        deployed = api.deploy_swarm(CLUSTER, _Floods(*calls))
        next(iter(api.stream_results(deployed, tag="warm", attempts="all")))
        time.sleep(SECONDS)
        began = time.monotonic()
        status = api.stop_swarm(deployed, force=True).status
        took = time.monotonic() - began
        api.remove_swarm(deployed)
    wrong = "" if status == "STOPPED" and took < PATIENCE else "it was not stopped in time"
    return Told(f"{status} within {took:.1f} s", wrong)


def compute(place: Place) -> Told:
    """No attack: what the others are compared with, on a machine that tasks share with all else."""
    return _flood(place, "pass")


def letters(place: Place) -> Told:
    return _flood(place, "world.send_to_node('node-1', 't', n)")


def large_letters(place: Place) -> Told:
    return _flood(place, "world.send_to_node('node-2', 't', n.to_bytes(8, 'big') * 9000)")


def reports(place: Place) -> Told:
    return _flood(
        place,
        "print('a line of the flood', n)",
        "world.log_metrics({'loss': 1 / (n + 1)}, step=n)",
        "world.progress((n % 100) / 100, 'so far so good')",
    )


def barriers(place: Place) -> Told:
    return _flood(place, "world.barrier()")


ATTACKS = [
    Attack("task", f"eight that compute for {SECONDS:g} s", compute),
    Attack("task", f"eight that send letters for {SECONDS:g} s", letters),
    Attack("task", f"eight that send values of 72 kB for {SECONDS:g} s", large_letters),
    Attack("task", f"eight that print, log metrics, report progress for {SECONDS:g} s", reports),
    Attack("task", f"eight that meet in barriers for {SECONDS:g} s", barriers),
]
