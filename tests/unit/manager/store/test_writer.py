"""What a Writer does while the store cannot be written, step by step."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import msgspec
import pytest

from manta.actors import Actor, Reply
from manta.manager.errors import StorageUnavailable, StoreError
from manta.manager.store.actor import Commit, Committed, Writer
from manta.manager.store.change import Change
from manta.manager.store.interface import Put
from manta.manager.store.records import KeyKind, KeyRecord
from manta.testing.stores.memory import MemoryStore

FULL = StorageUnavailable("The disk is full.")
KEYS = [KeyRecord(f"key {number}", KeyKind.USER, "ada", 0.0) for number in range(4)]


class Desk:
    """A Writer whose commits are carried out, or not, when a test says so."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.sent: list[Commit] = []
        self._later: list[object] = []
        ref = SimpleNamespace(tell=self.sent.append)
        actor = SimpleNamespace(
            system=SimpleNamespace(find=lambda _: ref),
            monitor=lambda _: None,
            ref=None,
            after=lambda _, message: self._later.append(message),
        )
        self.writer = Writer(cast("Actor", actor), "store")
        self.done: list[str] = []
        self.keys = {one.key: one for one in KEYS}

    def answer(self, error: StoreError | None = None) -> None:
        """Carries out the oldest that was sent, or fails."""
        commit = self.sent.pop(0)
        if error is None:
            self.store.commit(commit.writes)
        self.writer.handle(Committed(commit.ticket, error))

    def wait(self) -> None:
        """Until it is time to send again."""
        later, self._later = self._later, []
        for message in later:
            self.writer.handle(message)

    def revoke(self, key: KeyRecord) -> Reply:
        change, reply = Change(self.writer), Reply()
        change.delete(self.keys, key)
        change.commit_lasting(reply, lambda: self.done.append(key.key))
        return reply

    def sign_in(self, key: KeyRecord) -> Reply:
        change, reply = Change(self.writer), Reply()
        change.put(self.keys, key)
        change.commit(reply, lambda: reply.set("signed in"))
        return reply

    def finish(self) -> None:
        """There is room again."""
        for _ in range(20):
            while self.sent:
                self.answer()
            self.wait()
        assert self.writer.idle

    def stored(self) -> dict[str, KeyRecord]:
        return {one.key: one for one in self.store.all(KeyRecord)}


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.mark.parametrize("count", [1, 2, 4])
def test_all_that_is_taken_away_side_by_side_is_in_effect_at_once(desk: Desk, count: int) -> None:
    desk.store.commit([Put(key) for key in KEYS[:count]])
    replies = [desk.revoke(key) for key in KEYS[:count]]
    assert len(desk.sent) == count
    for _ in range(count):
        desk.answer(FULL)
    assert desk.done == [key.key for key in KEYS[:count]]
    assert all(reply.done for reply in replies)
    for _ in range(3):
        desk.wait()
        desk.answer(FULL)
    desk.finish()
    assert desk.done == [key.key for key in KEYS[:count]], "once each"
    assert desk.stored() == {}


def test_what_comes_when_the_trouble_is_known_is_in_effect_without_being_sent(desk: Desk) -> None:
    desk.revoke(KEYS[0])
    desk.answer(FULL)
    desk.revoke(KEYS[1])
    assert desk.done == ["key 0", "key 1"]
    assert desk.sent == []


@pytest.mark.parametrize("signed_in", [1, 2])
def test_what_is_stored_before_what_came_before_it_is_the_last_word(
    desk: Desk, signed_in: int
) -> None:
    """A key is revoked while the disk is full, and signs in again when there is room."""
    [key, *_] = KEYS
    desk.store.commit([Put(key)])
    desk.revoke(key)
    replies = [
        desk.sign_in(msgspec.structs.replace(key, since=float(number + 1)))
        for number in range(signed_in)
    ]
    desk.answer(FULL)
    for _ in range(signed_in):
        desk.answer()
    assert all(reply.done for reply in replies)
    assert desk.stored()[key.key].since == signed_in
    desk.wait()
    while desk.sent:
        desk.answer()
        assert desk.stored()[key.key].since == signed_in, "at no time is it missing"
    assert desk.writer.idle
    assert desk.keys[key.key].since == signed_in


def test_of_several_that_failed_each_is_stored_before_what_came_after_it(desk: Desk) -> None:
    first, second, *_ = KEYS
    desk.store.commit([Put(first), Put(second)])
    desk.revoke(first)
    desk.sign_in(msgspec.structs.replace(first, since=1.0))
    desk.revoke(second)
    desk.sign_in(msgspec.structs.replace(second, since=2.0))
    desk.revoke(first)
    for error in (FULL, None, FULL, None, FULL):
        desk.answer(error)
    desk.finish()
    assert desk.stored() == {second.key: msgspec.structs.replace(second, since=2.0)}
    assert desk.keys.get(first.key) is None
