"""What a task sees of its node: datasets of every format, scratch, state and the machine."""

from __future__ import annotations

import importlib.util
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

from manta import UserAPI
from manta.cli.local import cluster as local
from manta.cli.local.cluster import LocalCluster
from manta.testing import wait_until
from manta.testing.clusters import client, running
from tests.support.swarms import One, ended, errors, outputs

TORCH = importlib.util.find_spec("torch") is not None
TABLE = {"a": [1, 2, 3], "b": [0.5, 1.5, 2.5]}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    array = np.arange(6.0).reshape(2, 3)
    np.save(folder / "one.npy", array)
    np.savez(folder / "two.npz", x=array, y=array + 1)
    (folder / "table.csv").write_text("a,b\n1,0.5\n2,1.5\n3,2.5\n")
    pandas.DataFrame(TABLE).to_parquet(folder / "columns.parquet")
    if TORCH:
        torch = importlib.import_module("torch")
        torch.save({"w": torch.arange(6.0).reshape(2, 3), "b": [torch.ones(3)]}, folder / "net.pt")
    (folder / "text.txt").write_text("first\nsecond\r\nth\u00edrd", encoding="utf-8")
    (folder / "bad.npy").write_bytes(b"no array")
    (folder / "pictures" / "deeper").mkdir(parents=True)
    (folder / "pictures" / "a.bin").write_bytes(b"\x00\x01")
    np.save(folder / "pictures" / "deeper" / "b.npy", np.arange(3))
    return folder


@pytest.fixture(scope="module")
def cluster(data: Path) -> Iterator[LocalCluster]:
    """Nodes on which 8 MB of scratch are allowed."""
    write = local.node_config

    def with_quota(*arguments: Any) -> str:
        return write(*arguments).replace("[resources]\n", "[resources]\nscratch_mb = 8\n")

    names = {path.stem: str(path) for path in data.iterdir()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "node_config", with_quota)
        with running(LocalCluster, 1, **names) as cluster:
            yield cluster


@pytest.fixture
def api(cluster: LocalCluster) -> Iterator[UserAPI]:
    with client(cluster) as api:
        yield api


def one(body: str, *datasets: str, **task: Any) -> One:
    code = "from manta.light import Local, MantaPath\nlocal = Local()\ndef main():\n"
    body = textwrap.indent(textwrap.dedent(body), "    ")
    return One(code + body, datasets=list(datasets) or None, **task)


def test_arrays(api: UserAPI) -> None:
    body = """
        two = local.get_dataset("two")
        return [local.get_dataset("one"), two["x"], two["y"], local.get_numpy_data("one")]
        """
    ((first, x, y, same),) = outputs(api, one(body, "one", "two"))
    np.testing.assert_array_equal(first, np.arange(6.0).reshape(2, 3))
    np.testing.assert_array_equal(y, x + 1)
    np.testing.assert_array_equal(same, first)


def test_a_table(api: UserAPI) -> None:
    pytest.importorskip("pandas")
    body = """
        frame = local.get_dataset("table")
        return [type(frame).__name__, frame.to_dict("list"), local.get_numpy_data("table")]
        """
    ((kind, table, array),) = outputs(api, one(body, "table"))
    assert (kind, table, array.shape) == ("DataFrame", TABLE, (3, 2))


EVERY = """
    from manta.light import Local, MantaPath, World
    def main():
        local = Local()
        frame, columns = local.get_dataset("table"), local.get_dataset("columns")
        folder = local.get_dataset("pictures")
        got = {
            "one": local.get_dataset("one"),
            "two": local.get_dataset("two"),
            "frames": [type(each).__name__ for each in (frame, columns)],
            "columns": columns.to_dict("list"),
            "dtypes": [str(dtype) for dtype in columns.dtypes],
            "same": bool((frame == columns).all(axis=None)),
            "arrays": [local.get_numpy_data("table"), local.get_numpy_data("columns")],
            "folder": [isinstance(folder, MantaPath), folder.list_dir()],
        }
        if TORCH:
            net = local.get_dataset("net")
            got["tensors"] = [type(net["w"]).__name__, net["w"] * 2, net["b"]]
            got["as arrays"] = local.get_numpy_data("net")["w"]
        World().results.add("seen", got)
"""


