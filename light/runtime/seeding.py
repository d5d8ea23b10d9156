"""Seeds random numbers: the same for an instance in an iteration, others for every other.

Forked children would otherwise all draw what their parent was about to draw. numpy and torch are
seeded if they have been imported, and when they are imported later in the attempt.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING, Any

try:  # hashlib would first load OpenSSL, which takes longer than all else in an attempt
    from _blake2 import blake2b
except ImportError:
    from hashlib import blake2b

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    from manta.light.context import Brief


def seed_of(brief: Brief) -> int:
    """64 bits, from the swarm's seed, the task's instance, the node and the iteration.

    The attempt is left out: an instance that is tried again draws the same numbers.
    """
    parts = (brief.seed, brief.alias, brief.index, brief.node_id, brief.iteration)
    return int.from_bytes(blake2b(repr(parts).encode(), digest_size=8).digest(), "little")


def seed(brief: Brief) -> None:
    """Seeds `random`, numpy and torch for this attempt."""
    for name, seeder in _SEEDERS.items():
        module = sys.modules.get(name)
        if module is not None:
            _seed(seeder, module, seed_of(brief))
    await_imports().brief = brief


def _seed(seeder: Any, module: ModuleType, number: int) -> None:
    try:
        seeder(module, number)
    except AttributeError:  # a module of the user's with that name
        return


def await_imports() -> _Later:
    """Installs, once, what seeds modules that are imported later in an attempt."""
    finder = sys.meta_path[0] if sys.meta_path else None
    if isinstance(finder, _Later):
        return finder
    later = _Later()
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _Later)]
    sys.meta_path.insert(0, later)
    return later


_SEEDERS: dict[str, Any] = {
    "random": lambda random, number: random.seed(number),
    "numpy.random": lambda random, number: random.seed(number % 2**32),
    "torch": lambda torch, number: torch.manual_seed(number % 2**63),
}


class _Later:
    """Finds these modules as they would be found without it, and seeds them once imported."""

    def __init__(self) -> None:
        self.brief: Brief | None = None
        """The attempt's; None while there is none."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in _SEEDERS or self.brief is None:
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            if finder is self or find is None:
                continue
            spec: ModuleSpec | None = find(name, path, target)
            if spec is not None:
                if spec.loader is not None:
                    seeding: Any = _Seeding(spec.loader, _SEEDERS[name], seed_of(self.brief))
                    spec.loader = seeding
                return spec
        return None


class _Seeding:
    """A loader that seeds what it has loaded; all else is left to the module's own loader."""

    def __init__(self, loader: Any, seeder: Any, number: int) -> None:
        self._loader = loader
        self._seeder = seeder
        self._number = number

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        if module.__spec__ is not None:
            module.__spec__.loader = module.__loader__ = self._loader
        _seed(self._seeder, module, self._number)
