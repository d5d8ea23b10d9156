"""What a swarm does while the store cannot be written."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

from manta.manager.access import Access
from manta.manager.errors import StorageUnavailable, StoreError
from manta.manager.store.actor import Writer
from manta.manager.swarm.commits import Commit, Commits
from manta.manager.swarm.events import (
    Acknowledge,
    Action,
    Assign,
    Began,
    Publish,
    Revoke,
    StateChanged,
)
from manta.protocol.node import Assignment, Instance
from manta.protocol.states import SwarmState
from manta.protocol.user import SwarmInfo

FULL = StorageUnavailable("The disk is full.")
FIRST, SECOND = (Instance("s", "task", index, 0) for index in (0, 1))
GIVEN = cast("Assignment", SimpleNamespace(instance=SECOND))
SEEN = {"results": 0}


def info(status: str) -> SwarmInfo:
    return SwarmInfo("s", "swarm", "cluster", status)


class Swarm:
    """Commits of a swarm whose store answers when a test says so."""

    def __init__(self) -> None:
        self.answers: list[Callable[[StoreError | None], None]] = []
        self.performed: list[Action] = []
        self.shown: list[str] = []
        self.told: list[StoreError | None] = []
        writer = SimpleNamespace(write=lambda *_, then, keep: self.answers.append(then))
        self.commits = Commits(
            "ada",
            0,
            info("ACTIVE"),
            SEEN,
            cast("Writer", writer),
            self._perform,
            cast("Access", SimpleNamespace(named=lambda *_: None)),
        )

    def _perform(self, commit: Commit) -> None:
        self.performed += commit.actions
        if commit.info is not None:
            self.shown.append(commit.info.status)
        for then in commit.then:
            then(None)

    def say(self, *actions: Action, status: str = "ACTIVE", ends: bool = False) -> None:
        self.commits.add((), [b"event"], list(actions), info(status), SEEN, self.told.append, ends)

    def store(self, error: StoreError | None = None) -> None:
        """The answer about the first that waits."""
        self.answers[0](error)
        if error is None:
            del self.answers[0]


STOPPED = StateChanged(SwarmState.STOPPED, "by ada", True)


def test_an_end_that_cannot_be_stored_is_in_effect_and_begins_nothing_that_came_before() -> None:
    swarm = Swarm()
    swarm.say(Acknowledge("node", 1), Assign("node", GIVEN), Began("node", FIRST))
    swarm.say(Publish("results"), Revoke("node", FIRST))
    swarm.say(STOPPED, Revoke("node", SECOND), Publish("events"), status="STOPPED", ends=True)
    swarm.store(FULL)
    assert swarm.performed == [Revoke("node", FIRST), STOPPED, Revoke("node", SECOND)]
    assert swarm.shown == ["STOPPED"]
    assert swarm.commits.shown.status == "STOPPED"
    assert swarm.told == [FULL] * 3
    swarm.store(FULL)
    assert len(swarm.performed) == 3, "once"
    for _ in range(3):
        swarm.store()
    assert swarm.performed[3:] == [Acknowledge("node", 1), Publish("results"), Publish("events")]
    assert swarm.shown == ["STOPPED"]
    assert swarm.commits.settled


def test_what_ends_nothing_waits_until_it_is_stored() -> None:
    swarm = Swarm()
    swarm.say(Assign("node", GIVEN))
    swarm.say(StateChanged(SwarmState.PAUSED, "by ada"), status="PAUSED")
    swarm.store(FULL)
    assert swarm.performed == []
    assert swarm.told == [FULL] * 2
    swarm.store()
    swarm.store()
    assert swarm.performed == [Assign("node", GIVEN), StateChanged(SwarmState.PAUSED, "by ada")]
    assert swarm.shown == ["PAUSED"]


def test_an_end_that_can_be_stored_is_performed_in_its_turn() -> None:
    swarm = Swarm()
    swarm.say(Assign("node", GIVEN))
    swarm.say(STOPPED, status="STOPPED", ends=True)
    swarm.store()
    assert swarm.performed == [Assign("node", GIVEN)]
    swarm.store()
    assert swarm.performed == [Assign("node", GIVEN), STOPPED]
    assert swarm.told == [None, None]
