"""PSS of daemons without tasks, in all their processes. Budget: a node 60 MB."""

from __future__ import annotations

import time

import psutil

from manta.apis.connect.profiles import Target
from manta.apis.connect.session import Session
from manta.apis.user_api import UserAPI
from manta.cli.local.cluster import CLUSTER, HOST, LocalCluster
from manta.console.interrupts import Interrupts
from tests.benchmarks._measure import pss

NODES = 2
SETTLE = 5.0  # seconds, for what start-up leaves to be freed


def main() -> None:
    with Interrupts() as interrupts:
        local = LocalCluster(NODES, {}, interrupts)
        try:
            interrupts.begin()
            local.start()
            target = Target(HOST, local.user_port, "bench", server_key=local.manager_keys.public)
            with UserAPI.over(Session(target, local.keys)) as api:
                while sum(n.status == "CONNECTED" for n in api.list_nodes(CLUSTER)) < NODES:
                    time.sleep(0.05)
            time.sleep(SETTLE)
            for child in local.children:
                root = psutil.Process(child.process.pid)
                family = [root, *root.children(recursive=True)]
                total = sum(pss(process.pid) for process in family)
                print(f"{child.name}: {total / 1e6:.1f} MB PSS in {len(family)} processes")
        finally:
            interrupts.finish()
            local.stop(keep=False)
