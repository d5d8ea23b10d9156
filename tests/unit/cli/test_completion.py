"""bash takes words apart at each `=`."""

from __future__ import annotations

import pytest

from manta.console.completion import joined


@pytest.mark.parametrize(
    ("words", "whole"),
    [
        (["manta", "run", "swa"], ["manta", "run", "swa"]),
        (["manta", "--dataset", "d", "=", "sh"], ["manta", "--dataset", "d=sh"]),
        (["manta", "--dataset", "d", "="], ["manta", "--dataset", "d="]),
        (["manta", "--dataset", "=", "d", "=", "sh"], ["manta", "--dataset=d=sh"]),
        (["manta", "--cluster", "=", "", "x"], ["manta", "--cluster=", "x"]),
    ],
)
def test_what_belongs_together_is_one_word(words: list[str], whole: list[str]) -> None:
    assert joined(words) == whole
