"""Datasets that a configuration describes beside where they lie: tables `[[dataset]]`.

What they say of one is its owner's word. Its version and digest are told wherever datasets are, and
go into what is recorded of the attempts that use it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from manta.node.errors import Flaw

SECTION = "dataset"
MOST = 1000
"""Tables."""
LONGEST = 1000
"""Characters of a text, and columns of a schema."""
_DIGEST = re.compile("[0-9a-f]{64}")
_HEADER = re.compile(r"\s*\[\[\s*dataset\s*\]\]\s*(?:#.*)?")
_ANY_HEADER = re.compile(r"\s*\[.*")
_KEY = re.compile(r"""\s*["']?([\w-]+)["']?\s*=""")

Substitute = Callable[[tuple[str, ...], str], str | None]
"""A text with its variables replaced; None where one is not set, which is then a flaw."""


@dataclass(frozen=True)
class Described:
    """`schema` has the type of each column, `rows` how many there are, `digest` the BLAKE3 of the
    file in hexadecimal digits; "" and None: not said."""

    format: str = ""
    schema: Mapping[str, str] = field(default_factory=dict)
    rows: int | None = None
    digest: str = ""
    version: str = ""

    def shown(self) -> dict[str, Any]:
        """What is said of it, as its table has it."""
        return {one.name: value for one in fields(self) if (value := getattr(self, one.name))}


class DatasetTables:
    """Reads them. Flaws are collected; where there are any, what was found is of no use."""

    def __init__(self, text: str, substitute: Substitute, flaws: list[Flaw]) -> None:
        self._lines = _lines(text)
        self._substitute = substitute
        self._flaws = flaws
        self.paths: dict[str, str] = {}
        self.described: dict[str, Described] = {}

    def read(self, tables: Any, mapped: Mapping[str, Any]) -> None:
        """`mapped` are the names of others."""
        if not isinstance(tables, list) or not all(isinstance(one, dict) for one in tables):
            self._flaw(0, "", "dataset is no list of tables", "write [[dataset]] before each")
            return
        if len(tables) > MOST:
            self._flaw(0, "", f"there are {len(tables):,} datasets", f"{MOST:,} are possible")
        for number, table in enumerate(tables[:MOST]):
            self._read(number, table, mapped)

    def _read(self, number: int, table: Mapping[str, Any], mapped: Mapping[str, Any]) -> None:
        found: dict[str, Any] = {}
        for key, value in table.items():
            if key not in _KEYS:
                near = difflib.get_close_matches(key, _KEYS, 1, 0.5)
                hint = f"did you mean {near[0]!r}?" if near else f"it may be: {', '.join(_KEYS)}"
                self._flaw(number, key, f"there is no key {key!r}", hint)
                continue
            try:
                found[key] = _KEYS[key](value)
            except ValueError as error:
                self._flaw(number, key, f"{SECTION}.{key} is {value!r}", str(error))
        lacks = [key for key in ("name", "path") if key not in table]
        for key in lacks:
            self._flaw(number, "", f"a dataset has no {key}", f"write {key} = ...")
        name, path = found.pop("name", None), found.pop("path", None)
        if name is None or path is None:
            return
        if name in mapped or name in self.paths:
            self._flaw(number, "name", f"there are two datasets {name!r}", "call one otherwise")
            return
        before = len(self._flaws)
        text = self._substitute((SECTION, "path"), path)
        for at in range(before, len(self._flaws)):
            flaw = self._flaws[at]
            line = self._line(number, "path")
            self._flaws[at] = Flaw(flaw.wrong, flaw.remedy, flaw.where, line)
        if text is not None:
            self.paths[name], self.described[name] = text, Described(**found)

    def _line(self, number: int, key: str) -> int | None:
        return self._lines.get((number, key)) or self._lines.get((number, ""))

    def _flaw(self, number: int, key: str, wrong: str, remedy: str) -> None:
        where = (SECTION, key) if key else (SECTION,)
        self._flaws.append(Flaw(wrong, remedy, where, self._line(number, key)))


def _lines(text: str) -> dict[tuple[int, str], int]:
    """Where each table's keys are, by its number and theirs; "" is the table itself. Lines count
    from 1."""
    found: dict[tuple[int, str], int] = {}
    number, inside = -1, False
    for at, line in enumerate(text.splitlines(), 1):
        if _HEADER.fullmatch(line):
            number, inside = number + 1, True
            found[number, ""] = at
        elif _ANY_HEADER.match(line):
            inside = False
        elif inside and (key := _KEY.match(line)):
            found.setdefault((number, key[1]), at)
    return found


# What keys may say. Each raises ValueError with the remedy.


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value or len(value) > LONGEST:
        raise ValueError(f"it must be a text in quotes of at most {LONGEST:,} characters")
    return value


def _schema(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not value or len(value) > LONGEST:
        raise ValueError('it must be a table such as {age = "int", name = "text"}')
    return {_text(name): _text(kind) for name, kind in value.items()}


def _rows(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError("it must be a whole number of at least 0")
    return value


def _digest(value: Any) -> str:
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        raise ValueError("it must be the 64 hexadecimal digits that `b3sum FILE` prints")
    return value


_KEYS: dict[str, Callable[[Any], Any]] = {
    "name": _text,
    "path": _text,
    "format": _text,
    "schema": _schema,
    "rows": _rows,
    "digest": _digest,
    "version": _text,
}
