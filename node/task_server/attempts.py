"""Serves attempts: carries each of their requests out once, and tells how they ended."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from manta.light.wire import MAX_CHANNELS, BrokenFrame
from manta.node.task_server import wire
from manta.node.task_server.answers import answer, blobs, failure
from manta.node.task_server.messages import AttemptExited, Descriptor, How
from manta.node.task_server.outcomes import cancelled, died, failed, hung, unkept, unreadable
from manta.node.task_server.requests import Body, Error, OpenExchange, OpenMesh, Reply, Request
from manta.node.task_server.sessions import (
    Attempt,
    Message,
    RequestChannel,
    RuntimeSession,
    RuntimeSessions,
)
from manta.protocol.node import TaskError
from manta.protocol.values import Payload
from manta.transports.errors import BulkError

if TYPE_CHECKING:
    from manta.node.task_server.connection import TaskConnection
    from manta.node.task_server.values import TaskValues

MAX_ABANDONED = 100
"""How many requests of an attempt may be under way whose answers it does not wait for."""


class Server(Protocol):
    """What a desk needs of its server, which keeps the connections and tells the owners."""

    def send(self, connection: TaskConnection, *messages: Message) -> None: ...

    def close(self, connection: TaskConnection) -> None: ...

    def tell(self, session: RuntimeSession, event: Any) -> None: ...


class AttemptDesk:
    """The part of a TaskServer that serves attempts, on the server's thread."""

    def __init__(self, sessions: RuntimeSessions, values: TaskValues, server: Server) -> None:
        self._sessions = sessions
        self._values = values
        self._server = server
        self._connections: dict[RequestChannel, TaskConnection] = {}

    # Connections.

    def connected(self, attempt: Attempt, number: int, connection: TaskConnection) -> None:
        """Takes a connection as the attempt's channel of that number. Raises BrokenFrame."""
        channel = connection.role = attempt.channels.get(number) or RequestChannel(attempt)
        if number not in attempt.channels and len(attempt.channels) >= MAX_CHANNELS:
            raise BrokenFrame(f"more than {MAX_CHANNELS} requests at a time.")
        attempt.channels[number] = channel
        former = self._connections.pop(channel, None)
        if former is not None:
            self._server.close(former)
        self._connections[channel] = connection

    def disconnected(self, channel: RequestChannel, connection: TaskConnection) -> None:
        if self._connections.get(channel) is connection:
            del self._connections[channel]

    def begin(self, session: RuntimeSession) -> None:
        """Begins the session's next attempt, if one waits. What was printed while there was none to
        attribute it to comes before its own lines."""
        attempt = session.running
        if attempt is None or attempt.started is not None:
            return
        attempt.started = time.monotonic()
        self._sessions.emit(attempt, list(session.early))
        session.early.clear()

    # Requests.

    def handle(
        self, channel: RequestChannel, connection: TaskConnection, message: wire.FromAttempt
    ) -> None:
        """Carries a request out, unless that was done already. Raises BrokenFrame."""
        if message.n < channel.last:
            raise BrokenFrame(f"request {message.n} does not follow {channel.last}.")
        if message.n == channel.last:  # sent again after a reconnect
            if channel.answer is None:
                return
            along = channel.answer[0][1]
            if isinstance(along, Descriptor) and along.fd < 0:  # it went to the one that broke
                if not isinstance(message, OpenExchange | OpenMesh):
                    raise BrokenFrame(f"request {message.n} was another before.")
                channel.answer = None
                self._ask(channel, message)
                return
            self._server.send(connection, *channel.answer)
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
        self._values.take_in(
            channel,
            getattr(message, "value", None),
            lambda desk, payload, error: desk.go_on(channel, message, payload, error),
            self,
        )

    @staticmethod
    def _abandoned(channel: RequestChannel, number: int) -> None:
        channel.attempt.abandoned += 1
        if channel.attempt.abandoned > MAX_ABANDONED:
            raise BrokenFrame(
                f"request {number} before {channel.last} and {MAX_ABANDONED} others were answered."
            )
        if channel.reply is not None:
            channel.reply.abandoned = True

    def go_on(
        self,
        channel: RequestChannel,
        message: Body,
        payload: Payload | None,
        error: Error | None,
    ) -> None:
        """Goes on with a request whose value, if it has one, is a payload by now."""
        if channel.attempt.ended:  # cancelled meanwhile
            self._sessions.unpin(channel.pins)
        elif error is not None:
            if channel.last == message.n:
                self._answer(channel, [failure(message.n, error)])
            else:
                channel.attempt.abandoned -= 1
        else:
            if payload is not None:
                message = msgspec.structs.replace(message, value=payload)
            self._ask(channel, message)

    def _hand_out(self, channel: RequestChannel, message: wire.Memory) -> None:
        try:
            number, fd = self._values.hand_out(channel.attempt, message.size)
        except OSError as error:
            sentence = f"No memory for a value of {message.size} bytes: {error}."
            self._answer(channel, [failure(message.n, ("ResourceExhaustionError", sentence))])
            return
        self._answer(channel, [({"k": "answer", "n": message.n, "memory": number}, [fd])])

    def _ask(self, channel: RequestChannel, message: Body) -> None:
        def answered(value: Any, error: Error | None) -> None:
            self._sessions.post(
                lambda server: server.attempts.answered(channel, message, value, error)
            )

        session, instance = channel.attempt.session, channel.attempt.instance
        reply = Reply(answered)
        if channel.last == message.n:
            channel.reply = reply
        else:
            reply.abandoned = True
        self._server.tell(session, Request(session.id, instance, message, reply))

    def answered(
        self, channel: RequestChannel, message: Body, value: Any, error: Error | None
    ) -> None:
        """Passes the owner's answer on to the task, if it still waits for it."""
        if channel.last != message.n:
            channel.attempt.abandoned -= 1
            return
        if channel.answer is not None or channel.attempt.ended:
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

    def _answer(self, channel: RequestChannel, messages: list[Message]) -> None:
        """Answers the latest request."""
        channel.answer = messages
        connection = self._connections.get(channel)
        if connection is not None:
            self._server.send(connection, *messages)

    # Ends.

    def exited(self, attempt: Attempt, how: wire.Exited) -> None:
        """The attempt's process is gone, and has left an End, if it came to one."""
        if attempt.exited:  # told again
            return
        attempt.exited, attempt.no_memory = True, how.no_memory
        status = None if how.lives_on and how.end else how.status
        attempt.how = How(status, how.no_memory, how.moments, how.cpu, how.memory)
        for stream in attempt.session.streams:
            self._sessions.emit(attempt, stream.drain())
        if how.cut_off:
            self._sessions.emit(attempt, [("warning", time.time(), hung(attempt))])
        if not how.end:
            computing = 0.0 if attempt.started is None else time.monotonic() - attempt.started
            self._ended(attempt, None, died(attempt, how.status), computing, 0.0)
            return
        try:
            end = wire.end(how.end)
            self._values.take_in(
                attempt.channels[0],
                end.output,
                lambda desk, output, error: desk.returned(attempt, end, output, error),
                self,
            )
        except BrokenFrame as error:
            self._ended(attempt, None, unreadable(attempt, error), 0.0, 0.0)

    def returned(
        self, attempt: Attempt, end: wire.End, output: Payload | None, refused: Error | None
    ) -> None:
        """Ends an attempt whose output, if it has one, is a payload by now."""
        if attempt.ended:
            return
        error = None if end.error is None else failed(attempt, end.error)
        if refused is not None:
            error = unkept(attempt, refused)
        if attempt.cancelled is not None:
            error = cancelled(attempt)
        self._ended(attempt, output, error, end.computing, end.moving, end.loading)

    def _ended(
        self,
        attempt: Attempt,
        output: Payload | None,
        error: TaskError | None,
        computing: float,
        moving: float,
        loading: float = 0.0,
    ) -> None:
        session, instance = attempt.session, attempt.instance
        event = AttemptExited(
            session.id,
            instance,
            output,
            error,
            computing,
            moving,
            loading,
            how=attempt.how,
        )
        self.drop(attempt)
        self.begin(session)
        self._server.tell(session, event)  # last: its owner does not run beside this thread

    def drop(self, attempt: Attempt) -> None:
        """Closes all that belongs to the attempt and forgets it."""
        attempt.ended = True
        for channel in attempt.channels.values():
            connection = self._connections.get(channel)
            if connection is not None:
                self._server.close(connection)
        self._sessions.remove_attempt(attempt)
