"""How a peer gets in: by which doors, and where it may connect to."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from manta.mesh.door import Card, NotAdmitted, Trust
from manta.mesh.peer import knocking
from manta.mesh.peer.control import Control
from manta.mesh.peer.knocking import Address, JoinFailed, get_in
from manta.roster.topologies import Topology

OWN = Card("o" * 40, "own", ())
OTHER = Card("x" * 40, "other", ("tcp://10.0.0.2:4712", "tcp://192.168.1.1:22"))
TRUST = Trust(bytes(32))


def everywhere(host: str) -> bool:
    return True


@pytest.fixture
def doors(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[int, object]], list[Address]]:
    """What comes of knocking, by port: cards, or an exception."""

    def given(by_port: dict[int, object]) -> list[Address]:
        def knock(address: tuple[str, int], *_: object) -> object:
            found = by_port[address[1]]
            if isinstance(found, Exception):
                raise found
            return found

        monkeypatch.setattr(knocking, "knock", knock)
        return [Address(f"10.0.0.1:{port}", TRUST) for port in by_port]

    return given


def test_the_next_door_is_tried_where_one_refuses_or_is_away(doors: Callable) -> None:
    known = doors({1: NotAdmitted("no"), 2: OSError("away"), 3: (OTHER,)})
    assert get_in(known, OWN, 5.0, everywhere) == (OTHER,)


def test_who_is_refused_is_told_at_once_and_by_whom(doors: Callable) -> None:
    known = doors({1: OSError("away"), 2: NotAdmitted("another secret")})
    with pytest.raises(JoinFailed, match=r"10\.0\.0\.1:2 does not let .*: another secret"):
        get_in(known, OWN, 1e9, everywhere)


def test_nobody_there_is_told_with_all_reasons(doors: Callable) -> None:
    known = doors({1: OSError("away"), 2: OSError("refused")})
    with pytest.raises(JoinFailed, match=r"1: away; 10\.0\.0\.1:2: refused"):
        get_in(known, OWN, 0.0, everywhere)


def test_no_door_is_knocked_at_where_the_host_is_not_allowed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as there:
        there.settimeout(0.0)
        known = [Address(f"127.0.0.1:{there.getsockname()[1]}", TRUST)]
        with pytest.raises(JoinFailed, match=r"127\.0\.0\.1 is no node of the swarm"):
            get_in(known, OWN, 5.0, lambda host: host == "10.0.0.2")
        with pytest.raises(BlockingIOError):
            there.accept()


def test_no_link_goes_to_an_address_that_is_not_allowed() -> None:
    def unused(*_: object) -> None: ...

    allowed = "10.0.0.2".__eq__
    control = Control(OWN, Topology.of("full"), unused, unused, unused, allowed)
    assert control.known._peer(OTHER).addresses == ("tcp://10.0.0.2:4712",)
