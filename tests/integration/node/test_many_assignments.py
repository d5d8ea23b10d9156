"""More for one node than a message holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from manta import Module, Swarm, Task, UserAPI
from manta.manager.placement.place import WINDOW
from manta.transports.frames import Limits
from tests.integration.node.conftest import CLUSTER

CODE = """
import time
from pathlib import Path

def main():
    while not Path({gate!r}).exists():
        time.sleep(0.02)
"""
NEEDS = [f"package-{number}==1.2; python_version < '3'" for number in range(1000)]


class Many(Swarm):
    """Each of its assignments says all that the module needs."""

    def __init__(self, gate: Path) -> None:
        super().__init__()
        code = CODE.format(gate=str(gate))
        self.only = Task(Module(code, name="code", requirements=NEEDS), replicas=WINDOW)


def queued(api: UserAPI) -> int:
    [node] = api.list_nodes(CLUSTER)
    return int(node.load.tasks_running + node.load.tasks_queued)


def test_what_a_node_shall_run_may_be_more_than_a_message_holds(lab: Any, tmp_path: Path) -> None:
    assert WINDOW * sum(map(len, NEEDS)) > Limits().message_bytes
    lab.node()
    api, gate = lab.api(), tmp_path / "gate"
    swarm = api.deploy_swarm(CLUSTER, Many(gate))
    lab.wait_until(lambda: queued(api) == WINDOW, what=lambda: queued(api))
    lab.stop_manager()
    lab.start_manager()  # of which the node learns the whole anew
    lab.wait_for(lab.known(1), "connected")
    gate.touch()
    done = api.wait_swarm(swarm, timeout=60)
    assert done.status == "COMPLETED", done.reason
    assert {task.attempt for task in api.get_tasks(swarm)} == {0}


def test_so_may_what_is_taken_back(lab: Any, tmp_path: Path) -> None:
    lab.node()
    api = lab.api()
    swarm = api.deploy_swarm(CLUSTER, Many(tmp_path / "gate"))
    lab.wait_until(lambda: queued(api) == WINDOW, what=lambda: queued(api))
    api.stop_swarm(swarm, force=True)
    lab.wait_until(lambda: queued(api) == 0, what=lambda: queued(api))
