"""Whatever is in a value, a table shows it in one line."""

from __future__ import annotations

from typing import Any

import pytest

from manta.cli.tables import brief


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("one\ntwo\rthree", r"one\ntwo\rthree"),
        ("\x1b[2Jgone", r"\x1b[2Jgone"),
        ("grün ✓", "grün ✓"),
        ({"a\nb": ["x\ny", None]}, r"{a\nb: [x\ny, None]}"),
        ([2**20_000], "[an integer of 20001 bits]"),
        ({1: True, 2: b"abc"}, "{1: True, 2: 3 B}"),
    ],
)
def test_a_value_is_one_line(value: Any, shown: str) -> None:
    assert brief(value) == shown
