"""Turns arrays, dicts and models into bytes and back, for code that wants to hold bytes."""

from __future__ import annotations

import importlib
import io
from typing import Any

import msgpack

from manta.light import unpickled
from manta.light.errors import DataCorruptionError, MissingPackage, UnsupportedData


def numpy_to_bytes(value: Any) -> Any:
    """An array, or a list that makes one, as .npy bytes.

    A dict comes back with each of its values turned into bytes, and so does a list that makes no
    array: one that holds a dict, or arrays of several shapes. Raises TypeError, which names the
    place, for what .npy does not hold, such as Python objects and masks; MissingPackage.
    """
    _package("numpy")
    return _to_bytes(value, "value")


def _to_bytes(value: Any, place: str) -> Any:
    import numpy

    if isinstance(value, dict):
        return {key: _to_bytes(item, f"{place}[{key!r}]") for key, item in value.items()}
    if (masked := _masked_place(value, place)) is not None:
        raise TypeError(
            f"{masked} is a masked array, whose mask .npy does not hold: give its .filled(...), or "
            "a dict of its .data and .mask."
        )
    try:
        array = None if _holds_dict(value) else numpy.asarray(value)
    except ValueError:  # of several shapes
        array = None
    except (TypeError, RuntimeError) as error:  # tensors that numpy has no type for, or of a graph
        raise TypeError(f"{place} makes no array: {error}") from error
    if array is None and isinstance(value, list | tuple):
        return [_to_bytes(item, f"{place}[{at}]") for at, item in enumerate(value)]
    if array is None or array.dtype.hasobject:
        raise TypeError(
            "numpy_to_bytes() takes arrays of numbers, bools, strings or dates; "
            f"{place} makes an array of Python objects: give numbers, or leave it out."
        )
    file = io.BytesIO()
    numpy.save(file, array, allow_pickle=False)
    return file.getvalue()


def _masked_place(value: Any, place: str) -> str | None:
    """Where `value` hides what an array of it would show."""
    import numpy

    if not isinstance(value, list | tuple):
        return place if numpy.ma.is_masked(value) else None
    for at, item in enumerate(value):
        if isinstance(item, list | tuple | numpy.ma.MaskedArray):
            found = _masked_place(item, f"{place}[{at}]")
            if found is not None:
                return found
    return None


def bytes_to_numpy(data: Any) -> Any:
    """The inverse of `numpy_to_bytes`, on nests of dicts and lists too.

    Raises DataCorruptionError, UnsupportedData for arrays of Python objects, TypeError for what is
    not bytes, MissingPackage.
    """
    return _arrays(data, "data")


def _arrays(data: Any, place: str) -> Any:
    if isinstance(data, dict):
        return {key: _arrays(item, f"{place}[{key!r}]") for key, item in data.items()}
    if isinstance(data, list | tuple):
        return [_arrays(item, f"{place}[{at}]") for at, item in enumerate(data)]
    if not isinstance(data, bytes | bytearray | memoryview):
        raise TypeError(
            f"bytes_to_numpy() takes bytes, and dicts and lists of them; {place} is a "
            f"{type(data).__name__}."
        )
    _package("numpy")
    if bytes(data[:6]) != b"\x93NUMPY":
        raise DataCorruptionError(f"{place} is not an array as numpy_to_bytes() writes it.")
    try:
        return unpickled.load_numpy(io.BytesIO(data))
    except unpickled.Refused as refused:
        raise UnsupportedData(f"{place} is {refused.what}: {refused.better}.") from None
    except (ValueError, EOFError) as error:
        raise DataCorruptionError(f"{place} is not an array: {error}") from error


def _holds_dict(value: Any) -> bool:
    if isinstance(value, dict):
        return True
    return isinstance(value, list | tuple) and any(map(_holds_dict, value))


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


def bytes_to_dict(data: bytes | bytearray | memoryview) -> Any:
    """The inverse of `dict_to_bytes`: a dict, or whatever else is in msgpack, of any origin.

    Arrays that are keys come back as tuples. Raises DataCorruptionError, TypeError for what is not
    bytes.
    """
    if not isinstance(data, bytes | bytearray | memoryview):
        raise TypeError(f"bytes_to_dict() takes bytes, not a {type(data).__name__}.")
    try:
        try:
            return msgpack.unpackb(data, strict_map_key=False)
        except TypeError:  # a key that can't be hashed
            return msgpack.unpackb(data, strict_map_key=False, object_pairs_hook=_dict)
    except (ValueError, msgpack.UnpackException) as error:
        why = str(error) or type(error).__name__
        raise DataCorruptionError(f"These bytes are not msgpack: {why}") from error


def _dict(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    return {_key(key): value for key, value in pairs}


def _key(key: Any) -> Any:
    if isinstance(key, list):
        return tuple(map(_key, key))
    return tuple(key.items()) if isinstance(key, dict) else key


def torchmodel_to_bytes(model: Any) -> bytes:
    """The state of a torch model, or a state dict, as `torch.save` writes it.

    Raises TypeError for anything else, MissingPackage.
    """
    torch = _package("torch")

    state = model.state_dict() if hasattr(model, "state_dict") else model
    if not isinstance(state, dict):
        raise TypeError(
            f"torchmodel_to_bytes() takes a model or its state dict, not a {type(model).__name__}."
        )
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def bytes_to_torchmodel(data: bytes, model: Any = None) -> Any:
    """The state dict in these bytes, or the given model with that state loaded.

    Only tensors and plain values are loaded. Raises DataCorruptionError, UnsupportedData for whole
    models and whatever else needs unpickling, TypeError for what is not bytes, MissingPackage.
    """
    _package("torch")

    if not isinstance(data, bytes | bytearray | memoryview):
        raise TypeError(f"bytes_to_torchmodel() takes bytes, not a {type(data).__name__}.")
    try:
        state = unpickled.load_torch(io.BytesIO(data))
    except unpickled.Refused as refused:
        raise UnsupportedData(f"These bytes hold {refused.what}: {refused.better}.") from None
    except Exception as error:  # torch has no error of its own for this
        raise DataCorruptionError(
            f"These bytes are not the state of a torch model: {_first_line(error)}"
        ) from error
    if model is None:
        return state
    try:
        model.load_state_dict(state)
    except Exception as error:
        raise DataCorruptionError(
            f"This state does not fit a {type(model).__name__}: {' '.join(str(error).split())}"
        ) from error
    return model


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingPackage(
            f"This needs {name}, which is not installed on this node: install it there."
        ) from error
