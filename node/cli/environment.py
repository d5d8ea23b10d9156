"""The node `default` made from MANTA_NODE_* variables, where nobody has configured one."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from manta.node.cli.init import TOKEN, render, unanswered
from manta.node.errors import VariableError

PREFIX = "MANTA_NODE_"
_TEXTS = {"ALIAS": "alias", "ID": "id_mode", "MANAGER_HOST": "manager_host", "RUNNER": "runner"}
_TEXTS |= {
    "LOG_LEVEL": "log_level",
    "LOG_ROTATION": "rotation",
    "DEFAULT_IMAGE": "default_image",
    "MAX_CONCURRENT_TASKS": "max_concurrent_tasks",
}
_NUMBERS = {
    "MANAGER_PORT": "manager_port",
    "RESERVE_CPU_PERCENT": "reserve_cpu_percent",
    "RESERVE_MEMORY_MB": "reserve_memory_mb",
    "VALUE_MEMORY_MB": "value_memory_mb",
    "SCRATCH_MB": "scratch_mb",
}
_SWITCHES = {"GPU_ENABLED": "gpu_enabled", "ALLOW_UNSANDBOXED": "allow_unsandboxed"}
_SWITCHES |= {"DEBUG_MODE": "debug_mode", "LOG_TO_CONSOLE": "log_to_console"}
_LISTS = {"DATASETS": "datasets", "LABELS": "labels"}
_KNOWN = {"TOKEN", *_TEXTS, *_NUMBERS, *_SWITCHES, *_LISTS}


def from_environment(environment: Mapping[str, str]) -> str | None:
    """A configuration as TOML, or None when no variable asks for one.

    `MANTA_NODE_DATASETS` and `MANTA_NODE_LABELS` hold NAME=VALUE, separated by commas. The
    token is not copied: the file names its variable. Raises VariableError.
    """
    given = {
        name.removeprefix(PREFIX): value.strip()
        for name, value in environment.items()
        if name.startswith(PREFIX) and value.strip()
    }
    if not given:
        return None
    if unknown := sorted(given.keys() - _KNOWN):
        raise VariableError(_unknown(unknown[0]))
    texts = {**_TEXTS, **_NUMBERS, **_SWITCHES}
    answers = {**unanswered(), "token": TOKEN}
    for variable, key in texts.items():
        if variable in given:
            answers[key] = _read(variable, given[variable])
    for variable, key in _LISTS.items():
        answers[key] = [item.strip() for item in given.get(variable, "").split(",") if item.strip()]
        for item in answers[key]:
            if "=" not in item.strip("="):
                raise VariableError(
                    f"{PREFIX}{variable} has {item!r}: give NAME=VALUE, separated by commas."
                )
    return render("default", answers)


def _read(variable: str, text: str) -> Any:
    if variable in _NUMBERS:
        if not text.isdecimal():
            raise VariableError(f"{PREFIX}{variable} is {text!r}: give a whole number.")
        return int(text)
    if variable in _SWITCHES:
        if text.lower() not in ("true", "false", "1", "0", "yes", "no"):
            raise VariableError(f"{PREFIX}{variable} is {text!r}: give true or false.")
        return text.lower() in ("true", "1", "yes")
    return text


def _unknown(name: str) -> str:
    near = get_close_matches(name, _KNOWN, n=1)
    meant = f"did you mean {PREFIX}{near[0]}?" if near else "docs/node.md lists those that are."
    return f"{PREFIX}{name} is no variable of a node's: {meant}"
