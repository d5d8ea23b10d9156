"""Which runner a node has, as its operator wants it and its machine allows."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import platform
import pwd
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from manta.console.home import NoHome, home_folder
from manta.node.errors import LaunchError
from manta.node.runners.interface import (
    ImageSpec,
    Runner,
    RuntimeExit,
    RuntimeHandle,
    RuntimeSpec,
)
from manta.node.state import place_of
from manta.protocol.isolation import AUTO, BWRAP, IMAGES, LANDLOCK, LIMITS, rank

if TYPE_CHECKING:
    from manta.node.config import NodeConfig
    from manta.node.isolation.enter import Confinement
    from manta.node.isolation.holding import Holder
    from manta.node.runners.bwrap import Bubblewrap
    from manta.node.runners.hardening import Hardening
    from manta.node.state import StateFolder

log = logging.getLogger("manta.node")

_LOCAL = (BWRAP, LANDLOCK)
"""Levels without images that are tried, the strongest first."""


class Local(NamedTuple):
    """In what a node runs tasks that need no image."""

    level: str
    sandbox: Bubblewrap | None = None
    confinement: Confinement | None = None
    why: str = ""
    """Why it is not a stronger level, without a full stop."""


class Choice(NamedTuple):
    """In what a node runs tasks: containers, and what needs no image; at least one of them."""

    containers: Hardening | None
    local: Local | None = None
    why: str = ""
    """Why containers are not of a stronger level, or there are none, without a full stop."""

    @property
    def levels(self) -> tuple[str, ...]:
        local = () if self.local is None else (self.local.level,)
        return local if self.containers is None else (self.containers.level, *local)


def choose_runner(
    config: NodeConfig, folder: StateFolder, public_key: str, give_up: Callable[[str], None]
) -> Runner:
    """`give_up` is called, from any thread, with a sentence when it can start nothing any more.

    Raises LaunchError.
    """
    choice = choose(config, folder.path)
    containers = None
    if choice.containers is not None:
        containers = _docker(choice.containers, config, folder, public_key)
    if choice.local is None:
        assert containers is not None  # one of them is there
        return containers
    from manta.node.isolation.holding import Holder

    holder = Holder(label_of(public_key, folder.path))
    log.info("%s", holder.sentence)
    others = local_runner(choice.local, keys(config, folder.path), holder, give_up)
    return others if containers is None else ByImage(containers, others)


def local_runner(
    found: Local,
    hidden: Iterable[Path],
    holder: Holder,
    give_up: Callable[[str], None] | None = None,
) -> Runner:
    """`hidden`: keys and state."""
    if found.sandbox is not None:
        from manta.node.runners.bwrap import BwrapRunner

        return BwrapRunner(found.sandbox, holder, give_up)
    if found.confinement is not None:
        from manta.node.runners.landlock import LandlockRunner

        return LandlockRunner(found.confinement, hidden, holder, give_up)
    from manta.node.runners.process import ProcessRunner

    return ProcessRunner(holder, give_up)


def choose(config: NodeConfig, state: Path) -> Choice:
    """Raises LaunchError if the node can run no task as its operator wants it."""
    engine, why = None, ""
    if config.runner in (AUTO, *IMAGES):
        engine, why = _containers(config, state)
    if config.runner in IMAGES or (engine is not None and not config.allow_unsandboxed):
        return _at_least(config, Choice(engine, why=why))
    wanted = {AUTO: _LOCAL, LIMITS: ()}.get(config.runner, (config.runner,))
    found = local(private(config, state), wanted)
    if wanted and found.level == LIMITS and config.runner != AUTO:
        raise LaunchError(
            f'{config.path}: containers.runner is "{config.runner}", and {found.why}: correct '
            'that, or set it to "auto".'
        )
    if engine is not None and rank(found.level) < rank(config.isolation):
        return _at_least(config, Choice(engine, why=why))
    if found.level == LIMITS and not config.allow_unsandboxed:
        because = f" ({found.why})" if found.why else ""
        raise LaunchError(
            f"{config.path}: containers.allow_unsandboxed is false, as it is unless it is set, and "
            "without bubblewrap, Landlock or a container engine tasks run as plain processes, "
            f"which can do all that this user can{because}: apt-get install bubblewrap, start an "
            "engine, or set it to true if you trust whoever deploys to this node's cluster."
        )
    return _at_least(config, Choice(engine, found, why))


def engine(wanted: Iterable[str], state: Path | None = None) -> tuple[Hardening | None, str]:
    """The first of the engine's levels that works here, if one does, and why no stronger one."""
    from manta.node.runners import engine  # with an HTTP client, needed only for it

    if problem := engine.problem():
        log.info("Tasks do not run in containers: %s.", problem)
        return None, problem
    from manta.node.runners import hardening

    why = list[str]()
    for level in wanted:
        try:
            return hardening.find(level, state), ", and ".join(why)
        except LaunchError as error:
            log.info("Tasks are not isolated by %s: %s.", level, error)
            why.append(str(error))
    return None, ", and ".join(why)


