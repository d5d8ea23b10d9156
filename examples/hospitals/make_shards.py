"""Deals scikit-learn's breast cancer records to four hospitals, skewed by diagnosis.

The share of each diagnosis that each hospital gets is drawn from a Dirichlet distribution
(Hsu et al., 2019): one sees mostly benign tumours, another mostly malignant ones.
"""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_breast_cancer

from manta.federated import partition

SHARDS = Path(__file__).parent / "shards"


def main() -> None:
    records = load_breast_cancer()
    x = (records.data - records.data.mean(axis=0)) / records.data.std(axis=0)
    y = records.target
    SHARDS.mkdir(exist_ok=True)
    dealt = partition.dirichlet(y, 4, alpha=0.15, seed=48, minimum=40)
    for hospital, chosen in enumerate(dealt):
        chosen = np.random.default_rng(hospital).permutation(chosen)
        test, train = np.split(chosen, [len(chosen) // 4])
        np.savez(
            SHARDS / f"{hospital}.npz",
            x_train=x[train],
            y_train=y[train],
            x_test=x[test],
            y_test=y[test],
        )
        benign = int(y[chosen].sum())
        print(f"hospital {hospital}: {benign} benign, {len(chosen) - benign} malignant")


if __name__ == "__main__":
    main()
