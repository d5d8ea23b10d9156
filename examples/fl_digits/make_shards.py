"""Deal scikit-learn's digits to nodes, skewed by label, and print who holds what.

The share of each class that each node gets is drawn from a Dirichlet distribution
(Hsu et al., 2019): the smaller alpha, the stronger the skew.
"""

import argparse
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits


def deal(labels: np.ndarray, nodes: int, alpha: float, seed: int) -> list[np.ndarray]:
    """Indices of each node's samples, shuffled."""
    random = np.random.default_rng(seed)
    shards: list[list[np.ndarray]] = [[] for _ in range(nodes)]
    for label in np.unique(labels):
        indices = random.permutation(np.flatnonzero(labels == label))
        shares = random.dirichlet([alpha] * nodes)
        cuts = (np.cumsum(shares)[:-1] * len(indices)).astype(int)
        for shard, part in zip(shards, np.split(indices, cuts), strict=True):
            shard.append(part)
    return [random.permutation(np.concatenate(shard)) for shard in shards]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--alpha", type=float, default=0.3)
    parser.add_argument("--held-out", type=float, default=0.2, help="fraction of each shard")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent / "shards")
    options = parser.parse_args()

    digits = load_digits()
    images = (digits.data / 16).astype(np.float32)
    options.folder.mkdir(parents=True, exist_ok=True)
    shards = deal(digits.target, options.nodes, options.alpha, options.seed)
    print("Samples of each digit on each node (one in five held out for evaluation):")
    print("         " + "".join(f"{digit:>6}" for digit in range(10)) + " total")
    for i, shard in enumerate(shards):
        held_out = max(1, round(len(shard) * options.held_out))
        test, train = shard[:held_out], shard[held_out:]
        np.savez(
            options.folder / f"node{i}.npz",
            x_train=images[train],
            y_train=digits.target[train],
            x_test=images[test],
            y_test=digits.target[test],
        )
        counts = np.bincount(digits.target[shard], minlength=10)
        print(f"  node-{i + 1} " + "".join(f"{n:>6}" for n in counts) + f"{len(shard):>6}")


if __name__ == "__main__":
    main()
