"""Seeds random numbers: the same for an instance in an iteration, others for every other.

Forked children would otherwise all draw what their parent was about to draw. numpy and torch are
seeded if they have been imported, and when they are imported later in the attempt. What else the
standard library drew when it was imported is drawn anew (`renew`).
"""

from __future__ import annotations

import os
import sys
from functools import partial
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING, Any

try:  # hashlib would first load OpenSSL, which takes longer than all else in an attempt
    from _blake2 import blake2b
except ImportError:
    from hashlib import blake2b

from manta.light.context import usage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
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
            _try(seeder, module, seed_of(brief))
    await_imports().brief = brief


def renew() -> None:
    """Draws anew, in a process that was just forked, what the one before may have drawn."""
    for name, renewed in _RENEWED.items():
        module = sys.modules.get(name)
        if module is not None:
            _try(renewed, module)


def _try(function: Any, *arguments: Any) -> None:
    try:
        function(*arguments)
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


def _renew_uuid(uuid: Any) -> None:
    """uuid4 asks the kernel each time; uuid1 remembers a node, which may be a random number."""
    uuid._node = uuid._last_timestamp = None


def _renew_names(tempfile: Any) -> None:
    tempfile._name_sequence = None


def _renew_key(process: Any) -> None:
    """With it, a process and those that it starts prove to each other who they are."""
    process.current_process().authkey = os.urandom(32)


def _leave_finalizers(weakref: Any) -> None:
    """The objects of the process before are not this one's to finalize at its end."""
    for finalizer in list(weakref.finalize._registry):
        finalizer.atexit = False


def _renew_tracker(tracker: Any) -> None:
    """The process that removes what an attempt leaves has to be its own: it ends with it."""
    tracker._resource_tracker._fd = tracker._resource_tracker._pid = None


_RENEWED: dict[str, Any] = {
    "uuid": _renew_uuid,
    "weakref": _leave_finalizers,
    "tempfile": _renew_names,
    "multiprocessing.process": _renew_key,
    "multiprocessing.resource_tracker": _renew_tracker,
    "joblib.externals.loky.backend.resource_tracker": _renew_tracker,
    "loky.backend.resource_tracker": _renew_tracker,
}
"""What a forked process would share with its parent and with all that this one forks: modules of
the standard library, and of packages that many use, and how each is renewed."""


class _Later:
    """Finds modules as they would be found without it, and does once they are imported what they
    need: random numbers are seeded, and what is logged reaches the user."""

    def __init__(self) -> None:
        self.brief: Brief | None = None
        """The attempt's; None while there is none."""
        self.notice: Callable[[str], None] | None = None
        """Told the name of each module that is looked for."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if self.notice is not None:
            self.notice(name)
        then = self._then(name)
        if then is None:
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            if finder is self or find is None:
                continue
            spec: ModuleSpec | None = find(name, path, target)
            if spec is not None:
                if spec.loader is not None:
                    loader: Any = _Loader(spec.loader, then)
                    spec.loader = loader
                return spec
        return None

    def _then(self, name: str) -> Callable[[ModuleType], None] | None:
        """What is to be done with a module of that name."""
        if name == "logging" and usage.is_on_node:
            return _reach_user
        if self.brief is None or name not in _SEEDERS:
            return None
        return partial(_SEEDERS[name], number=seed_of(self.brief))


def _reach_user(logging: ModuleType) -> None:
    __import__("manta.light.log")


class _Loader:
    """A loader that does something more; all else is left to the module's own loader."""

    def __init__(self, loader: Any, then: Callable[[ModuleType], None]) -> None:
        self._loader = loader
        self._then = then

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        if module.__spec__ is not None:
            module.__spec__.loader = module.__loader__ = self._loader
        _try(self._then, module)
