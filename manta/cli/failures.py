"""Shows what is known of an attempt that failed."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING

from manta.console import text
from manta.console.lines import Words, styled
from manta.console.visible import visible_lines

if TYPE_CHECKING:
    from manta.apis.failures import TaskExplanation
    from manta.protocol.bundle import Usage

_NAME = 12  # columns


def failure_lines(found: TaskExplanation, room: int | None) -> list[Words]:
    """What went wrong first, then what the node has kept of it, then when, where and what it said
    last."""
    attempt = f" (attempt {found.attempt + 1})" if found.attempt else ""
    name = f"{found.alias}.{found.index} in iteration {found.iteration}{attempt}"
    lines: list[Words] = [styled(f"{name} on {found.node_alias}: {found.status}", bold=True)]
    lines += text.folded(found.sentence, room) if found.sentence else []
    facts = [
        (what, said)
        for what, said in (
            ("isolation", found.isolation),
            ("exit", exit_words(found.exit_code, out_of_memory=found.out_of_memory)),
            *_used(found.usage),
            ("image", found.image),
            ("Python", found.python),
            ("packages", f"{len(found.packages)}, which --json lists" if found.packages else ""),
            ("held back", ", ".join(found.redacted)),
        )
        if said
    ]
    if facts:
        lines += ["", *(f"{what:<{_NAME}}{said}" for what, said in facts)]
    if found.timeline:
        first = found.timeline[0].at
        lines += ["", styled("When", bold=True)]
        lines += [
            f"{text.seconds(max(0.0, moment.at - first)):>10}  {moment.what}"
            for moment in found.timeline
        ]
    for title, said in (
        ("Traceback", found.traceback),
        ("Last lines", "\n".join(found.last_lines)),
        ("Stacks before it was ended", found.stacks),
    ):
        if said:
            lines += ["", styled(title, bold=True), *visible_lines(said.rstrip())]
    if not found.sentence:
        lines.append("Nothing is known to have gone wrong with it.")
    elif not found.has_bundle:
        lines.append("Its node has kept nothing else of it.")
    return lines


def exit_words(code: int | None, *, out_of_memory: bool) -> str:
    """How a process ended; "" where that is not known."""
    if code is None:
        return ""
    said = f"code {code}"
    if code < 0:
        try:
            said = f"ended by {signal.Signals(-code).name}"
        except ValueError:  # a real-time signal
            said = f"ended by signal {-code}"
    return f"{said}, out of memory" if out_of_memory else said


def _used(usage: Usage) -> Iterator[tuple[str, str]]:
    def of(used: str, limit: str) -> str:
        if used and limit:
            return f"{used} of {limit}"
        return used or (f"at most {limit}" if limit else "")

    def size(count: int | None) -> str:
        return "" if count is None else text.size(count)

    cores = usage.cores_limit
    cpu = "" if usage.cpu is None else text.seconds(usage.cpu)
    yield "memory", of(size(usage.memory), size(usage.memory_limit))
    yield "processor", cpu + (f", on at most {cores:g} cores" if cores is not None else "")
    yield "processes", of(str(usage.processes or ""), str(usage.processes_limit or ""))
