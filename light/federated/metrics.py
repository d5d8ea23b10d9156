"""The metrics of many clients as one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from manta.light import arguments
from manta.light.federated.errors import BadWeight

MOST_METRICS, LONGEST_NAME = 1000, 200
"""Of one client in a round: the history of all rounds has them."""


def check_metrics(client: str, metrics: object) -> None:
    """Raises TypeError, ValueError for what is no dict of numbers by name, or is too much."""
    if not isinstance(metrics, Mapping):
        raise TypeError(f"The metrics of client {client!r:.80} are no dict of numbers by name.")
    if len(metrics) > MOST_METRICS:
        raise ValueError(
            f"There are {len(metrics):,} metrics of client {client!r:.80}, and {MOST_METRICS:,} "
            "are possible: send fewer."
        )
    for name, value in metrics.items():
        if not isinstance(name, str) or len(name) > LONGEST_NAME:
            raise ValueError(
                f"The metric {name!r:.80} of client {client!r:.80} has no name of up to "
                f"{LONGEST_NAME} characters."
            )
        arguments.number(f"metric {name!r:.80} of client {client!r:.80}", value)


def mean_metrics(measured: Iterable[tuple[str, Mapping[str, float], float]]) -> dict[str, float]:
    """The mean of each metric, weighted by examples, over those clients that have it.

    `measured` has each client's name, its numbers by name, and its examples, a number above 0. One
    client's NaN makes the mean NaN. Raises TypeError for what is no number, and BadWeight.

    >>> mean_metrics([("a", {"loss": 1.0}, 30), ("b", {"loss": 3.0, "accuracy": 0.5}, 10)])
    {'loss': 1.5, 'accuracy': 0.5}
    """
    sums: dict[str, tuple[float, float]] = {}
    for client, metrics, examples in measured:
        weight = _weight(client, examples)
        check_metrics(client, metrics)
        for name, value in metrics.items():
            number = float(value)
            total, weights = sums.get(name, (0.0, 0.0))
            sums[name] = total + weight * number, weights + weight
    return {name: total / weights for name, (total, weights) in sums.items()}


def _weight(client: str, examples: object) -> float:
    try:
        weight = arguments.number("examples", examples)
    except (TypeError, ValueError):
        raise BadWeight(client, examples) from None
    if not 0 < weight < float("inf"):
        raise BadWeight(client, examples)
    return weight
