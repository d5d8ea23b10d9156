"""Reads an owner's policy: TOML, checked; what is wrong names file, line and key.

A policy that can't be read allows nothing: a node does not start with it, and one that runs denies
what it is asked for until the file is right again.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from manta.node.errors import ConfigError, Flaw
from manta.node.policy.rules import DAYS, DIGEST, Hours, Policy, Rule, Verdict
from manta.protocol.isolation import LEVELS
from manta.transports.errors import KeyFileError
from manta.transports.files import FileTooLarge, read_bounded
from manta.transports.security.keys import check_unwritable

MOST = 1024 * 1024
"""Bytes of a policy."""
MOST_RULES = 1000
LEAST_SUMMED = 2
"""Nodes that a sum is of at least: that of one is its value."""
_HEADER = re.compile(r"\s*\[(\[)?\s*([\w.-]+)\s*\]?\]\s*(?:#.*)?")
_KEY = re.compile(r"""\s*(?:"([^"]*)"|'([^']*)'|([\w-]+))\s*=""")
_HOURS = re.compile(r"([01]\d|2[0-4]):([0-5]\d)-([01]\d|2[0-4]):([0-5]\d)")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(B|KB|MB|GB|KiB|MiB|GiB)")
_FINGERPRINT = re.compile("(?:[0-9a-f]{4}-){7}[0-9a-f]{4}")
_HEX = re.compile("[0-9a-f]{6,64}")


def load(path: Path) -> Policy:
    """Raises ConfigError."""
    try:
        text = read_bounded(path, MOST).decode()
    except FileNotFoundError:
        flaw = Flaw("there is no such file", "write it, or take policy.file out")
        raise ConfigError(path, flaw) from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            path, Flaw(f"it is not UTF-8 ({error.reason})", "write it anew")
        ) from None
    except FileTooLarge as error:
        raise ConfigError(path, Flaw(str(error), "write it anew")) from None
    except OSError as error:
        flaw = Flaw(f"it cannot be read: {error.strerror}", "it must be a file of this user's")
        raise ConfigError(path, flaw) from error
    try:
        check_unwritable(path)
    except KeyFileError as error:
        wrong, _, remedy = str(error).partition(": ")
        raise ConfigError(path, Flaw(f"it {wrong.removeprefix(f'{path} ')}", remedy)) from None
    if not text.strip():  # as it is for a moment where an editor writes over it
        raise ConfigError(path, Flaw("it is empty", 'write rules, or otherwise = "deny"'))
    return parse(text, path)


def parse(text: str, path: Path) -> Policy:
    """Raises ConfigError, with all flaws."""
    import tomli

    try:
        document = tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        flaw = Flaw(
            f"it is not TOML: {error.msg}",
            "correct it there, or just before",
            line=error.lineno,
            column=error.colno,
        )
        raise ConfigError(path, flaw) from None
    except (RecursionError, ValueError) as error:
        flaw = Flaw(f"it is not TOML that can be read: {error}", "write it anew")
        raise ConfigError(path, flaw) from None
    return _Reader(text, path, document).read()


