"""The recorded picture shows what a run says today."""

from __future__ import annotations

import html
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

from tests.support.documents import ROOT, matches


def shown(picture: Path) -> str:
    """What a recorded terminal shows in the end; a line that stayed empty was never drawn."""
    texts = re.findall(r'<text y="(\d+)"[^>]*>(.*?)</text>', picture.read_text())
    last = {int(y): html.unescape(re.sub(r"<[^>]+>", "", text)) for y, text in texts}
    height = min(after - y for y, after in pairwise(sorted(last)))
    return "\n".join(last.get(y, "") for y in range(min(last), max(last) + 1, height))


def test_the_recorded_run_is_that_of_today(tmp_path: Path) -> None:
    picture = tmp_path / "run.svg"
    record = ROOT / ".ci" / "record.py"
    subprocess.run([sys.executable, record, picture], check=True, timeout=60)
    said, kept = shown(picture), shown(ROOT / "docs" / "assets" / "run.svg")
    assert "COMPLETED" in kept
    assert matches(kept, said), f"run `make pictures`:\n{said}"
    moments = re.findall(r"animation-delay:([\d.]+)s", picture.read_text())
    assert len(moments) > 20
    assert moments == sorted(moments, key=float)


def test_the_picture_of_the_first_page_is_of_a_run_of_today(tmp_path: Path) -> None:
    picture = tmp_path / "first.svg"
    first = ROOT / ".ci" / "first.py"
    subprocess.run([sys.executable, first, picture], check=True, timeout=100)
    kept = ROOT / "docs" / "assets" / "first.svg"
    assert matches(shown(kept), shown(picture)), f"run `make pictures`:\n{shown(picture)}"
    assert "COMPLETED" in shown(kept)
    assert drawn(kept) == drawn(picture)
    assert len(drawn(kept)) > 5, "hospitals alone, pooled records, together"


def drawn(picture: Path) -> list[str]:
    """The curves of the chart, by their points."""
    lines = re.findall(
        r'<g id="line2d_\d+">\s*<path d="([^"]*)"[^>]*clip-path', picture.read_text()
    )
    return [line for line in lines if line.count("L") > 5]
