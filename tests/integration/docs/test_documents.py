"""Every code block of the README and of docs/ is what it says."""

from __future__ import annotations

import re
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.documents import ACCEPTING, LANGUAGES, ROOT, blocks, matches, run

PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
WITH_BLOCKS = [page for page in PAGES if any(blocks(page))]
NEEDS = {"docs/tutorials/torch.md": "torch"}
"""Page -> what its reader has installed, besides Manta and its extras."""
NOT_RUN: dict[str, int] = {
    "CONTRIBUTING.md": 1,
    "docs/manager.md": 1,
    "docs/mesh.md": 2,
    "docs/node.md": 2,
    "docs/swarms.md": 1,
}
"""Page -> how many of its blocks are not run; each says why, in the page. Keep it short."""


@pytest.mark.parametrize("page", WITH_BLOCKS, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_runs_as_it_reads(page: Path, tmp_path: Path, monkeypatch) -> None:
    needed = NEEDS.get(str(page.relative_to(ROOT)))
    if needed is not None and find_spec(needed) is None:
        pytest.skip(f"{needed} is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MANTA_HOME", str(tmp_path / "home" / ".manta"))
    monkeypatch.setenv("MANTA_NODE_TOKEN", "a-token")
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    try:
        run(page, tmp_path)
    finally:
        for name in set(sys.modules) - before:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
                del sys.modules[name]


def test_the_blocks_that_are_not_run_are_known() -> None:
    found = {
        str(page.relative_to(ROOT)): count
        for page in PAGES
        if (count := sum(block.reason is not None for block in blocks(page)))
    }
    assert found == NOT_RUN


def a_page(folder: Path, text: str) -> Path:
    page = folder / "page.md"
    page.write_text(text)
    return page


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("```python\n1 / 0\n```\n", "division"),
        ("```console\n$ false\n```\n", "ended with 1"),
        ("```console\n$ echo two\none\n```\n", "The page shows"),
        ("```console\n$ echo one\n$ echo two\ntwo\n```\n", "The page shows"),
        ("```toml\n[identity]\nnick = 'x'\n```\n", "nick"),
        ("```json\n{'a': 1}\n```\n", "Expecting"),
        (
            '```ini title="a.service"\n[Service]\nExecStart=/bin/manta\nRestrt=no\n```\n',
            "Restrt",
        ),
        ('```python title="examples/line/worker.py"\nx = 1\n```\n', "is not examples"),
        ("```pyhton\n1\n```\n", "no language"),
        ("```\n1\n```\n", "no language"),
        ("```console\n$ make coffee\n```\n", "no make coffee"),
        ("```console\n$ pip install 'manta-swarm[cream]'\n```\n", "no extra cream"),
        ('```python title="lost.py"\nx = 1\n```\n', "nothing uses lost.py"),
        (
            "```python\nfrom manta import Swarm, Task\nclass A(Swarm):\n"
            "    def execute(self):\n        return Task('missing.py')()\n```\n",
            "missing.py",
        ),
    ],
)
def test_a_wrong_page_fails(text: str, why: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv(ACCEPTING, raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Exception, match=why):
        run(a_page(tmp_path, text), tmp_path)


def test_a_right_page_passes(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (
        "```python\nx = 1\n```\n```python\nx += 1\nassert x == 2\n```\n"
        "```console\n$ a=1; echo $a\n1\n$ (exit 3)\n$ echo $?\n3\n$ cat <<end\n> tea\n> end\ntea\n"
        "```\n<!-- not run: it would not end -->\n```console\n$ sleep 1000\n```\n"
    )
    page = a_page(tmp_path, text)
    run(page, tmp_path)
    assert [block.reason for block in blocks(page)][-1] == "it would not end"
    assert {block.language for block in blocks(page)} <= LANGUAGES


def test_questions_are_shown_with_the_answers_that_follow(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv(ACCEPTING, raising=False)
    monkeypatch.chdir(tmp_path)
    text = (
        "```console\n$ read -p 'Name: '; read -p 'Age [1]: '; echo done\n"
        "Name:\nAge [1]:\ndone\n```\n"
    )
    run(a_page(tmp_path, text), tmp_path)


def test_what_a_page_shows_is_compared() -> None:
    assert matches("a  b\n\nz", "a b\n\nz\n")
    assert not matches("a\n…\nz", "a\nb\nz\n"), "it is shown as a whole"
    assert matches("took 1.2 s", "took 30 ms")
    assert matches("0123456789ab ACTIVE 3 kB", "ba9876543210 ACTIVE 0.1 MB")
    assert not matches("a\nb", "a")
    assert not matches("a", "a\nb")
    assert not matches("took 1.2 s", "took long")


def test_what_was_said_is_accepted_on_request(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = "```console\n$ echo two\none\n$ echo 2 s\n1 s\n```\nand\n```console\n$ echo\n```\n"
    page = a_page(tmp_path, text)
    monkeypatch.setenv(ACCEPTING, "1")
    run(page, tmp_path)
    assert page.read_text() == text.replace("one", "two")


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_what_a_page_outside_of_the_site_links_to_is_there(name: str) -> None:
    links = re.findall(r"\]\(([^)\s#]+)", (ROOT / name).read_text())
    missing = [
        link
        for link in links
        if "//" not in link and not (ROOT / name).parent.joinpath(link).exists()
    ]
    assert missing == []


def test_no_page_has_code_that_is_not_seen() -> None:
    for page in PAGES:
        for comment in re.findall(r"<!--(.*?)-->", page.read_text(), re.DOTALL):
            assert "\n" not in comment, f"{page}: {comment}"
