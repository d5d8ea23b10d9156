"""Codecs keep what they promise, and what error feedback holds back is sent in the end."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from manta.light.federated import (
    Compressed,
    EightBit,
    FedAdam,
    FedAvg,
    Krum,
    OneBit,
    RandomK,
    TopK,
    aggregate,
)
from manta.light.federated.arrays import Form

CODECS = [TopK(0.3), TopK(1.0), RandomK(0.3), EightBit(), OneBit()]
arrays = hnp.arrays(
    st.sampled_from([np.float16, np.float32, np.float64]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=7),
    elements=st.floats(-1000, 1000, width=16),
)


def there_and_back(codec, array, draw=5):
    return codec.decode(codec.encode(array, draw), Form(array.shape, array.dtype))


@pytest.mark.parametrize("codec", CODECS, ids=repr)
@given(array=arrays)
def test_what_comes_back_has_the_same_form_and_is_no_further_away_than_nothing(codec, array):
    before = array.copy()
    back = there_and_back(codec, array)
    assert (back.shape, back.dtype) == (array.shape, array.dtype)
    assert array.tobytes() == before.tobytes()
    wide = array.astype(float)
    lost = ((wide - back.astype(float)) ** 2).sum()
    assert lost <= (wide**2).sum() * (1 + 1e-2) + 1e-9
    parts, again = codec.encode(array, 5), codec.encode(array, 5)
    assert {k: v.tobytes() for k, v in parts.items()} == {k: v.tobytes() for k, v in again.items()}
    assert set(parts) == set(codec.parts)


@given(arrays, st.floats(0.01, 1))
def test_top_k_sends_the_largest(array, fraction) -> None:
    back = there_and_back(TopK(fraction), array)
    kept = min(array.size, max(1, int(np.ceil(fraction * array.size))))
    expected = sorted(np.abs(array).reshape(-1).tolist(), reverse=True)[:kept]
    sent = TopK(fraction).encode(array, 0)["values"]
    assert sorted(np.abs(sent).tolist(), reverse=True) == expected
    assert (back[back != 0] == array[back != 0]).all()


def test_random_k_draws_each_element_as_often_as_any() -> None:
    counts = np.zeros(20)
    for draw in range(2000):
        counts += there_and_back(RandomK(0.25), np.ones(20), draw)
    assert counts.sum() == 2000 * 5
    assert (abs(counts - 500) < 100).all()


@given(hnp.arrays(np.float64, 9, elements=st.floats(-1e6, 1e6)))
def test_eight_bits_are_off_by_half_a_step_at_most(array) -> None:
    step = np.abs(array).max() / 127
    assert (np.abs(there_and_back(EightBit(), array) - array) <= step * 0.5000001 + 1e-300).all()


@pytest.mark.parametrize(
    ("codec", "share"), [(TopK(0.01), 0.021), (RandomK(0.01), 0.011), (EightBit(), 0.251)]
)
def test_so_many_bytes_are_sent(codec, share) -> None:
    array = np.random.default_rng(1).normal(size=(100, 1000)).astype(np.float32)
    assert sum(p.nbytes for p in codec.encode(array, 0).values()) <= share * array.nbytes
    assert sum(p.nbytes for p in OneBit().encode(array, 0).values()) <= array.nbytes / 32 + 8


@pytest.mark.parametrize("codec", CODECS, ids=repr)
def test_with_error_feedback_all_that_is_lost_is_kept(codec) -> None:
    strategy = Compressed(FedAvg(), codec, seed=4)
    draw, own, wanted, sent_so_far = np.random.default_rng(2), None, np.zeros(30), np.zeros(30)
    model = {"w": np.zeros(30)}
    for _ in range(20):
        move = draw.normal(size=30)
        sent = strategy.client(model, own=own).finish({"w": move})
        own = sent.own
        wanted += move
        sent_so_far += aggregate(strategy, model, [("a", sent.update, 1)]).params["w"]
        np.testing.assert_allclose(sent_so_far + own["residual:w"], wanted, atol=1e-9)


@pytest.mark.parametrize("codec", [TopK(0.05), RandomK(0.05), OneBit()], ids=repr)
def test_so_that_a_client_comes_to_where_it_wants_to_be(codec) -> None:
    goal = np.random.default_rng(3).normal(size=40)
    ends = {}
    for feedback in (True, False):
        strategy = Compressed(FedAvg(), codec, error_feedback=feedback, seed=1)
        params, own = {"w": np.zeros(40)}, None
        for _ in range(1500):
            trained = {"w": params["w"] - 0.02 * (params["w"] - goal)}
            sent = strategy.client(params, own=own).finish(trained)
            own = sent.own
            params = aggregate(strategy, params, [("a", sent.update, 1)]).params
        ends[feedback] = np.abs(params["w"] - goal).max()
    assert ends[True] < 0.05


@pytest.mark.parametrize("inner", [FedAvg(), FedAdam(), Krum(byzantine=0)], ids=repr)
def test_it_rides_on_any_strategy(inner) -> None:
    model = {"w": np.array([1.0, 2.0, 3.0]), "count": np.array(4)}
    strategy = Compressed(inner, TopK(1.0))
    updates, plain = [], []
    for number in range(3):
        trained = {"w": model["w"] + number, "count": np.array(9)}
        updates.append((f"c{number}", strategy.client(model).finish(trained).update, 1))
        plain.append((f"c{number}", inner.client(model).finish(trained).update, 1))
    made, expected = (
        aggregate(each, model, given_) for each, given_ in ((strategy, updates), (inner, plain))
    )
    assert made.params["w"].tolist() == expected.params["w"].tolist()
    assert made.params["count"] == 4


def test_seeds_give_other_draws_and_rounds_too() -> None:
    model = {"w": np.zeros(50)}
    trained = {"w": np.arange(50.0)}

    def seeds(seed: int) -> list[int]:
        own, found = None, []
        for _ in range(3):
            sent = Compressed(FedAvg(), RandomK(0.1), seed=seed).client(model, own=own)
            done = sent.finish(trained)
            own = done.own
            found.append(int(done.update["seed:w"]))
        return found

    assert len({*seeds(1), *seeds(2)}) == 6
    assert seeds(1) == seeds(1)
