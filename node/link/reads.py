"""What tasks read of the manager: relayed when it is there, again when an answer is lost.

A read sees what the same attempt wrote before it: it waits until the manager has applied
that part of the journal.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec

from manta.actors import Actor, ActorError, Ref, Refused, Reply
from manta.node.journal.files import Journals
from manta.node.wiring.messages import AskManager
from manta.protocol.codes import Code
from manta.protocol.exchange import Contribution, Exchanged
from manta.protocol.node import ResultEntries, ResultEntry

ASK_TIMEOUT = 30.0
AGAIN_AFTER = 0.5


class Relay(msgspec.Struct, frozen=True):
    """To the link itself: try what waits."""


class _Read(msgspec.Struct):
    ask: AskManager
    after: int
    """Entry of the journal that the manager must have applied."""
    reply: Reply
    entries: tuple[ResultEntry, ...] = ()
    """Those of the pages that came already."""
    contributions: tuple[Contribution, ...] = ()
    """Likewise."""


class ManagerReads:
    def __init__(self, actor: Actor, journals: Journals) -> None:
        self.gateway: Ref | None = None
        """None while the node is not registered."""
        self._actor = actor
        self._journals = journals
        self._waiting: list[_Read] = []

    def ask(self, ask: AskManager, reply: Reply) -> None:
        self._waiting.append(_Read(ask, self._journals.last_write(ask.instance), reply))
        self.relay()

    def relay(self) -> None:
        """Something has changed: a connection, an acknowledgement."""
        if self.gateway is None or not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        for read in waiting:
            if read.reply.done:
                continue  # the asker gave up
            if self._journals.acknowledged(read.ask.instance.swarm_id) < read.after:
                self._waiting.append(read)
                continue
            request = read.ask.request
            if count := len(read.entries) or len(read.contributions):
                request = msgspec.structs.replace(request, after=count)
            wait = getattr(request, "wait", 0.0)
            future = self.gateway.ask_future(request, timeout=ASK_TIMEOUT + wait)
            self._actor.pipe(future, partial(self._answered, read))

    def _answered(self, read: _Read, value: Any, error: BaseException | None) -> None:
        if isinstance(value, ResultEntries):
            read.entries += value.entries
            if value.more:
                self._waiting.append(read)
                self.relay()
                return
            value = ResultEntries(read.entries)
        elif isinstance(value, Exchanged) and value.more:
            read.contributions += value.values
            self._waiting.append(read)
            self.relay()
            return
        elif isinstance(value, Exchanged) and read.contributions:
            value = msgspec.structs.replace(value, values=read.contributions + value.values)
        if error is None:
            read.reply.set(value)
        elif isinstance(error, ActorError) and (
            not isinstance(error, Refused) or error.code == Code.UNAVAILABLE
        ):
            self._actor.log.warning("a read was not answered: %s; it is asked again", error)
            self._waiting.append(read)
            self._actor.after(AGAIN_AFTER, Relay())
        else:
            read.reply.fail(error)
