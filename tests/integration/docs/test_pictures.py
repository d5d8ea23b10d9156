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
