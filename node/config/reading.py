"""Reads a node's configuration: TOML, checked, with `${VAR}` taken from the environment.

What is wrong names file, line and key, and the key that was probably meant. A secret is in no
message.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from manta.node.config import handed_over
from manta.node.config.described import SECTION, DatasetTables
from manta.node.config.schema import FIELDS, KEYS, SECTIONS, Key, NodeConfig
from manta.node.config.toml import line_of
from manta.node.errors import ConfigError, Flaw, NoConfig
from manta.transports.errors import KeyFileError
from manta.transports.files import FileTooLarge, read_bounded
from manta.transports.security.keys import check_unwritable

MOST = 16 * 1024 * 1024
"""Bytes of a configuration: ten thousand datasets with long paths."""
MOST_TOLD = 1024 * 1024
"""Bytes of the names of datasets, and of labels, which the manager is told in one message."""
_VARIABLE = re.compile(r"\$(\$?)\{([^}]*)\}")


def load(path: Path, environment: Mapping[str, str] | None = None) -> NodeConfig:
    """Raises ConfigError."""
    try:
        text = read_bounded(path, MOST).decode()
        mode = path.stat().st_mode
    except FileNotFoundError:
        make = f"make one with `manta_node config init {path.stem}`"
        raise NoConfig(path, Flaw("there is no such configuration", make)) from None
    except UnicodeDecodeError as error:
        flaw = Flaw(f"it is not text in UTF-8 ({error.reason})", "write it anew")
        raise ConfigError(path, flaw) from None
    except FileTooLarge as error:
        raise ConfigError(path, Flaw(str(error), "write it anew")) from None
    except OSError as error:
        flaw = Flaw(f"it cannot be read: {error.strerror}", "it must be a file of this user's")
        raise ConfigError(path, flaw) from error
    reader = _Reader(text, path, handed_over.environment() if environment is None else environment)
    if mode & 0o077 and reader.has_secret():
        reader.flaws.append(
            Flaw(
                f"it holds a token and is open to other users (mode {mode & 0o777:04o})",
                f"run `chmod 600 {path}`, or let the token come from a variable",
            )
        )
    try:
        check_unwritable(path)
    except KeyFileError as error:  # they could have it read any file, or trust another manager
        wrong, _, remedy = str(error).partition(": ")
        reader.flaws.append(Flaw(f"it {wrong.removeprefix(f'{path} ')}", remedy))
    return reader.read()


def parse(text: str, path: Path, environment: Mapping[str, str]) -> NodeConfig:
    """Raises ConfigError."""
    return _Reader(text, path, environment).read()


class _Reader:
    """Collects all flaws, so that they are reported together."""

    def __init__(self, text: str, path: Path, environment: Mapping[str, str]) -> None:
        self.flaws: list[Flaw] = []
        self._text = text
        self._path = path
        self._environment = environment
        self._unset = ""
        self._of_secrets: list[str] = []
        self._notes: list[str] = []
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
        except (RecursionError, ValueError) as error:  # of a number, or of depth
            flaw = Flaw(f"it is not TOML that can be read: {error}", "write it anew")
            raise ConfigError(self._path, flaw) from None

    def has_secret(self) -> bool:
        """Whether the file itself holds a token, and does not just name a variable."""
        identity = self._document.get("identity", {})
        token = identity.get("secured_token") if isinstance(identity, dict) else None
        return isinstance(token, str) and bool(_VARIABLE.sub("", token).strip())

    def read(self) -> NodeConfig:
        """Raises ConfigError, with all flaws."""
        for section in self._document:
            if section not in SECTIONS and section != SECTION:
                self._unknown((section,), [*SECTIONS, SECTION])
        given: dict[str, Any] = {}
        for section, names in SECTIONS.items():
            table = self._document.get(section, {})
            if not isinstance(table, dict):
                self._flaw((section,), f"{section} is no table", f"write [{section}]")
            elif not names:
                given[section] = table
            else:
                given |= {f"{section}.{name}": table[name] for name in names if name in table}
                for name in [name for name in table if name not in names]:
                    self._unknown((section, name), names)
        found = {name: self._value(key, given) for name, key in FIELDS.items()}
        folder = self._path.parent.absolute()
        tables = DatasetTables(self._text, self._substitute, self.flaws)
        tables.read(self._document.get(SECTION, []), found["datasets"])
        found["datasets"] = {
            name: folder / os.path.expanduser(path)
            for name, path in {**found["datasets"], **tables.paths}.items()
        }
        if found["policy"] is not None:
            found["policy"] = folder / os.path.expanduser(found["policy"])
        if (source := found["encryption_key_from"]) is not None and source.kind == "file":
            place = folder / os.path.expanduser(source.name)
            found["encryption_key_from"] = source._replace(name=str(place))
        told = sum(len(name.encode()) + 64 for name in found["datasets"])
        told += sum(len(f"{name}{text}".encode()) for name, text in found["labels"].items())
        told += sum(len(f"{one.shown()}".encode()) for one in tables.described.values())
        if told > MOST_TOLD:
            count = len(found["datasets"])
            wrong = f"{count} datasets and {len(found['labels'])} labels are too much for a manager"
            self._flaw(("datasets", "mappings"), wrong, "map a folder instead of each of its files")
        variables = tuple(self._of_secrets)
        config = NodeConfig(
            path=self._path,
            token_variable=self._unset,
            token_variables=variables,
            notes=tuple(self._notes),
            described=tables.described,
            **found,
        )
        if self.flaws:
            raise ConfigError(self._path, *self.flaws)
        return replace(config, log_level="DEBUG") if config.debug_mode else config

    def _value(self, key: Key, given: Mapping[str, Any]) -> Any:
        """Returns the node's value; for an invalid one adds a flaw and returns the default."""
        if key.path not in given:
            return key.left_out()
        value, where = given[key.path], tuple(key.path.split("."))
        if key.type is dict:
            return self._table(where, value)
        if key.type is list and isinstance(value, list):
            value = [self._substitute(where, one) if isinstance(one, str) else one for one in value]
            if None in value:
                return key.left_out()
        if isinstance(value, str):
            text = self._substitute(where, value, optional=key.secret)
            if text is None:
                return key.left_out()
            value = converted(text, key.type) if text != value else text
            if value in key.former:
                today = key.former[value]
                self._notes.append(f'{key.path} = "{value}" is called "{today}" now: write that')
                value = today
        try:
            return key.check(value)
        except ValueError as error:
            shown = "not a text" if key.secret else repr(value)
            self._flaw(where, f"{key.path} is {shown}", str(error))
            return key.left_out()

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

    def _substitute(
        self, where: tuple[str, ...], text: str, *, optional: bool = False
    ) -> str | None:
        """Replaces `${NAME}` by the variable's value and `$${` by `${`."""
        unset: list[str] = []

        def value(match: re.Match[str]) -> str:
            escaped, name = match.groups()
            if escaped:
                return f"${{{name}}}"
            if optional:
                self._of_secrets.append(name)
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

    def _unknown(self, where: tuple[str, ...], known: list[str]) -> None:
        import difflib

        elsewhere = [path for path, key in KEYS.items() if key.name == where[-1]]
        near = difflib.get_close_matches(where[-1], known, 1, 0.5)
        near = elsewhere or near if len(where) == 1 else near or elsewhere
        hint = f"did you mean {near[0]!r}?" if near else f"it may be: {', '.join(known)}"
        self._flaw(where, f"there is no key {'.'.join(where)!r}", hint)

    def _flaw(self, where: tuple[str, ...], wrong: str, remedy: str) -> None:
        self.flaws.append(Flaw(wrong, remedy, where, line_of(self._text, where)))


def converted(text: str, wanted: type) -> Any:
    """Returns the text as a value of that type, or the text itself if it is none."""
    try:
        if wanted is bool:
            return {"true": True, "false": False}.get(text.lower(), text)
        return wanted(text)
    except ValueError:
        return text
