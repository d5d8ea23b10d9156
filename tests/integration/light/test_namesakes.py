"""Files of the user's with names of libraries: which of the two is found, and by whom."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Start = Callable[..., Any]

NAMES = ["random", "queue", "types", "statistics", "secrets", "token", "traceback", "numpy", "csv"]
SIBLING = "MINE = 1000\ndef seed_of(rank):\n    return MINE + rank\n"


def package(**files: str) -> dict[str, str]:
    return {f"trainer/{name}.py": text for name, text in files.items()}


@pytest.mark.parametrize("name", NAMES)
def test_modules_of_a_package_hide_no_library(start: Start, name: str) -> None:
    files = package(
        __init__="from .work import main\n",
        work=f"""
            import {name}, sys
            from multiprocessing import get_context
            from .{name} import seed_of
            from . import {name} as own
            def main():
                with get_context("spawn").Pool(1) as pool:
                    seeds = pool.map(seed_of, [1, 2])
                return seeds, hasattr({name}, "MINE"), own.MINE, {name} in sys.modules.values()
        """,
        **{name: SIBLING},
    )
    runtime = start(files, "trainer")
    for iteration in range(2):
        assert runtime.run(iteration).output == ([1001, 1002], False, 1000, True)


def test_modules_of_a_package_are_found_by_absolute_names_after_all_libraries(
    start: Start,
) -> None:
    files = package(
        __init__="import helper, colorsys, trainer.helper\nfrom trainer.sub import low\n"
        "def main():\n    return helper.X, hasattr(colorsys, 'X'), trainer.helper.X, low.X\n",
        helper="X = 1\n",
        colorsys="X = 2\n",
    ) | {"trainer/sub/__init__.py": "", "trainer/sub/low.py": "X = 3\n", "beside.py": "X = 4\n"}
    runtime = start(files, "trainer")
    for iteration in range(2):
        assert runtime.run(iteration).output == (1, False, 1, 3)


def test_a_file_beside_a_file_is_found_before_a_library(start: Start) -> None:
    files = {
        "worker.py": "import wave, colorsys\nfrom helper import wave as same\n"
        "def main():\n    return wave.X, same is wave, hasattr(colorsys, 'X')\n",
        "wave.py": "X = 5\n",
        "helper.py": "import wave\n",
        "data/colorsys.py": "X = 6\n",
    }
    runtime = start(files)
    for iteration in range(2):
        assert runtime.run(iteration).output == (5, True, False)


@pytest.mark.parametrize("entry", ["queue.py", "random.py", "numpy.py", "json", "types", "a-b.py"])
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_pool_of_a_module_that_is_named_as_a_library(
    start: Start, entry: str, method: str
) -> None:
    source = f"""
        from multiprocessing import get_context
        def double(n):
            return 2 * n
        def main():
            with get_context("{method}").Pool(1) as pool:
                return pool.map(double, [1, 2])
    """
    file = entry if entry.endswith(".py") else f"{entry}/__init__.py"
    assert start({file: source}, entry).run().output == [2, 4]
