"""Answers what a task's code asks of its node, without blocking the supervisor."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from manta.actors import Actor, AskTimeout, Refused
from manta.node.capabilities.metrics import ReadPerformance, ReadResources
from manta.node.errors import QuotaReached, StorageError
from manta.node.journal.entries import blob_of
from manta.node.link.peer_hub import Fetch, Offer
from manta.node.shared.addresses import METRICS, PEER_HUB, PLANE
from manta.node.shared.context import NodeContext
from manta.node.shared.messages import AskManager, ReadNetworkQuality
from manta.node.task_server import requests as light
from manta.node.tasks import kept
from manta.node.tasks.back_pressure import REPORTS, BackPressure
from manta.node.tasks.direct import THROUGH_MANAGER, DirectExchange
from manta.node.tasks.exchange import TaskExchange
from manta.node.tasks.mesh import TaskMesh
from manta.node.tasks.progress import ProgressGate
from manta.protocol import exchange
from manta.protocol import node as protocol
from manta.protocol.codes import Code
from manta.protocol.exchange import Contribution
from manta.protocol.node import MOST_READ, GlobalRead, Instance, LogLine, ResultEntry
from manta.protocol.paths import MANAGER_LINK
from manta.protocol.spec import Collect
from manta.protocol.spread import SPREAD
from manta.protocol.values import BlobRef, Payload
from manta.transports.codec.stored import Damaged
from manta.transports.errors import BlobMissing, BulkError

Then = Callable[[Any, BaseException | None], None]
Ask = Callable[[str, Any, float, Then], None]

READ_TIMEOUT = 3600.0
"""Seconds that a read waits for a manager that is away; the task's own timeout ends it sooner."""
SIBLING_TIMEOUT = 30.0
REFETCHES = 10
"""How often a value is fetched again that had to make room for others."""
CACHE, FILE_CACHE = 256 << 20, 16 << 30
"""Bytes of values that stay in memory, and in files, between attempts: the next one may read them
again."""