@pytest.mark.parametrize(
    "torch",
    [False, pytest.param(True, marks=pytest.mark.skipif(not TORCH, reason="torch is missing"))],
    ids=["without torch", "with torch"],
)
def test_every_format_in_one_swarm_with_the_real_packages(api: UserAPI, torch: bool) -> None:
    names = ["one", "two", "table", "columns", "pictures", *(["net"] if torch else [])]
    done = ended(api, One(EVERY.replace("TORCH", str(torch)), datasets=names))
    told = [error.sentence for error in api.collect_errors(done)]
    assert done.status == "COMPLETED", (done.reason, told)
    (result,) = api.select_results(done, "seen")
    got = result.value
    array = np.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(got["one"], array)
    np.testing.assert_array_equal(got["two"]["y"], array + 1)
    assert got["frames"] == ["DataFrame", "DataFrame"]
    assert (got["columns"], got["same"]) == (TABLE, True)
    assert got["dtypes"] == ["int64", "float64"]
    for each in got["arrays"]:
        np.testing.assert_array_equal(each, np.array([[1, 0.5], [2, 1.5], [3, 2.5]]))
    assert got["folder"] == [True, ["a.bin", "deeper"]]
    if torch:
        kind, doubled, (ones,) = got["tensors"]
        assert kind == "Tensor"
        assert type(doubled).__name__ == "Tensor"
        np.testing.assert_array_equal(doubled.numpy(), array * 2)
        assert ones.tolist() == [1.0, 1.0, 1.0]
        np.testing.assert_array_equal(got["as arrays"], array)


def test_text_and_bytes(api: UserAPI) -> None:
    body = """
        path = local.get_dataset("text")
        return [isinstance(path, MantaPath), local.read_file_lines("text"),
                local.get_binary_data("text").read(5), local.exists("text"), local.exists("one")]
        """
    ((is_path, lines, data, there, undeclared),) = outputs(api, one(body, "text"))
    assert (is_path, lines, data) == (True, ["first", "second", "th\u00edrd"], b"first")
    assert (there, undeclared) == (True, False)


def test_a_folder(api: UserAPI) -> None:
    body = """
        folder = local.get_dataset("pictures")
        return [isinstance(folder, MantaPath), isinstance(folder / "x", MantaPath),
                folder.list_dir(), local.list_dir("pictures"), local.list_dir("pictures", "deeper"),
                local.exists("pictures", "a.bin"), local.exists("pictures", "nothing"),
                local.get_binary_data("pictures", "a.bin").getvalue(),
                local.get_dataset("pictures", "deeper/b.npy").tolist(),
                local.get_numpy_data("pictures", "deeper/b.npy").sum(),
                local.dataset_path("pictures", "a.bin") == folder / "a.bin"]
        """
    (seen,) = outputs(api, one(body, "pictures"))
    assert seen[:2] == [True, True]
    assert seen[2:5] == [["a.bin", "deeper"], ["a.bin", "deeper"], ["b.npy"]]
    assert seen[5:] == [True, False, b"\x00\x01", [0, 1, 2], 3, True]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("local.get_dataset('one')", "no dataset 'one' (it has: text): declare it in Module("),
        ("local.get_dataset('nowhere')", "no dataset 'nowhere' (it has: text)"),
        ("local.get_dataset(3)", "no dataset 3 (it has: text)"),
        ("local.get_numpy_data('text')", "text.txt holds no arrays that Manta can read"),
    ],
)
def test_a_dataset_that_cannot_be_had(api: UserAPI, body: str, words: str) -> None:
    told = errors(api, one(body, "text"))
    assert any(words in sentence for sentence in told), told


def test_a_damaged_file(api: UserAPI) -> None:
    (told,) = errors(api, one("local.get_dataset('bad')", "bad"))
    assert "raised DataCorruptionError: bad.npy is not what its suffix says" in told


def test_a_way_out_of_a_dataset_is_refused(api: UserAPI) -> None:
    for path in ("../text.txt", "deeper/../../text.txt", "/etc/hostname"):
        told = errors(api, one(f"local.get_binary_data('pictures', {path!r})", "pictures"))
        assert any("leads out of the dataset 'pictures'" in sentence for sentence in told), told


