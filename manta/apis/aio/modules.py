"""The registry of modules: code under a name, sent once and used by any number of swarms."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

from manta.apis import checks
from manta.apis.connect.async_bridge import in_thread
from manta.apis.errors import Forbidden, InvalidArgument, NameTaken, NotFound
from manta.apis.module import Module
from manta.apis.overviews import ModuleOverview
from manta.protocol import users, versions
from manta.protocol.codes import Code
from manta.protocol.node import Ok

if TYPE_CHECKING:
    from manta.apis.aio.connection import AsyncConnection
    from manta.apis.compile.packaging import Wanted
    from manta.protocol.node import Message
    from manta.protocol.spec import ModuleSpec

    R = TypeVar("R", bound=Message)

ModuleId = str | ModuleOverview


class AsyncModules:
    """Registered modules are given as an overview, an id, a unique beginning of one or of a
    package's digest, or a name, with a version or a range of versions where one name has several.
    """

    connection: AsyncConnection

    if TYPE_CHECKING:

        async def _ask(self, message: Message, reply: type[R], *, again: bool = False) -> R: ...

    async def send_module(self, module: Module) -> ModuleOverview:
        """Register a module. The same content again is the same module; without a version, none
        is refused.

        Paths start in the working folder. Raises ModuleError, and NameTaken when other content
        has that name and version, or the name's versions are another user's.
        """
        return await self._sent(module, lambda spec: users.SendModule(spec))

    async def get_module(self, module: ModuleId, version: str | None = None) -> ModuleOverview:
        """Of a name, the highest version that `version` (one, or a range) allows, else the one
        that was sent last. Raises NotFound, Ambiguous."""
        request = users.GetModule(checks.identity("module", module), _range(version))
        return ModuleOverview.of(await self._ask(request, users.ModuleInfo, again=True))

    async def list_modules(self) -> list[ModuleOverview]:
        """By name, then by version, then by the time at which they were sent."""
        found = await self.connection.listed(
            users.ListModules, users.Modules, lambda page: page.modules, lambda one: one.id
        )
        return sorted(map(ModuleOverview.of, found), key=_order)

    async def update_module(self, module: ModuleId, content: Module) -> ModuleOverview:
        """Other content for a module without a version; it keeps its id and its name.

        Swarms that were sent keep what they have. Raises NameTaken for one with a version.
        """
        name = checks.identity("module", module)
        return await self._sent(content, lambda spec: users.UpdateModule(name, spec))

    async def remove_module(self, module: ModuleId, version: str | None = None) -> None:
        """Swarms that were sent with it keep what they need. Raises Ambiguous when a name fits
        several, Forbidden for what another user sent."""
        await self._ask(users.RemoveModule(checks.identity("module", module), _range(version)), Ok)

    async def list_module_ids(self) -> list[str]:
        """Of all modules, in the order of `list_modules`."""
        return [module.id for module in await self.list_modules()]

    async def stream_modules(self, *, follow: bool = False) -> AsyncIterator[ModuleOverview]:
        """Each module there is; with `follow`, also those that are new or were sent again."""
        checks.flag("follow", follow)
        found = await self.list_modules()
        for module in found:
            yield module
        if not follow:
            return
        async for module in self.connection.changes(
            found,
            users.WatchModules,
            users.Modules,
            lambda page: map(ModuleOverview.of, page.modules),
            lambda one: one.id,
        ):
            yield module

    async def stream_and_fetch_modules(self) -> AsyncIterator[ModuleOverview]:
        """Each module there is, fetched one by one; what was removed meanwhile is passed over."""
        for id_ in await self.list_module_ids():
            try:
                yield await self.get_module(id_)
            except NotFound:
                continue

    # --- for swarms --------------------------------------------------------------------------

    async def _registered(self, wanted: Iterable[Wanted]) -> dict[Wanted, ModuleSpec | str]:
        """What the registry has of these; a text says why it has none."""
        found: dict[Wanted, ModuleSpec | str] = {}
        for name in wanted:
            request = users.ResolveModule(name.name, name.version)
            try:
                found[name] = (await self._ask(request, users.ModuleInfo, again=True)).spec
            except NotFound as error:
                found[name] = f"the registry of modules ({_there(error)})"
            except Forbidden:
                found[name] = "the registry of modules (which you may not read)"
        return found

    async def _check_versions(self, versioned: Iterable[ModuleSpec]) -> None:
        """Raises NameTaken, as sending them would."""
        for spec in versioned:
            request = users.ResolveModule(spec.name, spec.version)
            try:
                known = await self._ask(request, users.ModuleInfo, again=True)
            except (NotFound, Forbidden):
                continue
            if known.spec != spec:
                assert spec.version is not None
                raise NameTaken(versions.taken(spec.name, spec.version), Code.VERSION_TAKEN)

    async def _register(self, versioned: Iterable[ModuleSpec]) -> None:
        """Modules that were pushed: from now on their versions never change."""
        for spec in versioned:
            await self._ask(users.SendModule(spec), users.ModuleInfo, again=True)

    async def _sent(
        self, module: Module, request: Callable[[ModuleSpec], Message]
    ) -> ModuleOverview:
        if not isinstance(module, Module):
            raise InvalidArgument(
                f"{checks.shown(module)} is no module: give a Module, such as Module('worker.py')."
            )
        from manta.apis.compile.compiler import compile_module

        spec, blobs = await in_thread(lambda: compile_module(module))
        await self.connection.push(blobs)
        return ModuleOverview.of(await self._ask(request(spec), users.ModuleInfo, again=True))


def _range(version: str | None) -> str | None:
    try:
        if version is not None:
            versions.allowed(checks.name("version", version))
    except ValueError as error:
        if isinstance(error, InvalidArgument):
            raise
        raise InvalidArgument(f"version is {version!r}: {versions.REMEDY}.") from None
    return version


def _there(error: NotFound) -> str:
    there = error.data.get("versions")
    if there is None:
        return "none of that name"
    return f"it has {', '.join(there)}" if there else "it has none with a version"


def _order(module: ModuleOverview) -> tuple[object, ...]:
    version = versions.order(module.version) if module.version else ()
    return module.name, version, module.updated_at, module.id
