"""A unit of work: one change of what is both held in memory and stored."""

from __future__ import annotations

from collections.abc import Callable, Hashable, MutableMapping
from typing import Any, TypeVar

from manta.actors import Refused, Reply
from manta.manager.errors import StoreError
from manta.manager.store.actor import Writer
from manta.manager.store.interface import Delete, Put, Write
from manta.manager.store.records import Record, key_of
from manta.protocol.codes import Code

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
R = TypeVar("R", bound=Record)


_NOTHING: Any = object()
"""What a key holds that is not there."""


class _Held:
    """The value of one key: as it is stored, or as a change under way has left it."""

    def __init__(self, value: Any) -> None:
        self.value = value


class Change:
    """Changes memory at once, then the store; if the store cannot take it, memory is restored.

    Of two changes under way together, the second therefore sees the first, and they cannot both
    pass where only one may.
    """

    def __init__(self, writer: Writer, failed: str = "Nothing was changed") -> None:
        """`failed` begins the sentence of the refusal."""
        self._writer = writer
        self._failed = failed
        self._writes: list[Write] = []
        self._undo: list[Callable[[], object]] = []
        self._settle: list[Callable[[], object]] = []

    def put(self, table: MutableMapping[str, R], record: R) -> None:
        """Enters the record under its key, and stores it."""
        self.set(table, key_of(record), record)
        self.write(Put(record))

    def delete(self, table: MutableMapping[str, R], record: R) -> None:
        """Removes the record, also from the store."""
        self.remove(table, key_of(record))
        self.write(Delete(type(record), key_of(record)))

    # In memory alone. What is refused leaves what a later change has put there, and when that is
    # refused as well, what was there before both is back.

    def set(self, table: MutableMapping[K, V], key: K, value: V) -> None:
        self._hold(table, key, value)

    def remove(self, table: MutableMapping[K, V], key: K) -> None:
        self._hold(table, key, _NOTHING)

    def _hold(self, table: MutableMapping[K, Any], key: K, value: Any) -> None:
        place = (id(table), key)
        before = table.get(key, _NOTHING)
        chain = self._writer.unsettled.setdefault(place, [_Held(before)])
        held = _Held(value)
        chain.append(held)
        _show(table, key, value)

        def settle() -> None:
            chain.remove(held)
            if len(chain) == 1:
                self._writer.unsettled.pop(place, None)

        def stored() -> None:
            chain[0].value = value
            settle()

        def undo() -> None:
            settle()
            if table.get(key, _NOTHING) is value:
                _show(table, key, chain[-1].value)

        self._settle.append(stored)
        self._undo.append(undo)

    def on_refusal(self, step: Callable[[], object]) -> None:
        """Calls the step if the change is not stored; the last one first."""
        self._undo.append(step)

    # In the store.

    def write(self, *writes: Write) -> None:
        self._writes += writes

    def commit(self, reply: Reply, stored: Callable[[], object]) -> None:
        """Stores the change; then calls `stored`, or undoes it and fails the reply with Refused."""

        def then(error: StoreError | None) -> None:
            if error is None:
                for settle in self._settle:
                    settle()
                stored()
                return
            for step in reversed(self._undo):
                step()
            reply.fail(Refused(Code.STORAGE, f"{self._failed}: {error}"))

        self._writer.write(*self._writes, then=then)

    def commit_lasting(self, reply: Reply, stored: Callable[[], object]) -> None:
        """For what takes something away: where it cannot be stored, it is in effect all the same,
        and is stored as soon as that is possible. The reply says so, by failing with Refused."""
        acted = False

        def then(error: StoreError | None) -> None:
            nonlocal acted
            if error is not None:
                reply.fail(not_stored_yet(error))
            else:
                for settle in self._settle:
                    settle()
            if not acted:
                acted = True
                stored()

        self._writer.write(*self._writes, then=then, keep=True)
        if self._writer.trouble is not None:
            then(self._writer.trouble)


def not_stored_yet(error: StoreError) -> Refused:
    return Refused(
        Code.STORAGE,
        f"It is in effect, and not stored yet: {error} It is stored as soon as that is possible; "
        "a manager that ends before does not know of it.",
    )


def _show(table: MutableMapping[K, Any], key: K, value: Any) -> None:
    if value is _NOTHING:
        table.pop(key, None)
    else:
        table[key] = value
