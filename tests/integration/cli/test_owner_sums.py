"""A node whose owner lets values leave in sums alone, among others: of a real manager and nodes."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest

from manta.testing import wait_until
from tests.support.lab import Lab
from tests.support.owners import Owner

pytestmark = pytest.mark.timeout(600)

POLICY = """\
new_keys = "first"
[[rule]]
name = "sums"
datasets = ["ward"]
share = "all_reduce"
cohort = 3
"""
SWARM = '''
from manta import Module, Swarm, Task

CODE = """
from manta.light import Local, World
from manta.light.errors import RequestFailed

def main():
    world = World()
    rows = Local().get_dataset("ward")
    print("rows", rows)
    total = world.all_reduce(float(rows.sum()), private=True)
    try:
        world.results.add("total", total)
    except RequestFailed:
        pass  # the others may
    {more}
"""

class Study(Swarm):
    def __init__(self) -> None:
        super().__init__()
        self.only = Task(Module(CODE, name="sums", datasets=["ward"]), method="all")
'''


@pytest.fixture(scope="module")
def owner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Owner]:
    """Of `ward`, beside two nodes of others who let all leave."""
    folder = tmp_path_factory.mktemp("o")
    owner = Owner(Lab(folder / "h"), folder)
    lab, others = owner.lab, ("second", "third")
    owner.policy.write_text(POLICY)
    try:
        lab.sign_in(lab.start().stdout)
        lab("cluster", "create", "lab")
        for number, name in enumerate(("ward", *others)):
            data = folder / f"{name}.npy"
            np.save(data, np.full(3, 10.0**number))
            made = ("--manager-host", "127.0.0.1", "--manager-port", lab.ports[0])
            mine = ("--policy", owner.policy) if name == "ward" else ()
            more = ("--alias", name, "--id", "random", "--dataset", f"ward={data}", *mine)
            owner("config", "init", name, *made, *more, "--allow-unsandboxed")
            owner("start", name, "--background", token=lab("node", "token", "lab"))
        yield owner
    finally:
        for name in ("ward", *others):
            owner.attempt("stop", name)
        lab.attempt("manager", "stop")


def ended(owner: Owner, more: str = "pass") -> tuple[str, str]:
    """The swarm's id, and why it failed, if so."""
    (owner.folder / "swarm.py").write_text(SWARM.replace("{more}", more))
    sent = owner.lab("deploy", "--cluster", "lab", "--json", owner.folder / "swarm.py")
    swarm = str(json.loads(sent)["swarm_id"])
    return swarm, owner.ended(swarm)["reason"]


def stopped(owner: Owner, swarm: str) -> list[str]:
    acts = [one for one in owner.acts() if one["act"] == "value-stopped"]
    return [one["about"]["why"] for one in acts if one["about"]["swarm_id"] == swarm]


def test_the_sum_is_published_by_others_and_nothing_else_leaves(owner: Owner) -> None:
    swarm, _ = ended(owner)
    found = json.loads(owner.lab("results", swarm, "--json"))
    assert sorted((one["node"], one["value"]) for one in found) == [
        ("second", 333.0), ("third", 333.0),
    ]  # fmt: skip
    left = [one["about"] for one in owner.acts() if one["act"] == "value-left"]
    assert [(one["what"], one["bytes"]) for one in left if one["swarm_id"] == swarm] == [
        ("sum", 8), ("output", 17),
    ]  # fmt: skip
    assert ["no value may leave by itself" in why for why in stopped(owner, swarm)] == [True]
    lines = json.loads("[" + ",".join(owner.lab("logs", swarm, "--json").splitlines()) + "]")
    assert {one["node_alias"] for one in lines if one["text"].startswith("rows")} == {
        "second", "third",
    }  # fmt: skip
    traced = json.loads(owner.lab("explain", swarm, "--result", "total", "--json"))
    assert {one["node_alias"] for one in traced["made"]} == {"second", "third"}
    assert [one["node_alias"] for one in traced["before"]] == ["ward"]


@pytest.mark.parametrize(
    "more",
    ["world.all_gather(total)", "world.broadcast('rows', total)", "world.all_reduce(total)"],
)
def test_what_gives_a_value_to_others_fails_and_is_recorded(owner: Owner, more: str) -> None:
    swarm, reason = ended(owner, more)
    assert "the owner of its node holds back what that says" in reason
    assert "values leave in sums of 3 nodes or more alone" in owner.lab("explain", swarm) + reason
    wait_until(lambda: any("in sums of 3 nodes" in why for why in stopped(owner, swarm)))


FEDERATED = '''
import numpy as np

from manta import Module
from manta.federated import FederatedSwarm
from manta.light.federated import FedAvg

CODE = """
from manta.light import federated

class Worker(federated.Worker):
    def train(self, client):
        mean = self.local.get_dataset("ward").mean()
        return federated.Trained(
            {{"w": client.params["w"] * 0 + mean}}, examples=2, metrics={{"mean": float(mean)}}
        )
"""

class Study(FederatedSwarm):
    def __init__(self) -> None:
        worker = Module(CODE, name="sums", datasets=["ward"])
        super().__init__(
            worker, FedAvg(), {{"w": np.zeros(2)}}, rounds=2, private={private}, min_clients=3
        )
'''


def test_a_private_federated_swarm_trains_where_sums_alone_may_leave(owner: Owner) -> None:
    (owner.folder / "swarm.py").write_text(FEDERATED.format(private=True))
    sent = owner.lab("deploy", "--cluster", "lab", "--json", owner.folder / "swarm.py")
    swarm = str(json.loads(sent)["swarm_id"])
    assert owner.ended(swarm)["status"] == "COMPLETED", owner.lab("explain", swarm)
    (model,) = json.loads(owner.lab("globals", swarm, "--tag", "model", "--json"))
    assert model["value"] == {"w": [37.0, 37.0]}, "the mean of 1, 10 and 100"
    sums = [one for one in json.loads(owner.lab("results", swarm, "--json")) if one["tag"] == "sum"]
    assert {one["node"] for one in sums} == {"second", "third"}
    left = [one["about"] for one in owner.acts() if one["act"] == "value-left"]
    assert [one["what"] for one in left if one["swarm_id"] == swarm and one["bytes"] > 17] == [
        "sum", "sum",
    ]  # fmt: skip
    assert len(stopped(owner, swarm)) == 2, "the sum that this node does not publish, each round"


def test_a_federated_swarm_that_is_not_private_is_stopped_there(owner: Owner) -> None:
    (owner.folder / "swarm.py").write_text(FEDERATED.format(private=False))
    sent = owner.lab("deploy", "--cluster", "lab", "--json", owner.folder / "swarm.py")
    swarm = str(json.loads(sent)["swarm_id"])
    assert owner.ended(swarm)["status"] == "FAILED"
    wait_until(lambda: any("no value may leave by itself" in why for why in stopped(owner, swarm)))


def test_with_fewer_nodes_it_does_not_begin(owner: Owner) -> None:
    owner("stop", "third")
    _, reason = ended(owner)
    assert "cohort = 3, and it has 2 instances" in reason
