"""Data sets as files: read for their columns, and written as one file a node."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from manta.apis.errors import DatasetMissing, InvalidArgument, MissingPackage
from manta.protocol.names import meant

SUFFIXES = (".npz", ".csv", ".parquet")


class Table(Protocol):
    """Records with named columns."""

    suffix: str
    columns: list[str]
    records: int

    def column(self, name: str) -> Any:
        """Returns a one-dimensional array."""

    def write(self, path: Path, rows: Any) -> None:
        """Writes the records at these indices, in their order."""


def read(path: Path) -> Table:
    """Reads a file. Raises DatasetMissing, InvalidArgument, MissingPackage."""
    if path.suffix not in SUFFIXES:
        raise InvalidArgument(f"{path} is none of {', '.join(SUFFIXES)}: give such a file.")
    if not path.is_file():
        raise DatasetMissing(f"There is no file {path}.")
    try:
        return _Arrays(path) if path.suffix == ".npz" else _Frame(path)
    except (InvalidArgument, MissingPackage):
        raise
    except Exception as error:  # of whatever reads it
        raise InvalidArgument(
            f"{path} can't be read as {path.suffix} ({type(error).__name__}): it is damaged, "
            "another kind of file, or holds objects."
        ) from error


def column(table: Table, path: Path, name: str) -> Any:
    """Raises InvalidArgument."""
    if name not in table.columns:
        there = ", ".join(table.columns)
        raise InvalidArgument(
            f"{path} has no column {name!r}: it has {there}.{meant(name, table.columns)}"
        )
    return table.column(name)


class _Arrays:
    """Of an .npz file, whose arrays have one entry for each record."""

    suffix = ".npz"

    def __init__(self, path: Path) -> None:
        import numpy

        with numpy.load(path, allow_pickle=False) as file:
            self._arrays = {name: file[name] for name in file.files}
        lengths = {name: len(array) if array.ndim else 0 for name, array in self._arrays.items()}
        if not lengths:
            raise InvalidArgument(f"{path} has no arrays.")
        if len({*lengths.values()}) > 1:
            shown = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise InvalidArgument(
                f"The arrays of {path} differ in length ({shown}): give them one entry for each "
                "record."
            )
        self.columns = [*lengths]
        self.records = next(iter(lengths.values()))

    def column(self, name: str) -> Any:
        found = self._arrays[name]
        if found.ndim != 1:
            raise InvalidArgument(
                f"The array {name!r} has {found.ndim} dimensions: give one with a single value for "
                "each record."
            )
        return found

    def write(self, path: Path, rows: Any) -> None:
        import numpy

        numpy.savez(path, **{name: array[rows] for name, array in self._arrays.items()})


class _Frame:
    """Of a .csv or .parquet file."""

    def __init__(self, path: Path) -> None:
        try:
            import pandas
        except ImportError:
            raise MissingPackage(
                f"{path} needs pandas, which is not installed: pip install 'manta-swarm[data]'."
            ) from None
        self.suffix = path.suffix
        self._frame = pandas.read_csv(path) if path.suffix == ".csv" else pandas.read_parquet(path)
        self.columns = [str(name) for name in self._frame.columns]
        self.records = len(self._frame)

    def column(self, name: str) -> Any:
        return self._frame[name].to_numpy()

    def write(self, path: Path, rows: Any) -> None:
        part = self._frame.iloc[rows]
        if self.suffix == ".csv":
            part.to_csv(path, index=False)
        else:
            part.to_parquet(path, index=False)
