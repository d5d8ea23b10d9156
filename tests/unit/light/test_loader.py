"""What is chosen to run, by what the module holds."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from manta.light.runtime.loader import NothingToRun, Program


@pytest.fixture(autouse=True)
def _restored(tmp_path: Path) -> Iterator[None]:
    path, argv = list(sys.path), list(sys.argv)
    yield
    sys.path[:], sys.argv[:] = path, argv
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def load(folder: Path, source: str, name: str = "a_module.py") -> Program:
    (folder / name).write_text(textwrap.dedent(source))
    program = Program(str(folder), name)
    program.load()
    return program


TASK = "from manta.light import Task\n"
BOTH = (
    TASK
    + """
class A(Task):
    def run(self):
        return "a"
class B(Task):
    def execute(self):
        return "b"
"""
)


@pytest.mark.parametrize(
    ("source", "class_name", "outcome"),
    [
        ("def main():\n    return 1\n", None, 1),
        (TASK + "class A(Task):\n    def run(self):\n        return 2\n", None, 2),
        ("class A:\n    def run(self):\n        return 3\n", None, 3),
        (BOTH, "A", "a"),
        (BOTH, "B", "b"),
        (BOTH + "def main():\n    return 'main'\n", None, "main"),
        (BOTH + "class C(B):\n    def execute(self):\n        return 'c'\n", "B", "b"),
        # The most derived class is the only one.
        (
            TASK + "class A(Task):\n    def run(self):\n        return 'base'\n"
            "class B(A):\n    def run(self):\n        return 'derived'\n",
            None,
            "derived",
        ),
        # A base without run is not one to choose from; a Task comes before its look-alikes.
        (
            TASK + "class Base(Task):\n    pass\nclass Other:\n    def run(self):\n        pass\n"
            "class A(Base):\n    def run(self):\n        return 4\n",
            None,
            4,
        ),
        # A class called main is a class.
        ("class main:\n    def run(self):\n        return 5\n", None, 5),
        ("main = lambda: 6\n", None, 6),
    ],
)
def test_choice(tmp_path: Path, source: str, class_name: str | None, outcome: object) -> None:
    assert load(tmp_path, source).target(class_name).run() == outcome


@pytest.mark.parametrize(
    ("source", "class_name", "kind", "sentence"),
    [
        ("x = 1\n", None, NothingToRun, "a_module.py has nothing to run: give it a function"),
        (BOTH, None, NothingToRun, "a_module.py has several Task classes (A, B) and no main()"),
        (BOTH, "C", NothingToRun, "a_module.py has no class 'C' (its Task classes: A, B)"),
        ("x = 1\n", "x", NothingToRun, "a_module.py has no class 'x' (its Task classes: none)"),
        ("class A:\n    pass\n", "A", NothingToRun, "Class A has neither run() nor execute()"),
    ],
)
def test_no_choice(
    tmp_path: Path, source: str, class_name: str | None, kind: type[Exception], sentence: str
) -> None:
    with pytest.raises(kind) as caught:
        load(tmp_path, source).target(class_name)
    assert str(caught.value).startswith(sentence)


def test_an_imported_task_is_taken_where_the_module_has_none(tmp_path: Path) -> None:
    (tmp_path / "elsewhere.py").write_text(
        TASK + "class A(Task):\n    def run(self):\n        return 7\n"
    )
    assert load(tmp_path, "from elsewhere import A\n").target(None).run() == 7


def test_run_comes_before_execute(tmp_path: Path) -> None:
    both = (
        "class A:\n    def run(self):\n        return 1\n    def execute(self):\n        return 2\n"
    )
    target = load(tmp_path, both).target(None)
    assert not target.is_resident
    assert target.run() == 1


def test_main_keeps_its_name_and_words(tmp_path: Path) -> None:
    program = load(tmp_path, 'def main(n=1):\n    "Words."\n    return n\n')
    main = program.module.main  # type: ignore[union-attr]
    assert (main.__name__, main.__doc__, main(5), main()) == ("main", "Words.", 5, 5)


@pytest.mark.parametrize("name", ["random.py", "a-b.py", "1.py", "sys.py"])
def test_names_that_would_be_in_the_way(tmp_path: Path, name: str) -> None:
    program = load(tmp_path, "def main():\n    return __name__\n", name)
    assert program.target(None).run() == f"task_{name.removesuffix('.py')}".replace("-", "_")


@pytest.mark.parametrize("name", ["colorsys.py", "numpy.py"])
def test_what_the_entrys_name_hides_is_still_imported(tmp_path: Path, name: str) -> None:
    stem = name.removesuffix(".py")
    source = f"import {stem}\ndef main():\n    return {stem}.__name__, {stem}.__file__\n"
    assert load(tmp_path, source, name).target(None).run()[1] != str(tmp_path / name)


def test_a_file_beside_the_entry_wins_over_a_library_that_only_the_task_imports(
    tmp_path: Path,
) -> None:
    (tmp_path / "zipapp.py").write_text("mine = 5\n")
    source = "import zipapp\ndef main():\n    return zipapp.mine\n"
    assert load(tmp_path, source).target(None).run() == 5


def test_a_file_beside_the_entry_hides_nothing_from_manta(tmp_path: Path) -> None:
    for name in ("traceback", "types", "asyncio", "netrc"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('mine')\n")
    (tmp_path / "worker.py").write_text(
        "import traceback\nasync def main():\n    return traceback.__name__\n"
    )
    code = (
        "from manta.light.runtime.loader import Program\n"
        f"program = Program({str(tmp_path)!r}, 'worker.py')\n"
        "program.load()\n"
        "print(program.target(None).run())\n"
    )  # in a process that has imported none of them
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout == "traceback\n", done.stderr


@pytest.mark.parametrize(
    "source",
    [
        "async def main():\n    return 7\n",
        "import asyncio\nasync def main():\n    return 7\nasyncio.run(main())\n",
        TASK + "class A(Task):\n    async def run(self):\n        return 7\n",
        TASK
        + "class A(Task):\n    async def setup(self):\n        self.x = 7\n"
        + "    async def execute(self):\n        return self.x\n",
    ],
)
def test_asynchronous_forms(tmp_path: Path, source: str) -> None:
    assert load(tmp_path, source).target(None).run() == 7


def test_what_manta_imports_in_the_course_of_time_is_known() -> None:
    """A file beside a module may have any of these names, and would be imported instead."""
    code = """
import importlib, pkgutil, sys
import manta.light.runtime.main, manta.light.runtime.attempt
from manta.light.runtime import loader
for name in loader._NEEDED:
    importlib.import_module(name)
known = set(sys.modules)
import manta.light, manta.transports.codec.values
for module in pkgutil.walk_packages(manta.light.__path__, "manta.light."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print(*sorted({name.partition(".")[0] for name in set(sys.modules) - known} - {"manta"}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
