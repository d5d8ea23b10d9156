"""The peer's process as yours has it: begun, asked, heard, and ended.

A thread of its own reads what the peer says; any thread may ask. Letters and collectives go over
connections of their own to the peer's plane, as those of a task.
"""

from __future__ import annotations

import itertools
import os
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from manta.light import wire
from manta.light.context import Brief
from manta.light.errors import BY_NAME, LightError, NotInTask, RequestFailed, UnknownPeer
from manta.light.runtime.client import outcome
from manta.light.runtime.plane import PlaneConnection
from manta.mesh.errors import JoinFailed, MeshLost, MeshStuck
from manta.mesh.settings import FD
from manta.mesh.words import VIEW_OVER

if TYPE_CHECKING:
    from manta.mesh.process import PeerProcess

MOST_EVENTS = 10_000
"""That wait to be read: of more, the oldest go."""
PATIENCE = 10.0
"""Seconds that the peer's process has for an answer, beyond those that it is told to wait for."""
_GONE = "The peer's process has ended: join again. What it logged says why."
_LEFT = "This mesh was left: join again."


class ViewOver(Exception):
    """The call is to be made again, in the next view."""


Listener = Callable[[dict[str, Any] | None], None]


class _Reply:
    def __init__(self) -> None:
        self.came = threading.Event()
        self.told: dict[str, Any] | None = None
        self.fds: list[int] = []


class Client:
    def __init__(self, ours: wire.MessageSocket, process: PeerProcess | None = None) -> None:
        """`ours` is the socket to the peer's process, which others have begun where there is no
        `process`."""
        self._process = process
        self._owner = os.getpid()
        self._socket = ours
        self.pid = 0
        """Of the peer's process, once this peer has joined."""
        self._sending = threading.Lock()
        self._numbers = itertools.count(1)
        self._replies: dict[int, _Reply] = {}
        self._events: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._listeners: list[Listener] = []
        self._missed = 0
        self.has_left = self.is_gone = False
        self.letters = Letters(self)
        self._thread = threading.Thread(target=self._read, name="manta-mesh", daemon=True)
        self._thread.start()

    @classmethod
    def begin(cls) -> Client:
        """Begins the process, or takes over the one that `manta mesh run` has begun for this one.
        Raises JoinFailed, OSError."""
        if (given := os.environ.pop(FD, None)) is not None:
            os.set_inheritable(int(given), False)
            return cls(wire.MessageSocket.of(int(given)))
        from manta.mesh.process import PeerProcess  # which most peers of a command do without

        ours, theirs = socket.socketpair()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)  # see peer.watching
        try:
            with theirs:
                process = PeerProcess(theirs)
        except BaseException:
            ours.close()
            raise
        return cls(wire.MessageSocket(ours), process)

    def join(self, join: dict[str, Any]) -> dict[str, Any]:
        """`join` has the fields of `peer.join.Join`. Raises JoinFailed."""
        told = self.request("join", join["timeout"], join=join)
        self.pid = told["pid"]
        return told

    def request(self, request: str, waits: float = 0.0, **fields: Any) -> dict[str, Any]:
        """`waits`: seconds for which the answer may be waited for there. Raises MeshLost,
        MeshStuck, and what the answer says."""
        return self._ask(request, waits, fields).told or {}

    def open(self, of: str) -> int:
        """The descriptor of a connection to the plane."""
        return self._ask("open", 0.0, {"of": of}).fds[0]

    def _ask(self, request: str, waits: float, fields: dict[str, Any]) -> _Reply:
        if os.getpid() != self._owner:
            raise NotInTask("A mesh belongs to the process that has joined it: join anew here.")
        number = next(self._numbers)
        reply = self._replies[number] = _Reply()
        try:
            with self._sending:
                if self.is_gone:
                    raise MeshLost(_LEFT if self.has_left else _GONE)
                try:
                    self._socket.send({"k": request, "n": number, **fields})
                except OSError as error:
                    raise MeshLost(_GONE) from error
            if not reply.came.wait(min(waits + PATIENCE, threading.TIMEOUT_MAX)):
                raise MeshStuck(self._stuck(request, waits))
        finally:
            self._replies.pop(number, None)
        if reply.told is None:
            raise MeshLost(_LEFT if self.has_left else _GONE)
        if reply.told["k"] == "error":
            kind: type[LightError] = BY_NAME.get(reply.told["kind"], RequestFailed)
            if reply.told["kind"] == JoinFailed.__name__:
                kind = JoinFailed
            raise kind(reply.told["sentence"])
        return reply

    def _stuck(self, request: str, waits: float) -> str:
        process = f"process {self.pid}" if self.pid else "the process of this peer"
        return (
            f"No answer to {request!r} came within {waits + PATIENCE:g} s: {process}, by which "
            "this one speaks to the mesh, is stopped or starved. Let it go on (kill -CONT), or "
            "leave and join again."
        )

    def events(self, timeout: float | None) -> Iterator[dict[str, Any]]:
        while True:
            try:
                event = self._events.get(timeout=timeout)
            except queue.Empty:
                return
            if event is None:
                self._events.put(None)  # for others who read
                return
            if self._missed:
                missed, self._missed = self._missed, 0
                yield {"event": "missed", "count": missed}
            yield event

    def listen(self, listener: Listener) -> None:
        """It is called with each event from now on, and what others' processes say, on the thread
        that reads these; and with None at the end."""
        with self._sending:
            if not self.is_gone:
                self._listeners.append(listener)
                return
        listener(None)

    def ignore(self, listener: Listener) -> None:
        with self._sending:
            self._listeners.remove(listener)

    def leave(self, timeout: float) -> None:
        """In good order, as far as there is time."""
        if os.getpid() != self._owner or self.has_left:
            return
        with suppress(LightError):
            self.request("leave", timeout, timeout=timeout)
        self.has_left = True
        self._end()

    def _end(self) -> None:
        self._socket.shut()
        if self._process is not None:
            self._process.end()
        self._thread.join()
        self.letters.close()
        self._socket.close()

    # --- on the thread of its own ---------------------------------------------------------------

    def _read(self) -> None:
        try:
            while (received := self._socket.receive()) is not None:
                self._take(*received)
        except (OSError, wire.BrokenFrame):
            pass  # it has ended
        with self._sending:
            self.is_gone = True
            listeners = list(self._listeners)
        for listener in listeners:
            listener(None)
        for reply in list(self._replies.values()):
            reply.came.set()
        self._events.put(None)

    def _take(self, message: dict[str, Any], fds: list[int]) -> None:
        if message["k"] == "beat":
            with self._sending, suppress(OSError):  # reading finds out as well
                self._socket.send(message)
            return
        if message["k"] == "event":
            for listener in list(self._listeners):
                listener(message["told"])
            if message["told"]["event"] == "word":
                return
            self.letters.brief.node_ids = {}  # a name may be another peer's now
            if self._events.qsize() >= MOST_EVENTS:
                with suppress(queue.Empty):
                    self._events.get_nowait()
                self._missed += 1
            self._events.put(message["told"])
            return
        reply = self._replies.get(message["n"])
        if reply is None:  # a signal took the thread out that had asked
            for fd in fds:
                os.close(fd)
            return
        reply.told, reply.fds = message, fds
        reply.came.set()


