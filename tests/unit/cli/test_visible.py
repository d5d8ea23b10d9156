"""What others wrote takes one line, its own, and does nothing to the terminal."""

from __future__ import annotations

import io
import logging
import re
import unicodedata
from pathlib import Path

import pyte
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manta.console import text
from manta.console.lines import Words, as_written, joined, line, styled
from manta.console.log_lines import LONGEST, LineFormatter
from manta.console.terminal import Screen
from manta.console.visible import visible, visible_lines


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("plain: a b~!", "plain: a b~!"),
        ("naïve Grün 日本\u3000語 5\xa0km ✔\ufe0f 🜁", "naïve Grün 日本\u3000語 5\xa0km ✔\ufe0f 🜁"),
        ("e\u0301te\u0301", "e\u0301te\u0301"),
        ("a\tb", "a       b"),
        ("a\nb\rc", r"a\nb\rc"),
        ("\x00\x07\x08\x0b\x0c\x7f", r"\x00\x07\x08\x0b\x0c\x7f"),
        ("\x85\x9b2J\u2028\u2029", r"\x85\x9b2J\u2028\u2029"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x1b]8;;http://x\x1b\\link", r"\x1b]8;;http://x\x1b\link"),
        ("\x1bPq\x1b\\;\x1b_G\x1b\\;", r"\x1bPq\x1b\;\x1b_G\x1b\;"),
        ("\u202edcba\u202c \u2066x\u2069", r"\u202edcba\u202c \u2066x\u2069"),
        ("\u200ea\u200fb\u061c", r"\u200ea\u200fb\u061c"),
        ("a\u200bb\u200cc\u200dd\u2060e\ufefff\xad", r"a\u200bb\u200cc\u200dd\u2060e\ufefff\xad"),
        ("\u115f\u3164\uffa0\u034f", r"\u115f\u3164\uffa0\u034f"),
        ("\U000e0041\U000e0101", r"\U000e0041\U000e0101"),
        ("\ud800\udcff", r"\ud800\udcff"),
        ("\ue000\uffff", r"\ue000\uffff"),
        ("\u0301a", r"\u0301a"),
        ("a\x00\u0301b", r"a\x00\u0301b"),
        ("a" + "\u0336" * 6, "a" + "\u0336" * 4 + r"\u0336\u0336"),
        ("a" + "\u1161" * 6, "a" + "\u1161" * 4 + r"\u1161\u1161"),
        ("\u1161" * 2, r"\u1161\u1161"),
        ("가" + "\u11a8\ud7cb" * 3, "가" + "\u11a8\ud7cb" * 2 + r"\u11a8\ud7cb"),
        ("\u1112\u1161\u11ab" * 3, "\u1112\u1161\u11ab" * 3),
        ("a\u2800\U0001d159b", r"a\u2800\U0001d159b"),
    ],
)  # fmt: skip
def test_what_is_not_seen_or_does_something_is_spelled_out(written: str, shown: str) -> None:
    assert visible(written) == shown


