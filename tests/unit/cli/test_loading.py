from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from manta.apis.errors import InvalidSwarm
from manta.cli.loading import MODULE, load_swarm, parse_parameters, split_target

SWARM = """
from manta import Swarm, Task
from helper import SOURCE

class First(Swarm):
    def __init__(self, rounds: int = 3, name: str = "x", flag=False, *, rate=0.1):
        super().__init__(max_iteration=rounds)
        self.seen = (rounds, name, flag, rate)
    def execute(self):
        return Task(SOURCE)
"""


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    path = list(sys.path)
    yield
    sys.path[:] = path
    for name in (MODULE, "helper"):
        sys.modules.pop(name, None)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "helper.py").write_text("SOURCE = 'def main():\\n    pass\\n'\n")
    path = tmp_path / "swarm.py"
    path.write_text(SWARM)
    return path


def seen(file: Path, **parameters: str) -> tuple:
    seen: tuple = load_swarm(str(file), parameters).seen  # type: ignore[attr-defined]
    return seen


def test_parameters_are_python_values_unless_a_text_is_asked_for(file: Path) -> None:
    assert seen(file) == (3, "x", False, 0.1)
    assert seen(file, rounds="5", name="7", flag="true", rate="1e-3") == (5, "7", True, 0.001)
    assert seen(file, flag="[1, 2]", rate="fast") == (3, "x", [1, 2], "fast")
    assert seen(file, flag="null")[2] is None


