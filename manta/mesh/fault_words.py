"""Faults as a command line has them: `0.1`, `20ms`, `10ms..50ms`, `0-4/5-7@10s..20s`. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from manta.mesh.faults import Faults, InvalidFaults

_TIME = re.compile(r"(\d+(?:\.\d+)?)(ms|s|min)?\Z")
_UNITS = {"ms": 1e-3, "s": 1.0, "min": 60.0, None: 1.0}


def plan(loss: float, delay: str | None, partitions: Iterable[str], seed: int) -> Faults | None:
    """None where nothing is asked for. Raises InvalidFaults."""
    form: dict[str, Any] = {"seed": seed, "loss": loss}
    if delay is not None:
        form["delay"] = _delay(delay)
    form["partitions"] = [_partition(one) for one in partitions]
    if not (loss or delay or form["partitions"]):
        return None
    return Faults.of(form)


def _delay(text: str) -> float | dict[str, Any]:
    least, dots, most = text.partition("..")
    if not dots:
        return _seconds(text, text)
    return {
        "distribution": "uniform",
        "least": _seconds(least, text),
        "most": _seconds(most, text),
    }


def _partition(text: str) -> dict[str, Any]:
    sides, at, times = text.partition("@")
    found: dict[str, Any] = {"sides": [_side(side, text) for side in sides.split("/")]}
    if at:
        begins, dots, ends = times.partition("..")
        found["from"] = _seconds(begins, text)
        if dots:
            found["until"] = _seconds(ends, text)
    return found


def _side(side: str, text: str) -> list[int]:
    found: list[int] = []
    for part in side.split(","):
        ends = re.fullmatch(r"(\d{1,6})(?:-(\d{1,6}))?", part)
        if ends is None:
            raise InvalidFaults(f"{text!r:.60} is no partition: write 0-4/5-7@10s..20s.")
        first = int(ends[1])
        last = first if ends[2] is None else int(ends[2])
        if not first <= last < first + 10_000:
            raise InvalidFaults(f"{part!r:.60} in {text!r:.60} are no peers: write 0-4.")
        found += range(first, last + 1)
    return found


def _seconds(time: str, text: str) -> float:
    found = _TIME.match(time)
    if found is None:
        raise InvalidFaults(f"{time!r:.60} in {text!r:.60} is no time: write 20ms, 1.5s or 2min.")
    return float(found[1]) * _UNITS[found[2]]


def said(form: dict[str, Any]) -> str:
    """The plan in a sentence's words."""
    parts = []
    if form["loss"]:
        parts.append(f"loss of {100 * form['loss']:g} %")
    if delay := form["delay"]:
        parts.append(f"delay {_said_delay(delay)}")
    for one in form["partitions"]:
        sides = " and ".join(_said_side(side) for side in one["sides"])
        until = "" if one["until"] is None else f" until {one['until']:g} s"
        parts.append(f"a partition into {sides} from {one['from']:g} s{until}")
    return f"{', '.join(parts) or 'none'}; seed {form['seed']}"


def _said_delay(delay: float | dict[str, Any]) -> str:
    if not isinstance(delay, dict):
        return f"of {1000 * delay:g} ms"
    least = f"{1000 * delay['least']:g}"
    if delay["distribution"] == "uniform":
        return f"from {least} to {1000 * delay['most']:g} ms"
    return f"from {least} ms on, {1000 * delay['mean']:g} ms in the mean"


def _said_side(side: list[int]) -> str:
    whole = len(side) > 2 and side == list(range(side[0], side[-1] + 1))
    return f"{side[0]}-{side[-1]}" if whole else ",".join(map(str, side))
