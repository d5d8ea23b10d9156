"""The actor that owns the bulk listener and deletes the blobs that nobody needs."""

from __future__ import annotations

import time
from functools import partial

from manta.actors import Actor, ExitReason, Reply, Timer
from manta.manager.auth.principals import Kind
from manta.manager.context import Context
from manta.manager.messages import Sweep, SweepLater
from manta.transports.bulk.curve import CurveBulk
from manta.transports.bulk.options import Operation

GRACE = 900.0
"""Seconds for which a blob may stay unnamed: it is pushed before it is named."""
INTERVAL = 3600.0


class Blobs(Actor):
    def __init__(self, context: Context) -> None:
        self._context = context

    def on_start(self) -> None:
        context = self._context
        self._bulk = CurveBulk(context.keys, context.depot)
        try:
            self._bulk.listen(
                context.bulk.address, context.bulk_admission, self._may, fd=context.bulk.fd
            )
        except BaseException:
            self._bulk.close()
            raise
        self._sweep_due: Timer | None = None  # type: ignore[type-arg]
        self._sweep_after(INTERVAL)

    def on_stop(self, reason: ExitReason) -> None:
        self._bulk.close()

    def _may(self, key: str, operation: Operation, digest: str) -> bool:
        """Called on the bulk thread. Every node and user that knows a digest may have the blob."""
        return self._context.principals.of(key).kind in (Kind.NODE, Kind.USER)

    def receive(self, message: object) -> object:
        match message:
            case Sweep():
                # A blob that is not named yet is looked at again.
                self._sweep_after(GRACE)
                reply = self.defer()
                swept = self._context.workers.submit(self._sweep)
                self.pipe(swept, partial(self._swept, reply), reply=reply)
            case SweepLater():
                if self._sweep_due is None or self._sweep_due.deadline > self.clock.now() + GRACE:
                    self._sweep_after(GRACE)
            case _:
                return super().receive(message)
        return None

    def _sweep_after(self, delay: float) -> None:
        if self._sweep_due is not None:
            self._sweep_due.cancel()
        self._sweep_due = self.after(delay, Sweep())

    def _sweep(self) -> tuple[int, int]:
        """Runs on a worker; returns how many blobs were deleted and how many may be later."""
        context = self._context
        deleted = left = 0
        for digest in context.reader.unreferenced(context.depot):
            path = context.depot.path(digest)
            try:
                age = time.time() - path.stat().st_mtime
            except FileNotFoundError:
                continue
            if age > GRACE:
                deleted += context.depot.delete(digest)
            else:
                left += 1
        return deleted, left

    def _swept(self, reply: Reply, counts: tuple[int, int]) -> None:
        deleted, left = counts
        if deleted:
            self.log.info("deleted %d blobs that nobody needs", deleted)
        if not left:
            self._sweep_after(INTERVAL)
        reply.set(deleted)
