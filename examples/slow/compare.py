"""Compares rounds that wait for the slowest node with rounds that do not.

python examples/slow/compare.py chart.png

The chart needs matplotlib: `pip install 'manta-swarm[plot]'`.
"""

import sys
from pathlib import Path

from swarm import Slow

import manta

SHARDS = Path(__file__).parent.parent / "liars" / "shards"
NAMES = {True: "rounds that wait for all", False: "FedBuff, two updates a round"}


def curves():
    """(seconds, accuracy) after each round, by how rounds are made."""
    found = {}
    with manta.LocalCluster(nodes=4, datasets={"digits": SHARDS / "{i}.npz"}) as api:
        for together, name in NAMES.items():
            swarm_id = api.deploy_swarm(Slow(together))
            ended = api.wait_swarm(swarm_id)
            assert ended.status == "COMPLETED", ended.reason
            (found[name],) = api.get_swarm_results(swarm_id, "curve").values()
    return found


def draw(found, path):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    axes = figure.add_subplot()
    for name, curve in found.items():
        axes.plot(*zip(*curve, strict=True), marker=".", label=name)
    axes.set_title("Accuracy, one of three nodes is slow", loc="left", fontsize=11)
    axes.set_xlabel("seconds")
    axes.grid(color="0.92")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    found = curves()
    for name, curve in found.items():
        print(f"{name:30} 90 % after {curve[-1][0]:.1f} s")
    if len(sys.argv) > 1:
        draw(found, sys.argv[1])
