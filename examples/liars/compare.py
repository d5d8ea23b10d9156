"""Compares rules of aggregation where two of eight nodes lie: the swarm's rounds, in one process.

python examples/liars/compare.py chart.png

The chart needs matplotlib: `pip install 'manta-swarm[plot]'`.
"""

import sys

import make_shards
import numpy as np
import softmax
from swarm import MODEL, ROUNDS, RULES
from worker import lied


def accuracies(strategy, shards, liars):
    """By round, on the held-out digits of all."""
    x, y = (np.concatenate([shard[f"{name}_test"] for shard in shards]) for name in "xy")
    model, state, found = MODEL, {}, []
    for _ in range(ROUNDS):
        round = strategy.start(model, state)
        for node, shard in enumerate(shards):
            client = strategy.client(model, state)
            digits = shard["x_train"], shard["y_train"]
            trained = softmax.train(client.params, *digits, steps=5, rate=0.5)
            if node < liars:
                trained = lied(client.params, trained)
            round.add(f"node-{node + 1}", client.finish(trained).update, weight=len(digits[1]))
        model, state = round.finish()[:2]
        found.append(softmax.accuracy(model, x, y))
    return found


def compared():
    shards = [np.load(make_shards.SHARDS / f"{node}.npz") for node in range(8)]
    found = {"fedavg, nobody lies": accuracies(RULES["fedavg"], shards, liars=0)}
    return found | {name: accuracies(rule, shards, liars=2) for name, rule in RULES.items()}


def draw(found, path):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.0), layout="constrained")
    axes = figure.add_subplot()
    for name, by_round in found.items():
        line = "--" if "nobody" in name else "-"
        axes.plot(range(1, ROUNDS + 1), by_round, line, label=name, linewidth=1.8)
    axes.set_title("Accuracy on held-out digits, two of eight lie", loc="left", fontsize=11)
    axes.set_xlabel("round")
    axes.set_ylim(0, 1)
    axes.grid(color="0.92")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(frameon=False, loc="outside right upper")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    found = compared()
    for name, by_round in found.items():
        print(f"{name:20} {by_round[-1]:.4f}")
    if len(sys.argv) > 1:
        draw(found, sys.argv[1])
