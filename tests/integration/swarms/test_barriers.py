"""Barriers order what tasks write to the manager."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from manta import UserAPI
from manta.cli.local.cluster import LocalCluster
from manta.testing.clusters import client, running, wait_for_nodes
from tests.support.swarms import One, outputs


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with running(LocalCluster, 2) as cluster:
        yield cluster


@pytest.fixture
def api(cluster: LocalCluster) -> Iterator[UserAPI]:
    with client(cluster) as api:
        wait_for_nodes(api, 2)
        yield api


def pid_of(cluster: LocalCluster, name: str) -> int:
    return next(child.process.pid for child in cluster.children if child.name == name)


@pytest.mark.parametrize("size", [1_000, 20_000_000])
def test_who_comes_out_of_one_finds_what_others_wrote_before(
    api: UserAPI, cluster: LocalCluster, size: int
) -> None:
    """The node of the one who writes stands still before the manager has it."""
    code = f"""
        import os, signal, threading
        from manta.light import World
        NODE = {pid_of(cluster, "node-1")}
        def main():
            world = World()
            if world.rank == 0:
                world.set("model", b"former")
            world.barrier()
            assert world.get("model") == b"former"
            world.barrier()
            if world.rank == 0:
                world.results.add("loss", 0.5)
                world.set("model", b"x" * {size})
                os.kill(NODE, signal.SIGSTOP)
                threading.Timer(1.0, os.kill, (NODE, signal.SIGCONT)).start()
            world.barrier()
            return [len(world.get("model")), world.get_results("loss")]
        """
    assert outputs(api, One(code)) == [[size, [0.5]]] * 2


def test_while_the_manager_is_away_it_says_what_it_waits_for(
    api: UserAPI, cluster: LocalCluster
) -> None:
    code = f"""
        import os, signal
        from manta.light import World
        from manta.light.errors import Timeout
        MANAGER = {pid_of(cluster, "the manager")}
        def main():
            world = World()
            world.barrier()
            if world.rank:
                world.barrier()  # which needs no manager
                return world.get("x")
            os.kill(MANAGER, signal.SIGSTOP)
            try:
                world.barrier()
                world.set("x", 1)
                try:
                    world.barrier(timeout=1.0)
                except Timeout as error:
                    return str(error)
            finally:
                os.kill(MANAGER, signal.SIGCONT)
        """
    sentence = (
        "Waited 1 s in vain: barrier waits until the manager has taken what code.0 wrote before it."
    )
    told, seen = outputs(api, One(code))
    assert told == sentence
    assert seen in (None, 1)  # nothing orders this
