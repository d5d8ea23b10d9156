"""What all actors of one manager share; it is made before the first of them starts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import msgspec

from manta.audit.log import AuditLog
from manta.manager.access import Access
from manta.manager.auth.principals import Kind, Principal, Principals
from manta.manager.auth.tokens import TokenAuthority
from manta.manager.disk import Disk
from manta.manager.home import RestoredFile
from manta.manager.jobs import Jobs
from manta.manager.quotas.coming import Coming
from manta.manager.quotas.pace import Pace
from manta.manager.quotas.quotas import Quotas
from manta.manager.revisions import AllRevisions
from manta.manager.store.interface import Store
from manta.manager.views import ClusterView
from manta.protocol.values import BlobRef
from manta.transports.blobs.file_depot import FileDepot
from manta.transports.security.admission import Admission
from manta.transports.security.keys import KeyPair
from manta.transports.security.strangers import StrangerLimits, Tally

ROOT = "manager"
STORE = f"{ROOT}/store"
BLOBS = f"{ROOT}/blobs"
CLUSTERS = f"{ROOT}/clusters"


def cluster_path(cluster_id: str) -> str:
    return f"{CLUSTERS}/{cluster_id}"


def swarm_path(cluster_id: str, swarm_id: str) -> str:
    return f"{cluster_path(cluster_id)}/{swarm_id}"


class Listening(msgspec.Struct, frozen=True):
    """A socket that listens for as long as the manager runs, whichever actor serves it.

    While that actor restarts, clients wait instead of being refused, and nobody takes the port.
    """

    address: str
    fd: int


@dataclass
class Context:
    keys: KeyPair
    authority: TokenAuthority
    open_store: Callable[[], Store]
    reader: Store
    """Only for reads; writes go to the StoreActor."""
    depot: FileDepot
    quotas: Quotas
    disk: Disk
    audit: AuditLog
    """What users do."""
    workers: ThreadPoolExecutor
    """Run what takes more than a millisecond, and what others ask for in turns (`jobs`)."""
    hashers: ThreadPoolExecutor
    """Check and hash passwords, which take longer and which strangers can ask for."""
    nodes: Listening
    users: Listening
    bulk: Listening
    started_at: float
    restored: RestoredFile | None = None
    """The backup that the store was restored from."""
    limits: StrangerLimits = field(default_factory=StrangerLimits)
    """What each listener bears of strangers."""
    tally: Tally = field(default_factory=Tally)
    """What became of strangers, at all listeners."""
    bulk_admission: Admission = field(init=False)
    principals: Principals = field(default_factory=Principals)
    clusters: dict[str, ClusterView] = field(default_factory=dict)
    access: Access = field(init=False)
    jobs: Jobs = field(init=False)
    coming: Coming = field(init=False)
    """What nodes told that waits in the actors of swarms."""
    pace: Pace = field(default_factory=Pace)
    """How fast they take what tasks report."""
    revisions: AllRevisions = field(default_factory=AllRevisions)
    lease: float = 20.0
    """Seconds without a sign of life after which a node counts as lost."""
    troubles: Mapping[str, str] = field(default_factory=dict)
    """Why the "store" or "blobs" cannot be written; replaced, never changed."""

    def __post_init__(self) -> None:
        self.jobs = Jobs(self.workers)
        memory = self.quotas.memory
        self.coming = Coming(memory.coming, memory.coming_of_user)
        self.access = Access(self.reader, self.clusters)
        self.bulk_admission = Admission(
            limits=self.limits, tally=self.tally, owner_of=self.principals.owner_of
        )

    def cluster(self, cluster_id: str) -> ClusterView:
        return self.clusters.setdefault(cluster_id, ClusterView())

    @property
    def trouble(self) -> str:
        """Why nothing can be stored; "" if all can."""
        return " ".join(self.troubles.values())

    def note_trouble(self, what: str, trouble: str) -> None:
        others = {one: why for one, why in self.troubles.items() if one != what}
        self.troubles = {**others, what: trouble} if trouble else others

    def is_node(self, key: str) -> bool:
        """Whether a key is a node's; from any thread."""
        return self.principals.of(key).kind is Kind.NODE

    def may_relay(self, key: str, other: str) -> bool:
        """Whether keys are of nodes that have a swarm in common; from any thread."""
        one, two = self.principals.of(key), self.principals.of(other)
        if {one.kind, two.kind} != {Kind.NODE} or one.cluster_id != two.cluster_id:
            return False
        view = self.clusters.get(one.cluster_id)
        return view is not None and view.share(one.id, two.id)

    def may_name(self, who: Principal, blobs: Iterable[BlobRef]) -> set[str]:
        """Digests of those of the blobs that are here, for the user or node to read and name. As
        they are about to be named, a sweep spares them."""
        named = self.access.readable(who, (blob.digest for blob in blobs))
        return {digest for digest in named if self.holds(digest)}

    def holds(self, digest: str) -> bool:
        """Whether the blob is here. If so a sweep spares it for a while: the caller is about to
        name it."""
        try:
            os.utime(self.depot.place(digest))
        except FileNotFoundError:
            return False
        return True
