"""Makes the configuration `default` from MANTA_NODE_* variables."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from manta.console.commands import check_utf8
from manta.node.cli.init import TOKEN, render, unanswered
from manta.node.config import FIELDS, KEYS, NOUNS, PREFIX, Key, NodeConfig, converted, parse
from manta.node.errors import ConfigError, Flaw, VariableError

MADE = "# Made from the MANTA_NODE_* variables; now that it is there, it counts, and not they.\n"
_KEYS = {key.variable: key for key in KEYS.values()}
_WORDS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def from_environment(environment: Mapping[str, str]) -> str | None:
    """Returns a configuration as TOML, or None if no variable asks for one.

    `MANTA_NODE_DATASETS` and `MANTA_NODE_LABELS` hold NAME=VALUE, separated by commas. The
    token is not copied: the file names its variable. Raises VariableError.
    """
    given = _given(environment)
    if not given:
        return None
    answers = unanswered()
    for variable, text in sorted(given.items()):
        if variable not in _KEYS:
            raise VariableError(_unknown(variable))
        check_utf8(text, variable, "a configuration is text, so rename what it names")
        answers[_KEYS[variable].path] = _read(_KEYS[variable], text)
    answers["identity.secured_token"] = TOKEN
    text = MADE + render("default", answers)
    try:
        parse(text, Path("default.toml"), environment)
    except ConfigError as error:
        said = [f"{_variable(flaw)}: {flaw}" for flaw in error.flaws]
        raise VariableError("\n".join(said)) from None
    return text


def overruled(config: NodeConfig, environment: Mapping[str, str]) -> str:
    """Says which variables say something else than the configuration that was made from them; ""
    if none does, or it was made otherwise."""
    if not config.path.read_text(encoding="utf-8").startswith(MADE):
        return ""
    remedy = (
        "correct it there, or delete it, then it is made from the variables again at the next start"
    )
    try:
        text = from_environment(environment)
    except VariableError as error:
        return f"{config.path} is there and counts, the MANTA_NODE_* variables do not. {error}"
    if text is None:
        return ""
    told, given = parse(text, config.path, environment), _given(environment)
    others = [
        key.variable
        for name, key in FIELDS.items()
        if key.variable in given and not key.secret and getattr(told, name) != getattr(config, name)
    ]
    if not others:
        return ""
    say = "says" if len(others) == 1 else "say"
    return f"{config.path} counts, and {', '.join(others)} {say} something else: {remedy}."


def _given(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value.strip()
        for name, value in environment.items()
        if name.startswith(PREFIX) and value.strip()
    }


def _variable(flaw: Flaw) -> str:
    key = KEYS.get(".".join(flaw.where)) or KEYS.get(".".join(flaw.where[:-1]))
    return key.variable if key else f"{PREFIX}*"


def _read(key: Key, text: str) -> Any:
    if key.type is dict:
        items = [item.strip() for item in text.split(",") if item.strip()]
        for item in items:
            if "=" not in item.strip("="):
                raise VariableError(
                    f"{key.variable} has {item!r}: give NAME=VALUE, separated by commas."
                )
        return items
    if key.type is list:
        return [item.strip() for item in text.split(",") if item.strip()]
    value = _WORDS.get(text.lower()) if key.type is bool else converted(text, key.type)
    if not isinstance(value, key.type):
        raise VariableError(f"{key.variable} is {text!r}: give {NOUNS[key.type]}.")
    return value


def _unknown(variable: str) -> str:
    known = [name.removeprefix(PREFIX) for name in _KEYS]
    near = get_close_matches(variable.removeprefix(PREFIX), known, n=1)
    meant = f"did you mean {PREFIX}{near[0]}?" if near else "docs/node.md lists those that are."
    return f"{variable} is not a variable that a node knows: {meant}"
