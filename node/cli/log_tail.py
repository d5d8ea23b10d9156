"""The ends of daemons' logs, and what is added to them, across the moment a log is put aside."""

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
    """One log; it need not be there yet."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._rest = b""

    def more(self) -> list[str]:
        """The whole lines since the last call."""
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
        """Whether another file has its name by now."""
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
    """(name, line): the `last` lines of each log (0: all), then, with `follow`, each new one."""
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
    """`at`, `level` and `text`; the first two are None in the further lines of an entry."""
    match = _LINE.fullmatch(line)
    if match is None:
        return {"at": None, "level": None, "text": line}
    moment, thousandths, level, text = match.groups()
    at = time.mktime(time.strptime(moment, "%Y-%m-%d %H:%M:%S")) + int(thousandths) / 1000
    return {"at": at, "level": level, "text": text}
