"""A node's configuration: TOML, checked, with `${VAR}` taken from the environment.

`SCHEMA` is the whole of what a file may say. What is wrong names file, line and key, and
the key that was probably meant. A secret is in no message and no repr.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from manta.node.errors import ConfigError, Flaw, NoConfig

MIB = 1024 * 1024
LEAST_ROTATION = 10_000
"""Bytes of a log; less would be turned over all the time."""
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
            "where a node that is set up anew has its id from",
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
        "value_memory_mb": Key(
            int, 0, "memory for values of tasks, larger ones lie on disk; 0: a quarter", low=0
        ),
        "scratch_mb": Key(int, 10_240, "what a task may keep in its scratch folder", low=1),
    },
    "containers": {
        "runner": Key(str, "auto", choices=("auto", "docker", "process")),
        "default_image": Key(str, None, "of modules that name none, where all run in containers"),
        "gpu_enabled": Key(bool, True),
        "allow_unsandboxed": Key(bool, None, "plain processes; left out: with a warning"),
    },
    "datasets": {"mappings": Key(dict, {}, "name = path; nothing else of this disk is seen")},
    "labels": {},
    "logging": {
        "level": Key(str, "INFO", choices=("DEBUG", "INFO", "WARNING", "ERROR")),
        "debug_mode": Key(bool, False, "level DEBUG"),
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
    value_memory: int = 0
    """Bytes that values of tasks may take in memory; 0: a quarter of the machine's."""
    scratch: int = 10_240 * MIB
    """Bytes that the scratch folder of a task may hold."""
    runner: str = "auto"
    default_image: str | None = None
    """None: Python's own, of the node's version."""
    gpu_enabled: bool = True
    allow_unsandboxed: bool | None = None
    """None: nobody has said."""
    datasets: dict[str, Path] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    log_level: str = "INFO"
    debug_mode: bool = False
    log_to_console: bool = True
    log_rotation: int = 10_000_000
    number: int | None = None
    """Which node of a cluster that one configuration describes, counted from 1."""

    @property
    def name(self) -> str:
        """By which the node goes on this machine."""
        return self.path.stem if self.number is None else f"{self.path.stem}-{self.number}"

    @property
    def manager_address(self) -> str:
        return f"tcp://{self.manager_host}:{self.manager_port}"


def load(path: Path, environment: Mapping[str, str] | None = None) -> NodeConfig:
    """Raises ConfigError."""
    try:
        text = path.read_text(encoding="utf-8")
        mode = path.stat().st_mode
    except FileNotFoundError:
        make = f"make one with `manta_node config init {path.stem}`"
        raise NoConfig(path, Flaw("there is no such configuration", make)) from None
    except UnicodeDecodeError as error:
        flaw = Flaw(f"it is not text in UTF-8 ({error.reason})", "write it anew")
        raise ConfigError(path, flaw) from None
    except OSError as error:
        flaw = Flaw(f"it cannot be read: {error.strerror}", "it must be a file of this user's")
        raise ConfigError(path, flaw) from error
    reader = _Reader(text, path, os.environ if environment is None else environment)
    if mode & 0o077 and reader.has_secret():
        reader.flaws.append(
            Flaw(
                f"it holds a token and is open to other users (mode {mode & 0o777:04o})",
                f"run `chmod 600 {path}`, or let the token come from a variable",
            )
        )
    return reader.read()


def parse(text: str, path: Path, environment: Mapping[str, str]) -> NodeConfig:
    """Raises ConfigError."""
    return _Reader(text, path, environment).read()


def instance(config: NodeConfig, number: int) -> NodeConfig:
    """The configuration of the cluster's node `number`, counted from 1.

    `{i}`, which counts from 0, and `{alias}` in datasets' paths are its own.
    """
    alias = f"{config.alias}-{number}"

    def own(path: Path) -> Path:
        return Path(str(path).replace("{i}", str(number - 1)).replace("{alias}", alias))

    datasets = {name: own(path) for name, path in config.datasets.items()}
    return replace(config, alias=alias, number=number, datasets=datasets)


