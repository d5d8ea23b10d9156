"""Aggregates that hold against clients that lie, and a bound on how far one can move the model.

All but `Clipped` need the updates of all clients together: their memory grows by a model for each
client. Clients are taken in the order of their names, so that the outcome does not depend on who
came first. Weights count only where it says so.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from manta.light.federated import hyperparameters
from manta.light.federated.arrays import ABOUT, BLOCK, Arrays, Form, squared_norm
from manta.light.federated.averaging import FedAvg, MeanRound, WeightedSum, wide
from manta.light.federated.errors import BadModel, BadUpdate, Overflow, TooFewUpdates
from manta.light.federated.lazy import np
from manta.light.federated.rounds import Client, Round, Strategy


class Given(NamedTuple):
    """One client's update, with its weight."""

    client: str
    update: Arrays
    weight: float


@dataclass(frozen=True, kw_only=True)
class Robust(FedAvg):
    """What robust aggregates have in common: the model moves by the aggregate of the updates.

    They hold where honest clients send much the same. Where their data differ, honest clients
    differ from each other as much as from a liar: then `mixing`, the number of liars that is
    assumed, first replaces each update by the plain mean of the n - `mixing` updates that are
    closest to it, itself included (nearest-neighbour mixing, Allouah et al. 2023,
    arXiv:2302.01772). That compares each update with each, and takes as much memory again. It is 0
    unless given. `finish` raises TooFewUpdates unless there are more than 2 `mixing` updates.
    """

    mixing: int = 0

    @property
    def adds_up(self) -> bool:
        """False: each update is compared with the others."""
        return False

    def __post_init__(self) -> None:
        super().__post_init__()
        hyperparameters.count("mixing", self.mixing, 0)

    def start(self, params: Arrays, state: Arrays | None = None) -> Round:
        return _CollectingRound(self, params, state)

    @abstractmethod
    def combined(self, given: Sequence[Given], names: Sequence[str]) -> Combined:
        """The aggregate of the arrays of these names, and whose updates are in it.

        Raises TooFewUpdates.
        """


class Combined(NamedTuple):
    """An aggregate, and the clients that it is made of."""

    arrays: dict[str, Any]
    clients: tuple[str, ...]


class _CollectingRound(MeanRound):
    def __init__(self, strategy: Robust, params: Arrays, state: Arrays | None) -> None:
        super().__init__(strategy, params, state)
        self._robust = strategy
        self._given: list[Given] = []

    def _take(self, client: str, update: Arrays, weight: float) -> None:
        self._given.append(Given(client, update, weight))
        self._note_integers(update)

    def _outcome(self) -> tuple[dict[str, Any], dict[str, Any], tuple[str, ...]]:
        names = [name for name, form in self.forms.items() if form.is_float]
        with np.errstate(all="ignore"):
            given = _mixed(sorted(self._given), names, self._robust.mixing)
            combined = self._robust.combined(given, names)
        total = sum(each.weight for each in self._given)
        return *self._stepped(combined.arrays, total), combined.clients


def _mixed(given: list[Given], names: Sequence[str], liars: int) -> list[Given]:
    """With each update replaced by the mean of those closest to it. Raises TooFewUpdates."""
    if not liars:
        return given
    _check_enough(f"mixing={liars}", given, 2 * liars + 1)
    mixed = []
    for each, row in zip(given, _distances(given, names), strict=True):
        order = np.argsort(row, kind="stable")[: len(given) - liars]
        closest = [given[index] for index in sorted(order)]
        mean = _weighted_mean(closest, names, [1.0] * len(closest))
        mixed.append(Given(each.client, mean, each.weight))
    return mixed


def _distances(given: Sequence[Given], names: Sequence[str]) -> Any:
    """The squared distance of each update to each."""
    found = np.zeros((len(given), len(given)))
    for i, one in enumerate(given):
        for j, other in enumerate(given[:i]):
            apart = _squared_distance(one.update, other.update, names)
            found[i, j] = found[j, i] = apart
    return found