def test_a_link_out_of_a_dataset_is_refused(api: UserAPI, data: Path) -> None:
    link = data / "pictures" / "deeper" / "out"
    link.symlink_to("/etc/hostname")
    try:
        for call in (
            "local.get_binary_data('pictures', 'deeper/out')",
            "(local.get_dataset('pictures') / 'deeper' / 'out').read_text()",
        ):
            told = errors(api, one(call, "pictures"))
            words = "'deeper/out' of the dataset 'pictures' leads out of it, to '/etc/hostname'"
            assert any(words in sentence for sentence in told), told
    finally:
        link.unlink()


def test_the_machine(api: UserAPI) -> None:
    body = """
        found = local.get_resources()
        return [found._asdict(), local.get_performance_metrics(), local.get_network_quality()]
        """
    ((resources, metrics, quality),) = outputs(api, one(body))
    assert resources["cpu_count"] >= 1
    assert 0 < resources["available_memory"] <= resources["cpu_memory"]
    assert resources["disk_free"] > 0
    assert isinstance(resources["gpu_available"], bool)
    assert isinstance(resources["gpu_memory"], int)
    assert {"cpu_usage", "memory_usage", "disk_usage"} <= metrics.keys()
    assert all(0 <= value <= 1 for value in metrics.values())
    assert 0.8 < quality <= 1


def test_state_is_kept_for_the_swarm_and_no_longer(api: UserAPI, cluster: LocalCluster) -> None:
    body = """
        import numpy
        count = local.get_state("count", default=0)
        large = local.get_state("large")
        local.set_state("count", count + 1)
        local.set_state("large", numpy.full(100_000, count))
        return [count, None if large is None else large[-1]]
        """
    code = one(body, rounds=3)
    assert outputs(api, code) == [[0, None], [1, 0], [2, 1]]
    assert outputs(api, code)[0] == [0, None], "another swarm has its own"


def test_scratch_is_a_folder_that_lasts_from_round_to_round(api: UserAPI) -> None:
    body = """
        import os, tempfile
        file = local.scratch / "rounds"
        before = file.read_text() if file.exists() else ""
        file.write_text(before + "x")
        with tempfile.TemporaryFile() as other:
            other.write(b"x")
        return [isinstance(local.scratch, MantaPath), before, os.getcwd() == str(local.scratch)]
        """
    assert outputs(api, one(body, rounds=3)) == [[True, "x" * n, True] for n in range(3)]


def test_an_object_that_lived_on_ends_before_its_scratch_goes(api: UserAPI, tmp_path: Path) -> None:
    code = f"""
        import atexit, os, time
        from manta.light import Local
        scratch, done = Local().scratch, {str(tmp_path / "done")!r}
        def save():
            time.sleep(0.3)
            (scratch / "model").write_text("trained")
            with open(done + "-draft", "w") as file:
                file.write((scratch / "model").read_text() + str(scratch))
            os.rename(done + "-draft", done)
        class Worker:
            def setup(self):
                atexit.register(save)
            def execute(self):
                return None
    """
    outputs(api, One(code, rounds=2))
    wait_until((tmp_path / "done").exists)
    said = (tmp_path / "done").read_text()
    assert said.startswith("trained/")
    wait_until(lambda: not Path(said.removeprefix("trained")).exists())


@pytest.mark.parametrize("form", ["main", "resident"])
def test_a_task_that_fills_its_scratch_is_ended(api: UserAPI, form: str) -> None:
    fill = """
        import time
        from manta.light import Local
        def fill():
            with open(Local().scratch / "much", "wb") as file:
                for _ in range(12):
                    file.write(bytes(1 << 20))
                    file.flush()
            time.sleep(30)
        """
    run = {
        "main": "\ndef main():\n    fill()\n",
        "resident": "\nclass Living:\n    def execute(self):\n        fill()\n",
    }
    done = ended(api, One(textwrap.dedent(fill) + run[form]))
    assert done.status == "FAILED"
    (error,) = api.collect_errors(done)
    assert error.kind == "ResourceExhaustionError"
    said = re.search(
        r"([\d.]+) MB in its scratch folder, and 8.4 MB are allowed on this node", error.sentence
    )
    assert said is not None, error.sentence
    assert 8.4 < float(said[1]) <= 12.6  # it may be looked at while it is being written
    assert outputs(api, one("return local.scratch.list_dir()")) == [[]], "nothing is left of it"
