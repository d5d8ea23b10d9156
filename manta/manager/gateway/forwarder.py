"""Passes requests on to the actors that answer them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

from manta.actors import (
    Actor,
    ActorCrashed,
    ActorDead,
    AskTimeout,
    MailboxFull,
    Refused,
    Reply,
)
from manta.manager.context import cluster_path, swarm_path
from manta.manager.directory import SwarmEntry
from manta.manager.messages import CheckPeer, FromNode, FromUser, LoadSwarm
from manta.protocol.codes import Code
from manta.transports.errors import LocalTransportError

TIMEOUT = 30.0
"""Seconds in which an actor has to answer, in addition to the wait of a long poll."""


class Forwarder:
    """Asks whichever actor lives at a path now, and passes its answer back."""

    def __init__(self, actor: Actor) -> None:
        self._actor = actor

    def answer(self, reply: Reply, answer: object) -> None:
        """May be called on any thread. An answer that is too large to send is only logged."""
        try:
            reply.set(answer)
        except LocalTransportError as error:
            self._actor.log.warning("a %s was not sent: %s", type(answer).__name__, error)

    def ask(
        self,
        path: str,
        message: object,
        reply: Reply,
        answer: Callable[[Any], object] = lambda result: result,
        wait: float = 0.0,
    ) -> None:
        """Replies with `answer(result)`, where the actor at the path returned `result`.

        `answer` runs on that actor's thread and may raise Refused.
        """

        def done(future: Future[Any]) -> None:
            try:
                result = answer(future.result())
            except Exception as error:
                reply.fail(as_refusal(error))
            else:
                self.answer(reply, result)

        future = self._actor.system.ref(path).ask_future(message, timeout=wait + TIMEOUT)
        future.add_done_callback(done)

    def ask_swarm(
        self,
        entry: SwarmEntry,
        request: FromNode | FromUser | CheckPeer,
        reply: Reply,
        answer: Callable[[Any], object] = lambda result: result,
        wait: float = 0.0,
    ) -> None:
        """Like `ask`, but starts the swarm's actor first if it has ended."""
        path = swarm_path(entry.cluster_id, entry.id)
        ask = partial(self.ask, path, request, reply, answer, wait)
        try:
            self._actor.system.find(path)
        except ActorDead:
            self.load(entry, ask, reply.fail)
        else:
            ask()

    def load(
        self,
        entry: SwarmEntry,
        then: Callable[[], object],
        fail: Callable[[BaseException], object],
    ) -> None:
        """Starts the actor of a swarm that is over; such an actor ends when nobody uses it."""

        def done(future: Future[Any]) -> None:
            error = future.exception()
            if error is None:
                then()
            else:
                fail(as_refusal(error))

        future = self._actor.system.ref(cluster_path(entry.cluster_id)).ask_future(
            LoadSwarm(entry.id), timeout=TIMEOUT
        )
        future.add_done_callback(done)


def as_refusal(error: BaseException) -> BaseException:
    if isinstance(error, ActorDead | AskTimeout | MailboxFull):
        crashed = "crashed over this and " if isinstance(error, ActorCrashed) else ""
        return Refused(
            Code.UNAVAILABLE,
            f"The part of the manager that answers this {crashed}is being restarted or busy; "
            "ask again in a moment.",
        )
    return error
