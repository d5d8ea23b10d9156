"""Keeps tasks' scratch folders within their quota.

Nothing stops a plain process from writing, so the folders are measured now and then; a task
whose folder holds more than it may is ended, and its folder removed. A file that was removed
while it is open is not seen.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import msgspec

from manta.actors import Actor
from manta.node.shared.context import NodeContext

if TYPE_CHECKING:
    from pathlib import Path

EVERY = 1.0
"""Seconds between measurements, or twenty times as long as one takes."""


class ScratchFull(msgspec.Struct, frozen=True):
    """To the task's supervisor."""

    session: str
    sentence: str


class _Look(msgspec.Struct, frozen=True):
    pass


class Scratch(Actor):
    def __init__(self, context: NodeContext) -> None:
        self._context = context

    def on_start(self) -> None:
        self.after(EVERY, _Look())

    def receive(self, message: Any) -> Any:
        if not isinstance(message, _Look):
            return super().receive(message)
        began = self.clock.now()
        allowed = self._context.config.scratch
        for path, left in list(self._context.runtimes.items()):
            used = size_of(left.scratch)
            if used > (most := allowed if left.disk is None else min(allowed, left.disk)):
                kept = f"It kept {used / 1e6:,.1f} MB in its scratch folder, and {most / 1e6:,.1f}"
                if most < allowed:
                    may, remedy = "it asked for", "ask for more (resources={'disk': ...})"
                else:
                    may = "are allowed on this node"
                    remedy = "have the node's operator raise resources.scratch_mb"
                sentence = f"{kept} MB {may}: remove what is not needed any more, or {remedy}."
                self.notify(path, ScratchFull(left.session, sentence))
        self.after(max(EVERY, 20 * (self.clock.now() - began)), _Look())
        return None


def size_of(folder: Path) -> int:
    """Returns the bytes that a folder takes on the disk; hard links to a file count once."""
    total = 0
    seen: set[tuple[int, int]] = set()
    todo = [os.fspath(folder)]
    while todo:
        try:
            with os.scandir(todo.pop()) as entries:
                for entry in entries:
                    found = entry.stat(follow_symlinks=False)
                    if found.st_nlink > 1 and not entry.is_dir(follow_symlinks=False):
                        if (found.st_dev, found.st_ino) in seen:
                            continue
                        seen.add((found.st_dev, found.st_ino))
                    total += found.st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(entry.path)
        except OSError:
            continue  # removed meanwhile
    return total
