"""`manta run`: a swarm on this machine, with its own manager and nodes."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from manta.apis import checks
from manta.apis.errors import ApiClosed, ClusterDied, ConnectionFailed, ModuleError, SwarmFailed
from manta.cli.exit_codes import of_status
from manta.cli.local.cluster import (
    CLUSTER,
    Child,
    LocalCluster,
)
from manta.cli.options import (
    dataset_option,
    links_option,
    nodes_option,
    runner_option,
    split_datasets,
    swarm_file,
    times_option,
)
from manta.console import json_form, notebook, text
from manta.console.exit_codes import Exit
from manta.console.interrupts import Interrupted, Interrupts
from manta.console.lines import Words, styled
from manta.console.terminal import Screen, print_lines, say_note

if TYPE_CHECKING:
    from manta.apis.outcome import Outcome
    from manta.apis.overviews import SwarmOverview, TaskOverview
    from manta.apis.swarm import Swarm
    from manta.apis.user_api import UserAPI
    from manta.cli.live.view import SwarmView

_OWN_REGISTRY = (
    "`manta run` starts its own manager, whose registry is empty: give the module's file or "
    "folder, or register the module with a manager that stays (manta up, manta module push) and "
    "run the swarm there (manta deploy)."
)


@click.command()
@swarm_file
@nodes_option(1)
@dataset_option
@links_option
@runner_option
@click.option("--logs/--no-logs", default=True, help="Show the tasks' logs (default: yes).")
@times_option
@click.option("--keep", is_flag=True, help="Keep the folder with the processes' state and logs.")
@click.option("--json", "as_json", is_flag=True, help="Print only the outcome, as JSON.")
def run(
    target: str,
    parameters: Sequence[str],
    nodes: int,
    datasets: Sequence[str],
    links: str,
    runner: str,
    logs: bool,
    times: bool,
    keep: bool,
    as_json: bool,
) -> int:
    """Run the swarm in FILE on a manager and nodes that are started for it and removed again.

    CLASS selects a swarm where FILE has several.
    The exit code is 0 for COMPLETED and 1 for FAILED; `manta deploy` takes the same FILE to a
    cluster. Tasks run in a sandbox where bubblewrap is installed, otherwise confined by the kernel
    where it has Landlock, otherwise as this user.
    """
    began = time.time()
    screen = Screen(quiet=as_json)
    code: int = Exit.OK
    outcome: dict[str, Any] = {}
    rows: list[Words] = []
    with Interrupts() as interrupts:
        running: Run | None = None
        try:
            cluster = LocalCluster(nodes, split_datasets(datasets), interrupts, runner, links=links)
            running = Run(cluster, screen, began)
            interrupts.begin()
            running.show_start(0)
            cluster.start()
            if cluster.note:
                say_note(cluster.note)
            from manta.cli.loading import load_swarm, parse_parameters

            swarm = load_swarm(target, parse_parameters(parameters))
            code = running.run(swarm, logs=logs, times=times)
        except Interrupted as interrupted:
            screen.show([])
            interrupted.tell(": stopping all that was started.")
            code = interrupted.exit
        except BaseException as error:
            screen.show([])
            dead = running.cluster.dead if running is not None else []
            keep = keep or bool(dead)
            if isinstance(error, ApiClosed | ConnectionFailed) and dead:
                raise ClusterDied(dead[0].describe_end()) from None
            raise
        finally:
            interrupts.finish()
            if running is not None:
                running.stop(keep=keep)
                outcome, rows = running.outcome, running.time_table()
                if keep:
                    kept = f"Logs and state are kept in {running.cluster.folder}"
                    print_lines(kept, err=True)
    if as_json and outcome:
        json_form.show(outcome)
    else:
        screen.show(rows)
    return code


def run_here(
    swarm: Swarm,
    nodes: int,
    datasets: Mapping[str, str | os.PathLike[str]] | None,
    *,
    logs: bool,
    progress: bool,
    links: str,
) -> Outcome:
    """Does what `swarm.run()` says."""
    logs, progress = checks.flag("run()'s logs", logs), checks.flag("run()'s progress", progress)
    began = time.time()
    screen = notebook.screen(quiet=not progress)
    running = Run(LocalCluster(nodes, datasets, links=links), screen, began)
    try:
        running.show_start(0)
        running.cluster.start()
        running.run(swarm, logs=logs and progress, times=False)
        outcome = running.gathered()
    except (ApiClosed, ConnectionFailed):
        if dead := running.cluster.dead:
            raise ClusterDied(dead[0].describe_end()) from None
        raise
    finally:
        running.stop(keep=False)
    if outcome.status != "COMPLETED":
        raise SwarmFailed(f"Swarm {outcome.name!r} is {outcome.status}: {outcome.reason}", outcome)
    return outcome


class Run:
    """One swarm on one local cluster."""

    def __init__(self, cluster: LocalCluster, screen: Screen, began: float) -> None:
        self.cluster = cluster
        self._screen = screen
        self._began = began
        self._api: UserAPI | None = None
        self._follower: Any = None
        self._parts: dict[str, float] = {}
        self._connected = -1
        self._ended: SwarmOverview | None = None
        self.outcome: dict[str, Any] = {}

    def run(self, swarm: Swarm, *, logs: bool, times: bool) -> int:
        """Deploys and follows the swarm; returns the exit code."""
        from manta.apis.compile import spec
        from manta.cli.live.following import Follower
        from manta.cli.live.view import SwarmView
        from manta.cli.notes import notes_shown

        cluster = self.cluster
        api = self._api = cluster.connect()
        cluster.wait_for_nodes(api, self.show_start)
        cluster.watch(self._died_early)
        try:
            with notes_shown(lambda note: self._screen.show([note])):
                deployed = api.deploy_swarm(CLUSTER, swarm)
        except ModuleError as error:
            if spec.prepare(swarm).wanted:
                raise ModuleError(f"{error} {_OWN_REGISTRY}") from None
            raise
        ready = time.time()
        self._screen.show(
            [
                styled(deployed.name, bold=True)
                + f" on {text.count(len(cluster.aliases), 'node')}, "
                + f"set up in {text.seconds(ready - self._began)}"
            ]
        )
        view = SwarmView(deployed.max_iteration, times=times)
        follower = self._follower = Follower(api, deployed, view, self._screen)
        cluster.watch(lambda child: follower.interject(lambda: self._died(child)))
        ended = self._ended = follower.run(logs=logs)
        tasks = api.get_tasks(ended)
        errors = api.collect_errors(ended) if ended.status == "FAILED" else []
        self._screen.show(view.ending(ended, errors, self._screen.columns))
        self._account(ended, tasks, view)
        self.outcome["errors"] = [dict(error) for error in errors]
        return of_status(ended.status)

    def gathered(self) -> Outcome:
        """Reads all that the swarm has, once it has run."""
        from manta.apis.outcome import Outcome

        api, ended = self._api, self._ended
        assert api is not None
        assert ended is not None
        return Outcome(
            name=ended.name,
            status=ended.status,
            reason=ended.reason,
            iterations=ended.iteration + 1,
            results=api.get_swarm_results(ended),
            globals={tag: api.select_global(ended, tag) for tag in api.list_global_tags(ended)},
            metrics=api.get_metrics(ended),
            tasks=api.get_tasks(ended),
            errors=api.collect_errors(ended),
        )

    def stop(self, *, keep: bool) -> None:
        stopping = time.time()
        with contextlib.ExitStack() as steps:  # whatever becomes of one, the others are taken
            if self._follower is not None:  # it ends with the API, or else with the manager
                steps.callback(self._follower.join)
            steps.callback(self.cluster.stop, keep=keep)
            if self._api is not None:
                steps.callback(self._api.close)
        if self._parts:
            self._parts["stopping"] = time.time() - stopping
            self.outcome["seconds"] = {k: round(v, 4) for k, v in self._parts.items()}

    def time_table(self) -> list[Words]:
        """Shows where the time went."""
        if not self._parts:
            return []
        total = sum(self._parts.values())
        rows = [
            (part, text.seconds(taken), f"{taken / total:.0%}", _WHAT[part])
            for part, taken in self._parts.items()
            if part != "waiting" or taken >= 0.0005  # which most runs don't
        ]
        room = None if self._screen.room is None else self._screen.room - len("  ")
        lines = text.table(("", "", "", ""), rows, right=(1, 2), room=room, words=(3,))[1:]
        return ["", f"Where {text.seconds(total)} went:", *("  " + line for line in lines)]

    def show_start(self, connected: int) -> None:
        if connected == self._connected:
            return
        self._connected, count = connected, len(self.cluster.aliases)
        words = f"starting a manager and {text.count(count, 'node')}: {connected} connected"
        self._screen.show([], [styled(words, dim=True)])

    def _died_early(self, child: Child) -> None:
        """Ends waiting for a manager that died before the swarm was deployed."""
        if child is self.cluster.children[0] and self._api is not None:
            self._api.close()

    def _died(self, child: Child) -> None:
        """Gives up without the manager or any node; otherwise the swarm goes on."""
        if child is self.cluster.children[0] or len(self.cluster.dead) >= len(self.cluster.aliases):
            raise ClusterDied(child.describe_end())
        self._screen.show([styled(one, fg="yellow") for one in child.describe_end().split("\n")])

    def _account(
        self, ended: SwarmOverview, tasks: Iterable[TaskOverview], view: SwarmView
    ) -> None:
        from manta.cli.live.timing import Span, shares
        from manta.protocol.node import Timings

        started, over = ended.started_at or ended.created_at, ended.ended_at or time.time()
        spans = [
            Span(
                task.placed_at,
                task.ended_at,
                task.timings or Timings(),
                task.status == "INTERRUPTED",
            )
            for task in tasks
            if task.ended_at is not None
        ]
        self._parts = {"set-up": started - self._began, **shares(started, over, spans, view.waits)}
        self._parts["telling"] = max(0.0, time.time() - over)
        self.outcome = {
            "swarm_id": ended.swarm_id,
            "name": ended.name,
            "status": ended.status,
            "reason": ended.reason,
            "iterations": ended.iteration + 1,
            "metrics": view.records(),
        }


_WHAT = {
    "set-up": "starting and connecting processes, loading and sending the swarm",
    "placing": "choosing nodes, and messages to and from them",
    "waiting": "for a node that was lost or is not free, or to try again",
    "starting": "on nodes: queueing, unpacking, starting the runtime",
    "loading": "importing the tasks' modules",
    "computing": "in the tasks' own code",
    "moving": "tasks waiting for values and results to arrive",
    "telling": "reading the last results, metrics and logs",
    "stopping": "ending processes, removing the folder",
}
