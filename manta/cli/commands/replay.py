"""`manta replay`: a swarm's history, as it was seen live."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from manta.cli.exit_codes import LocalError
from manta.cli.options import connects, times_option
from manta.console import json_form
from manta.console.lines import Line
from manta.console.terminal import Screen
from manta.transports.files import read_bounded

if TYPE_CHECKING:
    from manta.apis.overviews import (
        ErrorOverview,
        EventOverview,
        LogOverview,
        MetricsOverview,
        SwarmOverview,
    )
    from manta.apis.user_api import UserAPI

    Item = EventOverview | LogOverview | MetricsOverview

T = TypeVar("T")

LONGEST = 5.0
"""Seconds that a pause of a replay lasts at most, whatever the speed."""
REDRAW = 0.1
_MOST = 1 << 30
"""Bytes of a file that is read whole."""


class History(NamedTuple):
    swarm: SwarmOverview
    events: list[EventOverview]
    metrics: list[MetricsOverview]
    logs: list[LogOverview]
    errors: list[ErrorOverview]

    def in_order(self) -> Iterator[tuple[str, Item]]:
        """Yields everything by time; an event comes after what happened at the same time."""
        feeds: list[tuple[str, Sequence[Item]]] = [
            ("metrics", self.metrics),
            ("logs", self.logs),
            ("events", self.events),
        ]
        ranked = [
            (item.at, rank, number, feed, item)
            for rank, (feed, items) in enumerate(feeds)
            for number, item in enumerate(items)
        ]
        yield from ((feed, item) for *_, feed, item in sorted(ranked, key=lambda it: it[:3]))


@click.command()
@click.argument("swarm", metavar="SWARM|FOLDER")
@click.option(
    "--speed",
    type=click.FloatRange(min=0, min_open=True),
    help="1 is the original speed, 10 ten times that; without it, everything at once.",
)
@click.option("--logs/--no-logs", default=True, help="Show the tasks' logs (default: yes).")
@times_option
@connects
def replay(
    connect: Callable[[], UserAPI],
    swarm: str,
    speed: float | None,
    logs: bool,
    times: bool,
    as_json: bool,
) -> None:
    """Replay the history of SWARM from the manager's log, or from a FOLDER of `manta pull`.

    Events, metrics and logs are shown in order of time, as `manta run` showed them live; of a
    running swarm, those so far. With --json, an object for each of them.
    """
    history = _of_folder(Path(swarm)) if Path(swarm).is_dir() else _of_manager(connect, swarm)
    if not logs:
        history = history._replace(logs=[])
    if as_json:
        for feed, item in _paced(history.in_order(), speed, lambda at: None):
            json_form.show_line({"at": item.at, "feed": feed, "item": item})
        return
    from manta.cli.live.view import SwarmView

    view, screen = SwarmView(history.swarm.max_iteration, times=times), Screen()
    with_progress = speed is not None

    def idle(at: float) -> None:
        screen.show([], view.live(at))

    for feed, item in _paced(history.in_order(), speed, idle):
        shown: Sequence[Line] = []
        if feed == "metrics":
            view.metric(item)  # type: ignore[arg-type]
        else:
            shown = view.logs([item]) if feed == "logs" else view.event(item)  # type: ignore[arg-type,list-item]
        if shown or with_progress:
            screen.show(shown, view.live(item.at) if with_progress else ())
    screen.show(view.ending(history.swarm, history.errors, screen.columns))


def _paced(
    items: Iterable[tuple[str, Item]], speed: float | None, idle: Callable[[float], None]
) -> Iterator[tuple[str, Item]]:
    """Yields each item when it is due; calls `idle` in between with the time in the history."""
    last: float | None = None
    for feed, item in items:
        if speed is not None and last is not None:
            left = min((item.at - last) / speed, LONGEST)
            while left > 0:
                nap = min(left, REDRAW)
                time.sleep(nap)
                left -= nap
                idle(item.at - left * speed)
        last = item.at if last is None else max(last, item.at)
        yield feed, item


def _of_manager(connect: Callable[[], UserAPI], swarm: str) -> History:
    from manta.apis.overviews import EventOverview
    from manta.protocol.user import EventItem

    with connect() as api:
        found = api.get_swarm(swarm)
        items = api.connection.items(found.swarm_id, EventItem, follow=found.ended)
        events = [EventOverview.of(item) for item in items]
        errors = api.collect_errors(found) if found.status == "FAILED" else []
        return History(found, events, api.get_metrics(found), api.collect_logs(found), errors)


def _of_folder(folder: Path) -> History:
    """Raises LocalError."""
    from msgspec import ValidationError, convert

    from manta.apis.overviews import EventOverview, LogOverview, MetricsOverview, SwarmOverview

    try:
        content = json.loads(read_bounded(folder / "swarm.json", _MOST))
        swarm = convert(content["swarm"], SwarmOverview)
        events = _lines(folder / "events.ndjson", lambda line: convert(line, EventOverview))
        metrics = _lines(
            folder / "metrics.ndjson", lambda line: convert(_with_nan(line), MetricsOverview)
        )
        logs = _lines(folder / "logs.ndjson", lambda line: convert(line, LogOverview))
        errors = [_error(task) for task in content["tasks"] if task["error"]]
        if swarm.status != "FAILED":
            errors = []
    except OSError as error:
        raise LocalError(
            f"{error.filename} cannot be read ({error.strerror}): give a folder that `manta pull` "
            "wrote, of a swarm that had ended."
        ) from None
    except (ValueError, KeyError, TypeError, RecursionError, ValidationError) as error:
        raise LocalError(
            f"{folder} is not what `manta pull` wrote ({error}): "
            f"`manta pull --verify {folder}` says what has changed."
        ) from None
    return History(swarm, events, metrics, logs, errors)


def _lines(path: Path, convert: Callable[[Any], T]) -> list[T]:
    return [convert(json.loads(line)) for line in read_bounded(path, _MOST).splitlines()]


def _with_nan(line: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN: null stands for it."""
    metrics = {k: float("nan") if v is None else v for k, v in line["metrics"].items()}
    return {**line, "metrics": metrics}


def _error(task: Mapping[str, Any]) -> ErrorOverview:
    from msgspec import convert

    from manta.apis.overviews import ErrorOverview

    return convert({**task, **task["error"]}, ErrorOverview)
