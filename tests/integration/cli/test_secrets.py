"""Passwords and tokens: typed where nobody sees them, or read from standard input."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest

from manta.console.exit_codes import Exit
from manta.transports.security.keys import KeyPair
from tests.support.lab import manta
from tests.support.terminal import at_terminal

ASKED = "Password: "


@pytest.fixture
def sign_in(tmp_path: Path) -> tuple[str, ...]:
    """To a manager that is not there."""
    key = KeyPair.generate().public
    return ("sign-in", "--email", "ada@example.org", "--port", "1", "--server-key", key)


def test_who_types_nothing_is_asked_three_times(sign_in: tuple[str, ...], tmp_path: Path) -> None:
    shown = at_terminal(*sign_in, typed=[(ASKED, "\n")] * 4, MANTA_HOME=tmp_path)
    assert (shown.code, shown.text.count(ASKED)) == (Exit.USAGE, 3)
    assert click.unstyle(shown.text).splitlines()[-1] == "Error: No password was given."


def test_the_end_of_the_input_is_an_answer(sign_in: tuple[str, ...], tmp_path: Path) -> None:
    shown = at_terminal(*sign_in, typed=[(ASKED, "\x04")], MANTA_HOME=tmp_path)
    assert (shown.code, shown.text.count(ASKED)) == (Exit.USAGE, 1)
    assert click.unstyle(shown.text).splitlines()[-1] == "Error: No password was given."


def test_ctrl_c_at_the_question(sign_in: tuple[str, ...], tmp_path: Path) -> None:
    shown = at_terminal(*sign_in, typed=[(ASKED, "\x03")], MANTA_HOME=tmp_path)
    assert shown.code == Exit.INTERRUPTED
    assert shown.text.splitlines()[-1] == "Interrupted."


def test_what_was_typed_is_used_and_not_shown(sign_in: tuple[str, ...], tmp_path: Path) -> None:
    typed = [(ASKED, "\n"), (ASKED, "correct horse\n")]
    shown = at_terminal(*sign_in, typed=typed, MANTA_HOME=tmp_path)
    assert shown.code == Exit.UNREACHABLE
    assert "horse" not in shown.text


@pytest.mark.parametrize("said", ["", "\n"])
def test_standard_input_without_a_password(
    sign_in: tuple[str, ...], tmp_path: Path, said: str
) -> None:
    done = manta(*sign_in, "--password-stdin", said=said, MANTA_HOME=tmp_path)
    assert done.returncode == Exit.USAGE
    assert done.stderr == ("Error: Standard input has no password: pass it on a line of its own.\n")


def test_without_a_terminal_nothing_is_asked(sign_in: tuple[str, ...], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "manta", *sign_in],
        env={"MANTA_HOME": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        start_new_session=True,
    )
    assert done.returncode == Exit.USAGE
    assert done.stderr == (
        "Error: There is no terminal to ask for the password: pass it on standard input "
        "(--password-stdin).\n"
    )
