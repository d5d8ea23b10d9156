"""One rule for what users name: tags, aliases, modules, swarms, networks, metrics, keys.

Whatever can be named can be shown in a line, typed in a shell, and be the name of a file.
`manta.light.arguments` has the same rule for task code, which cannot import this module.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from itertools import islice

MAX_NAME = 200
"""Characters."""
MOST_DESCRIBED = 500
"""Characters of what a swarm says it is for."""
MAX_FILE_NAME = 200
"""Bytes; file systems take 255, some of which are for an ending."""
COMPARED = 1000
"""Names among which what was meant is looked for."""
SHOWN = 6
"""Names listed in one sentence; more are counted."""
_QUOTED = frozenset('/\\%:*?"<>|~,')
_DEVICE = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]) *(\.|$)", re.IGNORECASE)
"""Names that Windows gives to devices, whatever ending follows."""


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


def listed(names: Sequence[str], separator: str = ", ") -> str:
    """Returns the names as part of a sentence; of many, the first."""
    if len(names) <= SHOWN:
        return separator.join(names)
    return separator.join(names[: SHOWN - 1]) + f"{separator}and {len(names) - SHOWN + 1} more"


def file_name(name: str) -> str:
    """Returns a name for a file: different names give different ones, none of which is a path.

    Characters that mean something in paths become %XX; a long name ends with a digest.
    """
    quoted = "".join(map(_quoted, name))
    if quoted.startswith("."):
        quoted = f"%2E{quoted[1:]}"
    return quoted if len(quoted.encode()) <= MAX_FILE_NAME else _digested(quoted)


def file_names(names: Iterable[str]) -> dict[str, str]:
    """Returns the names of files beside each other, by the names that they are for.

    They differ also where a disk does not tell `Model` from `model`, are none of a device, are
    never empty, and no command takes one for an option.
    """
    files = {name: _portable(file_name(name)) for name in names}
    alike = Counter(map(_on_disk, files.values()))
    return {
        name: file if alike[_on_disk(file)] == 1 else _digested(file)
        for name, file in files.items()
    }


def _portable(file: str) -> str:
    if file.startswith("-") or _DEVICE.match(file):
        file = _spelled(file[0]) + file[1:]
    if file.endswith((".", " ")):
        file = file[:-1] + _spelled(file[-1])
    return file or "%"


def _on_disk(file: str) -> str:
    """Returns what two names have in common that some disk takes for one."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", file).casefold())


def _digested(quoted: str) -> str:
    encoded = quoted.encode()
    digest = blake2b(encoded, digest_size=8).hexdigest()
    return f"{encoded[: MAX_FILE_NAME - 17].decode(errors='ignore')}~{digest}"


def _quoted(character: str) -> str:
    if character.isprintable() and character not in _QUOTED:
        return character
    return _spelled(character)


def _spelled(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))
