"""What one client sends wrong is named, and refused or left out; it is never spread."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from manta.light.federated import (
    SCAFFOLD,
    Clipped,
    Compressed,
    EightBit,
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedBN,
    FedBuff,
    FedDyn,
    FedNova,
    FedProx,
    FedYogi,
    GeometricMedian,
    Krum,
    Median,
    MultiKrum,
    OneBit,
    RandomK,
    Strategy,
    TopK,
    TrimmedMean,
    aggregate,
    delta,
    kinds,
)
from manta.light.federated.errors import (
    BadModel,
    BadState,
    BadUpdate,
    BadWeight,
    FederatedError,
    NoUpdates,
    Overflow,
    RoundFinished,
    TooFewUpdates,
)

MODEL = {"w": np.zeros(4, np.float32), "bn.mean": np.zeros(2), "bn.batches": np.array(3)}


def every(policy: Any) -> list[Strategy]:
    more: dict[str, Any] = {"on_bad_update": policy, "buffers": ["bn.mean"]}
    inner = FedAvg(**more)
    return [
        inner,
        FedAvgM(**more),
        FedProx(proximal_mu=0.1, **more),
        FedAdam(**more),
        FedYogi(**more),
        FedAdagrad(**more),
        SCAFFOLD(total_weight=5, **more),
        FedNova(**more),
        FedDyn(alpha=0.1, total_weight=5, **more),
        FedBuff(buffer_size=3, **more),
        Median(**more),
        TrimmedMean(trim=1, **more),
        GeometricMedian(**more),
        Krum(byzantine=0, **more),
        MultiKrum(byzantine=0, **more),
        Median(mixing=1, **more),
        Clipped(inner, 10.0),
        FedBN(FedAvg(on_bad_update=policy), ["bn.*"]),
        *(Compressed(inner, codec) for codec in (TopK(0.5), RandomK(0.5), EightBit(), OneBit())),
        Compressed(SCAFFOLD(total_weight=5, **more), TopK(0.5)),
    ]


def good(strategy: Strategy, number: int = 0) -> dict[str, Any]:
    client = strategy.client(MODEL)
    trained = {k: np.asarray(v + (number + 1), v.dtype) for k, v in client.params.items()}
    return client.finish(trained, steps=2, learning_rate=0.1).update


def float_names(update: dict[str, Any]) -> list[str]:
    return [name for name, array in update.items() if array.dtype.kind == "f"]


def broken(update: Any) -> list[tuple[Any, str | None]]:
    """Wrong updates, and what the error says."""
    name = float_names(update)[0]
    array = update[name]
    surplus = {**update, "extra": np.zeros(2)}
    wrong: list[tuple[Any, str | None]] = [({**update, name: array[..., None]}, None)]
    wrong += [(surplus, "extra")]
    wrong += [({k: v for k, v in update.items() if k != name}, None)]
    wrong += [({**update, name: array.astype(np.float16)}, None)]
    wrong += [({**update, name: array.tolist()}, None), ({**update, name: "weights"}, None)]
    wrong += [({**update, name: np.ma.masked_array(array)}, None), ({}, None), (None, "no dict")]
    for value in (np.nan, np.inf, -np.inf):
        spoilt = array.copy()
        spoilt[(0,) * array.ndim] = value
        wrong.append(({**update, name: spoilt}, "NaN" if np.isnan(value) else "infinite"))
    return wrong


@pytest.mark.parametrize("strategy", every("refuse"), ids=repr)
def test_a_wrong_update_is_refused_by_the_name_of_its_client(strategy) -> None:
    for update, said in broken(good(strategy)):
        round = strategy.start(MODEL)
        assert round.add("fine", good(strategy))
        with pytest.raises(BadUpdate, match="client 'hospital-3'") as refused:
            round.add("hospital-3", update)
        assert refused.value.client == "hospital-3"
        assert said is None or said in str(refused.value)


@pytest.mark.parametrize("strategy", every("leave_out"), ids=repr)
def test_a_wrong_update_is_left_out_and_changes_nothing(strategy) -> None:
    updates = [(f"c{n}", good(strategy, n), n + 1) for n in range(3)]
    expected = aggregate(strategy, MODEL, updates)
    for wrong, _ in broken(good(strategy)):
        round = strategy.start(MODEL)
        for number, (client, update, weight) in enumerate(updates):
            assert round.add(f"bad-{number}", wrong) is False
            assert round.add(client, update, weight) is True
        made = round.finish()
        assert {k: v.tobytes() for k, v in made.params.items()} == {
            k: v.tobytes() for k, v in expected.params.items()
        }
        assert made.clients == expected.clients
        assert set(made.left_out) == {"bad-0", "bad-1", "bad-2"}
        assert all(made.left_out.values())


def test_an_error_names_the_array() -> None:
    update = {"w": np.array([1, np.nan], np.float32), "b": np.array([1], np.float32)}
    model = {name: np.zeros_like(array) for name, array in update.items()}
    with pytest.raises(BadUpdate, match=r"client 'a' can't be used: array 'w' has NaN") as refused:
        FedAvg().start(model).add("a", update)
    assert (refused.value.array, refused.value.client) == ("w", "a")
    with pytest.raises(BadUpdate, match=r"array 'b' is float32 of shape \(2,\)"):
        FedAvg().start(model).add("a", {"w": model["w"], "b": np.array([1, 2], np.float32)})
    with pytest.raises(
        BadUpdate, match="it lacks 'b', 'w' and it has 'c', which the model has not"
    ):
        FedAvg().start(model).add("a", {"c": model["w"]})


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf"), "5", None, True, [1]])
def test_a_wrong_weight_is_named(weight) -> None:
    with pytest.raises(BadWeight, match=r"client 'a'.*its weight is"):
        FedAvg().start(MODEL).add("a", good(FedAvg()), weight)
    round = FedAvg(on_bad_update="leave_out").start(MODEL)
    assert round.add("a", good(FedAvg()), weight) is False
    with pytest.raises(NoUpdates, match=r"to aggregate\. Left out were 'a': its weight is"):
        round.finish()


def test_numpys_numbers_are_weights() -> None:
    assert FedAvg().start(MODEL).add("a", good(FedAvg()), np.int64(4))  # type: ignore[arg-type]


@pytest.mark.parametrize("strategy", every("refuse"), ids=repr)
def test_without_any_client_there_is_no_model(strategy) -> None:
    with pytest.raises(NoUpdates, match="There is no update to aggregate"):
        strategy.start(MODEL).finish()


def test_a_client_counts_once() -> None:
    for strategy in (FedAvg(), Median()):
        round = strategy.start(MODEL)
        round.add("a", good(strategy))
        with pytest.raises(BadUpdate, match="another in this round"):
            round.add("a", good(strategy))
    round = FedAvg(on_bad_update="leave_out").start(MODEL)
    assert round.add("a", {}) is False
    assert round.add("a", good(FedAvg())) is True
    assert round.finish().left_out == {}


def test_a_round_ends_once() -> None:
    round = FedAvg().start(MODEL)
    round.add("a", good(FedAvg()))
    round.finish()
    for use in (round.finish, lambda: round.add("b", good(FedAvg()))):
        with pytest.raises(RoundFinished, match="begin another"):
            use()


@pytest.mark.parametrize(
    ("strategy", "least"),
    [
        (TrimmedMean(trim=2), 5),
        (Krum(byzantine=2), 7),
        (MultiKrum(byzantine=1), 5),
        (MultiKrum(byzantine=0, select=6), 6),
        (Median(mixing=2), 5),
    ],
    ids=repr,
)
def test_too_few_for_what_is_assumed(strategy, least) -> None:
    updates = [(f"c{n}", good(strategy, n), 1) for n in range(least)]
    assert aggregate(strategy, MODEL, updates)
    with pytest.raises(TooFewUpdates, match=f"at least {least} updates, and there are {least - 1}"):
        aggregate(strategy, MODEL, updates[1:])


def test_a_buffer_is_finished_when_it_is_full() -> None:
    strategy = FedBuff(buffer_size=2)
    round = strategy.start(MODEL)
    round.add("a", good(strategy))
    assert not round.is_full
    with pytest.raises(TooFewUpdates, match="waits for 2 updates, and has 1"):
        round.finish()
    round.add("a", good(strategy))
    assert round.finish().state == {"about:version": 1}


def test_an_update_of_a_version_that_was_not_is_refused() -> None:
    strategy = FedBuff(buffer_size=1, max_staleness=2)
    state = {"about:version": np.array(5)}
    for version, said in ((6, "no version"), (-1, "no version"), (2, "3 moves old, of at most 2")):
        update = {**good(strategy), "about:version": np.array(version)}
        with pytest.raises(BadUpdate, match=said):
            strategy.start(MODEL, state).add("a", update)


def test_steps_are_at_least_some() -> None:
    update = {**good(FedNova()), "about:steps": np.array(0.0)}
    with pytest.raises(BadUpdate, match=r"'about:steps' is 0\.0"):
        FedNova().start(MODEL).add("a", update)
    for strategy in (FedNova(), SCAFFOLD(total_weight=1)):
        with pytest.raises(ValueError, match=r"give finish\(steps="):
            strategy.client(MODEL).finish(MODEL)
    with pytest.raises(ValueError, match=r"give finish\(learning_rate="):
        SCAFFOLD(total_weight=1).client(MODEL).finish(MODEL, steps=1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"indices:w": np.array([1, 1], np.uint32)}, "not in order"),
        ({"indices:w": np.array([3, 4], np.uint32)}, "beyond its end"),
        ({"indices:w": np.array([1], np.uint32)}, "'indices' that is not uint32"),
        ({"values:w": np.zeros(9, np.float32)}, "'values' that is not float32"),
        ({"values:w": np.array([1, np.nan], np.float32)}, "NaN or infinite"),
    ],
)
def test_what_no_codec_made_is_refused(change, said) -> None:
    strategy = Compressed(FedAvg(), TopK(0.5))
    with pytest.raises(BadUpdate, match=f"client 'a'.*'w'.*{said}"):
        strategy.start(MODEL).add("a", {**good(strategy), **change})


def test_finite_updates_that_overflow_are_told_of() -> None:
    model = {"w": np.zeros(2, np.float32)}
    huge = {"w": np.full(2, 3e38, np.float32)}
    with pytest.raises(Overflow, match="'w' becomes is too large for float32"):
        aggregate(FedAvg(), model, [("a", huge, 10)])
    with pytest.raises(Overflow, match="sum of all weights"):
        aggregate(FedAvg(), MODEL, [(c, good(FedAvg()), 1e308) for c in "ab"])
    with pytest.raises(Overflow, match="too large"):
        aggregate(FedAdam(), model, [("a", huge, 1)])
    made = aggregate(Median(), model, [(c, huge, 1) for c in "abc"])
    assert made.params["w"].tolist() == huge["w"].tolist()


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({}, "at least one"),
        (None, "give a dict"),
        ({1: np.zeros(1)}, "names are str"),
        ({"w": [1.0]}, "'w' is a builtins.list"),
        ({"w": np.array(["x"])}, "dtype str"),
        ({"w": np.zeros(1, complex)}, "dtype complex128"),
        ({"control:w": np.zeros(1)}, "another name"),
    ],
)
def test_a_model_that_will_not_do(params, said) -> None:
    with pytest.raises(BadModel, match=re.escape(said)):
        FedAvg().start(params)


def test_names_that_fit_nothing_are_told_of() -> None:
    with pytest.raises(BadModel, match=r"buffers: '\*.running_mean' fits none of"):
        kinds(MODEL, buffers=["*.running_mean"])
    with pytest.raises(BadModel, match="personal: 'norm' fits none"):
        FedBN(FedAvg(), ["norm"]).start(MODEL)
    with pytest.raises(BadModel, match="nothing to share"):
        FedBN(FedAvg(), ["*"]).client(MODEL)


@pytest.mark.parametrize(
    "trained",
    [{"w": np.zeros(4, np.float32)}, {**MODEL, "w": np.zeros(4)}, {**MODEL, "x": np.zeros(1)}],
)
def test_a_client_that_trained_another_model_learns_it_at_once(trained) -> None:
    with pytest.raises(BadModel, match="The trained model's"):
        delta(trained, MODEL)


@pytest.mark.parametrize(
    "state",
    [
        {"momentum:v": np.zeros(4, np.float32)},
        {"momentum:w": np.zeros(3, np.float32)},
        {"momentum:w": np.zeros(4)},
        {"momentum:w": [0.0] * 4},
    ],
)
def test_a_state_of_another_model_is_refused(state) -> None:
    strategy = FedAvgM(buffers=["bn.mean"])
    with pytest.raises(BadState, match="momentum"):
        strategy.start(MODEL, state)
    with pytest.raises(BadState):
        FedAvg().start(MODEL, state)
    with pytest.raises(BadState, match="residual of 'w'"):
        Compressed(FedAvg(), TopK(0.5)).client(MODEL, own={"residual:w": np.zeros(3)}).finish(MODEL)


def test_diverged_training_is_not_compressed() -> None:
    trained = {**MODEL, "w": np.full(4, np.nan, np.float32)}
    with pytest.raises(BadModel, match="has training diverged"):
        Compressed(FedAvg(), TopK(0.5)).client(MODEL).finish(trained)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: FedAvg(server_learning_rate=0), "server_learning_rate is 0"),
        (lambda: FedAvgM(server_momentum=1), "server_momentum is 1"),
        (lambda: FedProx(proximal_mu=-1), "proximal_mu is -1"),
        (lambda: FedAdam(tau=0), "tau is 0"),
        (lambda: FedAdam(beta_2=1.0), "beta_2 is 1.0"),
        (lambda: SCAFFOLD(total_weight=0), "total_weight is 0"),
        (lambda: FedDyn(alpha=0, total_weight=1), "alpha is 0"),
        (lambda: FedNova(momentum=1), "momentum is 1"),
        (lambda: FedBuff(buffer_size=0), "buffer_size is 0"),
        (lambda: TrimmedMean(trim=0), "trim is 0"),
        (lambda: Krum(byzantine=-1), "byzantine is -1"),
        (lambda: Clipped(FedAvg(), 0), "max_norm is 0"),
        (lambda: TopK(0), "fraction is 0"),
        (
            lambda: FedAvg(on_bad_update="ignore"),  # type: ignore[arg-type]
            "on_bad_update is 'ignore'",
        ),
        (
            lambda: FedAvg(integers="mean"),  # type: ignore[arg-type]
            "integers is 'mean'",
        ),
        (lambda: FedBN(FedAvg(), []), "personal is"),
    ],
)
def test_hyperparameters_are_checked(make, said) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        make()


def test_all_errors_are_of_one_tree() -> None:
    from manta.light.errors import LightError
    from manta.light.federated import errors

    kinds_ = [value for value in vars(errors).values() if isinstance(value, type)]
    for kind in kinds_:
        assert issubclass(kind, FederatedError) or kind is LightError
