"""The shell around a TaskMachine: one lane of a task on this node, with its warm runtime.

It prepares the module and the datasets, starts the runtime, gives it attempts, answers the
requests of the task's code, and journals what happens. It may crash at any time: its successor
ends the runtime that was left, and the node's supervisor reads in the journal which attempts
were under way, reports them INTERRUPTED, and gives the others to the successor.
"""

from __future__ import annotations

import os
import platform
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, assert_never

import msgspec

from manta.actors import (
    Actor,
    ActorDead,
    ExitKind,
    ExitReason,
    MailboxPolicy,
    Timer,
)
from manta.node.errors import (
    LaunchError,
    NodeError,
    StorageError,
)
from manta.node.journal.swarm import without_packages
from manta.node.runners.gpus import Gpu
from manta.node.runners.interface import RuntimeExit, RuntimeSpec
from manta.node.scheduling.reservations import Start
from manta.node.shared.addresses import ROOT
from manta.node.shared.context import LeftRuntime, NodeContext
from manta.node.shared.messages import (
    AttemptEnded,
    AttemptsAreFresh,
    ExchangeBroken,
    ExchangeLost,
)
from manta.node.state import remove_folder
from manta.node.task_server import messages as light
from manta.node.task_server.messages import AttemptExited, SessionLost
from manta.node.task_server.requests import Request
from manta.node.tasks import events, outbound
from manta.node.tasks import machine as task_machine
from manta.node.tasks.bundles import Bundles
from manta.node.tasks.image_attempts import ImageAttempt, image_spec
from manta.node.tasks.preparation import Preparation
from manta.node.tasks.requests import TaskRequests, Then
from manta.node.tasks.scratch import ScratchFull
from manta.node.tasks.stacks import StackReads
from manta.protocol.node import (
    Assignment,
    Instance,
    LogLine,
    ReadStacks,
    TaskEnded,
    TaskError,
    TaskStarted,
)
from manta.protocol.states import AttemptState

RETRIES, RETRY_AFTER = 50, 0.1
"""How often, and after how many seconds, a sibling that is being restarted is asked again."""


class _Retry(msgspec.Struct, frozen=True):
    ask: Callable[[], None]


