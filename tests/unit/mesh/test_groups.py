"""Who makes which last call in views that are to be over."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from manta.mesh.groups import groups, late
from manta.mesh.said import NONE, Ballot, Ending, Group, Position

OLD, NEXT, PROPOSED = Ballot(1, "a"), Ballot(2, "a"), Ballot(3, "a")


@dataclass
class At:
    done: int = NONE
    inside: int = NONE
    is_pending: bool = False
    is_free: bool = False
    ending: Ending | None = None
    view: Ballot = OLD

    @property
    def said(self) -> Position:
        where = (self.done, self.inside, self.is_pending, self.is_free, self.ending)
        return Position(PROPOSED, self.view, *where)


def found(*at: At) -> tuple[Group, ...] | None:
    return groups({name: one.said for name, one in zip("abcde", at, strict=False)})


def of(limit: int | None, members: str, view: Ballot = OLD) -> Group:
    return Group(view, limit, tuple(members))


def ending(limit: int | None, lost: str = "", *, is_done: bool = False) -> Ending:
    return Ending(NEXT, limit, tuple(lost), is_done)


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ([At(is_free=True), At(is_free=True)], [of(None, "ab")]),
        ([At(4), At(3, inside=4)], [of(4, "ab")]),
        ([At(3, inside=4), At(3, inside=4)], [of(3, "ab")]),
        ([At(3, is_free=True), At(3, is_pending=True)], [of(3, "ab")]),
        ([At(3, is_free=True), At(3)], None),
        ([At(3), At(is_free=True, view=NEXT)], [of(3, "a"), of(None, "b", NEXT)]),
        ([At(4, ending=ending(4)), At(4, ending=ending(4))], [of(4, "ab")]),
        ([At(4, ending=ending(4)), At(3, inside=4)], [of(4, "ab")]),
        ([At(4, ending=ending(4)), At(5)], [of(4, "a"), of(5, "b")]),
        ([At(4, ending=ending(4, "b")), At(3)], [of(4, "a"), of(3, "b")]),
        ([At(4, ending=ending(4, "b")), At(4, ending=ending(4, "a"))], [of(4, "a"), of(4, "b")]),
        ([At(4, is_free=True, ending=ending(4))] * 2, [of(None, "ab")]),
        ([At(4, is_free=True, ending=ending(4)), At(4, ending=ending(4))], [of(4, "ab")]),
        ([At(ending=ending(None, is_done=True)), At(0)], [of(None, "a"), of(0, "b")]),
    ],
)
def test_who_makes_which_last_call(at: list[At], expected: list[Group] | None) -> None:
    assert found(*at) == (None if expected is None else tuple(expected))


def test_who_is_at_its_end_where_the_next_view_has_begun_is_late() -> None:
    at_end, before = At(4, ending=ending(3, is_done=True)), At(4, ending=ending(3))
    inside = At(view=NEXT)
    assert late({"a": at_end.said, "b": before.said}) == {}
    told = {"a": at_end.said, "b": before.said, "c": inside.said}
    assert late(told) == {"a": NEXT}
