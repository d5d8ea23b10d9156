"""What others wrote, made harmless to show. Pure.

A name, a sentence or a line of a log may hold characters that move the cursor, change the terminal,
reverse the text around them, begin a line, or cannot be seen. Whoever shows it shows `visible` of
it: such a character stands there as Python would write it, such as `\\x1b`, `\\n` or `\\u202e`.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

# Letters, marks and signs, by their category, that nothing is drawn for.
_BLANK = frozenset(
    "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0\U0001d159"
    + "".join(map(chr, range(0xE0100, 0xE01F0)))
)
_SHOWN = re.compile(r"[ -~\t]*")
MOST_MARKS = 4
"""Marks that may be stacked on a letter; more of them would cover other lines."""


def visible(words: str) -> str:
    """Returns one line in which each character is seen, takes its own place, and does no more.

    What is visible stays as it is, letters and signs of all scripts included.
    """
    if not _SHOWN.fullmatch(words):
        marks, kept = MOST_MARKS, []  # a mark that comes first would be drawn on what is before
        for character in words:
            marks = marks + 1 if is_mark(character) else 0
            if _is_harmless(character) and marks <= MOST_MARKS:
                kept.append(character)
            else:
                kept.append(_escaped(character))
                marks = MOST_MARKS
        words = "".join(kept)
    return words.expandtabs()


def visible_lines(text: str) -> list[str]:
    """Returns the lines of a text that may have several, such as a traceback."""
    return [visible(line.removesuffix("\r")) for line in text.split("\n")]


@lru_cache(maxsize=4096)
def is_mark(character: str) -> bool:
    """Whether it is drawn on the character before it, and takes no place of its own.

    So are the vowels and final consonants of Hangul that are written as letters of their own.
    """
    return (
        unicodedata.category(character) in ("Mn", "Me")
        or "\u1160" <= character <= "\u11ff"
        or "\ud7b0" <= character <= "\ud7ff"
    )


@lru_cache(maxsize=4096)
def _is_harmless(character: str) -> bool:
    if character.isprintable():
        return character not in _BLANK
    return character == "\t" or unicodedata.category(character) == "Zs"


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
