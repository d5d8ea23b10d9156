"""Tasks in containers connect to what their node's owner allows, to listeners of the test."""

from __future__ import annotations

from typing import Any

import pytest

from manta import Module
from manta.apis.errors import Unplaceable
from tests.integration.docker.conftest import DockerLab
from tests.integration.node.conftest import CLUSTER
from tests.support.reaching import Reaching, echo, output, records

STATUS = """
def fields():
    with open("/proc/self/status") as file:
        return {line.split(":")[0]: line.split()[1] for line in file if line.startswith("Cap")}
"""


def test_a_raw_connection_to_what_is_allowed_works_and_nothing_else_does(lab: DockerLab) -> None:
    with echo() as port, echo() as other:
        node = lab.node(1, network={"allow": [f"127.0.0.0/8:{port}", "name.invalid:443"]})
        returns = f"[outcome('127.0.0.1', {port}), outcome('127.0.0.1', {other}), "
        returns += "outcome('name.invalid', 443), outcome('elsewhere.invalid', 443), "
        returns += "os.listdir(os.environ['HOME']), *fields().values()]"
        returns += f"\n\nimport os\n{STATUS}"
        ways = (f"outbound:127.0.0.1:{port}", "outbound:name.invalid:443")
        api = lab.api()
        said, refused, reset, unknown, scratch, *capabilities = output(
            lab, api, Reaching(returns, *ways)
        )
    assert (said, refused, reset) == ("HELLO", "ConnectionRefusedError", "ConnectionResetError")
    assert unknown == "gaierror"
    assert scratch == []  # the socket by which the node was handed its ways is gone
    assert {int(each, 16) for each in capabilities} == {0}
    lab.wait_until(lambda: records(node, "connections-ended"))
    [ended] = records(node, "connections-ended")
    assert ended["connections"][f"127.0.0.1:{port}"]["connections"] == 1
    lab.gone()


def test_what_no_container_can_do_is_refused_before_it_runs(lab: DockerLab) -> None:
    node: Any = lab.node(1, network={"allow": ["10.0.0.0/8:5432", "api.example:443"]})
    api = lab.api()
    with pytest.raises(Unplaceable, match=r"can't have the address of 10\.1\.2\.3:5432: name the"):
        api.deploy_swarm(CLUSTER, Reaching("1", "outbound:10.1.2.3:5432"))
    alone = Module(
        None, node.context.config.default_image, name="task", network="outbound:api.example:443"
    )
    with pytest.raises(Unplaceable, match="runs an image alone, whose entry point makes no ways"):
        api.deploy_swarm(CLUSTER, lab.of(alone))
