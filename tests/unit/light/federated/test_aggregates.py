"""Each aggregate against a second, naive one: Python's floats, coordinate by coordinate."""

from __future__ import annotations

import itertools
import math
import random
from statistics import median
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from manta.light.federated import (
    Clipped,
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedYogi,
    GeometricMedian,
    Krum,
    Median,
    MultiKrum,
    Strategy,
    TrimmedMean,
    aggregate,
)

SIZE = 3
numbers = st.floats(-100, 100, width=32)
vectors = hnp.arrays(np.float64, SIZE, elements=numbers)
weights = st.floats(0.25, 100, width=32)


def updates_of(least: int, most: int = 9) -> st.SearchStrategy[list[tuple[Any, float]]]:
    return st.lists(st.tuples(vectors, weights), min_size=least, max_size=most)


def outcome(strategy: Strategy, start: Any, given: list[tuple[Any, float]], state: Any = None):
    """The vector that comes of updates, as parts of a model of two arrays."""
    model = {"a": start[:2].reshape(2, 1), "b": start[2]}
    model = {name: np.asarray(array) for name, array in model.items()}
    updates = [
        (
            f"client-{number:03}",
            {"a": move[:2].reshape(2, 1), "b": np.asarray(move[2])},
            weight,
        )
        for number, (move, weight) in enumerate(given)
    ]
    return aggregate(strategy, model, updates, state)


def flat(arrays: dict[str, Any]) -> list[float]:
    return [*arrays["a"].reshape(-1).tolist(), float(arrays["b"])]


def mean_of(given: list[tuple[Any, float]]) -> list[float]:
    total = math.fsum(weight for _, weight in given)
    return [math.fsum(m[at] * w for m, w in given) / total for at in range(SIZE)]


def close(left: list[float], right: list[float], within: float = 1e-9) -> None:
    assert left == pytest.approx(right, rel=within, abs=within)


@given(vectors, updates_of(1), st.floats(0.1, 3))
def test_fedavg(start, moves, rate) -> None:
    made = outcome(FedAvg(server_learning_rate=rate), start, moves)
    mean = mean_of(moves)
    close(flat(made.params), [x + rate * m for x, m in zip(start, mean, strict=True)])


@given(vectors, st.lists(updates_of(1, 3), min_size=1, max_size=3), st.floats(0, 0.99))
def test_fedavgm(start, rounds, beta) -> None:
    expected, speed = list(start), [0.0] * SIZE
    params, made = start, None
    for moves in rounds:
        mean = mean_of(moves)
        speed = [beta * v + m for v, m in zip(speed, mean, strict=True)]
        expected = [x + v for x, v in zip(expected, speed, strict=True)]
        made = outcome(FedAvgM(server_momentum=beta), params, moves, made and made.state)
        params = np.array(flat(made.params))
    close(list(params), expected)


def second_moment(kind: type, old: float, square: float, beta: float) -> float:
    if kind is FedAdagrad:
        return old + square
    if kind is FedAdam:
        return beta * old + (1 - beta) * square
    sign = (old > square) - (old < square)
    return old - (1 - beta) * square * sign


@pytest.mark.parametrize("kind", [FedAdagrad, FedAdam, FedYogi])
@given(vectors, st.lists(updates_of(1, 3), min_size=1, max_size=4), st.floats(0, 0.99), st.data())
def test_adaptive_optimisers(kind, start, rounds, beta_1, data) -> None:
    beta_2 = data.draw(st.floats(0, 0.99))
    rate, tau = data.draw(st.floats(0.01, 1)), data.draw(st.floats(0.001, 1))
    more = {} if kind is FedAdagrad else {"beta_2": beta_2}
    strategy = kind(server_learning_rate=rate, beta_1=beta_1, tau=tau, **more)
    expected, first, second = list(start), [0.0] * SIZE, [tau**2] * SIZE
    params, made = start, None
    for moves in rounds:
        mean = mean_of(moves)
        for at in range(SIZE):
            first[at] = beta_1 * first[at] + (1 - beta_1) * mean[at]
            second[at] = second_moment(kind, second[at], mean[at] ** 2, beta_2)
            expected[at] += rate * first[at] / (math.sqrt(second[at]) + tau)
        made = outcome(strategy, params, moves, made and made.state)
        params = np.array(flat(made.params))
    close(list(params), expected, 1e-6)


@given(vectors, updates_of(1))
def test_median(start, moves) -> None:
    expected = [start[at] + median(m[at] for m, _ in moves) for at in range(SIZE)]
    close(flat(outcome(Median(), start, moves).params), expected)


@given(st.integers(1, 3), st.data())
def test_trimmed_mean(trim, data) -> None:
    start, moves = data.draw(vectors), data.draw(updates_of(2 * trim + 1))
    expected = []
    for at in range(SIZE):
        kept = sorted(m[at] for m, _ in moves)[trim : len(moves) - trim]
        expected.append(start[at] + math.fsum(kept) / len(kept))
    close(flat(outcome(TrimmedMean(trim=trim), start, moves).params), expected)


