"""A multi-layer perceptron with one hidden layer, trained by SGD with momentum, in numpy."""

import numpy as np

Model = dict[str, np.ndarray]


def create(inputs: int, hidden: int, classes: int, seed: int) -> Model:
    """He initialisation (He et al., 2015)."""
    random = np.random.default_rng(seed)
    return {
        "w1": random.normal(0, np.sqrt(2 / inputs), (inputs, hidden)).astype(np.float32),
        "b1": np.zeros(hidden, np.float32),
        "w2": random.normal(0, np.sqrt(2 / hidden), (hidden, classes)).astype(np.float32),
        "b2": np.zeros(classes, np.float32),
    }


def logits(model: Model, x: np.ndarray) -> np.ndarray:
    """(samples, inputs) -> (samples, classes)"""
    return np.maximum(x @ model["w1"] + model["b1"], 0) @ model["w2"] + model["b2"]


def accuracy(model: Model, x: np.ndarray, y: np.ndarray) -> float:
    return float((logits(model, x).argmax(axis=1) == y).mean())


def gradients(model: Model, x: np.ndarray, y: np.ndarray) -> Model:
    """Of the mean cross-entropy over the batch."""
    hidden = np.maximum(x @ model["w1"] + model["b1"], 0)
    scores = hidden @ model["w2"] + model["b2"]
    scores -= scores.max(axis=1, keepdims=True)
    error = np.exp(scores)
    error /= error.sum(axis=1, keepdims=True)
    error[np.arange(len(y)), y] -= 1
    error /= len(y)
    back = (error @ model["w2"].T) * (hidden > 0)
    return {"w1": x.T @ back, "b1": back.sum(0), "w2": hidden.T @ error, "b2": error.sum(0)}


def train(
    model: Model, x: np.ndarray, y: np.ndarray, *, epochs: int, rate: float, batch: int = 16
) -> Model:
    """A trained copy; the batches follow numpy's global seed, which Manta sets each time."""
    model = {name: layer.copy() for name, layer in model.items()}
    speed = {name: np.zeros_like(layer) for name, layer in model.items()}
    for _ in range(epochs):
        order = np.random.permutation(len(y))
        for start in range(0, len(y), batch):
            chosen = order[start : start + batch]
            for name, gradient in gradients(model, x[chosen], y[chosen]).items():
                speed[name] = 0.9 * speed[name] - rate * gradient
                model[name] += speed[name]
    return model
