"""A daemon's log: to the console, or to a file that is rotated by size."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from manta.console.log_lines import LineFormatter
from manta.console.rotating_file import RotatingFile


def configure(level: str, *, file: Path | None, limit: int, console: bool) -> None:
    """Configure logging for the whole process."""
    handlers: list[logging.Handler] = []
    if file is not None:
        handlers.append(RotatingFile(file, limit))
    if console:
        handlers.append(logging.StreamHandler(sys.stderr))
    for handler in handlers:
        handler.setFormatter(LineFormatter())
    logging.basicConfig(level=level, handlers=handlers or [logging.NullHandler()])
