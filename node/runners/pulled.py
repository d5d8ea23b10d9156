"""The images that this node has pulled itself, and which of them go first if they take too much.

They are written down, since an engine does not tell who has pulled what: nobody else's image is
ever removed. One is the node's as long as its name leads to the contents that were pulled.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

import msgspec

from manta.transports.codec.decoders import json_decoder
from manta.transports.codec.stored import Damaged, Thing, read_stored_file
from manta.transports.errors import KeyFileError, remedied
from manta.transports.security.keys import write_private

log = logging.getLogger("manta.node.runners")

MOST_IMAGES: Final = 500
_BYTES: Final = 1 << 20  # of the file, at most
_MARK: Final = 60.0  # seconds after which it is written again that an image was used


class Image(msgspec.Struct, frozen=True):
    id: str
    """The engine's, of its contents."""
    size: int
    """Bytes; layers that images share count for each."""
    used: float
    """When a task wanted it last, in seconds since the epoch."""


class _Record(msgspec.Struct, frozen=True):
    images: dict[str, Image] = {}


def to_go(
    images: Mapping[str, Image], most: int, keep: Collection[str], most_images: int = MOST_IMAGES
) -> list[str]:
    """The names of those that may be removed, that not used for longest first, if all together take
    more than `most` bytes or are more than so many; else none."""
    if sum(one.size for one in images.values()) <= most and len(images) <= most_images:
        return []
    return sorted(images.keys() - keep, key=lambda name: images[name].used)


class Pulled:
    """For any thread. `most`: bytes that all may take."""

    def __init__(self, path: Path, most: int) -> None:
        self._path = path
        self._most = most
        self._lock = threading.Lock()
        lost = "which images this node has pulled is not known, and they stay"
        thing = Thing(f"{path}", lost, "remove those that are not needed (docker image rm)")
        try:
            decode = json_decoder(_Record).decode
            self._images = dict(read_stored_file(thing, decode, path, _BYTES).images)
        except FileNotFoundError:
            self._images = {}
        except (Damaged, OSError) as error:
            log.warning("%s", error)
            self._images = {}

    def add(self, name: str, id_: str, size: int) -> None:
        """It was just pulled."""
        with self._lock:
            self._images[name] = Image(id_, size, time.time())
            self._write()

    def use(self, name: str) -> None:
        """A task wants it, whoever has pulled it."""
        with self._lock:
            known, now = self._images.get(name), time.time()
            if known is not None and abs(now - known.used) >= _MARK:
                self._images[name] = msgspec.structs.replace(known, used=now)
                self._write()

    def forget(self, name: str) -> None:
        with self._lock:
            if self._images.pop(name, None) is not None:
                self._write()

    def next_to_go(self, keep: Collection[str]) -> tuple[str, str] | None:
        """Name and id of the first that is to be removed, but none of those to be kept."""
        with self._lock:
            found = to_go(self._images, self._most, keep)
            return (found[0], self._images[found[0]].id) if found else None

    def _write(self) -> None:
        text = msgspec.json.encode(_Record(self._images)).decode()
        try:
            write_private(self._path, text + "\n", replace=True)
        except (KeyFileError, OSError) as error:
            why = remedied(error) if isinstance(error, OSError) else error
            log.error("It can't be kept which images this node has pulled: %s.", why)
