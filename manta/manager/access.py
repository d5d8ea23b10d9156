"""Which blobs a node or a user may have. May be used from any thread.

A digest alone opens nothing. A blob is for whoever may read something that names it:

    administrator  all
    user           what a swarm names in whose cluster the user reads swarms, and the packages of
                   modules that the user sees
    node           what a swarm names of which it runs an attempt
    both           for LENT seconds, what they have sent themselves, or what was made for them

What names a blob is in the store, under an index. What the store does not show is kept here:
names that are being stored, which may be read already, and names that were given up, which
somebody may just have been told.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple, Protocol

from manta.manager.auth.principals import Kind, Principal
from manta.manager.auth.rights import Right
from manta.manager.auth.roles import Roles
from manta.manager.store.interface import Store
from manta.manager.views import ClusterView
from manta.protocol.states import SwarmState
from manta.transports.bulk.options import Operation, Verdict

LENT = 900.0
"""Seconds: a sweep spares an unnamed blob for as long."""
LINGERS = 60.0
"""Seconds for which a blob may be fetched that is named no longer."""
MOST_LENT = 20_000
"""Blobs that one user or node may have sent and not named yet; of more, the first are forgotten,
and missing when they are named."""


class Modules(Protocol):
    """The registered modules."""

    def shows_package(self, digest: str, who: Principal, clusters: Iterable[str]) -> bool:
        """Whether a module that the user sees has this package; `clusters` are those in which the
        user reads modules."""

    def shared_with(self, cluster_id: str) -> list[str]:
        """Ids of the modules that are shared with the cluster."""


class _Swarm(NamedTuple):
    cluster_id: str
    id: str


class _Released:
    """Names that swarms gave up, each for LINGERS seconds."""

    def __init__(self) -> None:
        self._names: dict[str, dict[_Swarm, float]] = {}
        self._ends: deque[tuple[float, str, _Swarm]] = deque()

    def add(self, swarm: _Swarm, digests: Iterable[str], now: float) -> None:
        while self._ends and self._ends[0][0] <= now:
            end, digest, other = self._ends.popleft()
            names = self._names[digest]
            if names[other] == end:
                del names[other]
            if not names:
                del self._names[digest]
        for digest in digests:
            self._names.setdefault(digest, {})[swarm] = now + LINGERS
            self._ends.append((now + LINGERS, digest, swarm))

    def of(self, digest: str, now: float) -> list[_Swarm]:
        return [swarm for swarm, end in self._names.get(digest, {}).items() if end > now]


class Access:
    def __init__(
        self,
        store: Store,
        clusters: Mapping[str, ClusterView],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.roles = Roles()
        self.modules: Modules | None = None
        self._store = store
        self._clusters = clusters
        self._now = now
        self._lock = threading.Lock()
        self._lent: OrderedDict[tuple[Kind, str], OrderedDict[str, float]] = OrderedDict()
        """By user or node, whoever was lent something last comes last: until when each blob is."""
        self._naming: dict[str, Counter[_Swarm]] = {}
        """By blob: how many names that a swarm gives to it are being stored."""
        self._released = _Released()

    # What changes who may have a blob.

    def lend(self, who: Principal, digest: str) -> None:
        """The user or node has sent the blob, or is about to be told of it."""
        now, key = self._now(), (who.kind, who.id)
        with self._lock:
            lent = self._lent.pop(key, None) or OrderedDict()
            lent.pop(digest, None)
            lent[digest] = now + LENT
            while len(lent) > MOST_LENT or next(iter(lent.values())) <= now:
                lent.popitem(last=False)
            self._lent[key] = lent
            while next(reversed(next(iter(self._lent.values())).values())) <= now:
                self._lent.popitem(last=False)

    def naming(self, cluster_id: str, swarm_id: str, digests: Iterable[str]) -> None:
        """The swarm names these from now on; it is being stored."""
        swarm = _Swarm(cluster_id, swarm_id)
        with self._lock:
            for digest in digests:
                self._naming.setdefault(digest, Counter())[swarm] += 1

    def named(self, cluster_id: str, swarm_id: str, digests: Collection[str]) -> None:
        """It is stored that the swarm names these. Nodes that run it need what they were lent no
        longer: they may read what it names."""
        swarm = _Swarm(cluster_id, swarm_id)
        view = self._clusters.get(cluster_id)
        runs = view.held.get(swarm_id, {}).copy() if view is not None else {}
        with self._lock:
            for node_id in runs:
                lent = self._lent.get((Kind.NODE, node_id), OrderedDict())
                for digest in digests:
                    lent.pop(digest, None)
                if not lent:
                    self._lent.pop((Kind.NODE, node_id), None)
            for digest in digests:
                names = self._naming.get(digest, Counter())
                names[swarm] -= 1
                if names[swarm] <= 0:
                    del names[swarm]
                if not names:
                    self._naming.pop(digest, None)

    def restarted(self, swarm_id: str) -> None:
        """What the swarm was storing when it ended is stored or lost."""
        with self._lock:
            for digest, names in list(self._naming.items()):
                for swarm in [one for one in names if one.id == swarm_id]:
                    del names[swarm]
                if not names:
                    del self._naming[digest]

    def released(self, cluster_id: str, swarm_id: str, digests: Iterable[str]) -> None:
        """The swarm names these no longer."""
        with self._lock:
            self._released.add(_Swarm(cluster_id, swarm_id), digests, self._now())

    # Who may have one.

    def verdict(self, who: Principal, operation: Operation, digest: str) -> Verdict:
        if who.kind not in (Kind.NODE, Kind.USER):
            return Verdict.REFUSED
        if self.readable(who, (digest,)):
            return Verdict.GRANTED
        if operation == "push":
            return Verdict.UNPROVEN
        return Verdict.LATER if self._is_starting(who) else Verdict.REFUSED

    def _is_starting(self, who: Principal) -> bool:
        """Whether a swarm of the node's cluster has yet to say what nodes run, or says it no more,
        as one that runs does when the manager stops."""
        view = self._clusters.get(who.cluster_id)
        if who.kind is not Kind.NODE or view is None or view.unread:
            return who.kind is Kind.NODE
        live = (id_ for id_, info in view.swarms.items() if not SwarmState(info.status).final)
        return any(swarm_id not in view.held for swarm_id in live)

    def readable(self, who: Principal, digests: Iterable[str]) -> set[str]:
        """Those of the blobs that the user or node may read and name, if they are here."""
        wanted = set(digests)
        if who.admin:
            return wanted
        now = self._now()
        with self._lock:
            lent = self._lent.get((who.kind, who.id), OrderedDict[str, float]())
            found = {digest for digest in wanted if lent.get(digest, 0.0) > now}
            recent = {
                digest: [*self._naming.get(digest, ()), *self._released.of(digest, now)]
                for digest in wanted - found
            }
        if who.kind is Kind.NODE:
            return found | self._of_node(who, recent)
        return found | self._of_user(who, recent)

    def _of_node(self, who: Principal, recent: dict[str, list[_Swarm]]) -> set[str]:
        view = self._clusters.get(who.cluster_id)
        held = view.held.copy() if view is not None else {}
        runs = {swarm_id for swarm_id, counts in held.items() if who.id in counts}
        found = {digest for digest, by in recent.items() if any(one.id in runs for one in by)}
        return found | self._store.named(recent.keys() - found, holders=runs)

    def _of_user(self, who: Principal, recent: dict[str, list[_Swarm]]) -> set[str]:
        where = set(self.roles.where(who, Right.SWARM_READ))
        found = {d for d, by in recent.items() if any(one.cluster_id in where for one in by)}
        if self.modules is not None:
            shared = self.roles.where(who, Right.MODULE_READ)
            shows = self.modules.shows_package
            found |= {d for d in recent.keys() - found if shows(d, who, shared)}
        return found | self._store.named(recent.keys() - found, scopes=where)
