"""Every format of a dataset, written by the library that users write it with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from manta.light.datasets import load, load_numpy
from manta.light.errors import DataCorruptionError
from manta.light.path import MantaPath

TABLE = {"a": [1, 2, 3], "b": [0.5, 1.5, 2.5]}


def write(path: Path) -> Path:
    array = np.arange(6.0).reshape(2, 3)
    match path.suffix:
        case ".npy":
            np.save(path, array)
        case ".npz":
            np.savez(path, x=array, y=array + 1)
        case ".pt":
            torch = pytest.importorskip("torch")
            torch.save({"w": torch.arange(3.0)}, path)
        case ".csv":
            pytest.importorskip("pandas").DataFrame(TABLE).to_csv(path, index=False)
        case ".parquet":
            pytest.importorskip("pyarrow")
            pytest.importorskip("pandas").DataFrame(TABLE).to_parquet(path)
    return path


def test_arrays(tmp_path: Path) -> None:
    one = load(MantaPath(write(tmp_path / "x.npy")))
    assert one.tolist() == [[0, 1, 2], [3, 4, 5]]
    many = load(MantaPath(write(tmp_path / "x.npz")))
    assert sorted(many) == ["x", "y"]
    assert (many["y"] == one + 1).all()


def test_tensors(tmp_path: Path) -> None:
    path = MantaPath(write(tmp_path / "x.pt"))
    assert load(path)["w"].tolist() == [0, 1, 2]
    assert isinstance(load_numpy(path)["w"], np.ndarray)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_frames(tmp_path: Path, suffix: str) -> None:
    path = MantaPath(write(tmp_path / f"x{suffix}"))
    frame: Any = load(path)
    assert frame.to_dict(orient="list") == TABLE
    assert load_numpy(path).shape == (3, 2)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pt", ".csv", ".parquet"])
@pytest.mark.parametrize("damage", ["empty", "noise", "cut"])
def test_a_damaged_file_is_named(tmp_path: Path, suffix: str, damage: str) -> None:
    path = write(tmp_path / f"shard{suffix}")
    noise = {"empty": b"", "noise": b'\xff\xfe"\x00,\n1' * 50, "cut": path.read_bytes()[:40]}
    if suffix == ".csv" and damage == "cut":
        pytest.skip("half a table of text is a table")
    path.write_bytes(noise[damage])
    with pytest.raises(DataCorruptionError, match=rf"shard\{suffix} is not what its suffix says"):
        load(MantaPath(path))


@pytest.mark.parametrize(("suffix", "other"), [(".npy", ".npz"), (".npz", ".npy")])
def test_one_array_is_not_several(tmp_path: Path, suffix: str, other: str) -> None:
    path = write(tmp_path / f"x{suffix}").rename(tmp_path / f"y{other}")
    with pytest.raises(DataCorruptionError, match=rf"y\{other} is not what its suffix says"):
        load(MantaPath(path))


def test_a_pickle_is_not_loaded(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save({"path": Path("x")}, tmp_path / "x.pt")
    with pytest.raises(DataCorruptionError):
        load(MantaPath(tmp_path / "x.pt"))
    np.save(tmp_path / "x.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DataCorruptionError):
        load(MantaPath(tmp_path / "x.npy"))