def scores(moves: list[tuple[Any, float]], liars: int) -> list[float]:
    found = []
    for number, (one, _) in enumerate(moves):
        others = [m for at, (m, _) in enumerate(moves) if at != number]
        apart = sorted(math.fsum((a - b) ** 2 for a, b in zip(one, m, strict=True)) for m in others)
        found.append(math.fsum(apart[: len(moves) - liars - 2]))
    return found


@given(st.integers(0, 2), st.data())
def test_krum(liars, data) -> None:
    moves = data.draw(updates_of(2 * liars + 3))
    made = outcome(Krum(byzantine=liars), np.zeros(SIZE), moves)
    selected = int(made.clients[0].removeprefix("client-"))
    found = scores(moves, liars)
    assert found[selected] <= min(found) * (1 + 1e-9) + 1e-12
    close(flat(made.params), list(moves[selected][0]))


@given(st.integers(0, 2), st.data())
def test_multi_krum(liars, data) -> None:
    moves = data.draw(updates_of(2 * liars + 3))
    select = data.draw(st.none() | st.integers(1, len(moves)))
    made = outcome(MultiKrum(byzantine=liars, select=select), np.zeros(SIZE), moves)
    chosen = [int(name.removeprefix("client-")) for name in made.clients]
    found = scores(moves, liars)
    assert len(chosen) == (select or len(moves) - liars)
    worst = max(found[at] for at in chosen)
    others = [found[at] for at in range(len(moves)) if at not in chosen]
    assert all(worst <= other * (1 + 1e-9) + 1e-12 for other in others)
    close(flat(made.params), mean_of([(moves[at][0], 1.0) for at in chosen]))


def spread(z: list[float], moves: list[tuple[Any, float]]) -> float:
    return math.fsum(w * math.dist(z, m) for m, w in moves)


@given(updates_of(1), st.integers(0, 2**32 - 1))
def test_geometric_median_has_the_least_sum_of_distances(moves, seed) -> None:
    made = flat(outcome(GeometricMedian(iterations=2000), np.zeros(SIZE), moves).params)
    least = spread(made, moves)
    draw = random.Random(seed)
    near = [[x + draw.gauss(0, scale) for x in made] for scale in (0.01, 0.1, 1, 10)]
    for other in [*(list(m) for m, _ in moves), mean_of(moves), *near]:
        # Weiszfeld comes to the optimum slowly where that is one of the updates.
        assert least <= spread(other, moves) * 1.01 + 1e-3


STREAMING = [
    FedAvg(),
    FedAvg(server_learning_rate=0.5),
    FedAvgM(),
    FedAdagrad(),
    FedAdam(),
    FedYogi(),
    Clipped(FedAvg(), max_norm=1.0),
]
COLLECTING = [
    Median(),
    TrimmedMean(trim=1),
    GeometricMedian(),
    Krum(byzantine=1),
    MultiKrum(byzantine=1),
]


@pytest.mark.parametrize("strategy", STREAMING, ids=repr)
@given(moves=updates_of(2, 6), seed=st.integers(0, 2**32 - 1))
def test_the_order_of_clients_changes_no_more_than_rounding(strategy, moves, seed) -> None:
    shuffled = random.Random(seed).sample(moves, len(moves))
    one = outcome(strategy, np.ones(SIZE), moves)
    other = outcome(strategy, np.ones(SIZE), shuffled)
    close(flat(one.params), flat(other.params))


@pytest.mark.parametrize("strategy", COLLECTING, ids=repr)
@given(moves=updates_of(5, 7), seed=st.integers(0, 2**32 - 1))
def test_those_that_need_all_do_not_care_who_came_first(strategy, moves, seed) -> None:
    model = {"w": np.ones(SIZE)}
    named = [(f"c{n}", {"w": m}, w) for n, (m, w) in enumerate(moves)]
    one = aggregate(strategy, model, named)
    other = aggregate(strategy, model, random.Random(seed).sample(named, len(named)))
    assert one.params["w"].tobytes() == other.params["w"].tobytes()
    assert one.clients == other.clients


@given(updates_of(1, 6), st.sampled_from([2.0, 4.0, 0.5]))
def test_only_how_weights_relate_counts(moves, factor) -> None:
    one = outcome(FedAvg(), np.ones(SIZE), moves)
    other = outcome(FedAvg(), np.ones(SIZE), [(m, w * factor) for m, w in moves])
    close(flat(one.params), flat(other.params))


