"""How a daemon's log is written: what others wrote can neither begin an entry nor hide one."""

from __future__ import annotations

import logging
from typing import Any

from manta.console.visible import visible, visible_lines

LONGEST = 16 * 1024
"""Characters of a message or traceback."""
FORMAT = "%(asctime)s %(levelname)-7s %(message)s"


class LineFormatter(logging.Formatter):
    """An entry is one line; a traceback follows it, indented."""

    def __init__(self) -> None:
        super().__init__(FORMAT)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        record.message = visible(_cut(record.message))
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return _indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802
        return _indented(super().formatStack(stack_info))


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in visible_lines(_cut(text)))


def _cut(text: str) -> str:
    """Before each character is looked at, which takes its time."""
    if len(text) <= LONGEST:
        return text
    return f"{text[:LONGEST]} ... ({len(text)} characters, cut)"
