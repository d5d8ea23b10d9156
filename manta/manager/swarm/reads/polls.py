"""Tasks that wait for others: long polls of the exchange, answered when there is an answer.

What is answered is durable: an answer that rests on an event which is still being stored
waits for that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import msgspec

from manta.actors import Actor, Refused, Reply, Timer
from manta.manager.errors import StoreError
from manta.manager.swarm.exchange import Topic
from manta.manager.swarm.reads.exchange import topic_of
from manta.protocol.codes import Code
from manta.protocol.exchange import Checkpoint, Exchanged, ExchangeRead, PeerInstances

Answer = Exchanged | PeerInstances | Checkpoint


@dataclass(eq=False)
class Waiting:
    read: ExchangeRead
    reply: Reply
    timer: Timer | None = None  # type: ignore[type-arg]


class ExchangeExpired(msgspec.Struct, frozen=True):
    poll: Waiting


class ExchangePolls:
    """`answer` reads the machine, `when_durable` calls back once all that it rests on is stored."""

    def __init__(
        self,
        actor: Actor,
        answer: Callable[[ExchangeRead], Answer],
        when_durable: Callable[[Callable[[StoreError | None], None]], None],
    ) -> None:
        self._actor = actor
        self._answer = answer
        self._when_durable = when_durable
        self._waiting: dict[Topic, list[Waiting]] = {}

    @property
    def idle(self) -> bool:
        return not self._waiting

    def open(self, read: ExchangeRead) -> None:
        poll = Waiting(read, self._actor.defer())
        wait = getattr(read, "wait", 0.0)
        if self._try(poll, last=not wait):
            return
        poll.timer = self._actor.after(wait, ExchangeExpired(poll))
        self._waiting.setdefault(topic_of(read), []).append(poll)

    def wake(self, topics: Iterable[Topic]) -> None:
        """These have changed; the empty topic stands for all."""
        changed = set(topics)
        if () in changed:
            changed = set(self._waiting)
        for topic in changed & self._waiting.keys():
            polls = self._waiting.pop(topic)
            left = [poll for poll in polls if not self._try(poll, last=False)]
            if left:
                self._waiting.setdefault(topic, []).extend(left)

    def expired(self, poll: Waiting) -> None:
        topic = topic_of(poll.read)
        polls = self._waiting.get(topic, [])
        if poll in polls:
            polls.remove(poll)
            if not polls:
                del self._waiting[topic]
            self._try(poll, last=True)

    def _try(self, poll: Waiting, *, last: bool) -> bool:
        if poll.reply.done:
            return True  # the asker is gone
        try:
            answer = self._answer(poll.read)
        except Refused as refusal:
            poll.reply.fail(refusal)
            return True
        if isinstance(answer, Exchanged) and not (answer.ready or answer.error or last):
            return False
        if poll.timer is not None:
            poll.timer.cancel()

        def stored(error: StoreError | None) -> None:
            if error is None:
                poll.reply.set(answer)
            else:
                poll.reply.fail(Refused(Code.UNAVAILABLE, f"{error} Ask again."))

        self._when_durable(stored)
        return True
