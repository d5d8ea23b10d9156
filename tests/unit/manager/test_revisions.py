from __future__ import annotations

from manta.manager.revisions import Revisions


def keys(revisions: Revisions, since: str = "") -> list[str]:
    return [key for key, _ in revisions.since(since)]


def test_what_changed_since_in_the_order_of_the_last_changes() -> None:
    revisions = Revisions()
    revisions.changed("a", "b")
    revisions.changed("c")
    seen = revisions.since("")
    assert [key for key, _ in seen] == ["a", "b", "c"]
    given = [revisions.revision(at) for _, at in seen]
    assert [keys(revisions, at) for at in given] == [["b", "c"], ["c"], []]
    revisions.changed("a")
    assert keys(revisions) == ["b", "c", "a"]
    assert keys(revisions, given[-1]) == ["a"]


def test_a_revision_does_not_tell_how_many_changes_there_were() -> None:
    revisions, other = Revisions(), Revisions()
    revisions.changed("a")
    given = {revisions.revision(1) for _ in range(100)}
    assert len(given) == 100
    assert {len(one) for one in given} == {len(revisions.revision(10**9))}
    assert all(keys(revisions, one) == [] for one in given)
    other.changed("a")
    assert all(keys(other, one) == ["a"] for one in given)


def test_what_is_gone_is_not_told_and_another_count_begins_anew() -> None:
    revisions = Revisions()
    revisions.changed("a", "b")
    last = revisions.revision(revisions.since("")[-1][1])
    revisions.forget("a", "never there")
    assert keys(revisions) == ["b"]
    assert keys(revisions, last) == []
    before = Revisions()  # of the manager that was here before
    before.changed("x", "y", "z")
    assert keys(revisions, before.revision(3)) == ["b"]
    for wrong in ("nothing", last.partition(".")[0], f"{last}x", "."):
        assert keys(revisions, wrong) == ["b"]


def test_who_waits_is_told_of_the_next_change_once() -> None:
    revisions, told = Revisions(), []
    for number, change in enumerate(
        (
            lambda: revisions.changed("a"),
            lambda: revisions.forget("a"),
            lambda: revisions.changed(),
        ),
        1,
    ):
        revisions.tell_next(lambda: told.append(keys(revisions)))
        assert len(told) == number - 1
        change()
        change()
        assert len(told) == number
    assert told == [["a"], [], []]