class _Reader:
    def __init__(self, text: str, path: Path, document: Mapping[str, Any]) -> None:
        self._path = path
        self._document = document
        self._lines = _lines(text)
        self._flaws: list[Flaw] = []

    def read(self) -> Policy:
        document, values = self._document, dict[str, Any]()
        for name, value in document.items():
            if name in _TOP:
                self._take(values, _TOP[name], name, value, ("", 0, name))
            elif name not in ("rule", "users"):
                self._unknown(name, [*_TOP, "rule", "users"], ("", 0, name))
        users = self._users(document.get("users", {}))
        rules = document.get("rule", [])
        if not isinstance(rules, list) or not all(isinstance(one, dict) for one in rules):
            self._flaw("rule is no list of tables", "write [[rule]] before each", ("rule", 0, ""))
            rules = []
        if len(rules) > MOST_RULES:
            self._flaw(f"there are {len(rules)} rules", f"{MOST_RULES} are possible", ("", 0, ""))
        found = tuple(self._rule(number, one) for number, one in enumerate(rules[:MOST_RULES]))
        if self._flaws:
            raise ConfigError(self._path, *self._flaws)
        return Policy(self._path.name, found, users=users, **values)

    def _rule(self, number: int, table: Mapping[str, Any]) -> Rule:
        values: dict[str, Any] = {}
        for name, value in table.items():
            where = ("rule", number, name)
            if name in _RULE:
                self._take(values, _RULE[name], name, value, where)
            else:
                self._unknown(name, list(_RULE), where)
        values["shares"] = values.pop("share", False)
        if values["shares"] and values.get("cohort", 1) < LEAST_SUMMED:
            wrong = f"share says all_reduce, and cohort is {values.get('cohort', 1)}"
            remedy = f"say how many nodes a sum is of at least: cohort = {LEAST_SUMMED} or more"
            self._flaw(wrong, remedy, ("rule", number, "share"))
        return Rule(self._lines.get(("rule", number, ""), 0), **values)

    def _users(self, table: Any) -> dict[str, tuple[str, ...]]:
        if not isinstance(table, dict):
            self._flaw("users is no table", "write [users]", ("", 0, "users"))
            return {}
        users: dict[str, Any] = {}
        for name, value in table.items():
            self._take(users, _keys, name, value, ("users", 0, name))
        return users

    def _take(
        self,
        values: dict[str, Any],
        check: Callable[[Any], Any],
        name: str,
        value: Any,
        where: tuple[str, int, str],
    ) -> None:
        try:
            values[name] = check(value)
        except ValueError as error:
            self._flaw(f"{name} is {value!r}", str(error), where)

    def _unknown(self, name: str, known: list[str], where: tuple[str, int, str]) -> None:
        near = difflib.get_close_matches(name, known, 1, 0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"it may be: {', '.join(known)}"
        self._flaw(f"there is no key {name!r}", hint, where)

    def _flaw(self, wrong: str, remedy: str, where: tuple[str, int, str]) -> None:
        table, _, name = where
        key = tuple(part for part in (table, name) if part)
        line = self._lines.get(where) or self._lines.get((name, 0, ""))
        self._flaws.append(Flaw(wrong, remedy, key, line))


def _lines(text: str) -> dict[tuple[str, int, str], int]:
    """The lines of tables and keys, counted from 1: the parser does not tell. Each rule has a
    number of its own; "" is the table itself."""
    found: dict[tuple[str, int, str], int] = {}
    table, number, count = "", 0, 0
    for line_number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.fullmatch(line):
            table = header[2]
            number = count if header[1] else 0
            count += bool(header[1])
            found.setdefault((table, number, ""), line_number)
        elif key := _KEY.match(line):
            name = next(part for part in key.groups() if part is not None)
            found.setdefault((table, number, name), line_number)
    return found


# What keys may say. Each raises ValueError with the remedy.


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("it must be a text in quotes")
    return value


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(x, str) and x for x in value):
        raise ValueError('it must be a list of texts in quotes that is not empty, such as ["*"]')
    return tuple(value)


def _modules(value: Any) -> tuple[str, ...]:
    for one in (texts := _texts(value)):
        if one.startswith(DIGEST) and not _HEX.fullmatch(one.removeprefix(DIGEST)):
            raise ValueError(f'after "{DIGEST}" come 6 to 64 hexadecimal digits')
    return texts


def _keys(value: Any) -> tuple[str, ...]:
    for one in (texts := _texts(value)):
        if not _FINGERPRINT.fullmatch(one):
            raise ValueError(f"{one!r} is no fingerprint as `manta whoami` shows one")
    return texts


def _one_of(*words: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if value not in words:
            raise ValueError("it must be one of " + ", ".join(f'"{word}"' for word in words))
        return str(value)

    return check


def _verdict(value: Any) -> Verdict:
    words = [verdict.word for verdict in Verdict]
    return Verdict[_one_of(*words)(value).upper()]


def _hours(value: Any) -> Hours:
    match = _HOURS.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError('it must be such as "22:00-06:00"')
    one, two, three, four = map(int, match.groups())
    begin, end = one * 60 + two, three * 60 + four
    if max(begin, end) > 24 * 60 or begin == end:
        raise ValueError('it must be such as "22:00-06:00"; leave it out for all day')
    return Hours(begin, end)


def _days(value: Any) -> tuple[str, ...]:
    if not set(days := _texts(value)) <= set(DAYS):
        raise ValueError("it must be a list of " + ", ".join(f'"{day}"' for day in DAYS))
    return days


def _is(yes: str, no: str) -> Callable[[Any], bool]:
    """Whether the first of two words is said."""
    return lambda value: _one_of(yes, no)(value) == yes


_any_or_none = _is("any", "none")


def _count(least: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError(f"it must be a whole number of at least {least}")
        return value

    return check


def _size(value: Any) -> int:
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError('it must be a size such as "1 MB"')
    number, unit = match.groups()
    power = "BKMG".index(unit[0])
    return int(float(number) * (1024 if "i" in unit else 1000) ** power)


_TOP: dict[str, Callable[[Any], Any]] = {
    "otherwise": _verdict,
    "new_keys": _one_of("ask", "first", "deny"),
}
_RULE: dict[str, Callable[[Any], Any]] = {
    "name": _text,
    "users": _texts,
    "keys": _keys,
    "swarms": _texts,
    "modules": _modules,
    "images": _texts,
    "datasets": _texts,
    "approve": _verdict,
    "hours": _hours,
    "days": _days,
    "isolation": _one_of(*LEVELS),
    "network": _any_or_none,
    "cohort": _count(1),
    "results": _texts,
    "largest": _size,
    "most": _count(0),
    "exchange": _any_or_none,
    "failures": _any_or_none,
    "logs": _is("all", "summary"),
    "share": _is("all_reduce", "any"),
}
