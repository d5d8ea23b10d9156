"""Tasks that connect to what their node's owner allows, in sandboxes, to listeners of the test."""

from __future__ import annotations

from typing import Any

import pytest

from manta.apis.errors import Unplaceable
from manta.node.outbound import ways
from tests.integration.node.conftest import CLUSTER
from tests.support import isolated
from tests.support.reaching import Reaching, echo, output, records


@pytest.fixture
def node(lab, bubblewrap: None, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("manta.node.service.node.choose_runner", isolated.choose("bwrap"))

    def start(*allow: str) -> Any:
        return lab.node(1, network={"allow": list(allow)})

    return start


@pytest.mark.parametrize("of_module", [True, False])
def test_a_raw_connection_to_what_is_allowed_works_and_nothing_else_does(
    lab, node, of_module: bool
) -> None:
    with echo() as port, echo() as other:
        node(f"localhost:{port}", f"127.0.0.1:{port}")
        returns = f"[outcome('localhost', {port}), outcome('localhost', {other}), "
        returns += f"outcome('127.0.0.1', {other}), outcome('elsewhere.invalid', {port})]"
        swarm = Reaching(returns, f"outbound:localhost:{port}", of_module=of_module)
        found = output(lab, lab.api(), swarm)
    assert found == ["HELLO", "ConnectionRefusedError", "ConnectionRefusedError", "gaierror"]


def test_an_address_works_as_well_as_a_name_and_a_port_below_1024(lab, node) -> None:
    with echo() as port:
        node(f"127.0.0.0/8:{port}", "name.invalid:443")
        returns = f"[outcome('127.0.0.1', {port}), outcome('name.invalid', 443)]"
        ways_ = (f"outbound:127.0.0.1:{port}", "outbound:name.invalid:443")
        assert output(lab, lab.api(), Reaching(returns, *ways_)) == [
            "HELLO",
            "ConnectionResetError",
        ]


def test_much_goes_both_ways_and_is_counted(lab, node) -> None:
    size = 8 << 20
    with echo() as port:
        here = node(f"127.0.0.1:{port}")
        returns = f"len(said('127.0.0.1', {port}, b'a' * {size}))"
        way = f"outbound:127.0.0.1:{port}"
        assert output(lab, lab.api(), Reaching(returns, way)) == size
    lab.wait_until(lambda: records(here, "connections-ended"))
    [ended] = records(here, "connections-ended")
    totals = {"connections": 1, "failed": 0, "sent": size, "received": size}
    assert ended["connections"] == {f"127.0.0.1:{port}": totals}
    [opened] = records(here, "connection-opened")
    assert (opened["to"], opened["address"]) == (f"127.0.0.1:{port}", "127.0.0.1")
    [began] = records(here, "attempt-began")
    assert began["outbound"] == [way]


def test_a_name_leads_to_no_private_address_that_is_not_allowed_itself(
    lab, node, monkeypatch: pytest.MonkeyPatch
) -> None:
    with echo() as port:
        node(f"localhost:{port}")
        api = lab.api()
        way = f"outbound:localhost:{port}"
        swarm_id = lab.run(api, Reaching(f"outcome('localhost', {port})", way))
        assert [task.output for task in api.get_tasks(swarm_id)] == ["ConnectionResetError"]
    said = [line.text for line in api.collect_logs(swarm_id)]
    assert any("which is no public address" in text and "127.0.0.1" in text for text in said), said


def test_what_the_owner_does_not_allow_is_refused_before_it_runs(lab, node) -> None:
    node("api.example:443")
    with pytest.raises(Unplaceable, match=r"does not let tasks connect to api\.example:80"):
        lab.api().deploy_swarm(CLUSTER, Reaching("1", "outbound:api.example:80"))


def test_a_check_says_where_a_task_may_connect_to(lab, node) -> None:
    node("*.example:443")
    told = lab.api().check_swarm(CLUSTER, Reaching("1", "outbound:api.example:443"))
    assert told.provided == ("Task 'task' may connect to api.example:443, from node-1.",)


def test_a_level_without_a_network_of_its_own_lets_nothing_out(
    lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("manta.node.service.node.choose_runner", isolated.choose("landlock"))
    lab.node(1, network={"allow": ["api.example:443"]})
    with pytest.raises(Unplaceable, match="at which there are no ways out"):
        lab.api().deploy_swarm(CLUSTER, Reaching("1", "outbound:api.example:443"))


def test_connections_of_a_task_are_bounded(lab, node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ways, "MOST", 2)
    with echo() as port:
        node(f"127.0.0.1:{port}")
        returns = f"""attempts({port})

def attempts(port):
    import time
    kept = [socket.create_connection(("127.0.0.1", port), 20) for _ in range(2)]
    for one in kept:
        one.sendall(b"x")
    found = outcome("127.0.0.1", port)
    for one in kept:
        one.close()
    return found
"""
        api = lab.api()
        swarm_id = lab.run(api, Reaching(returns, f"outbound:127.0.0.1:{port}"))
        assert [task.output for task in api.get_tasks(swarm_id)] == ["ConnectionResetError"]
    said = [line.text for line in api.collect_logs(swarm_id)]
    assert any("the task has 2 connections, and may have no more" in text for text in said), said


PRIVILEGES = """
def fields():
    with open("/proc/self/status") as file:
        return {line.split(":")[0]: line.split()[1] for line in file if line.startswith("Cap")}
"""


def test_a_task_with_a_way_out_has_no_capability_and_makes_no_namespace(lab, node) -> None:
    node("127.0.0.1:1")
    returns = f"""[*fields().values(), unshared()]

def unshared():
    import ctypes, os
    libc = ctypes.CDLL(None, use_errno=True)
    return libc.unshare(0x10000000)
{PRIVILEGES}
"""
    found = output(lab, lab.api(), Reaching(returns, "outbound:127.0.0.1:1"))
    assert {int(each, 16) for each in found[:-1]} == {0}
    assert found[-1] == -1
