"""What a running daemon is told from outside: to take over its changed configuration, or to drain.

An order lies in a file of the state folder, of which SIGUSR1 tells the daemon, and its answer in
another. SIGHUP stands for `reload` where no terminal could have sent it by going away.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from typing import TYPE_CHECKING, Literal, TypeVar

import msgspec

from manta.node.capabilities import datasets
from manta.node.config import instance, load
from manta.node.config.changes import Changes, changes
from manta.node.errors import NodeError, OperatorError
from manta.transports.codec.decoders import json_decoder
from manta.transports.codec.stored import Damaged, Thing, read_stored_file

if TYPE_CHECKING:
    from collections.abc import Callable

    from manta.node.config import NodeConfig
    from manta.node.service import Node
    from manta.node.state import StateFolder

log = logging.getLogger("manta.node")

T = TypeVar("T")
SIGNAL = signal.SIGUSR1
PATIENCE = 20.0
"""Seconds in which a daemon answers."""
_LOOK = 0.02


class Order(msgspec.Struct, frozen=True):
    id: str
    act: Literal["reload", "drain"]
    deadline: float | None = None
    """Seconds after which what still runs is ended."""


class Answer(msgspec.Struct, frozen=True):
    """To the order with that id. `error`: why nothing was done."""

    id: str
    error: str = ""
    changes: Changes = Changes()


class Orders:
    """The daemon's side. Signals are handled in the main thread, which waits."""

    def __init__(self, config: NodeConfig, folder: StateFolder) -> None:
        self._config = config
        self._folder = folder
        self._node: Node | None = None
        signal.signal(SIGNAL, lambda *_: self._carry_out())
        if not _has_terminal() and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            signal.signal(signal.SIGHUP, lambda *_: self._hung_up())

    def begin(self, node: Node) -> None:
        """From now on orders are carried out."""
        self._node = node

    def _hung_up(self) -> None:
        answer = self._answered(Order("", "reload"))
        if answer.error:
            log.error("the configuration was not taken over: %s", answer.error)

    def _carry_out(self) -> None:
        try:
            order = _read(self._folder, "order", Order)
            if order is not None:
                _write(self._folder, "answer", self._answered(order))
        except (OSError, Damaged) as error:
            log.error("an order could not be read or answered: %s", error)

    def _answered(self, order: Order) -> Answer:
        if self._node is None:
            return Answer(order.id, "the node is still starting: try again.")
        try:
            if order.act == "drain":
                self._node.drain(order.deadline)
                return Answer(order.id)
            return Answer(order.id, changes=self._reload(self._node))
        except (NodeError, OSError) as error:
            return Answer(order.id, str(error))

    def _reload(self, node: Node) -> Changes:
        """Raises ConfigError."""
        found = load(self._config.path)
        if self._config.number is not None:
            found = instance(found, self._config.number)
        datasets.check(found)
        self._config, told = changes(self._config, found)
        if told.at_once or told.next_start:
            node.reconfigure(self._config)
        log.info("the configuration was read again. %s", told.sentence)
        return told


def give(name: str, folder: StateFolder, order: Order, pid: int) -> Answer:
    """Has the daemon carry out an order, and returns its answer. Raises OperatorError."""
    (folder.path / "answer.json").unlink(missing_ok=True)
    _write(folder, "order", order)
    try:
        os.kill(pid, SIGNAL)
    except PermissionError:
        raise OperatorError(f"Process {pid} is another user's: ask that user.") from None
    except ProcessLookupError:
        raise OperatorError(f"The node {name} has just ended.") from None
    return _awaited(lambda: _read(folder, "answer", Answer), order, name, folder)


def _awaited(
    read: Callable[[], Answer | None], order: Order, name: str, folder: StateFolder
) -> Answer:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        answer = read()
        if answer is not None and answer.id == order.id:
            if answer.error:
                raise OperatorError(f"The node {name} did not do it: {answer.error}")
            return answer
        time.sleep(_LOOK)
    raise OperatorError(
        f"The node {name} did not answer within {PATIENCE:g} s; see {folder.log_file}."
    )


def _read(folder: StateFolder, name: str, kind: type[T]) -> T | None:
    """Raises Damaged, OSError."""
    path = folder.path / f"{name}.json"
    thing = Thing(str(path), "what the node was told is not known", "give the order again")
    try:
        return read_stored_file(thing, json_decoder(kind).decode, path)
    except FileNotFoundError:
        return None


def _write(folder: StateFolder, name: str, what: msgspec.Struct) -> None:
    """Raises OSError."""
    path = folder.path / f"{name}.json"
    draft = path.with_suffix(".new")
    draft.write_bytes(msgspec.json.encode(what))
    os.replace(draft, path)


def _has_terminal() -> bool:
    """Whether SIGHUP says that the terminal is gone from which this process was started."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True
