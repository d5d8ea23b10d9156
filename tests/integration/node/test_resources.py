"""What tasks ask of a real node: GPUs of their own, turns by priority, and no more than they said.

There are no GPUs here: what finds them is replaced, and a task says which it was told of.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from manta.apis.errors import Unplaceable
from manta.node.capabilities import gpus
from manta.node.link import self_description
from manta.node.runners.gpus import Gpu
from manta.protocol.machine import GpuInfo
from tests.integration.node.conftest import CLUSTER

GIB = 1 << 30
SPANS = """
import os, time
from manta.light import World

def main():
    began = time.time()
    time.sleep({seconds})
    visible = os.environ["CUDA_VISIBLE_DEVICES"]
    World().results.add("span", (began, time.time(), visible, os.getppid()))
"""


def card(number: int, memory: int = 24 * GIB) -> Gpu:
    id_ = f"GPU-{number}"
    return Gpu(GpuInfo("A", memory, id_), Path("/dev/null"), id_)


@pytest.fixture
def cards(monkeypatch) -> list[Gpu]:
    found = [card(0)]
    monkeypatch.setattr(gpus, "find", lambda: gpus.Found(tuple(found)))
    return found


def spans(lab, api, swarm: str) -> list[tuple[Any, ...]]:
    return sorted(tuple(item.value) for item in api.stream_results(swarm))


def ended(api, *swarms) -> list[str]:
    return [api.wait_swarm(swarm, timeout=120).status for swarm in swarms]


def test_a_gpu_is_one_task_s_at_a_time_and_its_warm_runtime_leaves_it_to_the_next(
    lab, cards: list[Gpu], tmp_path: Path
) -> None:
    """Each writes down which process it is a child of, and looks who of the others lives still."""
    api = lab.api()
    lab.node(1, resources={"max_concurrent_tasks": 4})
    code = f"""
import os, time
from manta.light import World

def main():
    began, me = time.time(), os.getppid()
    others = {{int(name) for name in os.listdir({str(tmp_path)!r})}} - {{me}}
    alive = [pid for pid in others if os.path.exists(f"/proc/{{pid}}")]
    open({str(tmp_path)!r} + f"/{{me}}", "w").close()
    time.sleep(0.2)
    visible = os.environ["CUDA_VISIBLE_DEVICES"]
    World().results.add("span", (began, time.time(), visible, alive))
