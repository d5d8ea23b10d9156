"""Counts, means, variances and quantiles of data that stay with the clients.

A client makes a summary of its records with `moments` or `histogram`, and sends it: a plain
`{name: array}` dict. The server puts summaries together with `combine`, and reads the outcome with
`mean`, `variance` and `quantile`. Nobody tells anything of fewer records, or of fewer clients, than
a minimum cohort.

Summaries hold what was counted, without noise: whoever sees several that differ by one record
learns of that record.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import Any

from manta.light.federated import hyperparameters
from manta.light.federated.arrays import Arrays, Form, no_array
from manta.light.federated.errors import BadModel, BadUpdate, CohortTooSmall, NoUpdates
from manta.light.federated.lazy import np

MINIMUM_RECORDS = 10
"""The fewest records of which a client tells anything, unless it says otherwise."""
MINIMUM_CLIENTS = 2
"""The fewest clients of which the server tells anything, unless it says otherwise."""
_MOMENTS = {"count", "mean", "squares"}
_HISTOGRAM = {"counts", "edges"}


def moments(values: Any, *, minimum: int = MINIMUM_RECORDS) -> dict[str, Any]:
    """How many records there are, their mean, and their summed squared distances to it.

    `values` has the shape (records,), or (records, columns) for several columns at once. The
    summary has `count`, a number, and `mean` and `squares`, one for each column, in the unit of the
    values and its square. Raises CohortTooSmall for fewer than `minimum` records, BadModel for
    values that are not finite numbers.

    >>> import numpy as np
    >>> moments(np.array([1.0, 2.0, 6.0]), minimum=3)
    {'count': array(3), 'mean': array(3.), 'squares': array(14.)}
    """
    records = _records(values, minimum)
    mean = records.mean(axis=0)
    return {
        "count": np.array(len(records), np.int64),
        "mean": np.asarray(mean),
        "squares": np.asarray(np.square(records - mean).sum(axis=0)),
    }


def histogram(values: Any, edges: Any, *, minimum: int = MINIMUM_RECORDS) -> dict[str, Any]:
    """How many records lie between each two of the edges, which must be the same for all clients.

    `values` has the shape (records,); `edges` increase and are in the same unit. A record on an
    edge is counted above it, one on the last edge below. The summary has `edges`, and `counts`: of
    what lies below the first edge, of each bin, and of what lies above the last edge. Raises
    CohortTooSmall for fewer than `minimum` records, BadModel for values or edges that will not do.

    >>> import numpy as np
    >>> histogram(np.array([-5, 0, 1, 4, 5, 10]), [0, 5, 10], minimum=1)["counts"]
    array([1, 3, 2, 0])
    """
    records = _records(values, minimum)
    if records.ndim != 1:
        raise BadModel(f"The values have the shape {records.shape}: give one column of records.")
    bounds = np.asarray(edges, np.float64)
    if bounds.ndim != 1 or len(bounds) < 2 or not (bounds[1:] > bounds[:-1]).all():
        raise BadModel("The edges of a histogram are at least two numbers that increase.")
    if not np.isfinite(bounds).all():
        raise BadModel("The edges of a histogram are finite: what lies beyond is counted, too.")
    bins = np.searchsorted(bounds, records, side="right")
    bins[records == bounds[-1]] = len(bounds) - 1
    return {"counts": np.bincount(bins, minlength=len(bounds) + 1), "edges": bounds}


def _records(values: Any, minimum: int) -> Any:
    hyperparameters.count("minimum", minimum)
    given = np.asarray(values)
    if given.dtype.kind not in "fiub" or given.ndim not in (1, 2):
        raise BadModel(
            f"The values are {Form(given.shape, given.dtype)}: give numbers, of the shape "
            "(records,) or (records, columns)."
        )
    if len(given) < minimum:
        raise CohortTooSmall(
            f"There are {len(given)} records, and nothing is told of fewer than {minimum}."
        )
    if not np.isfinite(given).all():
        raise BadModel("There are NaN or infinite values: leave these records out, or fill them.")
    return given.astype(np.float64)


def combine(
    summaries: Mapping[str, Arrays], *, minimum: int = MINIMUM_CLIENTS, records: int = 1
) -> dict[str, Any]:
    """One summary of what all clients have; `summaries` has theirs, by the clients' names.

    Moments are merged pair by pair, in the order of the names, without loss of digits where means
    are large (Chan, Golub and LeVeque 1983); counts of histograms are added. Raises CohortTooSmall
    for fewer than `minimum` clients or `records` records, BadUpdate, which names the client, for
    what is no summary or one of another kind, shape or edges than the first client's, NoUpdates.

    >>> import numpy as np
    >>> whole = combine({"a": moments(np.arange(20.0)), "b": moments(np.arange(20.0, 30.0))})
    >>> whole["count"], mean(whole), variance(whole)
    (array(30), array(14.5), array(74.91666667))
    """
    hyperparameters.count("minimum", minimum)
    if not summaries:
        raise NoUpdates("There is no summary to combine.")
    names = sorted(summaries)
    for name in names:
        _check_summary(name, summaries[name], summaries[names[0]])
    if len(names) < minimum:
        raise CohortTooSmall(
            f"There are {len(names)} clients, and nothing is told of fewer than {minimum}."
        )
    merge = _merged_moments if "mean" in summaries[names[0]] else _merged_histograms
    whole = reduce(merge, (dict(summaries[name]) for name in names))
    count = int(whole["count"] if "count" in whole else whole["counts"].sum())
    if count < records:
        raise CohortTooSmall(
            f"There are {count} records, and nothing is told of fewer than {records}."
        )
    return whole


def _merged_moments(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    count = one["count"] + other["count"]
    apart = other["mean"] - one["mean"]
    return {
        "count": np.asarray(count),
        "mean": np.asarray(one["mean"] + apart * (other["count"] / count)),
        "squares": np.asarray(
            one["squares"]
            + other["squares"]
            + apart * apart * (one["count"] * (other["count"] / count))
        ),
    }


def _merged_histograms(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    return {"counts": one["counts"] + other["counts"], "edges": one["edges"]}


def _check_summary(client: str, summary: Any, first: Any) -> None:
    """Raises BadUpdate."""
    if not isinstance(summary, Mapping) or set(summary) not in (_MOMENTS, _HISTOGRAM):
        raise BadUpdate(client, None, "it is no summary as moments() or histogram() makes it")
    for name, array in summary.items():
        if no_array(array) is not None or array.dtype.kind not in "fi":
            raise BadUpdate(client, name, "is no array of numbers")
        if not np.isfinite(array).all():
            raise BadUpdate(client, name, "has NaN or infinite values")
        if name not in first or array.shape != getattr(first[name], "shape", None):
            raise BadUpdate(client, name, "is of another shape, or of another kind, than others")
        if name in ("count", "counts") and (array.dtype.kind != "i" or (array < 0).any()):
            raise BadUpdate(client, name, "is no count")
    if "count" in summary and (summary["count"].shape != () or int(summary["count"]) == 0):
        raise BadUpdate(client, "count", "is no number of records above 0")
    if "squares" in summary and (
        summary["squares"].shape != summary["mean"].shape or (summary["squares"] < 0).any()
    ):
        raise BadUpdate(client, "squares", "is no sum of squares for each column")
    if "edges" in summary and len(summary["counts"]) != len(summary["edges"]) + 1:
        raise BadUpdate(client, "counts", "does not fit its edges")
    if "edges" in summary and (summary["edges"] != first["edges"]).any():
        raise BadUpdate(client, "edges", "are others than those of other clients")


def mean(summary: Arrays) -> Any:
    """The mean of each column, in the unit of the values.

    >>> import numpy as np
    >>> mean(moments(np.array([1.0, 2.0, 6.0]), minimum=1))
    array(3.)
    """
    return summary["mean"]


def variance(summary: Arrays, *, ddof: int = 0) -> Any:
    """The variance of each column: the summed squares over the count less `ddof`.

    `ddof=1` gives the unbiased estimate of a sample. Raises ValueError where that leaves no record.

    >>> import numpy as np
    >>> variance(moments(np.array([1.0, 2.0, 6.0]), minimum=1), ddof=1)
    array(7.)
    """
    count = int(summary["count"]) - ddof
    if count <= 0:
        raise ValueError(f"ddof is {ddof}, and there are {int(summary['count'])} records.")
    return np.asarray(summary["squares"] / count)


def quantile(summary: Arrays, fraction: float) -> float:
    """The value below which this fraction of the records of a histogram lies, in their unit.

    Within a bin, records are taken to be spread evenly, so the error is at most the width of that
    bin. Raises ValueError for a fraction outside 0 to 1 and for a quantile beyond the edges, and
    CohortTooSmall where there are no records.

    >>> import numpy as np
    >>> summary = histogram(np.arange(100), np.arange(0, 101, 10))
    >>> quantile(summary, 0.5), quantile(summary, 0.25)
    (50.0, 25.0)
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction is {fraction!r:.60}: give one from 0 to 1.")
    counts, edges = summary["counts"], summary["edges"]
    total = int(counts.sum())
    if not total:
        raise CohortTooSmall("There are no records in this histogram.")
    before = np.concatenate([[0], np.cumsum(counts)])
    wanted = fraction * total
    if wanted < counts[0] or wanted > total - counts[-1]:
        raise ValueError(
            f"The quantile {fraction} lies beyond the edges, {edges[0]:g} to {edges[-1]:g}: "
            f"{int(counts[0])} records are below and {int(counts[-1])} above, of {total}."
        )
    bin = int(np.searchsorted(before[1:-1], wanted, side="left")) or 1
    while not counts[bin] and bin < len(edges) - 1:
        bin += 1
    inside = (wanted - before[bin]) / counts[bin] if counts[bin] else 0.0
    return float(edges[bin - 1] + inside * (edges[bin] - edges[bin - 1]))
