from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from manta.apis.errors import InvalidArgument, NotFound
from manta.apis.results import Result, Results


def result(value: Any, tag: str = "t", iteration: int = 0, index: int = 0) -> Result:
    return Result(
        iteration=iteration,
        tag=tag,
        node_id=f"id{index}",
        node_alias=f"node-{index}",
        alias="worker",
        index=index,
        attempt=0,
        counts=True,
        load=lambda: value,
    )


SOME = Results(
    [
        result(0.5, "loss", 1),
        result(0.7, "loss", 0),
        result("good", "word", 3),
        result(b"raw", "bytes", 3),
        result({"w": np.arange(3)}, "model", 3, index=1),
        result(np.ones((2, 2), "float32"), "array", 3),
    ]
)


def test_a_frame_has_a_row_for_each_result_and_no_other() -> None:
    frame = SOME.to_pandas()
    assert list(frame.columns) == [
        "iteration",
        "tag",
        "node_id",
        "node_alias",
        "alias",
        "index",
        "attempt",
        "counts",
        "value",
    ]
    assert frame["iteration"].tolist() == [0, 1, 3, 3, 3, 3], "none is made up for iteration 2"
    losses = frame[frame["tag"] == "loss"]["value"]
    assert losses.tolist() == [0.7, 0.5]
    assert frame[frame["tag"] == "model"]["value"].iloc[0]["w"].tolist() == [0, 1, 2]
    assert len(Results().to_pandas()) == 0


def test_parquet_can_be_read_back(tmp_path: Path) -> None:
    SOME.to_parquet(tmp_path / "all.parquet")
    frame = pd.read_parquet(tmp_path / "all.parquet").set_index("tag")
    assert frame.loc["loss", "number"].tolist() == [0.7, 0.5]
    assert frame.loc["word", "text"] == "good"
    assert frame.loc["bytes", "bytes"] == b"raw"
    assert frame.loc["model", "json"] == '{"w": [0, 1, 2]}'
    assert frame.loc["array", "value_type"] == "array float32"
    assert frame.loc["array", "json"] == "[[1.0, 1.0], [1.0, 1.0]]"


def test_numbers_of_every_kind_are_numbers_in_a_table(tmp_path: Path) -> None:
    numbers = [1, True, 2**53, np.float32(0.5), np.int64(-3), np.array(4.0)]
    large = [2**53 + 1, -(2**60), 10**400]
    Results(result(value, "n", i) for i, value in enumerate([*numbers, *large])).to_parquet(
        tmp_path / "n.parquet"
    )
    frame = pd.read_parquet(tmp_path / "n.parquet")
    assert frame["number"].tolist()[:6] == [1.0, 1.0, 2.0**53, 0.5, -3.0, 4.0]
    assert set(frame["value_type"][:6]) == {"number"}
    # No float is what these are.
    assert frame["json"].tolist()[6:] == [str(value) for value in large]


@pytest.mark.parametrize("write", [Results.to_parquet, Results.to_npz])
def test_a_file_of_no_results_is_refused_and_not_written(tmp_path: Path, write: Any) -> None:
    with pytest.raises(NotFound, match=r"no results to write to .*none\.file"):
        write(Results(), tmp_path / "none.file")
    assert list(tmp_path.iterdir()) == []


def test_npz_holds_every_array_under_its_place(tmp_path: Path) -> None:
    arrays = Results([SOME[0], SOME[4], SOME[5]])
    arrays.to_npz(tmp_path / "all.npz")
    with np.load(tmp_path / "all.npz") as found:
        assert sorted(found) == [
            "1/loss/id0/worker.0",
            "3/array/id0/worker.0",
            "3/model/id1/worker.1/w",
        ]
        assert found["3/model/id1/worker.1/w"].tolist() == [0, 1, 2]
        assert found["3/array/id0/worker.0"].dtype == "float32"


def test_what_npz_cannot_hold_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"0/t/id0/worker\.0/x is a object"):
        Results([result({"x": object()})]).to_npz(tmp_path / "a.npz")
    assert not (tmp_path / "a.npz").exists()


class HalfTensor:
    """What torch does with a type that numpy lacks, or that needs a gradient."""

    dtype, shape = "torch.bfloat16", (2,)

    def detach(self) -> HalfTensor:
        return self

    cpu = resolve_conj = resolve_neg = detach

    def is_complex(self) -> bool:
        return False

    def numpy(self) -> Any:
        raise TypeError("Got unsupported ScalarType BFloat16")

    def float(self) -> Any:
        return FloatTensor()

    def tolist(self) -> list[Any]:
        return [1.5, math.nan]


class FloatTensor:
    def numpy(self) -> Any:
        return np.array([1.5, np.nan], "float32")


