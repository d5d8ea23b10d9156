"""Reads the ends of daemons' logs and follows them across rotations."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

LOOK_AGAIN = 0.1
_LINE = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),(\d{3}) (\w+) +(.*)")


class _Tail:
    """The end of one log, which need not exist yet."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._rest = b""

    def more(self) -> list[str]:
        """Returns the complete lines since the last call."""
        lines = self._read()
        if self._turned():
            lines += self._read()  # what came between the two looks
            self.close()
            lines += self._read()
        return lines

    def _read(self) -> list[str]:
        if self._file is None:
            try:
                self._file = open(self._path, "rb")  # noqa: SIM115
            except FileNotFoundError:
                return []
        *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
        return [line.decode("utf-8", "replace") for line in lines]

    def _turned(self) -> bool:
        """Whether the log was rotated since it was opened."""
        if self._file is None:
            return False
        try:
            return os.stat(self._path).st_ino != os.fstat(self._file.fileno()).st_ino
        except FileNotFoundError:
            return False  # it is being put aside

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def read(paths: Mapping[str, Path], last: int, *, follow: bool) -> Iterator[tuple[str, str]]:
    """Yield (name, line) for the `last` lines of each log, 0 for all; `follow` adds new ones."""
    tails = {name: _Tail(path) for name, path in paths.items()}
    try:
        for name, tail in tails.items():
            lines = tail.more()
            yield from ((name, line) for line in (lines[-last:] if last else lines))
        while follow:
            time.sleep(LOOK_AGAIN)
            for name, tail in tails.items():
                yield from ((name, line) for line in tail.more())
    finally:
        for tail in tails.values():
            tail.close()


def parsed(line: str) -> dict[str, Any]:
    """Returns `at`, `level` and `text`; the first two are None after an entry's first line."""
    match = _LINE.fullmatch(line)
    if match is None:
        return {"at": None, "level": None, "text": line}
    moment, thousandths, level, text = match.groups()
    at = time.mktime(time.strptime(moment, "%Y-%m-%d %H:%M:%S")) + int(thousandths) / 1000
    return {"at": at, "level": level, "text": text}
