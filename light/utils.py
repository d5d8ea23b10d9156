"""Arrays, dicts and models as bytes, for code that wants to hold bytes."""

from __future__ import annotations

import io
from typing import Any

import msgpack

from manta.light.errors import DataCorruptionError


def numpy_to_bytes(value: Any) -> Any:
    """An array, or a list that makes one, as .npy bytes; a dict with each of its values so."""
    import numpy

    if isinstance(value, dict):
        return {key: numpy_to_bytes(item) for key, item in value.items()}
    array = numpy.asarray(value)
    if array.dtype.hasobject:
        raise TypeError(
            "numpy_to_bytes() takes arrays of numbers, bools, strings or dates; "
            "an array of Python objects can't be sent."
        )
    file = io.BytesIO()
    numpy.save(file, array, allow_pickle=False)
    return file.getvalue()


def bytes_to_numpy(data: Any) -> Any:
    """The inverse of `numpy_to_bytes`, also on nested dicts. Raises DataCorruptionError."""
    import numpy

    if isinstance(data, dict):
        return {key: bytes_to_numpy(item) for key, item in data.items()}
    try:
        return numpy.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise DataCorruptionError(f"These bytes are not an array: {error}") from error


def dict_to_bytes(value: dict[Any, Any]) -> bytes:
    """A dict of plain values as msgpack. Raises TypeError for others."""
    try:
        packed: bytes = msgpack.packb(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(
            f"dict_to_bytes() takes None, bool, int, float, str, bytes, lists and dicts: {error}; "
            "turn arrays into bytes with numpy_to_bytes()."
        ) from error
    return packed


def bytes_to_dict(data: bytes) -> dict[Any, Any]:
    """The inverse of `dict_to_bytes`. Raises DataCorruptionError."""
    try:
        value = msgpack.unpackb(data, strict_map_key=False)
    except (ValueError, msgpack.UnpackException) as error:
        raise DataCorruptionError(f"These bytes are not a dict: {error}") from error
    if not isinstance(value, dict):
        raise DataCorruptionError(f"These bytes are a {type(value).__name__}, not a dict.")
    return value


def torchmodel_to_bytes(model: Any) -> bytes:
    """The state of a torch model, or a state dict, as `torch.save` writes it."""
    import torch

    state = model.state_dict() if hasattr(model, "state_dict") else model
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def bytes_to_torchmodel(data: bytes, model: Any = None) -> Any:
    """The state dict in these bytes, or the model that was given, with that state loaded."""
    import torch

    state = torch.load(io.BytesIO(data), weights_only=True)
    if model is None:
        return state
    model.load_state_dict(state)
    return model
