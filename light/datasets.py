"""Reads files as values, by their suffix. Imported when a task first reads a dataset."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from manta.light.errors import DataCorruptionError, MissingPackage

if TYPE_CHECKING:
    from collections.abc import Callable

    from manta.light.path import MantaPath


def load(path: MantaPath) -> Any:
    """A file's value, or the path where the suffix says nothing.

    Raises MissingPackage, DataCorruptionError, FileNotFoundError.
    """
    read = None if path.is_dir() else _READERS.get(path.suffix.lower())
    if read is None:
        path.stat()  # raises where there is nothing
        return path
    try:
        return read(path)
    except (OSError, MissingPackage):
        raise
    except ImportError as error:  # pandas without an engine for parquet
        raise MissingPackage(f"{path.name} can't be read on this node: {error}") from error
    except Exception as error:  # each library has errors of its own
        raise DataCorruptionError(
            f"{path.name} is not what its suffix says, or is damaged: {error}"
        ) from error


def load_numpy(path: MantaPath) -> Any:
    """A file's arrays. Raises what `load` raises, and TypeError for formats without arrays."""
    value = load(path)
    suffix = path.suffix.lower()
    if suffix in (".npy", ".npz"):
        return value
    if suffix in (".csv", ".parquet"):
        return value.to_numpy()
    if suffix == ".pt":
        if isinstance(value, dict):
            return {key: _array(tensor) for key, tensor in value.items()}
        return _array(value)
    raise TypeError(
        f"{path.name} holds no arrays that Manta can read: use get_binary_data() or dataset_path()."
    )


def _numpy(path: MantaPath) -> Any:
    numpy = _package("numpy", path)
    with path.open("rb") as file:  # numpy itself would leave a damaged one open
        loaded = numpy.load(file, allow_pickle=False)
        if isinstance(loaded, numpy.ndarray) is not (path.suffix.lower() == ".npy"):
            raise ValueError("it is the other of .npy and .npz")
        if path.suffix.lower() == ".npy":
            return loaded
        return {name: loaded[name] for name in loaded.files}


def _torch(path: MantaPath) -> Any:
    return _package("torch", path).load(path, map_location="cpu", weights_only=True)


_READERS: dict[str, Callable[[MantaPath], Any]] = {
    ".npy": _numpy,
    ".npz": _numpy,
    ".pt": _torch,
    ".csv": lambda path: _package("pandas", path).read_csv(path),
    ".parquet": lambda path: _package("pandas", path).read_parquet(path),
}


def _array(value: Any) -> Any:
    return value.detach().cpu().numpy() if hasattr(value, "detach") else value


def _package(name: str, path: MantaPath) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingPackage(
            f"Reading {path.name} needs {name}, which is not installed on this node: "
            f"install it there, or read the file with get_binary_data() or read_file_lines()."
        ) from error
