"""`manta ps`, `explain`, `logs` and `results`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from manta.cli.failures import failure_lines
from manta.cli.lineage import lineage_lines
from manta.cli.options import follow_option, times_option, with_api
from manta.cli.plans import plan_lines
from manta.cli.tables import age, brief, emit, emit_lines, field, ident, state
from manta.console import json_form
from manta.console.commands import say
from manta.console.exit_codes import Exit
from manta.console.terminal import Screen, confirm, say_error

if TYPE_CHECKING:
    from manta.apis.overviews import LogOverview, SwarmOverview
    from manta.apis.user_api import UserAPI
    from manta.cli.live.folding import Folded

_FIRST = {"id": ident("swarm_id"), "name": field("name")}
_REST = {
    "status": state("status"),
    "iteration": field("iteration"),
    "created": age("created_at"),
    "reason": field("reason"),
}


@click.command()
@click.option("--cluster", help="Only swarms of this cluster.")
@with_api
def ps(api: UserAPI, cluster: str | None, as_json: bool) -> None:
    """List swarms, the newest last."""
    names = {} if as_json else {found.id: found.name for found in api.list_clusters()}
    clusters = {"cluster": lambda record: names.get(record["cluster_id"], record["cluster_id"])}
    emit(
        api.list_swarms(cluster),
        {**_FIRST, **clusters, **_REST},
        as_json=as_json,
        nothing="No swarms yet: deploy one with `manta deploy`.",
    )


@click.command()
@click.argument("swarm", metavar="SWARM|TASK")
@click.option("--result", "tag", metavar="TAG", help="What the results of this tag came from.")
@click.option("--iteration", type=int, help="With --result, of this iteration; else of the latest.")
@with_api
def explain(
    api: UserAPI, swarm: str, tag: str | None, iteration: int | None, as_json: bool
) -> None:
    """Explain, node by node and rule by rule, why the tasks of SWARM run where they do; or what
    TASK failed of, and what its node has kept of it; or, with --result, what results of SWARM came
    from: code by its digest, datasets, nodes, globals, and what ran before.

    TASK is SWARM.ALIAS, and further .INDEX.ITERATION.ATTEMPT, as far as you know. Of several
    attempts it is the latest that failed.
    """
    from manta.apis.errors import NotFound

    screen = Screen()
    if tag is not None:
        lineage = api.explain_result(swarm, tag, iteration)
        if as_json:
            json_form.show(lineage)
        else:
            screen.show(lineage_lines(lineage, screen.room))
        return
    if iteration is not None:
        raise click.UsageError("--iteration needs --result.")
    try:
        plan = api.explain_swarm(swarm)
    except NotFound:
        if "." not in swarm:
            raise
        found = api.explain_task(swarm)
        if as_json:
            json_form.show(found)
        else:
            screen.show(failure_lines(found, screen.room))
        return
    if as_json:
        json_form.show(plan)
        return
    screen.show(plan_lines(plan, screen.room, _labels(api, swarm)))


def _labels(api: UserAPI, swarm: str) -> dict[str, str]:
    """Returns the labels of the cluster's nodes, by alias; none if the user may not see nodes."""
    from manta.apis.errors import Forbidden

    try:
        nodes = api.list_nodes(api.get_swarm(swarm).cluster_id)
    except Forbidden:
        return {}
    return {
        node.alias: ", ".join(f"{key}={value}" for key, value in labels.items())
        for node in nodes
        if (labels := node.platform_info.labels)
    }


@click.command()
@click.argument("swarm")
@follow_option
@click.option("--node", help="Only those of this node.")
@click.option("--task", help="Only those of this task.")
@times_option
@click.option(
    "--raw", is_flag=True, help="Leave what the tasks wrote as it is: colours, control characters."
)
@with_api
def logs(
    api: UserAPI,
    swarm: str,
    follow: bool,
    node: str | None,
    task: str | None,
    times: bool,
    raw: bool,
    as_json: bool,
) -> None:
    """Show the logs of the tasks of SWARM; with --json, an object per line.

    `#3` after a task's name is the iteration; equal lines are one, with their number. Characters
    that would change the terminal are shown as `\\x1b`; with --raw they do change it.
    """
    from manta.cli.live.folding import Folding
    from manta.cli.live.view import log_line

    of = api.get_swarm(swarm)
    several = (of.max_iteration or 1) > 1 or of.iteration > 0
    if as_json:
        lines = (api.stream_logs if follow else api.collect_logs)(of, node, task)
        emit_lines(lines, str, as_json=True)
        return
    folding, screen = Folding(), Screen()

    def show(lines: list[Folded]) -> None:
        screen.show([log_line(one, iteration=several, times=times, raw=raw) for one in lines])

    for page in _pages(api, of, follow, node, task):
        show(folding.fold(page))
    show(folding.rest())


