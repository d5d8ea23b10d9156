"""Compares what each hospital learns alone, all together by FedAvg, and from pooled records.

python examples/hospitals/compare.py chart.png

All models are tested on the held-out patients of all hospitals. The chart needs matplotlib:
`pip install 'manta-swarm[plot]'`.
"""

import sys
from pathlib import Path

import logistic
import make_shards
import numpy as np
from swarm import Hospitals

ROUNDS, STEPS = 15, 5


def trained(x, y):
    """Accuracies by round of a model that sees these patients alone."""
    test_x, test_y = pooled("test")
    model, found = {"w": np.zeros(30), "b": np.zeros(())}, []
    for _ in range(ROUNDS):
        model = logistic.train(model, x, y, steps=STEPS, rate=0.2)
        found.append(logistic.accuracy(model, test_x, test_y))
    return found


def shards():
    return [np.load(make_shards.SHARDS / f"{hospital}.npz") for hospital in range(4)]


def pooled(part):
    return tuple(np.concatenate([shard[f"{name}_{part}"] for shard in shards()]) for name in "xy")


def by_themselves():
    """Accuracies by round, by who learned: each hospital, and all records in one place."""
    found = {
        f"hospital {at} alone": trained(shard["x_train"], shard["y_train"])
        for at, shard in enumerate(shards())
    }
    return found | {"pooled records": trained(*pooled("train"))}


def compared():
    found = by_themselves()
    outcome = Hospitals(rounds=ROUNDS).run(
        nodes=4, datasets={"patients": make_shards.SHARDS / "{i}.npz"}, logs=False
    )
    found["together, by FedAvg"] = [one["accuracy"] for one in outcome.globals["history"]]
    return found


def draw(found, path, size=(7.2, 4.0)):
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    for name, accuracies in found.items():
        alone = "alone" in name
        style = {"color": "0.6", "linewidth": 1.2} if alone else {"linewidth": 2.2}
        if name == "pooled records":
            style.update(linestyle="--", zorder=3)
        axes.plot(range(1, ROUNDS + 1), accuracies, label=name, **style)
    axes.set_title("Accuracy on all hospitals' held-out patients", loc="left", fontsize=11)
    axes.set_xlabel("round")
    axes.grid(color="0.92")
    axes.spines[["top", "right"]].set_visible(False)
    lines, names = axes.get_legend_handles_labels()
    figure.legend(lines[4:], names[4:], frameon=False, loc="outside upper right", ncols=2)
    height = 0.0
    for name, accuracies in sorted(found.items(), key=lambda one: one[1][-1]):
        if "alone" in name:  # no label over another one
            height = max(height + 0.012, accuracies[-1])
            axes.text(ROUNDS + 0.2, height, name, color="0.4", fontsize=8, va="center")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    if not make_shards.SHARDS.exists():
        make_shards.main()
    accuracies = compared()
    for who, by_round in accuracies.items():
        print(f"{who:22} {by_round[-1]:.3f}")
    if len(sys.argv) > 1:
        draw(accuracies, Path(sys.argv[1]))
