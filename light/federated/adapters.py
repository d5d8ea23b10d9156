"""Models of torch and scikit-learn as `{name: array}`, and back."""

from __future__ import annotations

from typing import Any

from manta.light.federated.arrays import Arrays, check_same
from manta.light.federated.errors import BadModel
from manta.light.federated.lazy import np

_FITTED = ("coef_", "intercept_", "coefs_", "intercepts_")
"""What linear models and multi-layer perceptrons of scikit-learn learn; lists have one a layer."""


def from_torch(module: Any) -> dict[str, Any]:
    """The state of a torch module, parameters and buffers: copies, by their names in it.

    Raises BadModel for tensors of types that numpy has not, such as bfloat16.
    """
    return {name: _of_tensor(name, tensor) for name, tensor in module.state_dict().items()}


def _of_tensor(name: str, tensor: Any) -> Any:
    try:
        return np.array(tensor.detach().cpu().numpy())
    except (TypeError, AttributeError) as error:
        raise BadModel(
            f"The module's {name!r:.80} makes no array: {error}. Convert it, with .float() for "
            "example, or leave it out."
        ) from error


def torch_buffers(module: Any) -> list[str]:
    """The names of a torch module's float buffers: a strategy's `buffers`."""
    state = module.state_dict()
    return [
        name
        for name, buffer in module.named_buffers()
        if name in state and buffer.is_floating_point()
    ]


def to_torch(module: Any, arrays: Arrays) -> None:
    """Sets a torch module's state, on whichever device it is.

    Raises BadModel where names, shapes or dtypes are not the module's.
    """
    import torch

    check_same(arrays, from_torch(module), "The model")
    # A copy: torch would share, and warn of, memory that can't be written.
    module.load_state_dict({name: torch.tensor(array) for name, array in arrays.items()})


def from_sklearn(estimator: Any) -> dict[str, Any]:
    """What a linear model or a multi-layer perceptron of scikit-learn has learned: copies, by the
    names of its attributes, such as `coef_`, or `coefs_.0` for the first of a list.

    Raises BadModel for an estimator that has learned nothing yet, or nothing of this kind.
    """
    found: dict[str, Any] = {}
    for attribute in _FITTED:
        value = getattr(estimator, attribute, None)
        if isinstance(value, list):
            found |= {f"{attribute}.{at}": np.array(layer) for at, layer in enumerate(value)}
        elif value is not None:
            found[attribute] = np.array(value)
    if not found:
        raise BadModel(
            f"A {type(estimator).__name__} has none of {', '.join(_FITTED)}: fit it first, with "
            "partial_fit on one batch for example."
        )
    return found


def to_sklearn(estimator: Any, arrays: Arrays) -> None:
    """Sets what a fitted estimator of scikit-learn has learned.

    Raises BadModel where names, shapes or dtypes are not the estimator's.
    """
    check_same(arrays, from_sklearn(estimator), "The model")
    for attribute in _FITTED:
        value = getattr(estimator, attribute, None)
        if isinstance(value, list):
            value[:] = [np.array(arrays[f"{attribute}.{at}"]) for at in range(len(value))]
        elif value is not None:
            setattr(estimator, attribute, np.array(arrays[attribute]))
