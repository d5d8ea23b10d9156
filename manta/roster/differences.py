"""What is different in a roster since an earlier one, as messages of bounded size, and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

import msgspec

from manta.protocol.pages import PAGE_BYTES, encoded
from manta.protocol.roster import Former, Roster, RosterInstance, RosterTask, RosterTold

_FORMER_BYTES = 16
"""Of an instance of the iteration before, at most."""


def told(
    swarm_id: str,
    roster: Roster,
    version: int,
    before: Roster | None = None,
    since: int = 0,
    page_bytes: int = PAGE_BYTES,
) -> list[RosterTold]:
    """The parts that make `version`, which is `roster`, of the version `since`, which was `before`;
    of another iteration or timeline, they make it of nothing."""
    if before is None or (before.epoch, before.iteration) != (roster.epoch, roster.iteration):
        before, since = None, 0
    changed = _changed(roster, before)
    networks = () if before is not None else tuple(roster.networks.values())
    pages: list[tuple[tuple[RosterTask, ...], Former]] = []
    pages += ((page, {}) for page in _pages(changed, page_bytes))
    if before is None:
        pages += (((), page) for page in _former_pages(roster.former, page_bytes))
    return [
        RosterTold(
            swarm_id,
            roster.epoch,
            roster.iteration,
            version,
            since,
            page,
            networks if part == 0 else (),
            part,
            part + 1 < len(pages),
            former,
        )
        for part, (page, former) in enumerate(pages)
    ]


def _former_pages(former: Former, page_bytes: int) -> Iterable[Former]:
    most = max(1, page_bytes // _FORMER_BYTES)
    for alias, counted in former.items():
        ranks = iter(counted.items())
        while page := dict(islice(ranks, most)):
            yield {alias: page}


def _changed(roster: Roster, before: Roster | None) -> list[RosterTask]:
    """The tasks that changed, with their instances that did."""
    found = []
    for alias, task in roster.tasks.items():
        old = before.tasks.get(alias) if before is not None else None
        if old is None:
            found.append(task)
        elif old != task:
            known = old.instances
            new = tuple(
                one
                for rank, one in enumerate(task.instances)
                if rank >= len(known) or known[rank] != one
            )
            found.append(msgspec.structs.replace(task, instances=new))
    return found


def _pages(tasks: Iterable[RosterTask], page_bytes: int) -> Iterable[tuple[RosterTask, ...]]:
    """At least one; a task whose instances do not fit is in several."""
    page: list[RosterTask] = []
    room = page_bytes
    for task in tasks:
        head = msgspec.structs.replace(task, instances=())
        room -= encoded(head)
        instances: list[RosterInstance] = []
        for one in task.instances:
            room -= encoded(one)
            if room < 0 and (page or instances):
                if instances:
                    page.append(msgspec.structs.replace(head, instances=tuple(instances)))
                yield tuple(page)
                page, instances, room = [], [], page_bytes - encoded(head) - encoded(one)
            instances.append(one)
        page.append(msgspec.structs.replace(head, instances=tuple(instances)))
    yield tuple(page)


def apply(parts: Sequence[RosterTold], before: Roster | None) -> Roster:
    """The roster that the parts make. Raises ValueError where their instances leave a gap."""
    first = parts[0]
    whole = first.since == 0 or before is None
    tasks = {} if whole or before is None else dict(before.tasks)
    networks = {one.name: one for part in parts for one in part.networks}
    for part in parts:
        for task in part.tasks:
            tasks[task.alias] = _merged(tasks.get(task.alias), task)
    former: Former = {}
    for part in parts:
        for alias, counted in part.former.items():
            former.setdefault(alias, {}).update(counted)
    if not whole and before is not None:
        networks, former = before.networks, before.former
    return Roster(first.epoch, first.iteration, tasks, networks, former)


def _merged(known: RosterTask | None, changed: RosterTask) -> RosterTask:
    instances = list(known.instances) if known is not None else []
    for one in changed.instances:
        if one.rank > len(instances):
            raise ValueError(f"the roster of {changed.alias} lacks instances")
        instances[one.rank : one.rank + 1] = [one]
    return msgspec.structs.replace(changed, instances=tuple(instances))
