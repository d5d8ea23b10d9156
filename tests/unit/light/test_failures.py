"""Failures of user code in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from manta.light.runtime.failures import describe
from manta.light.runtime.loader import NothingToRun


def test_a_failure_in_words(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text("def f():\n    raise KeyError('name')\n")
    code = compile((tmp_path / "code.py").read_text(), str(tmp_path / "code.py"), "exec")
    scope: dict[str, Any] = {}
    exec(code, scope)
    with pytest.raises(KeyError) as caught:
        scope["f"]()
    kind, sentence, trace = describe(caught.value, "worker.0", str(tmp_path))
    assert kind == "KeyError"
    assert sentence == "worker.0 raised KeyError: 'name' (code.py, line 2)."
    assert trace.splitlines() == [
        "Traceback (most recent call last):",
        '  File "code.py", line 2, in f',
        "    raise KeyError('name')",
        "KeyError: 'name'",
    ]


def test_a_failure_is_bounded_and_can_be_sent(tmp_path: Path) -> None:
    kind, sentence, trace = describe(ValueError("\ud800" * 10**6), "worker.0", str(tmp_path))
    assert kind == "ValueError"
    assert len(sentence) < 3_000
    assert len(trace) < 40_000
    (sentence + trace).encode()
    for error in (SystemExit("\ud800" * 10**6), NothingToRun("\ud800" * 10**6)):
        kind, sentence, _ = describe(error, "worker.0", str(tmp_path))
        assert kind == type(error).__name__
        assert 8_000 < len(sentence) < 9_000
        sentence.encode()


def test_a_package_that_is_not_there_is_told_with_the_remedy(tmp_path: Path) -> None:
    error = ModuleNotFoundError("No module named 'nowhere'", name="nowhere")
    _, sentence, _ = describe(error, "Importing w.py", str(tmp_path))
    assert sentence == (
        "Importing w.py raised ModuleNotFoundError: No module named 'nowhere'. Install it for the "
        "node's Python or in the image, or let a file of yours lie beside the module."
    )
