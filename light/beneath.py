"""Opens what lies beneath a folder, whatever links are in it and whoever changes them meanwhile.

Each name on the way is opened in the folder that was opened before it, and no link is followed by
the system: it is read, and gone on with from where it lies. So nothing that happens between two
steps leads out, and no kernel, engine or image has to know how to forbid it.
"""

from __future__ import annotations

import errno
import os

MOST_LINKS = 40  # as for the kernel
ANY = getattr(os, "O_PATH", os.O_RDONLY)  # not on macOS, where tasks are only tried
_FOLDER = ANY | os.O_DIRECTORY


class LeadsOut(Exception):
    """A link, or `..`, leads out of the folder."""

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self.target = target


def open_beneath(root: str, path: str, flags: int = ANY) -> int:
    """The descriptor of what lies at a relative path. Raises LeadsOut, OSError."""
    try:
        return _open(root, path, flags)
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.path.join(root, path)) from None


def _open(root: str, path: str, flags: int) -> int:
    folders = [os.open(root, _FOLDER)]
    todo = path.split("/")[::-1]
    links = 0
    try:
        while todo:
            name = todo.pop()
            if name == "..":
                if len(folders) == 1:
                    raise LeadsOut(path)
                os.close(folders.pop())
            if name in ("", ".", ".."):
                continue
            wanted = _FOLDER if todo else flags
            try:
                found = os.open(name, wanted | os.O_NOFOLLOW, 0o666, dir_fd=folders[-1])
            except OSError:
                if (target := _link(name, folders[-1])) is None or wanted & os.O_EXCL:
                    raise
            else:
                if todo:
                    folders.append(found)
                    continue
                if not wanted & ANY or (target := _link("", found)) is None:
                    return found
                os.close(found)  # O_PATH has opened the link itself
            links += 1
            if links > MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            if os.path.isabs(target):
                target = _within(root, target)
                while len(folders) > 1:
                    os.close(folders.pop())
            todo += target.split("/")[::-1]
        return os.open(".", flags, dir_fd=folders[-1])
    finally:
        for folder in folders:
            os.close(folder)


def _link(name: str, folder: int) -> str | None:
    """Where a link leads; None for what is none."""
    try:
        return os.readlink(name, dir_fd=folder)
    except OSError:
        return None


def _within(root: str, target: str) -> str:
    """An absolute target, as a path beneath the root. Raises LeadsOut."""
    for prefix in (root, os.path.realpath(root)):
        if target == prefix or target.startswith(f"{prefix}/"):
            return target[len(prefix) :]
    raise LeadsOut(target)
