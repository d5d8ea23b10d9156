"""A mesh for asyncio: `Mesh`, with coroutines for all that waits.

    from manta import AsyncMesh

    async with AsyncMesh.join(peers=["10.0.0.7:4711"], secret="...") as mesh:
        await mesh.wait(8)
        total = await mesh.all_reduce(1)

Each coroutine runs the method of the same name on a thread of the mesh's own. One that is cancelled
goes on there to its end, as a collective that was begun counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import update_wrapper
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from manta.light.exchange import Peer
from manta.mesh.mesh import Mesh
from manta.mesh.settings import Keys

if TYPE_CHECKING:  # not everywhere is there what these need
    from manta.mesh.aio_coordinators import AsyncLeader, AsyncMarket, AsyncSharing

P = ParamSpec("P")
T = TypeVar("T")
THREADS = 32
"""Calls of one mesh that wait at the same time; further ones wait for their turn."""
_LOOK = 0.5
"""Seconds after which a wait for events looks whether it is wanted yet."""


def _awaited(
    method: Callable[Concatenate[Mesh, P], T],
) -> Callable[Concatenate[AsyncMesh, P], Coroutine[Any, Any, T]]:
    """That method of `Mesh` as a coroutine, with its arguments."""

    async def call(self: AsyncMesh, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._run(lambda: method(self._mesh, *args, **kwargs))

    update_wrapper(call, method)
    return call


class Joining:
    """Awaited, or entered by `async with`, it joins."""

    def __init__(self, join: Callable[[], Mesh]) -> None:
        self._join = join
        self._mesh: AsyncMesh | None = None

    def __await__(self) -> Generator[Any, None, AsyncMesh]:
        return self._joined().__await__()

    async def _joined(self) -> AsyncMesh:
        threads = ThreadPoolExecutor(THREADS, "manta-mesh-async")
        try:
            mesh = await asyncio.get_running_loop().run_in_executor(threads, self._join)
        except BaseException:
            threads.shutdown(wait=False)
            raise
        return AsyncMesh(mesh, threads)

    async def __aenter__(self) -> AsyncMesh:
        self._mesh = await self
        return self._mesh

    async def __aexit__(self, *_: object) -> None:
        if self._mesh is not None:
            await self._mesh.leave()


class AsyncMesh:
    """A peer in a mesh; made by `join`. What does not wait is as in `Mesh`."""

    def __init__(self, mesh: Mesh, threads: ThreadPoolExecutor) -> None:
        self._mesh = mesh
        self._threads = threads

    @classmethod
    def join(
        cls,
        listen: str | None = None,
        peers: str | Iterable[str] = (),
        secret: str | Keys | None = None,
        name: str | None = None,
        topology: Any = "full",
        timeout: float = 30.0,
    ) -> Joining:
        """`Mesh.join`, to be awaited or entered by `async with`."""
        return Joining(lambda: Mesh.join(listen, peers, secret, name, topology, timeout))

    async def _run(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    async def leave(self) -> None:
        """Leaves in good order; the second time it does nothing."""
        await asyncio.to_thread(self._mesh.leave)
        self._threads.shutdown(wait=False)

    def __repr__(self) -> str:
        return f"Async{self._mesh!r}"

    @property
    def id(self) -> str:
        """16 characters, which follow from this peer's key."""
        return self._mesh.id

    @property
    def name(self) -> str:
        """What others call it."""
        return self._mesh.name

    @property
    def address(self) -> str:
        """HOST:PORT where others join by this peer."""
        return self._mesh.address

    @property
    def key(self) -> str:
        """This peer's public key."""
        return self._mesh.key

    @property
    def rank(self) -> int:
        """This peer's number in the view, from 0."""
        return self._mesh.rank

    @property
    def size(self) -> int:
        """How many peers are in the view."""
        return self._mesh.size

    @property
    def peers(self) -> list[Peer]:
        """All in the view by rank, this one among them."""
        return self._mesh.peers

    @property
    def neighbors(self) -> list[Peer]:
        """Those that the topology joins to this one, by rank."""
        return self._mesh.neighbors

    @property
    def left_out(self) -> dict[int, str]:
        """The ranks whose values are not in this peer's last collective, and why."""
        return self._mesh.left_out

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """Ends when the mesh is left."""
        while True:
            events = self._mesh.events(_LOOK)
            event = await self._run(lambda events=events: next(events, None))  # type: ignore[misc]
            if event is not None:
                yield event
            elif self._mesh.has_ended:
                return

    wait = _awaited(Mesh.wait)
    status = _awaited(Mesh.status)
    send = _awaited(Mesh.send)
    receive = _awaited(Mesh.receive)
    broadcast = _awaited(Mesh.broadcast)
    get_broadcast = _awaited(Mesh.get_broadcast)
    all_reduce = _awaited(Mesh.all_reduce)
    reduce_scatter = _awaited(Mesh.reduce_scatter)
    all_gather = _awaited(Mesh.all_gather)
    gather = _awaited(Mesh.gather)
    scatter = _awaited(Mesh.scatter)
    barrier = _awaited(Mesh.barrier)

    @asynccontextmanager
    async def leader(self, name: str = "") -> AsyncIterator[AsyncLeader]:
        """`Mesh.leader`."""
        from manta.mesh.aio_coordinators import AsyncLeader

        with await self._run(lambda: self._mesh.leader(name)) as made:
            yield AsyncLeader(made)

    @asynccontextmanager
    async def share(
        self, items: int, name: str = "", owners: Sequence[str] | None = None
    ) -> AsyncIterator[AsyncSharing]:
        """`Mesh.share`."""
        from manta.mesh.aio_coordinators import AsyncSharing

        made = await self._run(lambda: self._mesh.share(items, name, owners))
        try:
            yield AsyncSharing(made)
        finally:
            await asyncio.to_thread(made.close)

    @asynccontextmanager
    async def market(self, capacity: int, name: str = "") -> AsyncIterator[AsyncMarket]:
        """`Mesh.market`."""
        from manta.mesh.aio_coordinators import AsyncMarket

        with await self._run(lambda: self._mesh.market(capacity, name)) as made:
            yield AsyncMarket(made)

    @asynccontextmanager
    async def lock(self, name: str, timeout: float | None = None) -> AsyncIterator[None]:
        """Held by one task of this peer at a time."""
        one = ThreadPoolExecutor(1, "manta-mesh-lock")  # a lock is its thread's
        loop = asyncio.get_running_loop()
        taken = self._mesh.lock(name, timeout)
        try:
            await loop.run_in_executor(one, taken.__enter__)
            try:
                yield
            finally:
                await loop.run_in_executor(one, taken.__exit__, None, None, None)
        finally:
            one.shutdown(wait=False)
