"""The packages that only parts of Manta need, each part an extra of the distribution."""

from __future__ import annotations

import sys
from importlib.util import find_spec

EXTRAS = {
    "manager": ("cryptography", "jwt"),
    "node": ("cryptography", "numpy", "psutil", "tomli"),
    "data": ("pandas", "pyarrow"),
}
"""Extra -> the modules that it brings and that its part cannot do without."""


def missing(*extras: str) -> list[str]:
    """Returns the modules of these extras that are not there."""
    return [module for extra in extras for module in EXTRAS[extra] if not _is_there(module)]


def remedy(module: str | None) -> str | None:
    """Returns what to do about a module that is not there, if an extra has it."""
    for extra, modules in EXTRAS.items():
        if module in modules:
            return (
                f"This needs {module}, which is not installed: pip install 'manta-swarm[{extra}]'."
            )
    return None


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ValueError:  # imported, but not from a file
        return sys.modules[module] is not None