"""
    both = [api.deploy_swarm(CLUSTER, lab.swarm(code, gpu=True, iterations=2)) for _ in range(2)]
    without = lab.run(api, lab.swarm(SPANS.format(seconds=0)))
    assert ended(api, *both) == ["COMPLETED", "COMPLETED"]
    assert [span[2] for span in spans(lab, api, without)] == [""]
    found = sorted(span for one in both for span in spans(lab, api, one))
    assert [span[2:] for span in found] == [("GPU-0", [])] * 4
    for earlier, later in itertools.pairwise(found):
        assert earlier[1] <= later[0]
    lab.wait_until(lambda: api.get_node("node-1").load.gpu_room == (24 * GIB,))


def test_who_has_a_gpu_again_keeps_its_warm_runtime(lab, cards: list[Gpu]) -> None:
    api = lab.api()
    lab.node(1, resources={"max_concurrent_tasks": 4})
    ran = lab.run(api, lab.swarm(SPANS.format(seconds=0), gpu=True, iterations=3))
    assert len({span[3] for span in spans(lab, api, ran)}) == 1


def test_what_the_machine_has_is_told_anew_and_a_node_without_a_gpu_says_so(
    lab, cards: list[Gpu], monkeypatch
) -> None:
    monkeypatch.setattr(self_description, "EVERY", 0.1)
    monkeypatch.setattr(self_description, "PAUSES", 0.0)
    cards.clear()
    api = lab.api()
    lab.node(1, resources={"max_concurrent_tasks": 1}, labels={"room": "3"})
    wants = {"gpu": 4, "gpu_memory": "24 GiB"}
    with pytest.raises(Unplaceable, match="node-1 has no GPU, 4 GPUs of 24 GiB are asked for"):
        api.deploy_swarm(CLUSTER, lab.swarm(SPANS, resources=wants))
    with pytest.raises(Unplaceable, match=r'add room = "4" to \[labels\] of its configuration'):
        api.deploy_swarm(CLUSTER, lab.swarm(SPANS, resources={"labels": {"room": "4"}}))
    cards += [card(0), card(1)]
    lab.wait_until(lambda: len(api.get_node("node-1").platform_info.gpus) == 2)
    with pytest.raises(Unplaceable, match="node-1 has 2 GPUs, of which 2 are free, 4 GPUs of 24"):
        api.deploy_swarm(CLUSTER, lab.swarm(SPANS, resources=wants))
    ran = lab.run(api, lab.swarm(SPANS.format(seconds=0), resources={"gpu": 2}))
    assert spans(lab, api, ran)[0][2] == "GPU-0,GPU-1"


def test_the_higher_priority_goes_first(lab) -> None:
    api = lab.api()
    lab.node(1, resources={"max_concurrent_tasks": 1})
    gate = lab.folder / "gate"
    holds = f"import os, time\ndef main():\n    while not os.path.exists({str(gate)!r}):\n"
    holder = api.deploy_swarm(CLUSTER, lab.swarm(holds + "        time.sleep(0.02)\n"))
    lab.wait_until(lambda: api.get_node("node-1").load.tasks_running == 1)
    code = SPANS.format(seconds=0)
    order = [api.deploy_swarm(CLUSTER, lab.swarm(code, priority=p)) for p in (-1, 0, 7, 3)]
    lab.wait_until(lambda: api.get_node("node-1").load.tasks_queued == 4)
    gate.touch()
    assert ended(api, holder, *order) == ["COMPLETED"] * 5
    began = [spans(lab, api, swarm)[0][0] for swarm in order]
    assert sorted(range(4), key=began.__getitem__) == [2, 3, 1, 0]


def test_200_tasks_on_2_places_all_run_and_never_more_than_2_at_a_time(lab) -> None:
    api = lab.api()
    lab.node(1, resources={"max_concurrent_tasks": 2})
    deployed = api.deploy_swarm(CLUSTER, lab.swarm(SPANS.format(seconds=0), replicas=200))
    assert ended(api, deployed) == ["COMPLETED"]
    found = spans(lab, api, deployed)
    assert len(found) == 200
    moves = sorted([(one[0], 1) for one in found] + [(one[1], -1) for one in found])
    assert max(itertools.accumulate(change for _, change in moves)) <= 2


def test_who_keeps_more_than_the_disk_it_asked_for_is_ended_and_told_so(lab) -> None:
    api = lab.api()
    lab.node(1)
    code = """
import os, time
def main():
    with open(os.path.join(os.environ["TMPDIR"], "file"), "wb") as file:
        file.write(os.urandom(5_000_000))
    time.sleep(60)
"""
    swarm = lab.run(api, lab.swarm(code, resources={"disk": "1MB"}), "FAILED")
    [error] = api.collect_errors(swarm)
    assert "5.0 MB in its scratch folder, and 1.0 MB it asked for" in str(error)
    assert "resources={'disk': ...}" in str(error)
    with pytest.raises(Unplaceable, match=r"lets a task keep 10 GiB on its disk"):
        api.deploy_swarm(CLUSTER, lab.swarm(code, resources={"disk": "11 GiB"}))


# Quotas.


def test_a_task_is_refused_at_its_node_what_is_beyond_a_quota_and_may_go_on(lab) -> None:
    api = lab.api()
    lab.node(1)
    api.set_quota("results", 5, cluster=CLUSTER)
    code = """
import time
from manta.light import World
from manta.light.errors import ResourceExhaustionError

def main():
    world, refused = World(), ""
    for number in range(40):
        try:
            world.results.add("number", number)
        except ResourceExhaustionError as error:
            world.globals["refused"] = str(error)
            return number
        time.sleep(0.05)  # the manager is to say what is left
"""
    ran = lab.run(api, lab.swarm(code))
    assert api.select_global(ran, "refused").startswith("The swarm ")
    assert "has 5 results and asks for 1 more, and the quota results is 5" in (
        api.select_global(ran, "refused")
    )
    assert len([item for item in api.stream_results(ran) if item.tag == "number"]) == 5


def test_what_a_swarm_keeps_on_a_node_has_a_bound(lab) -> None:
    api = lab.api()
    lab.node(1, resources={"scratch_mb": 1})
    code = """
from manta.light import Local, World
from manta.light.errors import ResourceExhaustionError

def main():
    local = Local()
    local.set_state("a", bytes(900_000))
    local.set_state("a", bytes(900_001))
    try:
        local.set_state("b", bytes(200_000))
    except ResourceExhaustionError as error:
        World().globals["refused"] = str(error)
    return len(local.get_state("a"))
"""
    ran = lab.run(api, lab.swarm(code))
    assert "keeps 0.9 MB of state on this node and asks for 0.2 MB" in (
        api.select_global(ran, "refused")
    )
