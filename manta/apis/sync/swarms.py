# Generated from manta/apis/aio/swarms.py by `make generate`: do not edit.
"""Swarms, from deployment to removal."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from manta.apis import checks
from manta.apis.errors import Forbidden, InvalidArgument, NameTaken, NotFound, WaitTimeout
from manta.apis.overviews import ClusterId, SwarmId, SwarmOverview
from manta.apis.sync.client import Client, tell
from manta.apis.sync.connection import LONG_POLL
from manta.apis.sync.waiting import in_thread
from manta.protocol import user as messages
from manta.protocol import users, versions
from manta.protocol.codes import Code
from manta.protocol.node import Ok
from manta.protocol.user import Plan

if TYPE_CHECKING:
    from manta.apis.compile.packaging import Wanted
    from manta.apis.compile.spec import Compiled, Known
    from manta.apis.swarm import Swarm
    from manta.protocol.node import Message
    from manta.protocol.spec import ModuleSpec


READ_PACKAGE = 8 * 1024 * 1024
"""Bytes of a registered module's package that is read to check what a swarm says of it."""


class Swarms(Client):
    """A swarm is given as an overview, an id, or a unique beginning of one."""

    def check_swarm(self, cluster: ClusterId, swarm: Swarm) -> Plan:
        """Returns what would be placed where, or why not; nothing is deployed."""
        where = checks.identity("cluster", cluster)
        compiled = self._compiled(swarm, where)
        self._check_versions(compiled.versioned)
        request = messages.CheckSwarm(where, compiled.spec)
        plan = self.connection.plan(request)
        return replace(plan, notes=compiled.notes)

    def deploy_swarm(
        self, cluster: ClusterId | Swarm, swarm: Swarm | None = None, *, wait: bool = False
    ) -> SwarmOverview:
        """Sends a swarm and starts it: `deploy_swarm(cluster, swarm)`, or `deploy_swarm(swarm)`
        after `swarm.set_cluster(cluster)`.

        Raises InvalidSwarm; raises Unplaceable if no node can run a task, unless `wait` lets it
        wait for one.
        """
        sent = self.send_swarm(cluster, swarm, wait=wait)
        return self.start_swarm(sent)

    def send_swarm(
        self, cluster: ClusterId | Swarm, swarm: Swarm | None = None, *, wait: bool = False
    ) -> SwarmOverview:
        """Sends a swarm to a cluster without starting it: it is PENDING.

        Modules with a version are registered. Raises NameTaken when one of them is registered
        with other content.
        """
        wait = checks.flag("wait", wait)
        where, swarm = _place(cluster, swarm, self.connection.session.cluster)
        compiled = self._compiled(swarm, where)
        tell(compiled.notes)
        self.connection.push(compiled.blobs)
        self._register(compiled)
        signed = self.connection.session.signed(compiled.spec)
        request = messages.SendSwarm(where, signed, wait)
        return SwarmOverview.of(self._ask(request, messages.SwarmInfo, blobs=compiled.blobs))

    def start_swarm(self, swarm: SwarmId) -> SwarmOverview:
        """Starts a swarm that was sent: it is ACTIVE. Raises NotFound, WrongState."""
        return self._swarm(messages.StartSwarm(checks.identity("swarm", swarm)))

    def stop_swarm(self, swarm: SwarmId, force: bool = False) -> SwarmOverview:
        """Stops a swarm: it is STOPPED at once, and its running tasks are asked to end.

        SIGTERM raises SystemExit in each running task, so that `finally` and `with` blocks run;
        tasks that have not ended after 5 s are killed. With `force` they are killed at once.
        """
        request = messages.StopSwarm(checks.identity("swarm", swarm), checks.flag("force", force))
        return self._swarm(request, again=True)

    def pause_swarm(self, swarm: SwarmId) -> SwarmOverview:
        """Pauses a swarm: running tasks go on, no new ones start. Raises NotFound, WrongState."""
        return self._swarm(messages.PauseSwarm(checks.identity("swarm", swarm)))

    def resume_swarm(self, swarm: SwarmId) -> SwarmOverview:
        """Resumes a paused swarm. Raises NotFound, WrongState."""
        return self._swarm(messages.ResumeSwarm(checks.identity("swarm", swarm)))

    def remove_swarm(self, swarm: SwarmId) -> None:
        """Removes a swarm that has ended, with its results and logs."""
        self._ask(messages.RemoveSwarm(checks.identity("swarm", swarm)), Ok)

    def get_swarm(self, swarm: SwarmId) -> SwarmOverview:
        """Returns a swarm as it is now. Raises NotFound, Ambiguous."""
        return self._swarm(messages.GetSwarm(checks.identity("swarm", swarm)), again=True)

    def list_swarms(self, cluster: ClusterId | None = None) -> list[SwarmOverview]:
        """Lists the swarms of one cluster, or of all that this user may see, in the order in which
        they were sent; those that have ended are included."""
        where = checks.optional_identity("cluster", cluster)
        found = self.connection.listed(
            partial(messages.ListSwarms, where),
            messages.Swarms,
            lambda page: page.swarms,
            lambda one: one.swarm_id,
        )
        return [SwarmOverview.of(swarm) for swarm in sorted(found, key=lambda one: one.created_at)]

    def list_swarm_ids(self, cluster: ClusterId | None = None) -> list[str]:
        """Lists the ids of swarms, in the order in which they were sent."""
        return [swarm.swarm_id for swarm in self.list_swarms(cluster)]

    def stream_swarms(
        self, cluster: ClusterId | None = None, *, follow: bool = False
    ) -> Iterator[SwarmOverview]:
        """Yields each swarm; with `follow`, then each one that is new or changes."""
        follow = checks.flag("follow", follow)
        where = checks.optional_identity("cluster", cluster)
        yield from self.connection.stream(
            self.list_swarms(cluster),
            partial(messages.WatchSwarms, where),
            messages.Swarms,
            lambda page: map(SwarmOverview.of, page.swarms),
            lambda one: one.swarm_id,
            follow=follow,
        )

    def stream_and_fetch_swarms(self, cluster: ClusterId | None = None) -> list[SwarmOverview]:
        """Lists the ids and fetches each swarm; those removed meanwhile are skipped."""
        ids = self.list_swarm_ids(cluster)
        return self._fetched(ids, self.get_swarm)

    def explain_swarm(self, swarm: SwarmId) -> Plan:
        """Returns where each task runs or, node by node and rule by rule, why it does not."""
        return self.connection.plan(messages.ExplainSwarm(checks.identity("swarm", swarm)))

    def wait_swarm(self, swarm: SwarmId, timeout: float | None = None) -> SwarmOverview:
        """Returns the swarm once it has ended. Raises WaitTimeout after `timeout` seconds."""
        if timeout is not None:
            timeout = checks.number("timeout", timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            wait = LONG_POLL
            if deadline is not None:
                wait = max(0.0, min(wait, deadline - time.monotonic()))
            request = messages.WaitSwarm(checks.identity("swarm", swarm), wait)
            found = self._swarm(request, again=True, wait=wait)
            if found.ended:
                return found
            if deadline is not None and time.monotonic() >= deadline:
                why = f" ({found.reason.rstrip('.')})" if found.reason else ""
                raise WaitTimeout(
                    f"Swarm {found.name!r} is still {found.status} after {timeout:g} s, in "
                    f"iteration {found.iteration}{why}: wait longer, or see explain_swarm."
                )

    def _swarm(self, message: Message, *, again: bool = False, wait: float = 0.0) -> SwarmOverview:
        answer = self._ask(message, messages.SwarmInfo, again=again, wait=wait)
        return SwarmOverview.of(answer)

    def _compiled(self, swarm: Swarm, cluster: str) -> Compiled:
        from manta.apis.compile import spec

        prepared = in_thread(lambda: spec.prepare(swarm))
        registered = self._registered(prepared.wanted, cluster)
        return in_thread(lambda: spec.finish(prepared, registered))

    def _registered(self, wanted: Iterable[Wanted], cluster: str) -> dict[Wanted, Known | str]:
        """Looks these up in the registry of modules; a text says why it has nothing that fits."""
        found: dict[Wanted, Known | str] = {}
        for name in wanted:
            request = users.ResolveModule(name.name, name.version, cluster)
            try:
                info = self._ask(request, users.ModuleInfo, again=True)
                found[name] = self._known(info.spec)
            except NotFound as error:
                if error.code == Code.UNKNOWN_CLUSTER:
                    raise
                found[name] = f"the registry of modules ({_there(error)})"
            except Forbidden:
                found[name] = "the registry of modules (which you may not read)"
        return found

    def _known(self, spec: ModuleSpec) -> Known:
        """Reads the source of a registered module, unless its package is large."""
        from manta.apis.compile.spec import known

        if spec.package is None or spec.package.size > READ_PACKAGE:
            return known(spec, None)
        (load,) = self.connection.fetch([spec.package])
        return known(spec, load)

    def _check_versions(self, versioned: Iterable[ModuleSpec]) -> None:
        """Raises NameTaken if sending these modules would."""
        for spec in versioned:
            request = users.ResolveModule(spec.name, spec.version)
            try:
                known = self._ask(request, users.ModuleInfo, again=True)
            except (NotFound, Forbidden):
                continue
            if known.spec != spec:
                assert spec.version is not None
                raise NameTaken(versions.taken(spec.name, spec.version), Code.VERSION_TAKEN)

    def _register(self, compiled: Compiled) -> None:
        """Registers modules that were pushed; from now on their versions never change."""
        for spec in compiled.versioned:
            request = users.SendModule(spec)
            self._ask(request, users.ModuleInfo, again=True, blobs=compiled.blobs)


def _place(cluster: Any, swarm: Any, default: str | None) -> tuple[str, Any]:
    """Returns cluster and swarm of either form of `deploy_swarm`."""
    from manta.apis.swarm import Swarm, definition_of

    if swarm is not None:
        if isinstance(cluster, Swarm):
            raise InvalidArgument("The swarm comes last: give the cluster, then the swarm.")
        return checks.identity("cluster", cluster), swarm
    definition = definition_of(cluster)
    if (where := definition.cluster or default) is None:
        raise InvalidArgument(
            f"Swarm {definition.name!r} has no cluster: give one, deploy_swarm(cluster, swarm), "
            "or call swarm.set_cluster(cluster) first."
        )
    return where, cluster


def _there(error: NotFound) -> str:
    there = error.data.get("versions")
    if there is None:
        near = error.data.get("nearest")
        return "none of that name" if near is None else f"none of that name; the nearest is {near}"
    return f"it has {', '.join(there)}" if there else "it has none with a version"
