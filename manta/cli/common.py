"""What commands share: the way to the manager, tables and JSON."""

from __future__ import annotations

import functools
import getpass
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click

from manta.console import json_form, text
from manta.console.exit_codes import Exit
from manta.console.terminal import Screen

T = TypeVar("T")
Command = Callable[..., Any]


def with_api(function: Command) -> Command:
    """Add --host, --port, --token and --profile; the command gets an open UserAPI first."""

    @connects
    @functools.wraps(function)
    def command(connect: Callable[[], Any], **options: Any) -> Any:
        with connect() as api:
            return function(api, **options)

    return command


def connects(function: Command) -> Command:
    """The same for a command that may do without: it gets what opens the UserAPI."""

    @click.option("--host", help="The manager's host (MANTA_HOST).")
    @click.option("--port", type=click.IntRange(1, 65535), help="Its user port (MANTA_PORT).")
    @click.option("--token", help="A user's token (MANTA_TOKEN); better not on a command line.")
    @click.option("--profile", help="Which profile of ~/.manta to use.")
    @functools.wraps(function)
    def command(
        host: str | None, port: int | None, token: str | None, profile: str | None, **options: Any
    ) -> Any:
        from manta.apis.user_api import UserAPI

        _check_names(options)
        return function(lambda: usage(lambda: UserAPI(token, host, port, profile)), **options)

    return command


NAMES = {
    "cluster": "The cluster", "email": "The e-mail address", "module": "The module",
    "name": "The name", "node": "The node", "role_": "The role", "swarm": "The swarm",
    "swarms": "The swarm", "tag": "The tag", "task": "The task", "user": "The user",
    "user_": "The user",
}  # fmt: skip
"""Parameters that name something, and how a sentence begins that is about one."""


def _check_names(options: Mapping[str, Any]) -> None:
    """Before anybody is asked about them. Raises click.UsageError."""
    from manta.apis import checks

    def check() -> None:
        for parameter, words in NAMES.items():
            given = options.get(parameter)
            for value in given if isinstance(given, tuple) else (given,):
                if value is not None:
                    checks.name(words, value)

    usage(check)


def usage(make: Callable[[], T]) -> T:
    """Make an API; an argument that it does not take was one of the command line."""
    from manta.apis.errors import InvalidArgument

    try:
        return make()
    except InvalidArgument as error:
        raise click.UsageError(str(error)) from None


TRIES = 3
"""How often a secret is asked for when nothing is typed."""


class NotWritten(click.ClickException):
    """A folder that cannot be made, or not be filled."""

    exit_code = Exit.LOCAL


class NotGiven(click.ClickException):
    """What was asked for was not answered."""

    exit_code = Exit.USAGE


def secret(what: str, *, from_stdin: bool) -> str:
    """A password or token, typed where nobody sees it, or the next line of standard input.

    Raises NotGiven.
    """
    if from_stdin:
        if line := sys.stdin.readline().rstrip("\n"):
            return line
        raise NotGiven(f"Standard input has no {what.lower()}: give it as a line of its own.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", getpass.GetPassWarning)
            for _ in range(TRIES):
                if typed := getpass.getpass(f"{what}: "):
                    return typed
    except EOFError:
        click.echo(err=True)  # the cursor is behind the question
    except getpass.GetPassWarning:
        raise NotGiven(
            f"There is no terminal to ask for the {what.lower()}: give it on standard input."
        ) from None
    raise NotGiven(f"No {what.lower()} was given.")


as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


_WORDS = {"reason", "rights", "roles", "datasets"}
"""Columns that are folded where the terminal is narrow; others are cut."""


def emit(
    records: Sequence[Mapping[str, Any]],
    columns: Mapping[str, Callable[[Mapping[str, Any]], str]],
    *,
    as_json: bool,
    nothing: str,
) -> None:
    """A list as a table with these columns, or in full as JSON; `nothing` stands for no table."""
    if as_json:
        json_form.show(records)
        return
    if not records:
        click.echo(nothing)
        return
    rows = [[cell(record) for cell in columns.values()] for record in records]
    header = [click.style(name.upper(), bold=True) for name in columns]
    screen = Screen()
    names = list(columns)
    ids = [i for i, name in enumerate(names) if name == "id"]
    words = [i for i, name in enumerate(names) if name in _WORDS]
    screen.show(text.table(header, rows, room=screen.room, ids=ids, words=words))


def say(record: Any, sentence: str, *, as_json: bool) -> None:
    """What was done: a sentence, or what it was done to as JSON."""
    if as_json:
        json_form.show(record)
    else:
        Screen().show([sentence])


def show_fields(record: Any, rows: Sequence[tuple[str, str]], *, as_json: bool) -> None:
    """One thing: a line for each of its fields, or all of it as JSON."""
    if as_json:
        json_form.show(record)
    else:
        Screen().show(text.table(("", ""), rows)[1:])


def field(name: str) -> Callable[[Mapping[str, Any]], str]:
    """A column that shows one field."""
    return lambda record: "" if record[name] is None else str(record[name])


_STATES = {"COMPLETED": "green", "RUNNING": "green", "CONNECTED": "green", "ACTIVE": "cyan"}
_STATES |= {"FAILED": "red", "LOST": "red", "DISCONNECTED": "red"}


def state(name: str) -> Callable[[Mapping[str, Any]], str]:
    """A column that shows a state in its colour; what waits for somebody is yellow."""
    return lambda record: click.style(record[name], fg=_STATES.get(record[name], "yellow"))


def ident(name: str) -> Callable[[Mapping[str, Any]], str]:
    """A column of ids: there to be copied, not to be read."""
    return lambda record: click.style(record[name], dim=True)


def age(name: str) -> Callable[[Mapping[str, Any]], str]:
    """A column that shows how long ago a time was."""
    return lambda record: text.seconds(max(0.0, time.time() - record[name])) if record[name] else ""


def brief(value: Any) -> str:
    """A value in one line."""
    if hasattr(value, "dtype") and hasattr(value, "shape") and value.shape:
        return f"{value.dtype}{list(value.shape)}"
    if isinstance(value, float):
        return text.number(value)
    if isinstance(value, bytes):
        return text.size(len(value))
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {brief(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        shown = ", ".join(brief(item) for item in value[:8])
        more = f", ... {len(value)} in all" if len(value) > 8 else ""
        return f"[{shown}{more}]" if isinstance(value, list) else f"({shown}{more})"
    return str(value)
