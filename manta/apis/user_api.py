"""What a user asks of a manager.

Generated from `async_user_api.py` by `make generate`: do not edit.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from manta.apis import checks, profiles
from manta.apis.accounts import Accounts
from manta.apis.bridge import in_thread
from manta.apis.connection import LONG_POLL, Connection, Reply
from manta.apis.errors import InvalidArgument, NotFound, WaitTimeout
from manta.apis.listings import Listings
from manta.apis.modules import Modules
from manta.apis.overviews import (
    ClusterOverview,
    ErrorOverview,
    EventOverview,
    LogOverview,
    MetricsOverview,
    NodeOverview,
    SwarmOverview,
    TaskOverview,
)
from manta.apis.results import Result, Results
from manta.apis.session import Session
from manta.protocol import clusters, sign_in
from manta.protocol import user as messages
from manta.protocol.node import Ok
from manta.protocol.tree import Tree
from manta.protocol.user import EventItem, LogItem, MetricsItem, Plan, ResultItem, TaskInfo

if TYPE_CHECKING:
    from manta.apis.compiler import Compiled
    from manta.apis.swarm import Swarm
    from manta.protocol.node import Message

Cluster = str | ClusterOverview
Node = str | NodeOverview
SwarmId = str | SwarmOverview


class UserAPI(Listings, Modules, Accounts):
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
        self.connection = Connection(
            Session(target, profiles.user_key(profiles.home(), target.profile))
        )

    @classmethod
    def over(cls, session: Session) -> Self:
        """An API over a session that is made already; it closes it."""
        api = cls.__new__(cls)
        api.connection = Connection(session)
        return api

    @classmethod
    def sign_in(
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
            who = api.connection.sign_in(sign_in.SignIn(email, password))
        except BaseException:
            api.close()
            raise
        profiles.remember(target, who.email, who.token)
        return api

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up; the object cannot be used again."""
        self.connection.close()

    # --- clusters ----------------------------------------------------------------------------

    def create_cluster(self, name: str) -> ClusterOverview:
        """A new cluster, started. Raises NameTaken."""
        return self._cluster(clusters.CreateCluster(checks.name("name", name)))

    def list_clusters(self) -> list[ClusterOverview]:
        """Those that this user may see, in order of creation."""
        answer = self._ask(clusters.ListClusters(), clusters.Clusters, again=True)
        return [ClusterOverview.of(cluster) for cluster in answer.clusters]

    def get_cluster(self, cluster: Cluster) -> ClusterOverview:
        """Raises NotFound, and Ambiguous for a beginning that fits several."""
        return self._cluster(clusters.GetCluster(checks.identity("cluster", cluster)), again=True)

    def start_cluster(self, cluster: Cluster) -> ClusterOverview:
        """Let tasks be placed in it again. Raises NotFound."""
        return self._cluster(clusters.StartCluster(checks.identity("cluster", cluster)))

    def stop_cluster(self, cluster: Cluster) -> ClusterOverview:
        """Nothing is placed in it until it is started again; its swarms are stopped."""
        return self._cluster(clusters.StopCluster(checks.identity("cluster", cluster)))

    def delete_cluster(self, cluster: Cluster) -> None:
        """Forget a cluster with its nodes and swarms; it must be stopped.

        Raises NotFound, WrongState.
        """
        self._ask(clusters.DeleteCluster(checks.identity("cluster", cluster)), Ok)

    def create_node_token(self, cluster: Cluster, uses: int = 1, ttl: float = 900) -> str:
        """A token with which `uses` nodes can enrol within `ttl` seconds."""
        checks.integer("uses", uses, 1, 10_000)
        request = clusters.CreateNodeToken(
            checks.identity("cluster", cluster), uses, checks.seconds("ttl", ttl)
        )
        return (self._ask(request, clusters.Token)).token

    # --- nodes -------------------------------------------------------------------------------

    def list_nodes(self, cluster: Cluster) -> list[NodeOverview]:
        """Those that have enrolled in the cluster, connected or not, by alias. Raises NotFound."""
        request = partial(clusters.ListNodes, checks.identity("cluster", cluster))
        found = self.connection.listed(
            request, clusters.Nodes, lambda page: page.nodes, lambda one: one.id
        )
        return [NodeOverview.of(node) for node in sorted(found, key=lambda one: one.alias)]

    def get_node(self, node: Node, cluster: Cluster | None = None) -> NodeOverview:
        """By id, a unique beginning of it, or alias; aliases are unique within a `cluster`.

        Raises NotFound, Ambiguous.
        """
        where = None if cluster is None else checks.identity("cluster", cluster)
        request = clusters.GetNode(checks.identity("node", node), where)
        return NodeOverview.of(self._ask(request, clusters.NodeInfo, again=True))

    def stop_node(self, node: Node, drain: bool = False) -> None:
        """End the node's daemon; with `drain`, once its running tasks have finished."""
        self._ask(
            clusters.RequestNodeStop(checks.identity("node", node), checks.flag("drain", drain)), Ok
        )

    def get_tree(self, node: Node | None = None) -> Tree:
        """The supervision tree of the manager, or of a node; for administrators.

        `.actors`: path, actor, state, restarts, last_exit, waiting and seconds of each.
        """
        request = messages.GetTree(None if node is None else checks.identity("node", node))
        return self._ask(request, Tree, again=True)

    def remove_node(self, node: Node) -> None:
        """Forget the node and its key; it can come back only with a new token."""
        self._ask(clusters.RemoveNode(checks.identity("node", node)), Ok)

    # --- swarms ------------------------------------------------------------------------------

    def check_swarm(self, cluster: Cluster, swarm: Swarm) -> Plan:
        """What would be placed where, or why not; nothing is deployed."""
        compiled = self._compiled(swarm)
        self._check_versions(compiled.versioned)
        request = messages.CheckSwarm(checks.identity("cluster", cluster), compiled.spec)
        return self.connection.plan(request)

    def deploy_swarm(
        self, cluster: Cluster | Swarm, swarm: Swarm | None = None, *, wait: bool = False
    ) -> SwarmOverview:
        """Send a swarm and start it: `deploy_swarm(cluster, swarm)`, or `deploy_swarm(swarm)`
        after `swarm.set_cluster(cluster)`.

        Raises InvalidSwarm, and Unplaceable unless it may `wait` for nodes.
        """
        sent = self.send_swarm(cluster, swarm, wait=wait)
        return self.start_swarm(sent)

    def send_swarm(
        self, cluster: Cluster | Swarm, swarm: Swarm | None = None, *, wait: bool = False
    ) -> SwarmOverview:
        """Send a swarm to a cluster without starting it: it is PENDING.

        Its modules that have a version are registered. Raises NameTaken when other content has
        the name and version of one.
        """
        checks.flag("wait", wait)
        where, swarm = _place(cluster, swarm)
        compiled = self._compiled(swarm)
        self.connection.push(compiled.blobs)
        self._register(compiled.versioned)
        return self._swarm(messages.SendSwarm(where, compiled.spec, wait))

    def start_swarm(self, swarm: SwarmId) -> SwarmOverview:
        """Start a swarm that was sent: it is ACTIVE. Raises NotFound, WrongState."""
        return self._swarm(messages.StartSwarm(checks.identity("swarm", swarm)))

    def stop_swarm(self, swarm: SwarmId, force: bool = False) -> SwarmOverview:
        """End a swarm: it is STOPPED at once, and what still runs is asked to end.

        In each running task SystemExit is raised (SIGTERM), so that `finally` and `with` are
        run; what has not ended after 5 s is killed. With `force` nothing is asked: all is killed
        at once.
        """
        request = messages.StopSwarm(checks.identity("swarm", swarm), checks.flag("force", force))
        return self._swarm(request, again=True)

    def pause_swarm(self, swarm: SwarmId) -> SwarmOverview:
        """What runs goes on, nothing new is started."""
        return self._swarm(messages.PauseSwarm(checks.identity("swarm", swarm)))

    def resume_swarm(self, swarm: SwarmId) -> SwarmOverview:
        """Let a paused swarm go on. Raises NotFound, WrongState."""
        return self._swarm(messages.ResumeSwarm(checks.identity("swarm", swarm)))

    def remove_swarm(self, swarm: SwarmId) -> None:
        """Forget a swarm that has ended, with its results and logs."""
        self._ask(messages.RemoveSwarm(checks.identity("swarm", swarm)), Ok)

    def get_swarm(self, swarm: SwarmId) -> SwarmOverview:
        """How the swarm stands now. Raises NotFound, Ambiguous."""
        return self._swarm(messages.GetSwarm(checks.identity("swarm", swarm)), again=True)

    def list_swarms(self, cluster: Cluster | None = None) -> list[SwarmOverview]:
        """Those of one cluster, or of all that this user may see, ended ones included; in the
        order in which they were sent."""
        where = None if cluster is None else checks.identity("cluster", cluster)
        found = self.connection.listed(
            partial(messages.ListSwarms, where),
            messages.Swarms,
            lambda page: page.swarms,
            lambda one: one.swarm_id,
        )
        return [SwarmOverview.of(swarm) for swarm in sorted(found, key=lambda one: one.created_at)]

    def get_tasks(self, swarm: SwarmId, iteration: int | None = None) -> list[TaskOverview]:
        """Every attempt of every task, of one iteration or of all."""
        tasks = self._tasks(swarm, iteration)
        outputs = self.connection.fetch(task.output for task in tasks)
        return [TaskOverview.of(task, load()) for task, load in zip(tasks, outputs, strict=True)]

    def explain_swarm(self, swarm: SwarmId) -> Plan:
        """Where each task runs or, node by node and rule by rule, why it does not."""
        return self.connection.plan(messages.ExplainSwarm(checks.identity("swarm", swarm)))

    def wait_swarm(self, swarm: SwarmId, timeout: float | None = None) -> SwarmOverview:
        """The swarm, once it has ended. Raises WaitTimeout after `timeout` seconds."""
        if timeout is not None:
            checks.number("timeout", timeout)
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
                raise WaitTimeout(
                    f"Swarm {found.name!r} is still {found.status} after {timeout:g} s, in "
                    f"iteration {found.iteration}: wait longer, or see explain_swarm."
                )

    def stream_events(self, swarm: SwarmId) -> Iterator[EventOverview]:
        """What happens to the swarm, from its beginning to its end."""
        for item in self.connection.items(checks.identity("swarm", swarm), "events", follow=True):
            assert isinstance(item, EventItem)
            yield EventOverview.of(item)

    # --- results, globals, metrics -----------------------------------------------------------

    def get_swarm_results(
        self, swarm: SwarmId, tag: str | None = None, wait: bool = False
    ) -> Results:
        """The results so far or, with `wait`, once the swarm has ended.

        Raises NotFound when a swarm that has ended has none of that tag.
        """
        checks.flag("wait", wait)
        tag = _tag(tag)
        found: list[Result] = []
        tags: set[str] = set()
        name = checks.identity("swarm", swarm)
        ended = False
        for page in self.connection.pages(name, "results", follow=wait):
            items = [item for item in page.items if isinstance(item, ResultItem)]
            tags |= {item.tag for item in items}
            wanted = [item for item in items if tag is None or item.tag == tag]
            found += self._results(wanted)
            ended = page.ended
        if tag is not None and ended and not found:
            there = f"it has {', '.join(sorted(tags))}" if tags else "it has no results at all"
            raise NotFound(f"Swarm {name} has no results of tag {tag!r}: {there}.")
        return Results(found)

    def select_results(self, swarm: SwarmId, tag: str) -> Results:
        """The results of one tag so far. Raises NotFound when there are none."""
        found = self.get_swarm_results(swarm, checks.name("tag", tag))
        if not found:
            raise NotFound(
                f"Swarm {checks.identity('swarm', swarm)} has no results of tag {tag!r} yet: "
                "list_result_tags says what there is."
            )
        return found

    def stream_results(self, swarm: SwarmId, tag: str | None = None) -> Iterator[Result]:
        """Each result, from the first on, until the swarm has ended."""
        name = checks.identity("swarm", swarm)
        for page in self.connection.pages(name, "results", tag=_tag(tag), follow=True):
            items = [item for item in page.items if isinstance(item, ResultItem)]
            yield from self._results(items)

    def list_result_tags(self, swarm: SwarmId) -> list[str]:
        """The tags under which there are results so far, in order of appearance."""
        tags: dict[str, None] = {}
        for item in self.connection.items(checks.identity("swarm", swarm), "results", follow=False):
            assert isinstance(item, ResultItem)
            tags[item.tag] = None
        return list(tags)

    def delete_results(
        self, swarm: SwarmId, tag: str | None = None, iteration: int | None = None
    ) -> int:
        """Delete the results of one tag, one iteration, or both, or all; how many they were.

        Nobody reads them any more, neither users nor tasks. The swarm may run meanwhile: what
        it writes afterwards is kept. Raises NotFound for a tag of which there are none.
        """
        if tag is not None:
            checks.name("tag", tag)
        if iteration is not None:
            checks.integer("iteration", iteration, 0)
        request = messages.DeleteResults(checks.identity("swarm", swarm), tag, iteration)
        return (self._ask(request, messages.DeletedResults)).count

    def select_global(self, swarm: SwarmId, tag: str) -> Any:
        """The value of a global now. Raises NotFound."""
        request = messages.SelectGlobal(checks.identity("swarm", swarm), checks.name("tag", tag))
        answer = self._ask(request, messages.SelectedGlobal, again=True)
        if answer.value is None:
            tags = self.list_global_tags(swarm)
            there = f"it has {', '.join(tags)}" if tags else "it has no globals at all"
            raise NotFound(
                f"Swarm {checks.identity('swarm', swarm)} has no global {tag!r}: {there}."
            )
        (load,) = self.connection.fetch([answer.value])
        return load()

    def set_global(self, swarm: SwarmId, tag: str, value: Any) -> None:
        """Write a global; tasks that read it from now on see this value."""
        from manta.apis.compiler import payload

        checks.name("tag", tag)
        blobs: dict[str, Any] = {}
        sent = in_thread(lambda: payload(value, blobs, f"The global {tag!r}"))
        self.connection.push(blobs)
        self._ask(messages.SetGlobal(checks.identity("swarm", swarm), tag, sent), Ok, again=True)

    def list_global_tags(self, swarm: SwarmId) -> list[str]:
        """The tags of the swarm's globals."""
        request = messages.ListGlobalTags(checks.identity("swarm", swarm))
        return list((self._ask(request, messages.GlobalTags, again=True)).tags)

    def get_metrics(self, swarm: SwarmId) -> list[MetricsOverview]:
        """What tasks gave to `world.log_metrics` so far."""
        return list(self._metrics(swarm, follow=False))

    def stream_metrics(self, swarm: SwarmId) -> Iterator[MetricsOverview]:
        """The same as it comes, until the swarm has ended."""
        yield from self._metrics(swarm, follow=True)

    # --- logs and errors ---------------------------------------------------------------------

    def collect_logs(
        self, swarm: SwarmId, node: Node | None = None, task: str | None = None
    ) -> list[LogOverview]:
        """What tasks wrote so far, of one node (id or alias) or task (alias) or of all.

        Raises NotFound for a node or task that there is not.
        """
        return list(self._logs(swarm, node, task, follow=False))

    def stream_logs(
        self, swarm: SwarmId, node: Node | None = None, task: str | None = None
    ) -> Iterator[LogOverview]:
        """The same as it comes, until the swarm has ended."""
        yield from self._logs(swarm, node, task, follow=True)

    def collect_errors(self, swarm: SwarmId) -> list[ErrorOverview]:
        """Why attempts failed, with traceback and last lines."""
        tasks = self._tasks(swarm, None)
        return [ErrorOverview.of(task, task.error) for task in tasks if task.error is not None]

    # --- shared ------------------------------------------------------------------------------

    def _ask(
        self, message: Message, reply: type[Reply], *, again: bool = False, wait: float = 0.0
    ) -> Reply:
        return self.connection.ask(message, reply, again=again, wait=wait)

    def _cluster(self, message: Message, *, again: bool = False) -> ClusterOverview:
        answer = self._ask(message, clusters.ClusterInfo, again=again)
        return ClusterOverview.of(answer)

    def _swarm(self, message: Message, *, again: bool = False, wait: float = 0.0) -> SwarmOverview:
        answer = self._ask(message, messages.SwarmInfo, again=again, wait=wait)
        return SwarmOverview.of(answer)

    def _compiled(self, swarm: Swarm) -> Compiled:
        from manta.apis import compiler

        prepared = in_thread(lambda: compiler.prepare(swarm))
        registered = self._registered(prepared.wanted)
        return in_thread(lambda: compiler.finish(prepared, registered))

    def _tasks(self, swarm: SwarmId, iteration: int | None) -> tuple[TaskInfo, ...]:
        if iteration is not None:
            checks.integer("iteration", iteration, 0)
        tasks: tuple[TaskInfo, ...] = ()
        more = True
        while more:
            request = messages.GetTasks(checks.identity("swarm", swarm), iteration, len(tasks))
            page = self._ask(request, messages.Tasks, again=True)
            tasks, more = tasks + page.tasks, page.more
        return tasks

    def _results(self, items: list[ResultItem]) -> list[Result]:
        loads = self.connection.fetch(item.value for item in items)
        return [Result.of(item, load) for item, load in zip(items, loads, strict=True)]

    def _metrics(self, swarm: SwarmId, *, follow: bool) -> Iterator[MetricsOverview]:
        for item in self.connection.items(
            checks.identity("swarm", swarm), "metrics", follow=follow
        ):
            assert isinstance(item, MetricsItem)
            yield MetricsOverview.of(item)

    def _logs(
        self, swarm: SwarmId, node: Node | None, task: str | None, *, follow: bool
    ) -> Iterator[LogOverview]:
        name = checks.identity("swarm", swarm)
        of = {
            "node": None if node is None else checks.identity("node", node),
            "task": None if task is None else checks.name("task", task),
        }
        for page in self.connection.pages(name, "logs", follow=follow, **of):
            for item in page.items:
                assert isinstance(item, LogItem)
                yield LogOverview.of(item)


def _tag(tag: object) -> str | None:
    return None if tag is None else checks.name("tag", tag)


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


if TYPE_CHECKING:
    from manta.apis.async_user_api import AsyncUserAPI as AsyncUserAPI


def __getattr__(name: str) -> object:
    """The other API, which costs asyncio, where it is asked for."""
    if name == "AsyncUserAPI":
        from manta.apis import async_user_api

        return async_user_api.AsyncUserAPI
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
