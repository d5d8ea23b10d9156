"""One seed: a cluster, one or two swarms, and what goes wrong."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, Literal
from unittest.mock import patch

from manta.manager.swarm import letters
from manta.manager.swarm.events import (
    Created,
    GlobalSet,
    Paused,
    ResultsDeleted,
    Resumed,
    Started,
    Stopped,
)
from manta.manager.swarm.machine import SwarmMachine
from manta.manager.swarm.quorum import deadline_of
from manta.protocol.pages import PAGE_BYTES
from manta.protocol.spec import Edge, ModuleSpec, SwarmSpec, TaskSpec
from manta.protocol.states import AttemptState, SwarmState
from tests.simulation.checker import Checker
from tests.simulation.manager import Disk, Manager
from tests.simulation.nodes import Disk as NodeDisk
from tests.simulation.nodes import Node
from tests.simulation.programs import number, read
from tests.simulation.world import World

FEW_LETTERS: dict[str, Any] = {
    "UNREAD": letters.Room(4, 1 << 20),
    "RESERVE": letters.Room(1, 1 << 20),
    "SHARE": letters.Room(2, 1 << 20),
}
TROUBLE = 60.0
"""Things go wrong until then; afterwards every machine and link works again."""
BOUND = 500.0
"""By then every swarm has ended."""


def spec(name: str, *tasks: TaskSpec, maximum: int | None = None, seed: int = 0) -> SwarmSpec:
    modules = dict.fromkeys(task.module for task in tasks)
    return SwarmSpec(
        name, tasks, tuple(map(ModuleSpec, modules)), {"model": number(0)}, (), maximum, seed
    )


def any_(alias: str, module: str, *after: str | Edge, **changes: Any) -> TaskSpec:
    edges = tuple(Edge(edge) if isinstance(edge, str) else edge for edge in after)
    return TaskSpec(alias, module, edges, **{"method": "any", **changes})


def all_(alias: str, module: str, *after: str, **changes: Any) -> TaskSpec:
    return any_(alias, module, *after, method="all", **changes)


def federated(random: Random) -> tuple[SwarmSpec, int]:
    return spec(
        "fl",
        all_("worker", "worker"),
        any_("aggregator", "aggregator", "worker"),
        all_("evaluator", "work", "aggregator"),
        any_("scheduler", "scheduler", "evaluator"),
    ), 3


def replicas(random: Random) -> tuple[SwarmSpec, int]:
    return spec(
        "replicas",
        all_("work", "work", replicas=random.randint(3, 7)),
        any_("aggregator", "aggregator", "work"),
        maximum=2,
    ), 2


Deadline = float | Literal["auto"] | None


def quorum(random: Random, deadline: Deadline = 20.0) -> tuple[SwarmSpec, int]:
    return spec(
        "quorum",
        all_("worker", "straggler", quorum=0.5, deadline=deadline, timeout=30.0),
        any_("aggregator", "aggregator", "worker"),
        maximum=2,
    ), 2


def quorum_at_once(random: Random) -> tuple[SwarmSpec, int]:
    return quorum(random, None)


def quorum_with_the_others(random: Random) -> tuple[SwarmSpec, int]:
    return quorum(random, "auto")


def flaky(random: Random) -> tuple[SwarmSpec, int]:
    return spec(
        "flaky",
        any_("flaky", "flaky", maximum=2, retries=1, timeout=30.0),
        any_("early", "work", Edge("flaky", "RESULT")),
        any_("late", "work", "flaky"),
        maximum=2,
    ), 2


def talking(random: Random) -> tuple[SwarmSpec, int]:
    return spec("talking", all_("talk", "talk", retries=3), maximum=2), 2


def flooding(random: Random) -> tuple[SwarmSpec, int]:
    return spec("flooding", all_("flood", "flood", retries=3), maximum=2), 2


def going_on(random: Random) -> tuple[SwarmSpec, int]:
    return spec("going on", all_("losing", "losing", quorum=0.5, deadline=20.0), maximum=2), 2


def drawn(random: Random) -> tuple[SwarmSpec, int]:
    return spec(
        "drawn",
        any_("some", "work", method="random", maximum=0.5),
        any_("others", "work", method="random", maximum=0.5),
        any_("best", "work", "some", "others", method="best_resources", maximum=1, fixed=True),
        any_("tagged", "work", "best", method="tag-result"),
        maximum=2,
        seed=random.randrange(1000),
    ), 2


def failing(random: Random) -> tuple[SwarmSpec, int]:
    return spec(
        "failing", all_("work", "work"), any_("bad", "failing", "work", replicas=3), maximum=3
    ), 1


def stranded(random: Random) -> tuple[SwarmSpec, int]:
    """Nobody can run it, and so it fails in the end."""
    return spec("stranded", any_("work", "work", specified_ids=("nobody",))), 1


KINDS: tuple[Callable, ...] = (
    federated,
    federated,
    replicas,
    quorum,
    quorum_at_once,
    quorum_with_the_others,
    flaky,
    drawn,
    failing,
    stranded,
    talking,
    talking,
    flooding,
    going_on,
)


LINKS = ["flap", "flap", "flap", "manager"]
NODES = ["cut", "crash"]
ALL = ["cut", "crash", "manager", "flap", "goodbye", "pause", "stop", "set", "delete"]


class Scenario:
    def __init__(self, seed: int) -> None:
        self.seed = seed
        random = Random(seed)
        self.node_disks = [NodeDisk() for _ in range(random.randint(2, 5))]
        self.world = World(seed, len(self.node_disks))
        self.checker = Checker()
        faults = self.world.faults
        faults.delay = (0.0005, random.choice([0.001, 0.01, 0.3]))
        faults.loss = random.choice([0.0, 0.0, 0.01])
        faults.drop = random.choice([0.0, 0.0, 0.02, 0.1])
        faults.duplicate = random.choice([0.0, 0.1, 0.5])
        faults.reorder = random.choice([0.0, 0.0, 0.1, 0.5])
        faults.silence, faults.unreachable = 2.0, 1.0
        faults.retry = (0.0, random.choice([0.3, 0.3, 2.0]))
        self.leases = random.choice([{}, {"ttl": 3.0, "grace": 2.0, "restart_grace": 8.0}])
        self.disk = Disk()
        self.world.has_blob = self.disk.has
        self.nodes: dict[int, Node] = {}
        self.manager: Manager | None = None
        self.swarms: dict[str, tuple[Callable, int]] = {}
        self.stopped: set[str] = set()
        self.troubled = self.paused = False
        self.missed = faults.drop > 0
        """May a node have been away when all were to run?"""
        self.pace = random.choice([1.0, 1.0, 5.0])
        self.incidents = random.choice([LINKS, NODES, ALL])
        self.slow = (0.0005, random.choice([0.005, 0.05, 1.0]))
        """Seconds that disks take to sync."""
        self.fragile = random.choice([0.0, 0.0, 0.01, 0.03])
        """How likely a process dies right after it changed something, unsynced."""
        self.page_bytes = random.choice([PAGE_BYTES, 1, 400])
        """Of what nodes shall run: 1 makes a page of each assignment."""
        self.world.after_each.append(self.checker.check)

    # Machines.

    def start_manager(self) -> None:
        if self.manager is not None:
            return
        skew = self.world.between(-600, 600)
        manager = Manager(self.world, self.disk, skew, self.leases, self.page_bytes)
        manager.observers.append(self.checker)
        manager.slow = self.slow
        self.manager = self.checker.manager = manager
        manager.start()

    def crash_manager(self) -> None:
        if self.manager is not None:
            self.checker.counts["manager crashes"] += 1
            self.manager.crash()
            self.manager = self.checker.manager = None

    def start_node(self, which: int) -> None:
        old = self.nodes.get(which)
        if old is not None and old.alive:
            return
        node = Node(self.world, which + 1, self.node_disks[which])
        node.broken = old.broken if old is not None else {}
        node.slow, node.pace = self.slow, self.pace
        node.observers.append(self.checker)
        self.nodes[which] = node
        node.start()

    # A run.

    @property
    def trace(self) -> list[str]:
        return self.world.trace

    def run(self) -> None:
        with patch.multiple(letters, **FEW_LETTERS):  # so that senders have to wait
            self._run()

    def _run(self) -> None:
        world, random = self.world, self.world.random
        self.start_manager()
        for which in range(len(self.node_disks)):
            self.start_node(which)
        world.run(5.0)
        self.create("s0", KINDS[self.seed % len(KINDS)])
        if random.random() < 0.5:
            self.create("s1", random.choice(KINDS))
        for _ in range(random.choice([0, 0, 1, 2, 4, 8])):
            world.after(world.between(0.0, 20.0), self.incident)
        if self.seed % 10 == 9:  # what fifty seeds go through must not hang on chance
            for kind in ALL:
                world.after(world.between(0.0, 20.0), self.incident, kind)
        world.after_each.append(self.die)
        world.run(TROUBLE)
        world.after_each.remove(self.die)
        self.heal()
        self.agree()
        world.run(BOUND, self.all_ended)
        assert self.manager is not None
        for swarm_id in self.swarms:
            ended = swarm_id in self.checker.finals
            assert ended, f"{swarm_id} has not ended: {self.say(swarm_id)}"
        for swarm_id in self.swarms:
            self.manager.feed(swarm_id, Stopped("a user who comes too late"))
        world.faults.drop = world.faults.loss = 0.0
        world.run(world.now + 60.0)
        self.checker.check_end(world, list(self.nodes.values()))
        for swarm_id in self.swarms:
            self.judge(swarm_id)

    def create(self, swarm_id: str, kind: Callable) -> None:
        assert self.manager is not None
        made, iterations = kind(self.world.random)
        self.swarms[swarm_id] = (kind, iterations)
        self.world.note("user", f"starts {swarm_id}, {made.name}")
        self.manager.create(swarm_id, Created(made), Started())
        self.manager.sync()  # the user is answered when it is durable

    def all_ended(self) -> bool:
        return self.manager is not None and len(self.checker.finals) == len(self.swarms)

    def say(self, swarm_id: str) -> str:
        machine = self.manager.machines[swarm_id] if self.manager else None
        return f"{machine.state}, {machine.data.reason}" if machine else "no manager"

    # What goes wrong.

    def die(self) -> None:
        """Processes that have something unsynced are the ones worth killing."""
        if not self.fragile:
            return
        world = self.world
        unsynced = self.disk.synced < len(self.disk.log)
        if self.manager is not None and unsynced and world.chance(self.fragile):
            self.troubled = True
            if world.chance(0.5):
                self.crash_manager()
                world.after(world.between(0.1, 3.0), self.start_manager)
            else:  # what nodes are told when they register must be durable, too
                for node in self.nodes.values():
                    world.flap(node.id)
                world.after(world.between(0.2, 0.8), self.crash_manager)
                world.after(world.between(1.0, 3.0), self.start_manager)
        if unsynced and world.chance(self.fragile):
            world.flap(self.nodes[world.random.choice(list(self.nodes))].id)
        for which, node in self.nodes.items():
            unsynced = any(len(f) > node.disk.synced[s] for s, f in node.disk.files.items())
            if node.alive and unsynced and world.chance(self.fragile):
                self.troubled = self.missed = True
                self.checker.counts["torn"] += 1
                node.crash()
                world.after(world.between(0.1, 3.0), self.start_node, which)

    def incident(self, kind: str = "") -> None:
        world, random = self.world, self.world.random
        which = random.randrange(len(self.node_disks))
        node = self.nodes[which]
        kind = kind or random.choice(self.incidents)
        self.checker.counts[kind] += 1
        long = random.choice([2.0, 20.0, 80.0])
        match kind:
            case "flap":
                for some in self.nodes.values():
                    if random.random() < 0.7:
                        world.flap(some.id)
            case "cut":
                self.troubled = self.missed = True
                world.cut_off(node.id)
                world.after(world.between(0.5, long), world.heal, node.id)
            case "crash" | "goodbye":
                self.troubled = self.missed = True
                if node.alive:
                    node.crash() if kind == "crash" else node.goodbye()
                    world.after(world.between(0.1, long), self.start_node, which)
            case "manager":
                self.troubled = True
                if self.manager is not None:
                    self.crash_manager()
                    world.after(world.between(0.1, long / 3), self.start_manager)
            case "pause" if self.manager is not None:
                self.paused = True
                for swarm_id in self.swarms:
                    self.manager.feed(swarm_id, Paused())
                    world.after(world.between(1, 10), self.resume, swarm_id)
            case "stop" if self.manager is not None and random.random() < 0.3:
                swarm_id = random.choice(list(self.swarms))
                self.stopped.add(swarm_id)
                self.manager.feed(swarm_id, Stopped())
            case "set" if self.manager is not None:
                for swarm_id in self.swarms:
                    self.manager.feed(swarm_id, GlobalSet("user", number(1)))
            case "delete" if self.manager is not None:
                tag, iteration = random.choice([None, "result", "count"]), random.choice([None, 0])
                for swarm_id in self.swarms:
                    self.checker.deletes(self.manager.machines[swarm_id], tag, iteration)
                    self.manager.feed(swarm_id, ResultsDeleted("a user", tag, iteration))
                self.manager.sync()  # the user is answered when it is durable

    def resume(self, swarm_id: str) -> None:
        if self.manager is not None:
            self.manager.feed(swarm_id, Resumed())

    def heal(self) -> None:
        if self.manager is None:
            self.start_manager()
        for which, node in self.nodes.items():
            self.world.heal(node.id)
            self.start_node(which)
        assert self.manager is not None
        for swarm_id in self.swarms:
            self.manager.feed(swarm_id, Resumed())

    def agree(self) -> None:
        """For a while nothing goes wrong: then nodes know of each other what they should."""
        faults, world = self.world.faults, self.world
        kept = faults.drop, faults.loss
        faults.drop = faults.loss = 0.0
        world.run(world.now + 15.0)
        assert self.manager is not None
        peers = self.manager.peers
        before = {node.id: dict(peers.versions(node.id)) for node in self.nodes.values()}
        world.run(world.now + 10.0)
        self.checker.check_agreement(list(self.nodes.values()), before)
        faults.drop, faults.loss = kept

    # Is the end the right one?

    def judge(self, swarm_id: str) -> None:
        assert self.manager is not None
        machine = self.manager.machines[swarm_id]
        kind, iterations = self.swarms[swarm_id]
        state, reason = machine.state, machine.data.reason
        self.checker.counts[state] += 1
        if state is SwarmState.STOPPED:
            assert swarm_id in self.stopped
            return
        if state is SwarmState.FAILED:
            expected = kind is failing and "bad shape" in reason
            expected = expected or (kind is stranded and "(waited 60 s for it)" in reason)
            assert expected or self.is_justified(machine), f"{kind.__name__} FAILED: {reason}"
            return
        assert kind not in (failing, stranded), "a failure passed for success"
        self.check_outcome(machine, iterations)

    def is_justified(self, machine: SwarmMachine) -> bool:
        """Did what the reason says really happen?"""
        reason = machine.data.reason
        aliases = [f"node-{node_id.removeprefix('id')}" for node_id in self.checker.lost_nodes]
        attempts = max(
            (len(i.attempts) for runs in machine.data.runs for r in runs.values()
             for i in r.instances),
            default=0,
        )  # fmt: skip
        return (
            any(f"{alias} was lost" in reason for alias in aliases)
            or (attempts >= 6 and "(attempt " in reason)
            or ("waited 60 s" in reason and self.troubled)
            or ("PeerLost" in reason and bool(self.checker.lost_nodes))
            or ("at its deadline" in reason)
        )

    def check_outcome(self, machine: SwarmMachine, iterations: int) -> None:
        data = machine.data
        assert len(data.runs) == iterations, f"ran {len(data.runs)} iterations, not {iterations}"
        for iteration, runs in enumerate(data.runs):
            answered = 0
            for alias, run in runs.items():
                finished = [
                    index
                    for index, instance in enumerate(run.instances)
                    if instance.last.state is AttemptState.FINISHED
                ]
                written = data.counting(iteration, "result", even_deleted=True)
                assert [item.index for item in written if item.alias == alias] == finished
                missed = self.missed or self.checker.lost_nodes
                if run.bound and not missed:
                    assert len(run.instances) == len(self.nodes), "an iteration without a node"
                reduced = {read(item.value) for item in data.counting(iteration, "reduced")}
                assert len(reduced) <= 1, f"the ranks reduced to {reduced}"
                assert run.spec.quorum or len(finished) == len(run.instances)
                assert 2 * len(finished) >= len(run.instances), "less than the quorum answered"
                if "aggregator" in runs and alias in ("worker", "work"):
                    answered = len(finished)
            if "aggregator" in runs:
                deleted = self.checker.deleted[data.swarm_id]
                (count,) = data.counting(iteration, "count", even_deleted=True)
                assert deleted or read(count.value) == answered, "the aggregator saw another number"
        if not self.troubled and not self.paused:
            self.check_deadlines(machine)
        if "aggregator" in data.runs[-1]:
            value, _ = machine.global_value("model")
            assert value is not None
            assert read(value) == iterations

    def check_deadlines(self, machine: SwarmMachine) -> None:
        """Nothing disturbed it: stragglers were cut when they had to be."""
        for iteration, runs in enumerate(machine.data.runs):
            for alias, run in runs.items():
                if run.spec.deadline is None or len(run.instances) == 1:
                    continue
                (done,) = (
                    item.at
                    for item in machine.data.events
                    if item.kind in ("finished", "quorum")
                    and (item.alias, item.index) == (alias, -1)
                    and item.iteration == iteration
                )
                deadline = deadline_of(run)
                assert deadline is not None, "it was done before enough had answered"
                assert done - run.placed_at <= deadline + 0.1, "cut too late"
