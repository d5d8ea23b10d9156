"""Logistic regression by gradient descent, in numpy."""

import numpy as np


def probabilities(model, x):
    """(patients, features) -> (patients,)"""
    return 1 / (1 + np.exp(-(x @ model["w"] + model["b"])))


def accuracy(model, x, y):
    return float(((probabilities(model, x) > 0.5) == y).mean())


def train(model, x, y, *, steps, rate, correction=lambda model: {}):
    """A trained copy; `correction` gives what is added to the gradient of each step."""
    for _ in range(steps):
        error = probabilities(model, x) - y
        gradient = {"w": x.T @ error / len(y), "b": error.mean()}
        added = correction(model)
        model = {name: model[name] - rate * (gradient[name] + added.get(name, 0)) for name in model}
    return model
