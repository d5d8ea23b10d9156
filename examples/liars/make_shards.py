"""Deals scikit-learn's digits to eight nodes, to all much the same."""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from manta.federated import partition

SHARDS = Path(__file__).parent / "shards"


def main():
    x, y = load_digits(return_X_y=True)
    SHARDS.mkdir(exist_ok=True)
    for node, chosen in enumerate(partition.dirichlet(y, 8, alpha=100.0, seed=1)):
        test, train = np.split(chosen, [len(chosen) // 4])
        parts = {"x_train": x[train] / 16, "x_test": x[test] / 16}
        np.savez(SHARDS / f"{node}.npz", **parts, y_train=y[train], y_test=y[test])


if __name__ == "__main__":
    main()
