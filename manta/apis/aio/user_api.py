"""What a user asks of a manager."""

from __future__ import annotations

import time
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from manta.apis import checks
from manta.apis.aio.accounts import AsyncAccounts
from manta.apis.aio.connection import LONG_POLL, AsyncConnection, Reply
from manta.apis.aio.listings import AsyncListings
from manta.apis.aio.modules import AsyncModules
from manta.apis.aio.outputs import AsyncOutputs
from manta.apis.connect import profiles
from manta.apis.connect.async_bridge import in_thread
from manta.apis.connect.session import Session
from manta.apis.errors import InvalidArgument, WaitTimeout
from manta.apis.overviews import ClusterOverview, NodeOverview, SwarmOverview
from manta.protocol import clusters, sign_in
from manta.protocol import user as messages
from manta.protocol.node import Ok
from manta.protocol.tree import Tree
from manta.protocol.user import Plan

if TYPE_CHECKING:
    from manta.apis.compile.compiler import Compiled
    from manta.apis.swarm import Swarm
    from manta.protocol.node import Message

Cluster = str | ClusterOverview
Node = str | NodeOverview
SwarmId = str | SwarmOverview


class AsyncUserAPI(AsyncListings, AsyncOutputs, AsyncModules, AsyncAccounts):
    """A user's way to a manager.

    Clusters, nodes and swarms are given as an overview, an id, a unique beginning of one, or
    (clusters, nodes) a name. A token carries the manager's public key and is bound, at its
    first use, to a key made under `~/.manta`. An argument wins over `MANTA_TOKEN`,
    `MANTA_HOST` and `MANTA_PORT`, these over the profile, this over localhost and 50052.

    All methods raise ConnectionFailed when the manager cannot be talked to and RequestRefused
    when it says no; both have kinds that tell what is the matter (`manta.apis.errors`).
    """

    def __init__(
        self,
        token: str | None = None,
        host: str | None = None,
        port: int | None = None,
        profile: str | None = None,
    ) -> None:
        target = profiles.resolve(token, host, port, profile)
        self.connection = AsyncConnection(
            Session(target, profiles.user_key(profiles.home(), target.profile))
        )

    @classmethod
    def over(cls, session: Session) -> Self:
        """An API over a session that is made already; it closes it."""
        api = cls.__new__(cls)
        api.connection = AsyncConnection(session)
        return api

    @classmethod
    async def sign_in(
        cls,
        email: str,
        password: str,
        host: str | None = None,
        port: int | None = None,
        profile: str | None = None,
        server_key: str | None = None,
    ) -> Self:
        """Sign in, remember it under the profile, and return the API.

        `server_key` is the manager's public key, needed the first time unless the manager runs
        on this machine. Raises NotAuthenticated for a wrong email or password.
        """
        target, keys = profiles.for_sign_in(host, port, profile, server_key)
        api = cls.over(Session(target, keys))
        try:
            who = await api.connection.sign_in(sign_in.SignIn(email, password))
        except BaseException:
            await api.close()
            raise
        profiles.remember(target, who.email, who.token)
        return api

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Hang up; the object cannot be used again."""
        await self.connection.close()

    # --- clusters ----------------------------------------------------------------------------

    async def create_cluster(self, name: str) -> ClusterOverview:
        """A new cluster, started. Raises NameTaken."""
        return await self._cluster(clusters.CreateCluster(checks.name("name", name)))

    async def list_clusters(self) -> list[ClusterOverview]:
        """Those that this user may see, in order of creation."""
        found = await self.connection.listed(
            clusters.ListClusters, clusters.Clusters, lambda page: page.clusters, lambda one: one.id
        )
        return [ClusterOverview.of(one) for one in sorted(found, key=lambda one: one.created_at)]

    async def get_cluster(self, cluster: Cluster) -> ClusterOverview:
        """Raises NotFound, and Ambiguous for a beginning that fits several."""
        return await self._cluster(
            clusters.GetCluster(checks.identity("cluster", cluster)), again=True
        )

    async def start_cluster(self, cluster: Cluster) -> ClusterOverview:
        """Let tasks be placed in it again. Raises NotFound."""
        return await self._cluster(clusters.StartCluster(checks.identity("cluster", cluster)))

    async def stop_cluster(self, cluster: Cluster) -> ClusterOverview:
        """Nothing is placed in it until it is started again; its swarms are stopped."""
        return await self._cluster(clusters.StopCluster(checks.identity("cluster", cluster)))

    async def delete_cluster(self, cluster: Cluster) -> None:
        """Forget a cluster with its nodes and swarms; it must be stopped.

        Raises NotFound, WrongState.
        """
        await self._ask(clusters.DeleteCluster(checks.identity("cluster", cluster)), Ok)

    async def create_node_token(self, cluster: Cluster, uses: int = 1, ttl: float = 900) -> str:
        """A token with which `uses` nodes can enrol within `ttl` seconds."""
        checks.integer("uses", uses, 1, 10_000)
        request = clusters.CreateNodeToken(
            checks.identity("cluster", cluster), uses, checks.seconds("ttl", ttl)
        )
        return (await self._ask(request, clusters.Token)).token

    # --- nodes -------------------------------------------------------------------------------

    async def list_nodes(self, cluster: Cluster) -> list[NodeOverview]:
        """Those that have enrolled in the cluster, connected or not, by alias. Raises NotFound."""
        request = partial(clusters.ListNodes, checks.identity("cluster", cluster))
        found = await self.connection.listed(
            request, clusters.Nodes, lambda page: page.nodes, lambda one: one.id
        )
        return [NodeOverview.of(node) for node in sorted(found, key=lambda one: one.alias)]

    async def get_node(self, node: Node, cluster: Cluster | None = None) -> NodeOverview:
        """By id, a unique beginning of it, or alias; aliases are unique within a `cluster`.

        Raises NotFound, Ambiguous.
        """
        where = None if cluster is None else checks.identity("cluster", cluster)
        request = clusters.GetNode(checks.identity("node", node), where)
        return NodeOverview.of(await self._ask(request, clusters.NodeInfo, again=True))

    async def stop_node(self, node: Node, drain: bool = False) -> None:
        """End the node's daemon; with `drain`, once its running tasks have finished."""
        await self._ask(
            clusters.RequestNodeStop(checks.identity("node", node), checks.flag("drain", drain)), Ok
        )

    async def get_tree(self, node: Node | None = None) -> Tree:
        """The supervision tree of the manager, or of a node; for administrators.

        `.actors`: path, actor, state, restarts, last_exit, waiting and seconds of each.
        """
        request = partial(messages.GetTree, None if node is None else checks.identity("node", node))
        actors = await self.connection.listed(
            request, Tree, lambda page: page.actors, lambda one: one.path
        )
        return Tree(tuple(actors))

    async def remove_node(self, node: Node) -> None:
        """Forget the node and its key; it can come back only with a new token."""
        await self._ask(clusters.RemoveNode(checks.identity("node", node)), Ok)

    # --- swarms ------------------------------------------------------------------------------

    async def check_swarm(self, cluster: Cluster, swarm: Swarm) -> Plan:
        """What would be placed where, or why not; nothing is deployed."""
        compiled = await self._compiled(swarm)
        await self._check_versions(compiled.versioned)
        request = messages.CheckSwarm(checks.identity("cluster", cluster), compiled.spec)
        return await self.connection.plan(request)

    async def deploy_swarm(
        self, cluster: Cluster | Swarm, swarm: Swarm | None = None, *, wait: bool = False
    ) -> SwarmOverview:
        """Send a swarm and start it: `deploy_swarm(cluster, swarm)`, or `deploy_swarm(swarm)`
        after `swarm.set_cluster(cluster)`.

        Raises InvalidSwarm, and Unplaceable unless it may `wait` for nodes.
        """
        sent = await self.send_swarm(cluster, swarm, wait=wait)
        return await self.start_swarm(sent)

    async def send_swarm(
        self, cluster: Cluster | Swarm, swarm: Swarm | None = None, *, wait: bool = False
    ) -> SwarmOverview:
        """Send a swarm to a cluster without starting it: it is PENDING.

        Its modules that have a version are registered. Raises NameTaken when other content has
        the name and version of one.
        """
        checks.flag("wait", wait)
        where, swarm = _place(cluster, swarm)
        compiled = await self._compiled(swarm)
        await self.connection.push(compiled.blobs)
        await self._register(compiled.versioned)
        return await self._swarm(messages.SendSwarm(where, compiled.spec, wait))

    async def start_swarm(self, swarm: SwarmId) -> SwarmOverview:
        """Start a swarm that was sent: it is ACTIVE. Raises NotFound, WrongState."""
        return await self._swarm(messages.StartSwarm(checks.identity("swarm", swarm)))

    async def stop_swarm(self, swarm: SwarmId, force: bool = False) -> SwarmOverview:
        """End a swarm: it is STOPPED at once, and what still runs is asked to end.

        In each running task SystemExit is raised (SIGTERM), so that `finally` and `with` are
        run; what has not ended after 5 s is killed. With `force` nothing is asked: all is killed
        at once.
        """
        request = messages.StopSwarm(checks.identity("swarm", swarm), checks.flag("force", force))
        return await self._swarm(request, again=True)

    async def pause_swarm(self, swarm: SwarmId) -> SwarmOverview:
        """What runs goes on, nothing new is started."""
        return await self._swarm(messages.PauseSwarm(checks.identity("swarm", swarm)))

    async def resume_swarm(self, swarm: SwarmId) -> SwarmOverview:
        """Let a paused swarm go on. Raises NotFound, WrongState."""
        return await self._swarm(messages.ResumeSwarm(checks.identity("swarm", swarm)))

    async def remove_swarm(self, swarm: SwarmId) -> None:
        """Forget a swarm that has ended, with its results and logs."""
        await self._ask(messages.RemoveSwarm(checks.identity("swarm", swarm)), Ok)

    async def get_swarm(self, swarm: SwarmId) -> SwarmOverview:
        """How the swarm stands now. Raises NotFound, Ambiguous."""
        return await self._swarm(messages.GetSwarm(checks.identity("swarm", swarm)), again=True)

    async def list_swarms(self, cluster: Cluster | None = None) -> list[SwarmOverview]:
        """Those of one cluster, or of all that this user may see, ended ones included; in the
        order in which they were sent."""
        where = None if cluster is None else checks.identity("cluster", cluster)
        found = await self.connection.listed(
            partial(messages.ListSwarms, where),
            messages.Swarms,
            lambda page: page.swarms,
            lambda one: one.swarm_id,
        )
        return [SwarmOverview.of(swarm) for swarm in sorted(found, key=lambda one: one.created_at)]

    async def explain_swarm(self, swarm: SwarmId) -> Plan:
        """Where each task runs or, node by node and rule by rule, why it does not."""
        return await self.connection.plan(messages.ExplainSwarm(checks.identity("swarm", swarm)))

    async def wait_swarm(self, swarm: SwarmId, timeout: float | None = None) -> SwarmOverview:
        """The swarm, once it has ended. Raises WaitTimeout after `timeout` seconds."""
        if timeout is not None:
            timeout = checks.number("timeout", timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            wait = LONG_POLL
            if deadline is not None:
                wait = max(0.0, min(wait, deadline - time.monotonic()))
            request = messages.WaitSwarm(checks.identity("swarm", swarm), wait)
            found = await self._swarm(request, again=True, wait=wait)
            if found.ended:
                return found
            if deadline is not None and time.monotonic() >= deadline:
                raise WaitTimeout(
                    f"Swarm {found.name!r} is still {found.status} after {timeout:g} s, in "
                    f"iteration {found.iteration}: wait longer, or see explain_swarm."
                )

    # --- shared ------------------------------------------------------------------------------

    async def _ask(
        self, message: Message, reply: type[Reply], *, again: bool = False, wait: float = 0.0
    ) -> Reply:
        return await self.connection.ask(message, reply, again=again, wait=wait)

    async def _cluster(self, message: Message, *, again: bool = False) -> ClusterOverview:
        answer = await self._ask(message, clusters.ClusterInfo, again=again)
        return ClusterOverview.of(answer)

    async def _swarm(
        self, message: Message, *, again: bool = False, wait: float = 0.0
    ) -> SwarmOverview:
        answer = await self._ask(message, messages.SwarmInfo, again=again, wait=wait)
        return SwarmOverview.of(answer)

    async def _compiled(self, swarm: Swarm) -> Compiled:
        from manta.apis.compile import compiler

        prepared = await in_thread(lambda: compiler.prepare(swarm))
        registered = await self._registered(prepared.wanted)
        return await in_thread(lambda: compiler.finish(prepared, registered))


def _place(cluster: Any, swarm: Any) -> tuple[str, Any]:
    """The two forms of `deploy_swarm`."""
    from manta.apis.swarm import Swarm, definition_of

    if swarm is not None:
        if isinstance(cluster, Swarm):
            raise InvalidArgument("The swarm comes last: give the cluster, then the swarm.")
        return checks.identity("cluster", cluster), swarm
    definition = definition_of(cluster)
    if definition.cluster is None:
        raise InvalidArgument(
            f"Swarm {definition.name!r} has no cluster: give one, deploy_swarm(cluster, swarm), "
            "or call swarm.set_cluster(cluster) first."
        )
    return definition.cluster, cluster
