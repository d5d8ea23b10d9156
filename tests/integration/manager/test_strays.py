"""A node that asks again and again about swarms of which it runs nothing is slowed, and told of."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from manta.actors import Refused
from manta.manager.gateway import strays
from manta.manager.quotas.rate import Rate
from manta.protocol.clusters import ListNodes
from manta.protocol.codes import Code
from manta.protocol.node import ListGlobals, ReadGlobal
from manta.protocol.paths import MANAGER_LINK
from manta.testing import wait_until
from manta.testing.manager import Client, FakeNode
from tests.integration.manager.test_swarms import deploy, round_trip, silent

UNKNOWN = ListGlobals("0" * 16)


def asked(node: FakeNode, message: Any) -> Any:
    """A future of the answer."""
    link = node.system.find(MANAGER_LINK)
    return link.ask_future(lambda link: link.forward(message), timeout=60)


def is_refused(node: FakeNode, message: Any) -> bool:
    with pytest.raises(Refused) as refused:
        node.ask(message)
    return refused.value.code == Code.UNKNOWN_SWARM


@pytest.fixture
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two at once, and another each thousand seconds."""
    monkeypatch.setattr(strays, "REFUSALS", Rate(0.001, 2.0))


@pytest.mark.usefixtures("_few")
def test_refusals_of_one_node_are_delayed_and_told_and_nothing_else_is(
    admin: Client, nodes, caplog: pytest.LogCaptureFixture
) -> None:
    one, other = nodes(2, silent)
    swarm = deploy(admin, round_trip(maximum=1))
    wait_until(lambda: one.ran or other.ran)
    stray, good = (other, one) if one.ran else (one, other)
    with caplog.at_level(logging.WARNING):
        # By the gateway and by the swarm: they count together.
        assert is_refused(stray, UNKNOWN)
        assert is_refused(stray, ReadGlobal(swarm, "secret"))
        assert is_refused(stray, UNKNOWN)
        late = [asked(stray, UNKNOWN), asked(stray, ReadGlobal(swarm, "secret"))]
        wait_until(lambda: "again and again about swarms" in caplog.text)
    assert good.ask(ListGlobals(swarm)).tags == ()
    assert is_refused(good, UNKNOWN)
    assert admin.ask(ListNodes("lab")).nodes
    assert [future.done() for future in late] == [False, False]
    assert caplog.text.count("again and again about swarms") == 1, "once a minute"


def test_a_delayed_refusal_comes_when_it_is_due(nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strays, "REFUSALS", Rate(10.0, 1.0))
    [node] = nodes(1, silent)
    late = [asked(node, UNKNOWN) for _ in range(5)]
    assert {future.exception(30).code for future in late} == {Code.UNKNOWN_SWARM}


@pytest.mark.usefixtures("_few")
def test_who_has_as_many_unanswered_as_a_link_may_loses_it(
    nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strays, "ASKS_PER_LINK", 3)
    [node] = nodes(1, silent)
    registered = node.registrations
    for _ in range(10):
        asked(node, UNKNOWN)
    wait_until(lambda: node.registrations > registered, 20)
