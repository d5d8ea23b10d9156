"""Values too large for a message: sealed memory of this node's tasks, and copies of other nodes'.

A task hands in a memfd that nobody can change any more. Another node's plane asks for it when it is
wanted, as a bulk transfer that is written into a memfd here. Tasks are handed descriptors; the
plane copies nothing.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from manta.transports.exchange.letters import Remote
from manta.transports.exchange.messages import Parcel

SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
FUTURE_WRITE = 0x10
"""F_SEALFUTURE_WRITE of Linux 5.1: the mapping that bulk wrote through may last a while."""
MIB = 1 << 20

Then = Callable[[int, str], None]
"""Takes a descriptor, which stays the store's own, or -1 and why there is none."""


class NoRoom(Exception):
    """The node keeps no more values in memory; says how much it may and holds."""


class Unsealed(Exception):
    """The task could still change what it has handed in."""


class Carrier(Protocol):
    """What moves parcels between nodes."""

    def fetch(
        self,
        swarm_id: str,
        remote: Remote,
        transfer: bytes,
        into: memoryview,
        done: Callable[[str], None],
    ) -> None:
        """Calls `done` once, later, with why it failed or nothing."""

    def give_up(self, transfer: bytes) -> None:
        """Ends a fetch; `done` is called all the same."""


@dataclass(eq=False)
class _Copy:
    """What came, or comes, of another node's parcel."""

    fd: int
    size: int
    transfer: bytes
    is_whole: bool = False
    waiting: list[Then] = field(default_factory=list)
    is_wanted: bool = True


class Parcels:
    """`most`: bytes that are kept in memory, of this node's tasks and of others together."""

    def __init__(self, carrier: Carrier, most: int) -> None:
        self._carrier = carrier
        self._most = most
        self.size = 0
        """Bytes that are kept."""
        self._own: dict[bytes, tuple[int, int]] = {}
        """By id: descriptor and size."""
        self._copies: dict[Remote, _Copy] = {}
        self.reclaim: Callable[[Callable[[], bool]], None] | None = None
        """Has others that count here give back what they can do without, while more is wanted."""

    # --- of this node's tasks ---------------------------------------------------------------

    def take_in(self, fd: int, size: int) -> Parcel:
        """Keeps what a task handed in, as a descriptor that becomes the store's own.

        Raises Unsealed, NoRoom; then it is closed.
        """
        try:
            if fcntl.fcntl(fd, fcntl.F_GET_SEALS) & SEALS != SEALS or os.fstat(fd).st_size != size:
                raise Unsealed(f"its memory of {size} bytes is not sealed, or is of another size")
            self.take_room(size)
        except (OSError, Unsealed, NoRoom) as error:
            os.close(fd)
            if isinstance(error, OSError):
                raise Unsealed(f"its descriptor is no memory: {error.strerror}") from error
            raise
        parcel = Parcel(secrets.token_bytes(16), size)
        self._own[parcel.id] = fd, size
        return parcel

    def own(self, id_: bytes) -> int | None:
        """The descriptor of a parcel of this node, which stays the store's own."""
        found = self._own.get(id_)
        return None if found is None else found[0]

    # --- of other nodes' --------------------------------------------------------------------

    def want(self, swarm_id: str, remote: Remote, then: Then | None = None) -> None:
        """Has `then` be called with a copy, at once if it is here."""
        copy = self._copies.get(remote)
        if copy is None:
            try:
                copy = self._begin(swarm_id, remote)
            except NoRoom as error:
                if then is not None:
                    then(-1, str(error))
                return
        if copy.is_whole and then is not None:
            then(copy.fd, "")
        elif then is not None:
            copy.waiting.append(then)

    def _begin(self, swarm_id: str, remote: Remote) -> _Copy:
        """Raises NoRoom."""
        size = remote.parcel.size
        self.take_room(size)
        try:
            fd = os.memfd_create("manta-parcel", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            try:
                os.ftruncate(fd, size)
                memory = mmap.mmap(fd, size)
            except BaseException:
                os.close(fd)
                raise
        except OSError as error:
            self.size -= size
            raise NoRoom(f"The node has no memory for a value of {size} bytes: {error}.") from error
        copy = self._copies[remote] = _Copy(fd, size, secrets.token_bytes(16))
        done = partial(self._came, remote, copy)
        self._carrier.fetch(swarm_id, remote, copy.transfer, memoryview(memory), done)
        return copy

    def _came(self, remote: Remote, copy: _Copy, why: str) -> None:
        if not why and copy.is_wanted:
            fcntl.fcntl(
                copy.fd, fcntl.F_ADD_SEALS, FUTURE_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
            )
            copy.is_whole = True
        else:
            self._copies.pop(remote, None)
            self._drop(copy.fd, copy.size)
        waiting, copy.waiting = copy.waiting, []
        for then in waiting:
            then(copy.fd if copy.is_whole else -1, why)

    # --- both -------------------------------------------------------------------------------

    def release(self, value: Parcel | Remote) -> None:
        """Nobody asks for it any more."""
        if isinstance(value, Parcel):
            fd, size = self._own.pop(value.id, (-1, 0))
            if fd >= 0:
                self._drop(fd, size)
            return
        copy = self._copies.get(value)
        if copy is None:
            return
        if copy.is_whole:
            del self._copies[value]
            self._drop(copy.fd, copy.size)
        elif copy.is_wanted:
            copy.is_wanted = False
            self._carrier.give_up(copy.transfer)

    def close(self) -> None:
        for value in [Parcel(id_, size) for id_, (_, size) in self._own.items()]:
            self.release(value)
        for remote in list(self._copies):
            self.release(remote)

    def take_room(self, size: int) -> None:
        """Counts memory of that size. Raises NoRoom."""
        if self.reclaim is not None:
            self.reclaim(lambda: self.size + size > self._most)
        if self.size + size > self._most:
            raise NoRoom(
                f"This node keeps {self.size / MIB:,.1f} MiB of values that tasks send to each "
                f"other, of at most {self._most / MIB:,.1f} MiB, and a value of {size / MIB:,.1f} "
                "MiB does not fit: receive more of them first, or give the node more "
                "(value_memory_mb)."
            )
        self.size += size

    def give_room(self, size: int) -> None:
        self.size -= size

    def _drop(self, fd: int, size: int) -> None:
        os.close(fd)
        self.size -= size
