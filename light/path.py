"""A folder or file of a dataset, or of the task's scratch space."""

from __future__ import annotations

import pathlib

_Path = type(pathlib.Path())


class MantaPath(_Path):  # type: ignore[valid-type, misc]
    """A `pathlib.Path` on the node that runs the task.

    `str(path)` or `os.fspath(path)` is what other libraries take.
    """

    def list_dir(self) -> list[str]:
        """Names in this folder, sorted."""
        return sorted(entry.name for entry in self.iterdir())
