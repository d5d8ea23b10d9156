"""Registers, updates and removes modules; each change is answered once it is stored.

A `Change` takes effect before it is stored, so that of two users who send different content
under one name and version only one succeeds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from msgspec.structs import replace

from manta.actors import Refused, Reply
from manta.manager.auth.principals import Kind, Principal
from manta.manager.auth.rights import Right
from manta.manager.context import BLOBS
from manta.manager.errors import StoreError
from manta.manager.gateway.part import Part, Request, Shared
from manta.manager.gateway.registrar import Registrar
from manta.manager.gateway.registry import Reader, Registry, check, described
from manta.manager.ids import new_id
from manta.manager.messages import Sweep
from manta.manager.quotas.table import Quota
from manta.manager.store.change import Change
from manta.manager.store.interface import Delete, Put, Reference, Release, Write
from manta.manager.store.records import ADMIN_ROLE, ClusterRecord, ModuleRecord
from manta.protocol import pages, users
from manta.protocol.codes import Code
from manta.protocol.node import Ok
from manta.protocol.spec import ModuleSpec
from manta.protocol.users import ModuleInfo, SharedWith

MOST_SHARES = 100
"""Clusters that a module may be shared with by word."""


class Modules(Part):
    def __init__(self, shared: Shared, registrar: Registrar) -> None:
        super().__init__(shared)
        self._registrar = registrar
        self._registry = Registry(map(self._adopted, self._context.reader.all(ModuleRecord)))
        self._context.access.modules = self._registry
        self._revisions = self._context.revisions.modules
        self._revisions.changed(*self._registry.modules)

    def _adopted(self, record: ModuleRecord) -> ModuleRecord:
        """One from before modules were shared by word: who worked with its owner sees it still."""
        if record.clusters is not None:
            return record
        owner = self._registrar.users.get(record.owner_id)
        where: Iterable[str] = ()
        if owner is not None and owner.role == ADMIN_ROLE:
            where = self._directory.clusters
        elif owner is not None:
            who = Principal(Kind.USER, "", owner.id)
            where = self._roles.where(who, Right.MODULE_WRITE)
        adopted = replace(record, clusters=tuple(sorted(where)))

        def then(error: StoreError | None) -> None:
            if error is not None:  # it is found out again at the next start
                self._actor.log.warning("with whom a module is shared is not stored: %s", error)

        self._writer.write(Put(adopted), then=then)
        return adopted

    def _reader(self, who: Principal) -> Reader:
        clusters = () if who.admin else self._roles.where(who, Right.MODULE_READ)
        return Reader(who, frozenset(clusters))

    def page(self, after: str, who: Principal) -> users.Modules:
        reader = self._reader(who)
        seen = (one for one in self._registry.modules.values() if reader.sees(one))
        infos = (self._info(one, who) for one in seen)
        return users.Modules(*pages.after(infos, lambda one: one.id, after, pages.encoded))

    def get(self, name: str, version: str | None, who: Principal) -> ModuleInfo:
        return self._info(self._registry.get(name, version, self._reader(who)), who)

    def shown(self, who: Principal) -> Callable[[str], ModuleInfo | None]:
        """Finds a module that the user sees by its id."""
        reader, modules = self._reader(who), self._registry.modules

        def find(module_id: str) -> ModuleInfo | None:
            record = modules.get(module_id)
            shows = record is not None and reader.sees(record)
            return self._info(record, who) if record is not None and shows else None

        return find

    def _info(self, record: ModuleRecord, who: Principal) -> ModuleInfo:
        there = self._directory.clusters
        shared = tuple(
            SharedWith(one, there[one].name)
            for one in record.clusters or ()
            if one in there and self._roles.sees(who, one)
        )
        at = record.created_at, record.updated_at
        return ModuleInfo(record.id, record.spec, record.owner_id, *at, shared)

    def resolve(self, request: Request[users.ResolveModule, ClusterRecord | None]) -> None:
        """The package stays for a while even if the module is removed before a swarm names it."""
        message, who, reply = request.message, request.who, request.defer()
        reader = self._reader(who)
        if request.target is not None:
            reader = Reader(who, frozenset({request.target.id}), only=True)
        record = self._registry.resolve(message.name, message.version, reader)
        info = self._info(record, who)

        def job() -> ModuleInfo:
            if record.spec.package is not None:
                self._context.holds(record.spec.package.digest)
                self._context.access.lend(who, record.spec.package.digest)
            return info

        self._actor.pipe(self._context.jobs.submit(who.id, job), reply.set, reply=reply)

    def send(self, request: Request[users.SendModule, None]) -> None:
        spec, who, reply = request.message.spec, request.who, request.defer()
        self._registry.accept(spec, self._reader(who))
        self._with_package(spec, who, reply, lambda: self._send(spec, who, reply))

    def update(self, request: Request[users.UpdateModule, None]) -> None:
        name, spec = request.message.module, request.message.spec
        who, reply = request.who, request.defer()
        self._registry.own(name, None, self._reader(who))
        self._with_package(spec, who, reply, lambda: self._update(name, spec, who, reply))

    def _with_package(
        self, spec: ModuleSpec, who: Principal, reply: Reply, then: Callable[[], None]
    ) -> None:
        def job() -> None:
            if spec.package is not None and not self._context.may_name(who, (spec.package,)):
                raise Refused(
                    Code.BLOB_MISSING,
                    f"The package of module {spec.name!r} was not pushed; push it first.",
                )

        self._actor.pipe(self._context.jobs.submit(who.id, job), lambda _: then(), reply=reply)

    def _send(self, spec: ModuleSpec, who: Principal, reply: Reply) -> None:
        now = self._actor.clock.wall()
        held = self._registry.accept(spec, self._reader(who))
        if isinstance(held, ModuleRecord):
            record, before = replace(held, updated_at=now), held
        else:
            record, before = ModuleRecord(new_id(), spec, held, now, now, ()), None
        self._store(record, before, _blobs(Reference, record), "sent", who, reply)

    def _update(self, name: str, spec: ModuleSpec, who: Principal, reply: Reply) -> None:
        before = self._registry.own(name, None, self._reader(who))
        if before.spec.version is not None or spec.version is not None:
            raise Refused(
                Code.VERSION_TAKEN if before.spec.version else Code.INVALID,
                f"The module {described(before)} cannot be updated to "
                f"{spec.version or 'other content'}: what has a version never changes; send it "
                "as a module of its own, with the next version.",
            )
        spec = replace(spec, name=before.spec.name)
        check(spec)
        record = replace(before, spec=spec, updated_at=self._actor.clock.wall())
        writes = (*_blobs(Release, before), *_blobs(Reference, record))
        self._store(record, before, writes, "updated", who, reply)

    def share(self, request: Request[users.ShareModule, ClusterRecord]) -> None:
        """By its owner; and by who manages the cluster, it is withdrawn from there."""
        message, who, cluster = request.message, request.who, request.target
        reader = self._reader(who)
        may_withdraw = Right.CLUSTER_MANAGE in self._roles.rights(who, cluster.id)
        if message.shared or not may_withdraw:
            before = self._registry.own(message.module, message.version, reader)
        else:
            before = self._registry.only(message.module, message.version, reader)
        clusters = [one for one in before.clusters or () if one != cluster.id]
        done = f"no longer shares with {cluster.name}"
        if message.shared:
            self._registry.check_shareable(before, cluster.id)
            if len(clusters) >= MOST_SHARES:
                raise Refused(
                    Code.INVALID,
                    f"The module {described(before)} is shared with {MOST_SHARES} clusters, which "
                    "is the most: end another share first (manta module unshare).",
                )
            clusters.append(cluster.id)
            done = f"shares with {cluster.name}"
        record = replace(before, clusters=tuple(clusters))
        self._store(record, before, (), done, who, request.defer())

    def _store(
        self,
        record: ModuleRecord,
        before: ModuleRecord | None,
        writes: tuple[Write, ...],
        done: str,
        who: Principal,
        reply: Reply,
    ) -> None:
        registry, change, quotas = self._registry, Change(self._writer), self._context.quotas
        package = record.spec.package
        named = (package.digest,) if package else ()
        if breach := quotas.naming(record.owner_id, named):
            raise breach.refusal()
        if before is None:
            change.on_refusal(quotas.admit(record.id, record.owner_id, "", Quota.MODULES))
            change.on_refusal(lambda: quotas.ledger.forget(record.id))
        elif package != before.spec.package:
            change.on_refusal(lambda: quotas.ledger.unname(record.id, named))
        quotas.ledger.name(record.id, record.owner_id, named)
        registry.put(record)
        change.on_refusal(lambda: registry.put(before) if before else registry.pop(record))
        change.write(Put(record), *writes)

        def stored() -> None:
            self._actor.log.info("%s %s the module %s", who.name, done, described(record))
            self._revisions.changed(record.id)
            if before is not None and before.spec.package != record.spec.package:
                self._actor.notify(BLOBS, Sweep())
            reply.set(self._info(record, who))

        change.commit(reply, stored)

    def remove(self, request: Request[users.RemoveModule, None]) -> None:
        message, who, reply = request.message, request.who, request.defer()
        record = self._registry.own(message.module, message.version, self._reader(who))
        change = Change(self._writer)
        self._registry.pop(record)
        change.write(Delete(ModuleRecord, record.id), *_blobs(Release, record))

        def stored() -> None:
            self._actor.log.warning("%s removed the module %s", who.name, described(record))
            self._revisions.forget(record.id)
            self._actor.notify(BLOBS, Sweep())
            reply.set(Ok())

        change.commit_lasting(reply, stored)


def _blobs(kind: type[Reference | Release], record: ModuleRecord) -> tuple[Write, ...]:
    package = record.spec.package
    return () if package is None else (kind(record.id, (package.digest,)),)
