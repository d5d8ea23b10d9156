"""What happens in rounds: their requests, carried out once each, and their ends."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from manta.light.wire import BrokenFrame
from manta.node import light_requests as requests
from manta.node import light_wire as wire
from manta.node.light_outcomes import cancelled, died, failed
from manta.node.light_requests import Error, failure
from manta.node.light_sessions import Message, Round, Sessions
from manta.node.session import Request, RoundEnded
from manta.protocol.node import TaskError
from manta.protocol.values import Payload
from manta.transports.errors import BulkError

if TYPE_CHECKING:
    from manta.node.light_memory import TaskMemory
    from manta.node.light_peer import Peer
    from manta.node.light_server import TaskServer

MAX_ABANDONED = 100
"""Requests of a round whose answer it did not wait for; each may be held until its end."""


class RoundDesk:
    """The part of a TaskServer that deals with rounds; on its thread."""

    def __init__(self, sessions: Sessions, memory: TaskMemory, server: TaskServer) -> None:
        self._sessions = sessions
        self._memory = memory
        self._server = server
        self._peers: dict[Round, Peer] = {}

    # Connections.

    def connected(self, round_: Round, peer: Peer) -> None:
        former = self._peers.pop(round_, None)
        if former is not None:
            self._server.close(former)
        self._peers[round_] = peer
        if round_.started is None:
            round_.started = time.monotonic()
            round_.close_ends()
            self.tell_early(round_)

    def disconnected(self, round_: Round, peer: Peer) -> None:
        if self._peers.get(round_) is peer:
            del self._peers[round_]

    def tell_early(self, round_: Round) -> None:
        """What was printed before there was a round to attribute it to: before its own lines."""
        session = round_.session
        if session.mode == "spawn" and session.why:
            sentence = f"The module is imported anew in each round, because {session.why}."
            round_.emit([("info", time.time(), sentence)])
            session.why = ""
        for stream in session.streams:
            session.early.extend(stream.read())
        round_.emit(list(session.early))
        session.early.clear()
        self._server.deliver(session)

    # Requests.

    def handle(self, round_: Round, peer: Peer, message: wire.FromRound) -> None:
        """Raises BrokenFrame."""
        if message.n < round_.last:
            raise BrokenFrame(f"request {message.n} does not follow {round_.last}.")
        if message.n == round_.last:  # sent again after a reconnect
            if round_.answer is not None:
                self._server.send(peer, *round_.answer)
            return
        if message.n > round_.last + 1 or (round_.last and round_.answer is None):
            # A signal took the task out of its request, before or after it left.
            round_.abandoned += 1
            if round_.abandoned > MAX_ABANDONED:
                raise BrokenFrame(
                    f"request {message.n} before {round_.last} was answered, "
                    f"for the {round_.abandoned}th time."
                )
        round_.last = message.n
        if round_.answer is not None:  # else what came with the abandoned one is still in use
            self._sessions.unpin(round_.pins)
        round_.answer = None
        if isinstance(message, wire.Memory):
            self._hand_out(round_, message)
            return
        value = message.output if isinstance(message, wire.End) else getattr(message, "value", None)

        def then(server: TaskServer, payload: Payload | None, error: Error | None) -> None:
            server.rounds.go_on(round_, message, payload, error)

        self._memory.take_in(round_, value, then, self._server)

    def go_on(
        self,
        round_: Round,
        message: wire.Ask | wire.End,
        payload: Payload | None,
        error: Error | None,
    ) -> None:
        """The value that came along, if any, is a payload now."""
        if round_.ended:  # cancelled meanwhile
            self._sessions.unpin(round_.pins)
        elif error is not None:
            if round_.last == message.n:
                self._answer(round_, [failure(message.n, error)])
        elif isinstance(message, wire.End):
            self._end(round_, message, payload)
        else:
            self._ask(round_, message, payload)

    def _hand_out(self, round_: Round, message: wire.Memory) -> None:
        try:
            fd = self._memory.hand_out(round_, message.n, message.size)
        except OSError as error:
            sentence = f"No memory for a value of {message.size} bytes: {error}."
            self._answer(round_, [failure(message.n, ("ResourceExhaustionError", sentence))])
            return
        self._answer(round_, [({"k": "answer", "n": message.n, "memory": message.n}, [fd])])

    def _ask(self, round_: Round, message: wire.Ask, value: Payload | None) -> None:
        def answered(value: Any, error: Error | None) -> None:
            def job(server: TaskServer) -> None:
                server.rounds.answered(round_, message, value, error)

            self._sessions.post(job)

        session = round_.session
        body = requests.body(message, value)
        instance = round_.brief.instance
        self._server.tell(session, Request(session.id, instance, body, requests.Reply(answered)))

    def answered(self, round_: Round, message: wire.Ask, value: Any, error: Error | None) -> None:
        """The owner has answered."""
        if round_.last != message.n or round_.answer is not None or round_.ended:
            return
        if error is not None:
            self._answer(round_, [failure(message.n, error)])
            return
        messages = requests.answer(message, value)
        try:
            for digest in requests.blobs(messages):
                self._sessions.depot.pin(digest)
                round_.pins.append(digest)
        except BulkError as missing:
            messages = [failure(message.n, ("RequestFailed", f"{missing}."))]
        self._answer(round_, messages)

    def _answer(self, round_: Round, messages: list[Message]) -> None:
        """Answer the latest request."""
        round_.answer = messages
        peer = self._peers.get(round_)
        if peer is not None:
            self._server.send(peer, *messages)

    # Ends.

    def _end(self, round_: Round, message: wire.End, output: Payload | None) -> None:
        self._drain(round_)
        error = None if message.error is None else failed(message.error, round_.tail)
        if round_.cancelled is not None:
            error = cancelled(round_)
        self._ended(round_, output, error, message.computing, message.moving)
        self._answer(round_, [({"k": "answer", "n": message.n, "plain": None}, None)])

    def exited(self, round_: Round, status: int) -> None:
        """The process that ran it is gone."""
        if not round_.ended:
            self._drain(round_)
            computing = 0.0 if round_.started is None else time.monotonic() - round_.started
            self._ended(round_, None, died(round_, status), computing, 0.0)
        self.drop(round_)

    def _ended(
        self,
        round_: Round,
        output: Payload | None,
        error: TaskError | None,
        computing: float,
        moving: float,
    ) -> None:
        round_.ended = True
        session, instance = round_.session, round_.brief.instance
        event = RoundEnded(session.id, instance, output, error, computing, moving)
        self._server.tell(session, event)

    def drop(self, round_: Round) -> None:
        """Forget it."""
        round_.ended = True
        peer = self._peers.get(round_)
        if peer is not None:
            self._server.close(peer)
        self._server.unwatch(*round_.streams)
        self._sessions.remove_round(round_)

    @staticmethod
    def _drain(round_: Round) -> None:
        for stream in round_.streams:
            round_.emit(stream.drain())
