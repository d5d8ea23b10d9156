"""What holds of every swarm, whatever happens to it."""

from __future__ import annotations

import copy
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from manta.manager.swarm import references
from manta.manager.swarm.events import (
    EntriesReceived,
    GlobalSet,
    ManagerRestarted,
    NodeLost,
    Paused,
    Released,
    ResultsDeleted,
    Resumed,
    Stopped,
    Ticked,
)
from manta.manager.swarm.machine import SwarmMachine
from manta.manager.swarm.reads.queries import explain, info, page, tasks
from manta.protocol.exchange import Broadcasted
from manta.protocol.node import (
    GlobalWritten,
    NextIteration,
    ResultWritten,
    StopRequested,
    TaskEnded,
    TaskError,
    TaskStarted,
)
from manta.protocol.states import AttemptState, SwarmState
from manta.protocol.values import BlobRef

BLOBS = [BlobRef(letter * 64, 1) for letter in "abc"]
ENDINGS = ("FINISHED",) * 6 + ("FAILED", "TIMEOUT", "INTERRUPTED", "REFUSED")


def graph(make, random):
    """One to four tasks; each after some of those before it."""
    made: list = []
    for number in range(random.randint(1, 4)):
        before = [task.alias for task in made if random.random() < 0.7]
        made.append(
            make.task(
                "abcd"[number],
                *(before or [task.alias for task in made[-1:]]),
                method=random.choice(["all", "any", "random", "best_resources"]),
                maximum=random.choice([-1, 1, 2, 0.5]),
                replicas=random.choice([None, None, 3, 7]),
                quorum=random.choice([None, None, 0.5]),
                deadline=random.choice([None, None, 5.0]),
                timeout=random.choice([None, 3.0]),
                retries=random.choice([0, 1, 3]),
                fixed=random.random() < 0.2,
            )
        )
    return made


class Walk:
    """One swarm, driven by chance."""

    def __init__(self, bench, make, random, ending=ENDINGS):
        self.make, self.random, self.ending = make, random, ending
        maximum = random.choice([None, 1, 3])
        self.b = bench(
            *graph(make, random),
            max_iteration=maximum,
            wait=random.random() < 0.3,
            window=random.choice([1, 2, 100]),
        )
        self.all_nodes = list(self.b.nodes)
        self.sent = []
        self.needed = set()  # blobs that were named, and not released since

    def pick(self, found):
        found = list(found)
        return self.random.choice(found) if found else None

    def live(self):
        return [i for held in self.b.told.values() for i in held]

    def end_one(self, ending=None):
        instance = self.pick(self.live())
        if instance is None:
            return
        r, b = self.random, self.b
        entries: list = [TaskStarted(instance, b.now)]
        if r.random() < 0.5:
            value = r.choice([self.make.value(r.random()), *BLOBS])
            entries.append(ResultWritten(instance, r.choice("xy"), value))
        if r.random() < 0.3:
            entries.append(Broadcasted(instance, "t", r.choice(BLOBS)))
        if r.random() < 0.3:
            value = r.choice([self.make.value(r.random()), *BLOBS])
            entries.append(GlobalWritten(instance, r.choice("xy"), value))
        if r.random() < 0.2 and len(b.machine.data.runs) < 4:
            entries.append(NextIteration(instance))
        if r.random() < 0.1:
            entries.append(StopRequested(instance))
        error = TaskError("E", "because")
        entries.append(TaskEnded(instance, ending or r.choice(self.ending), b.now, error=error))
        node = b.node_of(instance)
        first = b.numbers[node] + 1
        b.numbers[node] += len(entries)
        self.sent.append(EntriesReceived(node, first, tuple(entries)))
        self.feed(self.sent[-1])

    def feed(self, event):
        """What a shell does with blobs: it refers to those that are needed, and releases."""
        b = self.b
        b.feed(event)
        self.needed |= b.machine.data.needed(references.of_event(event))
        for action in b.actions:
            if isinstance(action, Released):
                self.needed -= {blob.digest for blob in action.blobs}
        b.actions.clear()

    def lose(self):
        node = self.pick(self.b.nodes)
        if node is not None:
            self.b.nodes = [other for other in self.b.nodes if other is not node]
            self.feed(NodeLost(node.id, "gone"))

    def return_all(self):
        self.b.nodes = list(self.all_nodes)
        self.b.nodes_changed()

    def tick(self):
        b = self.b
        b.now = max(b.now, b.machine.next_deadline())
        self.feed(Ticked())

    def step(self):
        b, r = self.b, self.random
        b.wait_for(r.choice([0, 0, 0.1, 5]))
        match r.randint(0, 16):
            case 0:
                self.lose()
            case 1:
                self.return_all()
            case 2:
                self.feed(Paused())
            case 3 | 4:
                self.feed(Resumed())
            case 5 | 6 if b.machine.next_deadline() is not None:
                self.tick()
            case 7 if self.sent:
                self.feed(r.choice(self.sent))  # again
            case 8:
                self.feed(EntriesReceived("id1", b.numbers["id1"] + 2, ()))
            case 9:
                self.feed(GlobalSet("x", r.choice([self.make.value("user"), *BLOBS])))
            case 10:
                self.feed(ManagerRestarted())
            case 11:
                self.feed(Ticked())
            case 12:
                self.feed(ResultsDeleted("ada", r.choice([None, *"xy"]), r.choice([None, 0, 1])))
            case _:
                self.end_one()
        self.check()

    def check(self):
        machine = self.b.machine
        data = machine.data
        held: dict = {}
        for attempt in data.live.values():
            assert not attempt.state.final
            held[attempt.node_id] = held.get(attempt.node_id, 0) + 1
            run = data.runs[attempt.instance.iteration][attempt.instance.alias]
            assert attempt is run.instances[attempt.instance.index].last
        assert data.held == held
        for run in data.runs[-1].values() if data.runs else ():
            states = [instance.last.state for instance in run.instances]
            assert run.finished == states.count(AttemptState.FINISHED)
            assert run.given_up == sum(bool(instance.given_up) for instance in run.instances) or (
                run.phase == "DONE"
            )
        maximum = machine.data.graph.spec.max_iteration
        assert maximum is None or len(data.runs) <= maximum
        if data.state == SwarmState.ACTIVE:
            # Something is under way, or something is waited for: never silence.
            assert data.live or data.asks or data.timers
        for iteration in range(len(data.runs)):
            for tag in "xy":
                items = data.counting(iteration, tag)
                assert len({(i.alias, i.index) for i in items}) == len(items)
        there = [data.results[position].value for position in data.results_of(None, None)]
        there += [*(kept.value for kept in data.globals.values()), *data.replaced]
        kept = Counter(value.digest for value in there if isinstance(value, BlobRef))
        assert data.lasting == kept
        assert self.needed == {*kept, *data.exchange.blobs}
        assert not (data.state.final and (data.replaced or data.asks))
        explain(machine, self.b.nodes)

    def to_the_end(self):
        """All is well from here on: then the swarm ends."""
        b = self.b
        self.return_all()
        for _ in range(500):
            if b.state.final:
                return
            self.feed(Resumed())
            if self.live():
                self.end_one("FINISHED")
            elif b.machine.next_deadline() is not None:
                self.tick()
        raise AssertionError(f"still {b.state}: {b.reason}")


