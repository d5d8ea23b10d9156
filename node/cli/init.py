"""What `manta_node config init` asks, and the file that it makes of the answers."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import click

from manta.node.config import toml_key, toml_value

TOKEN = "${MANTA_NODE_TOKEN}"


_LISTS = ("datasets", "labels")
_ONE = (
    "token",
    "alias",
    "id_mode",
    "manager_host",
    "manager_port",
    "max_concurrent_tasks",
    "reserve_cpu_percent",
    "reserve_memory_mb",
    "value_memory_mb",
    "scratch_mb",
    "runner",
    "default_image",
    "gpu_enabled",
    "allow_unsandboxed",
    "log_level",
    "debug_mode",
    "log_to_console",
    "rotation",
)


def unanswered() -> dict[str, Any]:
    """What `ask` and `render` take, with nothing in it."""
    return {**dict.fromkeys(_ONE), **{name: [] for name in _LISTS}}


def make(name: str, path: Path, answers: dict[str, Any]) -> None:
    """Ask on a terminal what is not answered, and write the file once it is valid.

    Raises ConfigError, KeyFileError, click.ClickException.
    """
    import os

    from manta.node.capabilities import datasets
    from manta.node.config import parse
    from manta.transports.security.keys import write_private

    if sys.stdin.isatty():
        ask(name, answers)
    text = render(name, answers)
    config = parse(text, path, os.environ)
    write_private(path, text, replace=True)
    for flaw in datasets.flaws(config):
        click.echo(f"Mind: {flaw}", err=True)


def ask(name: str, answers: dict[str, Any]) -> None:
    """On a terminal: what no option has answered."""
    token = answers["token"] or click.prompt(
        "Token to enrol with (empty: from the variable MANTA_NODE_TOKEN)",
        default="",
        show_default=False,
        hide_input=True,
    )
    answers["token"] = token or TOKEN
    questions = {
        "alias": ("identity", "The node's alias", _alias(name)),
        "manager_host": ("network", "The manager's host", "localhost"),
        "manager_port": ("network", "The manager's port for nodes", "50051"),
        "max_concurrent_tasks": (
            "resources",
            "Tasks that may run at a time (empty: one per core)",
            "",
        ),
    }
    for key, (section, question, default) in questions.items():
        if answers[key] is None:
            answers[key] = click.prompt(
                question,
                default=default,
                value_proc=partial(_checked, section, key),
                show_default=default != "",
            )
    if not answers["datasets"]:
        answers["datasets"] = _ask_datasets()
    if answers["allow_unsandboxed"] is None:
        answers["allow_unsandboxed"] = click.confirm(
            "Tasks run as plain processes, which can do all that this user can. Allow that",
            default=True,
        )


def _ask_datasets() -> list[str]:
    found: list[str] = []
    while line := click.prompt(
        "A dataset, as NAME=PATH (empty: no more)",
        default="",
        value_proc=_checked_dataset,
        show_default=False,
    ):
        found.append(line)
    return found


def _checked(section: str, key: str, answer: str) -> str | int | None:
    """What the file would hold; a click.UsageError has it asked again."""
    import os

    from manta.node.config import parse
    from manta.node.errors import ConfigError

    if not answer:
        return None
    value = int(answer) if answer.isdecimal() and key != "alias" else answer
    try:
        parse(f"[{section}]\n{key} = {toml_value(value)}\n", Path("answer"), os.environ)
    except ConfigError as error:
        raise click.UsageError(str(error.flaws[0])) from None
    return value


def _checked_dataset(answer: str) -> str:
    if answer:
        _pairs([answer], "A dataset,", "NAME=PATH")
    return answer


def render(name: str, answers: dict[str, Any]) -> str:
    """TOML. Raises click.BadParameter for an answer that cannot be."""
    sections = {
        "identity": {
            "secured_token": answers["token"] or TOKEN,
            "alias": answers["alias"] or _alias(name),
            "id": answers["id_mode"],
        },
        "network": {
            "manager_host": answers["manager_host"] or "localhost",
            "manager_port": answers["manager_port"] or 50051,
        },
        "resources": {
            "max_concurrent_tasks": _number(answers["max_concurrent_tasks"]),
            "reserve_cpu_percent": answers["reserve_cpu_percent"],
            "reserve_memory_mb": answers["reserve_memory_mb"],
            "value_memory_mb": answers["value_memory_mb"],
            "scratch_mb": answers["scratch_mb"],
        },
        "containers": {
            "runner": answers["runner"],
            "default_image": answers["default_image"],
            "gpu_enabled": answers["gpu_enabled"],
            "allow_unsandboxed": answers["allow_unsandboxed"],
        },
        "datasets.mappings": _pairs(answers["datasets"], "--dataset", "NAME=PATH", paths=True),
        "labels": _pairs(answers["labels"], "--label", "NAME=TEXT"),
        "logging": {
            "level": answers["log_level"],
            "debug_mode": answers["debug_mode"],
            "log_to_console": answers["log_to_console"],
            "rotation": answers["rotation"],
        },
    }
    lines = [f"# A Manta node. `manta_node config show {name}` lists all that may be set here."]
    for section, values in sections.items():
        given = {key: value for key, value in values.items() if value is not None}
        if given:
            lines += ["", f"[{section}]"]
            lines += [f"{toml_key(key)} = {toml_value(value)}" for key, value in given.items()]
    return "\n".join(lines) + "\n"


def _alias(name: str) -> str:
    from manta.node.config import host_name

    return host_name() if name == "default" else name


def _number(answer: Any) -> int | None:
    if answer in (None, ""):
        return None
    try:
        return int(answer)
    except ValueError:
        raise click.BadParameter(f"{answer!r} is no whole number of tasks.") from None


def _pairs(answers: Any, option: str, form: str, *, paths: bool = False) -> dict[str, str]:
    import os

    found = {}
    for answer in answers:
        key, equals, value = answer.partition("=")
        if not (key and equals and value):
            raise click.BadParameter(f"{option} {answer!r} is not of the form {form}.")
        found[key] = os.path.abspath(os.path.expanduser(value)) if paths else value
    return {key: value.replace("${", "$${") for key, value in found.items()}
