"""Programs are parsed from any thread, whatever CPython makes of that."""

from __future__ import annotations

import ast
import gc
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from manta.apis.compile.syntax import parse
from manta.light.runtime.sources import parsed

PROGRAM = "\n".join(f"def f{i}(a, b=[1, (2, a)]): return [x + {i} for x in b]" for i in range(200))


class Cycle:
    """Its end, in the middle of a parse, lets another thread run."""

    def __init__(self) -> None:
        self.me = self

    def __del__(self) -> None:
        for _ in range(1000):
            pass


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads take turns often, and so does the collector."""
    interval, thresholds = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(1e-5)
    gc.set_threshold(50)
    yield
    sys.setswitchinterval(interval)
    gc.set_threshold(*thresholds)


@pytest.mark.parametrize(
    "to_tree", [parse, lambda text: parsed(text, "f.py")], ids=["sdk", "light"]
)
def test_threads_that_parse_at_the_same_time_do_not_disturb_each_other(
    hasty: None, to_tree: Callable[[str], Any]
) -> None:
    wanted = ast.dump(ast.parse(PROGRAM))

    def work(_: int) -> bool:
        cycles = [Cycle() for _ in range(200)]
        del cycles
        return all(ast.dump(to_tree(PROGRAM)) == wanted for _ in range(5))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


@pytest.mark.parametrize("text", ["def", "\0", "é".encode("latin-1"), "(" * 500, "-" * 200_000])
def test_what_cannot_be_parsed_has_no_tree(text: str | bytes) -> None:
    assert parse(text) is None


def test_what_fails_always_is_not_tried_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise SystemError("broken")

    monkeypatch.setattr(ast, "parse", broken)
    with pytest.raises(SystemError, match="broken"):
        parse("x = 1")
