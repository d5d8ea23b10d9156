"""A function or class travels as source, with what it uses."""

from __future__ import annotations

import asyncio
import functools
import math
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from manta import Module, Swarm, Task, task
from manta.apis.compile.functions.closure import program_of
from manta.apis.compile.functions.constants import MOST, literal
from manta.apis.compile.packaging import ENTRY, package
from manta.apis.compile.spec import compile_swarm
from manta.apis.errors import InvalidArgument, ModuleError
from manta.light.runtime.failures import describe
from manta.light.runtime.loader import Program as Loaded
from tests.unit.apis import functions_of_a_file as there

FILE = Path(there.__file__)


def ran(function: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What its module binds, once it was run by itself."""
    module = ModuleType("by_itself")
    monkeypatch.setitem(sys.modules, "by_itself", module)
    source = program_of(function).source
    exec(compile(source, str(FILE), "exec", dont_inherit=True), vars(module))
    return vars(module)


@pytest.mark.parametrize(
    "function",
    [
        there.plain,
        there.imports,
        there.recursive,
        there.even,
        there.decorated,
        there.colored,
        *there.made(3)[:1],
    ],
)
def test_its_module_does_what_it_does_here(function: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ran(function, monkeypatch)["main"]() == function()


def test_statements_that_share_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dense_one.py").write_text(
        "import os, re; A = 1; B = [2]\n"
        "def f(): return os.sep + str(A + B[0]); C = 5\n"
        "from math import (floor,\n    ceil,\n)\n"
        "def g(): return floor(2.5), ceil(2.5), re.escape('.')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import dense_one  # type: ignore[import-not-found]

    for function in (dense_one.f, dense_one.g):
        assert ran(function, monkeypatch)["main"]() == function()


def test_a_coroutine_function(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asyncio.run(ran(there.later, monkeypatch)["main"]()) == 3


def test_classes_with_their_bases(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ran(there.Worker, monkeypatch)["Worker"]().run() == there.Worker().run()
    assert ran(there.Color, monkeypatch)["Color"].RED.value == 1
    inner = there.made(3)[1]
    assert ran(inner, monkeypatch)["Inner"]().run() == 4


def test_what_a_function_asks_for_by_name_is_given() -> None:
    module = program_of(there.given).source
    tail = module[module.index("def main(") :]
    assert "_function(world=World(), local=Local(), results=Results())" in tail


def test_the_decorator_of_a_task_stays_here() -> None:
    assert isinstance(there.a_task, Task)
    assert there.a_task.retries == 2
    assert there.a_task.datasets == ("d",)
    assert there.a_task.alias == "a_task"
    source = program_of(there.a_task.module.function).source
    assert "@task" not in source
    assert "manta import" not in source


def test_every_line_stands_where_it_stands_in_the_file() -> None:
    lines = FILE.read_text().splitlines()
    for function in (there.plain, there.Worker, there.decorated, there.imports):
        taken = program_of(function).source.splitlines()
        at = next(
            n
            for n, line in enumerate(lines)
            if line.startswith((f"def {function.__name__}", f"class {function.__name__}"))
        )
        assert taken[at : at + 3] == lines[at : at + 3]


def test_a_traceback_leads_to_the_lines_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "\n\nX = 0\n\ndef helper():\n    return 1 / X\n\n\ndef f():\n    return helper()\n"
    )
    sys.path.insert(0, str(tmp_path))
    try:
        import mine  # type: ignore[import-not-found]
    finally:
        sys.path.remove(str(tmp_path))
        sys.modules.pop("mine", None)
    names: dict[str, Any] = {}
    exec(compile(program_of(mine.f).source, "mine.py", "exec"), names)
    with pytest.raises(ZeroDivisionError) as raised:
        names["main"]()
    assert [frame.lineno for frame in traceback.extract_tb(raised.tb)][-2:] == [10, 6]


def test_constants_have_the_value_that_they_have_when_it_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(there, "RATE", 5.0)
    assert "RATE = 5.0" in program_of(there.Worker).source


@pytest.mark.parametrize(
    ("function", "name", "why"),
    [
        (there.uses_table, "TABLE", "numpy.ndarray of shape (3,)"),
        (there.uses_table, "TABLE", "set_global('TABLE', TABLE)"),
        (there.uses_file, "OPENED", "make it inside the function"),
        (there.uses_lock, "LOCK", "make it inside the function"),
        (there.uses_clock, "NOW", "a datetime.datetime"),
        (there.uses_nothing_there, "nothing_there", "is not defined"),
        (there.uses_a_task, "a_task", "which is a task"),
        (there.wants_more, "rate", "World().globals['rate']"),
        (there.counting(), "count", "nonlocal"),
        (there.hidden, "function", "decorated"),
    ],
)
def test_what_cannot_travel_is_refused_by_its_name(function: Any, name: str, why: str) -> None:
    with pytest.raises(ModuleError) as raised:
        program_of(function)
    assert repr(name) in str(raised.value)
    assert why in str(raised.value)


def test_the_line_is_named() -> None:
    line = FILE.read_text().splitlines().index("    return TABLE") + 1
    with pytest.raises(ModuleError, match=rf"\(line {line}\)"):
        program_of(there.uses_table)


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (lambda: 1, "lambda"),
        (len, "built-in function len"),
        (there.Worker().run, "a method of an object"),
        (there.OF_ANOTHER, "<Task plain>"),
        (functools.partial(there.plain), "functools.partial"),
    ],
)
def test_what_is_no_function_is_refused_at_once(value: Any, what: str) -> None:
    with pytest.raises(InvalidArgument, match=what):
        Module(value)


def test_a_function_typed_at_a_prompt_has_no_source() -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    exec("def f():\n    return 1\n", names)
    with pytest.raises(ModuleError, match="keeps no source"):
        program_of(names["f"])


def test_a_file_that_changed_since_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "changing.py"
    file.write_text("def f():\n    return 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    import changing  # type: ignore[import-not-found]

    file.write_text("\n\n\n# longer\ndef f():\n    return 1\n")
    with pytest.raises(ModuleError, match="changed since"):
        program_of(changing.f)


def test_what_lies_beside_the_file_is_packed_along_and_what_it_does_not_use_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "used_one.py").write_text("import deeper_one\n")
    (tmp_path / "deeper_one.py").write_text("")
    (tmp_path / "other_one.py").write_text("")
    (tmp_path / "program_one.py").write_text(
        "import used_one\nimport other_one\n\n\ndef f():\n    return used_one\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import program_one  # type: ignore[import-not-found]

    packed = package(Module(program_one.f), None, [])
    assert packed is not None
    assert packed.files[ENTRY] == "program_one.py"
    assert packed.along == ("used_one.py", "deeper_one.py")
    assert "other_one" not in str(packed.files["program_one.py"])


def test_relative_imports_are_refused_with_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "some_package"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "helper.py").write_text("def g(): ...\n")
    (folder / "main.py").write_text("from .helper import g\n\n\ndef f():\n    return g()\n")
    monkeypatch.syspath_prepend(tmp_path)
    from some_package import main  # type: ignore[import-not-found]

    with pytest.raises(ModuleError, match=r"Module\(path of its folder\)"):
        program_of(main.f)


def test_a_swarm_of_functions_and_classes_compiles() -> None:
    @task(maximum=1)
    def mean(results):
        return results

    class All(Swarm):
        def __init__(self) -> None:
            super().__init__()
            self.worker = Task(there.Worker)
            self.plain = Task(there.plain, method="any")

        def execute(self) -> Task:
            return mean([self.worker(), self.plain()])

    spec = compile_swarm(All()).spec
    assert {one.alias: one.class_name for one in spec.tasks} == {
        "Worker": "Worker",
        "plain": None,
        "mean": None,
    }


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        -3,
        1.5,
        -0.0,
        math.inf,
        -math.inf,
        2j,
        "a'\n",
        b"\0",
        ...,
        (),
        (1,),
        [1, [2]],
        {"a": {1: None}},
        set(),
        {1, 2},
        frozenset({"x"}),
    ],
)
def test_constants_are_written_so_that_they_are_equal_when_read(value: Any) -> None:
    text = literal(value)
    assert text is not None
    again = eval(text)
    assert again == value
    assert type(again) is type(value)
    assert str(again) == str(value)


def test_a_constant_that_is_not_small_or_holds_itself_is_none() -> None:
    endless: list[Any] = []
    endless.append(endless)
    for value in (endless, "x" * MOST, 10**5000, object(), [object()]):
        assert literal(value) is None


def test_nan_stays_nan() -> None:
    assert math.isnan(eval(literal(math.nan) or ""))


def test_a_closure_of_a_large_file_is_found_quickly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In work, not in seconds: each statement is visited a few times, whatever uses it."""
    lines = "".join(f"def f{n}():\n    return f{max(n - 1, 0)}()\n" for n in range(300))
    (tmp_path / "large_one.py").write_text(lines)
    monkeypatch.syspath_prepend(tmp_path)
    import large_one  # type: ignore[import-not-found]

    assert program_of(large_one.f299).source.count("def ") == 301


def a_notebook(cells: list[str], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What these cells bind. As the kernel keeps them: code with a file name of its own, and the
    texts in `In`."""
    import linecache

    module = ModuleType("a_notebook")
    monkeypatch.setitem(sys.modules, "a_notebook", module)
    names = vars(module)
    names |= {"In": cells, "get_ipython": lambda: None}
    for n, cell in enumerate(cells):
        name = f"/tmp/ipykernel_1/{n}.py"
        linecache.cache[name] = (len(cell), None, cell.splitlines(keepends=True), name)
        exec(compile(cell, name, "exec"), names)
    return names


def test_a_cell_of_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    names = a_notebook(
        [
            "",
            "import math\nRATE = 2\n",
            "def helper(x):\n    return x * RATE\n",
            "def f():\n    return helper(math.floor(3.5))\n",
            "def helper(x):\n    return x * RATE + 1\n",
            "RATE = 3\n",
        ],
        monkeypatch,
    )
    program = program_of(names["f"])
    assert program.file is None
    got: dict[str, Any] = {}
    exec(program.source, got)
    assert got["main"]() == names["f"]() == 10
    assert "# Manta: cell of f, line 1" in program.source


def test_cells_that_are_run_again_make_the_same_module(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = [
        "import math\n\nRATE = [2]\n",
        "def helper(x):\n    return x * RATE[0]\n",
        "def f():\n    return helper(math.pi), RATE\n",
    ]
    runs = [cells, [*cells, cells[-1]], [*cells, "1 / 1", *cells], ["2 / 2", *cells]]
    found = {program_of(a_notebook(["", *run], monkeypatch)["f"]).source for run in runs}
    (source,) = found
    for mark in ("cell of RATE, line 3", "cell of helper, line 1", "cell of f, line 1"):
        assert f"# Manta: {mark}" in source.replace("cell of math", "cell of RATE")


def test_cells_of_one_title_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    names = a_notebook(
        [
            "",
            "def a():\n    return 1\n\ndef c():\n    return 1\n",
            "def a():\n    return 2\n",
            "def f():\n    return a() + c()\n",
        ],
        monkeypatch,
    )
    source = program_of(names["f"]).source
    assert "# Manta: cell of a, line 4" in source
    assert "# Manta: cell of a (2), line 1" in source


def on_a_node(source: str, folder: Path, class_name: str | None = None) -> tuple[str, str]:
    """Sentence and traceback of what running it raises."""
    (folder / "f.py").write_text(source)
    before = list(sys.path), list(sys.argv)
    program = Loaded(str(folder), "f.py")
    try:
        program.load()
        with pytest.raises(ZeroDivisionError) as raised:
            program.target(class_name).run()
    finally:
        for name in [name for name, one in sys.modules.items() if one is program.module]:
            del sys.modules[name]
        sys.path[:], sys.argv[:] = before
    _, sentence, shown = describe(raised.value, "f.0", str(folder))
    return sentence, shown


def test_a_traceback_leads_to_the_lines_of_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = a_notebook(
        [
            "",
            "import math\n\nRATE = 0\n",
            "# Divides.\n\ndef helper(x):\n    'One.'\n    return x / RATE\n",
            "def f():\n    return helper(math.pi)\n",
        ],
        monkeypatch,
    )
    sentence, shown = on_a_node(program_of(names["f"]).source, tmp_path)
    assert sentence.endswith("(cell of helper, line 5).")
    lines = [line for line in shown.splitlines() if set(line) - set(" ~^")]
    assert lines[-5:] == [
        '  File "cell of f", line 2, in f',
        "    return helper(math.pi)",
        '  File "cell of helper", line 5, in helper',
        "    return x / RATE",
        "ZeroDivisionError: float division by zero",
    ]


def test_a_traceback_leads_to_the_only_cell_and_into_a_class_and_what_is_in_a_function(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = (
        "import contextlib\n\n\nclass Worker:\n    def execute(self):\n"
        "        with contextlib.suppress(KeyError):\n            def inner(): return 1 / 0\n"
        "            return [inner() for _ in 'x']\n"
    )
    source = program_of(a_notebook(["", cell], monkeypatch)["Worker"]).source
    sentence, shown = on_a_node(source, tmp_path, "Worker")
    assert sentence.endswith("(cell of Worker, line 7).")
    assert 'File "cell of Worker", line 8, in execute' in shown
    assert "def inner(): return 1 / 0" in shown


def test_what_a_function_without_cells_says_stays_as_it_is(tmp_path: Path) -> None:
    source = "# Manta: none\ndef main():\n    return 1 / 0\n"
    sentence, _ = on_a_node(source, tmp_path)
    assert sentence.endswith("(f.py, line 3).")


def test_lines_end_where_they_end_for_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fed.py").write_text(
        "A = 'x\u2028y'\n\x0c\n\ndef f():\n    return 'a\x0cb', A\n", newline="\r\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import fed  # type: ignore[import-not-found]

    monkeypatch.delitem(sys.modules, "fed")
    assert ran(fed.f, monkeypatch)["main"]() == ("a\x0cb", "x\u2028y")
