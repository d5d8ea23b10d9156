"""A log on disk: segments that chain on, and a note of where the log ends.

```
000000000001.log   lines, the first of which begins with that record
000000004711.log   the segment that is written
head.json          the last record's number and line's digest, sealed
lock               held while something is written
```

`head.json` is written after the lines are on the disk. So lines that are missing at the end were
cut, and what is there beyond a whole line is what a crash left of one that nobody was told of.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from manta.audit.keys import is_sealed
from manta.audit.records import MOST_OF_A_LINE, Head, Seals
from manta.transports.codec.decoders import MALFORMED, json_decoder
from manta.transports.files import FileTooLarge, read_bounded

HEAD = "head.json"
LOCK = "lock"
_SEGMENT = re.compile(r"[0-9]{12,}\.log")


class _HeadFile(msgspec.Struct, frozen=True):
    number: int
    digest: str
    key: str
    seal: str


def segment_path(folder: Path, first: int) -> Path:
    return folder / f"{first:012}.log"


def segments(folder: Path) -> list[Path]:
    """In the order of their records. Raises OSError, also where there is no folder."""
    found = [path for path in folder.iterdir() if _SEGMENT.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(path.stem))


def lines(path: Path, at: int = 0) -> Iterator[bytes]:
    """Each with its end, which the last may lack; one that is too long comes in parts. The first
    begins at the byte `at`."""
    with path.open("rb") as file:
        file.seek(at)
        yield from iter(lambda: file.readline(MOST_OF_A_LINE), b"")


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Nobody writes the log meanwhile. Raises OSError."""
    fd = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def write_head(folder: Path, head: Head, key: Seals) -> None:
    """Whole or not at all. Raises OSError."""
    content = _HeadFile(head.number, head.digest, key.id, key.seal(_text_of(head)))
    draft = folder / f"{HEAD}.new"
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.write(msgspec.json.encode(content) + b"\n")
        file.flush()
        os.fsync(fd)
    os.replace(draft, folder / HEAD)


def read_head(folder: Path, trusted: dict[str, str]) -> Head | None:
    """The noted end; None if there is none that one of the trusted keys, by id, has sealed.

    Raises OSError for a file that cannot be read.
    """
    try:
        text = read_bounded(folder / HEAD)
        found = json_decoder(_HeadFile).decode(text)
    except FileNotFoundError:
        return None
    except (FileTooLarge, *MALFORMED):
        return None
    head = Head(found.number, found.digest)
    public = trusted.get(found.key)
    if msgspec.json.encode(found) + b"\n" != text:
        return None
    if public is None or not is_sealed(public, _text_of(head), found.seal):
        return None
    return head


def _text_of(head: Head) -> bytes:
    return b"head\0" + msgspec.json.encode(head)