def _by_coordinate(
    given: Sequence[Given], names: Sequence[str], fold: Callable[[Any], Any]
) -> Combined:
    """Folds stacks of (clients, elements) to (elements,), some elements at a time."""
    arrays = {}
    for name in names:
        updates = [each.update[name].reshape(-1) for each in given]
        first = given[0].update[name]
        made = np.empty(first.size, wide(first.dtype))
        for at in range(0, made.size, BLOCK):
            stack = np.stack([update[at : at + BLOCK] for update in updates])
            made[at : at + BLOCK] = fold(stack.astype(made.dtype, copy=False))
        arrays[name] = made.reshape(first.shape)
    return Combined(arrays, tuple(each.client for each in given))


def _median(given: Sequence[Given], names: Sequence[str]) -> Combined:
    return _by_coordinate(given, names, lambda stack: np.median(stack, axis=0))


@dataclass(frozen=True, kw_only=True)
class Median(Robust):
    """The median of each coordinate (Yin et al. 2018, arXiv:1803.01498).

        x ← x + η median(Δ₁, …, Δₙ)        in each coordinate

    Fewer than half of the clients can move no coordinate beyond what the others sent. Weights do
    not count. `server_learning_rate` is η. It needs all updates together.

    >>> import numpy as np
    >>> updates = [(name, {"w": np.array([move])}, 1) for name, move in
    ...            [("a", 1.0), ("b", 2.0), ("liar", -1e9)]]
    >>> aggregate(Median(), {"w": np.array([0.0])}, updates).params
    {'w': array([1.])}
    """

    def combined(self, given: Sequence[Given], names: Sequence[str]) -> Combined:
        return _median(given, names)


@dataclass(frozen=True, kw_only=True)
class TrimmedMean(Robust):
    """The trimmed mean of each coordinate (Yin et al. 2018, arXiv:1803.01498).

    In each coordinate, the `trim` least and the `trim` greatest values are left out and the model
    moves by the mean of the others. Up to `trim` clients can move no coordinate beyond what the
    others sent. Weights do not count. It needs all updates together. `finish` raises TooFewUpdates
    unless there are more than 2 `trim` of them.

    >>> import numpy as np
    >>> updates = [(name, {"w": np.array([move])}, 1) for name, move in
    ...            [("a", 1.0), ("b", 2.0), ("c", 3.0), ("d", 4.0), ("liar", 1e9)]]
    >>> aggregate(TrimmedMean(trim=1), {"w": np.array([0.0])}, updates).params
    {'w': array([3.])}
    """

    trim: int

    def __post_init__(self) -> None:
        super().__post_init__()
        hyperparameters.count("trim", self.trim)

    def combined(self, given: Sequence[Given], names: Sequence[str]) -> Combined:
        _check_enough(f"TrimmedMean(trim={self.trim})", given, 2 * self.trim + 1)

        def fold(stack: Any) -> Any:
            stack.sort(axis=0)
            return stack[self.trim : len(stack) - self.trim].mean(axis=0)

        return _by_coordinate(given, names, fold)


def _check_enough(who: str, given: Sequence[Given], least: int) -> None:
    if len(given) < least:
        raise TooFewUpdates(
            f"{who} needs at least {least} updates, and there are {len(given)}: have more clients "
            "take part, or assume fewer liars."
        )


