"""SCAFFOLD, FedNova, FedDyn, FedProx and FedBuff against the published algorithms, written out for
scalars, and on quadratic losses whose optimum is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manta.light.federated import (
    SCAFFOLD,
    Clipped,
    Compressed,
    Ditto,
    FedAvg,
    FedBN,
    FedBuff,
    FedDyn,
    FedNova,
    FedProx,
    Strategy,
    TopK,
)

numbers = st.floats(-10, 10)
CURVATURE, OPTIMUM, WEIGHT = [1.0, 4.0, 0.5], [3.0, -2.0, 5.0], [1.0, 2.0, 1.0]
"""Client i's loss is aᵢ/2 (x - bᵢ)²; the sum of all, by weight, is least at BEST."""
BEST = sum(w * a * b for w, a, b in zip(WEIGHT, CURVATURE, OPTIMUM, strict=True)) / sum(
    w * a for w, a in zip(WEIGHT, CURVATURE, strict=True)
)


def trained(strategy: Strategy, rounds: int, steps: Any = 10, rate: float = 0.05) -> float:
    params, state = {"x": np.array([0.0])}, dict[str, Any]()
    own: list[Any] = [None] * 3
    for _ in range(rounds):
        round = strategy.start(params, state)
        for i in range(3):
            client = strategy.client(params, state, own[i])
            x = client.params["x"].copy()
            taken = steps[i] if isinstance(steps, list) else steps
            for _ in range(taken):
                correction = client.correction({"x": x}).get("x", 0.0)
                x = x - rate * (CURVATURE[i] * (x - OPTIMUM[i]) + correction)
            sent = client.finish({"x": x}, steps=taken, learning_rate=rate)
            own[i] = sent.own
            round.add(f"client-{i}", sent.update, WEIGHT[i])
        outcome = round.finish()
        params, state = outcome.params, outcome.state
    return float(params["x"][0])


def test_fedavg_drifts() -> None:
    assert abs(trained(FedAvg(), 300) - BEST) > 0.1


@pytest.mark.parametrize(
    "strategy",
    [
        SCAFFOLD(total_weight=4),
        FedDyn(alpha=0.5, total_weight=4),
        Compressed(SCAFFOLD(total_weight=4), TopK(1.0)),
        Clipped(FedDyn(alpha=0.5, total_weight=4), 100.0),
    ],
    ids=repr,
)
def test_control_variates_and_dynamic_regularisation_do_not(strategy) -> None:
    assert trained(strategy, 300) == pytest.approx(BEST, abs=1e-6)


def test_fednova_is_not_drawn_to_whoever_takes_more_steps() -> None:
    uneven = [40, 1, 1]
    drawn = abs(trained(FedAvg(), 400, uneven, 0.01) - BEST)
    assert abs(trained(FedNova(), 400, uneven, 0.01) - BEST) < drawn / 3


@given(numbers, numbers, numbers, st.integers(1, 9), st.floats(0.01, 1), st.floats(1, 9))
def test_scaffold_step_by_step(x, y, c, steps, rate, total) -> None:
    strategy = SCAFFOLD(total_weight=total)
    model, state, own = {"x": np.array(x)}, {"control:x": np.array(c)}, {"control:x": np.array(1.0)}
    client = strategy.client(model, state, own)
    assert client.correction(model)["x"] == pytest.approx(c - 1.0)
    sent = client.finish({"x": np.array(y)}, steps=steps, learning_rate=rate)
    mine = 1.0 - c + (x - y) / (steps * rate)
    assert sent.own["control:x"] == pytest.approx(mine)
    round = strategy.start(model, state)
    round.add("a", sent.update, weight=1)
    other = {"x": np.array(2.0), "control:x": np.array(-1.0)}
    round.add("b", other, weight=3)
    outcome = round.finish()
    assert outcome.params["x"] == pytest.approx(x + ((y - x) + 3 * 2.0) / 4, abs=1e-9)
    assert outcome.state["control:x"] == pytest.approx(
        c + ((mine - 1.0) + 3 * -1.0) / total, rel=1e-9, abs=1e-9
    )


@given(numbers, numbers, numbers, st.floats(0.1, 2), st.floats(1, 9))
def test_feddyn_step_by_step(x, y, h, alpha, total) -> None:
    strategy = FedDyn(alpha=alpha, total_weight=total)
    model, state, own = {"x": np.array(x)}, {"drift:x": np.array(h)}, {"gradient:x": np.array(2.0)}
    client = strategy.client(model, state, own)
    assert client.correction({"x": np.array(y)})["x"] == pytest.approx(alpha * (y - x) - 2.0)
    sent = client.finish({"x": np.array(y)})
    assert sent.own["gradient:x"] == pytest.approx(2.0 - alpha * (y - x))
    round = strategy.start(model, state)
    round.add("a", sent.update, weight=2)
    outcome = round.finish()
    drift = h - alpha * 2 * (y - x) / total
    assert outcome.state["drift:x"] == pytest.approx(drift)
    assert outcome.params["x"] == pytest.approx(y - drift / alpha, rel=1e-9, abs=1e-9)


