"""What the actors of one manager have in common: made once, before the first of them starts."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from manta.actors import Actor, ActorDead, Refused, Reply
from manta.manager.auth.principals import Principals
from manta.manager.auth.tokens import TokenAuthority
from manta.manager.home import Home, RestoredFile
from manta.manager.revisions import AllRevisions
from manta.manager.store.interface import Store
from manta.manager.views import ClusterView
from manta.transports.blobs.file_depot import FileDepot
from manta.transports.security.admission import Admission
from manta.transports.security.keys import KeyPair

T = TypeVar("T")

ROOT = "manager"
STORE = f"{ROOT}/store"
BLOBS = f"{ROOT}/blobs"
GATEWAY = f"{ROOT}/gateway"


def cluster_path(cluster_id: str) -> str:
    return f"{ROOT}/clusters/{cluster_id}"


def swarm_path(cluster_id: str, swarm_id: str) -> str:
    return f"{cluster_path(cluster_id)}/{swarm_id}"


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
    clusters: dict[str, ClusterView] = field(default_factory=dict)
    revisions: AllRevisions = field(default_factory=AllRevisions)

    def cluster(self, cluster_id: str) -> ClusterView:
        return self.clusters.setdefault(cluster_id, ClusterView())

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
