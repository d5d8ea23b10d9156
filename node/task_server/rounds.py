"""What happens in rounds: their requests, carried out once each, and their ends."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from manta.light.wire import MAX_CHANNELS, BrokenFrame
from manta.node.task_server import wire
from manta.node.task_server.answers import answer, blobs, failure
from manta.node.task_server.messages import RoundEnded
from manta.node.task_server.outcomes import cancelled, died, failed, unkept, unreadable
from manta.node.task_server.requests import Body, Error, Reply, Request
from manta.node.task_server.sessions import Channel, Message, Round, Session, Sessions
from manta.protocol.node import TaskError
from manta.protocol.values import Payload
from manta.transports.errors import BulkError

if TYPE_CHECKING:
    from manta.node.task_server.peer import Peer
    from manta.node.task_server.streams import Stream
    from manta.node.task_server.values import TaskValues

MAX_ABANDONED = 100
"""Requests of a round under way at a time whose answer it does not wait for."""


class Server(Protocol):
    """What deals with the connections and owners of the rounds."""

    rounds: RoundDesk

    def send(self, peer: Peer, *messages: Message) -> None: ...

    def close(self, peer: Peer) -> None: ...

    def tell(self, session: Session, event: Any) -> None: ...

    def deliver(self, session: Session) -> None: ...

    def unwatch(self, *streams: Stream) -> None: ...


class RoundDesk:
    """The part of a TaskServer that deals with rounds; on its thread."""

    def __init__(self, sessions: Sessions, values: TaskValues, server: Server) -> None:
        self._sessions = sessions
        self._values = values
        self._server = server
        self._peers: dict[Channel, Peer] = {}

    # Connections.

    def connected(self, round_: Round, number: int, peer: Peer) -> None:
        """The round's channel of that number. Raises BrokenFrame."""
        channel = peer.role = round_.channels.get(number) or Channel(round_)
        if number not in round_.channels and len(round_.channels) >= MAX_CHANNELS:
            raise BrokenFrame(f"more than {MAX_CHANNELS} requests at a time.")
        round_.channels[number] = channel
        former = self._peers.pop(channel, None)
        if former is not None:
            self._server.close(former)
        self._peers[channel] = peer

    def disconnected(self, channel: Channel, peer: Peer) -> None:
        if self._peers.get(channel) is peer:
            del self._peers[channel]

    def begin(self, session: Session) -> None:
        """The session's next round, if one waits.

        What was printed before there was a round to attribute it to comes before its own lines.
        """
        round_ = session.running
        if round_ is None or round_.started is not None:
            return
        round_.started = time.monotonic()
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

    def handle(self, channel: Channel, peer: Peer, message: wire.FromRound) -> None:
        """Raises BrokenFrame."""
        if message.n < channel.last:
            raise BrokenFrame(f"request {message.n} does not follow {channel.last}.")
        if message.n == channel.last:  # sent again after a reconnect
            if channel.answer is not None:
                self._server.send(peer, *channel.answer)
            return
        if channel.last and channel.answer is None:  # a signal took the task out of its request
            self._abandoned(channel, message.n)
        channel.last = message.n
        if channel.answer is not None:  # else what came with the abandoned one is still in use
            self._sessions.unpin(channel.pins)
        channel.answer = channel.reply = None
        if isinstance(message, wire.Memory):
            self._hand_out(channel, message)
            return
        value = getattr(message, "value", None)

        def then(server: Server, payload: Payload | None, error: Error | None) -> None:
            server.rounds.go_on(channel, message, payload, error)

        self._values.take_in(channel, value, then, self._server)

    @staticmethod
    def _abandoned(channel: Channel, number: int) -> None:
        channel.round.abandoned += 1
        if channel.round.abandoned > MAX_ABANDONED:
            raise BrokenFrame(
                f"request {number} before {channel.last} and {MAX_ABANDONED} others were answered."
            )
        if channel.reply is not None:
            channel.reply.abandoned = True

    def go_on(
        self,
        channel: Channel,
        message: Body,
        payload: Payload | None,
        error: Error | None,
    ) -> None:
        """The value that came along, if any, is a payload now."""
        if channel.round.ended:  # cancelled meanwhile
            self._sessions.unpin(channel.pins)
        elif error is not None:
            if channel.last == message.n:
                self._answer(channel, [failure(message.n, error)])
            else:
                channel.round.abandoned -= 1
        else:
            if payload is not None:
                message = msgspec.structs.replace(message, value=payload)
            self._ask(channel, message)

    def _hand_out(self, channel: Channel, message: wire.Memory) -> None:
        try:
            number, fd = self._values.hand_out(channel.round, message.size)
        except OSError as error:
            sentence = f"No memory for a value of {message.size} bytes: {error}."
            self._answer(channel, [failure(message.n, ("ResourceExhaustionError", sentence))])
            return
        self._answer(channel, [({"k": "answer", "n": message.n, "memory": number}, [fd])])

    def _ask(self, channel: Channel, message: Body) -> None:
        def answered(value: Any, error: Error | None) -> None:
            def job(server: Server) -> None:
                server.rounds.answered(channel, message, value, error)

            self._sessions.post(job)

        session, instance = channel.round.session, channel.round.instance
        reply = Reply(answered)
        if channel.last == message.n:
            channel.reply = reply
        else:
            reply.abandoned = True
        self._server.tell(session, Request(session.id, instance, message, reply))

    def answered(self, channel: Channel, message: Body, value: Any, error: Error | None) -> None:
        """The owner has answered."""
        if channel.last != message.n:
            channel.round.abandoned -= 1
            return
        if channel.answer is not None or channel.round.ended:
            return
        if error is not None:
            self._answer(channel, [failure(message.n, error)])
            return
        messages = answer(message, value)
        try:
            for digest in blobs(messages):
                self._sessions.depot.pin(digest)
                channel.pins.append(digest)
        except BulkError as missing:
            messages = [failure(message.n, ("RequestFailed", f"{missing}."))]
        self._answer(channel, messages)

    def _answer(self, channel: Channel, messages: list[Message]) -> None:
        """Answer the latest request."""
        channel.answer = messages
        peer = self._peers.get(channel)
        if peer is not None:
            self._server.send(peer, *messages)

    # Ends.

    def exited(self, round_: Round, status: int, said: bytes) -> None:
        """The process that ran it is gone; `said` is the End that it left, if it came to one."""
        if round_.exited:  # told again
            return
        round_.exited = True
        self._drain(round_)
        if not said:
            computing = 0.0 if round_.started is None else time.monotonic() - round_.started
            self._ended(round_, None, died(round_, status), computing, 0.0)
            return
        try:
            end = wire.end(said)

            def then(server: Server, output: Payload | None, error: Error | None) -> None:
                server.rounds.returned(round_, end, output, error)

            self._values.take_in(round_.channels[0], end.output, then, self._server)
        except BrokenFrame as error:
            self._ended(round_, None, unreadable(round_, error), 0.0, 0.0)

    def returned(
        self, round_: Round, end: wire.End, output: Payload | None, refused: Error | None
    ) -> None:
        """What it returned, if anything, is a payload now."""
        if round_.ended:
            return
        error = None if end.error is None else failed(end.error, round_.tail)
        if refused is not None:
            error = unkept(round_, refused)
        if round_.cancelled is not None:
            error = cancelled(round_)
        self._ended(round_, output, error, end.computing, end.moving)

    def _ended(
        self,
        round_: Round,
        output: Payload | None,
        error: TaskError | None,
        computing: float,
        moving: float,
    ) -> None:
        session, instance = round_.session, round_.instance
        event = RoundEnded(session.id, instance, output, error, computing, moving)
        self._server.tell(session, event)
        self.drop(round_)
        self.begin(session)

    def drop(self, round_: Round) -> None:
        """Forget it."""
        round_.ended = True
        for channel in round_.channels.values():
            peer = self._peers.get(channel)
            if peer is not None:
                self._server.close(peer)
        self._server.unwatch(*round_.streams)
        self._sessions.remove_round(round_)

    @staticmethod
    def _drain(round_: Round) -> None:
        for stream in round_.streams:
            round_.emit(stream.drain())
