"""A node around its pure machines: journal, assignments, places, tasks and their attempts."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from manta.node.journal import records
from manta.node.journal.swarm import Journal
from manta.node.peers.directory import Directories, DirectoryAction
from manta.node.peers.known import KnownPeers
from manta.node.runners.interface import RuntimeExit
from manta.node.scheduling.observed import Cancel, Forget, Observed, StopRuntimes, Take
from manta.node.scheduling.reservations import Refuse, Reservations, Start
from manta.node.scheduling.room import Capacity
from manta.node.task_server.messages import AttemptExited, CancelAttempt
from manta.node.tasks.events import (
    Failed,
    KillRuntime,
    Prepare,
    Prepared,
    Ready,
    Report,
    Revoked,
    RunAttempt,
    StartRuntime,
    Stop,
    Ticked,
)
from manta.node.tasks.machine import TaskMachine, interrupted
from manta.protocol.exchange import ExchangeRead
from manta.protocol.node import (
    Assignment,
    Capabilities,
    Desired,
    DesiredChanged,
    FetchDesired,
    Goodbye,
    Heartbeat,
    HeartbeatReply,
    Instance,
    JournalAck,
    JournalBatch,
    Load,
    ReadGlobal,
    Register,
    Registered,
    SelectResults,
    TaskEnded,
    TaskError,
    TaskStarted,
)
from manta.protocol.peers import FetchPeers, Peers, PeersChanged
from manta.protocol.states import AttemptState
from manta.protocol.values import BlobRef
from manta.testing.memory.network import public_key_of
from manta.transports.errors import DownReason, LinkDown
from manta.transports.interface import Link
from tests.simulation.manager import HEARTBEAT, pack, unpack
from tests.simulation.programs import Context, FetchBlob, Sleep, program_of
from tests.simulation.world import ADDRESS, MANAGER, Due, World

ASK = 3.0
"""Seconds after which an unanswered question is asked again."""


@dataclass
class Disk:
    """A node's journals: a crash tears off what was not synced."""

    files: dict[str, bytearray] = field(default_factory=dict)
    synced: dict[str, int] = field(default_factory=dict)

    def crash(self, world: World) -> None:
        for swarm_id, file in self.files.items():
            kept = self.synced[swarm_id]
            if len(file) > kept:  # some of what was written may be there, torn
                kept += world.random.randrange(len(file) - kept)
            del file[kept:]
            self.synced[swarm_id] = kept


@dataclass
class Attempt:
    session: str
    assignment: Assignment
    steps: Generator
    cancelled: bool = False


