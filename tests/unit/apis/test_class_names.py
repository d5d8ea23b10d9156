"""class_name is checked before a swarm is deployed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from manta.apis.compile import classes
from manta.apis.compile.spec import compile_swarm
from manta.apis.compile.syntax import parse
from manta.apis.errors import InvalidSwarm
from manta.apis.module import Module
from manta.apis.swarm import Swarm, Task

SOURCE = """
import enum
from typing import Any as Anything
class Worker:
    def run(self): ...
class Other(Worker): ...
if enum:
    class Conditional(Worker): ...
Alias = Worker
def made(): ...
"""


def of(program: str, class_name: str) -> Swarm:
    class Single(Swarm):
        def execute(self) -> Task:
            return Task(Module(program, name="w"), alias="w", class_name=class_name)

    return Single()


@pytest.mark.parametrize("name", ["Worker", "Other", "Conditional", "Alias", "Anything"])
def test_a_class_that_is_there(name: str) -> None:
    compile_swarm(of(SOURCE, name))


@pytest.mark.parametrize(
    "top",
    [
        "from helper import *\n",
        "globals()['Wroker'] = 1\n",
        "import sys\nsetattr(sys.modules[__name__], 'Wroker', type('Wroker', (), {}))\n",
        "def make():\n    global Wroker\n    class Wroker: ...\nmake()\n",
    ],
)
def test_what_cannot_be_known_is_left_to_the_node(top: str) -> None:
    compile_swarm(of(top + SOURCE, "Wroker"))


def test_a_class_that_is_not_there() -> None:
    with pytest.raises(InvalidSwarm) as raised:
        compile_swarm(of(SOURCE, "Wroker"))
    assert str(raised.value) == (
        "Task 'w' has class_name='Wroker', which is not in the source text of module 'w' "
        "(it has Worker, Other): correct class_name. Did you mean 'Worker'?"
    )


def test_files_and_packages(tmp_path: Path) -> None:
    file, package = tmp_path / "worker.py", tmp_path / "trainer"
    file.write_text(SOURCE)
    package.mkdir()
    (package / "__init__.py").write_text("def main(): ...\n")
    compile_swarm(of(str(file), "Worker"))
    with pytest.raises(InvalidSwarm, match=r"not in /.*/worker\.py \(it has Worker, Other\)"):
        compile_swarm(of(str(file), "Nothing"))
    with pytest.raises(InvalidSwarm, match=r"trainer/__init__\.py \(it has no classes\)"):
        compile_swarm(of(str(package), "Nothing"))


@pytest.mark.parametrize("shared", [True, False], ids=["one module", "equal modules"])
def test_a_program_is_looked_at_once_however_many_tasks_share_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    parsed: list[object] = []

    def counted(text: str | bytes) -> object:
        parsed.append(text)
        return parse(text)

    monkeypatch.setattr(classes, "parse", counted)
    path = tmp_path / "w.py"
    path.write_text("class W:\n    def run(self):\n        pass\n")

    class Many(Swarm):
        def execute(self) -> list[Any]:
            module = Module(str(path))
            return [
                Task(module if shared else Module(str(path)), alias=f"t{i}", class_name="W")()
                for i in range(20)
            ]

    assert len(compile_swarm(Many()).spec.tasks) == 20
    assert len(parsed) == 1