class _Speaker:
    """Implements `light.context.Context` over connections to the plane."""

    def __init__(self, client: Client, of: str, brief: Brief) -> None:
        self.brief = brief
        self._client = client
        self._of = of
        self._all: list[PlaneConnection] = []
        self._free: list[PlaneConnection] = []

    def call(self, request: str, /, **fields: Any) -> Any:
        if request not in wire.PLANE_REQUESTS:
            return self._other(request, fields)
        try:
            connection = self._free.pop()
        except IndexError:
            connection = PlaneConnection(lambda: self._client.open(self._of))
            self._all.append(connection)
        try:
            return connection.call(request, fields, self._outcome)
        finally:
            self._free.append(connection)

    def _outcome(self, message: dict[str, Any], fds: list[int]) -> Any:
        return outcome(message, fds)

    def _other(self, request: str, fields: dict[str, Any]) -> Any:
        raise NotInTask(f"A mesh has no {request}.")

    def close(self) -> None:
        self.brief.mapped = None
        for connection in self._all:
            connection.shut()
            connection.close()


class Letters(_Speaker):
    """Letters and broadcasts, of any thread."""

    def __init__(self, client: Client) -> None:
        brief = Brief(swarm_id="mesh", alias="peer", index=0, iteration=0, attempt=0, timeout=None)
        brief.direct = True
        super().__init__(client, "", brief)

    def _other(self, request: str, fields: dict[str, Any]) -> Any:
        if request in ("lock", "unlock"):
            return self._client.request(request, fields.get("timeout", 0.0), **fields)
        if request != "resolve_node":
            return super()._other(request, fields)
        name = fields["name"]
        found: list[str] = self._client.request("find", name=name)["ids"]
        if len(found) == 1:  # one that is lost, of which the plane does not know
            return found[0]
        many = f"{len(found)} peers" if found else "no peer"
        named = "is" if not found else "are"
        raise UnknownPeer(
            f"There {named} {many} {name!r} in this mesh: give an id, as those in mesh.peers."
        )


class ViewCalls(_Speaker):
    """The collectives of one view, of one thread at a time."""

    def __init__(self, client: Client, me: str, told: dict[str, Any]) -> None:
        self.told = told
        self.next: dict[str, Any] | None = None
        """The view after this one, once this one is over."""
        brief = Brief(
            swarm_id=told["token"],
            alias="peer",
            index=told["rank"],
            iteration=0,
            attempt=0,
            node_id=me,
            size=len(told["members"]),
            timeout=None,
        )
        brief.direct = True
        super().__init__(client, told["token"], brief)

    def _outcome(self, message: dict[str, Any], fds: list[int]) -> Any:
        self.next = message.get("view", self.next)
        if message["k"] == "error" and message["kind"] == VIEW_OVER:
            raise ViewOver
        return outcome(message, fds)
