"""The actor through which task supervisors speak to their runtimes."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from manta.actors import Actor, ActorDead, ExitReason, InvalidMessage, Ref
from manta.node.light_server import TaskServer
from manta.node.light_sessions import Sessions
from manta.node.session import (
    CancelRound,
    CloseSession,
    OpenSession,
    RunRound,
    SessionOpened,
)
from manta.node.tiered_depot import TieredDepot


@dataclass(frozen=True)
class _ServerFailed:
    error: BaseException


class LightService(Actor):
    """Serves tasks on a Unix socket in `folder`; large values lie in `depot`.

    Hand the same `sessions` to each incarnation, so that running rounds survive a restart:
    `Sessions(depot, folder)` is made once for a node's life, and closed at its end. Without
    them, sessions end with the actor. Owners are told events at the path of the reference
    that OpenSession brought, whatever incarnation lives there.
    """

    def __init__(self, depot: TieredDepot, folder: Path, sessions: Sessions | None = None) -> None:
        self._is_owner = sessions is None
        self._sessions = sessions if sessions is not None else Sessions(depot, folder)
        self._server: TaskServer | None = None

    def on_start(self) -> None:
        server = TaskServer(self._sessions, self._on_failure)
        try:
            server.start()
        except OSError:
            self._release()
            raise
        self._server = server

    def on_stop(self, reason: ExitReason) -> None:
        if self._server is not None:
            self._server.stop()
        self._release()

    def _release(self) -> None:
        if self._is_owner:
            self._sessions.close()

    def _on_failure(self, error: BaseException) -> None:
        """On the server's thread."""
        with contextlib.suppress(ActorDead):  # it ends for another reason
            self.ref.tell(_ServerFailed(error))

    def receive(self, message: Any) -> Any:
        sessions = self._sessions
        match message:
            case OpenSession(session, owner):
                opened = sessions.open(session, self._at_path(owner))
                return SessionOpened(opened.token, sessions.path)
            case RunRound(session, brief):
                sessions.post(lambda server: server.run_round(session, brief))
            case CancelRound(session, instance, reason):
                sessions.post(lambda server: server.cancel_round(session, instance, reason))
            case CloseSession(session):
                closed = sessions.forget(session)
                if closed is not None:
                    sessions.post(lambda server: server.close_session(closed))
            case _ServerFailed(error):
                raise error
            case _:
                raise InvalidMessage(f"LightService does not know {type(message).__name__}.")
        return None

    def _at_path(self, owner: Ref) -> Ref:
        """The owner's successors as well."""
        return self.system.ref(owner.address.path)
