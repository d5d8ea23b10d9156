"""The messages that docs/troubleshooting.md quotes are those that the code says."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "troubleshooting.md"
VARIES = "…"


def quoted() -> list[str]:
    headings = re.findall(r"^### (.*)$", PAGE.read_text(), re.MULTILINE)
    messages = [re.fullmatch(r"`` (.+) ``|`([^`]+)`", heading) for heading in headings]
    assert all(messages), "a heading here is a message, as code"
    return [message[1] or message[2] for message in messages if message]


@cache
def said() -> str:
    """Every text in the sources, what is put into it left open, one a line."""
    return "\n".join(
        template(node)
        for folder in ("manta", "node", "light", "transports")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if not any(part.is_symlink() for part in path.parents)
        for node in texts(ast.parse(path.read_text()))
    )


def texts(tree: ast.AST) -> Iterator[ast.JoinedStr | ast.Constant]:
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr) or (
            isinstance(node, ast.Constant) and isinstance(node.value, str)
        ):
            yield node


def template(node: ast.JoinedStr | ast.Constant) -> str:
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    return "".join(
        str(part.value) if isinstance(part, ast.Constant) else VARIES for part in parts
    ).replace("\n", " ")


def unsaid(message: str) -> list[str]:
    """The fixed words of a message that no text in the sources has."""
    pieces = [piece.strip(" '.,;:()[]") for piece in message.split(VARIES)]
    assert sum(len(piece.split()) for piece in pieces) >= 4, f"{message} has too few words"
    return [piece for piece in pieces if piece and piece not in said()]


@pytest.mark.parametrize("message", quoted())
def test_a_message_is_said_somewhere(message: str) -> None:
    assert unsaid(message) == []


def test_one_that_nobody_says_is_found() -> None:
    assert unsaid("No manager sings at … before dawn") == ["No manager sings at", "before dawn"]


def test_there_are_entries_for_each_part() -> None:
    assert len(quoted()) > 20