def test_what_was_changed_within_the_same_second_is_loaded_anew(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    changed = file.stat().st_mtime
    assert seen(file)[0] == 3
    file.write_text(SWARM.replace("rounds: int = 3", "rounds: int = 4"))
    os.utime(file, (changed, changed))
    assert seen(file)[0] == 4
    assert sorted(path.name for path in file.parent.iterdir()) == ["helper.py", "swarm.py"]
    assert not sys.dont_write_bytecode


def test_a_swarm_within_a_package_may_import_its_neighbors(tmp_path: Path) -> None:
    package = tmp_path / "fed_algorithms"
    (package / "deep").mkdir(parents=True)
    (package / "base.py").write_text("from manta import Swarm\nclass Base(Swarm):\n    seen = 1\n")
    (package / "beside.py").write_text("seen = 2\n")
    body = "class Own(Base):\n    seen = (Base.seen, beside.seen)\n"
    body += "    def execute(self):\n        return Task('def main():\\n    pass\\n')\n"
    (package / "swarm.py").write_text(
        "from manta import Task\nfrom . import beside\nfrom .base import Base\n" + body
    )
    (package / "deep" / "swarm.py").write_text(
        "from manta import Task\nfrom .. import beside\nfrom ..base import Base\n" + body
    )
    for init in (False, True):  # a namespace package does as well
        if init:
            (package / "__init__.py").write_text("from .swarm import Own\n")
        for file in (package / "swarm.py", package / "deep" / "swarm.py"):
            assert seen(file) == (1, 2)
            for name in [name for name in sys.modules if name.startswith("fed_algorithms")]:
                del sys.modules[name]
    other = tmp_path / "json"
    other.mkdir()
    (other / "swarm.py").write_text("from .base import Base\n")
    with pytest.raises(InvalidSwarm, match=r"would be called 'json'.*rename the folder"):
        load_swarm(str(other / "swarm.py"), {})
    with pytest.raises(InvalidSwarm, match="is a folder: give the Python file"):
        load_swarm(str(package), {})


def test_named_class(file: Path) -> None:
    file.write_text(SWARM + "\nclass Second(First):\n    pass\n")
    assert type(load_swarm(f"{file}:Second", {})).__name__ == "Second"
    with pytest.raises(InvalidSwarm, match=r"several.*swarm.py:First or swarm.py:Second"):
        load_swarm(str(file), {})


def test_target_with_colons(tmp_path: Path) -> None:
    (tmp_path / "a:b").touch()
    assert split_target(str(tmp_path / "a:b")) == (tmp_path / "a:b", None)
    assert split_target("x/y.py:Class") == (Path("x/y.py"), "Class")
    assert split_target("x/y.py") == (Path("x/y.py"), None)


@pytest.mark.parametrize(
    ("content", "parameters", "message"),
    [
        ("x = 1", {}, "defines no Swarm"),
        ("from manta import Swarm", {}, "defines no Swarm"),
        ("def broken(:\n", {}, r"Syntax error in .*swarm.py, line 1"),
        ("import sys; sys.exit(3)", {}, r"called sys.exit\(3\).*__main__"),
        ("import gone_module", {}, r"ModuleNotFoundError: No module named 'gone_module'"),
        (SWARM, {"epochs": "3"}, r"First\(\) has no parameter 'epochs'.*rounds, name, flag, rate"),
        (SWARM, {"ruonds": "3"}, r"it has rounds.* Did you mean 'rounds'\?"),
        (SWARM, {"rounds": "0"}, "max_iteration is 0"),
        (SWARM.replace("rounds: int = 3", "rounds"), {}, "needs the parameter 'rounds'.*-p rounds"),
        (SWARM.replace("self.seen", "1 / 0; self.seen"), {}, "raised ZeroDivisionError"),
    ],
)
def test_bad_files(file: Path, content: str, parameters: dict[str, str], message: str) -> None:
    file.write_text(content)
    with pytest.raises(InvalidSwarm, match=message):
        load_swarm(str(file), parameters)


def test_what_the_users_code_raises_is_told_with_its_own_frames_only(file: Path) -> None:
    file.write_text("from helper import fail\nfail()\n")
    (file.parent / "helper.py").write_text("def fail():\n    raise ValueError('no data')\n")
    with pytest.raises(InvalidSwarm) as failed:
        load_swarm(str(file), {})
    said = str(failed.value)
    assert "raised ValueError: no data" in said
    assert "helper.py" in said
    assert "importlib" not in said
    assert "loading.py" not in said


def test_no_such_file_or_class(file: Path) -> None:
    with pytest.raises(InvalidSwarm, match=r"There is no file gone\.py"):
        load_swarm("gone.py", {})
    with pytest.raises(InvalidSwarm, match=r" Did you mean '.*/swarm\.py'\?$"):
        load_swarm(f"{file.parent}/swrm.py", {})
    with pytest.raises(InvalidSwarm, match=r"has no Gone: give swarm\.py:First"):
        load_swarm(f"{file}:Gone", {})
    with pytest.raises(InvalidSwarm, match="something else than a Swarm class called SOURCE"):
        load_swarm(f"{file}:SOURCE", {})
    text = file.with_suffix(".txt")
    text.write_text(SWARM)
    with pytest.raises(InvalidSwarm, match="not a Python file"):
        load_swarm(str(text), {})


def test_parameter_pairs() -> None:
    assert parse_parameters(["a=1", "batch-size=2", "c=x=y"]) == {
        "a": "1",
        "batch_size": "2",
        "c": "x=y",
    }
    for wrong in ("a", "=1", "a b=1", ""):
        with pytest.raises(InvalidSwarm, match="is not KEY=VALUE"):
            parse_parameters([wrong])
    with pytest.raises(InvalidSwarm, match="twice"):
        parse_parameters(["a=1", "a=2"])


def test_the_folder_of_a_swarm_is_searched_while_it_is_loaded_and_after_the_standard_library(
    file: Path,
) -> None:
    (file.parent / "antigravity.py").write_text("raise SystemExit('it hides the library')\n")
    (file.parent / "wave.py").write_text("raise SystemExit('it hides the library')\n")
    for name in ("wave", "late"):
        sys.modules.pop(name, None)
    (file.parent / "late.py").write_text("HERE = 1\n")
    file.write_text(
        SWARM.replace(
            "super().__init__", "import late, wave; self.wave = wave\n        super().__init__"
        )
    )
    before = list(sys.path)
    swarm = load_swarm(str(file), {})
    assert hasattr(swarm.wave, "open")  # type: ignore[attr-defined]
    assert sys.path == before
    sys.modules.pop("late")


def test_what_the_file_itself_puts_on_the_path_stays(file: Path) -> None:
    file.write_text(f"import sys\nsys.path.insert(0, {str(file.parent)!r})\n{SWARM}")
    before = list(sys.path)
    load_swarm(str(file), {})
    assert sys.path == [str(file.parent), *before]


@pytest.mark.parametrize("line", ["from wave import mine", "import wave; wave.mine"])
def test_a_helper_with_the_name_of_a_module_of_pythons_is_told(file: Path, line: str) -> None:
    (file.parent / "wave.py").write_text("mine = 1\n")
    file.write_text(f"{line}\n{SWARM}")
    with pytest.raises(
        InvalidSwarm, match=r"/wave\.py has the name of one of Python's own.*rename"
    ):
        load_swarm(str(file), {})
