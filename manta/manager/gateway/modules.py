"""Registers, updates and removes modules; each change is answered once it is stored.

A `Change` takes effect before it is stored, so that of two users who send different content
under one name and version only one succeeds.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from manta.actors import Refused, Reply
from manta.manager.auth.principals import Principal
from manta.manager.context import BLOBS
from manta.manager.gateway.part import Part, Request, Shared
from manta.manager.gateway.registry import Registry, check, described
from manta.manager.ids import new_id
from manta.manager.messages import Sweep
from manta.manager.quotas.table import Quota
from manta.manager.store.change import Change
from manta.manager.store.interface import Delete, Put, Reference, Release, Write
from manta.manager.store.records import ModuleRecord
from manta.protocol import pages, users
from manta.protocol.codes import Code
from manta.protocol.node import Ok
from manta.protocol.spec import ModuleSpec
from manta.protocol.users import ModuleInfo


class Modules(Part):
    def __init__(self, shared: Shared) -> None:
        super().__init__(shared)
        self._registry = Registry(self._context.reader.all(ModuleRecord))
        self._revisions = self._context.revisions.modules
        self._revisions.changed(*self._registry.modules)

    def page(self, after: str) -> users.Modules:
        infos = map(_info, self._registry.modules.values())
        return users.Modules(*pages.after(infos, lambda one: one.id, after, pages.encoded))

    def get(self, name: str, version: str | None, who: Principal) -> ModuleInfo:
        return _info(self._registry.get(name, version, who))

    def info(self, module_id: str) -> ModuleInfo | None:
        record = self._registry.modules.get(module_id)
        return None if record is None else _info(record)

    def resolve(self, request: Request[users.ResolveModule, None]) -> None:
        """The package stays for a while even if the module is removed before a swarm names it."""
        message, reply = request.message, request.defer()
        record = self._registry.resolve(message.name, message.version, request.who)

        def job() -> ModuleInfo:
            if record.spec.package is not None:
                self._context.holds(record.spec.package.digest)
            return _info(record)

        self._actor.pipe(self._context.workers.submit(job), reply.set, reply=reply)

    def send(self, request: Request[users.SendModule, None]) -> None:
        spec, who, reply = request.message.spec, request.who, request.defer()
        self._registry.accept(spec, who)
        self._with_package(spec, reply, lambda: self._send(spec, who, reply))

    def update(self, request: Request[users.UpdateModule, None]) -> None:
        name, spec = request.message.module, request.message.spec
        who, reply = request.who, request.defer()
        self._registry.own(name, None, who)
        self._with_package(spec, reply, lambda: self._update(name, spec, who, reply))

    def _with_package(self, spec: ModuleSpec, reply: Reply, then: Callable[[], None]) -> None:
        def job() -> None:
            if spec.package is not None and not self._context.holds(spec.package.digest):
                raise Refused(
                    Code.BLOB_MISSING,
                    f"The package of module {spec.name!r} was not pushed; push it first.",
                )

        self._actor.pipe(self._context.workers.submit(job), lambda _: then(), reply=reply)

    def _send(self, spec: ModuleSpec, who: Principal, reply: Reply) -> None:
        now = self._actor.clock.wall()
        held = self._registry.accept(spec, who)
        if isinstance(held, ModuleRecord):
            record, before = replace(held, updated_at=now), held
        else:
            record, before = ModuleRecord(new_id(), spec, held, now, now), None
        self._store(record, before, _blobs(Reference, record), f"{who.name} sent", reply)

    def _update(self, name: str, spec: ModuleSpec, who: Principal, reply: Reply) -> None:
        before = self._registry.own(name, None, who)
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
        self._store(record, before, writes, f"{who.name} updated", reply)

    def _store(
        self,
        record: ModuleRecord,
        before: ModuleRecord | None,
        writes: tuple[Write, ...],
        done: str,
        reply: Reply,
    ) -> None:
        registry, change, quotas = self._registry, Change(self._writer), self._context.quotas
        package = record.spec.package
        if package and (breach := quotas.naming(record.owner_id, (package.digest,))):
            raise breach.refusal()
        if before is None:
            change.on_refusal(quotas.admit(record.id, record.owner_id, "", Quota.MODULES))
        registry.put(record)
        change.on_refusal(lambda: registry.put(before) if before else registry.pop(record))
        change.write(Put(record), *writes)

        def stored() -> None:
            self._actor.log.info("%s the module %s", done, described(record))
            self._revisions.changed(record.id)
            if before is not None and before.spec.package != record.spec.package:
                self._actor.notify(BLOBS, Sweep())
            reply.set(_info(record))

        change.commit(reply, stored)

    def remove(self, request: Request[users.RemoveModule, None]) -> None:
        message, who, reply = request.message, request.who, request.defer()
        record = self._registry.own(message.module, message.version, who)
        change = Change(self._writer)
        self._registry.pop(record)
        change.write(Delete(ModuleRecord, record.id), *_blobs(Release, record))

        def stored() -> None:
            self._actor.log.warning("%s removed the module %s", who.name, described(record))
            self._revisions.forget(record.id)
            self._actor.notify(BLOBS, Sweep())
            reply.set(Ok())

        change.commit_lasting(reply, stored)


def _info(record: ModuleRecord) -> ModuleInfo:
    return ModuleInfo(record.id, record.spec, record.owner_id, record.created_at, record.updated_at)


def _blobs(kind: type[Reference | Release], record: ModuleRecord) -> tuple[Write, ...]:
    package = record.spec.package
    return () if package is None else (kind(record.id, (package.digest,)),)
