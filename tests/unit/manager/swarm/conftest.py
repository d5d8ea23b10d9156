"""A swarm's machine with everything around it played by the test."""

from __future__ import annotations

from collections import defaultdict, deque

import msgspec
import pytest

from manta.manager.placement.nodes import NodeView
from manta.manager.placement.place import WINDOW
from manta.manager.swarm.events import (
    Acknowledge,
    AskPlacement,
    Assign,
    Began,
    Created,
    EntriesReceived,
    Record,
    Revoke,
    Started,
    Ticked,
    decode,
    encode,
)
from manta.manager.swarm.machine import SwarmMachine
from manta.manager.swarm.reads.queries import page, tasks
from manta.protocol.node import (
    Capabilities,
    DatasetInfo,
    Instance,
    ResultWritten,
    TaskEnded,
    TaskError,
    TaskStarted,
)
from manta.protocol.spec import Edge, ModuleSpec, SwarmSpec, TaskSpec
from manta.protocol.values import Inline


def view(number, **changes):
    datasets = tuple(DatasetInfo(name, 1, "npz") for name in changes.pop("datasets", ()))
    changes.setdefault("capabilities", Capabilities(max_concurrent_tasks=2, datasets=datasets))
    return NodeView(f"id{number}", f"node-{number}", **changes)


def spec(*tasks, **changes):
    changes.setdefault("name", "fl")
    return SwarmSpec(tasks=tasks, modules=(ModuleSpec("m"),), **changes)


def task(alias, *after, **changes):
    edges = tuple(edge if isinstance(edge, Edge) else Edge(edge) for edge in after)
    return TaskSpec(alias, "m", edges, **changes)


def value(text):
    return Inline(str(text).encode())


class Bench:
    """Answers placements at once, remembers what each node was told, and keeps the records."""

    def __init__(self, *tasks, nodes=4, start=True, wait=False, window=WINDOW, **changes):
        self.window = window
        self.machine = SwarmMachine("s", "c")
        self.nodes = [view(n, datasets=("d",)) for n in range(1, nodes + 1)]
        self.now = 1000.0
        self.records: list = []
        self.told: dict = defaultdict(dict)
        self.numbers: dict = defaultdict(int)
        self.actions: list = []
        self.feed(Created(spec(*tasks, **changes), wait))
        if start:
            self.feed(Started())

    def feed(self, event):
        """The event's own actions; what it asks for is answered when they are performed."""
        actions = self.handle(event)
        self.perform(actions)
        return actions

    def nodes_changed(self):
        self.perform(self.machine.outstanding())

    def perform(self, actions):
        queue = deque(actions)
        while queue:
            match queue.popleft():
                case AskPlacement(number):
                    given = self.machine.answer(number, self.nodes, self.window)
                    if given is not None:
                        queue.extend(self.handle(given))
                case Assign(node_id, assignment):
                    assert assignment.node_id == node_id
                    assert assignment.instance not in self.told[node_id]
                    self.told[node_id][assignment.instance] = assignment
                case Began(node_id, instance):
                    begun = msgspec.structs.replace(self.told[node_id][instance], begun=True)
                    self.told[node_id][instance] = begun
                case Revoke(node_id, instance):
                    del self.told[node_id][instance]
                case Acknowledge(node_id, upto):
                    assert upto == self.machine.applied(node_id)
        self.check()

    def handle(self, event):
        revision = self.machine.revision
        actions = self.machine.handle(event, self.now)
        if self.machine.revision > revision:
            self.records.append(decode(encode(event, self.now)))
        self.actions += actions
        return actions

    def check(self):
        told = {node: tuple(held.values()) for node, held in self.told.items() if held}
        assert self.machine.desired() == told
        if self.state.final:
            assert not told
            assert self.machine.next_deadline() is None

    @property
    def state(self):
        return self.machine.state

    @property
    def reason(self):
        return self.machine.data.reason

    def sentences(self, *kinds):
        return [e.sentence for e in self.machine.data.events if not kinds or e.kind in kinds]

    def tasks(self, iteration=None):
        return tasks(self.machine, iteration).tasks

    def items(self, feed):
        return page(self.machine, feed, 0).items

    def replayed(self):
        return SwarmMachine.replay("s", "c", self.records)

    def running(self, alias):
        """Live instances of a task by index."""
        live = [i for held in self.told.values() for i in held if i.alias == alias]
        return {i.index: i for i in sorted(live)}

    def node_of(self, instance):
        return next(node for node, held in self.told.items() if instance in held)

    def send(self, node_id, *entries):
        first = self.numbers[node_id] + 1
        self.numbers[node_id] += len(entries)
        return self.feed(EntriesReceived(node_id, first, entries))

    def say(self, instance, *entries, node=None):
        return self.send(node or self.node_of(instance), *entries)

    def end(self, instance, state="FINISHED", error=None, node=None, entries=()):
        kept = TaskError("ValueError", error) if error else None
        return self.say(
            instance,
            TaskStarted(instance, self.now),
            *entries,
            TaskEnded(instance, state, self.now, error=kept),
            node=node,
        )

    def finish(self, *aliases, **results):
        """All instances of these tasks answer, having written these results."""
        for alias in aliases:
            for instance in self.running(alias).values():
                written = [ResultWritten(instance, tag, value(v)) for tag, v in results.items()]
                self.end(instance, entries=written)

    def wait_for(self, seconds):
        self.now += seconds

    def tick(self):
        """Go to the next deadline, as the shell's timer would."""
        due = self.machine.next_deadline()
        assert due is not None
        self.now = max(self.now, due)
        return self.feed(Ticked())


@pytest.fixture(scope="session")
def bench():
    return Bench


@pytest.fixture(scope="session")
def make():
    """Builders of views, tasks, specifications, values."""

    class Make:
        view = staticmethod(view)
        spec = staticmethod(spec)
        task = staticmethod(task)
        value = staticmethod(value)
        record = Record
        instance = Instance

    return Make
