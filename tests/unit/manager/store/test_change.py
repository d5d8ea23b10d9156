from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from manta.actors import Refused, Reply
from manta.manager.errors import StorageUnavailable, StoreError
from manta.manager.store.actor import Writer
from manta.manager.store.change import Change
from manta.manager.store.interface import Delete, Put, Write
from manta.manager.store.records import UserRecord
from manta.protocol.codes import Code

ANN = UserRecord("1", "ann@lab", "", 0.0)
RENAMED = UserRecord("1", "anna@lab", "", 0.0)
BOB = UserRecord("2", "bob@lab", "", 0.0)


class Scribe:
    """A Writer whose store answers when a test says so."""

    def __init__(self) -> None:
        self.writes: list[Write] = []
        self.answer: list[Callable[[StoreError | None], None]] = []
        self.unsettled: dict[Any, list[Any]] = {}
        self.trouble: StoreError | None = None
        self.kept: list[bool] = []

    def write(
        self, *writes: Write, then: Callable[[StoreError | None], None], keep: bool = False
    ) -> None:
        self.writes += writes
        self.kept.append(keep)
        self.answer.append(then)


class Heard(Reply):
    value: Any = None

    def _deliver(self, value: Any, error: BaseException | None) -> None:
        self.value = error or value


@pytest.fixture
def scribe() -> Scribe:
    return Scribe()


def change(scribe: Scribe) -> Change:
    return Change(cast("Writer", scribe))


FULL = StorageUnavailable("The disk is full.")


def test_it_is_in_effect_before_it_is_stored_and_answered_after(scribe: Scribe) -> None:
    users, reply = {"1": ANN}, Heard()
    one = change(scribe)
    one.put(users, RENAMED)
    one.put(users, BOB)
    one.commit(reply, lambda: reply.set("stored"))
    assert users == {"1": RENAMED, "2": BOB}
    assert scribe.writes == [Put(RENAMED), Put(BOB)]
    assert not reply.done
    scribe.answer[0](None)
    assert reply.value == "stored"
    assert users == {"1": RENAMED, "2": BOB}


def test_what_the_store_refuses_is_undone_the_last_step_first(scribe: Scribe) -> None:
    users, reply, steps = {"1": ANN, "2": BOB}, Heard(), list[str]()
    one = change(scribe)
    one.on_refusal(lambda: steps.append("first"))
    one.put(users, RENAMED)
    one.delete(users, BOB)
    one.on_refusal(lambda: steps.append("last"))
    one.commit(reply, lambda: reply.set("stored"))
    assert scribe.writes == [Put(RENAMED), Delete(UserRecord, "2")]
    scribe.answer[0](FULL)
    assert users == {"1": ANN, "2": BOB}
    assert steps == ["last", "first"]
    assert isinstance(reply.value, Refused)
    assert reply.value.code == Code.STORAGE
    assert reply.value.sentence == "Nothing was changed: The disk is full."


def test_undoing_leaves_what_a_later_change_has_put_there(scribe: Scribe) -> None:
    users = {"1": ANN}
    first, second = change(scribe), change(scribe)
    first.delete(users, ANN)
    first.commit(Heard(), lambda: None)
    second.put(users, RENAMED)
    second.commit(Heard(), lambda: None)
    scribe.answer[0](FULL)
    assert users == {"1": RENAMED}
    scribe.answer[1](None)
    assert users == {"1": RENAMED}


@pytest.mark.parametrize("delete_first", [False, True])
def test_two_changes_of_one_key_that_are_both_refused_leave_what_is_stored(
    scribe: Scribe, delete_first: bool
) -> None:
    users = {"1": ANN}
    first, second = change(scribe), change(scribe)
    if delete_first:
        first.delete(users, ANN)
    else:
        first.put(users, UserRecord("1", "anne@lab", "", 0.0))
    first.commit(Heard(), lambda: None)
    second.put(users, RENAMED)
    second.commit(Heard(), lambda: None)
    scribe.answer[0](FULL)
    assert users == {"1": RENAMED}
    scribe.answer[1](FULL)
    assert users == {"1": ANN}
    assert not scribe.unsettled


def test_a_refused_change_gives_way_to_the_one_that_was_stored_before_it(scribe: Scribe) -> None:
    users = {"1": ANN}
    first, second = change(scribe), change(scribe)
    first.put(users, RENAMED)
    first.commit(Heard(), lambda: None)
    second.delete(users, RENAMED)
    second.commit(Heard(), lambda: None)
    scribe.answer[0](None)
    assert users == {}
    scribe.answer[1](FULL)
    assert users == {"1": RENAMED}
    assert not scribe.unsettled


def test_what_takes_something_away_is_answered_once_it_is_stored(scribe: Scribe) -> None:
    users, reply = {"1": ANN}, Heard()
    one = change(scribe)
    one.delete(users, ANN)
    one.commit_lasting(reply, lambda: reply.set("stored"))
    assert scribe.kept == [True]
    assert not reply.done
    scribe.answer[0](None)
    assert reply.value == "stored"


@pytest.mark.parametrize("known", [False, True], ids=["found out", "known before"])
def test_what_takes_something_away_is_in_effect_while_it_cannot_be_stored(
    scribe: Scribe, known: bool
) -> None:
    users, reply, effects = {"1": ANN}, Heard(), list[str]()
    scribe.trouble = FULL if known else None
    one = change(scribe)
    one.delete(users, ANN)
    one.commit_lasting(reply, lambda: effects.append("cut"))
    if not known:
        assert effects == []
        scribe.answer[0](FULL)
    assert effects == ["cut"]
    assert users == {}
    assert isinstance(reply.value, Refused)
    assert reply.value.sentence == (
        "It is in effect, and not stored yet: The disk is full. It is stored as soon as that is "
        "possible; a manager that ends before does not know of it."
    )
    scribe.answer[0](FULL)  # it is tried again
    scribe.answer[0](None)
    assert effects == ["cut"]
    assert users == {}
    assert scribe.unsettled == {}
