"""The actor around the server of tasks."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

from manta.actors import Actor, ActorDead, ExitReason, InvalidMessage
from manta.node.task_server.messages import OpenSession, SessionOpened
from manta.node.task_server.server import TaskServer
from manta.node.task_server.sessions import RuntimeSessions


@dataclass(frozen=True)
class _ServerFailed:
    error: BaseException


class LightService(Actor):
    """Serves tasks on a Unix socket.

    Hand the same `sessions`, made once for a node's life, to each incarnation, so that running
    attempts survive a restart. Orders go to them (`RuntimeSessions.tell`), whether or not a server
    runs. Owners receive events at the path of the reference that OpenSession brought, whichever
    incarnation lives there.
    """

    def __init__(self, sessions: RuntimeSessions) -> None:
        self._sessions = sessions
        self._server: TaskServer | None = None

    def on_start(self) -> None:
        server = TaskServer(self._sessions, self._on_failure)
        server.start()
        self._server = server

    def on_stop(self, reason: ExitReason) -> None:
        if self._server is not None:
            self._server.stop()

    def _on_failure(self, error: BaseException) -> None:
        """Called on the server's thread."""
        with contextlib.suppress(ActorDead):  # it ends for another reason
            self.ref.tell(_ServerFailed(error))

    def receive(self, message: Any) -> Any:
        sessions = self._sessions
        match message:
            case OpenSession(session, owner):
                # By path, which reaches the owner's successors as well.
                opened = sessions.open(session, self.system.ref(owner.address.path))
                return SessionOpened(opened.token, sessions.path)
            case _ServerFailed(error):
                raise error
            case _:
                raise InvalidMessage(f"LightService does not know {type(message).__name__}.")
