"""What task code logs. Imported after `logging` in the process of a task: most never need it.

Python's root logger keeps to what the user's code sets up. As long as that sets up nothing, records
from INFO on reach the user: it is `logging.lastResort`, of which `basicConfig` and all else that
looks for handlers sees nothing, that sends them. The task's own logger lies outside the tree of
loggers, so that neither `dictConfig` nor `logging.disable` reaches it.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

import msgpack

from manta.light.context import usage
from manta.light.wire import MAX_LOG_TEXT, whole_characters

NAME = "manta.task"
_LONGEST_LEVEL = 64


class NodeHandler(logging.Handler):
    """Sends records to the node, for the attempt that is running; outside one, to stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record).encode("utf-8", "replace")
            level = record.levelname.lower()[:_LONGEST_LEVEL].encode("utf-8", "replace").decode()
            while True:
                at, rest = _cut(text)
                _send(record.created, level, text[:at].decode())
                if not rest:
                    break
                text = rest
        except Exception:
            self.handleError(record)


def _cut(text: bytes) -> tuple[int, bytes]:
    """How much of a text fits into a datagram, and the rest: whole lines, if there are any."""
    if len(text) <= MAX_LOG_TEXT:
        return len(text), b""
    line = text.rfind(b"\n", 1, MAX_LOG_TEXT)
    if line > 0:
        return line, text[line + 1 :]
    at = whole_characters(text, MAX_LOG_TEXT)
    return at, text[at:]


def _send(at: float, level: str, text: str) -> None:
    sink = usage.log_sink
    if sink is not None:
        try:
            os.write(sink, msgpack.packb([at, level, text]))
            return
        except OSError:  # the attempt has just ended, or its code closed what it did not know
            pass
    sys.stderr.write(f"{text}\n")


class _TaskLogger(logging.Logger):
    def __reduce__(self) -> Any:
        """Sent to another process, it is the logger of that process."""
        return _named, (self.name,)


def _named(name: str) -> logging.Logger:
    return _loggers.getLogger(name)


_loggers = logging.Manager(logging.root)
_loggers.setLoggerClass(_TaskLogger)


def logger() -> logging.Logger:
    """The task's logger. On a node it passes all levels on, unless its user sets one; elsewhere
    it is a logger like others."""
    log = _named(NAME)
    if usage.is_on_node and not any(isinstance(handler, NodeHandler) for handler in log.handlers):
        log.addHandler(NodeHandler())
        log.propagate = False
        if log.level == logging.NOTSET:
            log.setLevel(logging.DEBUG)
    return log


def _reach_node() -> None:
    """Has what is logged in this process reach the user."""
    last_resort: Any = NodeHandler()
    logging.lastResort = last_resort
    logging.root.setLevel(logging.INFO)


if usage.is_on_node:
    _reach_node()
