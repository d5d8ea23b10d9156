"""What a module begins by importing, and what it imports after something else has run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from manta.light.runtime.loader import Program


def begins_with(folder: Path, entry: str, **files: str) -> list[str]:
    for name, text in files.items():
        file = folder / (name.replace("__", "/") + ".py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    for file in list(folder.rglob("*.py")):
        if file.parent != folder and not (file.parent / "init.py").exists():
            (file.parent / "__init__.py").touch()
    for file in folder.rglob("init.py"):
        file.rename(file.with_name("__init__.py"))
    program = Program(str(folder), entry)
    program.prepare()
    return [".".join((name, *names)) for name, names in program.leading_imports()]


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("import json\nimport email.mime, csv as c\n", "json email.mime csv"),
        ("from json import loads, dumps\n", "json.loads.dumps"),
        ("from json import *\n", "json.*"),
        ('"""Words."""\nfrom typing import Any\nX = 5\nimport json\n', "typing.Any json"),
        ("__all__ = ['a', 'b']\nimport json\n", "json"),
        ("import csv\nif TYPE_CHECKING:\n    import wave\nimport json\n", "csv json"),
        ("import csv\nif typing.TYPE_CHECKING:\n    import wave\nimport json\n", "csv json"),
        ("import csv\nif TYPE_CHECKING:\n    x\nelse:\n    y()\nimport json\n", "csv"),
        ("import json\nimport os\nos.environ['X'] = '1'\nimport csv\n", "json os"),
        ("import json\njson.x = 1\nimport csv\n", "json"),
        ("import json\nx = json.loads('1')\nimport csv\n", "json"),
        ("try:\n    import json\nexcept ImportError:\n    pass\n", ""),
        ("if True:\n    import json\n", ""),
        ("def main(:\n", ""),
        ("", ""),
    ],
)
def test_what_comes_before_anything_else_runs(tmp_path: Path, source: str, names: str) -> None:
    assert begins_with(tmp_path, "worker.py", worker=source) == names.split()


def test_it_goes_into_files_beside_and_stops_where_they_do_something(tmp_path: Path) -> None:
    files = {
        "worker": "import csv\nimport helper\nfrom deep.sub import x\nimport json\n",
        "helper": "import email\n",
        "deep__sub": "import wave\nx = 1 + 1\nimport colorsys\n",
    }
    assert begins_with(tmp_path, "worker.py", **files) == ["csv", "email", "wave"]


def test_files_that_import_each_other(tmp_path: Path) -> None:
    files = {"worker": "import a\nimport json\n", "a": "import csv\nimport b\n", "b": "import a\n"}
    assert begins_with(tmp_path, "worker.py", **files) == ["csv", "json"]


def test_relative_and_absolute_imports_within_a_package(tmp_path: Path) -> None:
    files = {
        "fl__init": "from .work import main\nfrom fl.deep import x\nimport json\n",
        "fl__work": "import csv\nfrom . import tools\nfrom .deep.sub import y\n",
        "fl__tools": "import wave\n",
        "fl__deep__sub": "from ... import nowhere\nfrom .. import tools\nimport email\n",
    }
    assert begins_with(tmp_path, "fl", **files) == ["csv", "wave"]


def test_what_hides_what(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside a file, the user's own comes first; beside a package's modules, the library does."""
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    files = {"worker": "import colorsys, json\n", "colorsys": "import wave\n"}
    assert begins_with(tmp_path, "worker.py", **files) == ["wave", "json"]
    package = {"fl__init": "import colorsys, json, mine\n", "fl__mine": "import csv\n"}
    package["fl__colorsys"] = "import wave\n"
    assert begins_with(tmp_path, "fl", **package) == ["colorsys", "json", "csv"]
