"""`manta data partition` divides a file among nodes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from click.testing import CliRunner, Result

from manta.cli.main import cli
from manta.federated.picture import draw

RECORDS = 200


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(1)
    x, y = random.normal(size=(RECORDS, 3)), random.integers(4, size=RECORDS)
    np.savez("made.npz", x=x, y=y)
    frame = pandas.DataFrame({"value": x[:, 0], "kind": y, "clinic": y % 3, "at": range(RECORDS)})
    frame.to_csv("made.csv", index=False)
    frame.to_parquet("made.parquet", index=False)
    return tmp_path


def arrays(path: str) -> dict[str, Any]:
    with np.load(path) as file:
        return dict(file)


def partition(*arguments: Any) -> Result:
    return CliRunner().invoke(cli, ["data", "partition", *map(str, arguments)])


def pairs(part: dict[str, Any]) -> list[tuple[list[float], int]]:
    return list(zip(part["x"].tolist(), part["y"].tolist(), strict=True))


@pytest.mark.parametrize(
    "way",
    [["--iid"], ["--dirichlet", 1.0], ["--shards", 3], ["--quantity", 2.0]],
)
def test_every_record_goes_to_one_node_with_all_its_arrays(folder: Path, way: list[Any]) -> None:
    done = partition("made.npz", "--nodes", 4, "--json", *way)
    assert done.exit_code == 0, done.output
    record = json.loads(done.stdout)
    whole = arrays("made.npz")
    parts = [arrays(record["dataset"].replace("{i}", str(at))) for at in range(4)]
    assert [len(part["y"]) for part in parts] == record["nodes"]
    assert sum(record["nodes"]) == RECORDS
    together = {
        tuple(row): y for part in parts for row, y in zip(part["x"], part["y"], strict=True)
    }
    assert together == {tuple(row): y for row, y in zip(whole["x"], whole["y"], strict=True)}


def test_the_same_seed_gives_the_same_files(folder: Path) -> None:
    for at, seed in enumerate((1, 1, 2)):
        assert partition("made.npz", "--nodes", 2, "--iid", "--seed", seed, "-o", at).exit_code == 0
    first, again, other = (arrays(f"{at}/node0.npz")["x"] for at in range(3))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_frames_by_id_and_by_time(folder: Path, suffix: str) -> None:
    done = partition(f"made{suffix}", "--by-id", "clinic", "-o", "by-id")
    assert done.exit_code == 0, done.output
    read = pandas.read_csv if suffix == ".csv" else pandas.read_parquet
    assert [set(read(f"by-id/node{at}{suffix}")["clinic"]) for at in range(3)] == [{0}, {1}, {2}]
    assert partition(f"made{suffix}", "--nodes", 4, "--by-time", "at", "-o", "t").exit_code == 0
    assert read(f"t/node3{suffix}")["at"].tolist() == list(range(150, 200))


def test_a_table_shows_how_many_records_of_which_label_are_where(folder: Path) -> None:
    done = partition("made.csv", "--nodes", 2, "--iid", "--labels", "kind")
    kinds = pandas.read_csv("made-shards/node0.csv")["kind"]
    rows = [line.split() for line in done.output.splitlines()]
    assert rows[0] == ["node", "records", "0", "1", "2", "3"]
    assert rows[1] == ["0", "100", *(str((kinds == kind).sum()) for kind in range(4))]
    assert "--dataset made='made-shards/node{i}.csv'" in done.output


@pytest.fixture(scope="module")
def fonts(tmp_path_factory: pytest.TempPathFactory) -> None:
    """matplotlib keeps those open that it has once read."""
    picture = tmp_path_factory.mktemp("fonts") / "a.png"
    draw(picture, [np.arange(2)], np.zeros(2), "title")


@pytest.mark.usefixtures("fonts")
@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_a_picture_of_it(folder: Path, suffix: str) -> None:
    done = partition("made.npz", "--nodes", 3, "--dirichlet", 1, "--plot", f"a.{suffix}")
    assert done.exit_code == 0, done.output
    begin = (folder / f"a.{suffix}").read_bytes()[:200]
    assert begin.startswith(b"\x89PNG") if suffix == "png" else b"<?xml" in begin


@pytest.mark.usefixtures("fonts")
def test_a_picture_has_a_bound_however_many_labels_there_are(folder: Path) -> None:
    sizes = []
    for count in (40, 4_000):
        draw(folder / "many.svg", [np.arange(count)], np.arange(count) / 7, "title")
        sizes.append((folder / "many.svg").read_text().count('<g id="patch_'))
    assert sizes[0] == sizes[1]


@pytest.mark.usefixtures("fonts")
def test_what_finds_no_room_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Path] = []

    def write(table: Any, path: Path, rows: Any) -> None:
        if written:
            raise OSError(28, "No space left on device")
        written.append(path)
        path.write_bytes(b"")

    monkeypatch.setattr("manta.federated.tables._Arrays.write", write)
    done = partition("made.npz", "--nodes", 3, "--iid")
    assert "No space left on device" in str(done.exception) + done.output
    assert len(written) == 1
    assert not Path("made-shards").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["made.npz", "--nodes", 2], 2, "you gave none"),
        (["made.npz", "--nodes", 2, "--iid", "--shards", 1], 2, "--iid and --shards"),
        (["made.npz", "--iid"], 2, "how many nodes"),
        (["none.npz", "--nodes", 2, "--iid"], 11, "There is no file none.npz"),
        (["made.txt", "--nodes", 2, "--iid"], 4, ".npz, .csv, .parquet"),
        (["bad.npz", "--nodes", 2, "--iid"], 4, "it is damaged"),
        (["odd.npz", "--nodes", 2, "--iid"], 4, "differ in length (a 3, b 2)"),
        (["objects.npz", "--nodes", 2, "--iid"], 4, "holds objects"),
        (["made.csv", "--nodes", 2, "--dirichlet", 1], 4, "--labels"),
        (["made.csv", "--nodes", 2, "--by-time", "when"], 4, "no column 'when'"),
        (["made.npz", "--nodes", 2, "--by-id", "x"], 4, "2 dimensions"),
        (["made.npz", "--nodes", 2, "--dirichlet", -1], 4, "alpha"),
        (["made.npz", "--nodes", 500, "--iid"], 4, "nodes"),
        (["made.npz", "--nodes", 2, "--iid", "--plot", "a.gif"], 4, ".png, .svg, .pdf"),
        (["made.npz", "--nodes", 2, "--iid", "-o", "."], 11, "is there already"),
        (
            ["made.npz", "--nodes", 201, "--iid", "--minimum", 0, "--plot", "a.svg"],
            4,
            "200 at most",
        ),
        (["made.npz", "--nodes", 2, "--iid", "--plot", "no/a.svg"], 11, "No such file"),
    ],
)
def test_what_it_does_not_take_is_a_sentence_and_nothing_is_written(
    folder: Path, arguments: list[Any], code: int, words: str
) -> None:
    Path("bad.npz").write_bytes(b"garbage")
    np.savez("odd.npz", a=np.zeros(3), b=np.zeros(2))
    np.savez("objects.npz", a=np.array([{}, None], dtype=object))
    there = sorted(folder.iterdir())
    done = partition(*arguments)
    shown = done.output + (str(done.exception) if done.exception else "")
    assert words in shown
    assert sorted(folder.iterdir()) == there
    from manta.cli.exit_codes import of_error

    got = done.exit_code if isinstance(done.exception, SystemExit) else of_error(done.exception)  # type: ignore[arg-type]
    assert got == code
