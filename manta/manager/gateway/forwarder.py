"""How the Gateway passes requests on: to the actor that lives at a path at that moment."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
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
"""Seconds that an actor of this process has to answer, beyond what the message itself waits."""


class Forwarder:
    """Passes requests on to other actors, and their answers back."""

    def __init__(self, actor: Actor) -> None:
        self._actor = actor

    def tell(self, path: str, message: object) -> None:
        try:
            self._actor.system.find(path).tell(message)
        except (ActorDead, MailboxFull) as error:
            # State is level-triggered: it is told again, or read from the store.
            self._actor.log.debug("%s was not told of %s: %s", path, type(message).__name__, error)

    def answer(self, reply: Reply, answer: object) -> None:
        """On any thread. An answer that is too large is the asker's trouble, not ours."""
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
        """Answer with what `answer` makes of what the actor at the path answers.

        `answer` runs on that actor's thread; it may raise Refused.
        """

        def done(future: Future[Any]) -> None:
            error = future.exception()
            if error is not None:
                reply.fail(as_refusal(error))
                return
            try:
                result = answer(future.result())
            except Refused as refusal:
                reply.fail(refusal)
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
        """As `ask`; starts the swarm's actor first if it has ended."""
        path = swarm_path(entry.cluster_id, entry.id)

        def ask() -> None:
            self.ask(path, request, reply, answer, wait)

        try:
            self._actor.system.find(path)
        except ActorDead:
            self.load(entry, ask, reply.fail)
        else:
            ask()

    def load(
        self,
        entry: SwarmEntry,
        then: Callable[[], None],
        fail: Callable[[BaseException], object],
    ) -> None:
        """Start the actor of a swarm: once the swarm is over it ends when nobody asks for it."""

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
