"""Reads files as values, by their suffix. Imported when a task first reads a dataset."""

from __future__ import annotations

import codecs
import importlib
from typing import TYPE_CHECKING, Any

from manta.light import unpickled
from manta.light.errors import (
    DataCorruptionError,
    DatasetNotFound,
    MissingPackage,
    UnsupportedData,
)
from manta.light.unpickled import Refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from manta.light.path import MantaPath

_START = 4096  # bytes of a table that tell what it is
_PACKED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bz2",
    b"\xfd7zXZ\x00": "xz",
    b"(\xb5/\xfd": "zstd",
    b"PK\x03\x04": "zip",
}
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16's, which it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_IN_NUMPY = ("torch.float16", "torch.float32", "torch.float64")
_CONTROLS = frozenset(range(32)) - frozenset(b"\t\n\r\f\x1a")


def load(path: MantaPath, call: str = "the path") -> Any:
    """A file's value, or the path where the suffix says nothing.

    `call` is how task code gets the path. Raises MissingPackage, UnsupportedData,
    DataCorruptionError, FileNotFoundError.
    """
    read = None if path.is_dir() else _READERS.get(path.suffix.lower())
    if read is None:
        path.stat()  # raises where there is nothing
        return path
    try:
        return read(path)
    except Refused as refused:
        raise UnsupportedData(
            f"{path.name} holds {refused.what}: {refused.better}, or open it yourself by "
            f"{call.join(refused.opened_by)}."
        ) from None
    except (OSError, MissingPackage, DatasetNotFound):
        raise
    except ImportError as error:  # pandas without an engine for parquet
        raise MissingPackage(f"{path.name} can't be read on this node: {error}") from error
    except NotImplementedError as error:  # a codec, an encryption
        raise UnsupportedData(
            f"{path.name} can't be read by what is installed on this node ({error}): install what "
            f"can, or open {call} yourself."
        ) from error
    except Exception as error:  # each library has errors of its own
        raise DataCorruptionError(
            f"{path.name} is not what its suffix says, or is damaged: {error}"
        ) from error


def load_numpy(path: MantaPath, call: str = "the path") -> Any:
    """A file's arrays; tensors of a dtype that numpy lacks become float32, which holds them.

    Raises what `load` raises, UnsupportedData for tensors that numpy can't hold, and TypeError for
    formats without arrays.
    """
    value = load(path, call)
    suffix = path.suffix.lower()
    if suffix in (".npy", ".npz"):
        return value
    if suffix in (".csv", ".parquet"):
        return value.to_numpy()
    if suffix == ".pt":
        return _arrays(value, path.name)
    raise TypeError(
        f"{path.name} holds no arrays that Manta can read: use get_binary_data() or dataset_path()."
    )


def load_lines(path: MantaPath, encoding: str) -> list[str]:
    """The lines of a text, which only line feeds and carriage returns end. Raises UnsupportedData,
    LookupError for an encoding that Python does not know."""
    with path.open(encoding=encoding) as file:
        try:
            return [line.removesuffix("\n") for line in file]
        except UnicodeError as error:
            raise UnsupportedData(
                f"{path.name} holds what is no text in {encoding} ({error}): give "
                'read_file_lines() its encoding, such as encoding="latin-1", or read it with '
                "get_binary_data()."
            ) from None


def _numpy(path: MantaPath) -> Any:
    _package("numpy", path)
    with path.open("rb") as file:  # numpy itself would leave a damaged one open
        loaded = unpickled.load_numpy(file)
    if isinstance(loaded, dict) is not (path.suffix.lower() == ".npz"):
        raise ValueError("it is the other of .npy and .npz")
    return loaded


def _torch(path: MantaPath) -> Any:
    _package("torch", path)
    with path.open("rb") as file:
        return unpickled.load_torch(file)


def _csv(path: MantaPath) -> Any:
    pandas = _package("pandas", path)
    with path.open("rb") as file:
        start = file.read(_START)
    packed = next((name for magic, name in _PACKED.items() if start.startswith(magic)), None)
    if packed is not None:
        opened_by = "pandas.read_csv(", f", compression={packed!r})"
        raise Refused(f"what {packed} has packed", "unpack it", opened_by)
    encoding = _wide_encoding(start)
    what = f"text in {encoding}"
    if encoding is None:
        try:
            with path.open("rb") as file:
                return pandas.read_csv(file)
        except UnicodeDecodeError as error:
            if _CONTROLS.intersection(start):  # no text at all
                raise
            byte = f"0x{error.object[error.start]:02x}"
            what = f"text that is not in UTF-8 (a byte {byte}), perhaps in latin-1"
            encoding = "latin-1"
    opened_by = "pandas.read_csv(", f", encoding={encoding!r})"
    raise Refused(what, "save it in UTF-8", opened_by)


def _parquet(path: MantaPath) -> Any:
    pandas = _package("pandas", path)
    with path.open("rb") as file:
        return pandas.read_parquet(file)


def _wide_encoding(start: bytes) -> str | None:
    """That of a text in 16 or 32 bits, which begins like this."""
    for mark, encoding in _MARKS.items():
        if start.startswith(mark) and "\n" in start.decode(encoding, "replace"):
            return encoding
    half = len(start) // 2
    if start[1::2].count(0) > half * 0.7 and 0 not in start[::2]:
        return "utf-16-le"
    if start[::2].count(0) > half * 0.7 and 0 not in start[1::2]:
        return "utf-16-be"
    return None


_READERS: dict[str, Callable[[MantaPath], Any]] = {
    ".npy": _numpy,
    ".npz": _numpy,
    ".pt": _torch,
    ".csv": _csv,
    ".parquet": _parquet,
}


def _arrays(value: Any, where: str) -> Any:
    """The tensors in a nest as arrays. Raises UnsupportedData."""
    if isinstance(value, dict):
        return {key: _arrays(item, f"{where}[{key!r}]") for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [_arrays(item, f"{where}[{at}]") for at, item in enumerate(value)]
        return items if isinstance(value, list) else tuple(items)
    if not hasattr(value, "detach"):
        return value
    tensor = value.detach()
    try:
        tensor = tensor.resolve_conj().resolve_neg()
        if tensor.is_floating_point() and str(tensor.dtype) not in _IN_NUMPY:
            tensor = tensor.float()
        return tensor.numpy()
    except (TypeError, RuntimeError) as error:
        kind = f"{str(tensor.dtype).removeprefix('torch.')}, {tensor.layout}"
        raise UnsupportedData(
            f"{where} is a tensor that numpy can't hold ({kind}): read it with get_dataset(), "
            "which gives the tensor."
        ) from error


def _package(name: str, path: MantaPath) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingPackage(
            f"Reading {path.name} needs {name}, which is not installed on this node: "
            f"install it there, or read the file with get_binary_data() or read_file_lines()."
        ) from error
