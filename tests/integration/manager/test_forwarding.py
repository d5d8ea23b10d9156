"""What becomes of a request whose actor ends."""

from __future__ import annotations

from typing import Any

import pytest

from manta.actors import Actor, ActorDead, ActorSystem, ChildSpec, Refused, Unanswered
from manta.manager.gateway.forwarder import Forwarder
from manta.protocol.codes import Code
from manta.testing import crash, wait_until


class Slow(Actor):
    """Answers later, as who waits for the disk does."""

    def __init__(self, heard: list[object]) -> None:
        self._heard = heard

    def receive(self, message: Any) -> None:
        self.defer()
        self._heard.append(message)


class Front(Actor):
    def on_start(self) -> None:
        context: Any = None  # of which `ask` needs nothing
        self._forwarder = Forwarder(self, context)

    def receive(self, message: Any) -> None:
        self._forwarder.ask("slow", message, self.defer())


@pytest.mark.parametrize("how", ["stops", "crashes"])
def test_what_an_actor_had_heard_when_it_ended_may_have_been_carried_out(how: str) -> None:
    heard: list[object] = []
    with ActorSystem("manager") as system:
        slow = system.spawn(ChildSpec("slow", lambda: Slow(heard)))
        front = system.spawn(ChildSpec("front", Front))
        asked = front.ask_future("start", timeout=60)
        wait_until(lambda: heard)
        if how == "stops":
            slow.stop()
        else:
            crash(slow)
        assert isinstance(asked.exception(60), Unanswered)


def test_what_comes_to_an_actor_that_has_ended_can_be_asked_again() -> None:
    with ActorSystem("manager") as system:
        front = system.spawn(ChildSpec("front", Front))
        error = front.ask_future("start", timeout=60).exception(60)
        assert isinstance(error, Refused)
        assert error.code == Code.UNAVAILABLE
        assert not isinstance(error, ActorDead)
