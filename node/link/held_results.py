"""What the manager asks and says of results that stay on this node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from manta.actors import Actor, Refused, Reply
from manta.node.blobs.held_results import HeldResults
from manta.node.journal.files import Journals
from manta.node.link.peer_hub import TRANSFER_TIMEOUT, Push
from manta.node.link.turns import Turns
from manta.node.shared.addresses import PEER_HUB
from manta.protocol.codes import Code
from manta.protocol.node import Ok
from manta.protocol.spread import FreedResults, FreeResults, PushResult
from manta.protocol.values import BlobRef


class HeldLink:
    def __init__(
        self,
        actor: Actor,
        held: HeldResults,
        journals: Journals,
        on_given: Callable[[str, BlobRef], object],
    ) -> None:
        """`on_given` is called with the swarm's id once the manager has a result from here."""
        self._actor = actor
        self._on_given = on_given
        self._journals = journals
        self._held = held
        self._turns = Turns()

    def push(self, message: PushResult, reply: Reply) -> None:
        """Raises Refused."""
        if not self._held.has(message.swarm_id, message.digest):
            raise Refused(Code.RESULT_AWAY, "it does not hold it any more.")

        def pushed(_: Any, error: BaseException | None) -> None:
            if error is None:
                self._on_given(message.swarm_id, blob)
                reply.set(Ok())
            else:
                reply.fail(error)

        blob = BlobRef(message.digest, message.size)
        future = self._actor.system.ref(PEER_HUB).ask_future(Push(blob), timeout=TRANSFER_TIMEOUT)
        self._actor.pipe(future, pushed)

    def delete(self, message: FreeResults, reply: Reply) -> None:
        """Users have deleted the results. Others with the same value, of which the manager has yet
        to hear, are looked for before it says that it has: it says so after this."""
        since, needed = self._held.needed(message.swarm_id)
        needed |= self._journals.held(message.swarm_id)

        def deleted(answer: Any, error: BaseException | None) -> None:
            reply.set(answer) if error is None else reply.fail(error)

        self._actor.pipe(self._held.soon(self._delete, message, since, needed), deleted)

    def _delete(self, message: FreeResults, since: int, needed: set[str]) -> FreedResults:
        """Not on the actor's thread."""
        kept = tuple(
            digest
            for digest in message.digests
            if digest in needed or not self._held.drop(message.swarm_id, digest, since)
        )
        return FreedResults(kept)

    def swarms(self) -> tuple[str, ...]:
        """What the next heartbeat names."""
        return self._turns.next(self._held.swarms)

    def free(self, swarms: tuple[str, ...]) -> None:
        for swarm_id in swarms:
            self._actor.log.info("the results of swarm %s go: it was removed", swarm_id)
            self._actor.pipe(self._held.soon(self._held.free, swarm_id), self._freed)

    def _freed(self, _: None, error: BaseException | None) -> None:
        if error is not None:
            self._actor.log.error("the results of a removed swarm do not go: %s", error)
