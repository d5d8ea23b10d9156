"""What an attempt needs before its runtime starts: datasets, module, image, ways out, environment.

One step after the other, each by whom it concerns; the first that fails is the end of it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from manta.actors import Actor, Refused
from manta.node.capabilities.datasets import FindDatasets, used
from manta.node.errors import (
    ImageMissing,
    LaunchError,
    NodeError,
    StorageError,
    WayOutRefused,
)
from manta.node.link.peer_hub import BLOB_REFUSED, Fetch
from manta.node.shared.addresses import DATASETS, PEER_HUB
from manta.node.shared.context import NodeContext
from manta.node.tasks import events, outbound
from manta.node.tasks.packages import unpack, unpacked
from manta.node.tasks.requests import SIBLING_TIMEOUT, Ask
from manta.protocol.node import Assignment, DatasetUsed, TaskError
from manta.protocol.outbound import Target
from manta.protocol.spread import SPREAD
from manta.transports.errors import BlobMissing

FETCH_TIMEOUT = 600.0
Say = Callable[[Assignment, str, str], None]
"""Writes a line to the swarm's log, at a level."""


class Preparation:
    def __init__(
        self,
        actor: Actor,
        context: NodeContext,
        ask: Ask,
        feed: Callable[[events.TaskEvent], None],
        say: Say,
    ) -> None:
        self.datasets: dict[str, Path] = {}
        self.used: tuple[DatasetUsed, ...] = ()
        """What is recorded of them."""
        self.module: tuple[Path, str] = (Path(), "")
        """Its folder, and what is run of it."""
        self.environment: Path | None = None
        """Where the packages are that the module requires."""
        self.ways: tuple[Target, ...] = ()
        """Where it may connect to."""
        self._actor = actor
        self._context = context
        self._ask = ask
        self._feed = feed
        self._say = say

    def begin(self, session: str, assignment: Assignment) -> None:
        """Feeds Prepared once all is there, or Failed."""
        names = tuple(dict.fromkeys((*assignment.module.datasets, *assignment.datasets)))

        def found(datasets: Any, error: BaseException | None) -> None:
            if error is not None:
                self._not_prepared(session, "DatasetNotFound", error)
            else:
                self.datasets = datasets
                self.used = used(names, self._context.config.described)
                self._fetch_module(session, assignment)

        if names:
            self._ask(DATASETS, FindDatasets(names), SIBLING_TIMEOUT, found)
        else:
            found({}, None)

    def _fetch_image(self, session: str, assignment: Assignment) -> None:
        def ready(_: Any, error: BaseException | None) -> None:
            if error is None:
                self._find_ways(session, assignment)
            else:
                kind = "ImageMissing" if isinstance(error, ImageMissing) else "EngineError"
                self._not_prepared(session, kind, error)

        tell = partial(self._say, assignment, "info")
        self._actor.pipe(self._context.runner.prepare(assignment.module.image, tell), ready)

    def _find_ways(self, session: str, assignment: Assignment) -> None:
        try:
            self.ways = outbound.targets(self._context, assignment)
        except WayOutRefused as error:
            self._not_prepared(session, "WayOutRefused", error)
        else:
            self._install(session, assignment)

    def _install(self, session: str, assignment: Assignment) -> None:
        """What the module requires; an image alone has what it has."""
        module, environments = assignment.module, self._context.environments
        if module.package is None or not module.requirements:
            self.environment = None
            environments.leave(self._actor.ref.address.path)
            self._feed(events.Prepared(session))
            return

        def installed(folder: Path | None, error: BaseException | None) -> None:
            if error is None:
                self.environment = folder
                self._feed(events.Prepared(session))
            else:
                kind = "LaunchError" if isinstance(error, LaunchError) else "RequirementsError"
                self._not_prepared(session, kind, error)

        tell, user = partial(self._say, assignment, "info"), self._actor.ref.address.path
        self._actor.pipe(
            environments.prepare(module.name, module.requirements, user, tell), installed
        )

    def _fetch_module(self, session: str, assignment: Assignment) -> None:
        module = assignment.module
        what = f"The package of module {module.name!r}"
        if module.package is None:
            self._fetch_image(session, assignment)
            return
        package = module.package
        folder = self._context.modules.use(package.digest, self._actor.ref.address.path)
        entry = unpacked(folder)
        if entry is not None:
            self.module = folder, entry
            self._fetch_image(session, assignment)
            return

        def fetched(_: Any, error: BaseException | None) -> None:
            if error is not None:
                self._not_prepared(session, "ModuleMissing", error)
                return
            try:
                source = self._context.values.source(package.digest)
                done: str | None = unpack(source.read(0, source.size), folder, what)
            except (NodeError, BlobMissing) as problem:
                # Another instance of the task may have unpacked it, and the blob made room.
                done = unpacked(folder)
                if done is None:
                    self._not_prepared(session, "PackageError", problem)
                    return
            if package.size < SPREAD:  # nobody else fetches it from here
                self._context.values.let_go(package.digest)
            self._context.modules.trim()
            assert done is not None
            self.module = folder, done
            self._fetch_image(session, assignment)

        swarm_id = assignment.instance.swarm_id
        self._context.named.of_swarm(package.digest, swarm_id)  # other nodes fetch it from here
        self._ask(PEER_HUB, Fetch(package, swarm_id), FETCH_TIMEOUT, fetched)

    def _not_prepared(self, session: str, kind: str, error: BaseException) -> None:
        """A bad module or dataset is the fault of the swarm or the operator."""
        faults = (Refused, NodeError)
        no_room = isinstance(error, StorageError) or (
            isinstance(error, Refused) and error.code == BLOB_REFUSED
        )
        platform = no_room or isinstance(error, LaunchError) or not isinstance(error, faults)
        if no_room:
            self._context.check_storage(self._actor)
        sentence = error.sentence if isinstance(error, Refused) else str(error)
        self._feed(events.Failed(session, TaskError(kind, sentence), platform))