class _Reader:
    """Collects what is wrong, so that all of it is said at once."""

    def __init__(self, text: str, path: Path, environment: Mapping[str, str]) -> None:
        self.flaws: list[Flaw] = []
        self._text = text
        self._path = path
        self._environment = environment
        self._unset = ""
        self._document = self._parsed()

    def _parsed(self) -> dict[str, Any]:
        import tomli  # TOML 1.1, which the standard library's does not read

        try:
            return tomli.loads(self._text)
        except tomli.TOMLDecodeError as error:
            wrong = f"it is not TOML: {error.msg}"
            remedy = "correct it there, or just before"
            flaw = Flaw(wrong, remedy, line=error.lineno, column=error.colno)
            raise ConfigError(self._path, flaw) from None

    def has_secret(self) -> bool:
        """Whether the file itself tells a token, and does not only name a variable."""
        identity = self._document.get("identity", {})
        token = identity.get("secured_token") if isinstance(identity, dict) else None
        return isinstance(token, str) and bool(_VARIABLE.sub("", token).strip())

    def read(self) -> NodeConfig:
        """Raises ConfigError, with all flaws."""
        values: dict[str, dict[str, Any]] = {}
        for section in self._document:
            if section not in SCHEMA:
                self._unknown((section,), list(SCHEMA))
        for section, keys in SCHEMA.items():
            given = self._document.get(section, {})
            if not isinstance(given, dict):
                self._flaw((section,), f"{section} is no table", f"write [{section}]")
                given = {}
            if section == "labels":
                values[section] = self._table((section,), given)
                continue
            for name in given:
                if name not in keys:
                    self._unknown((section, name), list(keys))
            found = {
                name: self._value((section, name), key, given[name])
                for name, key in keys.items()
                if name in given
            }
            values[section] = {
                name: key.default if found.get(name) is None else found[name]
                for name, key in keys.items()
            }
        config = self._config(values)
        if self.flaws:
            raise ConfigError(self._path, *self.flaws)
        return config

    def _config(self, values: dict[str, dict[str, Any]]) -> NodeConfig:
        identity, network = values["identity"], values["network"]
        resources, containers = values["resources"], values["containers"]
        log = values["logging"]
        places = resources["max_concurrent_tasks"]
        if not _HOST.fullmatch(network["manager_host"]):
            self._flaw(
                ("network", "manager_host"),
                f"network.manager_host is {network['manager_host']!r}",
                "it must be a host's name or address, without scheme and port",
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
            value_memory=resources["value_memory_mb"] * MIB,
            scratch=resources["scratch_mb"] * MIB,
            runner=containers["runner"],
            default_image=containers["default_image"] or None,
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
        """None, and a flaw, for a value that cannot be."""
        dotted = ".".join(where)
        if key.type is dict:
            return self._table(where, given)
        value = given
        if isinstance(given, str):
            text = self._substitute(where, given, optional=key.secret)
            if text is None:
                return None
            value = _converted(text, key.type) if text != given else text
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
            shown = "not a text" if key.secret else repr(value)
            self._flaw(where, f"{dotted} is {shown}", f"it must be {_wanted(key)}")
            return None
        return value

    def _table(self, where: tuple[str, ...], given: Any) -> dict[str, str]:
        dotted = ".".join(where)
        if not isinstance(given, dict):
            self._flaw(where, f"{dotted} is {given!r}", "it must be a table of names and texts")
            return {}
        table = {}
        for name, value in given.items():
            here = (*where, name)
            if not isinstance(value, str) or not value:
                wanted = "it must not be empty" if value == "" else "it must be a text in quotes"
                self._flaw(here, f"{dotted}.{name} is {value!r}", wanted)
            elif (text := self._substitute(here, value)) is not None:
                table[name] = text
        return table

    def _datasets(self, mappings: dict[str, str]) -> dict[str, Path]:
        folder = self._path.parent.absolute()
        return {name: folder / Path(value).expanduser() for name, value in mappings.items()}

    def _substitute(
        self, where: tuple[str, ...], text: str, *, optional: bool = False
    ) -> str | None:
        """`${NAME}` by the variable's value; `$${` stands for itself without its first $."""
        unset: list[str] = []

        def value(match: re.Match[str]) -> str:
            escaped, name = match.groups()
            if escaped:
                return f"${{{name}}}"
            if name not in self._environment:
                unset.append(name)
            return self._environment.get(name, "")

        found = _VARIABLE.sub(value, text)
        if unset and optional:
            self._unset = unset[0]
            return ""
        for name in unset:
            self._flaw(
                where,
                f"{'.'.join(where)} needs the environment variable {name}, which is not set",
                f"set it, or write $${{{name}}} if the text itself is meant",
            )
        return None if unset else found

    def _size(self, where: tuple[str, ...], text: str) -> int:
        match = _SIZE.fullmatch(text.strip())
        if match is None:
            self._flaw(where, f"{'.'.join(where)} is {text!r}", 'it must be a size as "10 MB"')
            return 0
        number, unit = match.groups()
        base = 1024 if unit and "i" in unit else 1000
        power = "KMG".index(unit[0].upper()) + 1 if unit else 0
        size = int(float(number) * base**power)
        if size < LEAST_ROTATION:
            self._flaw(where, f"{'.'.join(where)} is {text!r}", 'it must be at least "10 KB"')
        return size

    def _unknown(self, where: tuple[str, ...], known: list[str]) -> None:
        import difflib

        if len(where) == 1:
            homes = [f"{s}.{where[0]}" for s, keys in SCHEMA.items() if where[0] in keys]
            near = homes or difflib.get_close_matches(where[0], known, 1, 0.5)
        else:
            near = difflib.get_close_matches(where[-1], known, 1, 0.5)
            if not near:
                near = [f"{s}.{where[-1]}" for s, keys in SCHEMA.items() if where[-1] in keys]
        hint = f"did you mean {near[0]!r}?" if near else f"it may be: {', '.join(known)}"
        self._flaw(where, f"there is no key {'.'.join(where)!r}", hint)

    def _flaw(self, where: tuple[str, ...], wrong: str, remedy: str) -> None:
        self.flaws.append(Flaw(wrong, remedy, where, line_of(self._text, where)))


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
            "value_memory_mb": config.value_memory // MIB,
            "scratch_mb": config.scratch // MIB,
        },
        "containers": {
            "runner": config.runner,
            "default_image": config.default_image,
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
