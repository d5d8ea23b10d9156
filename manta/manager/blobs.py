"""The actor that owns the bulk listener and deletes the blobs that nobody needs."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import msgspec

from manta.actors import Actor, ExitReason, Reply, Timer
from manta.console import text
from manta.manager.auth.principals import Principal
from manta.manager.context import Context, cluster_path
from manta.manager.messages import Noticed, Sweep, SweepLater
from manta.protocol.values import BlobRef
from manta.transports.bulk.curve import CurveBulk
from manta.transports.bulk.options import Operation, Verdict
from manta.transports.errors import BlobRefused

GRACE = 900.0
"""Seconds for which a blob may stay unnamed: it is pushed before it is named."""
INTERVAL = 3600.0
RELEASED_GRACE, RELEASED_BYTES = 60.0, 256 << 20
"""Seconds for which a blob that was released may still be fetched, and how many bytes of such
blobs stay for longer than the shortest time."""
TOLD = 60.0
"""Seconds until it is logged again that somebody's quota is used up."""
LOOK = 2.0
"""Seconds between looks at the disk."""
AGAIN = 20.0
"""Seconds until blobs that nothing names are looked for again, where there were none."""
NEWEST = 60.0
"""Seconds for which a blob that nothing names stays on a disk that is nearly full."""
SHORTEST = 5.0
"""Seconds for which even they stay, and between two looks at them."""


REFUSED = 5.0
"""Seconds after which a blob that was refused is no longer missed: a node pushes it again each
second, and a user is told the reason at once."""


class _Released(NamedTuple):
    at: float
    wall: float
    size: int


class _SweepReleased(msgspec.Struct, frozen=True):
    pass


class _NoRoom(msgspec.Struct, frozen=True):
    why: str


class _LookForRoom(msgspec.Struct, frozen=True):
    pass


class _LookAtDisk(msgspec.Struct, frozen=True):
    pass


class _Pushed(msgspec.Struct, frozen=True):
    """Something comes that nothing names yet."""


