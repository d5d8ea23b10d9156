"""What a program imports and lies beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from manta import Module
from manta.apis.compile.imports import imports
from manta.apis.compile.spec import compile_module
from manta.transports.codec.values import decode


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, **files: str) -> None:
    """`a__b="..."` is a/b.py."""
    for name, text in files.items():
        file = folder / (name.replace("__", "/").replace("/init/", "/__init__") + ".py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def along(folder: Path, *roots: str) -> list[str]:
    return [path.name for path in imports([folder / root for root in roots]).along]


@pytest.mark.parametrize(
    "statement",
    [
        "import helper",
        "import helper as h, os",
        "from helper import x",
        "def main():\n    import helper",
        "try:\n    import helper\nexcept ImportError: helper = None",
        "import importlib\nh = importlib.import_module('helper')",
        "h = __import__('helper')",
        "from helper.deep.er import x",
    ],
)
def test_every_form_of_an_import_is_seen(here: Path, statement: str) -> None:
    write(here, worker=statement, helper="", other="")
    assert along(here, "worker.py") == ["helper.py"]


def test_what_is_beside_is_followed_and_may_be_a_package(here: Path) -> None:
    write(here, worker="import one", one="from tools.io import read", unused="")
    write(here, tools__io="import two", two="import worker, one")
    (here / "tools" / "__init__.py").write_text("")
    assert along(here, "worker.py") == ["one.py", "tools", "two.py"]


def test_the_standard_library_wins_and_what_is_installed_does_not_beside_a_file(here: Path) -> None:
    write(here, worker="import random, numpy, click", random="", numpy="", click__x="")
    assert along(here, "worker.py") == ["numpy.py"], "a folder is less than a package"


def test_beside_a_package_what_is_installed_wins(here: Path) -> None:
    write(here, numpy="", helper="", trainer__model="import numpy, helper, layers, model")
    write(here, trainer__layers="import numpy", layers="")
    (here / "trainer" / "__init__.py").write_text("from . import model\nfrom .layers import x")
    assert along(here, "trainer") == ["helper.py"]


def test_what_is_no_python_imports_nothing(here: Path) -> None:
    write(here, worker="import helper(", helper="")
    (here / "table.csv").write_text("import helper")
    assert along(here, "worker.py", "table.csv") == []


def test_it_is_packed_and_said(here: Path) -> None:
    write(here, a__worker="import utils\nfrom common import x", a__utils="", common__x="import y")
    write(here, y="")
    spec, blobs, notes = compile_module(Module("a/worker.py", include=["common"]))
    assert spec.package is not None
    packed = decode(blobs[spec.package.digest].to_bytes())
    assert [*packed] == ["__entry__", "common/x.py", "utils.py", "worker.py", "y.py"]
    assert notes == [
        "Module worker takes along what it imports and lies beside it: utils.py, y.py."
    ]
    assert compile_module(Module("a/utils.py"))[2] == []


def test_source_text_has_nothing_beside_it(here: Path) -> None:
    write(here, helper="")
    assert compile_module(Module("import helper\n"))[2] == []


def test_an_environment_in_a_package_is_not_read(here: Path) -> None:
    write(here, helper="", other="", trainer__init="import helper\n")
    for hidden in (".hidden.py", ".venv/lib.py", "__pycache__/old.py"):
        file = here / "trainer" / hidden
        file.parent.mkdir(exist_ok=True)
        file.write_text("import other\n")
    assert along(here, "trainer") == ["helper.py"]
