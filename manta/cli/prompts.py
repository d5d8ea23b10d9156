"""Secrets, asked for on the terminal or read from standard input."""

from __future__ import annotations

import getpass
import sys
import warnings

import click

from manta.console.exit_codes import Exit
from manta.console.terminal import print_lines

TRIES = 3
"""How often to ask again when nothing is typed."""


class NotGiven(click.ClickException):
    """A prompt was not answered."""

    exit_code = Exit.USAGE


def secret(what: str, *, from_stdin: bool) -> str:
    """Reads a password or token without echo, or the next line of standard input.

    Raises NotGiven.
    """
    if from_stdin:
        if line := sys.stdin.readline().rstrip("\n"):
            return line
        raise NotGiven(f"Standard input has no {what.lower()}: pass it on a line of its own.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", getpass.GetPassWarning)
            for _ in range(TRIES):
                if typed := getpass.getpass(f"{what}: "):
                    return typed
    except EOFError:
        print_lines("", err=True)  # the cursor is behind the question
    except getpass.GetPassWarning:
        raise NotGiven(
            f"There is no terminal to ask for the {what.lower()}: pass it on standard input "
            "(--password-stdin)."
        ) from None
    raise NotGiven(f"No {what.lower()} was given.")
