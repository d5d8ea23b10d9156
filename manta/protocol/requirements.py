"""What a module's requirements may say: lines of a requirements file that name packages.

Where packages come from is the owner's business, so that no line may lead elsewhere than to the
index of the node: no URL, no path, no other file, no option but `--require-hashes` and `--hash`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from packaging.requirements import Requirement

REQUIRE_HASHES: Final = "--require-hashes"
LONGEST: Final = 16_384
"""Characters of a line: one requirement with the hashes of all its wheels."""
_HASH = re.compile(r"\s--hash[=\s]\s*(\S+)")
_DIGEST = re.compile(r"sha(?:256:[0-9a-f]{64}|384:[0-9a-f]{96}|512:[0-9a-f]{128})")
_UNUSED = re.compile(r"[^ -~]|[$\\#]")
"""What no requirement needs: a newline begins another line, a backslash joins the next one, and
installers put variables in place of `${...}`, some of which are secrets of the node's owner."""
_COMMENT = re.compile(r"(^|\s)#.*$")


def lines_of(text: str) -> tuple[str, ...]:
    """The lines of a requirements file: continued ones joined, comments and empty ones left out."""
    whole = re.sub(r"\\\r?\n", " ", text)
    lines = (" ".join(_COMMENT.sub("", line).split()) for line in whole.splitlines())
    return tuple(line for line in lines if line)


def flaw_of(line: str) -> str:
    """What is wrong with a line, with the remedy and without a full stop; "" if nothing is."""
    if len(line) > LONGEST:
        return f"it begins with {line[:40]!r} and has more than {LONGEST:,} characters; shorten it"
    if line == REQUIRE_HASHES:
        return ""
    remedy = 'name packages, as in "humanize>=4,<5"'
    if found := _UNUSED.search(line):
        return f"{line[:80]!r} has {found[0]!r}, which no requirement needs; {remedy}"
    if line.startswith("-"):
        return (
            f"{line[:80]!r} is an option that no requirement may have; {remedy}, and leave it to "
            "the owners of nodes where they come from"
        )
    text = _HASH.sub("", line).strip()
    for digest in _HASH.findall(line):
        if not _DIGEST.fullmatch(digest):
            return f"{digest[:80]!r} is no hash; write --hash=sha256: and its 64 digits"
    try:
        wanted = _read(text)
    except ValueError:
        return f"{text[:80]!r} is no requirement; {remedy}"
    if wanted.url is not None:
        return f"{text[:80]!r} names a URL, and nodes install from their index alone; {remedy}"
    return ""


def requirement_of(line: str) -> Requirement | None:
    """What a line without flaws asks for; None for an option."""
    return None if line == REQUIRE_HASHES else _read(_HASH.sub("", line).strip())


def _read(text: str) -> Requirement:
    """Raises ValueError (InvalidRequirement)."""
    from packaging.requirements import Requirement  # a hundredth of a second, and seldom needed

    return Requirement(text)


def digest_of(lines: Sequence[str]) -> str:
    """By which a manager knows them again; 12 hexadecimal digits."""
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=6).hexdigest()


def named(lines: Iterable[str]) -> list[str]:
    """The requirements as people read them: without hashes, markers and options. What an earlier
    version has stored may be none, and is quoted."""
    return [_shown(line) for line in lines if line != REQUIRE_HASHES]


def _shown(line: str) -> str:
    wanted = None if flaw_of(line) else requirement_of(line)
    return repr(line[:80]) if wanted is None else f"{wanted.name}{wanted.specifier}"
