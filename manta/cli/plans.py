"""Shows plans: where a swarm's tasks run, or why they do not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from manta.console import text
from manta.console.lines import Words, styled

if TYPE_CHECKING:
    from manta.protocol.user import Plan


def plan_lines(
    plan: Plan, room: int | None, labels: Mapping[str, str] | None = None
) -> list[Words]:
    """Shows problems first, then where instances run, then the nodes that were rejected.

    `labels` are those of the nodes, by alias.
    """
    lines: list[Words] = [
        styled(part, fg="yellow")
        for problem in (*plan.problems, *plan.notices)
        for part in text.folded(problem, room)
    ]
    if plan.placements:
        names = ("TASK", "NODE", "ISOLATION", *(("LABELS",) if labels else ()))
        header = [styled(name, bold=True) for name in names]
        rows = [
            (
                f"{at.task}.{at.index}",
                at.node_alias,
                at.isolation,
                (labels or {}).get(at.node_alias, ""),
            )
            for at in plan.placements
        ]
        lines += ["", *text.table(header, [row[: len(names)] for row in rows], room=room)]
    lines += [f"{n} more of {task} wait for a free place." for task, n in plan.waiting.items()]
    refused = [verdict for verdict in plan.verdicts if not verdict.accepted]
    if refused:
        header = [styled(name, bold=True) for name in ("TASK", "NODE", "RULE", "WHY NOT")]
        rows4 = [(v.task, v.node_alias, v.rule, v.reason) for v in refused]
        lines += ["", *text.table(header, rows4, room=room, words=(3,))]
    for sentence in plan.provided:
        lines += ["", *text.folded(sentence, room)]
    for note in plan.notes:
        lines += ["", *text.folded(note, room)]
    return lines or ["Nothing to explain: no task has been placed, and none is refused."]
