"""What code that runs on nodes imports: `from manta.light import Task, World, Local`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from manta.light.globals import Globals
    from manta.light.local import Local
    from manta.light.path import MantaPath
    from manta.light.results import Results
    from manta.light.task import Task
    from manta.light.utils import (
        bytes_to_dict,
        bytes_to_numpy,
        bytes_to_torchmodel,
        dict_to_bytes,
        numpy_to_bytes,
        torchmodel_to_bytes,
    )
    from manta.light.world import World

__all__ = [
    "Globals",
    "Local",
    "MantaPath",
    "Results",
    "Task",
    "World",
    "bytes_to_dict",
    "bytes_to_numpy",
    "bytes_to_torchmodel",
    "dict_to_bytes",
    "numpy_to_bytes",
    "torchmodel_to_bytes",
]


def __getattr__(name: str) -> object:
    """Imports a name's module when the name is asked for: a task pays for what it uses."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib
    import sys

    module = "utils" if "_to_" in name else name.removeprefix("Manta").lower()
    value = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    # Not globals(): once imported, the submodule `globals` hides the built-in here.
    setattr(sys.modules[__name__], name, value)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
