"""How `make bench` goes through its reports."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import pytest

from tests.benchmarks.__main__ import main


def test_a_report_that_needs_what_is_not_installed_is_left_out_in_a_line_and_the_next_is_made(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, report in {
        "lacking": lambda: importlib.import_module("a_package_that_nobody_has"),
        "working": lambda: print("42 ms"),
    }.items():
        module = ModuleType(name)
        module.__dict__["main"] = report
        monkeypatch.setitem(sys.modules, f"tests.benchmarks.{name}", module)
    monkeypatch.setattr(sys, "argv", ["bench", "lacking", "working"])
    main()
    assert [line for line in capsys.readouterr().out.splitlines() if line] == [
        "## lacking",
        "Left out: it needs a_package_that_nobody_has, which is not installed.",
        "## working",
        "42 ms",
    ]
