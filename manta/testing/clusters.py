"""Local clusters for tests and benchmarks: a real manager and real nodes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from manta.apis.user_api import UserAPI
from manta.cli.local.cluster import CLUSTER, LocalCluster
from manta.protocol.isolation import LIMITS
from manta.testing.waiting import wait_until

RUNNER = os.environ.get("MANTA_TEST_RUNNER", LIMITS)
"""How nodes of tests isolate tasks, which touch files of their test; tests that are about that say
so themselves."""


@contextmanager
def running(
    cluster: Callable[..., LocalCluster], nodes: int, **datasets: str
) -> Iterator[LocalCluster]:
    """Starts a cluster and waits for its nodes; stops and removes it at the end."""
    local = cluster(nodes, datasets, runner=RUNNER)
    try:
        local.start()
        with client(local) as api:
            local.wait_for_nodes(api, lambda _: None)
        yield local
    finally:
        local.stop(keep=False)


def client(cluster: LocalCluster) -> UserAPI:
    """Opens the SDK, signed in with the cluster's user key."""
    return cluster.connect()


def wait_for_nodes(api: UserAPI, count: int) -> None:
    wait_until(lambda: _connected(api) >= count, what=lambda: f"{_connected(api)} are connected")


def _connected(api: UserAPI) -> int:
    return sum(node.status == "CONNECTED" for node in api.list_nodes(CLUSTER))
