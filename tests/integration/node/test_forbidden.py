"""What a node's owner forbids ends, and what waits for them waits, whatever happens meanwhile."""

from __future__ import annotations

import threading

import pytest

from manta.node.service.supervisor import NodeSupervisor
from manta.node.tasks.supervisor import TaskSupervisor
from manta.protocol.node import DENIED

ASKS = '[[rule]]\napprove = "ask"\n'
ALLOWS, DENIES = ('new_keys = "first"\n[[rule]]\n', '[[rule]]\napprove = "deny"\n')


def test_what_is_forbidden_before_its_supervisor_is_there_does_not_run(
    lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    starting, release, forbidden = threading.Event(), threading.Event(), threading.Event()
    on_start, forbid = TaskSupervisor.on_start, NodeSupervisor._forbid

    def start_late(self: TaskSupervisor) -> None:
        starting.set()
        assert release.wait(60)
        on_start(self)

    def told(self: NodeSupervisor, *about: object) -> None:
        forbid(self, *about)  # type: ignore[arg-type]
        forbidden.set()

    monkeypatch.setattr(TaskSupervisor, "on_start", start_late)
    monkeypatch.setattr(NodeSupervisor, "_forbid", told)
    policy = lab.folder / "policy.toml"
    policy.write_text(ALLOWS)
    node = lab.node(1, policy={"file": str(policy)})
    api = lab.api()
    deployed = api.deploy_swarm("lab", lab.swarm("import time\ndef main(): time.sleep(600)\n"))
    assert starting.wait(60)
    policy.write_text(DENIES)
    assert forbidden.wait(60)
    release.set()
    lab.wait_until(lambda: [one.status for one in api.get_tasks(deployed)] == ["REFUSED"])
    [task] = api.get_tasks(deployed)
    assert task.error is not None
    assert task.error.kind == DENIED
    assert node.context.tasks_running == 0
    assert not node.context.runtimes


def test_what_waits_for_the_owner_waits_on_while_the_policy_cannot_be_read(lab) -> None:
    policy = lab.folder / "policy.toml"
    policy.write_text(ASKS)
    node = lab.node(1, policy={"file": str(policy)})
    admission = node.context.admission
    assert admission is not None
    api = lab.api()
    deployed = api.deploy_swarm("lab", lab.swarm("def main(): pass\n"))
    lab.wait_until(lambda: admission.held)
    policy.write_text("[[rule]]\naprove = 1\n")
    lab.wait_until(lambda: admission.flaw)
    policy.write_text(ALLOWS)
    assert api.wait_swarm(deployed, timeout=60).status == "COMPLETED"