@dataclass(frozen=True, kw_only=True)
class GeometricMedian(Robust):
    """The geometric median, by the smoothed Weiszfeld algorithm (Pillutla et al. 2022,
    arXiv:1912.13445, "RFA").

    The z that minimises Σ nₖ ‖z - Δₖ‖, over all floats together. From the median of each
    coordinate, z is replaced, up to `iterations` times, by

        Σ βₖ Δₖ / Σ βₖ        with        βₖ = nₖ / max(ν, ‖z - Δₖ‖)

    until it moves by less than `tolerance` of its distance to them. `smoothing` is ν, a distance.
    Clients that hold less than half of the weight can move it only so far, however far away they
    are. Weights count. It needs all updates together.

    >>> import numpy as np
    >>> updates = [(name, {"w": np.array([move, 0.0])}, 1) for name, move in
    ...            [("a", 1.0), ("b", 2.0), ("liar", 1e9)]]
    >>> aggregate(GeometricMedian(), {"w": np.zeros(2)}, updates).params["w"].round(3)
    array([2., 0.])
    """

    smoothing: float = 1e-6
    iterations: int = 100
    tolerance: float = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        hyperparameters.positive("smoothing", self.smoothing)
        hyperparameters.count("iterations", self.iterations)
        hyperparameters.not_negative("tolerance", self.tolerance)

    def combined(self, given: Sequence[Given], names: Sequence[str]) -> Combined:
        # From their mean, the way back would be the longer the further away a liar is.
        middle = _median(given, names).arrays
        for _ in range(self.iterations):
            distances = [math.sqrt(_squared_distance(each.update, middle, names)) for each in given]
            pulls = [
                each.weight / max(self.smoothing, distance)
                for each, distance in zip(given, distances, strict=True)
            ]
            before, middle = middle, _weighted_mean(given, names, pulls)
            step = math.sqrt(_squared_distance(before, middle, names))
            if step <= self.tolerance * max(self.smoothing, min(distances)):
                break
        return Combined(middle, tuple(each.client for each in given))


def _weighted_mean(
    given: Sequence[Given], names: Sequence[str], weights: Sequence[float]
) -> dict[str, Any]:
    forms = {name: Form(given[0].update[name].shape, given[0].update[name].dtype) for name in names}
    total = WeightedSum(forms)
    scale = max(weights)  # so that no product of a weight and an update overflows
    if scale == 0:
        raise Overflow("The distances between the updates are beyond any float.")
    for each, weight in zip(given, weights, strict=True):
        total.add(each.update, weight / scale)
    return total.mean()


def _squared_distance(left: Arrays, right: Arrays, names: Sequence[str]) -> float:
    """Summed in float64, with a block at a time in memory."""
    total = 0.0
    for name in names:
        one, other = left[name].reshape(-1), right[name].reshape(-1)
        for at in range(0, one.size, BLOCK):
            apart = one[at : at + BLOCK].astype(np.float64) - other[at : at + BLOCK]
            total += float(apart @ apart)
    return total


@dataclass(frozen=True, kw_only=True)
class MultiKrum(Robust):
    """Multi-Krum (Blanchard et al. 2017, arXiv:1703.02757).

    With n updates and f liars, an update's score is the sum of its squared distances to the
    n - f - 2 others that are closest to it. The model moves by the plain mean of the `select`
    updates whose scores are least, n - f unless it is given. `byzantine` is f. The outcome's
    `clients` are those that were selected. Weights do not count. It needs all updates together, and
    compares each with each. `finish` raises TooFewUpdates unless there are 2 f + 3 of them, and at
    least `select`.

    >>> import numpy as np
    >>> updates = [(name, {"w": np.array([move])}, 1) for name, move in
    ...            [("a", 1.0), ("b", 2.0), ("c", 3.0), ("d", 4.0), ("liar", 1e9)]]
    >>> outcome = aggregate(MultiKrum(byzantine=1), {"w": np.array([0.0])}, updates)
    >>> outcome.params, outcome.clients
    ({'w': array([2.5])}, ('a', 'b', 'c', 'd'))
    """

    byzantine: int
    select: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        hyperparameters.count("byzantine", self.byzantine, 0)
        if self.select is not None:
            hyperparameters.count("select", self.select)

    def combined(self, given: Sequence[Given], names: Sequence[str]) -> Combined:
        count, liars = len(given), self.byzantine
        who = f"{type(self).__name__}(byzantine={liars}, select={self.select})"
        _check_enough(who, given, max(2 * liars + 3, self.select or 0))
        # Each one's distance to itself, 0, comes first.
        scores = np.sort(_distances(given, names), axis=1)[:, 1 : count - liars - 1].sum(axis=1)
        order = np.argsort(scores, kind="stable")[: self.select or count - liars]
        selected = [given[index] for index in sorted(order)]
        mean = _weighted_mean(selected, names, [1.0] * len(selected))
        return Combined(mean, tuple(each.client for each in selected))


