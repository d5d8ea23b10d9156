"""Work on other threads, for messages that are answered once it is done."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

from manta.actors import Refused, Reply
from manta.manager.gateway.part import Part, Shared
from manta.transports.security.admission import TokenBucket

T = TypeVar("T")


class Work(Part):
    """A refusal is logged with the key and the reason, but without what was presented.

    Refusals are logged at a bounded rate, so that strangers cannot fill the log with them.
    """

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared)
        self._lines = TokenBucket(rate=1.0, burst=100.0)
        self._unlogged = 0

    def run(
        self,
        what: str,
        key: str,
        job: Callable[[float], T],
        then: Callable[[T], None],
        reply: Reply,
        on: Executor | None = None,
    ) -> None:
        """Runs `job` on a worker, or another executor, then `then` in the actor."""
        now = self._actor.clock.wall()

        def done() -> T | Refused:
            try:
                return job(now)
            except Refused as refusal:
                return refusal

        def finish(found: T | Refused) -> None:
            try:
                if isinstance(found, Refused):
                    raise found
                then(found)
            except Refused as refusal:
                self.log(what, key, refusal)
                raise

        future = on.submit(done) if on else self._context.jobs.submit(key, done)
        self._actor.pipe(future, finish, reply=reply)

    def log(self, what: str, key: str, refusal: Refused) -> None:
        if not self._lines.take(self._actor.clock.now()):
            self._unlogged += 1
            return
        rest, self._unlogged = self._unlogged, 0
        more = f" ({rest} refusals before it were too many to be logged)" if rest else ""
        self._actor.log.warning(
            "%s by the key %s... was refused (%s): %s%s",
            *(what, key[:8], refusal.code, refusal.sentence, more),
        )
