"""The thread that speaks to all tasks, over one Unix socket.

Theory of operation: tasks and owners both only ever post to this thread; it alone changes
sessions and rounds. A task that breaks the protocol is cut off and its round cancelled. An
owner that does not take its events at once stops its own tasks, by way of full pipes and
unanswered requests, and nobody else's. `rounds` says what happens in rounds.
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
from manta.node.task_server.loop import READ, WRITE, PollThread
from manta.node.task_server.messages import RunRound, RuntimeFailed, RuntimeReady, SessionLost
from manta.node.task_server.outcomes import brief, failed
from manta.node.task_server.peer import Gone, Peer
from manta.node.task_server.rounds import RoundDesk
from manta.node.task_server.sessions import TAIL, Channel, Message, Round, Session, Sessions
from manta.node.task_server.streams import Stream
from manta.node.task_server.values import TaskValues
from manta.protocol.node import Instance

log = logging.getLogger("manta.node.light")

_GREETING_TIME = 5.0  # seconds to say who one is
_STRANGERS = 64  # connections that have not said it
_SOON = 0.02  # seconds until an owner or a kernel that takes no more is tried again
_ABANDONED = 60.0  # seconds without any incarnation of the owner


class TaskServer:
    """Serves `sessions` from `start` to `stop`.

    `on_failure` is called, on the thread, when it ends by an error.
    """

    def __init__(self, sessions: Sessions, on_failure: Callable[[BaseException], None]) -> None:
        self._sessions = sessions
        self._values = TaskValues(sessions)
        self.rounds = RoundDesk(sessions, self._values, self)
        self._loop = PollThread("manta-light", self._begin, self._tick, self._finish, on_failure)
        self._listener: socket.socket | None = None
        self._peers: set[Peer] = set()
        self._runtimes: dict[Session, Peer] = {}
        self._unsent: set[Peer] = set()
        self._stuck: set[Session] = set()

    def start(self) -> None:
        """Raises OSError when the socket can't be made."""
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
        """Close all connections; the sessions stay."""
        self._loop.stop(self._sessions.wake)
        self._values.close()

    def _begin(self) -> None:
        assert self._listener is not None
        self._loop.register(self._listener, self._accept)
        self._loop.register(self._sessions.wake_up, self._work)
        for session in list(self._sessions.by_id.values()):
            self.watch(session)
            self.deliver(session)

    def _finish(self) -> None:
        now = time.monotonic()
        for session in self._runtimes:
            session.waiting_since = now
        for peer in list(self._peers):
            self.close(peer)
        if self._listener is not None:
            self._listener.close()

    def _tick(self) -> float | None:
        """What must be done now and then; seconds until the next time."""
        for session in list(self._stuck):
            self.deliver(session)
        for peer in [peer for peer in self._unsent if peer.is_throttled]:
            self._flush(peer)
        now = time.monotonic()
        strangers = self._strangers()
        for peer in strangers:
            if now - peer.since > _GREETING_TIME:
                self.close(peer)
        is_waiting = False
        for session in list(self._sessions.by_id.values()):
            is_waiting |= session.waiting_since is not None
            self._expire(session, now)
        if self._stuck or any(peer.is_throttled for peer in self._unsent):
            return _SOON
        return 1.0 if strangers or is_waiting else None

    def _expire(self, session: Session, now: float) -> None:
        since = session.waiting_since
        if since is not None and now - since > PATIENCE + 5:
            session.waiting_since = None
            self.tell(session, SessionLost(session.id, "The runtime did not come back."))
        if session.is_dead and now - (session.stuck_since or now) > _ABANDONED:
            log.error("Session %s has no owner any more: it is closed.", session.id)
            self._sessions.forget(session.id)
            self.close_session(session)

    def _work(self, _: int) -> None:
        for job in self._sessions.jobs():
            job(self)

    # Jobs that the LightService posts.

    def run_round(self, order: RunRound) -> None:
        session, instance = self._sessions.by_id.get(order.session), order.assignment.instance
        if session is None:
            log.warning("There is no session %s to run %s in.", order.session, instance)
            return
        if any(r.instance == instance and not r.ended for r in session.rounds.values()):
            return  # told twice, over a restart of the service
        round_ = self._sessions.add_round(session, order)
        ours, theirs = socket.socketpair()
        round_.ends.append(theirs.detach())
        self.rounds.connected(round_, 0, self._add_peer(ours))
        self.watch(session)
        self.rounds.begin(session)
        self._order(round_)

    def cancel_round(self, id: str, instance: Instance, reason: str) -> None:
        session = self._sessions.by_id.get(id)
        for round_ in list(session.rounds.values()) if session else ():
            if round_.instance == instance and not round_.ended:
                self._stop(round_, reason)

    def close_session(self, session: Session) -> None:
        peer = self._runtimes.get(session)
        if peer is not None:
            self.send(peer, ({"k": "close"}, None))
            self.close(peer)
        for round_ in list(session.rounds.values()):
            self.rounds.drop(round_)
        self.unwatch(*session.streams)
        self._stuck.discard(session)
        self._sessions.remove(session)

    # Owners.

    def tell(self, session: Session, event: Any) -> None:
        session.outbox.append(event)
        self.deliver(session)

    def deliver(self, session: Session) -> None:
        """Give the owner what it has not taken yet."""
        if session.deliver():
            if session in self._stuck:
                self._stuck.remove(session)
                self.watch(session)
        elif session not in self._stuck:
            self._stuck.add(session)
            self.unwatch(*session.streams)
            for round_ in session.rounds.values():
                self.unwatch(*round_.streams)

    # Connections.

    def _strangers(self) -> list[Peer]:
        return [peer for peer in self._peers if peer.role is None]

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
        strangers = self._strangers()
        if len(strangers) >= _STRANGERS:
            self.close(min(strangers, key=lambda peer: peer.since))
        self._add_peer(sock)

    def _add_peer(self, sock: socket.socket) -> Peer:
        sock.setblocking(False)
        peer = Peer(sock, self._sessions.depot)
        self._peers.add(peer)
        self._loop.register(peer, lambda ready: self._on_peer(peer, ready))
        return peer

    def _on_peer(self, peer: Peer, ready: int) -> None:
        if ready & WRITE:
            self._flush(peer)
        if not ready & READ or peer not in self._peers:
            return
        try:
            peer.read()
            while peer in self._peers and (data := peer.next()) is not None:
                self._on_message(peer, data)
        except Gone:
            self._lost(peer)
        except BrokenFrame as error:
            self._cut(peer, f"it broke the protocol: {error}")

    def _lost(self, peer: Peer) -> None:
        """The other side has closed. What became of a round, its runtime tells."""
        role = peer.role
        self.close(peer)
        if isinstance(role, Session):
            self.tell(role, SessionLost(role.id, "The runtime closed its connection."))

    def _cut(self, peer: Peer, why: str) -> None:
        """End a connection that misbehaves, and what it stands for."""
        role = peer.role
        log.warning("A task's connection was cut, because %s", why)
        self.close(peer)
        if isinstance(role, Channel):
            if not role.round.ended:
                self.cancel(role.round, f"{role.round.name} was ended, because {why}")
        elif role is not None:
            self.tell(role, SessionLost(role.id, f"The runtime was cut off, because {why}"))

    def close(self, peer: Peer) -> None:
        self._loop.unregister(peer)
        self._peers.discard(peer)
        self._unsent.discard(peer)
        role = peer.role
        if isinstance(role, Session) and self._runtimes.get(role) is peer:
            del self._runtimes[role]
        elif isinstance(role, Channel):
            self.rounds.disconnected(role, peer)
        peer.close()

    def send(self, peer: Peer, *messages: Message) -> None:
        peer.send(*messages)
        self._flush(peer)

    def _flush(self, peer: Peer) -> None:
        try:
            done = peer.flush()
        except Gone:
            return  # the reading side tells
        if done == (peer in self._unsent):
            (self._unsent.discard if done else self._unsent.add)(peer)
            self._loop.want_write(peer, not done)
        if done and peer.closing:
            self.close(peer)

    def _on_message(self, peer: Peer, data: bytes) -> None:
        role = peer.role
        if role is None:
            self._on_greeting(peer, wire.first(data))
        elif isinstance(role, Session):
            self._on_runtime(role, wire.from_runtime(data))
        else:
            self.rounds.handle(role, peer, wire.from_round(data))

    def _on_greeting(self, peer: Peer, first: wire.Runtime | wire.Round) -> None:
        role = self._sessions.by_token.get(first.token)
        wanted = Session if isinstance(first, wire.Runtime) else Round
        if not isinstance(role, wanted):
            self._refuse(peer, "The token is not valid, or the task has been ended.")
        elif isinstance(first, wire.Runtime) and first.version != VERSION:
            self._refuse(peer, f"This node speaks version {VERSION} of the task protocol.")
        elif isinstance(first, wire.Round):
            assert isinstance(role, Round)
            self.rounds.connected(role, first.channel, peer)
        else:
            assert isinstance(role, Session)
            peer.role = role
            self._greet(role, peer)

    def _refuse(self, peer: Peer, sentence: str) -> None:
        peer.closing = True
        self.send(peer, ({"k": "refused", "sentence": sentence}, None))

    # Runtimes.

    def _greet(self, session: Session, peer: Peer) -> None:
        former = self._runtimes.pop(session, None)
        if former is not None:
            self.close(former)
        self._runtimes[session] = peer
        session.waiting_since = None
        if not session.streams:
            session.open_streams()
            self.watch(session)
        self.send(peer, ({"k": "welcome"}, session.ends))
        for round_ in list(session.rounds.values()):
            self._order(round_)
            if round_.cancelled is not None:
                self._stop(round_, round_.cancelled)

    def _order(self, round_: Round) -> None:
        peer = self._runtimes.get(round_.session)
        if peer is not None:
            run = {"k": "run", "round": round_.number, "token": round_.token}
            self.send(peer, ({**run, "brief": brief(round_.order)}, round_.ends))

    def _stop(self, round_: Round, reason: str) -> None:
        """Ask its code to end; who asked for it sees to it that it does."""
        self._end_round("stop", round_, reason)

    def cancel(self, round_: Round, reason: str) -> None:
        """End its process at once."""
        self._end_round("cancel", round_, reason)

    def _end_round(self, how: str, round_: Round, reason: str) -> None:
        round_.cancelled = round_.cancelled or reason
        peer = self._runtimes.get(round_.session)
        if peer is not None:
            self.send(peer, ({"k": how, "round": round_.number}, None))

    def _on_runtime(self, session: Session, message: wire.FromRuntime) -> None:
        if isinstance(message, wire.Exited):
            round_ = session.rounds.get(message.round)
            if round_ is not None:
                self.rounds.exited(round_, message.status, message.end)
            return
        session.close_ends()
        if isinstance(message, wire.Failed):
            session.early.extend(line for stream in session.streams for line in stream.drain())
            tail = [text for _, _, text in session.early][-TAIL:]
            session.early.clear()
            self.tell(session, RuntimeFailed(session.id, failed(message.error, tail)))
            return
        if message.mode == "spawn":
            for stream in session.streams:  # each round prints it again
                stream.drain()
            session.early.clear()
        if not session.is_ready:
            session.is_ready = True
            session.mode, session.why = message.mode, message.why
            self.tell(session, RuntimeReady(session.id, message.mode, message.why))

    # What tasks print.

    def watch(self, session: Session) -> None:
        """Listen to a session's streams, unless its owner is behind."""
        if session in self._stuck:
            return
        for stream in session.streams:
            self._watch(stream, session, None)
        for round_ in session.rounds.values():
            for stream in round_.streams:
                self._watch(stream, session, round_)

    def _watch(self, stream: Stream, session: Session, round_: Round | None) -> None:
        if not stream.ended and stream not in self._loop:
            self._loop.register(stream, lambda _: self._on_stream(stream, session, round_))

    def unwatch(self, *streams: Stream) -> None:
        for stream in streams:
            self._loop.unregister(stream)

    def _on_stream(self, stream: Stream, session: Session, round_: Round | None) -> None:
        lines = stream.read()
        if stream.ended:
            self._loop.unregister(stream)
        if round_ is None:
            round_ = session.running
        if round_ is None:
            session.early.extend(lines)
        elif not round_.ended:
            round_.emit(lines)
            self.deliver(session)
