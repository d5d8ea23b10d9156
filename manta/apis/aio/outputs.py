"""What a swarm produces: tasks, events, results, globals, metrics, logs and errors."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from typing import Any, Literal

from manta.apis import checks
from manta.apis.aio.client import AsyncClient
from manta.apis.aio.waiting import in_thread, pause
from manta.apis.errors import NotFound
from manta.apis.failures import StacksOverview, TaskExplanation, TaskId, meant_of, task_name
from manta.apis.lineage import Lineage, Written, lineage, not_written
from manta.apis.metrics import Metrics
from manta.apis.overviews import (
    ErrorOverview,
    EventOverview,
    LogOverview,
    MetricsOverview,
    NodeId,
    SwarmId,
    TaskOverview,
)
from manta.apis.results import Result, Results
from manta.protocol import user as messages
from manta.protocol.names import meant
from manta.protocol.node import Ok
from manta.protocol.user import EventItem, LogItem, MetricsItem, ResultItem, TaskInfo
from manta.protocol.values import BlobRef

Attempts = Literal["counting", "all"]

STACKS = 10.0
"""Seconds that an attempt's stacks may take."""
AGAIN = 0.5
"""Seconds until it is asked again for a result that is on its way."""


class AsyncOutputs(AsyncClient):
    """A swarm is given as an overview, an id, or a unique beginning of one."""

    # --- tasks and events --------------------------------------------------------------------

    async def get_tasks(self, swarm: SwarmId, iteration: int | None = None) -> list[TaskOverview]:
        """Lists every attempt of every task, of one iteration or of all."""
        tasks = await self._tasks(swarm, iteration)
        outputs = await self.connection.fetch(task.output for task in tasks)
        return [TaskOverview.of(task, load()) for task, load in zip(tasks, outputs, strict=True)]

    async def stream_events(self, swarm: SwarmId) -> AsyncIterator[EventOverview]:
        """Yields what happens to the swarm, from its start to its end."""
        name = checks.identity("swarm", swarm)
        async for item in self.connection.items(name, EventItem, follow=True):
            yield EventOverview.of(item)

    # --- results, globals, metrics -----------------------------------------------------------

    async def get_swarm_results(
        self,
        swarm: SwarmId,
        tag: str | None = None,
        wait: bool = False,
        *,
        attempts: Attempts = "counting",
    ) -> Results:
        """Returns the results so far or, with `wait`, once the swarm has ended.

        What failed attempts wrote is left out, as it is in tasks; `attempts="all"` includes it,
        with `counts` False. Raises NotFound when a swarm that has ended has none with that tag.
        """
        whole = _whole(attempts)
        tag = checks.optional_name("tag", tag)
        found: list[Result] = []
        tags: set[str] = set()
        left_out = 0
        name = checks.identity("swarm", swarm)
        ended = False
        if checks.flag("wait", wait):
            await self.connection.end_of(name)
        async for page in self.connection.pages(name, "results", follow=False):
            items = [item for item in page.items if isinstance(item, ResultItem)]
            wanted = [item for item in items if item.counts or whole]
            tags |= {item.tag for item in wanted}
            left_out += sum(not item.counts and item.tag == tag for item in items)
            found += await self._results(
                name, [item for item in wanted if tag is None or item.tag == tag]
            )
            ended = page.ended
        if tag is not None and ended and not found:
            there = f"it has {', '.join(sorted(tags))}" if tags else "it has no results at all"
            if left_out:
                there = f'only failed attempts wrote it (attempts="all" returns {left_out})'
            raise NotFound(
                f"Swarm {name} has no results of tag {tag!r}: {there}." + meant(tag, tags)
            )
        return Results(found)

    async def select_results(
        self, swarm: SwarmId, tag: str, *, attempts: Attempts = "counting"
    ) -> Results:
        """Returns the results of one tag so far; `attempts` as in `get_swarm_results`.

        Raises NotFound when there are none.
        """
        tag = checks.name("tag", tag)
        found = await self.get_swarm_results(swarm, tag, attempts=attempts)
        if not found:
            tags = await self.list_result_tags(swarm, attempts=attempts)
            there = f"it has {', '.join(tags)}" if tags else "it has no results so far"
            raise NotFound(
                f"Swarm {checks.identity('swarm', swarm)} has no results of tag {tag!r} yet: "
                f"{there}." + meant(tag, tags)
            )
        return found

    async def stream_results(
        self, swarm: SwarmId, tag: str | None = None, *, attempts: Attempts = "counting"
    ) -> AsyncIterator[Result]:
        """Yields each result, from the first, until the swarm ends.

        A result comes once the attempt that wrote it has ended well, since only then it counts.
        With `attempts="all"` each comes as soon as it is written, whatever becomes of its attempt.
        """
        name, whole = checks.identity("swarm", swarm), _whole(attempts)
        tag = checks.optional_name("tag", tag)
        async for page in self.connection.pages(
            name, "results", tag=tag, settled=not whole, follow=True
        ):
            items = [item for item in page.items if isinstance(item, ResultItem)]
            wanted = [item for item in items if item.counts or whole]
            for result in await self._results(name, wanted):
                yield result

    async def list_result_tags(
        self, swarm: SwarmId, *, attempts: Attempts = "counting"
    ) -> list[str]:
        """Lists the tags that have results so far, in order of appearance."""
        name, whole = checks.identity("swarm", swarm), _whole(attempts)
        items = self.connection.items(name, ResultItem, follow=False)
        return list(dict.fromkeys([item.tag async for item in items if item.counts or whole]))

    async def delete_results(
        self, swarm: SwarmId, tag: str | None = None, iteration: int | None = None
    ) -> int:
        """Deletes the results of one tag, one iteration, both, or all; returns how many.

        Neither users nor tasks can read them any more. The swarm may be running: what it writes
        afterwards is kept. Raises NotFound for a tag without results.
        """
        request = messages.DeleteResults(
            checks.identity("swarm", swarm),
            checks.optional_name("tag", tag),
            checks.optional_integer("iteration", iteration, 0),
        )
        return (await self._ask(request, messages.DeletedResults)).count

    async def select_global(self, swarm: SwarmId, tag: str) -> Any:
        """Returns the current value of a global. Raises NotFound."""
        tag = checks.text("tag", tag)  # whatever is listed can be read
        request = messages.SelectGlobal(checks.identity("swarm", swarm), tag)
        answer = await self._ask(request, messages.SelectedGlobal, again=True)
        if answer.value is None:
            tags = await self.list_global_tags(swarm)
            there = f"it has {', '.join(tags)}" if tags else "it has no globals at all"
            raise NotFound(
                f"Swarm {checks.identity('swarm', swarm)} has no global {tag!r}: {there}."
                + meant(tag, tags)
            )
        (load,) = await self.connection.fetch([answer.value])
        return load()

    async def set_global(self, swarm: SwarmId, tag: str, value: Any) -> None:
        """Sets a global; tasks that read it from now on see this value. Raises InvalidValue."""
        from manta.apis.compile.values import payload

        tag = checks.name("tag", tag)
        blobs: dict[str, Any] = {}
        sent = await in_thread(lambda: payload(value, blobs, f"The global {tag!r}"))
        await self.connection.push(blobs)
        request = messages.SetGlobal(checks.identity("swarm", swarm), tag, sent)
        await self._ask(request, Ok, again=True, blobs=blobs)

    async def list_global_tags(self, swarm: SwarmId) -> list[str]:
        """Lists the tags of the swarm's globals."""
        request = messages.ListGlobalTags(checks.identity("swarm", swarm))
        return list((await self._ask(request, messages.GlobalTags, again=True)).tags)

    async def get_metrics(self, swarm: SwarmId) -> Metrics:
        """Lists what tasks logged with `world.log_metrics` so far, also as a data frame
        (`.to_pandas()`)."""
        return Metrics([item async for item in self._metrics(swarm, follow=False)])

    async def stream_metrics(self, swarm: SwarmId) -> AsyncIterator[MetricsOverview]:
        """Yields metrics as they are logged, until the swarm ends."""
        async for item in self._metrics(swarm, follow=True):
            yield item

    # --- logs and errors ---------------------------------------------------------------------

    async def collect_logs(
        self,
        swarm: SwarmId,
        node: NodeId | None = None,
        task: str | None = None,
        *,
        iteration: int | None = None,
        limit: int | None = None,
    ) -> list[LogOverview]:
        """Lists the lines that tasks logged so far: of one node (id or alias), of one task (alias),
        of one iteration, or of all; with `limit`, the last ones.

        Raises NotFound for a node or task that the swarm does not have.
        """
        limit = checks.optional_integer("limit", limit, 1)
        lines: deque[LogOverview] = deque(maxlen=limit)
        async for item in self._logs(swarm, node, task, iteration, follow=False):
            lines.append(item)
        return list(lines)

    async def stream_logs(
        self,
        swarm: SwarmId,
        node: NodeId | None = None,
        task: str | None = None,
        *,
        iteration: int | None = None,
    ) -> AsyncIterator[LogOverview]:
        """Yields log lines as they are written, until the swarm ends; see `collect_logs`."""
        async for item in self._logs(swarm, node, task, iteration, follow=True):
            yield item

    async def collect_errors(self, swarm: SwarmId) -> list[ErrorOverview]:
        """Lists why attempts failed, with their traceback and last lines."""
        tasks = await self._tasks(swarm, None)
        return [ErrorOverview.of(task, task.error) for task in tasks if task.error is not None]

    async def explain_task(self, task: TaskId) -> TaskExplanation:
        """Returns what is known of an attempt: of what it failed, with the bundle that its node has
        kept. Of several that `task` means, the latest that failed, or the latest.

        Raises NotFound.
        """
        swarm, rest = task_name(task)
        found = meant_of(await self._tasks(swarm, None), swarm, rest)
        bundle = None if found.error is None else found.error.bundle
        blob = None if bundle is None else bundle.packages
        (load,) = await self.connection.fetch([blob])
        return TaskExplanation.of(found, load())

    async def explain_result(
        self, swarm: SwarmId, tag: str, iteration: int | None = None
    ) -> Lineage:
        """Returns what the results of a tag came from: the attempts that wrote them, with their
        code, data, nodes and the globals that they had read, and the attempts before them.

        Of the latest iteration that has such results, if none is given. Raises NotFound.
        """
        tag = checks.name("tag", tag)
        iteration = checks.optional_integer("iteration", iteration, 0)
        request = messages.GetSwarm(checks.identity("swarm", swarm))
        info = await self._ask(request, messages.SwarmInfo, again=True)
        asked = messages.GetSpec(info.swarm_id)
        spec = (await self._ask(asked, messages.SwarmSpecified, again=True)).spec
        written = Written(tag, iteration)
        async for item in self.connection.items(info.swarm_id, ResultItem, tag=tag, follow=False):
            written.add(item)
        if not written.by:
            raise not_written(info, written, await self.list_result_tags(info.swarm_id))
        return lineage(info, spec, await self._tasks(info.swarm_id, None), written)

    async def get_stacks(self, task: TaskId) -> StacksOverview:
        """Returns the Python stacks of all threads of an attempt that runs, and of the processes
        that it has started, as they are now.

        Takes seconds at most, also while C code holds the interpreter. Raises WrongState for a task
        that does not run, Ambiguous where several instances are meant, and Forbidden where the
        node's owner holds stacks back.
        """
        request = messages.ReadStacks(*task_name(task))
        answer = await self._ask(request, messages.TaskStacks, again=True, wait=STACKS)
        return StacksOverview.of(answer)

    # --- shared ------------------------------------------------------------------------------

    async def _tasks(self, swarm: SwarmId, iteration: int | None) -> tuple[TaskInfo, ...]:
        iteration = checks.optional_integer("iteration", iteration, 0)
        tasks: tuple[TaskInfo, ...] = ()
        more = True
        while more:
            request = messages.GetTasks(checks.identity("swarm", swarm), iteration, len(tasks))
            page = await self._ask(request, messages.Tasks, again=True)
            tasks, more = tasks + page.tasks, page.more
        return tasks

    async def _results(self, swarm: str, items: list[ResultItem]) -> list[Result]:
        lost: dict[int, NotFound] = {}
        for place, item in enumerate(items):
            if item.held and isinstance(item.value, BlobRef):
                try:
                    await self._recall(swarm, item, item.value)
                except NotFound as error:
                    lost[place] = error
        values = (None if place in lost else item.value for place, item in enumerate(items))
        loads = await self.connection.fetch(values)
        return [
            Result.lost(item, lost[place]) if place in lost else Result.of(item, load)
            for place, (item, load) in enumerate(zip(items, loads, strict=True))
        ]

    async def _recall(self, swarm: str, item: ResultItem, value: BlobRef) -> None:
        """Has a result brought to the manager that stays on its node. Raises NotFound."""
        request = messages.RecallResult(swarm, item.tag, item.iteration, item.node_id, value)
        while not (await self._ask(request, messages.RecalledResult, again=True)).here:
            await pause(AGAIN)

    async def _metrics(self, swarm: SwarmId, *, follow: bool) -> AsyncIterator[MetricsOverview]:
        name = checks.identity("swarm", swarm)
        async for item in self.connection.items(name, MetricsItem, follow=follow):
            yield MetricsOverview.of(item)

    async def _logs(
        self,
        swarm: SwarmId,
        node: NodeId | None,
        task: str | None,
        iteration: int | None,
        *,
        follow: bool,
    ) -> AsyncIterator[LogOverview]:
        name = checks.identity("swarm", swarm)
        of = checks.optional_identity("node", node)
        task = checks.optional_name("task", task)
        iteration = checks.optional_integer("iteration", iteration, 0)
        async for item in self.connection.items(name, LogItem, node=of, task=task, follow=follow):
            if iteration in (None, item.line.instance.iteration):
                yield LogOverview.of(item)


def _whole(attempts: object) -> bool:
    return checks.choice("attempts", attempts, ("counting", "all")) == "all"
