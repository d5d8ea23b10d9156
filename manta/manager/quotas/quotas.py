"""Decides whether users and swarms may have more. May be used from any thread.

Every quota is checked here and refused in the same words (`table.Breach`); where a thing is made,
moved or written, one line asks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from manta.manager.quotas.ledger import PLATFORM, READ, Ledger
from manta.manager.quotas.limits import Limits
from manta.manager.quotas.memory import UNBOUNDED, Memory
from manta.manager.quotas.table import MOST, TABLE, Breach, Limit, Quota
from manta.transports.errors import BlobRefused, BlobTooLarge


class Quotas:
    def __init__(
        self,
        limits: Limits,
        ledger: Ledger,
        live_swarms: int = MOST,
        memory: Memory = UNBOUNDED,
    ) -> None:
        """`live_swarms`: how many may not be over, of all users together; `memory` is that of the
        machine."""
        self.limits = limits
        self.ledger = ledger
        self.memory = memory
        self._pushing = threading.Lock()
        self._live_swarms = Limit(live_swarms, "half of the threads that there may be here")

    def admit(
        self, thing: str, user_id: str, cluster_id: str, *quotas: Quota
    ) -> Callable[[], None]:
        """Counts one more thing of the user's, at once; returns what undoes that, if it is not
        stored after all. Raises Refused."""

        def undo() -> None:
            for quota in quotas:
                self.ledger.drop(quota, thing)

        for quota in quotas:
            if breach := self._admit(quota, thing, user_id, cluster_id):
                undo()
                raise breach.refusal()
        return undo

    def _admit(self, quota: Quota, thing: str, user_id: str, cluster_id: str) -> Breach | None:
        limit, total = self.limits.of(quota, user_id), None
        holders, bounds = [user_id], [limit.value]
        if TABLE[quota].in_cluster:
            total = self.limits.of_cluster(quota, cluster_id)
            holders.append(cluster_id)
            bounds.append(total.value if total else MOST)
        if quota is Quota.LIVE_SWARMS:
            holders.append(PLATFORM)
            bounds.append(self._live_swarms.value)
        full = self.ledger.admit(quota, thing, tuple(holders), bounds)
        if full is None:
            return None
        who = self._user(user_id)
        if full == cluster_id and total is not None:
            who, limit = "This cluster", total
        elif full == PLATFORM:
            who, limit = "This manager", self._live_swarms
        return Breach(quota, who, self.ledger.used(quota, full), 1, limit)

    def check(self, quota: Quota, user_id: str, have: int) -> None:
        """Raises Refused unless the user may have one more than these."""
        if breach := self.breach(quota, self._user(user_id), have, 1, user_id):
            raise breach.refusal()

    def breach(
        self, quota: Quota, who: str, have: int, asked: int, user_id: str, cluster_id: str = ""
    ) -> Breach | None:
        """None if there may be so many more. `cluster_id`: of a swarm, whose quota it is."""
        limit = self.limits.of(quota, user_id, cluster_id)
        return Breach(quota, who, have, asked, limit) if have + asked > limit.value else None

    def storing(self, user_id: str, size: int) -> Breach | None:
        """None if swarms of the user's may say so many bytes more."""
        quota, who = Quota.STORED_BYTES, self._user(user_id)
        return self.breach(quota, who, self.ledger.used(quota, user_id), size, user_id)

    # Memory.

    def limit(self, quota: Quota, user_id: str, cluster_id: str = "") -> Limit:
        """What applies here: of memory, no more than there is. `cluster_id`: of a swarm."""
        found = self.limits.of(quota, user_id, cluster_id)
        if quota is Quota.STATE_BYTES:
            return min(found, Limit(self.memory.of_swarm, "a 12th of the memory here"))
        if quota is Quota.MEMORY_BYTES:
            return min(found, Limit(self.memory.of_user, "a 6th of the memory here"))
        return found

    def holding(
        self, swarm_id: str, who: str, user_id: str, cluster_id: str, size: int, *, is_over: bool
    ) -> Breach | None:
        """Counts that the swarm holds so many bytes in memory, unless these are too many more than
        before. `is_over`: it is there for those who read it."""
        have, memory = self.ledger.held_by(swarm_id), self.memory
        limit = self.limit(Quota.STATE_BYTES, user_id, cluster_id)
        if have < size > limit.value and not is_over:
            return Breach(Quota.STATE_BYTES, who, have, size - have, limit)
        if is_over:
            holders = READ + user_id, READ
            limits = (
                Limit(memory.read_of_user, "a 12th of the memory here, for swarms that are over"),
                Limit(memory.read, "a 6th of the memory here, for swarms that are over"),
            )
            sure = memory.read_sure
        else:
            holders = user_id, PLATFORM
            limits = (
                self.limit(Quota.MEMORY_BYTES, user_id),
                Limit(memory.live, "a third of the memory here"),
            )
            sure = memory.sure
        of_one, of_all = (limit.value for limit in limits)
        full = self.ledger.hold(swarm_id, size, holders, (of_one, of_all), sure)
        if full is None:
            return None
        at = holders.index(full)
        who = "This manager" if at else self._user(user_id)
        used = self.ledger.used(Quota.MEMORY_BYTES, full)
        return Breach(Quota.MEMORY_BYTES, who, used, size - have, limits[at])

    # Blobs.

    def naming(self, user_id: str, blobs: Iterable[str]) -> Breach | None:
        """None if something of the user's may name these blobs, which are here."""
        ledger, who = self.ledger, self._user(user_id)
        fresh = {digest for digest in blobs if not ledger.is_named(user_id, digest)}
        if not fresh:
            return None
        asked = {Quota.BLOBS: len(fresh), Quota.BLOB_BYTES: sum(map(ledger.size, fresh))}
        found = (
            self.breach(quota, who, ledger.used(quota, user_id), more, user_id)
            for quota, more in asked.items()
        )
        return next(filter(None, found), None)

    def push(self, who_id: str, name: str, digest: str, size: int, now: float) -> None:
        """A user or node begins to push a blob that is not here, or not known to be. Raises
        BlobRefused; BlobTooLarge where there can never be room."""
        with self._pushing:
            self._push(who_id, name, digest, size, now)

    def _push(self, who_id: str, name: str, digest: str, size: int, now: float) -> None:
        ledger = self.ledger
        if ledger.pushes(who_id, digest):
            return
        blobs, unnamed, named = (
            ledger.used(quota, who_id)
            for quota in (Quota.UNNAMED_BLOBS, Quota.UNNAMED_BYTES, Quota.BLOB_BYTES)
        )
        breach = (
            self.breach(Quota.UNNAMED_BLOBS, name, blobs, 1, who_id)
            or self.breach(Quota.UNNAMED_BYTES, name, unnamed, size, who_id)
            or self.breach(Quota.BLOB_BYTES, name, named + unnamed, size, who_id)
        )
        if breach is not None:
            raise (BlobRefused if breach.may_fit else BlobTooLarge)(breach.sentence)
        ledger.push(who_id, digest, size, now)

    def _user(self, user_id: str) -> str:
        return f"The user {self.limits.name(user_id)}"
