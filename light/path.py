"""A folder or file of a dataset, or of the task's scratch space."""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import stat
from typing import TYPE_CHECKING, Any

from manta.light.beneath import ANY, LeadsOut, open_beneath
from manta.light.context import here, usage
from manta.light.errors import DatasetNotFound

if TYPE_CHECKING:
    from collections.abc import Iterator

_Path = type(pathlib.Path())
_LIST = os.O_RDONLY | os.O_DIRECTORY
_NOTHING = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EBADF)


class MantaPath(_Path):  # type: ignore[valid-type, misc]
    """A `pathlib.Path` on the node that runs the task.

    `str(path)` or `os.fspath(path)` is what other libraries take. In a dataset's folder, what the
    methods of this path open, list, find or look at lies within it: links that lead out raise
    DatasetNotFound.
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

    def glob(self, pattern: str, **how: Any) -> Iterator[MantaPath]:
        """What matches the pattern, as pathlib finds it."""
        return _within(super().glob(pattern, **how))

    def rglob(self, pattern: str, **how: Any) -> Iterator[MantaPath]:
        """The same, in this folder and all below it."""
        return _within(super().rglob(pattern, **how))

    if hasattr(_Path, "walk"):  # since Python 3.12

        def walk(self, *order: Any, **how: Any) -> Iterator[tuple[MantaPath, Any, Any]]:
            """Each folder from this one on, with the names of the folders and files in it."""
            for folder, folders, files in super().walk(*order, **how):
                check_beneath(folder)
                yield folder, folders, files

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """What the system knows of it: size, times, kind. Raises OSError."""
        if _dataset_of(self) is None:
            return super().stat(follow_symlinks=follow_symlinks)  # type: ignore[no-any-return]
        is_link = not (follow_symlinks or self.name == "..")
        found = open_path(self.parent if is_link else self, ANY)
        try:
            if is_link:
                return os.stat(self.name, dir_fd=found, follow_symlinks=False)
            return os.fstat(found)
        finally:
            os.close(found)

    def lstat(self) -> os.stat_result:
        """The same, of a link itself."""
        return self.stat(follow_symlinks=False)

    # Some versions of pathlib do these by the path's text.

    def exists(self, *, follow_symlinks: bool = True) -> bool:
        """Whether there is anything."""
        return self._mode(follow_symlinks) != 0

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        """Whether it is a folder."""
        return stat.S_ISDIR(self._mode(follow_symlinks))

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        """Whether it is a file."""
        return stat.S_ISREG(self._mode(follow_symlinks))

    def is_symlink(self) -> bool:
        """Whether it is a link."""
        return stat.S_ISLNK(self._mode(follow_symlinks=False))

    def _mode(self, follow_symlinks: bool) -> int:
        """0 if there is nothing."""
        try:
            return self.stat(follow_symlinks=follow_symlinks).st_mode
        except OSError as error:
            if error.errno not in _NOTHING:
                raise
        except ValueError:  # a NUL in it
            pass
        return 0

    def resolve(self, strict: bool = False) -> MantaPath:
        """The absolute path without links."""
        if _dataset_of(self) is not None:
            check_beneath(self)
        return super().resolve(strict)  # type: ignore[no-any-return]

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


def _within(found: Iterator[MantaPath]) -> Iterator[MantaPath]:
    """Raises DatasetNotFound instead of what lies outside."""
    looked_at = None
    for path in found:
        if path.parent != looked_at:
            looked_at = path.parent
            check_beneath(looked_at)
        yield path


def _dataset_of(path: str | os.PathLike[str]) -> tuple[str, str] | None:
    """Name and folder of the dataset in which a path lies, as it is written."""
    context = here.context or usage.context
    if context is None:
        return None
    text, found = os.fspath(path), None
    for name, root in context.brief.datasets.items():
        beneath = text == root or text.startswith(f"{root.rstrip('/')}/")
        if beneath and (found is None or len(root) > len(found[1])):
            found = name, root
    return found if found and os.path.isdir(found[1]) else None
