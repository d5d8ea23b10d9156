"""Asks for a new configuration's values and writes the file, for `manta_node config init`."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import click

from manta.console.commands import check_utf8
from manta.console.local_manager import remembered_port
from manta.console.terminal import confirm, say_note
from manta.node.config import KEYS, host_name, toml_lines, toml_value
from manta.node.daemon.places import home

TOKEN = "${MANTA_NODE_TOKEN}"
PATHS = KEYS["datasets.mappings"].metavar
_ALWAYS = ("network.manager_host", "network.manager_port")
"""Keys that a new file holds even with their defaults."""


def unanswered() -> dict[str, Any]:
    """Returns the empty answers that `ask` and `render` take, by the keys' paths."""
    return {path: [] if key.is_repeated else None for path, key in KEYS.items()}


def make(name: str, path: Path, answers: dict[str, Any]) -> None:
    """Ask on a terminal for what is not answered, and write the file once it is valid.

    Raises KeyFileError, click.ClickException.
    """
    from manta.node.capabilities import datasets
    from manta.node.config import parse
    from manta.node.errors import ConfigError
    from manta.transports.security.keys import write_private

    if sys.stdin.isatty():
        ask(name, answers)
    text = render(name, answers)
    try:
        config = parse(text, path, os.environ)
    except ConfigError as error:
        raise click.UsageError("\n".join(map(str, error.flaws))) from None
    write_private(path, text, replace=True)
    for flaw in datasets.flaws(config):
        say_note(str(flaw))


def ask(name: str, answers: dict[str, Any]) -> None:
    """Ask on a terminal for what no option has answered."""
    token = answers["identity.secured_token"] or click.prompt(
        "Token to enrol with (empty: from the variable MANTA_NODE_TOKEN)",
        default="",
        show_default=False,
        hide_input=True,
    )
    answers["identity.secured_token"] = token or TOKEN
    questions = {
        "identity.alias": "The node's alias",
        "network.manager_host": "The manager's host",
        "network.manager_port": "The manager's port for nodes",
        "resources.max_concurrent_tasks": "Tasks that may run at a time (empty: one per core)",
    }
    for path, question in questions.items():
        if path == "network.manager_port":
            answers |= _address(answers)
        if answers[path] is None:
            default = _alias(name) if path == "identity.alias" else str(_default(path, answers))
            answers[path] = click.prompt(
                question,
                default=default,
                value_proc=partial(_checked, path),
                show_default=default != "",
            )
    if not answers["datasets.mappings"]:
        answers["datasets.mappings"] = _ask_datasets()
    if answers["containers.allow_unsandboxed"] is None:
        answers["containers.allow_unsandboxed"] = confirm(
            "Where neither bubblewrap nor a container engine can be used, tasks run as plain "
            "processes, which can do all that this user can. Allow that",
            default=False,
        )


def _ask_datasets() -> list[str]:
    found: list[str] = []
    while line := click.prompt(
        f"A dataset, as {PATHS} (empty: no more)",
        default="",
        value_proc=_checked_dataset,
        show_default=False,
    ):
        found.append(line)
    return found


def _checked(path: str, answer: str) -> str | int | None:
    """Returns the value for the file. Raises click.UsageError, which makes click ask again."""
    from manta.node.config import converted, parse
    from manta.node.errors import ConfigError

    if not answer:
        return None
    value: str | int = converted(answer, KEYS[path].type)
    given = {path: value}
    if path == "network.manager_host":
        given |= _address({path: value, "network.manager_port": None})
    text = "".join(f"{path} = {toml_value(value)}\n" for path, value in given.items())
    try:
        parse(text, Path("answer"), os.environ)
    except ConfigError as error:
        raise click.UsageError(str(error.flaws[0])) from None
    return value


def _checked_dataset(answer: str) -> str:
    if answer:
        _pairs([answer], "A dataset,", PATHS)
    return answer


def render(name: str, answers: dict[str, Any]) -> str:
    """Returns the file as TOML. Raises click.BadParameter for an invalid answer."""
    given = {
        **answers,
        **_address(answers),
        "identity.secured_token": answers["identity.secured_token"] or TOKEN,
        "identity.alias": answers["identity.alias"] or _alias(name),
    }
    tables: dict[str, dict[str, Any]] = {}
    for path, key in KEYS.items():
        answer = given[path]
        for text in answer if isinstance(answer, list | tuple) else (answer,):
            if isinstance(text, str):
                check_utf8(text, key.option, "a configuration is text, so rename what it names")
        if answer is None and path in _ALWAYS:
            answer = _default(path, given)
        if key.metavar == "PATH" and answer:
            answer = os.path.abspath(os.path.expanduser(answer))
        if key.type is dict:
            tables[path] = _pairs(answer, key.option, key.metavar)
        elif key.type is list:
            if answer:
                tables.setdefault(key.section, {})[key.name] = list(answer)
        elif answer is not None:
            tables.setdefault(key.section, {})[key.name] = answer
    lines = [f"# A Manta node. `manta_node config show {name}` lists all that may be set here."]
    lines += toml_lines({section: table for section, table in tables.items() if table})
    return "\n".join(lines) + "\n"


def _default(path: str, answers: dict[str, Any]) -> str | int:
    """The port of a manager that runs on this machine, or did, is the port that it has there."""
    default = KEYS[path].default or ""
    if path != "network.manager_port":
        return default
    host = answers["network.manager_host"] or KEYS["network.manager_host"].default
    return remembered_port(home(), "nodes", host) or default


def _address(answers: dict[str, Any]) -> dict[str, Any]:
    """Returns host and port of a host with a port. Raises click.BadParameter."""
    from manta.transports.addresses import split_host

    host, port = (answers[path] for path in _ALWAYS)
    try:
        name, own = split_host(host or "")
    except ValueError:
        return {}  # said with all else that is wrong
    if own is None:
        return {_ALWAYS[0]: name}
    if port not in (None, own):
        raise click.BadParameter(
            f"the manager's host {host!r} names another port than {port}: give one of them."
        )
    return dict(zip(_ALWAYS, (name, own), strict=True))


def _alias(name: str) -> str:
    return host_name() if name == "default" else name


def _pairs(answers: Any, option: str, form: str | None) -> dict[str, str]:
    found = {}
    for answer in answers:
        key, equals, value = answer.partition("=")
        if not (key and equals and value):
            raise click.BadParameter(f"{option} {answer!r} is not of the form {form}.")
        found[key] = os.path.abspath(os.path.expanduser(value)) if form == PATHS else value
        check_utf8(found[key], option, "map a link to it, in another folder")
    return {key: value.replace("${", "$${") for key, value in found.items()}
