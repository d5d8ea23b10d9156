"""A folder or file of a dataset, or of the task's scratch space."""

from __future__ import annotations

import contextlib
import os
import pathlib
from typing import TYPE_CHECKING, Any

from manta.light.beneath import ANY, LeadsOut, open_beneath
from manta.light.context import usage
from manta.light.errors import DatasetNotFound

if TYPE_CHECKING:
    from collections.abc import Iterator

_Path = type(pathlib.Path())
_LIST = os.O_RDONLY | os.O_DIRECTORY


class MantaPath(_Path):  # type: ignore[valid-type, misc]
    """A `pathlib.Path` on the node that runs the task.

    `str(path)` or `os.fspath(path)` is what other libraries take. In a dataset's folder, what is
    opened or listed by this path lies within it: links that lead out raise DatasetNotFound.
    """

    def list_dir(self) -> list[str]:
        """Names in this folder, sorted."""
        return sorted(entry.name for entry in self.iterdir())

    def iterdir(self) -> Iterator[MantaPath]:
        """What is in this folder, in no order."""
        if _dataset_of(self) is None:
            yield from super().iterdir()
            return
        folder = open_path(self, _LIST)
        try:
            names = os.listdir(folder)
        finally:
            os.close(folder)
        yield from (self / name for name in names)

    def open(
        self,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> Any:
        """Opens it as the built-in `open` does. Raises DatasetNotFound, OSError."""
        if _dataset_of(self) is None:
            return super().open(mode, buffering, encoding, errors, newline)
        return open(self, mode, buffering, encoding, errors, newline, opener=open_path)


def open_path(path: str | os.PathLike[str], flags: int) -> int:
    """Opens a path of a dataset, without following links out of it. Raises DatasetNotFound,
    OSError."""
    found = _dataset_of(path)
    if found is None:
        return os.open(path, flags)
    name, root = found
    within = os.fspath(path)[len(root) :].lstrip("/")
    try:
        return open_beneath(root, within, flags)
    except LeadsOut as error:
        raise DatasetNotFound(
            f"{within!r} of the dataset {name!r} leads out of it, to {error.target!r}: have the "
            "node's operator put the file itself there, or map it as a dataset of its own."
        ) from None


def check_beneath(path: MantaPath) -> None:
    """Raises DatasetNotFound if it leads out of its dataset; not if there is nothing."""
    with contextlib.suppress(OSError):
        os.close(open_path(path, ANY))


def _dataset_of(path: str | os.PathLike[str]) -> tuple[str, str] | None:
    """Name and folder of the dataset in which a path lies, as it is written."""
    if usage.context is None:
        return None
    text, found = os.fspath(path), None
    for name, root in usage.context.brief.datasets.items():
        beneath = text == root or text.startswith(f"{root.rstrip('/')}/")
        if beneath and (found is None or len(root) > len(found[1])):
            found = name, root
    return found if found and os.path.isdir(found[1]) else None
