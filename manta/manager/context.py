"""What the actors of one manager have in common: made once, before the first of them starts."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TypeVar

import msgspec

from manta.actors import Actor, ActorDead, Refused, Reply
from manta.manager.auth.principals import Principals
from manta.manager.auth.tokens import TokenAuthority
from manta.manager.home import Home, RestoredFile
from manta.manager.placement.place import NodeView
from manta.manager.revisions import AllRevisions
from manta.manager.store.interface import Store
from manta.manager.swarm.state import SwarmData
from manta.protocol.clusters import NodeInfo
from manta.protocol.user import SwarmInfo
from manta.transports.blobs.file_depot import FileDepot
from manta.transports.security.admission import Admission
from manta.transports.security.keys import KeyPair

T = TypeVar("T")

ROOT = "manager"
STORE = f"{ROOT}/store"
BLOBS = f"{ROOT}/blobs"

HEARTBEAT_INTERVAL = 3.0


def cluster_path(cluster_id: str) -> str:
    return f"{ROOT}/clusters/{cluster_id}"


def swarm_path(cluster_id: str, swarm_id: str) -> str:
    return f"{cluster_path(cluster_id)}/{swarm_id}"


@dataclass
class Board:
    """What a cluster's swarms and the Gateway may know of it at any moment.

    The ClusterSupervisor writes, but for `held`, and replaces what it writes, but for `nodes`,
    which is read by key: readers need no lock.
    """

    views: tuple[NodeView, ...] = ()
    nodes: dict[str, NodeInfo] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    stopped: bool = False
    connected: int = 0
    swarms: dict[str, SwarmInfo] = field(default_factory=dict)
    active_swarms: int = 0
    notice: str = ""
    """What is wrong with the cluster as a whole."""
    held: dict[str, dict[str, int]] = field(default_factory=dict)
    """By swarm and node: live attempts. Each swarm's own counts, which it alone changes, so that
    swarms that are placed at the same time see each other before anything is stored."""

    def views_for(self, swarm_id: str) -> tuple[NodeView, ...]:
        """Placement wants to know what other swarms run where."""
        others: Counter[str] = Counter()
        for id_, counts in self.held.copy().items():
            if id_ != swarm_id:
                others.update(counts.copy())
        return tuple(
            replace(view, assigned=others[view.id]) if view.id in others else view
            for view in self.views
        )


class Listening(msgspec.Struct, frozen=True):
    """A socket that listens as long as the manager runs, whichever actor serves it.

    So while that actor is restarted clients wait, where they would be refused, and nobody
    takes the port.
    """

    address: str
    fd: int


@dataclass
class Context:
    home: Home
    keys: KeyPair
    authority: TokenAuthority
    open_store: Callable[[], Store]
    reader: Store
    """For reads only; writes go to the Store actor."""
    depot: FileDepot
    workers: ThreadPoolExecutor
    """For what takes more than a millisecond."""
    nodes: Listening
    users: Listening
    bulk: Listening
    started_at: float
    restored: RestoredFile | None = None
    """The backup that the store came from."""
    bulk_admission: Admission = field(default_factory=Admission)
    principals: Principals = field(default_factory=Principals)
    boards: dict[str, Board] = field(default_factory=dict)
    revisions: AllRevisions = field(default_factory=AllRevisions)

    def board(self, cluster_id: str) -> Board:
        return self.boards.setdefault(cluster_id, Board())

    def unknown_past(self, swarm: SwarmData) -> str | None:
        """The backup's id, when the swarm's log was restored and nobody has told the swarm yet."""
        found = self.restored
        if found is None or swarm.backup == found.backup or swarm.created_at > found.made_at:
            return None
        return found.backup

    def holds(self, digest: str) -> bool:
        """Whether the blob is here; who asks is about to name it, so it is not swept away."""
        try:
            os.utime(self.depot.path(digest))
        except FileNotFoundError:
            return False
        return True


class Done(msgspec.Struct, frozen=True):
    """To the actor that called `work`: it passes this to `finish`."""

    future: Future[object]
    then: Callable[[object], None]
    reply: Reply


def work(
    actor: Actor,
    pool: ThreadPoolExecutor,
    job: Callable[[], T],
    then: Callable[[T], None],
    reply: Reply,
) -> None:
    """Run `job` on a worker, then `then(result)` in the actor; a Refused goes to `reply`."""
    ref = actor.ref

    def done(future: Future[object]) -> None:
        try:
            ref.tell(Done(future, then, reply))  # type: ignore[arg-type]
        except ActorDead:
            return  # and with it the deferred reply has failed

    pool.submit(job).add_done_callback(done)  # type: ignore[arg-type]


def finish(done: Done) -> None:
    try:
        done.then(done.future.result())
    except Refused as refusal:
        done.reply.fail(refusal)
