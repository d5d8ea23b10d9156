"""Versions of modules: MAJOR.MINOR.PATCH, and ranges of them in PEP 440's grammar. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable

_VERSION = re.compile(r"(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)")
MAX_LENGTH = 200
REMEDY = 'give MAJOR.MINOR.PATCH such as "1.0.0", or a range such as ">=1.0,<2", "~=1.2", "==1.*"'


def is_version(text: str) -> bool:
    """Whether it is MAJOR.MINOR.PATCH."""
    return len(text) <= MAX_LENGTH and _VERSION.fullmatch(text) is not None


def order(version: str) -> tuple[int, ...]:
    """The sort key of a version."""
    return tuple(map(int, version.split(".")))


def allowed(text: str) -> Callable[[str], bool]:
    """A test for the versions that a version or a range allows. Raises ValueError for neither."""
    if is_version(text):
        return text.__eq__
    from packaging.specifiers import InvalidSpecifier, SpecifierSet  # 30 ms, and rarely needed

    try:
        if len(text) > MAX_LENGTH or not text.strip(", "):
            raise ValueError(text)
        return SpecifierSet(text).contains
    except InvalidSpecifier:
        raise ValueError(text) from None


def taken(name: str, version: str) -> str:
    """Why other content is refused."""
    return (
        f"The module {name!r} {version} is registered with other content, and what has a version "
        "never changes: give yours the next version, or leave version= out; or remove the "
        f"registered one first (manta module rm {name} --version {version})."
    )
