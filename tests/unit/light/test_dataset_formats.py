"""Every format of a dataset, written by the library that users write it with."""

from __future__ import annotations

import gzip
import lzma
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from manta.light.datasets import load, load_numpy
from manta.light.errors import DataCorruptionError, UnsupportedData
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


def refusal(path: Path) -> str:
    """Why a whole file is not opened, as task code is told."""
    with pytest.raises(UnsupportedData) as refused:
        load(MantaPath(path), "local.dataset_path('shard')")
    assert str(refused.value).startswith(f"{path.name} holds ")
    return str(refused.value)


def test_arrays_of_objects_are_whole_but_not_unpickled(tmp_path: Path) -> None:
    objects = np.array([{}, None], dtype=object)
    np.save(tmp_path / "x.npy", objects, allow_pickle=True)
    assert refusal(tmp_path / "x.npy") == (
        "x.npy holds an array of Python objects: save arrays of numbers, text or dates, or open "
        "it yourself by numpy.load(local.dataset_path('shard'), allow_pickle=True)."
    )
    np.savez(tmp_path / "x.npz", good=np.ones(2), names=objects, more=objects)
    assert "holds arrays of Python objects (names, more)" in refusal(tmp_path / "x.npz")


@pytest.mark.parametrize("old_format", [False, True])
def test_whole_models_and_other_objects_are_named(tmp_path: Path, old_format: bool) -> None:
    torch = pytest.importorskip("torch")
    path = tmp_path / "x.pt"
    for value, name in {
        "model": (torch.nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
        "nested": ({"net": torch.nn.ReLU(), "epoch": 3}, "torch.nn.modules.activation.ReLU"),
        "path": ({"w": torch.ones(2), "path": tmp_path}, "pathlib.PosixPath"),
        "scalar": ({"loss": np.float64(1)}, ".multiarray.scalar"),
    }.values():
        torch.save(value, path, _use_new_zipfile_serialization=not old_format)
        told = refusal(path)
        assert "holds Python objects besides tensors (" in told
        assert name in told
        assert "save the state_dict()" in told
        assert told.endswith("by torch.load(local.dataset_path('shard'), weights_only=False).")
    torch.save(
        torch.nn.Linear(2, 2).state_dict(), path, _use_new_zipfile_serialization=not old_format
    )
    assert set(load(MantaPath(path))) == {"weight", "bias"}


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_programs_of_torch_are_named_and_not_run(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    traced = torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2))
    traced.save(str(tmp_path / "x.pt"))
    assert "holds a TorchScript program: save the state_dict()" in refusal(tmp_path / "x.pt")
    assert refusal(tmp_path / "x.pt").endswith("by torch.jit.load(local.dataset_path('shard')).")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("suffix", [".pt", ".npy", ".npz"])
def test_pickles_are_named(tmp_path: Path, suffix: str) -> None:
    if suffix == ".pt":
        pytest.importorskip("torch")
    path = tmp_path / f"x{suffix}"
    path.write_bytes(b"\x80\x04cos\ngetcwd\n)R.")
    told = refusal(path)
    assert "holds a pickle: " in told
    assert told.endswith("""by pickle.load(local.dataset_path('shard').open("rb")).""")


@pytest.mark.parametrize("old_format", [False, True])
def test_a_model_that_is_cut_is_damaged(tmp_path: Path, old_format: bool) -> None:
    torch = pytest.importorskip("torch")
    path = tmp_path / "x.pt"
    for value in (torch.nn.Linear(9, 9), torch.nn.Linear(9, 9).state_dict()):
        torch.save(value, path, _use_new_zipfile_serialization=not old_format)
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 3])
        with pytest.raises(DataCorruptionError, match=r"x\.pt is not what its suffix says"):
            load(MantaPath(path))


@pytest.mark.parametrize(
    ("content", "what", "arguments"),
    [
        (
            "naïve,1\n".encode("latin-1"),
            "text that is not in UTF-8 (a byte 0xef)",
            "encoding='latin-1'",
        ),
        ("価格,1\n".encode("shift-jis"), "text that is not in UTF-8 (a byte 0x89)", "encoding="),
        ("a,b\n1,2\n".encode("utf-16"), "text in utf-16", "encoding='utf-16'"),
        ("é,b\n1,2\n".encode("utf-16-le"), "text in utf-16-le", "encoding='utf-16-le'"),
        ("a,b\n1,2\n".encode("utf-16-be"), "text in utf-16-be", "encoding='utf-16-be'"),
        ("a,b\n1,2\n".encode("utf-32"), "text in utf-32", "encoding='utf-32'"),
        (gzip.compress(b"a,b\n1,2\n", mtime=0), "what gzip has packed", "compression='gzip'"),
        (lzma.compress(b"a,b\n1,2\n"), "what xz has packed", "compression='xz'"),
    ],
)
def test_tables_in_other_encodings_are_named(
    tmp_path: Path, content: bytes, what: str, arguments: str
) -> None:
    pytest.importorskip("pandas")
    path = tmp_path / "x.csv"
    path.write_bytes(content)
    told = refusal(path)
    assert f"x.csv holds {what}" in told
    assert f"by pandas.read_csv(local.dataset_path('shard'), {arguments}" in told


def test_a_table_with_a_mark_of_utf8_is_read(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    (tmp_path / "x.csv").write_bytes("é,b\n1,2\n".encode("utf-8-sig"))
    assert list(load(MantaPath(tmp_path / "x.csv")).columns) == ["é", "b"]


def test_tensors_of_any_dtype_make_arrays_or_are_named(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    path = MantaPath(tmp_path / "x.pt")
    values = [0.5, -3.0, 256.0]
    for dtype, found in {
        "bfloat16": "float32",
        "float8_e5m2": "float32",
        "float16": "float16",
        "float64": "float64",
        "int8": "int8",
    }.items():
        torch.save(torch.tensor(values).to(getattr(torch, dtype)), path)
        array = load_numpy(path)
        assert array.dtype == found
        assert array.tolist() == (values if "float" in dtype else [0, -3, 0])
    torch.save(
        {"net": [{"w": torch.ones(2, requires_grad=True)}, 3], "c": torch.tensor([1j]).conj()}, path
    )
    nest = load_numpy(path)
    assert isinstance(nest["net"][0]["w"], np.ndarray)
    assert (nest["net"][1], nest["c"].tolist()) == (3, [-1j])
    torch.save({"net": [torch.eye(2).to_sparse()]}, path)
    with pytest.raises(
        UnsupportedData, match=r"x\.pt\['net'\]\[0\] is a .*sparse_coo.*get_dataset"
    ):
        load_numpy(path)
