"""`manta compare`: two runs side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from manta.cli.options import with_api
from manta.cli.tables import brief
from manta.console import json_form, text
from manta.console.lines import Line, Words, styled
from manta.console.terminal import Screen

if TYPE_CHECKING:
    from manta.apis.user_api import UserAPI
    from manta.cli.comparing import Run
    from manta.node.policy.records import Code
    from manta.protocol.values import Inline

_LARGEST = 8 * 1024 * 1024
"""Bytes of a package whose files are compared; of a larger one, its digest."""
_COLOURS = {"+": "green", "-": "red", "@": "cyan"}


@click.command()
@click.argument("swarm")
@click.argument("other")
@with_api
def compare(api: UserAPI, swarm: str, other: str, as_json: bool) -> None:
    """Show in which settings, globals and lines of code the swarms SWARM and OTHER differ, and
    their metrics side by side.

    Globals are compared as they were when the swarms were sent. Of each metric there is the last,
    the least and the greatest of its means over a task's instances, by iteration, and their mean.
    """
    from manta.cli.comparing import compared

    first, second = (_run(api, name) for name in (swarm, other))
    found = compared(first, second)
    if as_json:
        json_form.show(found)
    else:
        screen = Screen()
        screen.show(_lines(found, screen.room))


def _run(api: UserAPI, name: str) -> Run:
    from manta.cli.comparing import Run
    from manta.protocol.user import GetSpec, SwarmSpecified
    from manta.protocol.values import BlobRef

    swarm = api.get_swarm(name)
    spec = api.connection.ask(GetSpec(swarm.swarm_id), SwarmSpecified, again=True).spec
    # A large one may be gone, since a task has set another.
    values = {
        tag: {"bytes": value.size} if isinstance(value, BlobRef) else _value(api, value)
        for tag, value in spec.globals.items()
    }
    shown = [one for one in spec.modules if one.package and one.package.size <= _LARGEST]
    packages = api.connection.fetch([one.package for one in shown])
    code: dict[str, Code | None] = {
        one.name: _code(load()) for one, load in zip(shown, packages, strict=True)
    }
    return Run(swarm, spec, values, code, api.get_metrics(swarm))


def _value(api: UserAPI, payload: Inline) -> Any:
    (load,) = api.connection.fetch([payload])
    return load()


def _code(package: Any) -> Code | None:
    """Returns the sources as far as there is room for them, and the digests of all else.

    What a user sent as a package may be anything: None for what is none.
    """
    from blake3 import blake3

    from manta.apis.compile.packaging import ENTRY
    from manta.node.policy.records import MOST_CODE, Code

    if not isinstance(package, dict):
        return None
    sources, others, room = {}, {}, MOST_CODE
    for path, content in package.items():
        if path == ENTRY or not isinstance(path, str) or not isinstance(content, bytes):
            continue
        source = _text(content) if len(content) <= room else None
        if source is None:
            others[path] = blake3(content).hexdigest()
        else:
            sources[path] = source
            room -= len(content)
    return Code(sources, others)


def _text(content: bytes) -> str | None:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return None


def _lines(found: Mapping[str, Any], room: int | None) -> list[Words]:
    names = [f"{swarm['name']} {swarm['swarm_id'][:8]}" for swarm in found["runs"]]
    lines: list[Words] = []
    for title, rows in (
        ("SETTING", [_row(one["name"], one) for one in found["settings"]]),
        ("GLOBAL", [_row(one["tag"], one) for one in found["globals"] if one["differs"]]),
    ):
        if rows:
            header: list[Words] = [styled(title, bold=True), *names]
            lines += [*text.table(header, rows, room=room, words=(1, 2)), ""]
    for module in found["modules"]:
        lines.append(styled("MODULE ", bold=True) + f"{module['module']}: {module['status']}")
        lines += [styled(one, fg=_COLOURS.get(one[:1])) for one in module["diff"]]
    rows = [
        [f"{one['metric']}, {one['figure']}", *_figures(one["first"], one["second"])]
        for one in found["metrics"]
    ]
    if rows:
        heading: list[Words] = [styled("METRIC", bold=True), *names, "difference"]
        lines += ["", *text.table(heading, rows, right=(1, 2, 3), room=room)]
    return lines


def _row(name: str, one: Mapping[str, Any]) -> list[Words]:
    return [name, *("" if one[at] is None else brief(one[at]) for at in ("first", "second"))]


def _figures(first: float | None, second: float | None) -> Sequence[Line | str]:
    difference = None if first is None or second is None else second - first
    return text.numbers([first, second, difference])