@settings(max_examples=80)
@given(random=st.randoms(use_true_random=False), steps=st.integers(0, 40))
def test_any_walk_keeps_the_invariants_ends_and_replays(bench, make, random, steps):
    walk = Walk(bench, make, random)
    copies = {}
    for _ in range(steps):
        walk.step()
        copies[len(walk.b.records)] = copy.deepcopy(walk.b.machine.data)
    walk.to_the_end()
    walk.check()
    b = walk.b
    for length, data in copies.items():  # at any prefix
        machine = SwarmMachine.replay("s", "c", b.records[:length])
        assert machine.data == data
    machine = b.replayed()
    assert machine.data == b.machine.data
    for query in (info, tasks, lambda m: page(m, "results", 0), lambda m: page(m, "events", 0)):
        assert query(machine) == query(b.machine)
    b.feed(Stopped())
    assert b.machine.data == machine.data


@settings(max_examples=40)
@given(random=st.randoms(use_true_random=False), steps=st.integers(0, 40))
def test_an_event_is_stored_when_it_changes_something_and_only_then(bench, make, random, steps):
    walk = Walk(bench, make, random)
    b, handle = walk.b, walk.b.handle

    def watched(event):
        before, revision = copy.deepcopy(b.machine.data), b.machine.revision
        actions = handle(event)
        after = b.machine.data
        if b.machine.revision == revision:
            assert after == before
        elif not isinstance(event, ManagerRestarted):  # the clock is another one from there on
            before.last = after.last
            assert after != before
        return actions

    b.handle = watched
    for _ in range(steps):
        walk.step()
    walk.to_the_end()


@settings(max_examples=40)
@given(random=st.randoms(use_true_random=False), cut=st.floats(0, 1))
def test_a_manager_that_restarts_anywhere_goes_on(bench, make, random, cut):
    walk = Walk(bench, make, random, ending=("FINISHED",))
    for _ in range(int(cut * 30)):
        walk.step()
    b = walk.b
    b.machine = b.replayed()
    b.check()
    b.feed(ManagerRestarted())
    walk.to_the_end()
    assert b.machine.data == b.replayed().data


def journals(b, written):
    """Every node runs at once what it is given, and writes it to its journal."""
    for node, held in b.told.items():
        for instance in held:
            if instance in written:
                continue
            written.add(instance)
            where = f"{instance.alias}.{instance.index}.{instance.iteration}"
            entries = [
                TaskStarted(instance, b.now),
                ResultWritten(instance, "r", b.make.value(where)),
                GlobalWritten(instance, where, b.make.value(where)),
                TaskEnded(instance, "FINISHED", b.now),
            ]
            if instance.alias == "last" and instance.iteration < 2:
                entries.insert(1, NextIteration(instance))
            b.journal.setdefault(node, []).extend(entries)


def run(bench, make, deliver):
    b = bench(
        make.task("first"),
        make.task("mid", "first", replicas=3),
        make.task("last", "mid", method="any"),
        nodes=3,
    )
    b.make, b.journal = make, {}
    written: set = set()
    while not b.state.final:
        journals(b, written)
        deliver(b)
    results = {
        (i.iteration, i.tag, i.alias, i.index, i.attempt, i.counts, i.value.data)
        for i in b.machine.data.results
    }
    globals_ = {tag: (g.value.data, g.version) for tag, g in b.machine.data.globals.items()}
    return b.state, b.reason, info(b.machine).iteration, results, globals_, b.machine.data.applied


def in_order(b):
    for node, entries in b.journal.items():
        b.feed(EntriesReceived(node, 1, tuple(entries)))


@settings(max_examples=40)
@given(random=st.randoms(use_true_random=False))
def test_every_message_tripled_and_reordered_changes_nothing(bench, make, random):
    def tripled(b):
        batches = []
        for node, entries in b.journal.items():
            at = 0
            while at < len(entries):
                size = random.randint(1, 3)
                batches += [EntriesReceived(node, at + 1, tuple(entries[at : at + size]))] * 3
                at += size
        random.shuffle(batches)
        for batch in batches:
            b.feed(batch)

    assert run(bench, make, tripled) == run(bench, make, in_order)