def _pages(
    api: UserAPI, swarm: SwarmOverview, follow: bool, node: str | None, task: str | None
) -> Iterator[list[LogOverview]]:
    if not follow:
        yield api.collect_logs(swarm, node, task)
        return
    for item in api.stream_logs(swarm, node, task):
        yield [item]


@click.command()
@click.argument("swarm")
@click.option("--tag", help="Only those of this tag.")
@click.option("--iteration", type=int, help="Only those of this iteration.")
@click.option("--node", help="Only those of this node.")
@click.option("--all", "whole", is_flag=True, help="Also what failed attempts wrote, marked.")
@click.option("--wait", is_flag=True, help="Wait until the swarm ends.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    help="With --wait, seconds after which to give up (exit code 10).",
)
@click.option("--delete", is_flag=True, help="Delete them: of --tag, --iteration, both, or all.")
@click.option("--yes", is_flag=True, help="With --delete, do not ask.")
@with_api
def results(
    api: UserAPI,
    swarm: str,
    tag: str | None,
    iteration: int | None,
    node: str | None,
    whole: bool,
    wait: bool,
    timeout: float | None,
    delete: bool,
    yes: bool,
    as_json: bool,
) -> int:
    """Show the results of SWARM; large arrays by type and shape.

    The exit code is 5 when there are none, so that scripts notice.
    """
    if timeout is not None and not wait:
        raise click.UsageError("--timeout needs --wait.")
    if yes and not delete:
        raise click.UsageError("--yes needs --delete.")
    if delete:
        if node is not None or wait or whole:
            raise click.UsageError("--delete can be combined with --tag and --iteration only.")
        return _delete(api, swarm, tag, iteration, yes=yes, as_json=as_json)
    of = api.wait_swarm(swarm, timeout) if wait else api.get_swarm(swarm)
    found = api.get_swarm_results(of, tag, attempts="all" if whole else "counting")
    if not found:
        if as_json:
            json_form.show([])
        failed = not whole and api.list_result_tags(of, attempts="all")
        say_error(f"{_none(of)} --all shows what failed attempts wrote." if failed else _none(of))
        return Exit.NOT_FOUND
    found = found(iteration=iteration, node_id=node)
    records = [
        {
            "iteration": result.iteration,
            "tag": result.tag,
            "node": result.node_alias,
            "task": f"{result.alias}.{result.index}",
            "counts": result.counts,
            "value": None if result.away else result.value,
            **({"away": result.away} if result.away else {}),
        }
        for result in found
    ]
    columns = {name: field(name) for name in ("iteration", "tag", "node", "task")}
    columns["value"] = lambda record: (
        record.get("away", "")
        or brief(record["value"]) + ("" if record["counts"] else "  (of a failed attempt)")
    )
    emit(records, columns, as_json=as_json, nothing="")
    return Exit.OK


def _delete(
    api: UserAPI, swarm: str, tag: str | None, iteration: int | None, *, yes: bool, as_json: bool
) -> int:
    of = api.get_swarm(swarm)
    tagged = f" of tag {tag}" if tag is not None else ""
    at = f" of iteration {iteration}" if iteration is not None else ""
    which = f"results{tagged}{at} of swarm {of.name} ({of.swarm_id})"
    if not yes:
        confirm(f"Delete all {which}?", abort=True, err=True)
    count = api.delete_results(of, tag, iteration)
    record = {"swarm_id": of.swarm_id, "name": of.name, "deleted": count}
    say(record, f"Deleted {count} {which}.", as_json=as_json)
    return Exit.OK


def _none(swarm: SwarmOverview) -> str:
    if swarm.ended:
        return f"Swarm {swarm.name} is {swarm.status} and has no results."
    return f"Swarm {swarm.name} is {swarm.status} and has no results yet: --wait waits for them."