def test_tensors_that_numpy_has_no_type_for_are_written_as_float32(tmp_path: Path) -> None:
    Results([result({"w": HalfTensor()}), result(1.0, index=1)]).to_npz(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as found:
        assert found["0/t/id0/worker.0/w"].dtype == "float32"
        assert found["0/t/id0/worker.0/w"][0] == 1.5
        assert found["0/t/id1/worker.1"] == 1.0


def test_tensors_of_torch_are_written(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    values = [
        torch.ones(2, dtype=torch.bfloat16),
        torch.ones(2, requires_grad=True),
        torch.ones(2, dtype=torch.float8_e5m2),
        torch.tensor(3),
        torch.tensor([1 + 2j], dtype=torch.complex64).conj(),
        torch.tensor([1 + 2j], dtype=torch.complex64).conj().imag,
    ]
    some = Results(result(value, index=i) for i, value in enumerate(values))
    some.to_npz(tmp_path / "a.npz")
    some.to_parquet(tmp_path / "a.parquet")
    with np.load(tmp_path / "a.npz") as found:
        assert [found[key].tolist() for key in found] == [[1, 1], [1, 1], [1, 1], 3, [1 - 2j], [-2]]
        assert [str(found[key].dtype) for key in found] == [
            *["float32"] * 3, "int64", "complex64", "float32",
        ]  # fmt: skip


def test_npz_marks_failed_attempts_and_loses_no_value(tmp_path: Path) -> None:
    failed, right, again = result(100.0), result(1.0), result(2.0)
    failed.counts, right.attempt, again.attempt = False, 1, 1
    clash = result({"a/b": 3.0, "a": {"b": 4.0}, "1": 5.0, 1: 6.0}, "u/..")
    Results([failed, right, again, clash]).to_npz(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as found:
        assert {key: float(found[key]) for key in found} == {
            "0/t/id0/worker.0@0": 100.0,
            "0/t/id0/worker.0": 1.0,
            "0/t/id0/worker.0#2": 2.0,
            "0/u%2F../id0/worker.0/a%2Fb": 3.0,
            "0/u%2F../id0/worker.0/a/b": 4.0,
            "0/u%2F../id0/worker.0/1": 5.0,
            "0/u%2F../id0/worker.0/1#2": 6.0,
        }


@pytest.mark.parametrize("value", [b"cut\0", "cut\0"])
def test_npz_refuses_what_it_would_cut(tmp_path: Path, value: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"0/t/id0/worker\.0 is a (bytes|str), which"):
        Results([result(value)]).to_npz(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("value", "json"),
    [
        ([1.0, float("nan")], "[1.0, null]"),
        ({"a": float("-inf"), 3: b"\xff", (1, 2): None}, '{"a": null, "3": "ff", "(1, 2)": null}'),
        (np.array([[np.nan, 2.0]]), "[[null, 2.0]]"),
        ({"deep": (np.float32("nan"), np.array([np.inf]))}, '{"deep": [null, [null]]}'),
        (np.array(["2020-01-01"], "datetime64[D]"), '["2020-01-01"]'),
        (HalfTensor(), "[1.5, null]"),
        (np.array(["2020-01-01"], "datetime64[ns]"), '["2020-01-01T00:00:00.000000000"]'),
        (np.datetime64("2020-01-01", "ns"), '"2020-01-01T00:00:00.000000000"'),
        ("caf\udce9", '"caf\\udce9"'),
        ({"\udce9": np.ones(1)}, '{"\\udce9": [1.0]}'),
        ([16**5000], f'["0x1{"0" * 5000}"]'),
    ],
)
def test_a_table_holds_nothing_but_json(tmp_path: Path, value: Any, json: str) -> None:
    Results([result(value)]).to_parquet(tmp_path / "a.parquet")
    assert pd.read_parquet(tmp_path / "a.parquet")["json"].tolist() == [json]


def test_a_number_that_is_nan_stays_one(tmp_path: Path) -> None:
    Results([result(float("nan")), result(np.float32("inf"))]).to_parquet(tmp_path / "a.parquet")
    frame = pd.read_parquet(tmp_path / "a.parquet")
    assert frame["value_type"].tolist() == ["number"] * 2
    assert np.isnan(frame["number"][0])
    assert np.isinf(frame["number"][1])


@pytest.mark.parametrize(
    ("call", "package"), [("to_pandas()", "pandas"), ("to_parquet('x')", "pyarrow")]
)
def test_a_package_that_is_not_there_is_named(call: str, package: str) -> None:
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from manta import Results\n"
        "from manta.apis.errors import MissingPackage\n"
        f"try: Results().{call}\n"
        "except MissingPackage as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"needs {package}" in done.stdout
    assert "pip install 'manta-swarm[data]'" in done.stdout


def test_what_is_empty_is_in_the_file_or_named(tmp_path: Path) -> None:
    Results([result({"a": [], "b": np.ones(1)})]).to_npz(tmp_path / "a")
    with np.load(tmp_path / "a.npz") as found:
        assert {key: found[key].tolist() for key in found} == {
            "0/t/id0/worker.0/a": [],
            "0/t/id0/worker.0/b": [1],
        }
    with pytest.raises(InvalidArgument, match=r"0/t/id0/worker\.0 is a dict, which \.npz cannot"):
        Results([result({})]).to_npz(tmp_path / "b")
