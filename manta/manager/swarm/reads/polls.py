"""Answers long polls of tasks that wait for other tasks.

An answer that rests on an event which is still being stored waits until it is durable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from manta.actors import Refused, Reply
from manta.manager.errors import StoreError
from manta.manager.long_polls import LongPolls
from manta.manager.swarm.exchange import Topic
from manta.manager.swarm.reads.exchange import topic_of
from manta.protocol.codes import Code
from manta.protocol.exchange import Checkpoint, Exchanged, ExchangeRead, PeerInstances

Answer = Exchanged | PeerInstances | Checkpoint


@dataclass
class ExchangePolls:
    """`answer` reads the machine; `when_durable` calls back once all its events are stored."""

    polls: LongPolls[Topic]
    answer: Callable[[ExchangeRead], Answer]
    when_durable: Callable[[Callable[[StoreError | None], None]], None]

    def open(self, read: ExchangeRead, reply: Reply) -> None:
        wait = getattr(read, "wait", 0.0)
        self.polls.open(topic_of(read), reply, wait, lambda last: self._try(read, reply, last))

    def wake(self, topics: Iterable[Topic]) -> None:
        """Call it when these have changed; the empty topic stands for all."""
        changed = set(topics)
        if () in changed:
            self.polls.wake_all()
        else:
            self.polls.wake(*changed)

    def _try(self, read: ExchangeRead, reply: Reply, last: bool) -> bool:
        try:
            answer = self.answer(read)
        except Refused as refusal:
            reply.fail(refusal)
            return True
        if isinstance(answer, Exchanged) and not (answer.ready or answer.error or last):
            return False

        def stored(error: StoreError | None) -> None:
            if error is None:
                reply.set(answer)
            else:
                reply.fail(Refused(Code.UNAVAILABLE, f"{error} Ask again."))

        self.when_durable(stored)
        return True