@dataclass(frozen=True, kw_only=True)
class Krum(MultiKrum):
    """Krum (Blanchard et al. 2017, arXiv:1703.02757): the one update with the least score.

    `MultiKrum` says what the score is, and what is raised. Among equals, the client whose name
    comes first is selected.

    >>> import numpy as np
    >>> updates = [(name, {"w": np.array([move])}, 1) for name, move in
    ...            [("a", 1.0), ("b", 2.0), ("c", 2.5), ("d", 4.0), ("liar", 1e9)]]
    >>> outcome = aggregate(Krum(byzantine=1), {"w": np.array([0.0])}, updates)
    >>> outcome.params, outcome.clients
    ({'w': array([2.])}, ('b',))
    """

    select: int | None = 1


def clip(update: Arrays, max_norm: float) -> dict[str, Any]:
    """The update, scaled down where the norm of all its floats together exceeds `max_norm`.

        Δ ← Δ min(1, C / ‖Δ‖)

    C is `max_norm`. Integers, and what the update says of itself (`about:...`), stay as they are.
    From McMahan et al. 2018, arXiv:1710.06963. Raises BadModel where the norm is beyond any float.

    >>> import numpy as np
    >>> clip({"w": np.array([3.0, 4.0])}, max_norm=1.0)
    {'w': array([0.6, 0.8])}
    """
    hyperparameters.positive("max_norm", max_norm)
    floats = {
        name: array
        for name, array in update.items()
        if array.dtype.kind == "f" and not name.startswith(ABOUT)
    }
    with np.errstate(all="ignore"):
        norm = math.sqrt(squared_norm(floats))
    if not math.isfinite(norm):
        raise BadModel("The norm of this update is no finite number: it can't be clipped.")
    if norm <= max_norm:
        return dict(update)
    return {**update, **{name: np.asarray(a * (max_norm / norm)) for name, a in floats.items()}}


@dataclass(frozen=True)
class Clipped(Strategy):
    """Norm clipping at the server, before another strategy: no client moves the model further.

    Each update is scaled down as `clip` says; it rides on any strategy, and streams if that does.

    >>> import numpy as np
    >>> strategy = Clipped(FedAvg(), max_norm=1.0)
    >>> updates = [("a", {"w": np.array([0.5])}, 1), ("liar", {"w": np.array([-1e9])}, 1)]
    >>> aggregate(strategy, {"w": np.array([0.0])}, updates).params
    {'w': array([-0.25])}
    """

    strategy: Strategy
    max_norm: float

    def __post_init__(self) -> None:
        hyperparameters.positive("max_norm", self.max_norm)

    @property
    def adds_up(self) -> bool:
        """As the strategy that it rides on."""
        return self.strategy.adds_up

    def start(self, params: Arrays, state: Arrays | None = None) -> Round:
        round = self.strategy.start(params, state)
        round.filter_with(self._clipped)
        return round

    def client(
        self, params: Arrays, state: Arrays | None = None, own: Arrays | None = None
    ) -> Client:
        return self.strategy.client(params, state, own)

    def _clipped(self, client: str, update: Arrays) -> Arrays:
        try:
            return clip(update, self.max_norm)
        except BadModel:
            raise BadUpdate(client, None, "its norm is beyond any float") from None
