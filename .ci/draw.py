"""Draw the pictures of the documents: `make generate`.

A picture is a TOML file of boxes and arrows; the SVG beside it is drawn from that. The graphs of
swarms are those that notebooks show. A test compares all with what is kept. They follow the
reader's light or dark colours.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from manta.apis.swarm import graph_of
from manta.cli.loading import load_swarm
from manta.mesh.picture import Peer, State, picture
from manta.roster.topologies import Topology

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
GRAPHS = {"assets/fl_digits.svg": ROOT / "examples" / "fl_digits" / "swarm.py"}
STYLE = """
.page { fill: #ffffff; }
.outer { fill: #f5f6fb; stroke: #3f51b5; }
.inner { fill: #ffffff; stroke: #9fa8da; }
.title { fill: #1a237e; font-weight: 600; }
.line { fill: #37474f; }
.label { fill: #37474f; font-style: italic; }
.arrow { stroke: #3f51b5; fill: none; }
.head { fill: #3f51b5; }
text { font-family: system-ui, sans-serif; font-size: 13px; }
@media (prefers-color-scheme: dark) {
.page { fill: #14161b; }
.outer { fill: #1e2129; stroke: #7986cb; }
.inner { fill: #2a2e39; stroke: #5c6bc0; }
.title { fill: #c5cae9; }
.line, .label { fill: #cfd8dc; }
.arrow { stroke: #9fa8da; }
.head { fill: #9fa8da; }
}
"""

GRAPH_STYLE = """
svg { color: #37474f; background: #ffffff; }
@media (prefers-color-scheme: dark) { svg { color: #cfd8dc; background: #14161b; } }
"""


def svg(picture: dict[str, Any]) -> str:
    """The drawing of one picture."""
    size = f'width="{picture["width"]}" height="{picture["height"]}"'
    view = f'viewBox="0 0 {picture["width"]} {picture["height"]}"'
    head = (
        '<marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7"'
        ' orient="auto-start-reverse"><path class="head" d="M0 0L10 5L0 10z"/></marker>'
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} {view}>',
            f"<style>{STYLE}</style>",
            f"<defs>{head}</defs>",
            f'<rect class="page" {size} rx="8"/>',
            *(line for box in picture["box"] for line in _box(box)),
            *(line for arrow in picture["arrow"] for line in _arrow(arrow)),
            "</svg>\n",
        ]
    )


def _box(box: dict[str, Any]) -> Iterator[str]:
    x, y, width, height = box["at"]
    kind = "inner" if box.get("inner") else "outer"
    yield f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{height}" rx="8"/>'
    yield f'<text class="title" x="{x + 14}" y="{y + 26}">{escape(box["title"])}</text>'
    for number, line in enumerate(box["lines"]):
        below = y + 50 + 20 * number
        yield f'<text class="line" x="{x + 14}" y="{below}">{escape(line)}</text>'


def _arrow(arrow: dict[str, Any]) -> Iterator[str]:
    points = " ".join(f"{x},{y}" for x, y in arrow["path"])
    ends = 'marker-start="url(#head)" marker-end="url(#head)"'
    yield f'<polyline class="arrow" points="{points}" stroke-width="2" {ends}/>'
    x, y = arrow["label_at"]
    anchor = arrow.get("anchor", "middle")
    text = escape(arrow["label"])
    yield f'<text class="label" x="{x}" y="{y}" text-anchor="{anchor}">{text}</text>'


def graph(file: Path) -> str:
    """The graph of a swarm, as a file of its own."""
    drawn = graph_of(load_swarm(str(file), {}))._repr_html_()
    return drawn.replace(">", f"><style>{GRAPH_STYLE}</style>", 1) + "\n"


def mesh() -> str:
    """As `manta mesh status --svg` draws one."""
    states: dict[int, State] = {2: "suspected", 5: "dead"}
    peers = [Peer(f"peer-{rank}", states.get(rank, "alive")) for rank in range(8)]
    return picture(Topology.of("random-regular:3:2"), peers, "8 peers, random-regular")


def draw(folder: Path) -> None:
    """Writes each picture below `folder`, as it is below docs/."""
    drawn = {
        source.relative_to(DOCS).with_suffix(".svg"): svg(tomllib.loads(source.read_text()))
        for source in DOCS.rglob("*.toml")
    }
    drawn |= {Path(name): graph(file) for name, file in GRAPHS.items()}
    drawn[Path("assets/mesh.svg")] = mesh()
    for name, text in drawn.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


if __name__ == "__main__":
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else DOCS)