@given(st.lists(st.tuples(numbers, st.integers(1, 20), st.floats(0.5, 9)), min_size=1, max_size=4))
def test_fednova_step_by_step(clients) -> None:
    for momentum in (0.0, 0.9):
        strategy = FedNova(momentum=momentum, server_learning_rate=0.5)
        model = {"x": np.array(1.0)}
        round = strategy.start(model)
        total = sum(weight for _, _, weight in clients)
        per_step = effective = 0.0
        for number, (move, steps, weight) in enumerate(clients):
            client = strategy.client(model)
            update = client.finish({"x": np.array(1.0 + move)}, steps=steps).update
            round.add(f"c{number}", update, weight)
            # How much the gradient of each step counts in the whole: 1 + ρ + ρ² + ...
            norm = sum(sum(momentum**k for k in range(steps - j)) for j in range(steps))
            per_step += weight / total * move / norm
            effective += weight / total * norm
        made = round.finish().params["x"]
        assert made == pytest.approx(1 + 0.5 * effective * per_step, rel=1e-6, abs=1e-6)


def test_fedprox_stays_closer() -> None:
    part = FedProx(proximal_mu=2.0, buffers=["b"]).client(
        {"w": np.array([1.0]), "b": np.array([1.0]), "n": np.array(1)}
    )
    moved = {"w": np.array([4.0]), "b": np.array([9.0]), "n": np.array(2)}
    assert {k: v.tolist() for k, v in part.correction(moved).items()} == {"w": [6.0]}
    assert part.term(moved) == 9.0
    loose, tight = (trained(FedProx(proximal_mu=mu), 1) for mu in (0.0, 10.0))
    assert abs(tight) < abs(loose)


@given(st.lists(st.tuples(numbers, st.integers(0, 5)), min_size=1, max_size=5), st.floats(0, 2))
def test_fedbuff_weighs_by_staleness(given_, exponent) -> None:
    strategy = FedBuff(buffer_size=len(given_), staleness_exponent=exponent)
    state = {"about:version": np.array(5)}
    model = {"x": np.array(0.0)}
    round = strategy.start(model, state)
    for number, (move, staleness) in enumerate(given_):
        client = strategy.client(model, {"about:version": np.array(5 - staleness)})
        assert round.add(f"c{number}", client.finish({"x": np.array(move)}).update)
    outcome = round.finish()
    expected = sum(move / (1 + s) ** exponent for move, s in given_) / len(given_)
    assert outcome.params["x"] == pytest.approx(expected)
    assert outcome.state["about:version"] == 6


@pytest.mark.parametrize(("weight", "expected"), [(0.0, 6.0), (1.0, 3.0), (100.0, 6 / 101)])
def test_ditto_learns_a_model_between_its_own_and_all(weight: float, expected: float) -> None:
    strategy = Ditto(FedAvg(), proximal_lambda=weight)
    part, v = strategy.client({"x": np.array([0.0])}), np.array([0.0])
    for _ in range(2000):
        v = v - 0.005 * ((v - 6.0) + part.personal_correction({"x": v})["x"])
    assert v[0] == pytest.approx(expected, abs=1e-3)
    sent = part.finish({"x": np.array([1.0])}, personal={"x": v})
    again = strategy.client({"x": np.array([1.0])}, own=sent.own)
    assert again.personal["x"].tolist() == v.tolist()
    assert again.params["x"].tolist() == [1.0]


def test_what_a_client_keeps_of_several_is_kept_apart() -> None:
    strategy = Ditto(
        Compressed(FedBN(SCAFFOLD(total_weight=1), ["bn"]), TopK(0.5)), proximal_lambda=0.1
    )
    model = {"w": np.zeros(4), "bn": np.zeros(2)}
    params, state, own = model, dict[str, Any](), None
    for _ in range(2):
        client = strategy.client(params, state, own)
        after = {name: array + 1.0 for name, array in client.params.items()}
        sent = client.finish(after, steps=1, learning_rate=0.1, personal=after)
        round = strategy.start(params, state)
        assert round.add("a", sent.update)
        outcome = round.finish()
        params, state, own = outcome.params, outcome.state, sent.own
    assert set(own or ()) >= {"personal:w", "personal:bn", "residual:w", "control:w"}
