"""The three ways to write a module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def test_hello(start: Callable[..., Any]) -> None:
    runtime = start("def main():\n    print('hi')\n    return 42\n")
    assert runtime.ready().mode == "fork"
    ended = runtime.run()
    assert ended.output == 42
    assert ended.lines("stdout") == ["hi"]
