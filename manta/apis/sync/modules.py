# Generated from manta/apis/aio/modules.py by `make generate`: do not edit.
"""The registry of modules: code that is sent once and used by any number of swarms."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from manta.apis import checks
from manta.apis.errors import InvalidArgument
from manta.apis.module import Module
from manta.apis.overviews import ClusterId, ModuleId, ModuleOverview
from manta.apis.sync.client import Client, tell
from manta.apis.sync.waiting import in_thread
from manta.protocol import users, versions
from manta.protocol.node import Ok

if TYPE_CHECKING:
    from manta.protocol.node import Message
    from manta.protocol.spec import ModuleSpec


class Modules(Client):
    """A registered module is given as an overview, an id, a unique beginning of its id or of its
    package's digest, or a name; where a name has several versions, with one or a range of them.
    """

    def send_module(self, module: Module) -> ModuleOverview:
        """Registers a module, which is yours alone until you share it. Sending the same content
        again returns the same module; without a version, any content is accepted.

        Paths are relative to the working folder. Raises ModuleError; raises NameTaken when that
        name and version has other content, or the name's versions belong to another user.
        """
        return self._sent(module, lambda spec: users.SendModule(spec))

    def get_module(self, module: ModuleId, version: str | None = None) -> ModuleOverview:
        """Returns a registered module. A name means the highest version that `version` (one, or a
        range) allows; without `version`, the one sent last. Raises NotFound, Ambiguous."""
        request = users.GetModule(checks.identity("module", module), _range(version))
        return ModuleOverview.of(self._ask(request, users.ModuleInfo, again=True))

    def list_modules(self) -> list[ModuleOverview]:
        """Lists the registered modules that are yours or shared with you, by name, version, and the
        time at which they were sent."""
        found = self.connection.listed(
            users.ListModules, users.Modules, lambda page: page.modules, lambda one: one.id
        )
        return sorted(map(ModuleOverview.of, found), key=_order)

    def update_module(self, module: ModuleId, content: Module) -> ModuleOverview:
        """Replaces the content of a module without a version; it keeps its id and name.

        Swarms that were sent keep the old content. Raises NameTaken for a module with a version.
        """
        name = checks.identity("module", module)
        return self._sent(content, lambda spec: users.UpdateModule(name, spec))

    def share_module(
        self, module: ModuleId, cluster: ClusterId, version: str | None = None
    ) -> ModuleOverview:
        """Shares a module of yours with a cluster: everybody who may read modules there can see and
        use it.

        Raises NameTaken when another user's versions of that name are shared there.
        """
        return self._share(module, cluster, version, True)

    def unshare_module(
        self, module: ModuleId, cluster: ClusterId, version: str | None = None
    ) -> ModuleOverview:
        """Ends the sharing of a module with a cluster; who manages the cluster may as well. Swarms
        that were sent with it keep it."""
        return self._share(module, cluster, version, False)

    def remove_module(self, module: ModuleId, version: str | None = None) -> None:
        """Removes a registered module; swarms that were sent with it keep it. Raises Ambiguous
        when a name fits several, Forbidden for another user's."""
        self._ask(users.RemoveModule(checks.identity("module", module), _range(version)), Ok)

    def list_module_ids(self) -> list[str]:
        """Lists the ids of registered modules, in the order of `list_modules`."""
        return [module.id for module in self.list_modules()]

    def stream_modules(self, *, follow: bool = False) -> Iterator[ModuleOverview]:
        """Yields each registered module; with `follow`, then each one that is sent."""
        follow = checks.flag("follow", follow)
        yield from self.connection.stream(
            self.list_modules(),
            users.WatchModules,
            users.Modules,
            lambda page: map(ModuleOverview.of, page.modules),
            lambda one: one.id,
            follow=follow,
        )

    def stream_and_fetch_modules(self) -> list[ModuleOverview]:
        """Lists the ids and fetches each module; those removed meanwhile are skipped."""
        return self._fetched(self.list_module_ids(), self.get_module)

    def _share(
        self, module: ModuleId, cluster: ClusterId, version: str | None, shared: bool
    ) -> ModuleOverview:
        request = users.ShareModule(
            checks.identity("module", module),
            checks.identity("cluster", cluster),
            _range(version),
            shared,
        )
        return ModuleOverview.of(self._ask(request, users.ModuleInfo, again=True))

    def _sent(self, module: Module, request: Callable[[ModuleSpec], Message]) -> ModuleOverview:
        if not isinstance(module, Module):
            raise InvalidArgument(
                f"{checks.shown(module)} is not a module: give a Module, as in Module('a.py')."
            )
        from manta.apis.compile.spec import compile_module

        spec, blobs, notes = in_thread(lambda: compile_module(module))
        tell(notes)
        self.connection.push(blobs)
        return ModuleOverview.of(
            self._ask(request(spec), users.ModuleInfo, again=True, blobs=blobs)
        )


def _range(version: str | None) -> str | None:
    version = checks.optional_name("version", version)
    try:
        if version is not None:
            versions.allowed(version)
    except ValueError:
        raise InvalidArgument(f"version is {version!r}: {versions.REMEDY}.") from None
    return version


def _order(module: ModuleOverview) -> tuple[object, ...]:
    version = versions.order(module.version) if module.version else ()
    return module.name, version, module.updated_at, module.id
