"""What docs/security.md says of attackers is shown by tests that there are."""

from __future__ import annotations

import os
import re
from pathlib import Path

from tests.support.escape import outside

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "security.md"


def test_each_test_that_the_page_names_is_there() -> None:
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", PAGE.read_text("utf-8"))
    assert len(named) > 50
    missing = [
        f"{file}::{name}"
        for file, name in named
        if not (TESTS / file).exists() or f"def {name}(" not in (TESTS / file).read_text("utf-8")
    ]
    assert missing == []


def test_it_has_the_table_that_probes_of_tasks_are_compared_with() -> None:
    """With MANTA_TEST_ACCEPT=1 it is brought up to date."""
    text, expected = PAGE.read_text("utf-8"), outside.page()
    [kept] = re.findall(r"^\| a task \|.*\n(?:\|.*\n)+", text, re.MULTILINE)
    if os.environ.get("MANTA_TEST_ACCEPT"):
        PAGE.write_text(text.replace(kept, expected), "utf-8")
        return
    assert kept == expected


def test_each_probe_has_an_answer_at_each_level() -> None:
    answers = {probe[level] for probe in outside.TABLE["probe"] for level in outside.LEVELS}
    assert answers <= {"open", "closed", "not there"}
    names = [probe["name"] for probe in outside.TABLE["probe"]]
    assert sorted(names) == sorted({*outside.QUIET, *outside.ALONE})
    inside = (outside.HERE / "inside.py").read_text()
    assert (
        re.findall(r"^    \"(.+)\": (?:lambda|\w+,$)", inside.partition("PROBES = {")[2], re.M)
        == names
    )
