"""The root of a node's actors. It compares what the manager wants with what runs.

Three machines decide: `Observed` what is taken and what is ended, `Reservations` what may run
now, `Lanes` which task supervisor runs it. Task supervisors come and go. When one that crashed
is back, attempts that had begun are reported INTERRUPTED, and the others are given to it again.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, assert_never

import msgspec

from manta.actors import ChildSpec, ExitReason, LocalRef, Refused, Restart, Supervisor
from manta.node.capabilities.datasets import Datasets
from manta.node.capabilities.metrics import Metrics
from manta.node.link.manager import STACKS_TIMEOUT, ManagerLink
from manta.node.link.peer_directory import PeerDirectory
from manta.node.link.peer_hub import PeerHub
from manta.node.plane.keeper import PlaneKeeper
from manta.node.scheduling import observed as obs
from manta.node.scheduling import reservations as res
from manta.node.scheduling.lanes import Lane, Lanes
from manta.node.scheduling.room import Capacity
from manta.node.service.door import LOOK, Door
from manta.node.service.review import Reviews
from manta.node.shared.addresses import PEER_DIRECTORY, PLANE, ROOT, task_id
from manta.node.shared.context import NodeContext
from manta.node.shared.messages import (
    AttemptEnded,
    AttemptsAreFresh,
    Drain,
    EndExchange,
    FetchFailed,
    GpusFound,
    Reconfigured,
    SwarmOver,
    TroubleChanged,
)
from manta.node.task_server.service import LightService
from manta.node.tasks.events import Forbidden, Revoked
from manta.node.tasks.machine import interrupted
from manta.node.tasks.scratch import Scratch
from manta.node.tasks.supervisor import TaskSupervisor
from manta.protocol.codes import Code
from manta.protocol.node import (
    Assignment,
    Desired,
    DesiredChanged,
    FetchDesired,
    HeartbeatReply,
    Instance,
    LogLine,
    ReadStacks,
    Registered,
    StopNode,
    TaskEnded,
    TaskError,
)
from manta.protocol.paths import MANAGER_LINK
from manta.protocol.states import AttemptState

if TYPE_CHECKING:
    from manta.node.config import NodeConfig


class _Task(msgspec.Struct):
    """A task supervisor and its assignments."""

    lane: Lane
    is_up: bool = False
    stopping: bool = False
    granted: dict[Instance, res.Start] = {}
    revoked: set[Instance] = set()
    forbidden: dict[Instance, TaskError] = {}

    @property
    def id(self) -> str:
        return task_id(*self.lane)


class NodeSupervisor(Supervisor):
    intensity: ClassVar[int] = 20
    period: ClassVar[float] = 60.0

    def __init__(self, context: NodeContext, capacity: Callable[[NodeConfig], Capacity]) -> None:
        """`capacity` is what a configuration lets tasks take."""
        self._context = context
        self._observed = obs.Observed()
        self._capacity = capacity
        self._reservations = res.Reservations(capacity(context.config))
        self._lanes = Lanes()
        self._tasks: dict[str, _Task] = {}
        """By the supervisors' ids."""
        self._for_gpus: dict[Instance, res.Start] = {}
        """What was let in, while runtimes of others are yet to leave its GPUs."""
        self._door: Door | None = None

    def on_start(self) -> None:
        if (admission := self._context.admission) is not None:
            self._door = Door(
                self, self._context, admission, self._offer, self._refuse, self._forbid
            )
            self.after(LOOK, _Look())
        journals = self._context.journals
        cause = "The node's daemon ended while it ran."
        at = self.clock.wall()
        for entry in interrupted(journals.all_open(), at, cause):
            journals.append(entry)
            self._context.audit.interrupted(entry.instance, at)
        self._observed.remember(journals.unacknowledged_ends())

    def children(self) -> list[ChildSpec]:
        """The link starts last, because the others must be there when it tells them something."""
        context = self._context
        return [
            ChildSpec("datasets", partial(Datasets, context)),
            ChildSpec("metrics", partial(Metrics, context)),
            ChildSpec("scratch", partial(Scratch, context)),
            ChildSpec("light", partial(LightService, context.sessions)),
            ChildSpec("peer-hub", partial(PeerHub, context)),
            ChildSpec("peer-directory", partial(PeerDirectory, context.peers)),
            ChildSpec("plane", partial(PlaneKeeper, context), shutdown=15.0),
            ChildSpec("reviews", partial(Reviews, context)),
            ChildSpec("manager-link", partial(ManagerLink, context)),
        ]

    def receive(self, message: Any) -> Any:
        match message:
            case DesiredChanged():
                self._apply(self._observed.changed(message))
            case AttemptEnded(instance):
                self._ended(instance)
            case HeartbeatReply(version):
                self._apply(self._observed.heard_version(version))
                if version == self._observed.version:
                    self._context.journals.keep_only(self._observed.swarms)
            case Registered():
                self._apply(self._observed.registered(message.desired))
            case Desired():
                self._apply(self._observed.fetched(message))
            case FetchFailed():
                self._observed.fetch_failed()
            case AttemptsAreFresh(lane, fresh):
                self._lanes.attempts_are_fresh(lane, fresh)
            case TroubleChanged():
                self._trouble_changed()
            case GpusFound():
                found = [(gpu.id, gpu.info.memory) for gpu in self._context.gpus]
                self._admit(self._reservations.gpus_found(found, self.clock.now()))
                self._show()
            case ReadStacks(instance):
                self._read_stacks(instance)
            case StopNode(drain):
                self._stop_node(drain)
            case Drain(deadline):
                self._drain(deadline)
            case _Overdue(sentence):
                self._context.leaving = sentence
                self._context.finish(0, sentence)
            case Reconfigured():
                capacity = self._capacity(self._context.config)
                self._admit(self._reservations.may_take(capacity, self.clock.now()))
                self._show()
            case _Back(id, ref):
                if self.child(id) is ref:  # else it has ended again
                    self._task_up(id)
            case _Gone(task):
                self._task_gone(task)
            case _Look():
                assert self._door is not None
                self._door.look()
                self.after(LOOK, message)
            case _:
                return super().receive(message)
        return None

    # --- what the manager wants ----------------------------------------------------------

    def _apply(self, actions: Iterable[obs.ObservedAction]) -> None:
        for action in actions:
            match action:
                case obs.Take(assignment):
                    self._door.take(assignment) if self._door else self._offer(assignment)
                case obs.Forget(instance):
                    sentence = (
                        f"{instance} had begun, and its node has lost what it knew of it: the "
                        "node's journal was damaged or removed."
                    )
                    self.log.error("%s", sentence)
                    error = TaskError("Forgotten", sentence)
                    self._tell_end(instance, AttemptState.INTERRUPTED, error)
                case obs.Disown(instance, goes_on):
                    now = self.clock.wall()
                    self._context.journals.disown(instance, now, goes_on=goes_on)
                case obs.Cancel(instance):
                    self._cancel(instance)
                case obs.StopRuntimes(swarm_id, kill):
                    self._swarm_over(swarm_id, kill)
                case FetchDesired():
                    self.notify(MANAGER_LINK, action)
                case _:
                    assert_never(action)
        self._show()

    def _offer(self, assignment: Assignment) -> None:
        self._admit(self._reservations.offer(assignment, self.clock.now()))

    def _refuse(self, instance: Instance, error: TaskError) -> None:
        self._tell_end(instance, AttemptState.REFUSED, error)

    def _forbid(self, instance: Instance, error: TaskError) -> None:
        """The owner does: it ends at once."""
        task = self._task_of(instance)
        waited = self._for_gpus.pop(instance, None) is not None
        if waited or self._reservations.is_waiting(instance):
            self._refuse(instance, error)
        elif task is not None and instance in task.granted:
            task.forbidden[instance] = error
            if task.is_up:
                self.notify(f"{ROOT}/{task.id}", Forbidden(instance, error))

    def _admit(self, actions: Iterable[res.ReservationAction]) -> None:
        for action in actions:
            match action:
                case res.Start():
                    self._give(action)
                case res.Refuse(assignment, sentence):
                    error = TaskError("Refused", sentence)
                    self._tell_end(assignment.instance, AttemptState.REFUSED, error)
                case _:
                    assert_never(action)

    def _cancel(self, instance: Instance) -> None:
        waited = self._for_gpus.pop(instance, None) is not None
        is_held = self._door is not None and self._door.is_held(instance)
        if waited or is_held or self._reservations.is_waiting(instance):
            self._tell_end(instance, AttemptState.CANCELLED, _cancelled(instance))
            return
        task = self._task_of(instance)
        if task is not None and instance in task.granted:
            task.revoked.add(instance)
            if task.is_up:
                self.notify(f"{ROOT}/{task.id}", Revoked(instance))

    def _swarm_over(self, swarm_id: str, kill: bool) -> None:
        """Its attempts have been cancelled; a runtime stops once they have ended."""
        for task in [task for task in self._tasks.values() if task.lane[0] == swarm_id]:
            if not task.stopping and (kill or not task.granted):
                self._stop_task(task)
        self._reservations.swarm_gone(swarm_id)
        self.notify(PEER_DIRECTORY, SwarmOver(swarm_id))
        warned = self._context.warned
        warned -= {said for said in warned if said[0] == swarm_id}
        self._forget_if_over(swarm_id)

    def _stop_task(self, task: _Task) -> None:
        task.stopping = True
        self.stop_child(task.id, partial(self._task_stopped, task))

    def _forget_if_over(self, swarm_id: str) -> None:
        """Delete what its tasks kept, once none of them is left."""
        tasks = self._tasks.values()
        if swarm_id in self._observed.swarms or any(task.lane[0] == swarm_id for task in tasks):
            return
        kept, sealer = self._context.state.kept_of(swarm_id), self._context.spool.sealer
        if sealer is not None:
            sealer.erase_all(kept)
        shutil.rmtree(kept, ignore_errors=True)
        self._context.kept_sizes.forget(kept)
        for digest in self._context.named.over(swarm_id):
            self._context.values.let_go(digest)
        if not self._observed.swarms and not self._tasks:
            for digest in self._context.values:  # nobody reads it any more
                self._context.values.delete(digest)

    # --- task supervisors ----------------------------------------------------------------

    def _give(self, start: res.Start) -> None:
        instance = start.assignment.instance
        lane = self._lanes.take(instance)
        if start.gpus and not self._are_free(start.gpus, lane):
            self._for_gpus[instance] = start
            return
        task = self._tasks.get(task_id(*lane)) or self._start_task(_Task(lane))
        task.granted[instance] = start
        if task.is_up:
            self.notify(f"{ROOT}/{task.id}", start)

    def _are_free(self, gpus: tuple[str, ...], lane: Lane) -> bool:
        """Whether no runtime has any of them, but those that share them and the lane's own, which
        has no others. Ends warm ones that have; they are free once these are gone."""
        is_free, own = True, f"{ROOT}/{task_id(*lane)}"
        for (path, _), left in list(self._context.on_gpus.items()):
            task = self._tasks.get(path.removeprefix(f"{ROOT}/"))
            is_used = task is not None and bool(task.granted)
            is_amiss = left.gpus != gpus if path == own else not is_used and {*left.gpus} & {*gpus}
            if is_amiss and not left.ended.done():
                is_free = False
                self.pipe(left.ended, lambda *_: self._give_gpus())
                if task is not None and not is_used and not task.stopping:
                    self._stop_task(task)
        return is_free

    def _give_gpus(self) -> None:
        """To those that wait until others have left them."""
        waiting, self._for_gpus = self._for_gpus, {}
        for start in waiting.values():
            self._give(start)

    def _task_of(self, instance: Instance) -> _Task | None:
        lane = self._lanes.of(instance)
        return None if lane is None else self._tasks.get(task_id(*lane))

    def _start_task(self, task: _Task) -> _Task:
        self._tasks[task.id] = task
        spec = ChildSpec(
            task.id,
            partial(TaskSupervisor, self._context, *task.lane),
            restart=Restart.TRANSIENT,
            shutdown=15.0,
        )
        self.start_child(spec, partial(self._task_started, task))
        return task

    def _task_started(self, task: _Task, ref: LocalRef | None, refusal: Refused | None) -> None:
        if refusal is None:
            self._task_up(task.id)
            return
        self.log.error("%s cannot be started: %s", task.id, refusal)
        self._tasks.pop(task.id, None)
        cause = f"Its supervisor on the node could not be started ({refusal})."
        for instance in list(task.granted):
            self._tell_end(instance, AttemptState.INTERRUPTED, TaskError("Interrupted", cause))

    def on_child_started(self, id: str, ref: LocalRef) -> None:
        if id in self._tasks and not self._tasks[id].is_up:  # it was restarted
            # What its predecessor told waits in our mailbox: handled before this is.
            self.ref.tell(_Back(id, ref))

    def _task_up(self, id: str) -> None:
        task = self._tasks.get(id)
        if task is None or task.is_up:
            return
        task.is_up = True
        journals = self._context.journals
        ended, begun = set(journals.unacknowledged_ends()), set(journals.all_open())
        for instance, start in list(task.granted.items()):
            if instance in begun:
                self.notify(PLANE, EndExchange(instance, counts=False))
                if (error := task.forbidden.get(instance)) is not None:
                    self._refuse(instance, error)
                else:
                    error = TaskError("Interrupted", "Its supervisor on the node failed.")
                    self._tell_end(instance, AttemptState.INTERRUPTED, error)
            elif instance in ended:  # its predecessor could not tell us any more
                self._ended(instance)
            elif (error := task.forbidden.get(instance)) is not None:
                self._refuse(instance, error)
            elif instance in task.revoked:
                self._tell_end(instance, AttemptState.CANCELLED, _cancelled(instance))
            else:
                self.notify(f"{ROOT}/{id}", start)

    def on_child_exited(self, id: str, reason: ExitReason) -> None:
        if id in self._tasks:
            self._tasks[id].is_up = False

    def _task_stopped(self, task: _Task, ref: LocalRef | None, refusal: Refused | None) -> None:
        if refusal is not None:
            self.log.warning("%s was not stopped: %s", task.id, refusal)
        # What it told before it ended waits in our mailbox: handled before this is.
        self.ref.tell(_Gone(task))

    def _task_gone(self, task: _Task) -> None:
        for instance, error in list(task.forbidden.items()):  # it never read that it had them
            self._refuse(instance, error)
        for instance in task.revoked & task.granted.keys():
            self._tell_end(instance, AttemptState.CANCELLED, _cancelled(instance))
        del self._tasks[task.id]
        self._lanes.close(task.lane)
        if task.granted:  # the swarm is wanted again
            self._start_task(_Task(task.lane, granted=task.granted))
        self._forget_if_over(task.lane[0])

    def _read_stacks(self, instance: Instance) -> None:
        """Raises Refused."""
        task = self._task_of(instance)
        if task is None or not task.is_up:
            raise Refused(Code.WRONG_STATE, f"{instance} does not run on this node now.")
        reply = self.defer()

        def answered(answer: Any, error: BaseException | None) -> None:
            reply.set(answer) if error is None else reply.fail(error)

        asked = self.system.ref(f"{ROOT}/{task.id}").ask_future(
            ReadStacks(instance), timeout=STACKS_TIMEOUT
        )
        self.pipe(asked, answered)

    # --- ends ------------------------------------------------------------------------------

    def _tell_end(self, instance: Instance, state: AttemptState, error: TaskError) -> None:
        at = self.clock.wall()
        self._context.journals.append(TaskEnded(instance, state, at, error=error))
        self._context.audit.ended(instance, state, at)
        self._ended(instance)

    def _ended(self, instance: Instance) -> None:
        task = self._task_of(instance)
        self._lanes.leave(instance)
        if task is not None:
            task.granted.pop(instance, None)
            task.revoked.discard(instance)
            task.forbidden.pop(instance, None)
            over = task.lane[0] not in self._observed.swarms
            if over and not task.granted and not task.stopping:
                self._stop_task(task)
        self._observed.ended(instance)
        if self._door is not None:
            self._door.ended(instance)
        self._admit(self._reservations.ended(instance, self.clock.now()))
        self._give_gpus()
        self._show()

    def _trouble_changed(self) -> None:
        if trouble := self._context.storage.trouble:
            self._admit(self._reservations.suspend(trouble))
        else:
            self._admit(self._reservations.resume(self.clock.now()))
        self._show()

    def _stop_node(self, drain: bool) -> None:
        self._context.draining = True
        if self._door is not None:
            self._door.drain()
        if not drain:
            self._context.finish(0, "the manager asked the node to stop")
        self._show()

    def _drain(self, deadline: float | None) -> None:
        if deadline is not None:
            sentence = f"the node was drained, and its deadline of {deadline:g} s has passed"
            self.after(deadline, _Overdue(sentence))
            self._tell_of_deadline(deadline)
        self._stop_node(True)

    def _tell_of_deadline(self, deadline: float) -> None:
        """Those who wait for what runs here."""
        at = self.clock.wall()
        text = f"Its node is drained: what still runs in {deadline:g} s is interrupted."
        for task in self._tasks.values():
            lines = [LogLine(one, at, "node", text) for one in task.granted]
            self._context.journals.append_lines(task.lane[0], lines)

    def _show(self) -> None:
        context = self._context
        context.desired_version = self._observed.version
        context.tasks_running = self._reservations.running
        context.tasks_queued = self._reservations.queued
        context.gpu_room = self._reservations.gpu_room
        if context.draining and not self._observed.live:
            context.finish(0, "the node was drained")


class _Back(msgspec.Struct, frozen=True):
    """A task supervisor was restarted, and what its predecessor told has been handled."""

    id: str
    ref: LocalRef


class _Overdue(msgspec.Struct, frozen=True):
    """The time is up in which what runs may end by itself."""

    sentence: str


class _Look(msgspec.Struct, frozen=True):
    """At what the owner has said."""


class _Gone(msgspec.Struct, frozen=True):
    task: _Task


def _cancelled(instance: Instance) -> TaskError:
    return TaskError("Cancelled", f"{instance} was ended: the manager cancelled it.")
