"""Who makes which last call in a view that is to be over. Pure.

Members that have heard an earlier commit keep to what that said, and go on with those that they
have not given up. One that missed it goes with them, unless it has gone further.

| of the others of a view | their last call is |
|---|---|
| all wait for another view | none: it is over |
| some wait, and others neither do nor call | not decided until these do one or the other |
| any other | the first that no member has ended |
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from manta.mesh.said import NONE, Ballot, Group, Position

Positions = Mapping[str, Position]


def groups(positions: Positions) -> tuple[Group, ...] | None:
    """By where each member is; None while that is not decided."""
    found: list[Group] = []
    for view in sorted({at.view for at in positions.values()}):
        here = {one: at for one, at in positions.items() if at.view == view}
        companies = _companies(here)
        for (limit, _), members in companies.items():
            is_over = limit is None or all(here[one].is_free for one in members)
            found.append(Group(view, None if is_over else limit, tuple(sorted(members))))
        others = set(here).difference(*companies.values())
        if others:
            undecided, limit = _last([here[one] for one in others])
            if undecided:
                return None
            found.append(Group(view, limit, tuple(sorted(others))))
    return tuple(found)


def late(positions: Positions) -> dict[str, Ballot]:
    """Who has ended its last call and has not heard that the next view has begun, as it has for
    another; and which that is."""
    begun = {at.view for at in positions.values()}
    return {
        one: at.ending.next
        for one, at in positions.items()
        if at.ending is not None and at.ending.is_done and at.ending.next in begun
    }


def _companies(here: Positions) -> dict[tuple[int | None, tuple[str, ...]], set[str]]:
    """Those of one view that make their last call there together."""
    found: dict[tuple[int | None, tuple[str, ...]], set[str]] = {}
    for one, at in here.items():
        if at.ending is not None:
            found.setdefault((at.ending.limit, at.ending.lost), set()).add(one)
    for one, at in here.items():
        if at.ending is None:
            for (limit, lost), members in found.items():
                if limit is not None and at.done <= limit and one not in lost:
                    members.add(one)
                    break
    return found


def _last(group: Collection[Position]) -> tuple[bool, int | None]:
    """Whether it is open, and the number after which the last call comes."""
    free = sum(at.is_free for at in group)
    calling = sum(at.inside != NONE or at.is_pending for at in group)
    if free == len(group):
        return False, None
    return 0 < free < len(group) - calling, max(map(_ended, group))


def _ended(at: Position) -> int:
    """The last call that the member has ended, or will before its present one."""
    return at.done if at.inside == NONE else at.inside - 1
