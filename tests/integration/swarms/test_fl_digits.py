"""The main job's result, recomputed outside the swarm."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from manta.cli.loading import load_swarm
from manta.cli.local.cluster import CLUSTER, LocalCluster
from manta.testing.clusters import client, running

EXAMPLE = Path(__file__).parents[3] / "examples" / "fl_digits"
NODES = 4


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"recomputed_{path.stem}", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_accuracy_that_is_told_is_that_of_the_final_model(tmp_path: Path) -> None:
    shards = [sys.executable, str(EXAMPLE / "make_shards.py"), "--folder", str(tmp_path)]
    dealt = subprocess.run(shards, check=True, capture_output=True, text=True).stdout
    with (
        running(LocalCluster, NODES, digits=f"{tmp_path}/node{{i}}.npz") as cluster,
        client(cluster) as api,
    ):
        swarm = load_swarm(str(EXAMPLE / "swarm.py"), {})
        ended = api.wait_swarm(api.deploy_swarm(CLUSTER, swarm), timeout=100)
        assert ended.status == "COMPLETED", ended.reason
        model = api.select_global(ended, "model")
        told = api.get_swarm_results(ended, "evaluated")(ended.iteration).by_node()
        said = [m for m in api.get_metrics(ended) if "overall accuracy" in m.metrics][-1]
        aliases = {node.id: node.alias for node in api.list_nodes(CLUSTER)}

    mlp = load(EXAMPLE / "mlp.py")
    right = total = 0
    for node_id, value in told.items():
        index = int(aliases[node_id].removeprefix("node-")) - 1
        with np.load(tmp_path / f"node{index}.npz") as shard:
            x, y = shard["x_test"], shard["y_test"]
            counts = np.bincount(np.concatenate([y, shard["y_train"]]), minlength=10)
        assert mlp.accuracy(model, x, y) == pytest.approx(value["accuracy"])
        assert len(y) == value["samples"]
        right += int((mlp.logits(model, x).argmax(axis=1) == y).sum())
        total += len(y)
        # What was printed when the shards were dealt is what the node holds.
        row = next(line for line in dealt.splitlines() if f"node-{index + 1} " in line)
        assert row.split()[1:11] == [str(count) for count in counts]
    assert len(told) == NODES
    assert right / total >= 0.95
    assert said.metrics["overall accuracy"] == pytest.approx(right / total)
    assert said.iteration == ended.iteration
