"""Decentralised SGD on digits: no coordinator, and no peer sees another's data.

    manta mesh run examples/mesh/sgd.py --peers 6 --topology ring -- --picture sgd.png

Each peer has a part of the digits, skewed by label, takes a step on it, and moves towards its
neighbors' models (D-PSGD: Lian et al. 2017). Beside it: a peer that trains on its own part alone.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from averaging import averaged
from pictures import draw
from sklearn.datasets import load_digits

from manta import Mesh

CLASSES, BATCH, RATE = 10, 32, 0.3


def parts(rank: int, size: int) -> tuple[Any, Any, Any, Any]:
    """This peer's digits, and those by which all models are judged."""
    images, labels = load_digits(return_X_y=True)
    images = np.hstack([images / 16, np.ones((len(images), 1))])
    order = np.random.default_rng(0).permutation(len(labels))
    judged, rest = order[:400], order[400:]
    rest = rest[np.argsort(labels[rest], kind="stable")]  # so a part has two or three kinds
    mine = np.array_split(rest, size)[rank]
    return images[mine], labels[mine], images[judged], labels[judged]


def stepped(model: Any, images: Any, labels: Any) -> Any:
    """After a step of multinomial logistic regression on a batch."""
    scores = images @ model
    chances = np.exp(scores - scores.max(axis=1, keepdims=True))
    chances /= chances.sum(axis=1, keepdims=True)
    chances[np.arange(len(labels)), labels] -= 1
    return model - RATE * images.T @ chances / len(labels)


def accuracy(model: Any, images: Any, labels: Any) -> float:
    return float((np.argmax(images @ model, axis=1) == labels).mean())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--picture")
    options = parser.parse_args()
    with Mesh.join() as mesh:
        images, labels, judged, truth = parts(mesh.rank, mesh.size)
        random = np.random.default_rng(mesh.rank)
        model = alone = np.zeros((images.shape[1], CLASSES))
        near = mesh.neighbors
        found = []
        for number in range(options.rounds):
            batch = random.choice(len(labels), BATCH)
            alone = stepped(alone, images[batch], labels[batch])
            model = stepped(model, images[batch], labels[batch])
            for peer in near:
                mesh.send(peer, f"model {number}", model)
            models = {peer.rank: mesh.receive(peer, f"model {number}") for peer in near}
            model = averaged(model, len(near), {r: (m, len(near)) for r, m in models.items()})
            if number % 10 == 9:
                scores = [accuracy(one, judged, truth) for one in (model, alone)]
                found.append([number + 1, *mesh.all_reduce(np.array(scores), op="mean")])
        apart = mesh.all_reduce(
            float(np.abs(model - mesh.all_reduce(model, op="mean")).max()), "max"
        )
        if mesh.rank == 0:
            at, together, each = zip(*found, strict=True)
            print(f"accuracy {together[-1]:.3f} together, {each[-1]:.3f} each alone")
            print(f"the models differ by {apart:.2g} at most")
            if options.picture:
                curves = {"with neighbors": (at, together), "each alone": (at, each)}
                title = f"Decentralised SGD on digits, {mesh.size} peers"
                draw(options.picture, curves, title, "round", "accuracy, mean of all peers")


if __name__ == "__main__":
    main()
