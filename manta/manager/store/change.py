"""A unit of work: one change of what is both held in memory and stored."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import TypeVar

from manta.actors import Refused, Reply
from manta.manager.errors import StoreError
from manta.manager.store.actor import Writer
from manta.manager.store.interface import Delete, Put, Write
from manta.manager.store.records import Record, key_of
from manta.protocol.codes import Code

K = TypeVar("K")
V = TypeVar("V")
R = TypeVar("R", bound=Record)


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

    def put(self, table: MutableMapping[str, R], record: R) -> None:
        """Enters the record under its key, and stores it."""
        self.set(table, key_of(record), record)
        self.write(Put(record))

    def delete(self, table: MutableMapping[str, R], record: R) -> None:
        """Removes the record, also from the store."""
        self.remove(table, key_of(record))
        self.write(Delete(type(record), key_of(record)))

    # In memory alone. Undoing leaves what another change has put there since.

    def set(self, table: MutableMapping[K, V], key: K, value: V) -> None:
        before = table.get(key)
        table[key] = value

        def undo() -> None:
            if table.get(key) is not value:
                return
            if before is None:
                del table[key]
            else:
                table[key] = before

        self.on_refusal(undo)

    def remove(self, table: MutableMapping[K, V], key: K) -> None:
        value = table.pop(key)
        self.on_refusal(lambda: table.setdefault(key, value))

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
                stored()
                return
            for step in reversed(self._undo):
                step()
            reply.fail(Refused(Code.STORAGE, f"{self._failed}: {error}"))

        self._writer.write(*self._writes, then=then)
