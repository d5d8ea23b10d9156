"""How a swarm runs its course: iterations, tasks, instances and their attempts.

In each iteration every task of the graph goes WAITING -> PLACING -> RUNNING -> DONE.
It leaves WAITING when the tasks before it are DONE (or, on Condition.RESULT, have a
first result). PLACING asks for nodes; what cannot be placed is asked for again when
nodes change. RUNNING, each instance has at most one live attempt, which ends by what
its node tells:

    FINISHED              the instance has answered
    FAILED, TIMEOUT       tried again up to `retries` times, then given up
    INTERRUPTED, REFUSED  not its code's fault: tried again up to INTERRUPTIONS times,
                          each after a longer pause, then given up
    its node is lost      given up if method is "all", else as INTERRUPTED

A retry of "all" goes to the same node, others go elsewhere if they can. A task is DONE
when all its instances have answered; with a quorum, when enough have and either the
others are given up, or there is no deadline, or it is over. When too few can still
answer, the swarm fails. An iteration ends when all tasks are DONE; another follows as
`_after_iteration` says.
"""

from __future__ import annotations

import math
from hashlib import blake2b

from manta.manager.placement.place import Demand, Placement, datasets_of, resources_of, tag_of
from manta.manager.swarm import words
from manta.manager.swarm.events import (
    Action,
    AskPlacement,
    Assign,
    Publish,
    Released,
    Revoke,
    StateChanged,
    Woken,
)
from manta.manager.swarm.shares import shares
from manta.manager.swarm.state import (
    Ask,
    Attempt,
    Graph,
    InstanceRun,
    Phase,
    SwarmData,
    TaskRun,
)
from manta.protocol.node import Assignment, Instance, NextIteration, TaskError
from manta.protocol.states import AttemptState, SwarmState
from manta.protocol.user import EventItem
from manta.protocol.values import BlobRef

INTERRUPTIONS = 5
"""How often the platform may interrupt one instance of one iteration."""
PAUSES = (0.0, 1.0, 2.0, 4.0, 8.0)
"""Seconds before the platform's faults are tried again."""


