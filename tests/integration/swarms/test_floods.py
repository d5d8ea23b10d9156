"""Tasks that write in a tight loop: their swarm is stopped all the same, and nothing is lost."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest

from manta import UserAPI
from manta.cli.local.cluster import CLUSTER, LocalCluster
from manta.testing.clusters import client, running, wait_for_nodes
from tests.support.swarms import One, outputs

WARM = 10
"""Calls after which an instance counts as flooding."""
PATIENCE = 30.0
"""Far more seconds than a stop takes, which is two."""
FLOOD = """
from itertools import count
from manta.light import World
def main():
    world = World()
    for n in count():
        if n == {warm}:
            world.results.add("warm", n)
        {call}
"""
CALLS = {
    "letters": "world.send_to_node('node-1', 't', n)",
    "letters under many tags": "world.send_to_node('node-1', f't{n % 500}', b'x' * 2000)",
    "large letters": "world.send_to_node('node-2', 't', n.to_bytes(8, 'big') * 9000)",
    "progress": "world.progress((n % 100) / 100, 'so far so good')",
    "metrics": "world.log_metrics({'loss': 1 / (n + 1)}, step=n)",
    "logs": "print('a line of the flood', n)",
    "results": "world.results.add('r', n)",
    "globals": "world.globals[f'g{n % 100}'] = n",
    "broadcasts": "world.broadcast('b', n)",
    "barriers": "world.barrier()",
    "gathers": "world.gather(n)",
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with running(LocalCluster, 2) as cluster:
        yield cluster


@pytest.fixture
def api(cluster: LocalCluster) -> Iterator[UserAPI]:
    with client(cluster) as api:
        wait_for_nodes(api, 2)
        yield api


@pytest.mark.parametrize("what", CALLS)
def test_a_swarm_whose_eight_tasks_flood_is_stopped(api: UserAPI, what: str) -> None:
    swarm = One(FLOOD.format(warm=WARM, call=CALLS[what]), replicas=8)
    deployed = api.deploy_swarm(CLUSTER, swarm)
    for warm, _ in enumerate(api.stream_results(deployed, tag="warm", attempts="all"), 1):
        if warm == 8:
            break
    began = time.monotonic()
    assert api.stop_swarm(deployed, force=True).status == "STOPPED"
    assert time.monotonic() - began < PATIENCE
    assert outputs(api, One("def main():\n    return 'free'\n", replicas=8)) == ["free"] * 8


def test_a_cluster_in_which_tasks_flood_is_stopped(api: UserAPI) -> None:
    swarm = One(FLOOD.format(warm=WARM, call=CALLS["letters"]), replicas=8)
    deployed = api.deploy_swarm(CLUSTER, swarm)
    next(iter(api.stream_results(deployed, tag="warm", attempts="all")))
    try:
        began = time.monotonic()
        api.stop_cluster(CLUSTER)
        assert time.monotonic() - began < PATIENCE
        assert api.get_swarm(deployed).status == "STOPPED"
    finally:
        api.start_cluster(CLUSTER)


FILLS = """
PAPER = b"x" * 60_000
from manta.light import World
from manta.light.errors import ReceiverFull, Timeout
def main():
    world, sent = World(), 0
    other = f"node-{2 - world.rank}"
    if world.rank == 0:
        world.receive_from_node(other, "ready")
        try:
            while True:
                world.send_to_node(other, "flood", [sent, PAPER], timeout=2)
                sent += 1
        except ReceiverFull as error:
            assert isinstance(error, Timeout)
            sentence = str(error)
        world.broadcast("count", sent)
        world.receive_from_node(other, "half")
        world.send_to_node(other, "flood", [sent, PAPER])
        return [sent, sentence]
    world.send_to_node(other, "ready", None)
    count = world.get_broadcast("count")
    got = [world.receive_from_node(other, "flood") for _ in range(count // 2)]
    world.send_to_node(other, "half", None)
    got += [world.receive_from_node(other, "flood") for _ in range(count + 1 - len(got))]
    return [len(got), [number for number, _ in got] == list(range(count + 1))]
"""


def test_a_sender_waits_for_its_receiver_and_nothing_is_lost(api: UserAPI) -> None:
    """The letter that found no room was not sent; all others come once and in order."""
    (sent, sentence), (got, in_order) = outputs(api, One(FILLS))
    assert 1_000 < sent < 1_200
    found = re.match(r"Waited 2 s in vain: node-2 has ([\d,]+) unread letters of at most", sentence)
    assert found is not None, sentence
    # As many as the receiver had told of; the last ones may have come since.
    assert 1_000 < int(found[1].replace(",", "")) <= sent
    assert " MiB of 64.0 MiB), " in sentence
    assert sentence.endswith("have it receive more, or send less.")
    assert (got, in_order) == (sent + 1, True)
