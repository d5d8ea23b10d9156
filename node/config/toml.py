"""Writes configurations as TOML, and finds the lines of keys in them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from manta.node.config.described import SECTION
from manta.node.config.schema import FIELDS, NodeConfig

_HEADER = re.compile(r"\s*\[\[?([^\[\]]+)\]\]?\s*(?:#.*)?")
_ASSIGNMENT = re.compile(
    r"""\s*((?:"[^"]*"|'[^']*'|[\w-]+)(?:\s*\.\s*(?:"[^"]*"|'[^']*'|[\w-]+))*)\s*="""
)
_PART = re.compile(r""""([^"]*)"|'([^']*)'|([\w-]+)""")


def in_force(config: NodeConfig) -> dict[str, dict[str, Any]]:
    """Returns the configuration with its defaults, by tables and keys; the token is masked."""
    tables: dict[str, dict[str, Any]] = {}
    for name, key in FIELDS.items():
        value = getattr(config, name)
        if key.type is dict:
            others = config.described if name == "datasets" else ()
            told = {each: str(text) for each, text in value.items() if each not in others}
            tables[key.path] = told
            continue
        table = tables.setdefault(key.section, {})
        if key.secret:
            table[key.name] = "***" if value else ""
        elif value is not None or key.default == "":
            table[key.name] = key.show(value)
    if config.described:
        tables[SECTION] = {
            name: {"path": str(config.datasets[name]), **one.shown()}
            for name, one in config.described.items()
        }
    return tables


def render(config: NodeConfig) -> str:
    """Returns the configuration in force as TOML; the token is masked."""
    tables = in_force(config)
    lines = [f"# {config.path}, with defaults; secrets are not shown"]
    for name, one in tables.pop(SECTION, {}).items():
        lines += ["", f"[[{SECTION}]]", f"name = {toml_value(name)}"]
        lines += [f"{key} = {toml_value(value)}" for key, value in one.items()]
    return "\n".join([*lines, *toml_lines(tables)]) + "\n"


def toml_lines(tables: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines: list[str] = []
    for section, values in tables.items():
        lines += ["", f"[{section}]"]
        for name, value in values.items():
            key = name if re.fullmatch(r"[\w-]+", name, re.ASCII) else toml_value(name)
            lines.append(f"{key} = {toml_value(value)}")
    return lines


def toml_value(value: str | bool | int | float | Sequence[str] | Mapping[str, str]) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"{value:g}" if isinstance(value, float) else str(value)
    if isinstance(value, Mapping):
        pairs = (f"{toml_value(key)} = {toml_value(one)}" for key, one in value.items())
        return f"{{{', '.join(pairs)}}}"
    if not isinstance(value, str):
        return f"[{', '.join(map(toml_value, value))}]"
    escapes = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    return '"' + "".join(escapes.get(c) or _spelled(c) for c in value) + '"'


def _spelled(character: str) -> str:
    """Returns the character, or how TOML spells one that is not seen."""
    if character.isprintable():
        return character
    number = ord(character)
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def line_of(text: str, where: tuple[str, ...]) -> int | None:
    """Returns the line of a key, counted from 1: the parser does not tell, so search for it."""
    table: tuple[str, ...] = ()
    inside = False  # a table in braces that holds the key
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.fullmatch(line):
            table = _parts(header[1])
            inside = False
            if table[: len(where)] == where:
                return number
            continue
        if assignment := _ASSIGNMENT.match(line):
            key = (*table, *_parts(assignment[1]))
            if key[: len(where)] == where:
                return number
            inside = inside or key == where[: len(key)]
        if inside and re.search(rf"""["']?{re.escape(where[-1])}["']?\s*=""", line):
            return number
    return None


def _parts(dotted: str) -> tuple[str, ...]:
    return tuple(a or b or c for a, b, c in _PART.findall(dotted))
