"""A manager that was restored, and attempts of the past that it lost, under names that it gives
again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from manta.manager.backup import backup, restore
from manta.manager.home import Home
from manta.protocol.node import Assignment, JournalEntry, TaskEnded, TaskStarted
from manta.protocol.spec import ModuleSpec, SwarmSpec, TaskSpec
from manta.protocol.user import GetSwarm, SendSwarm, StartSwarm
from manta.testing import wait_until
from manta.testing.manager import Client, FakeNode


def silent(assignment: Assignment) -> list[JournalEntry]:
    return [TaskStarted(assignment.instance, 0.0)]


def deploy(client: Client) -> str:
    task = TaskSpec("task", "m", retries=9)
    spec = SwarmSpec("s", (task,), (ModuleSpec("m", image="none"),))
    swarm: str = client.ask(SendSwarm("lab", spec)).swarm_id
    client.ask(StartSwarm(swarm))
    return swarm


def registers_again(node: FakeNode) -> Callable[[], bool]:
    before = node.registrations
    return lambda: node.registrations > before


def test_what_ended_in_a_past_that_was_lost_ends_nothing_that_has_its_name(
    bench, admin: Client, tmp_path: Path
) -> None:
    node: FakeNode = bench.node(1, silent)
    assert node.registered.wait(60)
    swarm = deploy(admin)
    wait_until(lambda: len(node.ran) == 1)
    [first] = node.ran
    wait_until(lambda: node.acknowledged.get(swarm) == 1)
    backup(Home(bench.home), path := tmp_path / "backup")
    node.say(swarm, TaskEnded(first, "FAILED", 0.0))
    wait_until(lambda: len(node.ran) == 2)
    second = node.ran[1]
    for place in "one", "other":  # restored twice from one backup
        bench.stop()
        node.say(swarm, TaskEnded(second, "FINISHED", 0.0))
        restore(path, Home(tmp_path / place))
        bench.settings = replace(bench.settings, home=tmp_path / place)
        registers = registers_again(node)
        bench.start()
        wait_until(registers)
        wait_until(lambda: node.acknowledged.get(swarm, 0) >= len(node.journal[swarm]))
        assert admin.ask(GetSwarm(swarm)).status == "ACTIVE"
    node.say(swarm, TaskStarted(second, 0.0), TaskEnded(second, "FINISHED", 0.0))
    wait_until(lambda: admin.ask(GetSwarm(swarm)).status == "COMPLETED")


def test_what_was_told_before_the_manager_knew_of_a_connection_that_broke_counts(
    bench, admin: Client, tmp_path: Path
) -> None:
    """After a restoration, what a node has when it registers first does not count; what it has when
    it registers again does."""
    node: FakeNode = bench.node(1, silent)
    assert node.registered.wait(60)
    swarm = deploy(admin)
    wait_until(lambda: node.acknowledged.get(swarm) == 1)
    backup(Home(bench.home), path := tmp_path / "backup")
    bench.stop()
    restore(path, Home(tmp_path / "place"))
    bench.settings = replace(bench.settings, home=tmp_path / "place")
    node.mute = True
    bench.start()
    wait_until(lambda: len(node.ran) == 2)
    node.say(swarm, TaskEnded(node.ran[1], "FINISHED", 0.0))
    registers = registers_again(node)
    bench.restart()
    wait_until(registers)
    node.speak()
    wait_until(lambda: admin.ask(GetSwarm(swarm)).status == "COMPLETED")
