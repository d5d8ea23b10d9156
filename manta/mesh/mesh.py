"""Peers that talk to each other with no manager.

    from manta import Mesh

    with Mesh.join(peers=["10.0.0.7:4711"], secret="...") as mesh:
        mesh.wait(8)
        print(mesh.all_reduce(1))

What peers say to each other is what tasks say in `world`, with the same words, and goes the same
ways. `rank`, `size` and `peers` are those of the *view*, on which all its members agree: they
change only within `wait` and collectives, at the same call for all.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from manta.light import arguments
from manta.light.collectives.world import waiting_time
from manta.light.context import Context, here, usage
from manta.light.exchange import Exchange, Peer
from manta.mesh.client import Client, ViewCalls, ViewOver
from manta.mesh.settings import KEY, SECRET, Keys, settings

if TYPE_CHECKING:  # most use none of them, and begin the sooner
    from manta.mesh.coordinators import Coordinator, Leader, Market, Sharing

T = TypeVar("T")
C = TypeVar("C", bound="Coordinator[Any]")
LEAVING = 30.0
"""Seconds for which a peer that leaves gives others what they need of it."""

_world = Exchange()
_joined: weakref.WeakSet[Mesh] = weakref.WeakSet()


class Mesh:
    """A peer in a mesh; made by `join`. Any thread may use it; collectives are made by one thread
    at a time. A context manager, which leaves at its end."""

    def __init__(self, client: Client, told: dict[str, Any]) -> None:
        self._client = client
        self.id: str = told["id"]
        """16 characters, which follow from this peer's key."""
        self.name: str = told["name"]
        self.address: str = told["door"]
        """HOST:PORT where others join by this peer."""
        self.key: str = told["key"]
        """This peer's public key."""
        self._calling = threading.RLock()
        self._left_out: dict[int, str] = {}
        self._coordinators: weakref.WeakSet[Coordinator[Any]] = weakref.WeakSet()
        self._view = ViewCalls(client, self.id, told["view"])
        _joined.add(self)

    @classmethod
    def join(
        cls,
        listen: str | None = None,
        peers: str | Iterable[str] = (),
        secret: str | Keys | None = None,
        name: str | None = None,
        topology: Any = "full",
        timeout: float = 30.0,
    ) -> Mesh:
        """Joins a mesh by any of its peers, or begins one where no peers are given.

        `listen`: the host, with or without a port, where others reach this peer (127.0.0.1, at a
        free port); the two ports after it are taken as well. `peers`: HOST:PORT of members, of
        which one is enough. `secret`: what all peers know, or `Keys`. `topology`: "full", "ring",
        "star", "torus", "random-regular", or pairs of ranks: who may send letters to whom, and
        hears whose broadcasts. What is left out comes from `MANTA_MESH_LISTEN`, `_PEERS`,
        `_SECRET`, `_NAME` and `_TOPOLOGY`; with `MANTA_MESH_SIZE` it waits for so many peers. In a
        task, without `listen`, `peers` and `secret`, the other instances of the task in this
        iteration are the peers, and all of them are waited for. `timeout` is in seconds. Raises
        JoinFailed, and Timeout where the peers do not come.
        """
        timeout = arguments.seconds("timeout", timeout)
        until = time.monotonic() + timeout
        task = None
        given = listen or peers or secret or SECRET in os.environ or KEY in os.environ
        if usage.context is not None and not given:
            from manta.mesh.tasks import TaskPeer

            task = TaskPeer(usage.context)
            secret, name = task.secret, name or task.name
        found = settings(listen, peers, secret, name, topology)
        client = Client.begin() if task is None else task.begin(until)
        try:
            told = client.join({**found.join(timeout), "faults": found.faults, "size": found.size})
            mesh = cls(client, told)
            size = found.size if task is None else task.meet(client, told["doors"], until)
            if size > 1:
                mesh.wait(size, max(0.1, until - time.monotonic()))
        except BaseException:
            client.leave(0.0)
            raise
        return mesh

    def leave(self) -> None:
        """Leaves in good order: once the others have all that they need of this peer, or after 30
        s, of which the log tells then. The second time it does nothing."""
        _joined.discard(self)
        for one in list(self._coordinators):
            one.close()
        self._client.leave(LEAVING)
        self._view.close()

    def __enter__(self) -> Mesh:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def __repr__(self) -> str:
        return f"Mesh({self.name!r}, rank {self.rank} of {self.size})"

    @property
    def has_ended(self) -> bool:
        """Whether the mesh was left, or this peer's process has ended."""
        return self._client.is_gone

    # --- who is there ---------------------------------------------------------------------------

    @property
    def rank(self) -> int:
        """This peer's number in the view, from 0."""
        return self._view.brief.index

    @property
    def size(self) -> int:
        """How many peers are in the view."""
        return self._view.brief.size

    @property
    def peers(self) -> list[Peer]:
        """All in the view by rank, this one among them. Each can stand where an id can."""
        members = self._view.told["members"]
        share = 1 / len(members)
        return [Peer(rank, id_, name, share) for rank, (id_, name) in enumerate(members)]

    @property
    def neighbors(self) -> list[Peer]:
        """Those that the topology joins to this one, by rank."""
        peers = self.peers
        return [peers[rank] for rank in self._view.told["neighbors"]]

    @property
    def left_out(self) -> dict[int, str]:
        """The ranks, in the view in which it was made, whose values are not in this peer's last
        collective, and why."""
        return dict(self._left_out)

    def wait(self, size: int, timeout: float | None = None) -> None:
        """Waits until at least `size` peers are in the view. Raises Timeout, naming who is."""
        size = arguments.whole("size", size)
        left = waiting_time(timeout) if timeout is not None else 300.0
        with self._calling:
            told = self._client.request("wait", left, size=size, timeout=left)
            self._enter(told["view"])

    def events(self, timeout: float | None = None) -> Iterator[dict[str, Any]]:
        """What happens, as dicts with "event", "time" and what it is about: joined, suspected,
        alive, died, back, left, moved, view. Ends when the mesh is left, or after `timeout`
        seconds without any."""
        return self._client.events(timeout)

    def status(self) -> dict[str, Any]:
        """All that this peer knows of the others: states, links, bytes, round trips in seconds."""
        found: dict[str, Any] = self._client.request("status")["status"]
        return found

    # --- one to one, one to all -----------------------------------------------------------------

    def send(self, peer: str, tag: str, value: Any, timeout: float | None = None) -> None:
        """`world.send_to_node`, to a peer by its id or name."""
        with _through(self._client.letters):
            _world.send_to_node(peer, tag, value, timeout)

    def receive(self, peer: str, tag: str, timeout: float | None = None) -> Any:
        """`world.receive_from_node`."""
        with _through(self._client.letters):
            return _world.receive_from_node(peer, tag, timeout)

    def broadcast(self, tag: str, value: Any) -> None:
        """`world.broadcast`: to all, or to the neighbors."""
        with _through(self._client.letters):
            _world.broadcast(tag, value)

    def get_broadcast(self, tag: str, timeout: float | None = None) -> Any:
        """`world.get_broadcast`: the latest."""
        with _through(self._client.letters):
            return _world.get_broadcast(tag, timeout)

    # --- together -------------------------------------------------------------------------------

    def leader(self, name: str = "") -> Leader:
        """Takes part in agreeing on who leads: of the peers that are alive the one with the lowest
        id, in an epoch of its own. All peers of the mesh are to take part."""
        from manta.mesh.coordinators import Leader

        return self._coordinates(Leader(self._client, name, self.id))

    def share(self, items: int, name: str = "", owners: Sequence[str] | None = None) -> Sharing:
        """Divides so many items, up to 10,000, among the peers: each is done once, or again where
        its worker was lost. They are divided at first among `owners`, all that are in the view
        unless it is said: who comes later gives those of another's. Raises ValueError."""
        from manta.mesh.coordinators import Sharing

        among = [peer.node_id for peer in self.peers] if owners is None else list(owners)
        return self._coordinates(Sharing(self._client, name, self.id, items, among))

    def market(self, capacity: int, name: str = "") -> Market:
        """Takes part in handing work out by offered capacity: so many units this peer does at the
        same time. Raises ValueError."""
        from manta.mesh.coordinators import Market

        return self._coordinates(Market(self._client, name, self.id, capacity))

    def _coordinates(self, new: C) -> C:
        self._coordinators.add(new)
        return new

    # --- collectives ----------------------------------------------------------------------------

    def all_reduce(
        self,
        value: Any,
        op: str = "sum",
        on_peer_lost: str = "raise",
        dtype: Any = None,
        timeout: float | None = None,
        private: bool = False,
    ) -> Any:
        """`world.all_reduce`, over all in the view."""
        return self._call(
            lambda: _world.all_reduce(value, op, on_peer_lost, dtype, timeout, private)
        )

    def reduce_scatter(
        self, value: Any, op: str = "sum", timeout: float | None = None, dtype: Any = None
    ) -> Any:
        """`world.reduce_scatter`."""
        return self._call(lambda: _world.reduce_scatter(value, op, timeout, dtype))

    def all_gather(self, value: Any, timeout: float | None = None) -> list[Any]:
        """`world.all_gather`."""
        return self._call(lambda: _world.all_gather(value, timeout))

    def gather(
        self,
        value: Any,
        root: int = 0,
        quorum: float | str | None = None,
        deadline: float | str | None = None,
        timeout: float | None = None,
    ) -> list[Any] | dict[int, Any] | None:
        """`world.gather`."""
        return self._call(lambda: _world.gather(value, root, quorum, deadline, timeout))

    def scatter(
        self, values: Sequence[Any] | None = None, root: int = 0, timeout: float | None = None
    ) -> Any:
        """`world.scatter`."""
        return self._call(lambda: _world.scatter(values, root, timeout))

    def barrier(self, timeout: float | None = None) -> None:
        """`world.barrier`."""
        self._call(lambda: _world.barrier(timeout))

    @contextmanager
    def lock(self, name: str, timeout: float | None = None) -> Iterator[None]:
        """`world.lock`: in one peer of the mesh at a time; each side of a partition has its own."""
        taken = _world.lock(name, timeout)
        with _through(self._client.letters):
            taken.__enter__()
        try:
            yield
        finally:
            with _through(self._client.letters):
                taken.__exit__(None, None, None)

    def _call(self, call: Callable[[], T]) -> T:
        with self._calling:
            while True:
                view = self._view
                try:
                    with _through(view):
                        return call()
                except ViewOver:
                    view.next = self._client.request("wait", 1.0, size=0, timeout=1.0)["view"]
                finally:
                    self._left_out = view.brief.left_out
                    if view.next is not None:
                        self._enter(view.next)

    def _enter(self, told: dict[str, Any]) -> None:
        if told["token"] != self._view.told["token"]:
            former, self._view = self._view, ViewCalls(self._client, self.id, told)
            former.close()


@contextmanager
def _through(context: Context) -> Iterator[None]:
    """What is called within speaks through that."""
    before, here.context = here.context, context
    try:
        yield
    finally:
        here.context = before


@atexit.register
def _leave_all() -> None:
    for mesh in list(_joined):
        mesh.leave()