class TaskRequests:
    def __init__(self, actor: Actor, context: NodeContext, ask: Ask) -> None:
        self._actor = actor
        self._context = context
        self._ask = ask
        self.collect: Collect = "all"
        """Of the attempt under way."""
        self._pinned: list[str] = []
        self._reader: Instance | None = None
        self._reads: dict[str, int] = {}
        """Versions of globals, by tag, that this attempt has read."""
        self._storing: dict[light.Reply, Instance] = {}
        """Results that are being copied to where they stay."""
        self._progress = ProgressGate()
        self._pressure = BackPressure()
        self.direct = DirectExchange(actor, ask)
        self._mesh = TaskMesh(context)
        self._exchange = TaskExchange(
            actor,
            self._journal,
            self._read,
            self._give_value,
            self._give_all,
            lambda: context.has_rooms,
        )

    def take(self, request: light.Request) -> bool:
        """Serve it, or have it wait; whether anything waits."""
        journals = self._context.journals
        waits = journals.reports_wait if isinstance(request.body, REPORTS) else journals.crowded
        is_pressed = self._pressure.is_used or waits(request.instance.swarm_id)
        if is_pressed and isinstance(request.body, light.WRITES):
            self._pressure.hold(request, self._actor.clock.now())
            return self.look_at_waiting(request.instance)
        self._serve(request)
        return bool(self._pressure)

    def look_at_waiting(self, instance: Instance) -> bool:
        """Serve what need not wait any more; whether anything still waits."""
        crowded = self._context.journals.crowded(instance.swarm_id)
        reports_wait = self._context.journals.reports_wait(instance.swarm_id)
        now, away = self._actor.clock.now(), not self._context.is_registered
        for request in self._pressure.look(crowded, reports_wait, now, away=away):
            self._serve(request)
        if not crowded:
            self._tell_left_out(instance)
        return bool(self._pressure)

    def _tell_left_out(self, instance: Instance) -> None:
        if text := self._pressure.left_out():
            line = LogLine(instance, self._actor.clock.wall(), "node", text)
            self._context.journals.append_lines(instance.swarm_id, [line])

    def _serve(self, request: light.Request) -> None:
        instance, reply = request.instance, request.reply
        match request.body:
            case light.GetGlobal(tag):
                read = protocol.ReadGlobal(instance.swarm_id, tag)
                self._read(request, read, lambda answer: self._give_global(request, tag, answer))
            case light.ListGlobalTags():
                listing = protocol.ListGlobals(instance.swarm_id)
                self._read(request, listing, lambda answer: reply.set(list(answer.tags)))
            case light.SelectResults(tag, iteration):
                at = instance.iteration if iteration is None else iteration
                select = protocol.SelectResults(instance.swarm_id, tag, at)
                self._read(request, select, lambda answer: self._give_all(request, answer.entries))
            case light.SetGlobal(tag, value):
                self._keep(request, protocol.GlobalWritten(instance, tag, value))
            case light.AddResult(tag, value):
                self._add_result(request, tag, value)
            case light.LogMetrics(metrics, step):
                at_wall = self._actor.clock.wall()
                self._keep(request, protocol.MetricsLogged(instance, metrics, step, at_wall))
            case light.Progress(fraction, message):
                at_wall = self._actor.clock.wall()
                said = protocol.Progressed(instance, fraction, message, at_wall)
                told = self._context.gate.progress(said)
                if self._progress.takes(told, self._actor.clock.now()):
                    self._keep(request, told)
                else:
                    reply.set(None)
            case light.ScheduleNextIteration(node_ids, alias):
                self._schedule(request, protocol.NextIteration(instance, node_ids, alias))
            case light.StopSwarm():
                self._keep(request, protocol.StopRequested(instance))
            case light.GetState(key):
                self._get_state(request, self._state_file(instance, key), key)
            case light.SetState(key, value):
                self._set_state(request, self._state_file(instance, key), value)
            case light.GetResources():
                self._relay(request, METRICS, ReadResources(), SIBLING_TIMEOUT, reply.set)
            case light.GetPerformance():
                self._relay(request, METRICS, ReadPerformance(), SIBLING_TIMEOUT, reply.set)
            case light.OpenExchange() | light.OpenMesh() if flaw := self._may_not_meet(request):
                reply.fail("RequestFailed", flaw)
            case light.OpenExchange():
                self._context.audit.exchanges(instance, self._actor.clock.wall())
                sums = self._context.gate.sums_of(instance)
                self.direct.connect(request, partial(self._ask_plane, request), sums)
            case light.OpenMesh():
                if self.direct.is_direct:
                    self._mesh.open(request)
                else:
                    reply.fail("RequestFailed", THROUGH_MANAGER)
            case light.GetNetworkQuality():
                read_quality = ReadNetworkQuality()
                self._relay(request, MANAGER_LINK, read_quality, SIBLING_TIMEOUT, reply.set)
            case _:
                self._exchange.serve(request, request.body)

    def _may_not_meet(self, request: light.Request) -> str:
        """Why the attempt may not exchange, "" if it may: in sums, which the plane looks at."""
        gate, instance = self._context.gate, request.instance
        if isinstance(request.body, light.OpenExchange) and gate.sums_of(instance) is not None:
            return ""
        return gate.tells_others(instance, self._actor.clock.wall())

    def attempt_ends(self, instance: Instance) -> None:
        """Tell the last progress that was not told yet, and what is not told."""
        self._pressure.attempt_ended()
        self._storing = {one: at for one, at in self._storing.items() if at != instance}
        self._tell_left_out(instance)
        if (left := self._progress.rest()) is not None and left.instance == instance:
            with contextlib.suppress(StorageError):
                self._context.journals.append(left)

    def attempt_ended(self, end: protocol.TaskEnded) -> None:
        """Release the values that the attempt read, and those that passed with iterations. What it
        returned is the manager's."""
        context, instance = self._context, end.instance
        if isinstance(end.output, BlobRef):
            context.named.of_iteration(end.output.digest, instance.swarm_id, instance.iteration)
        for digest in self._pinned:
            try:
                context.values.unpin(digest)
            except BlobMissing:
                continue
        self._pinned.clear()
        self._exchange.attempt_ended()
        for digest in context.named.moved_on(instance.swarm_id, instance.iteration):
            context.values.let_go(digest)
        context.values.trim(CACHE, FILE_CACHE)

    def _schedule(self, request: light.Request, call: protocol.NextIteration) -> None:
        """Names that do not exist raise an exception in the task."""
        if not call.node_ids and call.alias is None:
            self._keep(request, call)
            return
        check = exchange.CheckNext(call.instance, call.node_ids, call.alias)
        self._read(request, check, lambda _: self._keep(request, call))

    # --- writing -----------------------------------------------------------------------

    def _keep(self, request: light.Request, entry: protocol.JournalEntry) -> None:
        if self._journal(request, entry):
            request.reply.set(None)

    def _journal(self, request: light.Request, entry: protocol.JournalEntry) -> bool:
        return self._may_leave(request, entry) and self._journal_it(request, entry)

    def _may_leave(self, request: light.Request, entry: protocol.JournalEntry) -> bool:
        if flaw := self._context.gate.flaw(entry, self._actor.clock.wall()):
            request.reply.fail("RequestFailed", flaw)
            return False
        return True

    def _keep_it(self, request: light.Request, entry: protocol.JournalEntry) -> None:
        """One that may leave."""
        if self._journal_it(request, entry):
            request.reply.set(None)

    def _journal_it(self, request: light.Request, entry: protocol.JournalEntry) -> bool:
        try:
            self._context.journals.append(entry, self._context.values)
        except StorageError as error:
            self._context.check_storage(self._actor)
            request.reply.fail("ResourceExhaustionError", str(error))
            return False
        except QuotaReached as error:
            request.reply.fail("ResourceExhaustionError", str(error))
            return False
        self._context.audit.left(entry, self._actor.clock.wall())
        if (blob := blob_of(entry)) is not None:
            self._name(request, blob)
            is_read = isinstance(entry, protocol.GlobalWritten | protocol.ResultWritten)
            if is_read and blob.size >= SPREAD:  # others fetch it from here
                self._actor.notify(PEER_HUB, Offer(blob.digest, request.instance.swarm_id))
        return True

    def _name(self, request: light.Request, blob: BlobRef) -> None:
        """Remember for how long the swarm can name a value that was read or written."""
        instance, named = request.instance, self._context.named
        swarm_id, iteration = instance.swarm_id, instance.iteration
        match request.body:
            case light.GetGlobal(tag) | light.SetGlobal(tag):
                named.of_global(blob.digest, swarm_id, iteration, tag)
            case light.SelectResults() | light.AddResult():
                named.of_swarm(blob.digest, swarm_id)
            case _:
                named.of_iteration(blob.digest, swarm_id, iteration)

    def _add_result(self, request: light.Request, tag: str, value: Payload) -> None:
        """It stays here if it is to; where there is no room for it the manager gets a copy."""
        instance, collect = request.instance, self.collect
        is_copied = collect == "all" or (not isinstance(collect, str) and tag in collect)
        if is_copied or not isinstance(value, BlobRef) or value.size < SPREAD:
            self._keep(request, protocol.ResultWritten(instance, tag, value))
            return
        result = protocol.ResultWritten(instance, tag, value)
        if not self._may_leave(request, result):  # before others are told that it is here
            return
        digest, swarm_id, held = value.digest, instance.swarm_id, self._context.held
        self._storing[request.reply] = instance

        def kept(_: None, error: BaseException | None) -> None:
            if error is not None and not isinstance(error, BulkError):
                raise error
            if request.reply not in self._storing:  # the attempt has ended meanwhile
                request.reply.fail("RequestFailed", "The attempt has ended.")
            elif error is not None:
                del self._storing[request.reply]
                text = f"[The result {tag!r} goes to the manager: {error}.]"
                line = LogLine(instance, self._actor.clock.wall(), "node", text)
                self._context.journals.append_lines(swarm_id, [line])
                self._keep_it(request, result)
            else:
                del self._storing[request.reply]
                self._context.named.of_swarm(digest, swarm_id)
                self._actor.notify(PEER_HUB, Offer(digest, swarm_id))
                self._keep_it(request, msgspec.structs.replace(result, held=True))
            if error is None:
                held.said(swarm_id, digest)

        stored = held.soon(held.keep, swarm_id, digest, self._context.values)
        self._actor.pipe(stored, kept)

    # --- reading -----------------------------------------------------------------------

    def _read(self, request: light.Request, question: Any, then: Callable[[Any], None]) -> None:
        ask = AskManager(question, request.instance)
        self._relay(request, MANAGER_LINK, ask, READ_TIMEOUT, then)

    def _ask_plane(
        self, request: light.Request, question: Any, then: Callable[[Any], None]
    ) -> None:
        self._relay(request, PLANE, question, SIBLING_TIMEOUT, then)

    def _relay(
        self,
        request: light.Request,
        path: str,
        question: Any,
        timeout: float,
        then: Callable[[Any], None],
    ) -> None:
        def answered(value: Any, error: BaseException | None) -> None:
            if error is None:
                then(value)
            else:
                _fail(request, error)

        self._ask(path, question, timeout, answered)

    def _give_global(self, request: light.Request, tag: str, answer: protocol.GlobalValue) -> None:
        if request.instance != self._reader:
            self._reader, self._reads = request.instance, {}
        if answer.value is not None and (tag in self._reads or len(self._reads) < MOST_READ):
            self._reads[tag] = answer.version
        self._give_value(request, answer.value)

    def reads_of(self, instance: Instance) -> tuple[GlobalRead, ...]:
        """The globals that it has read, if it is the attempt that runs, or ran last."""
        if instance != self._reader:
            return ()
        return tuple(GlobalRead(tag, version) for tag, version in self._reads.items())

    def _give_value(self, request: light.Request, value: Payload | None) -> None:
        if isinstance(value, BlobRef):
            self._fetch({value: ""}, request, lambda: request.reply.set(value))
        else:
            request.reply.set(value)

    def _give_all(
        self, request: light.Request, entries: tuple[ResultEntry, ...] | tuple[Contribution, ...]
    ) -> None:
        blobs: dict[BlobRef, str] = {}
        for entry in entries:
            if isinstance(entry.value, BlobRef):  # what the manager has needs no node's word
                blobs[entry.value] = _holder(entry) and blobs.get(entry.value, _holder(entry))
        self._fetch(blobs, request, lambda: request.reply.set(list(entries)))

    def _fetch(
        self, blobs: dict[BlobRef, str], request: light.Request, then: Callable[[], None]
    ) -> None:
        """Fetch all at once into the depot, where they stay until the attempt ends. Each with the
        id of the node that holds it, "" for what the manager has."""
        for blob, holder in blobs.items():
            if not holder:
                self._name(request, blob)
        # Whether what a node says to hold is the swarm's is for the PeerHub to find out.
        missing = {blob for blob, holder in blobs.items() if holder or not self._pin(blob)}
        if not missing:
            then()
            return
        failed = False

        def fetched(blob: BlobRef, tries: int, _: Any, error: BaseException | None) -> None:
            nonlocal failed
            if failed:
                return
            if error is None and not self._pin(blob):
                if tries:  # others took its place before it was pinned; those that are pinned stay
                    fetch(blob, tries - 1)
                    return
                error = BlobMissing("there is no room for all that the task reads")
            missing.discard(blob)
            if error is not None:
                failed = True
                _fail(request, error)
                return
            self._name(request, blob)
            if not missing:
                then()

        def fetch(blob: BlobRef, tries: int) -> None:
            at = request.instance.swarm_id
            wanted = Fetch(blob, at, blobs[blob])
            self._ask(PEER_HUB, wanted, READ_TIMEOUT, partial(fetched, blob, tries))

        for blob in tuple(missing):
            fetch(blob, REFETCHES)

    def _pin(self, blob: BlobRef) -> bool:
        values = self._context.values
        try:
            values.pin(blob.digest)
        except BlobMissing:
            return False
        if values.drop_damaged(blob.digest):
            values.unpin(blob.digest)
            self._context.held.drop_damaged(blob.digest)  # of which it may have been a link
            return False
        self._pinned.append(blob.digest)
        return True

    # --- kept for the swarm ------------------------------------------------------------

    def _state_file(self, instance: Instance, key: str) -> Path:
        """What an attempt keeps is read by those of which no more may leave."""
        limits = self._context.gate.limits_of(instance)
        name = hashlib.sha256(f"{limits}\0{key}".encode() if limits else key.encode()).hexdigest()
        return self._context.state.kept_of(instance.swarm_id) / name

    def _get_state(self, request: light.Request, path: Path, key: str) -> None:
        try:
            request.reply.set(
                kept.load(path, key, self._context.values, self._context.spool.sealer)
            )
        except Damaged as error:
            self._actor.log.error("%s: %s", request.instance, error)
            request.reply.fail("DataCorruptionError", str(error))
        except (BulkError, OSError) as error:
            request.reply.fail("ResourceExhaustionError", f"The state cannot be read: {error}.")

    def _set_state(self, request: light.Request, path: Path, value: Payload) -> None:
        sizes, most = self._context.kept_sizes, self._context.config.scratch
        try:
            with sizes.storing(path, kept.size_of(value), most):
                sealer = self._context.spool.sealer
                kept.store(path, value, self._context.values, request.session, sealer)
        except QuotaReached as error:
            request.reply.fail("ResourceExhaustionError", str(error))
        except (OSError, BulkError) as error:
            request.reply.fail("ResourceExhaustionError", f"The state was not kept: {error}.")
        else:
            request.reply.set(None)


def _holder(entry: ResultEntry | Contribution) -> str:
    """The id of the node on which its value stays; "" if the manager has it."""
    return entry.node_id if isinstance(entry, ResultEntry) and entry.held else ""


_KINDS: dict[str, str] = {
    Code.UNKNOWN_NODE: "UnknownPeer",
    Code.NOT_A_NEIGHBOR: "UnknownPeer",
    Code.UNKNOWN_TASK: "UnknownTask",
    Code.UNKNOWN_SWARM: "SwarmStopped",  # to the manager, this node runs nothing of it any more
}


def _fail(request: light.Request, error: BaseException) -> None:
    if isinstance(error, AskTimeout):
        request.reply.fail("Timeout", "The manager did not answer in time; is it running?")
    elif isinstance(error, Refused):
        sentence, body = error.sentence, request.body
        if error.code == Code.RESULT_AWAY and isinstance(body, light.SelectResults):
            at = request.instance.iteration if body.iteration is None else body.iteration
            sentence = f"The result {body.tag!r} of iteration {at} cannot be read: {sentence}"
        request.reply.fail(_KINDS.get(error.code, "RequestFailed"), sentence)
    else:
        request.reply.fail("RequestFailed", str(error))
