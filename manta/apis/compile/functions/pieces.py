"""Lays out pieces of source as one module."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from typing import NamedTuple

from manta.apis.compile.functions.texts import Place, Text, first_line

MARK = "# Manta:"
"""Begins a comment that says where the next line stood, or, alone, that what follows is added."""


class Piece(NamedTuple):
    """Lines of the module, and where they come from."""

    place: Place
    lines: tuple[str, ...]

    @property
    def first(self) -> int:
        return first_line(self.place.node)


def piece_of(place: Place, without: Iterable[ast.expr] = ()) -> Piece:
    """The lines of a statement as they are written, but some of its decorators."""
    node, text = place.node, place.text
    assert node.end_lineno is not None
    first = first_line(node)
    if {first, node.end_lineno} & text.shared:
        return Piece(place, tuple(ast.unparse(node).split("\n")))
    lines = text.lines[first - 1 : node.end_lineno]
    for one in without:
        assert one.end_lineno is not None
        for number in range(one.lineno, one.end_lineno + 1):
            lines[number - first] = ""
    return Piece(place, tuple(lines))


def source_of(piece: Piece) -> str:
    """Source that can be parsed on its own."""
    return "\n".join((*(("if True:",) if is_indented(piece) else ()), *piece.lines)) + "\n"


def is_indented(piece: Piece) -> bool:
    return next(line for line in piece.lines if line.strip())[:1].isspace()


def laid_out(pieces: Iterable[Piece], first: Iterable[str], last: Iterable[str]) -> str:
    """Returns a module: the `first` lines, the pieces in the order of their places, the `last`.

    The pieces of a file stand on the lines on which they stand there, so that tracebacks lead to
    them, where the `first` lines fit into a gap before them. Those of cells follow comments by
    which nodes find the lines (`light/runtime/cells.py`). These have no numbers of cells, which
    are others when a cell is run again: the module stays the same.
    """
    ordered = sorted(set(pieces), key=lambda one: (one.place.order, one.first))
    lines = None
    is_file = ordered[0].place.text.file is not None
    if is_file:
        lines = _in_place(ordered, [*first])
    if lines is None:
        lines = [*first]
        titles = _titles(ordered)
        for one in ordered:
            name = one.place.text.name if is_file else titles[one.place.text]
            where = f"{name}, line {one.first}"
            lines += ["", *(("if True:",) if is_indented(one) else ())]
            lines += [f"# {where}" if is_file else f"{MARK} {where}", *one.lines]
        lines += [] if is_file else ["", MARK]
    return "\n".join([*lines, *last]) + "\n"


def _titles(ordered: list[Piece]) -> dict[Text, str]:
    """By cell; cells of the same title are numbered."""
    found = dict[Text, str]()
    for text in dict.fromkeys(one.place.text for one in ordered):
        alike = sum(one.title == text.title for one in found)
        found[text] = f"{text.title} ({alike + 1})" if alike else text.title
    return found


def _in_place(ordered: list[Piece], first: list[str]) -> list[str] | None:
    """Returns None where the lines are not free."""
    end = max(one.first + len(one.lines) for one in ordered)
    lines = [""] * (end - 1)
    for one in ordered:
        at = one.first - 1
        if is_indented(one):
            if not at or lines[at - 1]:
                return None
            lines[at - 1] = "if True:"
        for number, line in enumerate(one.lines, at):
            # Those that share a line are statements that can.
            lines[number] = f"{lines[number]}; {line}" if lines[number] else line
    if first and lines[0]:  # all of them are moved down by one
        lines.insert(0, "")
    if first:
        lines[0] = "; ".join(first)
    return lines