def local(private: Iterable[Path], wanted: Iterable[str] = _LOCAL) -> Local:
    """The first of the levels that works here, which each starts something to find out; or
    `limits`."""
    from manta.node.runners import bwrap, landlock

    owned, why = list(private), list[str]()
    for level in wanted:
        try:
            if level == BWRAP:
                return Local(level, sandbox=bwrap.find(owned))
            confinement = landlock.find(owned)
            return Local(level, confinement=confinement, why=", and ".join(why))
        except LaunchError as error:
            log.info("Tasks are not isolated by %s: %s.", level, error)
            why.append(str(error))
    return Local(LIMITS, why=", and ".join(why))


def private(config: NodeConfig, state: Path) -> list[Path]:
    """What no task sees: the owner's home, and all that belongs to nodes."""
    places = keys(config, state)
    with contextlib.suppress(RuntimeError, KeyError):  # a user without one
        places += [Path.home(), Path(pwd.getpwuid(os.getuid()).pw_dir)]
    return places


def keys(config: NodeConfig, state: Path) -> list[Path]:
    """What belongs to nodes."""
    places = [config.path, state]
    if config.policy is not None:
        places.append(config.policy)
    with contextlib.suppress(NoHome):
        places.append(home_folder())
    return places


def _containers(config: NodeConfig, state: Path) -> tuple[Hardening | None, str]:
    """Raises LaunchError for a node that has to have them."""
    wanted = sorted(IMAGES, key=rank, reverse=True) if config.runner == AUTO else (config.runner,)
    found, why = engine(wanted, state)
    if found is None and config.runner in IMAGES:
        raise LaunchError(
            f'{config.path}: containers.runner is "{config.runner}", and {why}: start it '
            "(systemctl start docker) and let this user use its socket (usermod -aG docker "
            'USER), or set it to "auto", "bwrap" or "landlock".'
        )
    return found, why


def _at_least(config: NodeConfig, choice: Choice) -> Choice:
    weakest = min(choice.levels, key=rank)
    if rank(weakest) < rank(config.isolation):
        raise LaunchError(
            f'{config.path}: containers.isolation is "{config.isolation}", and tasks would run at '
            f'the level "{weakest}" here{f" ({choice.why})" if choice.why else ""}: let this '
            "machine have what that needs (manta_node doctor), or lower it."
        )
    return choice


def _docker(found: Hardening, config: NodeConfig, folder: StateFolder, public_key: str) -> Runner:
    from manta.node.runners.docker import DockerRunner
    from manta.node.runners.pulled import Pulled
    from manta.node.runners.runtime_copy import runtime_copy

    major, minor, _ = platform.python_version_tuple()
    image = config.default_image or f"python:{major}.{minor}-slim"
    return DockerRunner(
        found,
        label_of(public_key, folder.path),
        config.alias,
        image,
        runtime_copy(folder.runtime),
        Pulled(folder.images_file, config.images_disk),
    )


def label_of(public_key: str, state: Path) -> str:
    """What marks the containers and sandboxes of the node with that key and state folder.

    One with a copy of the folder has the same key, and must not take what the other runs for its
    own of before.
    """
    return hashlib.blake2b(f"{public_key} {place_of(state)}".encode(), digest_size=8).hexdigest()


class ByImage:
    """Modules that name an image run in containers, others in what needs none."""

    def __init__(self, containers: Runner, others: Runner) -> None:
        self.names: tuple[str, ...] = (*containers.names, *others.names)
        self._containers = containers
        self._others = others

    @property
    def trouble(self) -> str:
        return " ".join(filter(None, (self._containers.trouble, self._others.trouble)))

    def runs_in_image(self, image: str | None) -> bool:
        return image is not None

    def level(self, image: str | None) -> str:
        return self._of(image).level(image)

    def _of(self, image: str | None) -> Runner:
        return self._others if image is None else self._containers

    def prepare(self, image: str | None, tell: Callable[[str], None]) -> Future[None]:
        return self._of(image).prepare(image, tell)

    def start(self, spec: RuntimeSpec, on_exit: Callable[[RuntimeExit], None]) -> RuntimeHandle:
        return self._of(spec.image).start(spec, on_exit)

    def start_image(
        self,
        spec: ImageSpec,
        on_output: Callable[[str, Sequence[tuple[float, str]]], None],
        on_exit: Callable[[RuntimeExit], None],
    ) -> RuntimeHandle:
        return self._containers.start_image(spec, on_output, on_exit)

    def recover(self) -> list[str]:
        return [*self._containers.recover(), *self._others.recover()]

    def close(self) -> None:
        self._containers.close()
        self._others.close()
