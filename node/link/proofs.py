"""Whether bytes that are here of one swarm are a result of another one, which a node says to hold.

Whoever knows a digest may say that it holds such a result. So the holder has to send it to the
manager; that it is here shows nothing. This is rare: the same value in two swarms.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from manta.actors import Actor, Refused, Reply
from manta.protocol.codes import Code
from manta.protocol.spread import WantBlob
from manta.protocol.values import BlobRef

AGAIN = 1.0
"""Seconds until the manager is asked again, at most."""
PATIENCE = 900.0
"""Seconds in which the manager must have said it."""

Ask = Callable[[WantBlob, Callable[[Any, BaseException | None], None]], None]


class ProveAgain(msgspec.Struct, frozen=True):
    """To the actor itself."""

    question: WantBlob


class _Wanted(msgspec.Struct):
    replies: list[Reply]
    until: float


class Proofs:
    def __init__(self, actor: Actor, ask: Ask, proven: Callable[[str, BlobRef], None]) -> None:
        """`proven` is told of swarm and blob."""
        self._actor = actor
        self._ask = ask
        self._proven = proven
        self._wanted: dict[WantBlob, _Wanted] = {}

    def want(self, swarm_id: str, blob: BlobRef, holder: str, reply: Reply) -> None:
        """Replies once it is known to be the swarm's; fails with Refused."""
        question = WantBlob(swarm_id, blob.digest, blob.size, holder=holder, recall=True)
        if (wanted := self._wanted.get(question)) is not None:
            wanted.replies.append(reply)
            return
        self._wanted[question] = _Wanted([reply], self._actor.clock.now() + PATIENCE)
        self.request(question)

    def request(self, question: WantBlob) -> None:
        def answered(found: Any, error: BaseException | None) -> None:
            late = self._actor.clock.now() >= self._wanted[question].until
            if error is None and found.wait <= 0:
                self._proven(question.swarm_id, BlobRef(question.digest, question.size))
                self._ended(question, None)
            elif isinstance(error, Refused) and error.code != Code.UNAVAILABLE:
                self._ended(question, error)
            elif late:
                said = f"the manager has not said within {PATIENCE:g} s who has this value"
                self._ended(question, Refused(Code.RESULT_AWAY, f"{said}; read it again later."))
            else:
                self._actor.after(AGAIN, ProveAgain(question))

        self._ask(question, answered)

    def _ended(self, question: WantBlob, error: BaseException | None) -> None:
        for reply in self._wanted.pop(question).replies:
            if error is None:
                reply.set(None)
            else:
                reply.fail(error)
