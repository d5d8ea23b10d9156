"""Draw the picture that README begins with: `make pictures`.

A run of examples/hospitals, as its terminal shows it in the end, and beside it what the hospitals
learn by it, compared with what each learns alone: all from that run. With a path as argument, write
it there.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from pathlib import Path

import matplotlib
from record import GROUND, HEIGHT, MARGIN, ROOT, TEXT, WIDTH, Row, record, written

PICTURE = ROOT / "docs" / "assets" / "first.svg"
COLUMNS = 62
CHART_WIDTH = 460
COMMAND = """manta run examples/hospitals/swarm.py --nodes 4 \\
    --dataset patients='examples/hospitals/shards/{i}.npz'"""
LAST = "COMPLETED"
"""Begins the last line that is drawn; where the time went follows."""


def run(folder: Path) -> tuple[list[Row], dict[str, list[float]]]:
    """What the terminal shows in the end, and accuracies by round, by who learned."""
    hospitals = folder / "examples" / "hospitals"
    shutil.copytree(
        ROOT / "examples" / "hospitals",
        hospitals,
        ignore=shutil.ignore_patterns("__pycache__", "shards"),
    )
    sys.path.insert(0, str(hospitals))
    import compare
    import make_shards

    make_shards.main()
    rows = [*{row.line: row for row in record(COMMAND, folder, COLUMNS)}.values()]
    texts = {row.line: "".join(text for _, text, _, _ in row.runs) for row in rows}
    end = next(line for line, text in texts.items() if text.startswith(LAST))
    together = [
        float(found[1]) for text in texts.values() if (found := re.search(r"accuracy (\S+)$", text))
    ]
    assert len(together) == compare.ROUNDS, texts
    accuracies = compare.by_themselves()
    accuracies["together, by FedAvg"] = together
    return [row for row in rows if row.line <= end], accuracies


def chart(accuracies: dict[str, list[float]], folder: Path) -> str:
    import compare

    kept = {"svg.fonttype": "none", "svg.hashsalt": "manta"}
    with matplotlib.rc_context(kept):
        compare.draw(accuracies, folder / "chart.svg", size=(5.6, 3.9))
    text = (folder / "chart.svg").read_text()
    return re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)


def svg(rows: list[Row], chart: str) -> str:
    lines = max(row.line for row in rows) + 1
    width, height = round(COLUMNS * WIDTH) + 2 * MARGIN, lines * HEIGHT + 2 * MARGIN
    placed = f'<svg x="{width + MARGIN}" y="0" width="{CHART_WIDTH}" height="{height}" '
    whole = width + 2 * MARGIN + CHART_WIDTH
    return "\n".join(
        [
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="0 0 {whole} {height}" '
            f'width="{whole}" height="{height}">',
            f'<rect width="{whole}" height="{height}" rx="8" fill="#ffffff"/>',
            f'<rect width="{width}" height="{height}" rx="8" fill="{GROUND}"/>',
            f'<g font-family="ui-monospace, monospace" font-size="13" fill="{TEXT}">',
            *(written(row) for row in rows),
            "</g>",
            re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', rf"{placed}\1>", chart, count=1),
            "</svg>\n",
        ]
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        rows, accuracies = run(Path(folder))
        picture = svg(rows, chart(accuracies, Path(folder)))
    (Path(sys.argv[1]) if len(sys.argv) > 1 else PICTURE).write_text(picture)
