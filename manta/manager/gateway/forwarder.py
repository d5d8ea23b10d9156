"""Passes requests on to the actors that answer them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

from manta.actors import (
    Actor,
    ActorDead,
    MailboxFull,
    Refused,
    Reply,
    StartChild,
    StopChild,
    Unanswered,
)
from manta.manager.cluster.clusters import cluster_spec
from manta.manager.context import CLUSTERS, Context, cluster_path, swarm_path
from manta.manager.directory import SwarmEntry
from manta.manager.messages import FromNode, FromUser, LoadSwarm
from manta.protocol.codes import Code
from manta.transports.errors import LocalTransportError

TRIES = 10
"""How often a message is given to a cluster that comes to rest just then."""
TIMEOUT = 30.0
"""Seconds in which an actor has to answer, in addition to the wait of a long poll."""


class Forwarder:
    """Asks whichever actor lives at a path now, and passes its answer back."""

    def __init__(self, actor: Actor, context: Context) -> None:
        self._actor = actor
        self._context = context

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
        unread: Callable[[], object] | None = None,
    ) -> None:
        """Replies with `answer(result)`, where the actor at the path returned `result`.

        `answer` runs on that actor's thread and may raise Refused. `unread` is called instead of
        failing the reply if the actor ended of itself before it read the message.
        """

        def done(future: Future[Any]) -> None:
            if unread is not None and _is_unread(future.exception()):
                unread()
                return
            try:
                result = answer(future.result())
            except Exception as error:
                reply.fail(as_refusal(error))
            else:
                self.answer(reply, result)

        future = self._actor.system.ref(path).ask_future(message, timeout=wait + TIMEOUT)
        future.add_done_callback(done)

    def ask_cluster(
        self,
        cluster_id: str,
        message: object,
        reply: Reply,
        answer: Callable[[Any], object] = lambda result: result,
        tries: int = TRIES,
    ) -> None:
        """Like `ask`, but starts the cluster's actor and asks again if the cluster is at rest."""

        def unread() -> None:
            again = partial(self.ask_cluster, cluster_id, message, reply, answer, tries - 1)
            self.wake(cluster_id, again, reply.fail, is_ending=True)

        path = cluster_path(cluster_id)
        self.ask(path, message, reply, answer, 0.0, unread if tries > 1 else None)

    def rests(self, cluster_id: str) -> bool:
        """Whether the cluster has no actor: then nobody changes its view."""
        try:
            self._actor.system.find(cluster_path(cluster_id))
        except ActorDead:
            return True
        return False

    def wake(
        self,
        cluster_id: str,
        then: Callable[[], object],
        fail: Callable[[BaseException], object] = lambda _: None,
        *,
        is_ending: bool = False,
    ) -> None:
        """Calls `then` once the cluster has an actor, or `fail`. `is_ending`: the one that can be
        found may have ended already."""
        if not is_ending and not self.rests(cluster_id):
            then()
            return

        def done(future: Future[Any]) -> None:
            error = future.exception()
            if error is None or getattr(error, "code", "") == "already_started":
                then()
            elif isinstance(error, Refused):
                sentence = f"The cluster cannot be served now: {error.sentence}"
                fail(Refused(Code.UNAVAILABLE, sentence))
            else:
                fail(as_refusal(error))

        start = StartChild(cluster_spec(self._context, cluster_id))
        self._actor.system.ref(CLUSTERS).ask_future(start, timeout=TIMEOUT).add_done_callback(done)

    def end_cluster(self, cluster_id: str, then: Callable[[], object]) -> None:
        """Ends the cluster's actor, if it has one; it was deleted."""
        future = self._actor.system.ref(CLUSTERS).ask_future(StopChild(cluster_id), timeout=TIMEOUT)
        future.add_done_callback(lambda _: then())

    def ask_swarm(
        self,
        entry: SwarmEntry,
        request: FromNode | FromUser,
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
        tries: int = TRIES,
    ) -> None:
        """Starts the actor of a swarm that is over; such an actor ends when nobody uses it."""

        def done(future: Future[Any]) -> None:
            error = future.exception()
            if error is None:
                then()
            elif tries > 1 and _is_unread(error):
                self.load(entry, then, fail, tries - 1)
            else:
                fail(as_refusal(error))

        def ask() -> None:
            cluster = self._actor.system.ref(cluster_path(entry.cluster_id))
            future = cluster.ask_future(LoadSwarm(entry.id), timeout=TIMEOUT)
            future.add_done_callback(done)

        self.wake(entry.cluster_id, ask, fail, is_ending=tries < TRIES)


def _is_unread(error: BaseException | None) -> bool:
    """Whether the message came to an actor that had ended."""
    return isinstance(error, ActorDead) and not isinstance(error, Unanswered)


def as_refusal(error: BaseException) -> BaseException:
    """What may have been carried out stays an error that says so: nobody is to ask it again."""
    if _is_unread(error) or isinstance(error, MailboxFull):
        return Refused(
            Code.UNAVAILABLE,
            "The part of the manager that answers this is being restarted or busy; ask again in "
            "a moment.",
        )
    return error
