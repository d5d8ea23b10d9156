"""What strategies come to on digits that are skewed by label: Dirichlet(0.1), 8 clients, 5 seeds.

A perceptron with one hidden layer, in numpy, in rounds with all clients, which take 20 steps of
batches of 32 at a rate of 0.1. Mean and standard deviation over the seeds. Goals: SCAFFOLD and
FedDyn reach an accuracy of 95 % in fewer rounds than FedAvg (a seed that does not reach it counts
as all rounds); with 2 liars of 8, the median, the trimmed mean and Krum stay within 3 points of the
run of the 6 others alone, and FedAvg does not; 1 % of each update, with error feedback, costs at
most 1 point. Liars send the opposite of what they trained, ten times as far. At the end, the same
without skew: Dirichlet(100).
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from sklearn.datasets import load_digits

from manta.federated import partition
from manta.light.federated import (
    SCAFFOLD,
    Compressed,
    FedAvg,
    FedDyn,
    FedNova,
    FedProx,
    GeometricMedian,
    Krum,
    Median,
    MultiKrum,
    Strategy,
    TopK,
    TrimmedMean,
)
from manta.light.federated.errors import FederatedError

CLIENTS, SEEDS, TARGET, LIARS = 8, 5, 0.95, 2
STEPS, BATCH, RATE = 20, 32, 0.1
ROUNDS, ROUNDS_OF_LIES = 200, 60
Arrays = dict[str, np.ndarray]


class Data(NamedTuple):
    shards: list[tuple[np.ndarray, np.ndarray]]
    x: np.ndarray
    y: np.ndarray


def dealt(seed: int, alpha: float) -> Data:
    digits = load_digits()
    x, y = (digits.data / 16).astype(np.float32), digits.target
    order = np.random.default_rng(seed).permutation(len(y))
    test, train = order[:360], order[360:]
    shards = partition.dirichlet(y[train], CLIENTS, alpha=alpha, seed=seed)
    return Data([(x[train[s]], y[train[s]]) for s in shards], x[test], y[test])


def created(seed: int, hidden: int = 64) -> Arrays:
    draw = np.random.default_rng(seed)
    return {
        "w1": draw.normal(0, np.sqrt(2 / 64), (64, hidden)).astype(np.float32),
        "b1": np.zeros(hidden, np.float32),
        "w2": draw.normal(0, np.sqrt(1 / hidden), (hidden, 10)).astype(np.float32),
        "b2": np.zeros(10, np.float32),
    }


def gradients(model: Arrays, x: np.ndarray, y: np.ndarray) -> Arrays:
    """Of the mean cross-entropy."""
    hidden = np.maximum(x @ model["w1"] + model["b1"], 0)
    error = hidden @ model["w2"] + model["b2"]
    error = np.exp(error - error.max(axis=1, keepdims=True))
    error /= error.sum(axis=1, keepdims=True)
    error[np.arange(len(y)), y] -= 1
    error /= len(y)
    back = (error @ model["w2"].T) * (hidden > 0)
    return {"w1": x.T @ back, "b1": back.sum(0), "w2": hidden.T @ error, "b2": error.sum(0)}


def accuracy(model: Arrays, data: Data) -> float:
    hidden = np.maximum(data.x @ model["w1"] + model["b1"], 0)
    return float(((hidden @ model["w2"] + model["b2"]).argmax(1) == data.y).mean())


def lied(update: Arrays) -> Arrays:
    """The opposite, ten times as far."""
    return {name: -10 * array for name, array in update.items()}


def curve(strategy: Strategy, data: Data, seed: int, rounds: int, liars: int = 0) -> list[float]:
    """The accuracy after each round; once a model has diverged, that of chance."""
    draw = np.random.default_rng(seed)
    params, state = created(seed), dict[str, Any]()
    own: list[dict[str, Any]] = [{} for _ in data.shards]
    found: list[float] = []
    for _ in range(rounds):
        round = strategy.start(params, state)
        try:
            for number, (x, y) in enumerate(data.shards):
                client = strategy.client(params, state, own[number])
                model = {name: array.copy() for name, array in client.params.items()}
                for _ in range(STEPS):
                    batch = draw.integers(0, len(y), BATCH)
                    gradient = gradients(model, x[batch], y[batch])
                    correction = client.correction(model)
                    for name in model:
                        model[name] -= RATE * (gradient[name] + correction.get(name, 0))
                sent = client.finish(model, steps=STEPS, learning_rate=RATE)
                own[number] = sent.own
                update = lied(sent.update) if number < liars else sent.update
                round.add(f"client-{number}", update, len(y))
            outcome = round.finish()
        except FederatedError:
            return found + [0.1] * (rounds - len(found))
        params, state = outcome.params, outcome.state
        found.append(accuracy(params, data))
    return found


def last(accuracies: list[float]) -> float:
    """In percent: the mean over the last ten rounds."""
    return 100 * statistics.mean(accuracies[-10:])


def row(name: str, columns: list[list[float]], unit: str = "") -> None:
    cells = [f"{statistics.mean(c):.1f}{unit} ± {statistics.pstdev(c):.1f}" for c in columns]
    print(f"| {name} | {' | '.join(cells)} |", flush=True)


def speed(data: list[Data]) -> None:
    print(f"| strategy | rounds to {TARGET:.0%} | accuracy after {ROUNDS} rounds (%) |")
    print("|---|---|---|")
    makes: dict[str, Callable[[int], Strategy]] = {
        "FedAvg": lambda _: FedAvg(),
        "FedProx": lambda _: FedProx(proximal_mu=0.1),
        "FedNova": lambda _: FedNova(),
        "SCAFFOLD": lambda total: SCAFFOLD(total_weight=total),
        "FedDyn": lambda total: FedDyn(alpha=0.1, total_weight=total),
        "FedAvg, top-k 1 %": lambda _: Compressed(FedAvg(), TopK(0.01)),
    }
    for name, make in makes.items():
        reached, accuracies = [], []
        for seed, each in enumerate(data):
            strategy = make(sum(len(y) for _, y in each.shards))
            found = curve(strategy, each, seed, ROUNDS)
            first = (n for n, value in enumerate(found, 1) if value >= TARGET)
            reached.append(float(next(first, ROUNDS)))
            accuracies.append(last(found))
        row(name, [reached, accuracies])


def lies(data: list[Data]) -> None:
    print(f"\n| aggregate | {LIARS} liars of {CLIENTS} (%) | points lost to the honest six |")
    print("|---|---|---|")
    honest = [each._replace(shards=each.shards[LIARS:]) for each in data]
    six = [last(curve(FedAvg(), each, seed, ROUNDS_OF_LIES)) for seed, each in enumerate(honest)]
    row("FedAvg, of the honest six alone", [six, [0.0]])
    for strategy in (
        *(FedAvg(), Median(), TrimmedMean(trim=LIARS), Krum(byzantine=LIARS)),
        *(MultiKrum(byzantine=LIARS), GeometricMedian(iterations=10)),
        *(Median(mixing=LIARS), TrimmedMean(trim=LIARS, mixing=LIARS)),
        *(Krum(byzantine=LIARS, mixing=LIARS), GeometricMedian(iterations=10, mixing=LIARS)),
    ):
        found = [
            last(curve(strategy, each, seed, ROUNDS_OF_LIES, LIARS))
            for seed, each in enumerate(data)
        ]
        mixed = f", mixing={LIARS}" if getattr(strategy, "mixing", 0) else ""
        lost = [best - value for best, value in zip(six, found, strict=True)]
        row(f"{type(strategy).__name__}{mixed}", [found, lost])


def main() -> None:
    with np.errstate(all="ignore"):  # a model that lies have spoilt
        for alpha in (0.1, 100.0):
            data = [dealt(seed, alpha) for seed in range(SEEDS)]
            print(f"\nDirichlet({alpha:g})\n")
            if alpha < 1:
                speed(data)
            lies(data)