class Course:
    def __init__(self, swarm_id: str, cluster_id: str) -> None:
        self.data = SwarmData(swarm_id, cluster_id)
        self._actions: list[Action] = []
        self._now = 0.0
        self._changed = False
        self._graph: Graph | None = None

    @property
    def graph(self) -> Graph:
        if self._graph is None:
            raise RuntimeError(f"swarm {self.data.swarm_id} was never created: feed it Created")
        return self._graph

    # Placing.

    def _begin_iteration(self, within: dict[str, tuple[str, ...]]) -> None:
        data = self.data
        data.iteration += 1
        data.began_at = self._now
        data.within = within
        layout, tasks = self.graph.layout(data.iteration), self.graph.tasks
        data.runs.append(
            {
                alias: TaskRun(tasks[alias], before, alias in layout.sequential)
                for alias, before in layout.before.items()
            }
        )
        data.open_tasks = len(layout.before)
        self._tell("iteration", f"Iteration {data.iteration} begins.")
        for alias in layout.roots:
            self._begin_if_ready(alias)

    def _begin_if_ready(self, alias: str) -> None:
        run = self.data.run_of(alias)
        if run.phase is not Phase.WAITING or self.data.state is not SwarmState.ACTIVE:
            return
        for edge in run.before:
            before = self.data.run_of(edge.alias)
            first_result = edge.condition == "RESULT" and before.has_results
            if before.phase is not Phase.DONE and not first_result:
                return
        tag = tag_of(run.spec)
        if tag is not None and not self._producers(tag):
            self._fail(words.nobody_wrote(alias, tag, self.data.iteration))
            return
        run.phase = Phase.PLACING
        self._ask(Ask(alias))

    def _ask(self, ask: Ask) -> None:
        self._changed = True
        self.data.asked += 1
        self.data.asks[self.data.asked] = ask
        self._actions.append(AskPlacement(self.data.asked))

    def demand_of(self, alias: str, replace: tuple[int, ...] = ()) -> Demand:
        data, task = self.data, self.graph.tasks[alias]
        previous: tuple[str, ...] = ()
        if data.iteration > 0 and (before := data.runs[data.iteration - 1].get(alias)):
            previous = tuple(run.last.node_id for run in before.instances)
        avoid: list[str] = []
        if replace:
            of = data.run_of(alias)
            for index in replace:
                avoid += (attempt.node_id for attempt in of.instances[index].attempts)
            if not of.nodes:  # of many replicas each node has some
                avoid += (instance.last.node_id for instance in of.instances)
        return Demand(
            task,
            self.graph.modules[task.module],
            iteration=max(0, data.iteration),
            seed=self.graph.spec.seed,
            within=data.within.get(alias, ()),
            kept=data.kept.get(alias, ()),
            previous=previous,
            producers=self._producers(tag_of(task)),
            replace=replace,
            avoid=tuple(dict.fromkeys(avoid)),
            before=self.graph.before_random[alias],
            holding=data.held,
        )

    def _shares(self, run: TaskRun) -> tuple[float, ...]:
        data = self.data
        before = data.runs[data.iteration - 1].get(run.spec.alias) if data.iteration else None
        ended = [instance.last.timings for instance in before.instances] if before else []
        took = [timings.computing if timings else None for timings in ended]
        return shares(run.size, before.shares if before else (), took)

    def _producers(self, tag: str | None) -> tuple[str, ...]:
        """Nodes that wrote it in this iteration, or else in the one before."""
        if tag is None:
            return ()
        now = self.data.iteration
        items = self.data.written(now, tag) or self.data.written(now - 1, tag)
        return tuple(dict.fromkeys(item.node_id for item in items))

    def _assign(self, run: TaskRun, placement: Placement) -> None:
        data, spec, task = self.data, self.graph.spec, run.spec
        module = self.graph.modules[task.module]
        tries = run.instances[placement.index].attempts
        instance = Instance(data.swarm_id, task.alias, placement.index, data.iteration, len(tries))
        assignment = Assignment(
            instance=instance,
            module=module,
            swarm_name=spec.name,
            node_id=placement.node_id,
            size=run.size,
            class_name=task.class_name,
            datasets=datasets_of(task, module),
            resources=resources_of(task, module),
            timeout=task.timeout,
            priority=task.priority,
            seed=_seed(spec.seed, instance, placement.node_id),
            task_id=words.task_id(instance),
            gpu=task.gpu,
        )
        attempt = Attempt(assignment, placement.node_alias, self._now)
        tries.append(attempt)
        data.hold(attempt)
        self._changed = True
        self._actions.append(Assign(placement.node_id, assignment))

    # How attempts end.

    def _rewound(self, backup: str) -> None:
        """Part of what live attempts told may be lost, a result perhaps: none is believed."""
        if self.data.state.final:
            return
        self._changed = True
        self.data.backup = backup
        self.data.heard_since.clear()
        for attempt in list(self.data.live.values()):
            attempt.error = TaskError("Restored", words.RESTORED)
            self._attempt_ended(attempt, AttemptState.INTERRUPTED)

    def _attempt_ended(self, attempt: Attempt, state: AttemptState) -> None:
        run, index = self.data.run_of(attempt.instance.alias), attempt.instance.index
        instance = run.instances[index]
        self._close(attempt, state)
        if state is AttemptState.FINISHED:
            run.finished += 1
            self._tell_of(attempt, "finished", words.finished(attempt))
            self._next_in_line(run)
            self._settle(run)
            return
        self.data.disavow(attempt)
        what = words.failure(attempt)
        if state in (AttemptState.FAILED, AttemptState.TIMEOUT):
            instance.failures += 1
            pause, spent = 0.0, instance.failures > run.spec.retries
        else:
            instance.interruptions += 1
            spent = instance.interruptions > INTERRUPTIONS
            pause = PAUSES[min(instance.interruptions, len(PAUSES)) - 1]
        if spent:
            self._tell_of(attempt, "failed", what)
            self._give_up(run, index, words.tried(what, instance))
            return
        self._tell_of(attempt, "retried", words.retried(what, pause))
        if pause:
            key = (self.data.iteration, run.spec.alias, index)
            self.data.set_timer(self._now + pause, "again", *key)
        else:
            self._again(run, index)

    def _cancel(self, attempt: Attempt, why: str) -> None:
        attempt.error = words.cancelled(attempt, why)
        self._close(attempt, AttemptState.CANCELLED)

    def _close(self, attempt: Attempt, state: AttemptState) -> None:
        self._changed = True
        attempt.state = state
        if attempt.ended_at is None:
            attempt.ended_at = self._now
        self.data.release(attempt)
        self._actions.append(Revoke(attempt.node_id, attempt.instance))
        counts = state is AttemptState.FINISHED
        self.data.exchange.attempt_ended(attempt.instance, counts=counts)
        self._actions.append(Woken())  # who waits for it may wait in vain

    def _again(self, run: TaskRun, index: int) -> None:
        """A new attempt; while paused, it waits for the resume."""
        if self.data.state is not SwarmState.ACTIVE:
            return
        last = run.instances[index].last
        if run.bound:
            self._assign(run, Placement(index, last.node_id, last.node_alias))
        else:
            self._ask(Ask(run.spec.alias, (index,)))

    def _give_up(self, run: TaskRun, index: int, why: str) -> None:
        run.instances[index].given_up = why
        run.given_up += 1
        self._next_in_line(run)
        self._settle(run)

    def _next_in_line(self, run: TaskRun) -> None:
        """Those whose turn has come: of a sequential task when those before them have ended,
        of many replicas when there is room."""
        data = self.data
        while run.has_later and data.state is SwarmState.ACTIVE and run.phase is Phase.RUNNING:
            if len(run.instances) - run.finished - run.given_up >= run.width:
                return
            placement = run.in_line.popleft() if run.in_line else self._deal(run)
            run.instances.append(InstanceRun())
            self._assign(run, placement)
            if placement.node_id in data.gone:
                self._lose(run, placement.index, "it was lost before its turn came")

    def _deal(self, run: TaskRun) -> Placement:
        """A node for the first that waits: the one that holds the fewest of this swarm's."""
        data, index = self.data, len(run.instances)
        run.waiting -= 1
        if run.sequential:
            node = run.nodes[index % len(run.nodes)]
        else:
            here = [node for node in run.nodes if node.node_id not in data.gone]
            node = min(here or run.nodes, key=lambda node: data.held.get(node.node_id, 0))
        return Placement(index, node.node_id, node.node_alias)

    def _lose(self, run: TaskRun, index: int, reason: str) -> None:
        """The node of an instance is lost."""
        attempt = run.instances[index].last
        attempt.error = TaskError("NodeLost", f"{attempt.node_alias} was lost: {reason}")
        if not run.bound:
            self._attempt_ended(attempt, AttemptState.INTERRUPTED)
            return
        if attempt.instance in self.data.live:
            self._close(attempt, AttemptState.INTERRUPTED)
            self.data.disavow(attempt)
        self._give_up(run, index, words.failure(attempt))

    # How tasks, iterations and the swarm end.

    def _settle(self, run: TaskRun) -> None:
        """Is the task done, can it still be?"""
        size = run.size
        unanswered = size - run.finished - run.given_up
        need = size if run.spec.quorum is None else quorum_of(run.spec.quorum, size)
        if run.finished + unanswered < need:
            self._fail(words.too_few(run, need))
        elif run.finished >= need and (not unanswered or run.spec.deadline is None or run.overdue):
            self._done(run)
        elif run.overdue:
            self._fail(words.overdue(run, need))

    def _done(self, run: TaskRun) -> None:
        data, alias = self.data, run.spec.alias
        size = run.size
        run.phase = Phase.DONE
        run.in_line.clear()
        run.waiting = 0
        data.open_tasks -= 1
        for number in [number for number, ask in data.asks.items() if ask.alias == alias]:
            del data.asks[number]
        for instance in run.instances:
            if instance.last.instance in data.live:
                self._cancel(instance.last, words.enough(run, size))
                data.disavow(instance.last)
            if instance.last.state is not AttemptState.FINISHED and not instance.given_up:
                instance.given_up = words.straggler(instance.last)
        if len(run.instances) > 1:
            kind = "quorum" if run.finished < size else "finished"
            self._tell(kind, words.done(run, size, self._now), alias)
        for after in self.graph.layout(data.iteration).after[alias]:
            self._begin_if_ready(after)
        self._after_iteration()

    def _after_iteration(self) -> None:
        """Ends the iteration if all its tasks are done; starts the next if there is one.

        A task that calls stop_swarm ends the swarm; max_iteration and the length of a
        schedule are ceilings. Below them, a call of schedule_next_iter starts another
        iteration. Without such a call another starts only if there is a ceiling to run up to
        and no task ever made one, or a schedule, which is run to its end.
        """
        data, maximum = self.data, self.graph.ceiling
        if data.state is not SwarmState.ACTIVE or data.open_tasks:
            return
        self._release([*data.exchange.iteration_over(), *data.forget_replaced()])
        self._tell("iteration", words.iteration_took(data.iteration, self._now - data.began_at))
        answered = [
            instance.last
            for run in data.runs[data.iteration].values()
            for instance in run.instances
            if instance.last.state is AttemptState.FINISHED
        ]
        stopper = next((attempt for attempt in answered if attempt.stops), None)
        calls = [call for attempt in answered for call in attempt.nexts]
        data.self_scheduled = data.self_scheduled or bool(calls)
        runs_on = bool(self.graph.spec.schedule) or not data.self_scheduled
        if stopper is not None:
            self._end(SwarmState.COMPLETED, words.stopped_by(stopper))
        elif maximum is not None and data.iteration + 1 >= maximum:
            self._end(SwarmState.COMPLETED, words.ran(data.iteration + 1))
        elif calls or (maximum is not None and runs_on):
            self._begin_iteration(self._named(calls))
        else:
            self._end(SwarmState.COMPLETED, words.ran(data.iteration + 1))

    def _named(self, calls: list[NextIteration]) -> dict[str, tuple[str, ...]]:
        """Nodes for the next iteration by alias; without an alias, of all that come first."""
        within: dict[str, tuple[str, ...]] = {}
        for call in calls:
            roots = self.graph.layout(self.data.iteration + 1).roots
            for alias in (call.alias,) if call.alias is not None else roots:
                both = (*within.get(alias, ()), *call.node_ids)
                within[alias] = tuple(dict.fromkeys(both))
        return within

    def _fail(self, reason: str) -> None:
        self._end(SwarmState.FAILED, reason)

    def _end(self, state: SwarmState, reason: str, *, kill: bool = False) -> None:
        if self.data.state.final:
            return
        for attempt in list(self.data.live.values()):
            self._cancel(attempt, words.swarm_over(state, reason))
        self.data.asks.clear()
        self._release([*self.data.exchange.clear(), *self.data.forget_replaced()])
        self.data.ended_at = self._now
        self._enter(state, reason, kill=kill)

    def _enter(self, state: SwarmState, reason: str, *, kill: bool = False) -> None:
        self._changed = True
        self.data.state, self.data.reason = state, reason
        self._tell("state", words.state(self.data))
        self._actions.append(StateChanged(state, reason, kill))

    def _release(self, blobs: list[BlobRef], *, deleted: bool = False) -> None:
        """Those of them that nothing names any more."""
        needed = self.data.needed(blobs)
        gone = dict.fromkeys(blob for blob in blobs if blob.digest not in needed)
        if gone:
            self._actions.append(Released(tuple(gone), deleted))

    # Telling users.

    def _tell(self, kind: str, sentence: str, alias: str = "") -> None:
        self._publish(EventItem(self._now, kind, sentence, self.data.iteration, alias))

    def _tell_of(
        self, attempt: Attempt, kind: str, sentence: str, fraction: float | None = None
    ) -> None:
        at = attempt.instance
        self._publish(
            EventItem(
                self._now,
                kind,
                sentence,
                at.iteration,
                at.alias,
                at.index,
                attempt.node_alias,
                fraction,
            )
        )

    def _publish(self, item: EventItem) -> None:
        self._changed = True
        self.data.events.append(item)
        self._actions.append(Publish("events", item))


def quorum_of(fraction: float, size: int) -> int:
    """How many of `size` a quorum is; at least one."""
    return max(1, math.ceil(fraction * size - 1e-9))


def _seed(seed: int, instance: Instance, node_id: str) -> int:
    """The same for every try, another for every instance, node and iteration."""
    text = f"{seed}/{instance.alias}/{instance.index}/{instance.iteration}/{node_id}"
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest()) >> 1