HARMLESS = {"Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "No"}
HARMLESS |= {"Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "Sm", "Sc", "Sk", "So", "Zs"}


@given(st.text(st.characters()))
def test_whatever_is_written_is_shown_in_one_line(written: str) -> None:
    shown = visible(written)
    assert {unicodedata.category(character) for character in shown} <= HARMLESS
    assert visible(shown) == shown
    assert len(f"a{shown}b".splitlines()) == 1


def test_every_character_is_harmless_or_spelled_out() -> None:
    for number in range(0x110000):
        shown = visible(f"a{chr(number)}").removeprefix("a")
        assert shown == chr(number) or shown.isascii(), hex(number)
        assert {unicodedata.category(character) for character in shown} <= HARMLESS, hex(number)


def test_several_lines_stay_several() -> None:
    assert visible_lines("Traceback\r\n  File\x0b\n\x1b[2K") == [
        "Traceback",
        r"  File\x0b",
        r"\x1b[2K",
    ]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@given(st.text(st.characters()), st.text(st.characters()))
def test_a_screen_shows_no_colour_and_no_line_but_ours(first: str, second: str) -> None:
    terminal = Terminal()
    screen = Screen(terminal)
    screen.colour = True
    lines: list[Words] = [
        first,
        "we: " + styled(second, fg="red") + first,
        f"{styled(first, bold=True)}",
    ]
    screen.show([*lines, *text.table(("A", "B"), [(first, second)], room=40, words=(1,))])
    shown = terminal.getvalue()
    assert set(re.findall(r"\x1b[^m]*m?", shown)) <= {"\x1b[31m", "\x1b[0m"}
    table = shown.count("\n") - len(lines)
    assert len(shown.splitlines()) == len(lines) + table
    assert shown.splitlines()[0] == visible(first)


def test_a_live_line_cannot_cover_what_is_above_it() -> None:
    terminal = Terminal()
    Screen(terminal).show([], ["one\n\n\x1b[5Aover"])
    assert terminal.getvalue() == "\x1b[?7lone\\n\\n\\x1b[5Aover\n\x1b[?7h"


@pytest.mark.parametrize("sign", ["❤", "❤\ufe0f", "1\ufe0f\u20e3", "가\u11a8", "\u1161", "日", "x"])
@pytest.mark.parametrize("drawn", ["x", "日", "xyz"])
def test_a_live_line_takes_one_line_however_wide_a_terminal_draws_a_sign(
    sign: str, drawn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    written = Terminal()
    screen = Screen(written)
    for _ in range(3):
        screen.show([], ["ours", "a" + sign * 25 + "Error: forged"])
    screen.show(["done"])
    terminal = pyte.Screen(40, 10)
    terminal.set_mode(pyte.modes.LNM)
    pyte.Stream(terminal).feed(written.getvalue().replace(sign, drawn))
    assert [row.rstrip() for row in terminal.display if row.strip()] == ["done"]


def test_what_takes_two_columns_as_an_emoji_is_cut_in_time() -> None:
    shown = str(text.clipped("❤\ufe0f" * 60 + "Error: forged", 79))
    assert len(shown) == 79
    assert "Error" not in shown


def test_only_what_is_asked_for_raw_is_raw() -> None:
    whole = "who | " + as_written("\x1b[32mok")
    assert whole.for_terminal(colour=False) == "who | \x1b[32mok"


def test_lines_are_joined_and_lose_their_styles_as_text() -> None:
    both = joined(", ", [styled("a", fg="red"), "b\n", line("c")])
    assert str(both) == f"{both}" == r"a, b\n, c"
    assert both.for_terminal(colour=True) == "\x1b[31ma\x1b[0m, b\\n, c"
    assert (styled("a ", bold=True) + "  ").rstrip() == styled("a", bold=True)
    assert not line("").rstrip()


@pytest.mark.parametrize(
    "name", ["日本語", "e\u0301e\u0301", "ที่", "각", "👍🏽", "a\u202eb", "\uff21"]
)
def test_columns_line_up_whatever_the_script(name: str) -> None:
    table = [str(one) for one in text.table(("N", "END"), [(name, "x"), ("plain name", "y")])]
    assert {
        text.width(one[: one.rindex(last)])
        for one, last in zip(table, ("END", "x", "y"), strict=True)
    } == {12}


@pytest.mark.parametrize(("room", "most"), [(30, 30), (45, 45)])
def test_wide_characters_are_folded_by_their_width(room: int, most: int) -> None:
    lines = text.table(("NAME", "REASON"), [("n", "日本語の長い文章 " * 6)], room=room, words=(1,))
    assert len(lines) > 3
    assert max(map(text.width, lines)) <= most


@pytest.mark.parametrize("sign", ["a", "é", "\x1b", "\n"])
def test_of_what_is_too_long_for_a_log_only_the_beginning_is_looked_at(
    sign: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at: list[int] = []

    def seen(words: str) -> str:
        looked_at.append(len(words))
        return visible(words)

    monkeypatch.setattr("manta.console.log_lines.visible", seen)
    monkeypatch.setattr("manta.console.log_lines.visible_lines", lambda text: [seen(text)])
    try:
        raise ValueError(sign * 4_000_000)
    except ValueError as error:
        raised = (ValueError, error, error.__traceback__)
    record = logging.LogRecord("x", 20, "f", 1, "%s", (sign * 4_000_000,), raised)
    entry = LineFormatter().format(record)
    assert entry.splitlines()[0].endswith(" ... (4000000 characters, cut)")
    assert len(looked_at) == 2
    assert max(looked_at) < LONGEST + 100


PRINTS = re.compile(r"\bclick\.(secho|echo|style|unstyle)\(|\bsys\.std(out|err)\.write\(|\bprint\(")
ROOT = Path(__file__).parents[3]
OF_THEIR_OWN = {
    "node/daemon/process.py",
    "manta/manager/daemon.py",
    "node/isolation/adopt.py",
    "node/isolation/enter.py",  # says to the daemon why a task can't be started
    "node/isolation/listen.py",
}
"""Daemons, which have no console; what they write is made visible there."""


def test_commands_print_through_the_console_alone() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for room in ("manta/cli", "manta/manager", "node")
        for path in (ROOT / room).rglob("*.py")
        if str(path.relative_to(ROOT)) not in OF_THEIR_OWN
        for line in path.read_text().splitlines()
        if PRINTS.search(line)
    ]
    assert wrong == []
