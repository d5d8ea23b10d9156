"""The logger that task code writes to. Imported when a task first asks for it."""

from __future__ import annotations

import logging
import os

import msgpack

from manta.light.context import usage
from manta.light.wire import MAX_LOG_TEXT

NAME = "manta.task"


def logger() -> logging.Logger:
    """The task's logger. It passes all levels on, unless its user sets one."""
    log = logging.getLogger(NAME)
    if usage.log_sink is not None and not any(isinstance(h, NodeHandler) for h in log.handlers):
        log.addHandler(NodeHandler())
        log.propagate = False
        if log.level == logging.NOTSET:
            log.setLevel(logging.DEBUG)
    return log


class NodeHandler(logging.Handler):
    """Sends each record as one datagram to the node, for the attempt that is running."""

    def emit(self, record: logging.LogRecord) -> None:
        sink = usage.log_sink
        if sink is None:  # between two attempts of a resident object
            return
        try:
            text = self.format(record)[:MAX_LOG_TEXT].encode("utf-8", "replace").decode()
            os.write(sink, msgpack.packb([record.created, record.levelname.lower(), text]))
        except Exception:
            self.handleError(record)
