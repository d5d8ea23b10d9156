"""The code of functions that were written in a notebook says where: `cell of train`, line 2.

A module that the SDK has laid out of cells has a comment before each piece of them:
`# Manta: NAME, line N` says where its next line stood, and `# Manta:` that what follows stood
nowhere (`manta/apis/compile/functions/pieces.py`).
"""

from __future__ import annotations

from bisect import bisect
from os import path
from types import CodeType
from typing import NamedTuple

_MARK = "# Manta:"


class _Mark(NamedTuple):
    line: int
    """Of the comment, from 1."""
    name: str
    """Empty where what follows stood nowhere."""
    number: int
    """Of the next line, where it stood."""


def placed(code: CodeType, data: bytes, file: str) -> CodeType:
    """Returns a module's code with the names and lines of its cells, of which tracebacks show the
    text. Cells lie beside the `file`, as it were."""
    if _MARK.encode() not in data:
        return code
    lines = data.decode("utf-8", "replace").split("\n")
    marks = [*_marks(lines)]
    if not marks:
        return code
    _show(marks, lines, path.dirname(file))
    return code.replace(co_consts=_moved(code, marks, path.dirname(file)))


def _marks(lines: list[str]) -> list[_Mark]:
    found = []
    for at, line in enumerate(lines, 1):
        text = line.strip()
        name, _, number = text.removeprefix(_MARK + " ").rpartition(", line ")
        if text == _MARK:
            found.append(_Mark(at, "", 0))
        elif text.startswith(_MARK + " ") and number.isdecimal():
            found.append(_Mark(at, path.basename(name), int(number)))
    return found


def _moved(code: CodeType, marks: list[_Mark], folder: str) -> tuple[object, ...]:
    """Returns the constants of a code, of which functions and classes are."""
    return tuple(
        _named(one, marks, folder) if isinstance(one, CodeType) else one for one in code.co_consts
    )


def _named(code: CodeType, marks: list[_Mark], folder: str) -> CodeType:
    constants = _moved(code, marks, folder)
    at = bisect([mark.line for mark in marks], code.co_firstlineno) - 1
    if at < 0 or not marks[at].name:
        return code.replace(co_consts=constants)
    mark = marks[at]
    # All other lines are told relative to the first.
    return code.replace(
        co_consts=constants,
        co_filename=path.join(folder, mark.name),
        co_firstlineno=code.co_firstlineno - mark.line - 1 + mark.number,
    )


def _show(marks: list[_Mark], lines: list[str], folder: str) -> None:
    """Has tracebacks find the text of cells, as far as the module has it."""
    import linecache

    cells: dict[str, list[str]] = {}
    ends = [*(mark.line for mark in marks[1:]), len(lines) + 1]
    for mark, end in zip(marks, ends, strict=True):
        if mark.name:
            cell = cells.setdefault(path.join(folder, mark.name), [])
            piece = lines[mark.line : end - 1]
            cell += ["\n"] * (mark.number - 1 + len(piece) - len(cell))
            cell[mark.number - 1 : mark.number - 1 + len(piece)] = [f"{one}\n" for one in piece]
    for name, text in cells.items():
        # None: it is not looked for on disk.
        linecache.cache[name] = (sum(map(len, text)), None, text, name)
