"""What tasks read of the manager: relayed when it is there, again when an answer is lost.

A read sees what the same attempt wrote before it: it waits until the manager has applied
that part of the journal, and so does who waits for that alone. Reads of the same global share
a fetch, but never join one that was sent before they asked: what any task has written by then
is in what they get.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec

from manta.actors import Actor, ActorError, Ref, Refused, Reply
from manta.node.journal.files import Journals
from manta.node.journal.swarm import Write
from manta.node.shared.messages import AskManager
from manta.protocol.codes import Code
from manta.protocol.exchange import Exchanged
from manta.protocol.node import Instance, ReadGlobal, ResultEntries

ASK_TIMEOUT = 30.0
AGAIN_AFTER = 0.5


class Relay(msgspec.Struct, frozen=True):
    """To the link itself: send the reads that wait, if they may be sent."""


class _Wait(msgspec.Struct):
    """Who waits until the manager has what an attempt wrote."""

    instance: Instance
    after: Write
    """The manager must have applied it."""
    reply: Reply


class _Read(_Wait):
    request: Any
    came: tuple[Any, ...] = ()
    """What former pages brought."""

    def whole(self, value: Any) -> Any:
        """Returns the answer with all its pages; None while some are missing."""
        if isinstance(value, ResultEntries):
            self.came += value.entries
            return None if value.more else ResultEntries(self.came)
        if isinstance(value, Exchanged):
            self.came += value.values
            return None if value.more else msgspec.structs.replace(value, values=self.came)
        return value


class ManagerReads:
    def __init__(self, actor: Actor, journals: Journals) -> None:
        self._gateway: Ref | None = None
        self._actor = actor
        self._journals = journals
        self._waiting: list[_Read] = []
        self._settling: list[_Wait] = []
        self._fetching: set[Any] = set()
        """Reads of globals that the manager has not answered yet."""

    def registered(self, gateway: Ref) -> None:
        self._gateway = gateway
        self.relay()

    def disconnected(self) -> None:
        """Later reads do not wait for answers that may never come."""
        self._gateway = None
        self._fetching.clear()

    def ask(self, ask: AskManager, reply: Reply) -> None:
        at = ask.instance
        self._waiting.append(_Read(at, self._journals.last_write(at), reply, ask.request))
        self.relay()

    def settle(self, at: Instance, reply: Reply) -> None:
        """Answers once the manager has applied what the attempt has written by now."""
        self._settling.append(_Wait(at, self._journals.last_write(at), reply))
        self.relay()

    def relay(self) -> None:
        """Answer those who waited for what has been applied, and send the reads that may be sent
        now."""
        settling, self._settling = self._settling, []
        for one in settling:
            if self._is_applied(one):
                one.reply.set(None)
            elif not one.reply.done:
                self._settling.append(one)
        if self._gateway is None or not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        fetches: dict[ReadGlobal, list[_Read]] = {}
        for read in waiting:
            request = read.request
            if read.reply.done:
                continue  # the asker gave up
            if not self._is_applied(read):
                self._waiting.append(read)
            elif not isinstance(request, ReadGlobal):
                self._send(request, [read])
            elif request in self._fetching:
                self._waiting.append(read)
            else:
                fetches.setdefault(request, []).append(read)
        for request, reads in fetches.items():
            self._fetching.add(request)
            self._send(request, reads)

    def _is_applied(self, one: _Wait) -> bool:
        return self._journals.is_acknowledged(one.instance.swarm_id, one.after)

    def _send(self, request: Any, reads: list[_Read]) -> None:
        """`reads` are a single one, or several of the same global."""
        assert self._gateway is not None
        if count := len(reads[0].came):
            request = msgspec.structs.replace(request, after=count)
        wait = getattr(request, "wait", 0.0)
        future = self._gateway.ask_future(request, timeout=ASK_TIMEOUT + wait)
        self._actor.pipe(future, partial(self._answered, reads))

    def _answered(self, reads: list[_Read], value: Any, error: BaseException | None) -> None:
        self._fetching.discard(reads[0].request)
        if isinstance(error, ActorError) and (
            not isinstance(error, Refused) or error.code == Code.UNAVAILABLE
        ):
            self._actor.log.warning("a read was not answered: %s; it is asked again", error)
            self._waiting += reads
            self._actor.after(AGAIN_AFTER, Relay())
            return
        for read in reads:
            if error is not None:
                read.reply.fail(error)
            elif (whole := read.whole(value)) is not None:
                read.reply.set(whole)
            else:
                self._waiting.append(read)
        self.relay()