@given(hnp.arrays(np.float32, 5, elements=numbers), st.integers(1, 5))
def test_a_client_of_weight_n_counts_as_n_clients(move, count) -> None:
    model, other = {"w": np.zeros(5, np.float32)}, np.ones(5, np.float32)
    heavy = aggregate(FedAvg(), model, [("a", {"w": move}, count), ("b", {"w": other}, 1)])
    many = aggregate(
        FedAvg(),
        model,
        [*((f"a{n}", {"w": move}, 1) for n in range(count)), ("b", {"w": other}, 1)],
    )
    np.testing.assert_allclose(heavy.params["w"], many.params["w"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("strategy", [*STREAMING, *COLLECTING], ids=repr)
def test_a_stream_equals_its_batch_to_the_bit(strategy) -> None:
    draw = np.random.default_rng(5)
    model: dict[str, Any] = {
        "w": draw.normal(size=(300, 300)).astype(np.float32),
        "b": np.array([1, 2], np.float32),
    }
    updates = [
        (f"c{n}", {k: draw.normal(size=v.shape).astype(v.dtype) for k, v in model.items()}, n + 1)
        for n in range(7)
    ]
    batch = aggregate(strategy, model, updates)
    round = strategy.start(model)
    for client, update, weight in updates:
        given = {name: array.copy() for name, array in update.items()}
        assert round.add(client, given, weight)
        if strategy in STREAMING:  # what was added is read before add() returns
            for array in given.values():
                array[:] = np.nan
    streamed = round.finish()
    for made, expected in [(streamed.params, batch.params), (streamed.state, batch.state)]:
        assert {k: v.tobytes() for k, v in made.items()} == {
            k: v.tobytes() for k, v in expected.items()
        }
    if strategy == FedAvg():  # and numpy's own accumulation, in the same order
        total = np.zeros_like(model["w"])
        for _, update, weight in updates:
            total += update["w"] * np.float32(weight)
        naive = total / np.float32(sum(range(1, 8))) + model["w"]
        assert streamed.params["w"].tobytes() == naive.tobytes()


@pytest.mark.parametrize(
    ("strategy", "most"),
    [
        (Median(), 3),
        (TrimmedMean(trim=2), 2),
        (GeometricMedian(), 3),
        (Krum(byzantine=2), 2),
        (MultiKrum(byzantine=2), 2),
    ],
    ids=repr,
)
@pytest.mark.parametrize("lie", [1e30, -1e30, 1e4])
def test_liars_up_to_the_breakdown_point_move_nothing_far(strategy, most, lie) -> None:
    honest = [1.0, 1.1, 0.9, 1.05, 0.95, 1.0, 1.02, 0.98]
    moves = [(np.full(SIZE, lie if n < most else honest[n]), 1.0) for n in range(len(honest))]
    for shuffled in itertools.islice(itertools.permutations(moves), 0, 5000, 997):
        made = flat(outcome(strategy, np.zeros(SIZE), list(shuffled)).params)
        assert all(0.85 <= value <= 1.15 for value in made)


@pytest.mark.parametrize("strategy", [Median(), TrimmedMean(trim=2), GeometricMedian()], ids=repr)
def test_a_majority_of_liars_has_its_way(strategy) -> None:
    moves = [(np.full(SIZE, 1e6 if n < 5 else 1.0), 1.0) for n in range(8)]
    assert min(flat(outcome(strategy, np.zeros(SIZE), moves).params)) > 1e5


def test_one_liar_has_its_way_with_a_mean() -> None:
    moves = [(np.full(SIZE, 1e6 if n < 1 else 1.0), 1.0) for n in range(8)]
    assert min(flat(outcome(FedAvg(), np.zeros(SIZE), moves).params)) > 1e5


@given(updates_of(1), st.floats(0.1, 10))
def test_clipped_clients_move_the_model_no_further_than_the_norm(moves, most) -> None:
    made = flat(outcome(Clipped(FedAvg(), max_norm=most), np.zeros(SIZE), moves).params)
    assert math.hypot(*made) <= most * (1 + 1e-9)
    clipped = [(m * min(1, most / (math.hypot(*m) or most)), w) for m, w in moves]
    close(made, mean_of(clipped))


def test_half_precision_is_summed_in_single() -> None:
    model = {"w": np.zeros(2, np.float16)}
    moves = [(f"c{n}", {"w": np.array([60_000, 1], np.float16)}, 1) for n in range(5000)]
    made = aggregate(FedAvg(), model, moves).params["w"]
    assert made.dtype == np.float16
    assert made.tolist() == [60_000, 1]


def test_a_strategy_never_changes_what_it_is_given() -> None:
    for strategy in [*STREAMING, *COLLECTING]:
        model, update = {"w": np.ones(3)}, {"w": np.full(3, 2.0)}
        state: Any = None
        for _ in range(2):
            before = {name: array.copy() for name, array in (state or {}).items()}
            made = aggregate(strategy, model, [(f"c{n}", update, 2) for n in range(5)], state)
            assert {k: v.tobytes() for k, v in (state or {}).items()} == {
                k: v.tobytes() for k, v in before.items()
            }
            state = made.state
        assert model["w"].tolist() == [1, 1, 1]
        assert update["w"].tolist() == [2, 2, 2]
