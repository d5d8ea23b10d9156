"""Runs the swarm, and draws the accuracy: python examples/cnn/chart.py chart.png"""

import sys
from pathlib import Path

from swarm import CNN

SHARDS = Path(__file__).parent.parent / "fl_digits" / "shards"

if __name__ == "__main__":
    outcome = CNN().run(nodes=3, datasets={"digits": SHARDS / "node{i}.npz"}, logs=False)
    outcome.metrics.plot(sys.argv[1], ["accuracy"])