class Blobs(Actor):
    def __init__(self, context: Context) -> None:
        self._context = context
        self._told: dict[str, float] = {}
        """When it was last logged that a user or node has used up a quota."""

    def on_start(self) -> None:
        context = self._context
        self._bulk = CurveBulk(context.keys, context.depot)
        try:
            self._bulk.listen(
                context.bulk.address,
                context.bulk_admission,
                self._verdict,
                pushed=self._pushed,
                fd=context.bulk.fd,
            )
        except BaseException:
            self._bulk.close()
            raise
        self._refused_at: float | None = None
        """When a blob was last refused for lack of room; None if that is long ago."""
        self._waits = ""
        """What waits on the nodes for want of room."""
        for what in ("blobs", "said"):
            self._note_trouble(what, "")
        context.depot.on_refused = lambda why: self.notify(self.ref, _NoRoom(why))
        self._sweep_due: Timer | None = None  # type: ignore[type-arg]
        self._released: dict[str, _Released] = {}
        """The longest first."""
        self._released_bytes = 0
        self._sweep_after(GRACE)
        self._makes_room, self._next_room = False, self.clock.now()
        self._look_at_disk()

    def on_stop(self, reason: ExitReason) -> None:
        self._bulk.close()

    def _verdict(self, key: str, operation: Operation, digest: str, size: int) -> Verdict:
        """Called on the bulk thread. Raises BlobRefused for what is more than the quotas allow."""
        who, context = self._context.principals.of(key), self._context
        verdict = context.access.verdict(who, operation, digest)
        if operation == "push" and verdict is not Verdict.REFUSED:
            # What is pushed is about to be named. Who does not know that it is here is told of
            # his quota as if it were not.
            is_here = context.holds(digest)
            if not is_here or verdict is Verdict.UNPROVEN:
                self._count_push(who, digest, size)
        return verdict

    def _count_push(self, who: Principal, digest: str, size: int) -> None:
        """Raises BlobRefused."""
        now = self.clock.now()
        try:
            self._context.quotas.push(who.id, f"The {who.kind} {who.name}", digest, size, now)
        except BlobRefused as refusal:
            if now > self._told.get(who.id, -math.inf) + TOLD:  # a node tries each second
                self._told[who.id] = now
                self.log.warning("%s", refusal)
            raise
        self.notify(self.ref, _Pushed())

    def _pushed(self, key: str, digest: str) -> None:
        """Called on the bulk thread."""
        self._context.access.lend(self._context.principals.of(key), digest)

    def receive(self, message: object) -> object:
        match message:
            case Sweep():
                # A blob that is not named yet is looked at again.
                self._sweep_after(GRACE)
                reply = self.defer()
                swept = self._context.workers.submit(self._sweep)
                self.pipe(swept, partial(self._swept, reply), reply=reply)
            case SweepLater(blobs):
                self._release(blobs)
            case _NoRoom(why):
                self._no_room(why)
            case _LookForRoom():
                self._look_for_room()
            case _LookAtDisk():
                self._look_at_disk()
            case _Pushed():
                self._sweep_within(GRACE)
            case _SweepReleased():
                self._sweep_released()
            case _:
                return super().receive(message)
        return None

    def _sweep_after(self, delay: float) -> None:
        if self._sweep_due is not None:
            self._sweep_due.cancel()
        self._sweep_due = self.after(delay, Sweep())

    def _sweep_within(self, delay: float) -> None:
        due = self._sweep_due
        if due is None or due.deadline > self.clock.now() + delay:
            self._sweep_after(delay)

    def _unnamed(self) -> list[tuple[float, str]]:
        """Since when nobody has named each blob that is here, the longest first."""
        context, found = self._context, []
        for digest in context.reader.unreferenced(context.depot):
            try:
                found.append((os.stat(context.depot.place(digest)).st_mtime, digest))
            except FileNotFoundError:
                continue
        return sorted(found)

    def _delete(self, digest: str, before: float) -> bool:
        """Deletes a blob that nothing names, unless somebody is about to name it."""
        depot = self._context.depot
        try:
            touched = os.stat(depot.place(digest)).st_mtime
        except FileNotFoundError:
            return False
        return touched <= before and depot.delete(digest)

    def _sweep(self) -> tuple[int, int]:
        """Runs on a worker; returns how many blobs were deleted and how many may be later."""
        context, unnamed = self._context, self._unnamed()
        before = time.time() - GRACE
        old = [digest for at, digest in unnamed if at < before]
        deleted = [digest for digest in old if self._delete(digest, before)]
        context.quotas.ledger.gone(deleted)
        left = {digest for _, digest in unnamed} - set(deleted)
        late = self.clock.now() - GRACE
        coming = context.quotas.ledger.coming(late, left, context.depot.__contains__)
        return len(deleted), len(left) + coming

    def _look_at_disk(self) -> None:
        """Where the disk is nearly full, what nothing names goes first."""
        self.after(LOOK, _LookAtDisk())
        disk = self._context.disk
        waits = "" if disk.takes_lines else "Log lines wait on their nodes"
        if not disk.takes_entries:
            waits = "What tasks say waits on their nodes"
        if waits != self._waits:
            self._waits = waits
            told = (
                f"{waits}: the disk has {text.size(disk.free)} free, which are kept for the "
                "database; free some space."
            )
            self.log.warning("%s", told if waits else "what tasks say and log is stored again")
            self._note_trouble("said", told if waits else "")
        if disk.lacks:
            self._begin_to_make_room(lambda: bool(disk.lacks))

    def _begin_to_make_room(self, wanted: Callable[[], bool]) -> None:
        if not self._makes_room and self.clock.now() >= self._next_room:
            self._makes_room = True
            made = self._context.workers.submit(partial(self._make_room, wanted))
            self.pipe(made, self._made_room)

    def _make_room(self, wanted: Callable[[], bool]) -> int:
        """Runs on a worker; returns how many blobs were deleted, as long as more were wanted."""
        context, before = self._context, time.time() - NEWEST
        deleted: list[str] = []
        for at, digest in self._unnamed():
            if at > before or not wanted():
                break
            if self._delete(digest, before):
                deleted.append(digest)
        context.quotas.ledger.gone(deleted)
        return len(deleted)

    def _made_room(self, deleted: int | None, error: BaseException | None) -> None:
        self._makes_room = False
        if error is not None:
            self.log.warning("blobs that nothing names are not deleted: %s", error)
        elif deleted:
            said = "the disk is nearly full: deleted %d blobs that nothing names"
            self.log.warning(said, deleted)
        if not deleted:  # looking for them takes long where there are many
            self._next_room = self.clock.now() + AGAIN

    def _no_room(self, why: str) -> None:
        """What is pushed again and again keeps somebody waiting."""
        self._begin_to_make_room(lambda: True)
        if self._refused_at is None:
            self.after(REFUSED, _LookForRoom())
        elif not self._context.troubles.get("blobs"):
            sentence = f"A value was refused: {why}."
            self.log.error("%s", sentence)
            self._note_trouble("blobs", sentence)
        self._refused_at = self.clock.now()

    def _look_for_room(self) -> None:
        assert self._refused_at is not None
        left = self._refused_at + REFUSED - self.clock.now()
        if left > 0:
            self.after(left, _LookForRoom())
            return
        self._refused_at = None
        if self._context.troubles.get("blobs"):
            self.log.warning("no value is refused any more")
            self._note_trouble("blobs", "")

    def _note_trouble(self, what: str, trouble: str) -> None:
        self._context.note_trouble(what, trouble)
        for cluster_id in list(self._context.clusters):
            self.notify(cluster_path(cluster_id), Noticed())

    def _release(self, blobs: tuple[BlobRef, ...]) -> None:
        if blobs and not self._released:
            self.after(SHORTEST, _SweepReleased())
        now, wall = self.clock.now(), time.time()
        for blob in blobs:
            self._take_released(blob.digest)
            self._released[blob.digest] = _Released(now, wall, blob.size)
            self._released_bytes += blob.size

    def _take_released(self, digest: str) -> None:
        released = self._released.pop(digest, None)
        if released is not None:
            self._released_bytes -= released.size

    def _sweep_released(self) -> None:
        now, due = self.clock.now(), {}
        for digest, released in list(self._released.items()):
            age = now - released.at
            too_many = self._released_bytes > RELEASED_BYTES and age >= SHORTEST
            if age < RELEASED_GRACE and not too_many:
                break
            self._take_released(digest)
            due[digest] = released.wall
        if self._released:
            self.after(SHORTEST, _SweepReleased())
        if due:
            swept = self._context.workers.submit(partial(self._delete_released, due))
            self.pipe(swept, self._swept_released)

    def _delete_released(self, released: dict[str, float]) -> int:
        """Runs on a worker. `released`: since when nobody has named them, as far as we know;
        returns how many are left to another sweep."""
        depot, left = self._context.depot, 0
        for digest in self._context.reader.unreferenced(released):
            if self._delete(digest, released[digest]):
                self._context.quotas.ledger.gone((digest,))
            elif digest in depot:  # somebody is about to name it again
                left += 1
        return left

    def _swept_released(self, left: int | None, error: BaseException | None) -> None:
        if error is not None:
            self.log.warning("blobs that were released are not deleted yet: %s", error)
        due = self._sweep_due
        if left != 0 and (due is None or due.deadline > self.clock.now() + GRACE):
            self._sweep_after(GRACE)

    def _swept(self, reply: Reply, counts: tuple[int, int]) -> None:
        deleted, left = counts
        if left:
            self._sweep_within(GRACE)
        if deleted:
            self.log.info("deleted %d blobs that nobody needs", deleted)
        if not left:
            self._sweep_after(INTERVAL)
        reply.set(deleted)
