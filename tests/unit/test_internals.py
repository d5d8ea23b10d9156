"""The files that the internals name exist, and the pictures are as drawn."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
INTERNALS = ROOT / "docs" / "internals"
PAGES = [*INTERNALS.rglob("*.md"), ROOT / "CONTRIBUTING.md"]
MODULES = {
    path.name
    for folder in ("actors", "light", "manta", "node", "tests", "transports")
    for path in (ROOT / folder).rglob("*.py")
}
ROOMS = ("actors", "light", "manta", "node", "tests", "transports", ".ci")


def named_paths(page: Path) -> set[str]:
    """Paths in backticks that begin with a room."""
    names = re.findall(r"`([\w./-]+(?:\.py|/))`", page.read_text())
    return {name for name in names if name.split("/")[0] in ROOMS}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_paths_that_a_page_names_exist(page: Path) -> None:
    missing = {name for name in named_paths(page) if not (ROOT / name).exists()}
    assert missing == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_modules_that_a_page_names_exist(page: Path) -> None:
    named = set(re.findall(r"`(\w+\.py)`", page.read_text()))
    assert named - MODULES - {"NAME.py"} == set()


def test_paths_are_found() -> None:
    assert "transports/codec/values.py" in named_paths(INTERNALS / "rooms" / "transports.md")
    assert "light/task.py" in named_paths(INTERNALS / "rooms" / "tasks.md")


def recipes() -> dict[str, list[str]]:
    """By what CONTRIBUTING shows how to add: the files that it says hold the example."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    _, _, text = text.partition("## How to add\n")
    found: dict[str, list[str]] = {}
    for part in text.partition("\n## ")[0].split("\n### ")[1:]:
        example, *names = re.findall(r"`([\w./-]+)`", part.partition("\n\n")[2])
        files = re.findall(r"^\| `([\w./-]+)` \|", part, re.MULTILINE)
        assert names, part
        found[example] = files
    return found


@pytest.mark.parametrize(("example", "files"), recipes().items(), ids=recipes().keys())
def test_files_that_a_recipe_names_hold_its_example(example: str, files: list[str]) -> None:
    spellings = {example, re.sub(r"(?<!^)(?=[A-Z])", "_", example).lower()}
    assert len(files) >= 3
    for file in files:
        text = (ROOT / file).read_text()
        assert any(re.search(rf"\b{name}\b", text) for name in spellings), file


def test_pictures_are_drawn_from_their_text(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / ".ci" / "draw.py", tmp_path], check=True)
    drawn = {file.relative_to(tmp_path): file for file in tmp_path.rglob("*.svg")}
    kept = {file.relative_to(DOCS): file for file in DOCS.rglob("*.svg")}
    recorded = {Path("assets/run.svg"), Path("assets/first.svg")}
    assert set(kept) == {*drawn, *recorded}, "run `make generate`"
    for name, file in drawn.items():
        assert file.read_text() == kept[name].read_text(), f"{name}: run `make generate`"