class Node:
    def __init__(self, world: World, number: int, disk: Disk) -> None:
        self.world, self.disk = world, disk
        self.id, self.alias = f"id{number}", f"node-{number}"
        self.skew = world.between(-600, 600)
        self.address = f"tcp://10.0.0.{number}:{world.random.randint(7000, 7999)}"
        """Each daemon has another port."""
        self.alive = True
        self.observed = Observed()
        self.peers = Directories()
        self.known = KnownPeers()
        self.reservations = Reservations(Capacity(2))
        self.tasks: dict[tuple[str, str, int], TaskMachine] = {}
        self.attempts: dict[str, Attempt] = {}
        self.timers: dict[str, Due] = {}
        self.journals: dict[str, Journal] = {}
        self.link: Link | None = None
        self.ups = 0
        self.registered = False
        self.acknowledged: dict[str, int] = {}
        self.pushing: set[str] = set()
        self.questions: dict[int, Any] = {}
        self.asked = 0
        self.sync_due = False
        self.waiting: list = []
        self.broken: dict[Instance, str] = {}
        self.last_writes: dict[Instance, int] = {}
        self.observers: list = []
        self.slow = (0.0005, 0.03)
        self.pace = 1.0

    def note(self, what: object) -> None:
        self.world.note(self.alias, what)

    @property
    def wall(self) -> float:
        return 1_000_000 + self.world.now + self.skew

    # Life.

    def start(self) -> None:
        self.note("starts")
        for swarm_id, file in self.disk.files.items():
            found, length, _ = records.decode(bytes(file))
            del file[length:]
            self.disk.synced[swarm_id] = length
            journal = Journal.recover(found)
            if journal is None:
                file.clear()
                file += records.encode(records.Begin(swarm_id))
                journal = Journal(records.Begin(swarm_id))
            self.journals[swarm_id] = journal
            for kept in journal.entries:
                for observer in self.observers:
                    observer.wrote(self, swarm_id, kept.number, kept.item)
            for ended in interrupted(journal.open, self.wall, f"{self.alias} was restarted"):
                self.append(ended)
            self.observed.remember(journal.unacknowledged_ends)
        self.world.boot(self.id).dial(ADDRESS, public_key_of(MANAGER), self)
        self.timers["beat"] = self.world.after(self.world.between(0, HEARTBEAT), self.beat)

    def crash(self) -> None:
        self.note("crashes")
        self.alive = False
        self.disk.crash(self.world)
        self.world.crash(self.id)
        for timer in self.timers.values():
            timer.cancelled = True
        for attempt in self.attempts.values():
            attempt.cancelled = True

    # What it is to run.

    def observe(self, actions: list) -> None:
        for action in actions:
            match action:
                case Take(assignment):
                    self.note(f"takes {assignment.instance}")
                    self.reserve(self.reservations.offer(assignment, self.world.now))
                case Forget(instance):
                    error = TaskError("Forgotten", "the journal was lost")
                    self.end_of(
                        TaskEnded(instance, AttemptState.INTERRUPTED, self.wall, None, error)
                    )
                case Cancel(instance):
                    self.note(f"is to cancel {instance}")
                    self.cancel(instance)
                case StopRuntimes(swarm_id):
                    for key in [key for key in self.tasks if key[0] == swarm_id]:
                        self.task(key, Stop(AttemptState.CANCELLED, "the swarm is over"))
                        del self.tasks[key]
                    self.reservations.swarm_gone(swarm_id)
                    self.hear_of_peers(self.peers.over(swarm_id))
                case FetchDesired(version, after):
                    asked = FetchDesired(version, after)
                    self.ask(asked, self.fetched, self.observed.fetch_failed)

    def hear_of_peers(self, actions: list[DirectoryAction]) -> None:
        for action in actions:
            if isinstance(action, FetchPeers):
                failed = partial(self.peers.fetch_failed, action.swarm_id)
                self.ask(action, self.fetched_peers, failed)
            else:
                self.note(action)
                self.known.apply(action)
                for observer in self.observers:
                    observer.knows(self)

    def fetched_peers(self, page: Peers) -> None:
        self.hear_of_peers(self.peers.fetched(page.swarm_id, page))

    def fetched(self, desired: Desired) -> None:
        self.observe(self.observed.fetched(desired))

    def reserve(self, actions: list) -> None:
        for action in actions:
            match action:
                case Start(assignment, queued):
                    instance = assignment.instance
                    key = (instance.swarm_id, instance.alias, instance.index)
                    if key not in self.tasks:
                        self.tasks[key] = TaskMachine("/".join(map(str, key)))
                    self.task(key, Start(assignment, queued))
                case Refuse(assignment, sentence):
                    error = TaskError("Refused", sentence)
                    self.end_of(
                        TaskEnded(assignment.instance, AttemptState.REFUSED, self.wall, None, error)
                    )

    def cancel(self, instance: Instance) -> None:
        key = (instance.swarm_id, instance.alias, instance.index)
        if self.reservations.is_waiting(instance):
            error = TaskError("Cancelled", "the manager cancelled it")
            self.end_of(TaskEnded(instance, AttemptState.CANCELLED, self.wall, None, error))
        elif key in self.tasks:
            self.task(key, Revoked(instance))

    def task(self, key: tuple, event: Any) -> None:
        machine = self.tasks[key]
        for action in machine.handle(event, self.world.now, self.wall):
            match action:
                case Prepare(session):
                    self.later((0.0, 0.3), key, Prepared(session))
                case StartRuntime(session, assignment):
                    failed = Failed(session, TaskError("LaunchError", "no launch"), platform=True)
                    fails = self.world.chance(0.02)
                    self.later((0.01, 0.8), key, failed if fails else Ready(session))
                case RunAttempt(session, assignment):
                    self.give(key, session, assignment)
                case CancelAttempt(session, instance):
                    self.later((0.0, 0.5), key, AttemptExited(session, instance))
                    if session in self.attempts:
                        self.attempts[session].cancelled = True
                case KillRuntime(session):
                    if session in self.attempts:
                        self.attempts.pop(session).cancelled = True
                case Report(TaskStarted() as entry):
                    self.append(entry)
                case Report(TaskEnded() as entry):
                    self.end_of(entry)
        name = f"task {key}"
        if name in self.timers:
            self.timers.pop(name).cancelled = True
        if machine.deadline is not None:
            delay = max(0.0, machine.deadline - self.world.now) + 1e-6
            self.timers[name] = self.world.after(delay, self.tick_task, key)

    def tick_task(self, key: tuple) -> None:
        if self.alive and key in self.tasks:
            self.task(key, Ticked())

    def later(self, pause: tuple[float, float], key: tuple, event: Any) -> None:
        def tell() -> None:
            if self.alive and key in self.tasks:
                self.task(key, event)

        self.world.after(self.world.between(*pause), tell)

    def end_of(self, entry: TaskEnded) -> None:
        self.note(f"{entry.instance} ended: {entry.state}")
        self.append(entry)
        self.observed.ended(entry.instance)
        self.reserve(self.reservations.ended(entry.instance, self.world.now))

    # Rounds.

    def give(self, key: tuple, session: str, assignment: Assignment) -> None:
        self.note(f"runs {assignment.instance}")
        context = Context(assignment, self.broken, self.pace)
        attempt = Attempt(session, assignment, program_of(assignment)(context))
        self.attempts[session] = attempt
        for observer in self.observers:
            observer.runs(self, assignment)
        self.go_on(key, attempt, None)

    def go_on(self, key: tuple, attempt: Attempt, given: Any) -> None:
        if attempt.cancelled or not self.alive:
            return
        instance = attempt.assignment.instance
        try:
            step = attempt.steps.send(given)
        except StopIteration:
            self.attempts.pop(attempt.session, None)
            self.task(key, AttemptExited(attempt.session, instance))
            return
        except RuntimeError as error:
            self.attempts.pop(attempt.session, None)
            sentence = f"{type(error).__name__}: {error}"
            self.task(key, AttemptExited(attempt.session, instance, None, TaskError("E", sentence)))
            return
        match step:
            case Sleep(seconds):
                self.world.after(seconds, self.go_on, key, attempt, None)
            case ReadGlobal() | SelectResults():
                self.read(key, attempt, step)
            case FetchBlob(blob):
                self.world.after(self.world.between(0.0, 2.0), self.fetch, key, attempt, blob)
            case _ if isinstance(step, ExchangeRead):
                self.read_exchange(key, attempt, step)
            case "exit":
                self.attempts.pop(attempt.session, None)
                self.task(key, RuntimeExit(attempt.session, -11))
            case entry:
                self.append(entry)
                self.when_synced(instance.swarm_id, lambda: self.go_on(key, attempt, None))

    def fetch(self, key: tuple, attempt: Attempt, blob: BlobRef) -> None:
        self.go_on(key, attempt, self.world.has_blob(blob))

    def read(self, key: tuple, attempt: Attempt, question: Any) -> None:
        def again() -> None:
            self.world.after(0.5, self.read, key, attempt, question)

        if not attempt.cancelled and self.alive:
            self.ask(question, lambda found: self.go_on(key, attempt, found), again)

    def read_exchange(self, key: tuple, attempt: Attempt, question: ExchangeRead) -> None:
        """Once the manager has applied what the attempt wrote before."""
        at = question.instance
        if self.acknowledged.get(at.swarm_id, 0) >= self.last_writes.get(at, 0):
            self.read(key, attempt, question)
        elif not attempt.cancelled and self.alive:
            self.world.after(0.1, self.read_exchange, key, attempt, question)

    # The journal.

    def append(self, entry: Any) -> None:
        swarm_id = entry.instance.swarm_id
        journal = self.journals.get(swarm_id)
        if journal is None:
            begin = records.Begin(swarm_id, self.acknowledged.get(swarm_id, 0))
            journal = self.journals[swarm_id] = Journal(begin)
            self.disk.files[swarm_id] = bytearray(records.encode(begin))
            self.disk.synced[swarm_id] = 0
        number = journal.append(entry, 100)
        self.last_writes[entry.instance] = number
        self.disk.files[swarm_id] += records.encode(records.KeptEntry(number, entry))
        if not self.sync_due:
            self.sync_due = True
            self.world.after(self.world.between(*self.slow), self.sync)

    def sync(self) -> None:
        if not self.alive:
            return
        self.sync_due = False
        for swarm_id, journal in self.journals.items():
            self.disk.synced[swarm_id] = len(self.disk.files[swarm_id])
            for kept in journal.entries:
                if kept.number > journal.entries.synced:
                    for observer in self.observers:
                        observer.wrote(self, swarm_id, kept.number, kept.item)
            journal.entries.synced = journal.entries.last
        waiting, self.waiting = self.waiting, []
        for call in waiting:
            call()
        self.send_journals()

    def when_synced(self, swarm_id: str, call: Any) -> None:
        self.waiting = [*self.waiting, call]

    def send_journals(self) -> None:
        if not self.registered:
            return
        due: list[float] = []
        for swarm_id, journal in self.journals.items():
            at = journal.entries.resend_at()
            if at is not None and at <= self.world.now:
                journal.entries.send_again()
            for blob in journal.blobs_to_push():
                if blob.digest not in self.pushing:
                    self.pushing.add(blob.digest)
                    self.world.after(self.world.between(0.0, 1.0), self.pushed, blob.digest)
            for batch in journal.due(self.world.now):
                self.send(0, JournalBatch(swarm_id, batch.first, batch.items))
            at = journal.entries.resend_at()
            if at is not None:
                due.append(at)
        if "resend" in self.timers:
            self.timers.pop("resend").cancelled = True
        if due:
            delay = max(0.0, min(due) - self.world.now) + 1e-6
            self.timers["resend"] = self.world.after(delay, self.send_journals)

    def pushed(self, digest: str) -> None:
        self.pushing.discard(digest)
        if self.alive:
            for journal in self.journals.values():
                journal.pushed(digest)
            self.send_journals()

    def acknowledge(self, swarm_id: str, upto: int) -> None:
        for observer in self.observers:
            observer.acknowledged(self, swarm_id, upto)
        self.acknowledged[swarm_id] = max(upto, self.acknowledged.get(swarm_id, 0))
        journal = self.journals.get(swarm_id)
        if journal is None:
            return
        journal.acknowledge(upto, (), self.world.now)
        # The file is written anew now and then; here, each time.
        file = bytearray(records.encode(journal.begin()))
        unsynced = False
        for kept in journal.entries:
            if kept.number > journal.entries.synced and not unsynced:
                unsynced = True
                self.disk.synced[swarm_id] = len(file)
            file += records.encode(records.KeptEntry(kept.number, kept.item))
        if not unsynced:
            self.disk.synced[swarm_id] = len(file)
        self.disk.files[swarm_id] = file
        self.send_journals()

    # The link.

    def beat(self) -> None:
        if not self.alive:
            return
        if self.registered:
            version = self.observed.version
            self.ask(Heartbeat(version, Load()), self.beaten, lambda: None)
        self.timers["beat"] = self.world.after(HEARTBEAT, self.beat)

    def beaten(self, reply: HeartbeatReply) -> None:
        self.observe(self.observed.heard_version(reply.desired_version))
        self.hear_of_peers(self.peers.heard_versions(reply.directories))

    def goodbye(self) -> None:
        """Stops in good order: ends what runs, and says so."""
        self.note("stops in good order")
        for key in list(self.tasks):
            self.task(key, Stop(AttemptState.INTERRUPTED, f"{self.alias} stops"))
        self.sync()
        if self.registered:
            self.send(0, Goodbye("a test"))
        self.crash()

    def link_up(self, link: Link) -> None:
        self.link = link
        self.ups += 1
        self.register()

    def register(self) -> None:
        message = Register(self.alias, Capabilities(), peer_addresses=(self.address,))
        ups = self.ups

        def again() -> None:
            if self.link is not None and self.ups == ups and not self.registered:
                self.register()

        self.ask(message, self.welcome, again)

    def welcome(self, registered: Registered) -> None:
        self.registered = True
        self.observe(self.observed.registered(registered.desired))
        self.hear_of_peers(self.peers.registered(self.id, registered.directories))
        for swarm_id, upto in registered.acknowledged.items():
            self.acknowledge(swarm_id, upto)
        for journal in self.journals.values():
            journal.entries.send_again()
        self.send_journals()

    def link_down(self, link: Link, reason: DownReason) -> None:
        self.link, self.registered = None, False
        failed, self.questions = self.questions, {}
        for _, lost in failed.values():
            lost()

    def ask(self, message: Any, answered: Any, lost: Any) -> None:
        """One of the two is called, once; what comes late is not heard."""
        self.asked += 1
        number = self.asked
        self.questions[number] = (answered, lost)
        if not self.send(number, message):
            del self.questions[number]
            self.world.after(0.2, lambda: self.alive and lost())
            return

        def expire() -> None:
            if self.alive and number in self.questions:
                self.questions.pop(number)[1]()

        self.world.after(ASK, expire)

    def send(self, number: int, message: Any) -> bool:
        if self.link is None or not (self.registered or isinstance(message, Register)):
            return False
        try:
            self.link.send([pack(number, message)])
        except LinkDown:
            return False
        return True

    def received(self, link: Link, parts: list) -> None:
        number, message = unpack(parts[0])
        if number:
            answered = self.questions.pop(number, None)
            if answered is not None:
                answered[0](message)
            return
        match message:
            case DesiredChanged() if self.registered:
                self.observe(self.observed.changed(message))
            case PeersChanged() if self.registered:
                self.hear_of_peers(self.peers.changed(message))
            case JournalAck(swarm_id, upto) if self.registered:
                self.acknowledge(swarm_id, upto)
