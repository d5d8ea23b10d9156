"""Where a task that has a file system of its own finds what the node gives it."""

from __future__ import annotations

from pathlib import Path

from manta.protocol.names import file_name

RUNTIME, MODULE, SOCKET, SCRATCH, DATASETS, ENVIRONMENT, INDEX, UV = (
    f"/manta/{name}"
    for name in (
        *("runtime", "module", "socket", "scratch", "datasets", "environment"),
        *("index", "uv"),  # while an environment is made
    )
)


def packages(environment: Path) -> Path | None:
    """The folder of an environment that Python imports from; None where there is none."""
    return next(environment.glob("lib/python3*/site-packages"), None)


def dataset_path(name: str, path: Path) -> str:
    """Where the task sees it. A file keeps its suffix, by which readers know its format."""
    safe = file_name(name)
    suffix = path.suffix if path.is_file() and not safe.endswith(path.suffix) else ""
    return f"{DATASETS}/{safe}{suffix}"
