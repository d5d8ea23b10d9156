"""Models of torch and scikit-learn become arrays and come back."""

from __future__ import annotations

import numpy as np
import pytest

from manta.light.federated import FedAvg, aggregate, delta, kinds
from manta.light.federated.adapters import (
    from_sklearn,
    from_torch,
    to_sklearn,
    to_torch,
    torch_buffers,
)
from manta.light.federated.errors import BadModel


def test_a_torch_module() -> None:
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    start = from_torch(module)
    buffers = torch_buffers(module)
    assert buffers == ["1.running_mean", "1.running_var"]
    found = kinds(start, buffers)
    assert found["1.num_batches_tracked"] == "integer"
    assert found["0.weight"] == found["1.weight"] == "parameter"
    module(torch.ones(4, 3)).sum().backward()
    with torch.no_grad():
        module[0].weight += 1
    trained = from_torch(module)
    assert trained["1.num_batches_tracked"] == 1
    assert start["1.num_batches_tracked"] == 0, "they are copies"
    made = aggregate(FedAvg(buffers=buffers), start, [("a", delta(trained, start), 5)]).params
    to_torch(module, made)
    back = from_torch(module)
    np.testing.assert_allclose(back["0.weight"], trained["0.weight"], rtol=1e-6)
    assert back["1.num_batches_tracked"] == 0
    with pytest.raises(BadModel, match=r"'1\.weight'"):
        to_torch(module, {**made, "1.weight": np.zeros(5, np.float32)})
    with pytest.raises(BadModel, match=r"'weight' makes no array.*\.float\(\)"):
        from_torch(torch.nn.Linear(1, 1).bfloat16())


@pytest.mark.parametrize("kind", ["linear", "perceptron"])
def test_an_estimator_of_sklearn(kind: str) -> None:
    from sklearn.linear_model import SGDClassifier
    from sklearn.neural_network import MLPClassifier

    x = np.random.default_rng(1).normal(size=(40, 3))
    y = (x[:, 0] > 0).astype(int)
    estimator = SGDClassifier() if kind == "linear" else MLPClassifier((4,))
    with pytest.raises(BadModel, match="fit it first"):
        from_sklearn(estimator)
    estimator.partial_fit(x, y, classes=[0, 1])
    start = from_sklearn(estimator)
    assert set(start) >= ({"coef_", "intercept_"} if kind == "linear" else {"coefs_.0", "coefs_.1"})
    estimator.partial_fit(x, y)
    trained = from_sklearn(estimator)
    assert any((trained[name] != start[name]).any() for name in start), "they are copies"
    said = estimator.predict(x)
    to_sklearn(estimator, {name: np.zeros_like(array) for name, array in start.items()})
    assert len(set(estimator.predict(x))) == 1
    to_sklearn(estimator, trained)
    assert (estimator.predict(x) == said).all()
    with pytest.raises(BadModel, match="is missing"):
        to_sklearn(estimator, dict(list(start.items())[:1]))
