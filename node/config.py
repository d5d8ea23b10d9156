"""A node's configuration: TOML, checked, with `${VAR}` taken from the environment.

`SCHEMA` is the whole of what a file may say. What is wrong names file, line and key, and
the key that was probably meant. A secret is in no message and no repr.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from manta.node.errors import ConfigError

MIB = 1024 * 1024
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_HOST = re.compile(r"[A-Za-z0-9._-]+")
_VARIABLE = re.compile(r"\$(\$?)\{([^}]*)\}")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(KB|MB|GB|KiB|MiB|GiB)?", re.IGNORECASE)


@dataclass(frozen=True)
class Key:
    """One key: what it may be, and what it is when it is left out (None: worked out)."""

    type: type
    default: Any
    note: str = ""
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    name: bool = False
    secret: bool = False


SCHEMA: dict[str, dict[str, Key]] = {
    "identity": {
        "secured_token": Key(
            str, "", "to enrol; afterwards the node's own key is enough", secret=True
        ),
        "alias": Key(str, None, "the machine's name when left out", name=True),
        "id": Key(
            str,
            "hardware",
            "what the node is known by after it was set up anew",
            choices=("hardware", "random", "alias"),
        ),
    },
    "network": {
        "manager_host": Key(str, "localhost"),
        "manager_port": Key(int, 50051, low=1, high=65535),
    },
    "resources": {
        "max_concurrent_tasks": Key(int, None, "as many as cores, at least 2", low=0, high=10_000),
        "reserve_cpu_percent": Key(float, 5.0, "kept from tasks", low=0, high=100),
        "reserve_memory_mb": Key(int, 256, "kept from tasks", low=0),
    },
    "containers": {
        "runner": Key(str, "auto", choices=("auto", "docker", "process")),
        "gpu_enabled": Key(bool, True),
        "allow_unsandboxed": Key(bool, None, "plain processes; left out: with a warning"),
    },
    "datasets": {"mappings": Key(dict, {}, "name = path; nothing else of this disk is seen")},
    "labels": {},
    "logging": {
        "level": Key(str, "INFO", choices=("DEBUG", "INFO", "WARNING", "ERROR")),
        "debug_mode": Key(bool, False, "level DEBUG, with tracebacks"),
        "log_to_console": Key(bool, True, "when it runs in the foreground"),
        "rotation": Key(str, "10 MB", "size at which the log file is put aside; 3 are kept"),
    },
}


@dataclass(frozen=True)
class NodeConfig:
    path: Path
    alias: str
    id_mode: str = "hardware"
    token: str = field(default="", repr=False)
    token_variable: str = ""
    """The unset variable that the token should come from."""
    manager_host: str = "localhost"
    manager_port: int = 50051
    max_concurrent_tasks: int = 2
    reserve_cpu_percent: float = 5.0
    reserve_memory: int = 256 * MIB
    runner: str = "auto"
    gpu_enabled: bool = True
    allow_unsandboxed: bool | None = None
    """None: nobody has said."""
    datasets: dict[str, Path] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    log_level: str = "INFO"
    debug_mode: bool = False
    log_to_console: bool = True
    log_rotation: int = 10_000_000

    @property
    def manager_address(self) -> str:
        return f"tcp://{self.manager_host}:{self.manager_port}"


def load(path: Path, environment: Mapping[str, str] | None = None) -> NodeConfig:
    """Raises ConfigError."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        name = path.stem
        raise ConfigError(
            path, f"there is no such configuration; make one with `manta_node config init {name}`."
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(path, f"is not text in UTF-8 ({error.reason}).") from error
    except OSError as error:
        raise ConfigError(path, f"cannot be read: {error.strerror}.") from error
    return parse(text, path, os.environ if environment is None else environment)


def parse(text: str, path: Path, environment: Mapping[str, str]) -> NodeConfig:
    """Raises ConfigError."""
    import tomli  # TOML 1.1, which the standard library's does not read

    try:
        document = tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        raise ConfigError(
            path, f"is not TOML: {error.msg}.", line=error.lineno, column=error.colno
        ) from None
    return _Reader(text, path, environment).read(document)


class _Reader:
    def __init__(self, text: str, path: Path, environment: Mapping[str, str]) -> None:
        self._text = text
        self._path = path
        self._environment = environment
        self._unset = ""

    def read(self, document: dict[str, Any]) -> NodeConfig:
        values: dict[str, dict[str, Any]] = {}
        for section in document:
            if section not in SCHEMA:
                raise self._unknown((section,), list(SCHEMA))
        for section, keys in SCHEMA.items():
            given = document.get(section, {})
            if not isinstance(given, dict):
                raise self._error((section,), f"{section} must be a table: write [{section}].")
            if section == "labels":
                values[section] = self._table((section,), given)
                continue
            for name in given:
                if name not in keys:
                    raise self._unknown((section, name), list(keys))
            values[section] = {
                name: self._value((section, name), key, given[name]) if name in given else None
                for name, key in keys.items()
            }
            for name, key in keys.items():
                if values[section][name] is None:
                    values[section][name] = key.default
        return self._config(values)

    def _config(self, values: dict[str, dict[str, Any]]) -> NodeConfig:
        identity, network = values["identity"], values["network"]
        resources, containers = values["resources"], values["containers"]
        log = values["logging"]
        places = resources["max_concurrent_tasks"]
        if not _HOST.fullmatch(network["manager_host"]):
            raise self._error(
                ("network", "manager_host"),
                "network.manager_host must be a host's name or address, without scheme and port, "
                f"not {network['manager_host']!r}.",
            )
        return NodeConfig(
            path=self._path,
            alias=identity["alias"] or host_name(),
            id_mode=identity["id"],
            token=identity["secured_token"].strip(),
            token_variable=self._unset,
            manager_host=network["manager_host"],
            manager_port=network["manager_port"],
            max_concurrent_tasks=max(2, os.cpu_count() or 1) if places is None else places,
            reserve_cpu_percent=float(resources["reserve_cpu_percent"]),
            reserve_memory=resources["reserve_memory_mb"] * MIB,
            runner=containers["runner"],
            gpu_enabled=containers["gpu_enabled"],
            allow_unsandboxed=containers["allow_unsandboxed"],
            datasets=self._datasets(values["datasets"]["mappings"]),
            labels=values["labels"],
            log_level="DEBUG" if log["debug_mode"] else log["level"],
            debug_mode=log["debug_mode"],
            log_to_console=log["log_to_console"],
            log_rotation=self._size(("logging", "rotation"), log["rotation"]),
        )

    def _value(self, where: tuple[str, ...], key: Key, given: Any) -> Any:
        dotted = ".".join(where)
        if key.type is dict:
            return self._table(where, given)
        from_environment = False
        if isinstance(given, str):
            substituted = self._substitute(where, given, optional=key.secret)
            from_environment = substituted != given
            given = substituted
        value = _converted(given, key.type) if from_environment else given
        fits = isinstance(value, key.type) and (key.type is bool or not isinstance(value, bool))
        if key.type is float:
            fits = isinstance(value, int | float) and not isinstance(value, bool)
        if fits and key.low is not None:
            fits = key.low <= value and (key.high is None or value <= key.high)
        if fits and key.choices:
            if key.type is str and value.upper() in key.choices:
                value = value.upper()
            fits = value in key.choices
        if fits and key.name:
            fits = NAME.fullmatch(value) is not None
        if not fits:
            shown = "" if key.secret else f", not {given!r}"
            raise self._error(where, f"{dotted} must be {_wanted(key)}{shown}.")
        return value

    def _table(self, where: tuple[str, ...], given: Any) -> dict[str, str]:
        dotted = ".".join(where)
        if not isinstance(given, dict):
            raise self._error(where, f"{dotted} must be a table of names and texts.")
        table = {}
        for name, value in given.items():
            if not isinstance(value, str) or not value:
                raise self._error(
                    (*where, name), f"{dotted}.{name} must be a text in quotes, not {value!r}."
                )
            table[name] = self._substitute((*where, name), value)
        return table

    def _datasets(self, mappings: dict[str, str]) -> dict[str, Path]:
        folder = self._path.parent.absolute()
        return {name: folder / Path(value).expanduser() for name, value in mappings.items()}

    def _substitute(self, where: tuple[str, ...], text: str, *, optional: bool = False) -> str:
        """`${NAME}` by the variable's value; `$${` stands for itself without its first $."""

        def value(match: re.Match[str]) -> str:
            escaped, name = match.groups()
            if escaped:
                return f"${{{name}}}"
            if name in self._environment:
                return self._environment[name]
            if optional:
                self._unset = name
                return ""
            raise self._error(
                where,
                f"{'.'.join(where)} needs the environment variable {name}, which is not set; "
                f"set it, or write $${{{name}}} if the text itself is meant.",
            )

        return _VARIABLE.sub(value, text)

    def _size(self, where: tuple[str, ...], text: str) -> int:
        match = _SIZE.fullmatch(text.strip())
        if match is None:
            raise self._error(where, f'{".".join(where)} must be a size as "10 MB", not {text!r}.')
        number, unit = match.groups()
        base = 1024 if unit and "i" in unit else 1000
        power = "KMG".index(unit[0].upper()) + 1 if unit else 0
        return max(10_000, int(float(number) * base**power))

    def _unknown(self, where: tuple[str, ...], known: list[str]) -> ConfigError:
        import difflib

        dotted = ".".join(where)
        if len(where) == 1:
            homes = [f"{s}.{where[0]}" for s, keys in SCHEMA.items() if where[0] in keys]
            near = homes or difflib.get_close_matches(where[0], known, 1, 0.5)
        else:
            near = difflib.get_close_matches(where[-1], known, 1, 0.5)
            if not near:
                near = [f"{s}.{where[-1]}" for s, keys in SCHEMA.items() if where[-1] in keys]
        hint = f"did you mean {near[0]!r}?" if near else f"it may be: {', '.join(known)}."
        return self._error(where, f"there is no key {dotted!r}; {hint}")

    def _error(self, where: tuple[str, ...], sentence: str) -> ConfigError:
        return ConfigError(self._path, sentence, line=line_of(self._text, where))


_HEADER = re.compile(r"\s*\[\[?([^\[\]]+)\]\]?\s*(?:#.*)?")
_ASSIGNMENT = re.compile(
    r"""\s*((?:"[^"]*"|'[^']*'|[\w-]+)(?:\s*\.\s*(?:"[^"]*"|'[^']*'|[\w-]+))*)\s*="""
)
_PART = re.compile(r""""([^"]*)"|'([^']*)'|([\w-]+)""")


def line_of(text: str, where: tuple[str, ...]) -> int | None:
    """The line of a key, counted from 1. The parser does not tell, so the text is searched."""
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


def _converted(text: str, wanted: type) -> Any:
    """What a variable's text stands for."""
    try:
        if wanted is bool:
            return {"true": True, "false": False}.get(text.lower(), text)
        return wanted(text)
    except ValueError:
        return text


def _wanted(key: Key) -> str:
    if key.choices:
        return "one of " + ", ".join(f'"{choice}"' for choice in key.choices)
    if key.name:
        return "a name of up to 100 letters, digits, dots, dashes and underscores"
    noun = {
        str: "a text in quotes",
        int: "a whole number",
        float: "a number",
        bool: "true or false",
    }
    words = noun[key.type]
    if key.low is not None and key.high is not None:
        words += f" from {key.low:g} to {key.high:g}"
    elif key.low is not None:
        words += f" of at least {key.low:g}"
    return words


def host_name() -> str:
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", os.uname().nodename).strip("-._")
    return name[:100] or "node"


def render(config: NodeConfig) -> str:
    """The configuration in force, as TOML; the token is masked."""
    lines = [f"# {config.path}, with defaults; secrets are not shown"]
    effective: dict[str, dict[str, Any]] = {
        "identity": {
            "secured_token": "***" if config.token else "",
            "alias": config.alias,
            "id": config.id_mode,
        },
        "network": {"manager_host": config.manager_host, "manager_port": config.manager_port},
        "resources": {
            "max_concurrent_tasks": config.max_concurrent_tasks,
            "reserve_cpu_percent": config.reserve_cpu_percent,
            "reserve_memory_mb": config.reserve_memory // MIB,
        },
        "containers": {
            "runner": config.runner,
            "gpu_enabled": config.gpu_enabled,
            "allow_unsandboxed": config.allow_unsandboxed,
        },
        "datasets.mappings": {name: str(path) for name, path in config.datasets.items()},
        "labels": config.labels,
        "logging": {
            "level": config.log_level,
            "debug_mode": config.debug_mode,
            "log_to_console": config.log_to_console,
            "rotation": f"{config.log_rotation / 1e6:g} MB",
        },
    }
    for section, values in effective.items():
        lines += ["", f"[{section}]"]
        given = {name: value for name, value in values.items() if value is not None}
        lines += [f"{toml_key(name)} = {toml_value(value)}" for name, value in given.items()]
    return "\n".join(lines) + "\n"


def toml_key(name: str) -> str:
    return name if re.fullmatch(r"[\w-]+", name, re.ASCII) else toml_value(name)


def toml_value(value: str | bool | int | float) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"{value:g}" if isinstance(value, float) else str(value)
    escapes = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    return '"' + "".join(escapes.get(c, c if c >= " " else f"\\u{ord(c):04x}") for c in value) + '"'
