"""`manta_node who`: whose tasks run on a node and ran last, with which data, and what left."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from manta.console.terminal import Screen, print_lines, say_note
from manta.node.cli.config import NAME
from manta.node.daemon.places import must_be_known, state_folder

if TYPE_CHECKING:
    from manta.console.lines import Words
    from manta.node.state import StateFolder
    from manta.node.state.attempts import Following, Ran

LOOK_AGAIN = 0.5
"""Seconds."""
_RAN = (
    "USER", "SWARM", "TASK", "ITERATION", "DATASETS", "BEGAN", "FOR", "OUT", "STATUS",
)  # fmt: skip


@click.command()
@NAME
@click.option("-f", "--follow", is_flag=True, help="Keep showing it, as it changes.")
@click.option(
    "-n", "--last", default=20, type=click.IntRange(0), help="How many that have ended; 0: all."
)
@click.option("--user", help="Only those of this user.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; with -f, one object per line.")
def who(name: str, follow: bool, last: int, user: str | None, as_json: bool) -> None:
    """Show whose tasks run on the node and ran last, what data they were given, and what left.

    What left counts results, globals, outputs and what went to other tasks through the manager, not
    what tasks tell each other directly. `manta_node audit export` prints the log that has it all.
    """
    import msgspec

    from manta.console import json_form
    from manta.node.state.attempts import Following

    must_be_known(name)
    folder = state_folder(name)
    log = Following(folder.audit)
    log.update()
    if log.damaged:
        say_note(
            f"The log in {folder.audit} is damaged: {log.damaged} lines cannot be read, and what "
            f"they told is lost; the others are shown. `manta_node audit verify {name}` says more."
        )
    found = _chosen(log, folder, last, user)
    if follow:
        _follow(log, folder, last, user, as_json=as_json)
    elif as_json:
        json_form.show([msgspec.structs.asdict(each) for each in found])
    else:
        print_lines(*_table(found))


def _follow(
    log: Following, folder: StateFolder, last: int, user: str | None, *, as_json: bool
) -> None:
    """On a terminal one table, which changes; else a line for each that is another than before."""
    import msgspec

    from manta.console import json_form

    screen = Screen()
    told: dict[tuple[str, str, int, int, float], Ran] = {}
    while True:
        found = _chosen(log, folder, last, user)
        if not as_json and screen.is_terminal:
            screen.show([], _table(found))
        else:
            changed = [one for one in found if told.get(_name(one)) != one]
            told = {_name(one): one for one in found}
            if as_json:
                for one in changed:
                    json_form.show_line(msgspec.structs.asdict(one))
            elif changed:
                screen.show(_table(changed)[1:])
        time.sleep(LOOK_AGAIN)
        log.update()


def _name(ran: Ran) -> tuple[str, str, int, int, float]:
    return ran.swarm_id, ran.task, ran.iteration, ran.attempt, ran.began


def _chosen(log: Following, folder: StateFolder, last: int, user: str | None) -> list[Ran]:
    """The last that have ended, then those that run."""
    attempts = log.attempts(running=folder.running_pid() is not None)
    found = [each for each in attempts if user in (None, each.user)]
    ended = [each for each in found if each.status != "RUNNING"]
    return [*(ended[-last:] if last else ended), *(one for one in found if one not in ended)]


def _table(found: Sequence[Ran]) -> list[Words]:
    from manta.console import text

    if not found:
        return ["No task has run here yet."]
    now = time.time()
    return list(text.table(_RAN, [_row(one, now) for one in found]))


def _row(ran: Ran, now: float) -> list[str]:
    from manta.console import text

    began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(ran.began))
    over = now if ran.status == "RUNNING" else ran.ended
    took = "" if over is None else text.seconds(max(0.0, over - ran.began))
    datasets = ", ".join(ran.datasets) or "none"
    who = (ran.user, f"{ran.swarm} ({ran.swarm_id})", ran.task, str(ran.iteration), datasets)
    return [*who, began, took, text.size(ran.left), ran.status]
