"""One rule for what users name: tags, aliases, modules, swarms, networks, metrics, keys.

Whatever can be named can be shown in a line, typed in a shell, and be the name of a file.
`manta.light.arguments` has the same rule for task code, which cannot import this module.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from itertools import islice

MAX_NAME = 200
"""Characters."""
MAX_FILE_NAME = 200
"""Bytes; file systems take 255, some of which are for an ending."""
COMPARED = 1000
"""Names among which what was meant is looked for."""
_QUOTED = frozenset('/\\%:*?"<>|~,')


def is_name(text: str) -> bool:
    """Whether it is a name: 1 to 200 printable characters, not only spaces."""
    return bool(text.strip()) and len(text) <= MAX_NAME and text.isprintable()


def numbered(name: str, number: int) -> str:
    """Returns a name with a number at its end, which is still a name."""
    end = f"_{number}"
    return name[: MAX_NAME - len(end)] + end


def nearest(wrong: str, there: Iterable[str]) -> str | None:
    """Returns the name that was probably meant by one that is not there, if any is like it."""
    from difflib import get_close_matches  # only once something is wrong

    near = get_close_matches(wrong[:MAX_NAME], list(islice(there, COMPARED)), 1)
    return near[0] if near else None


def meant(wrong: str, there: Iterable[str]) -> str:
    """Returns the same as a question, to follow a sentence on the wrong name; else nothing."""
    near = nearest(wrong, there)
    return "" if near is None else f" Did you mean {near!r}?"


def file_name(name: str) -> str:
    """Returns a name for a file: different names give different ones, none of which is a path.

    Characters that mean something in paths become %XX; a long name ends with a digest.
    """
    quoted = "".join(map(_quoted, name))
    if quoted.startswith("."):
        quoted = f"%2E{quoted[1:]}"
    encoded = quoted.encode()
    if len(encoded) <= MAX_FILE_NAME:
        return quoted
    digest = blake2b(encoded, digest_size=8).hexdigest()
    return f"{encoded[: MAX_FILE_NAME - 17].decode(errors='ignore')}~{digest}"


def _quoted(character: str) -> str:
    if character.isprintable() and character not in _QUOTED:
        return character
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))
