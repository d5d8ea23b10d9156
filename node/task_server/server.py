"""The thread that speaks to all tasks, over one Unix socket.

Theory of operation: tasks and owners only ever post to this thread, and it alone changes sessions
and attempts. A task that breaks the protocol is cut off and its attempt cancelled. An owner that
does not take its events stops its own tasks, through full pipes and unanswered requests, and
nobody else's. What tasks print goes to the journal from this thread, as it is read, so that
nothing queues in between. `attempts` has what concerns single attempts.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable
from typing import Any

from manta.light.wire import PATIENCE, VERSION, BrokenFrame
from manta.node.task_server import wire
from manta.node.task_server.attempts import AttemptDesk
from manta.node.task_server.connection import Gone, TaskConnection
from manta.node.task_server.loop import READ, WRITE, PollThread
from manta.node.task_server.messages import (
    AttemptExited,
    ObjectLives,
    PackagesFound,
    RunAttempt,
    RuntimeReady,
    SessionLost,
    StacksTaken,
)
from manta.node.task_server.outcomes import brief, unserved
from manta.node.task_server.sessions import (
    Attempt,
    Message,
    RequestChannel,
    RuntimeSession,
    RuntimeSessions,
)
from manta.node.task_server.streams import Stream
from manta.node.task_server.values import TaskValues
from manta.protocol.node import Instance

log = logging.getLogger("manta.node.light")

_GREETING_TIME = 5.0  # seconds for a connection to say who it is
_STRANGERS = 64  # connections that may not have said so yet
_SOON = 0.02  # seconds until an owner or a kernel that took no more is tried again
_ABANDONED = 60.0  # seconds that a session outlives its owner's last incarnation


class TaskServer:
    """Serves `sessions` from `start` to `stop`.

    `on_failure` is called on the thread when an error ends it.
    """

    def __init__(
        self, sessions: RuntimeSessions, on_failure: Callable[[BaseException], None]
    ) -> None:
        self._sessions = sessions
        self._values = TaskValues(sessions)
        self.attempts = AttemptDesk(sessions, self._values, self)
        self._loop = PollThread("manta-light", self._begin, self._tick, self._finish, on_failure)
        self._listener: socket.socket | None = None
        self._connections: set[TaskConnection] = set()
        self._strangers: set[TaskConnection] = set()
        """Those that have not said who they are."""
        self._waiting: set[RuntimeSession] = set()
        """Those whose runtimes are expected to come back."""
        self._runtimes: dict[RuntimeSession, TaskConnection] = {}
        self._unsent: set[TaskConnection] = set()
        self._stuck: set[RuntimeSession] = set()
        self._ahead: set[RuntimeSession] = set()
        """Those that print faster than it is taken: they wait, in full pipes."""
        self._redrawing: set[tuple[Stream, RuntimeSession]] = set()
        """What has drawn a progress bar whose latest state has not become a line yet."""

    def start(self) -> None:
        """Opens the socket and starts the thread. Raises OSError."""
        path = self._sessions.path
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            if os.path.exists(path):
                os.unlink(path)
            listener.bind(path)
            os.chmod(path, 0o666)
            listener.listen(128)
        except BaseException:
            listener.close()
            raise
        self._listener = listener
        self._loop.start()

    def stop(self) -> None:
        """Closes all connections; the sessions stay."""
        self._loop.stop()
        self._values.close()

    def _begin(self) -> None:
        assert self._listener is not None
        self._loop.register(self._listener, self._accept)
        self._loop.register(self._sessions.wake_up, self._work)
        for session in list(self._sessions.by_id.values()):
            if session.waiting_since is not None:
                self._waiting.add(session)
            self.watch(session)
            self.deliver(session)

    def _finish(self) -> None:
        now = time.monotonic()
        for session in self._runtimes:
            session.waiting_since = now
        for connection in list(self._connections):
            self.close(connection)
        if self._listener is not None:
            self._listener.close()

    def _tick(self) -> float | None:
        """Does what is due; returns the seconds until the next time, None for no hurry."""
        for session in list(self._stuck):
            self.deliver(session)
        for session in [one for one in self._ahead if not self._sessions.output_waits(one)]:
            self._ahead.remove(session)
            self.watch(session)
        for connection in [connection for connection in self._unsent if connection.is_throttled]:
            self._flush(connection)
        for printer in [one for one in self._redrawing if one[1] not in self._ahead]:
            self._redrawing.discard(printer)
            if printer[0] in self._loop:
                self._on_stream(*printer)
        now = time.monotonic()
        for connection in list(self._strangers):
            if now - connection.since > _GREETING_TIME:
                self.close(connection)
        for session in [*self._waiting, *self._stuck]:
            self._expire(session, now)
        if (
            self._stuck
            or self._ahead
            or any(connection.is_throttled for connection in self._unsent)
        ):
            return _SOON
        return 1.0 if self._strangers or self._waiting or self._redrawing else None

    def _expire(self, session: RuntimeSession, now: float) -> None:
        since = session.waiting_since
        if since is not None and now - since > PATIENCE + 5:
            session.waiting_since = None
            self._waiting.discard(session)
            self.tell(session, SessionLost(session.id, "The runtime did not come back."))
        if session.is_dead and now - (session.stuck_since or now) > _ABANDONED:
            log.error("Session %s has no owner any more: it is closed.", session.id)
            self._sessions.forget(session.id)
            self.close_session(session)

    def _work(self, _: int) -> None:
        for job in self._sessions.jobs():
            job(self)

    # Jobs that the LightService posts.

    def run_attempt(self, order: RunAttempt) -> None:
        session, instance = self._sessions.by_id.get(order.session), order.assignment.instance
        if session is None:
            log.warning("There is no session %s to run %s in.", order.session, instance)
            return
        if any(r.instance == instance and not r.ended for r in session.attempts.values()):
            return  # told twice, across a restart of the service
        try:
            attempt, ours = self._sessions.add_attempt(session, order)
        except OSError as error:
            self.tell(
                session,
                AttemptExited(session.id, instance, error=unserved(error), platform=True),
            )
            return
        self.attempts.connected(attempt, 0, self._add_connection(ours))
        self.attempts.begin(session)
        self._order(attempt)

    def take_stacks(self, id: str, instance: Instance) -> None:
        for attempt in self._attempts(id, instance):
            connection = self._runtimes.get(attempt.session)
            if connection is not None:  # else who asked does not wait for ever
                self.send(connection, ({"k": "stacks", "number": attempt.number}, None))

    def cancel_attempt(
        self, id: str, instance: Instance, reason: str, *, stacks: bool = False
    ) -> None:
        for attempt in self._attempts(id, instance):
            self._end("stop", attempt, reason, stacks=stacks)

    def cut_attempt(self, id: str, instance: Instance, why: str) -> None:
        for attempt in self._attempts(id, instance):
            self._end("cancel", attempt, f"{attempt.name} was ended, because {why}")

    def _attempts(self, id: str, instance: Instance) -> list[Attempt]:
        """Those of a session that have not ended."""
        session = self._sessions.by_id.get(id)
        found = list(session.attempts.values()) if session else []
        return [one for one in found if one.instance == instance and not one.ended]

    def end_kept(self, id: str) -> None:
        if (session := self._sessions.by_id.get(id)) is not None:
            self._sessions.unpin(session.pins)

    def close_session(self, session: RuntimeSession) -> None:
        connection = self._runtimes.get(session)
        if connection is not None:
            self.send(connection, ({"k": "close"}, None))
            self.close(connection)
        for attempt in list(session.attempts.values()):
            self.attempts.drop(attempt)
        self.unwatch(*session.streams)
        self._stuck.discard(session)
        self._ahead.discard(session)
        self._waiting.discard(session)
        self._sessions.remove(session)

    # Owners.

    def tell(self, session: RuntimeSession, event: Any) -> None:
        session.outbox.append(event)
        self.deliver(session)

    def deliver(self, session: RuntimeSession) -> None:
        """Gives the owner what it has not taken yet."""
        if session.deliver():
            if session in self._stuck:
                self._stuck.remove(session)
                self.watch(session)
        elif session not in self._stuck:
            self._stuck.add(session)
            self.unwatch(*session.streams)

    # Connections.

    def _accept(self, _: int) -> None:
        assert self._listener is not None
        try:
            sock, _address = self._listener.accept()
        except BlockingIOError:
            return
        except OSError as error:  # out of descriptors: the tasks wait
            log.error("A task could not be accepted: %s.", error)
            time.sleep(_SOON)
            return
        if len(self._strangers) >= _STRANGERS:
            self.close(min(self._strangers, key=lambda connection: connection.since))
        self._strangers.add(self._add_connection(sock))

    def _add_connection(self, sock: socket.socket) -> TaskConnection:
        connection = TaskConnection(sock, self._sessions.depot)
        self._connections.add(connection)
        self._loop.register(connection, lambda ready: self._on_ready(connection, ready))
        return connection

    def _on_ready(self, connection: TaskConnection, ready: int) -> None:
        if ready & WRITE:
            self._flush(connection)
        if not ready & READ or connection not in self._connections:
            return
        try:
            connection.read()
            while connection in self._connections and (data := connection.next()) is not None:
                self._on_message(connection, data)
        except Gone:
            self._lost(connection)
        except BrokenFrame as error:
            self._cut(connection, f"it broke the protocol: {error}")
        except OSError as error:
            self._unserved(connection, error)

    def _lost(self, connection: TaskConnection) -> None:
        """The other side has closed. The runtime tells what became of an attempt."""
        role = connection.role
        self.close(connection)
        if isinstance(role, RuntimeSession):
            self.tell(role, SessionLost(role.id, "The runtime closed its connection."))

    def _cut(self, connection: TaskConnection, why: str) -> None:
        """Ends a connection that misbehaves, and what it stands for."""
        role = connection.role
        log.warning("A task's connection was cut, because %s", why)
        self.close(connection)
        if isinstance(role, RequestChannel):
            if not role.attempt.ended:
                sentence = f"{role.attempt.name} was ended, because {why}"
                self._end("cancel", role.attempt, sentence)
        elif role is not None:
            self.tell(role, SessionLost(role.id, f"The runtime was cut off, because {why}"))

    def _unserved(self, connection: TaskConnection, error: OSError) -> None:
        """The machine gave the node what it needed no more: costs this runtime alone."""
        role = connection.role
        log.error("A task could not be served: %s", error)
        self.close(connection)
        session = role.attempt.session if isinstance(role, RequestChannel) else role
        if session is not None:
            self.tell(session, SessionLost(session.id, unserved(error).sentence))

    def close(self, connection: TaskConnection) -> None:
        self._loop.unregister(connection)
        self._connections.discard(connection)
        self._strangers.discard(connection)
        self._unsent.discard(connection)
        role = connection.role
        if isinstance(role, RuntimeSession) and self._runtimes.get(role) is connection:
            del self._runtimes[role]
        elif isinstance(role, RequestChannel):
            self.attempts.disconnected(role, connection)
        connection.close()

    def send(self, connection: TaskConnection, *messages: Message) -> None:
        connection.send(*messages)
        self._flush(connection)

    def _flush(self, connection: TaskConnection) -> None:
        try:
            done = connection.flush()
        except Gone:
            return  # reading finds out as well
        if done == (connection in self._unsent):
            (self._unsent.discard if done else self._unsent.add)(connection)
            self._loop.want_write(connection, not done)
        if done and connection.closing:
            self.close(connection)

    def _on_message(self, connection: TaskConnection, data: bytes) -> None:
        role = connection.role
        if role is None:
            self._on_greeting(connection, wire.first(data))
        elif isinstance(role, RuntimeSession):
            self._on_runtime(role, wire.from_runtime(data))
        else:
            self.attempts.handle(role, connection, wire.from_attempt(data))

    def _on_greeting(self, connection: TaskConnection, first: wire.Runtime | wire.Attempt) -> None:
        role = self._sessions.by_token.get(first.token)
        if isinstance(first, wire.Attempt) and isinstance(role, Attempt):
            self.attempts.connected(role, first.channel, connection)
        elif not (isinstance(first, wire.Runtime) and isinstance(role, RuntimeSession)):
            self._refuse(connection, "The token is not valid, or the task has been ended.")
        elif first.version != VERSION:
            self._refuse(connection, f"This node speaks version {VERSION} of the task protocol.")
        else:
            connection.role = role
            self._greet(role, connection)
        if connection.role is not None:
            self._strangers.discard(connection)

    def _refuse(self, connection: TaskConnection, sentence: str) -> None:
        connection.closing = True
        self.send(connection, ({"k": "refused", "sentence": sentence}, None))

    # Runtimes.

    def _greet(self, session: RuntimeSession, connection: TaskConnection) -> None:
        former = self._runtimes.pop(session, None)
        if former is not None:
            self.close(former)
        self._runtimes[session] = connection
        session.waiting_since = None
        self._waiting.discard(session)
        if not session.streams:
            session.open_streams()
            self.watch(session)
        self.send(connection, ({"k": "welcome"}, session.ends))
        for attempt in list(session.attempts.values()):
            self._order(attempt)
            if attempt.cancelled is not None:
                self._end("stop", attempt, attempt.cancelled)

    def _order(self, attempt: Attempt) -> None:
        connection = self._runtimes.get(attempt.session)
        if connection is not None:
            run = {"k": "run", "number": attempt.number, "token": attempt.token}
            self.send(connection, ({**run, "brief": brief(attempt.order)}, attempt.ends))

    def _end(self, how: str, attempt: Attempt, reason: str, **more: bool) -> None:
        """Has its code asked to end ("stop"), or its process killed ("cancel")."""
        attempt.cancelled = attempt.cancelled or reason
        connection = self._runtimes.get(attempt.session)
        if connection is not None:
            self.send(connection, ({"k": how, "number": attempt.number, **more}, None))

    def _on_runtime(self, session: RuntimeSession, message: wire.FromRuntime) -> None:
        if isinstance(message, wire.Exited):
            attempt = session.attempts.get(message.number)
            if message.lives_on is not None and message.lives_on != session.lives_on:
                session.lives_on = message.lives_on
                self.tell(session, ObjectLives(session.id, message.lives_on))
            if attempt is not None:
                self.attempts.exited(attempt, message)
            return
        if isinstance(message, wire.Packages):
            self.tell(session, PackagesFound(session.id, message.packages))
            return
        if isinstance(message, wire.Stacks):
            attempt = session.attempts.get(message.number)
            if attempt is not None:
                self.tell(
                    session, StacksTaken(session.id, attempt.instance, message.text, message.asked)
                )
            return
        session.close_ends()
        if not session.is_ready:
            session.is_ready = True
            self.tell(session, RuntimeReady(session.id))

    # What tasks print.

    def watch(self, session: RuntimeSession) -> None:
        """Listens to a session's streams, unless its owner is behind, or it is ahead."""
        if session in self._stuck or session in self._ahead:
            return
        for stream in session.streams:
            self._watch(stream, session)

    def _watch(self, stream: Stream, session: RuntimeSession) -> None:
        if not stream.ended and stream not in self._loop:
            self._loop.register(stream, lambda _: self._on_stream(stream, session))

    def unwatch(self, *streams: Stream) -> None:
        for stream in streams:
            self._loop.unregister(stream)

    def _on_stream(self, stream: Stream, session: RuntimeSession) -> None:
        lines = stream.read()
        if stream.ended:
            self._loop.unregister(stream)
        elif stream.is_redrawing:
            self._redrawing.add((stream, session))
        attempt = session.running
        if attempt is None:
            session.early.extend(lines)
        else:
            self._sessions.emit(attempt, lines)
            if self._sessions.output_waits(session):
                self._ahead.add(session)
                self.unwatch(*session.streams)
