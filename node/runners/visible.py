"""Which of this machine's files tasks see: the node's own Python, and what that needs.

In a sandbox a folder is there at its own path, with the links that lead to it, and nothing beside
it: of what lies above it there are the names alone. What is private is left out even where it lies
within such a folder.
"""

from __future__ import annotations

import os
import stat
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path, PurePath

from manta.node.runners.local import SOURCES

_SYSTEM = (
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/etc/alternatives",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/sys/devices/system/cpu",  # by which numeric libraries size their pools
    "/sys/devices/system/node",
)
_PARTS = ("bin", "lib", "lib64", "pyvenv.cfg")
"""Of a Python that is installed right in a folder of which nothing else is to be seen."""
_PACKAGES = ("site-packages", "dist-packages")
_MOST_LINKS = 40
_TOLD_OF_ALL = ("keys", "key-users", "timer_list")  # of other users, and of other namespaces


def python() -> list[Path]:
    """All that the node's Python consists of, wherever it is installed."""
    prefixes = (sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix)
    library = (sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"))
    packages = [entry for entry in sys.path if PurePath(entry).name in _PACKAGES]
    manta = SOURCES / "manta"
    # In a copy of the repository, packages are links to folders beside it.
    linked = [entry for entry in manta.iterdir() if entry.is_symlink()]
    return [*map(Path, (*prefixes, sys.executable, *library, *packages)), manta, *linked]


def libraries() -> set[Path]:
    """The folders of native libraries that this process has loaded, or is told to look in."""
    found = {Path(each) for each in os.environ.get("LD_LIBRARY_PATH", "").split(":") if each}
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            path = line.rstrip("\n").partition("/")
            if ".so" in PurePath(path[2]).name and not path[2].endswith("(deleted)"):
                found.add(Path("/" + path[2]).parent)
    return {each for each in found if each.is_absolute()}


def resolved(private: Iterable[Path]) -> set[Path]:
    """Whoever has / for a home owns nothing in particular."""
    return {path.resolve() for path in private} - {Path("/")}


def seen(owned: set[Path]) -> tuple[set[Path], dict[Path, str]]:
    """Files and folders that are seen with all that is in them, and the links on the way to them.

    `owned` is private. What is private of what lies in them is to be hidden.
    """
    links: dict[Path, str] = {}
    found: set[Path] = set()
    for path in (*map(Path, _SYSTEM), *python()):
        where = follow(path, links)
        if where is not None and (where in owned or where == Path("/")):  # installed right there
            found |= {where / part for part in _PARTS if (where / part).exists()}
        elif where is not None:
            found.add(where)
    found |= {follow(path, links) or path for path in libraries()} - owned - {Path("/")}
    return found, links


def mounts(private: Iterable[Path]) -> list[str]:
    """Arguments by which bubblewrap shows the node's Python and this system's libraries.

    Of `private`, files and folders, nothing is seen but what Python needs of it.
    """
    owned = resolved(private)
    found, links = seen(owned)
    folders = {path for path in found if path.exists() and not _covers(found, path, owned)}
    steps = [(path, ["--ro-bind", str(path), str(path)]) for path in folders]
    steps += [
        (link, ["--symlink", target, str(link)])
        for link, target in links.items()
        if not _covers(folders, link, owned)
    ]
    hidden = [path for path in owned if _covers(folders, path, ()) and path.exists()]
    steps += [(path, ["--tmpfs", str(path)]) for path in hidden if path.is_dir()]
    steps += [(path, ["--ro-bind", "/dev/null", str(path)]) for path in hidden if path.is_file()]
    in_order = [argument for _, step in sorted(steps) for argument in step]  # what is above, first
    for path in filter(Path.is_dir, hidden):
        in_order += ["--remount-ro", str(path)]
    return in_order


def _covers(folders: Iterable[Path], path: Path, owned: Iterable[Path]) -> bool:
    """Whether what lies at `path` is seen since one of the folders is."""
    between = [each for each in owned if path.is_relative_to(each)]
    return any(
        path != folder
        and path.is_relative_to(folder)
        and not any(each.is_relative_to(folder) for each in between)
        for folder in folders
    )


def follow(path: Path, links: dict[Path, str]) -> Path | None:
    """Returns where it leads, and adds the links on the way; None if nothing is there."""
    at, todo, followed = Path("/"), [*reversed(path.absolute().parts[1:])], 0
    while todo:
        name = todo.pop()
        if name == "..":
            at = at.parent
            continue
        try:
            target = os.readlink(at / name)
        except OSError:  # no link
            at /= name
            continue
        links[at / name] = target
        if (followed := followed + 1) > _MOST_LINKS:
            return None
        parts = PurePath(target).parts
        if target.startswith("/"):
            at, parts = Path("/"), parts[1:]
        todo += reversed(parts)
    return at if os.path.exists(at) else None


def kernel() -> list[str]:
    """Arguments by which nothing of the kernel's can be changed or is told of others.

    Who is root outside is the owner of /proc/sys, whatever capabilities it lacks: it could have
    the kernel run a program as root (`kernel.core_pattern`).
    """
    found = []
    for name in sorted(os.listdir("/proc")):
        path = f"/proc/{name}"
        if name.isdecimal():
            continue
        mode = os.lstat(path).st_mode
        if stat.S_ISDIR(mode):
            found += ["--ro-bind", path, path]
        elif stat.S_ISREG(mode) and (
            name in _TOLD_OF_ALL
            or mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH)
            or not mode & stat.S_IROTH
        ):
            found += ["--ro-bind", "/dev/null", path]
    return found
