"""Parses programs, from any thread."""

from __future__ import annotations

import ast

_TRIES = 10


def parse(source: str | bytes) -> ast.Module | None:
    """Returns None for what Python can't parse; whoever runs it says why."""
    try:
        for _ in range(_TRIES - 1):
            try:
                return ast.parse(source)
            except SystemError:
                # Before 3.11.8, threads that parse at the same time may disturb each other
                # (https://github.com/python/cpython/issues/106905).
                continue
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
