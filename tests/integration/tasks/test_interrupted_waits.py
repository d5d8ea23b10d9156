"""Signals that take a task out of what it waits for: nothing is lost, and nothing stays held."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from manta import UserAPI
from manta.cli.local.cluster import LocalCluster
from manta.testing.clusters import client, running, wait_for_nodes
from tests.support.swarms import One, outputs

ALARMS = """
import random, signal
from manta.light import World

class Alarm(Exception):
    pass

alarms = 0

def ring(*_):
    global alarms
    alarms += 1
    raise Alarm

signal.signal(signal.SIGALRM, ring)

def until_alarm(job, seconds):
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        job()
        signal.setitimer(signal.ITIMER_REAL, 0)
    except Alarm:
        pass
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with running(LocalCluster, 2) as cluster:
        yield cluster


@pytest.fixture
def api(cluster: LocalCluster) -> Iterator[UserAPI]:
    with client(cluster) as api:
        wait_for_nodes(api, 2)
        yield api


def test_a_receiver_under_alarms_gets_every_message_once_and_in_order(api: UserAPI) -> None:
    code = """
import time
def main():
    world, got = World(), []
    if world.rank:
        for number in range(400):
            world.send_to_node("node-1", "t", number if number % 50 else [number] * 20_000)
        return None
    def receive():
        got.append(world.receive_from_node("node-2", "t"))
    chance = random.Random(7)
    until = time.monotonic() + 50
    while len(got) < 400 and time.monotonic() < until:
        until_alarm(receive, chance.uniform(0.00005, 0.006))
    return [alarms, [value if isinstance(value, int) else value[0] for value in got]]
"""
    (alarms, got), _ = outputs(api, One(ALARMS + code))
    assert got == list(range(400))
    assert alarms > 100, "the alarms came too late to test anything"


def test_alarms_while_nothing_comes_do_no_harm(api: UserAPI) -> None:
    code = """
def main():
    world, got = World(), []
    if world.rank:
        world.receive_from_node("node-1", "go")
        world.send_to_node("node-1", "t", 1)
        world.broadcast("b", 2)
        world.barrier()
        return None
    for _ in range(150):  # more than a node lets a round ask without waiting
        until_alarm(lambda: world.receive_from_node("node-2", "t"), 0.002)
        until_alarm(lambda: world.get_broadcast("b"), 0.002)
    world.send_to_node("node-2", "go", None)
    got = [world.receive_from_node("node-2", "t"), world.get_broadcast("b"), alarms]
    world.barrier()
    return got
"""
    got, _ = outputs(api, One(ALARMS + code))
    assert got == [1, 2, 300]


def test_what_an_interrupted_or_impatient_round_did_not_get_is_there_in_the_next(
    api: UserAPI,
) -> None:
    code = """
from manta.light.errors import Timeout
def main():
    world = World()
    if world.rank:
        if not world.iteration:
            world.receive_from_node("node-1", "late")
            world.send_to_node("node-1", "alarm", "a")
            world.send_to_node("node-1", "patience", "p")
        world.barrier()
        return None
    if world.iteration:
        world.barrier()
        return [world.receive_from_node("node-2", tag) for tag in ("alarm", "patience")]
    until_alarm(lambda: world.receive_from_node("node-2", "alarm"), 0.05)
    try:
        world.receive_from_node("node-2", "patience", timeout=0.05)
    except Timeout:
        world.send_to_node("node-2", "late", True)
    world.barrier()
    raise SystemExit(0)  # which is an end as good as any
"""
    assert outputs(api, One(ALARMS + code, rounds=2)) == [None, None, ["a", "p"], None]


def test_a_lock_that_an_alarm_took_a_task_out_of_is_not_held(api: UserAPI) -> None:
    code = """
import time
def main():
    world, spans, tries = World(), [], 0
    def hold():
        with world.lock("one"):
            spans.append(time.monotonic())
    chance = random.Random(world.rank)
    while (len(spans) < 20 or alarms < 20) and tries < 3000:
        tries += 1
        until_alarm(hold, chance.uniform(0.0002, 0.02) if tries % 2 else 0.0005)
    with world.lock("one", timeout=20):
        pass
    return [len(spans) >= 20, alarms >= 20]
"""
    assert outputs(api, One(ALARMS + code)) == [[True, True]] * 2


def test_an_alias_and_an_id_are_the_same_queue(api: UserAPI) -> None:
    code = """
def main():
    world = World()
    if world.rank:
        for number in range(4):
            world.send_to_node("node-1", "t", number)
        return None
    mine = [peer for peer in world.peers if peer.rank == 1][0]
    names = [mine.node_alias, mine.node_id, mine, mine.node_alias]
    return [world.receive_from_node(name, "t") for name in names]
"""
    assert outputs(api, One(ALARMS + code)) == [[0, 1, 2, 3], None]
