"""`manta check` and `manta deploy`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from manta.cli.exit_codes import of_status
from manta.cli.options import cluster_option, swarm_file, times_option, with_api
from manta.cli.plans import plan_lines
from manta.console import json_form
from manta.console.commands import say
from manta.console.exit_codes import Exit
from manta.console.terminal import Screen

if TYPE_CHECKING:
    from manta.apis.user_api import UserAPI


@click.command()
@swarm_file
@cluster_option
@with_api
def check(api: UserAPI, target: str, cluster: str, parameters: Sequence[str], as_json: bool) -> int:
    """Show where the tasks of the swarm in FILE would run, or why they cannot; deploys nothing.

    CLASS selects a swarm where FILE has several.
    The exit code is 0 when all tasks can be placed, 9 when not.
    """
    from manta.cli.loading import load_swarm, parse_parameters

    plan = api.check_swarm(cluster, load_swarm(target, parse_parameters(parameters)))
    if as_json:
        json_form.show(plan)
    else:
        screen = Screen()
        screen.show(plan_lines(plan, screen.room))
    return Exit.UNPLACEABLE if plan.problems else Exit.OK


@click.command()
@swarm_file
@cluster_option
@click.option("--follow", is_flag=True, help="Show its progress until it ends.")
@click.option("--logs/--no-logs", default=True, help="With --follow, show the tasks' logs.")
@times_option
@click.option("--wait", is_flag=True, help="Deploy it even if no node can run it yet.")
@with_api
def deploy(
    api: UserAPI,
    target: str,
    cluster: str,
    parameters: Sequence[str],
    follow: bool,
    logs: bool,
    times: bool,
    wait: bool,
    as_json: bool,
) -> int:
    """Deploy the swarm in FILE to a cluster, and print its id.

    CLASS selects a swarm where FILE has several.
    With --follow, the exit code is 0 for COMPLETED, 1 for FAILED and 3 for STOPPED; Ctrl-C stops
    following, not the swarm.
    """
    from manta.cli.loading import load_swarm, parse_parameters
    from manta.cli.notes import notes_shown

    swarm = load_swarm(target, parse_parameters(parameters))
    with notes_shown(lambda note: Screen(sys.stderr).show([note])):
        deployed = api.deploy_swarm(cluster, swarm, wait=wait)
    say(deployed, deployed.swarm_id, as_json=as_json)
    if not follow:
        return Exit.OK
    from manta.cli.live.following import Follower
    from manta.cli.live.view import SwarmView

    view = SwarmView(deployed.max_iteration, times=times)
    screen = Screen(quiet=as_json)
    follower = Follower(api, deployed, view, screen)
    try:
        ended = follower.run(logs=logs)
        errors = api.collect_errors(ended) if ended.status == "FAILED" else []
    finally:
        api.close()
        follower.join()
    screen.show(view.ending(ended, errors, screen.columns))
    return of_status(ended.status)
