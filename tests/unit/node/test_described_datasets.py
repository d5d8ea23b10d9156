"""Datasets that a configuration describes, and what is wrong with what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from manta.node.capabilities import datasets
from manta.node.config import Described, NodeConfig, parse, render
from manta.node.config.changes import changes
from manta.node.errors import ConfigError
from manta.protocol.machine import DatasetUsed

PATH = Path("/etc/node.toml")
DIGEST = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
"""Of a file without a byte."""
TABLE = f"""\
[datasets.mappings]
plain = "/data/plain"

[[dataset]]
name = "ward"
path = "${{DATA}}/ward.csv"
format = "csv"
schema = {{age = "int", "first name" = "text"}}
rows = 12
digest = "{DIGEST}"
version = "2026-11"

[[dataset]]  # another
name = "shard"
path = "shards/{{i}}.npy"
"""
WARD = Described("csv", {"age": "int", "first name": "text"}, 12, DIGEST, "2026-11")


def read(text: str) -> NodeConfig:
    return parse(text, PATH, {"DATA": "/data"})


def test_a_table_maps_a_dataset_and_describes_it() -> None:
    config = read(TABLE)
    assert config.datasets == {
        "plain": Path("/data/plain"),
        "ward": Path("/data/ward.csv"),
        "shard": Path("/etc/shards/{i}.npy"),
    }
    assert config.described == {"ward": WARD, "shard": Described()}
    again = read(render(config))
    assert (again.datasets, again.described) == (config.datasets, config.described)


WRONG = {
    '[dataset]\nname = "a"': "dataset is no list of tables; write [[dataset]]",
    '[[dataset]]\nname = "a"': "line 1: a dataset has no path",
    '[[dataset]]\npath = "a"': "line 1: a dataset has no name",
    '[[dataset]]\nname = "a"\npath = "a"\n[[dataset]]\nname = "a"\npath = "b"': (
        "line 5: there are two datasets 'a'"
    ),
    '[datasets.mappings]\na = "a"\n[[dataset]]\nname = "a"\npath = "b"': (
        "line 4: there are two datasets 'a'"
    ),
    '[[dataset]]\nname = "a"\npath = "a"\nverson = "1"': (
        "line 4: there is no key 'verson'; did you mean 'version'?"
    ),
    '[[dataset]]\nname = "a"\npath = "a"\n\n[[dataset]]\nname = "b"\npath = "${NO}"': (
        "line 7: dataset.path needs the environment variable NO"
    ),
    '[[dataset]]\nname = "a"\npath = "a"\ndigest = "xyz"': "line 4: dataset.digest is 'xyz'",
    '[[dataset]]\nname = "a"\npath = "a"\nrows = -1': "line 4: dataset.rows is -1",
    '[[dataset]]\nname = "a"\npath = "a"\nrows = true': "line 4: dataset.rows is True",
    '[[dataset]]\nname = "a"\npath = "a"\nschema = ["x"]': "line 4: dataset.schema is ['x']",
    '[[dataset]]\nname = ""\npath = "a"': "line 2: dataset.name is ''",
    "[[datasets]]": "datasets is no table",
}


@pytest.mark.parametrize(("text", "sentence"), WRONG.items())
def test_what_is_wrong_is_named_with_its_line(text: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert sentence in str(caught.value)


def test_more_than_a_manager_is_told_in_one_message_is_refused() -> None:
    wide = ", ".join(f'c{n} = "{"x" * 900}"' for n in range(1000))
    table = '[[dataset]]\nname = "d{n}"\npath = "/d"\nschema = {{{wide}}}\n'
    with pytest.raises(ConfigError, match="are too much for a manager"):
        read(table.format(n=0, wide=wide) + table.format(n=1, wide=wide))


def test_what_is_said_of_a_dataset_is_told_where_datasets_are(tmp_path: Path) -> None:
    (tmp_path / "ward.csv").write_bytes(b"12345")
    [found] = datasets.survey({"ward": tmp_path / "ward.csv"}, {"ward": WARD})
    assert (found.size, found.format, found.rows, found.version) == (5, "csv", 12, "2026-11")
    assert (found.digest, found.schema) == (DIGEST, {"age": "int", "first name": "text"})
    assert datasets.used(("ward", "other"), {"ward": WARD}) == (
        DatasetUsed("ward", DIGEST, "2026-11"),
        DatasetUsed("other"),
    )


def test_another_file_than_its_digest_says_is_found(tmp_path: Path) -> None:
    path = tmp_path / "ward.csv"
    path.write_bytes(b"")
    assert datasets.other_digest(path, WARD) == ""
    assert datasets.other_digest(path, Described()) == ""
    path.write_bytes(b"1")
    other = datasets.other_digest(path, WARD)
    assert len(other) == 64
    assert other != DIGEST


def test_a_changed_table_counts_without_a_restart() -> None:
    before, after = read(TABLE), read(TABLE.replace("2026-11", "2026-12"))
    config, found = changes(before, after)
    assert found.next_start == ("dataset",)
    assert config.described["ward"].version == "2026-12"
    assert not changes(before, read(TABLE))[1].next_start
