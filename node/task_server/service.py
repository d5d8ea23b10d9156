"""The actor around the server of tasks."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

from manta.actors import Actor, ActorDead, ExitReason
from manta.node.task_server.server import TaskServer
from manta.node.task_server.sessions import RuntimeSessions


@dataclass(frozen=True)
class _ServerFailed:
    error: BaseException


class LightService(Actor):
    """Serves tasks on a Unix socket.

    Hand the same `sessions`, made once for a node's life, to each incarnation, so that running
    attempts survive a restart. Sessions are opened and orders given there (`open`, `tell`),
    whether or not a server runs.
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
        match message:
            case _ServerFailed(error):
                if self._server is not None:
                    self._server.stop()
                    self._server = None
                self._sessions.server_failed(error)
                raise error
            case _:
                return super().receive(message)
