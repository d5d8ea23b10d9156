"""`manta_node reload` and `drain`."""

from __future__ import annotations

import os
import re
import time

import click

from manta.console.commands import as_json_option, say
from manta.node.cli.config import NAME
from manta.node.daemon.places import must_be_known, state_folder
from manta.node.errors import OperatorError

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd]?)")
_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SLACK = 60.0
"""Seconds beyond its deadline in which a drained node ends."""
_LOOK = 0.05


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.3 on
    """A number of seconds, or of another unit: 90, 90s, 10m, 2h, 1d."""

    name = "duration"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        found = _DURATION.fullmatch(str(value).strip())
        if found is None:
            self.fail(f"{value!r} is no duration: give seconds, or 10m, 2h, 1d.", param, ctx)
        return float(found[1]) * _SECONDS[found[2]]


@click.command()
@NAME
@as_json_option
def reload(name: str, as_json: bool) -> None:
    """Have the running node take over its changed configuration; tasks go on.

    Says which keys apply at once, which for tasks whose process starts from now on, and which need
    a restart. A configuration that is not valid changes nothing.
    """
    from manta.node.daemon.orders import Order, give

    folder, pid = state_folder(name), _running(name)
    told = give(name, folder, Order(os.urandom(8).hex(), "reload"), pid).changes
    record = {"name": name, **{when: list(keys) for when, keys in told._asdict().items()}}
    say(record, f"The node {name} has read its configuration. {told.sentence}", as_json=as_json)


@click.command()
@NAME
@click.option(
    "--deadline",
    type=Duration(),
    metavar="TIME",
    help="What still runs after that is interrupted, and runs elsewhere: 90, 10m, 2h.",
)
@click.option("--wait", is_flag=True, help="Return once the node has ended.")
@as_json_option
def drain(name: str, deadline: float | None, wait: bool, as_json: bool) -> None:
    """Have the node take no new work, and end once nothing runs on it any more."""
    from manta.node.daemon.orders import Order, give

    folder, pid = state_folder(name), _running(name)
    give(name, folder, Order(os.urandom(8).hex(), "drain", deadline), pid)
    latest = None if deadline is None else time.monotonic() + deadline + _SLACK
    while wait and folder.running_pid() == pid:
        if latest is not None and time.monotonic() > latest:
            raise OperatorError(
                f"The node {name} (process {pid}) has not ended {_SLACK:g} s after its deadline: "
                f"see {folder.log_file}, or stop it with `manta_node stop {name}`."
            )
        time.sleep(_LOOK)
    ended = folder.running_pid() != pid
    until = "" if deadline is None else f", in {deadline:g} s at the latest"
    sentence = f"The node {name} takes no new work, and ends once nothing runs on it{until}."
    record = {"name": name, "pid": pid, "deadline": deadline, "ended": ended}
    say(record, f"The node {name} has ended." if ended else sentence, as_json=as_json)


def _running(name: str) -> int:
    """Raises OperatorError."""
    must_be_known(name)
    pid = state_folder(name).running_pid()
    if pid is None:
        raise OperatorError(f"The node {name} does not run: `manta_node start {name}` starts it.")
    return pid