class TaskSupervisor(Actor):
    mailbox: ClassVar[MailboxPolicy] = MailboxPolicy(bound=100_000)

    def __init__(self, context: NodeContext, swarm_id: str, alias: str, lane: int) -> None:
        self._context = context
        self._lane = (swarm_id, alias, lane)
        self._machine = task_machine.TaskMachine(os.urandom(6).hex())
        self._events: deque[events.TaskEvent] = deque()
        self._actions: deque[events.TaskAction] = deque()
        self._feeding = False
        self._ending: TaskEnded | None = None
        """The end of an attempt that the plane is yet to let go: nothing else is done before it is
        reported."""
        self._is_stopping = False
        self._timer: Timer[Any] | None = None
        self._assignment: Assignment | None = None
        """The latest that was prepared for, or run."""
        self._is_image_alone = False
        self._gpus: tuple[str, ...] = ()
        """The ids of those that its attempts have, one at a time."""
        self._looks = False
        self._given: dict[Instance, Assignment] = {}
        """What was given to this lane and has not ended."""
        self._bundles = Bundles(context)
        self._stacks = StackReads(context)

    def on_start(self) -> None:
        self._requests = TaskRequests(self, self._context, self.ask)
        self._prepared = Preparation(self, self._context, self.ask, self._feed, self._say)
        self._end_runtime()

    def on_stop(self, reason: ExitReason) -> None:
        if reason.kind is ExitKind.CRASHED:
            return  # the successor tells what became of the attempts, and kills
        self._is_stopping = True
        if (ending := self._ending) is not None:
            self._ending = None
            self._report(self._requests.direct.end_now(ending))
        why = self._context.leaving or "the node stops, or the swarm is over"
        self._feed(events.Stop(AttemptState.INTERRUPTED, why))
        self._end_runtime()
        self._context.modules.leave(self.ref.address.path)
        self._context.environments.leave(self.ref.address.path)

    def receive(self, message: Any) -> Any:
        match message:
            case Request():
                self._serve(message)
            case Start() | events.Revoked() | events.Forbidden() | SessionLost():
                if isinstance(message, Start):
                    self._gpus = message.gpus
                    self._given[message.assignment.instance] = message.assignment
                self._feed(message)
            case AttemptExited():
                if message.session == self._machine.session:
                    self._bundles.heard(message)
                self._feed(message)
            case light.StacksTaken(asked=True, text=text):
                self._stacks.answer(text)
            case light.PackagesFound() | light.StacksTaken():
                if message.session == self._machine.session:
                    self._bundles.heard(message)
            case ReadStacks(instance):
                why_not = "" if self._machine.current == instance else "does not run now"
                if self._is_image_alone:
                    why_not = "is the program of an image"
                session, now = self._machine.session, self.clock.now()
                self._stacks.ask(instance, session, why_not, self.defer, now)
            case light.RuntimeReady(session):
                self._feed(events.Ready(session))
            case light.ObjectLives(_, lives_on):
                self._requests.direct.lives_on = lives_on
                self.notify(ROOT, AttemptsAreFresh(self._lane, not lives_on))
            case ExchangeLost(instance, how):
                self._feed(events.PlaneLost(instance, how))
            case ExchangeBroken(instance, why):
                cut = light.CutAttempt(self._machine.session, instance, why)
                self._context.sessions.tell(cut)
            case ScratchFull(session, sentence):
                self._feed(events.Overrun(session, TaskError("ResourceExhaustionError", sentence)))
            case events.Ticked():
                self._timer = None
                self._feed(message)
            case _Retry(ask):
                ask()
            case _:
                return super().receive(message)
        return None

    # --- the machine -------------------------------------------------------------------

    def _feed(self, event: events.TaskEvent) -> None:
        self._events.append(event)
        self._go_on()

    def _go_on(self) -> None:
        if self._feeding or self._ending is not None:
            return
        self._feeding = True
        try:
            while (self._actions or self._events) and self._ending is None:
                if self._actions:
                    self._perform(self._actions.popleft())
                else:
                    event, now, wall = self._events.popleft(), self.clock.now(), self.clock.wall()
                    self._actions += self._machine.handle(event, now, wall)
        finally:
            self._feeding = False
        self._set_timer()

    def _set_timer(self) -> None:
        due = self._machine.deadline
        if self._timer is not None:
            if self._timer.deadline == due:
                return
            self._timer.cancel()
            self._timer = None
        if due is not None:
            self._timer = self.after(max(0.0, due - self.clock.now()), events.Ticked())

    def _perform(self, action: events.TaskAction) -> None:
        match action:
            case events.Report(TaskEnded() as entry) if self._requests.direct.is_used_by(
                entry.instance
            ):
                self._end_exchange(entry)
            case events.Report(entry):
                self._report(entry)
            case events.RunAttempt(session, assignment):
                self._requests.collect = assignment.collect
                self._run_attempt(session, assignment)
            case light.CancelAttempt():
                self._cancel_attempt(action)
            case events.KillRuntime():
                self._end_runtime()
            case events.Prepare(session, assignment):
                self._bundles.forget()
                self._prepared.begin(session, assignment)
            case events.StartRuntime(session, assignment):
                if assignment.module.package is None:
                    self.notify(ROOT, AttemptsAreFresh(self._lane, True))
                    self._events.append(events.Ready(session))  # each attempt starts its own
                else:
                    self._launch(session, assignment)
            case _:
                assert_never(action)

    def _end_exchange(self, entry: TaskEnded) -> None:
        """What it told others has to outlive the node before its end is reported."""
        if self._is_stopping:
            self._report(self._requests.direct.end_now(entry))
            return
        self._ending = entry

        def ended(entry: TaskEnded) -> None:
            self._ending = None
            self._report(entry)
            self._go_on()

        self._requests.direct.end(entry, ended)

    def _report(self, entry: TaskStarted | TaskEnded) -> None:
        journals, values = self._context.journals, self._context.values
        left = self._context.runtimes.get(self.ref.address.path)
        entry = self._bundles.completed(entry, self._given.get(entry.instance), left)
        if isinstance(entry, TaskStarted):
            entry = msgspec.structs.replace(entry, datasets=self._prepared.used)
        else:
            entry = msgspec.structs.replace(entry, reads=self._requests.reads_of(entry.instance))
            self._given.pop(entry.instance, None)
            self._stacks.answer("")
            self._requests.attempt_ends(entry.instance)
            entry = self._context.gate.output(entry, self.clock.wall())
            self._context.output.ended(entry.instance)

        def kept() -> None:
            """Its place is free before the manager can want it for the next one."""
            if isinstance(entry, TaskEnded):
                self.notify(ROOT, AttemptEnded(entry.instance))

        try:
            journals.append(entry, values, kept)
        except StorageError as error:  # what it returned finds no room
            assert isinstance(entry, TaskEnded)
            self._context.check_storage(self)
            self.log.error("%s", error)
            if entry.error is not None:  # what it failed of is worth more than what it had
                journals.append(without_packages(entry), kept=kept)
                return
            said = TaskError("ResourceExhaustionError", f"{entry.instance} failed: {error}")
            entry = msgspec.structs.replace(
                entry, state=AttemptState.FAILED, output=None, error=said
            )
            journals.append(entry, kept=kept)
        if isinstance(entry, TaskEnded):
            if entry.error is not None:
                self.log.info("%s is %s: %s", entry.instance, entry.state, entry.error.sentence)
            self._context.audit.left(entry, entry.at)
            withheld = self._context.gate.withheld(entry.instance)
            self._context.audit.ended(entry.instance, entry.state, entry.at, withheld)
            self._requests.attempt_ended(entry)
            self._context.sessions.tell(light.EndKept(self._machine.session))

    # --- siblings ----------------------------------------------------------------------

    def ask(self, path: str, message: Any, timeout: float, then: Then, tries: int = 0) -> None:
        """Ask whatever incarnation of a sibling is there; ask again while it is being restarted."""

        def answered(value: Any, error: BaseException | None) -> None:
            if isinstance(error, ActorDead) and tries < RETRIES:
                again = partial(self.ask, path, message, timeout, then, tries + 1)
                self.after(RETRY_AFTER, _Retry(again))
            else:
                then(value, error)

        self.pipe(self.system.ref(path).ask_future(message, timeout=timeout), answered)

    # --- the runtime -------------------------------------------------------------------

    def _launch(self, session: str, assignment: Assignment) -> None:
        context = self._context
        self._assignment = assignment
        successors_too = self.system.ref(self.ref.address.path)
        opened = context.sessions.open(session, successors_too)
        scratch = context.state.tasks / session
        folder, entry = self._prepared.module
        resources = assignment.resources
        spec = RuntimeSpec(
            session=session,
            module_folder=folder,
            socket=Path(context.sessions.path),
            token=opened.token,
            scratch=scratch,
            entry=entry,
            datasets=self._prepared.datasets,
            environment=self._prepared.environment,
            outbound=outbound.ways(context, self._prepared.ways, self._current, self._say),
            image=assignment.module.image,
            cpu=resources.cpu if resources and resources.cpu else context.cpu_share,
            memory=resources.memory if resources else None,
            gpus=self._those_there(),
            task=f"{assignment.instance.swarm_id}.{assignment.instance.alias}",
        )
        ended = self._end_of_runtime()
        try:
            self._check_gpus()
            scratch.mkdir(mode=0o700)
            handle = context.runner.start(spec, ended.set_result)
        except (NodeError, OSError) as error:
            self._context.sessions.tell(light.CloseSession(session))
            remove_folder(scratch)
            self._context.check_storage(self)
            said = TaskError("LaunchError", str(error))
            self._feed(events.Failed(session, said, platform=True))
            return
        self._holds(assignment, LeftRuntime(session, handle, scratch, ended))
        image = assignment.module.image
        if image is not None and not context.runner.runs_in_image(image):
            self._warn_once(
                assignment,
                f"The image {image!r} is not used on this node: it runs no containers, but its own "
                f"Python {platform.python_version()}.",
            )

    def _those_there(self) -> tuple[Gpu, ...]:
        return tuple(gpu for gpu in self._context.gpus if gpu.id in self._gpus)

    def _check_gpus(self) -> None:
        """Raises LaunchError."""
        if gone := {*self._gpus} - {gpu.id for gpu in self._context.gpus}:
            names = ", ".join(sorted(gone))
            raise LaunchError(f"The machine has lost a GPU that the task was to have: {names}.")

    def _holds(self, assignment: Assignment, left: LeftRuntime) -> None:
        context, path, resources = self._context, self.ref.address.path, assignment.resources
        left = replace(left, gpus=self._gpus, disk=resources.disk if resources else None)
        context.runtimes[path] = left
        if left.gpus:
            key = path, left.session
            context.on_gpus[key] = left
            left.ended.add_done_callback(lambda _: context.on_gpus.pop(key, None))

    def _warn_once(self, assignment: Assignment, text: str) -> None:
        """Write a warning to the swarm's log, once."""
        said = (assignment.instance.swarm_id, text)
        if said not in self._context.warned:
            self._context.warned.add(said)
            self._say(assignment, "warning", text)

    def _say(self, assignment: Assignment, level: str, text: str) -> None:
        """Write a line to the swarm's log. May be called from any thread."""
        line = LogLine(assignment.instance, self.clock.wall(), level, text)
        self._context.journals.append_lines(assignment.instance.swarm_id, [line])

    def _end_of_runtime(self) -> Future[Any]:
        """Returns what is set, from any thread, to how a runtime ended: it is heard however full
        the mailbox is. Should this actor have crashed, its successor has killed it."""
        told: Future[Any] = Future()

        def feed(event: Any, _: BaseException | None) -> None:
            if isinstance(event, RuntimeExit) and event.session == self._machine.session:
                self._bundles.heard(event)
            self._feed(event)

        self.pipe(told, feed)
        return told

    def _end_runtime(self) -> None:
        left = self._context.runtimes.pop(self.ref.address.path, None)
        if left is None:
            return
        self._bundles.measured(left)
        left.handle.kill()
        self._context.sessions.tell(light.CloseSession(left.session))
        # Until then, an object that lives on may write into it.
        left.ended.add_done_callback(lambda _: remove_folder(left.scratch))

    def _run_image(self, session: str, assignment: Assignment) -> None:
        """Run an attempt of an image that has its own entry point."""
        context = self._context
        scratch = context.state.tasks / session
        alias = (context.identity and context.identity.alias) or context.config.alias
        spec = image_spec(
            session,
            assignment,
            alias,
            scratch,
            self._prepared.datasets,
            context.cpu_share,
            gpus=self._those_there(),
        )
        ended = self._end_of_runtime()
        attempt = ImageAttempt(assignment, context.output.keep, ended.set_result)
        try:
            self._check_gpus()
            scratch.mkdir(mode=0o700, exist_ok=True)
            handle = context.runner.start_image(spec, attempt.on_output, attempt.on_exit)
        except (NodeError, OSError) as error:
            remove_folder(scratch)
            context.check_storage(self)
            self._events.append(RuntimeExit(session, None, sentence=str(error), platform=True))
            return
        self._holds(assignment, LeftRuntime(session, handle, scratch, ended))

    def _cancel_attempt(self, cancel: light.CancelAttempt) -> None:
        if self._is_image_alone:
            self._context.runtimes[self.ref.address.path].handle.kill()
        else:
            self._context.sessions.tell(cancel)

    def _current(self) -> Assignment:
        """May be called from any thread."""
        assert self._assignment is not None
        return self._assignment

    def _run_attempt(self, session: str, assignment: Assignment) -> None:
        self._assignment = assignment
        prepared = self._prepared
        self._context.audit.began(assignment, prepared.datasets, self.clock.wall(), prepared.used)
        self._is_image_alone = assignment.module.package is None
        self._requests.direct.begins(assignment)
        if self._is_image_alone:
            self._run_image(session, assignment)
            return
        left = self._context.runtimes.get(self.ref.address.path)
        datasets = left.handle.datasets if left else {}
        self._context.sessions.tell(light.RunAttempt(session, assignment, datasets))

    # --- what the task asks ----------------------------------------------------------------

    def _serve(self, request: Request) -> None:
        if request.session != self._machine.session or request.instance != self._machine.current:
            request.reply.fail("SwarmStopped", f"{request.instance} was ended by the node.")
        else:
            self._look_later(self._requests.take(request))

    def _look_later(self, waits: bool) -> None:
        """At what waits for the journal."""
        if waits and not self._looks:
            self._looks = True
            self.after(RETRY_AFTER, _Retry(self._look))

    def _look(self) -> None:
        self._looks = False
        if (current := self._machine.current) is not None:
            self._look_later(self._requests.look_at_waiting(current))
