"""A topology as a picture: SVG, which follows the reader's light or dark colours. Pure.

Peers are on a circle, that of rank 0 of a star in its middle, and those of a torus in its grid,
where dashed ends go round to the opposite side. States differ in shape and colour. Where there are
too many for names, these appear when a reader points at a peer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from math import cos, pi, sin
from typing import Literal, NamedTuple

from manta.console.visible import visible
from manta.roster.topologies import Link, Topology, grid

State = Literal["alive", "suspected", "dead"]
STATES: tuple[State, ...] = ("alive", "suspected", "dead")
MOST_PEERS = 2_000
MOST_LINKS = 20_000
"""More are not drawn, since nobody could tell them apart."""
MOST_NAMES = 40
"""Of more peers, no names are shown."""
_LETTERS = 18
_MARGIN = 24
_LETTER = 7.5
"""Width, about, of what is 13 pixels high."""
_LEGEND = 340
"""Width."""
_STYLE = """
.page { fill: #ffffff; }
.link { stroke: #9fa8da; stroke-width: 1.5; fill: none; }
.round { stroke-dasharray: 4 3; }
.lost { stroke: #cfd3dc; }
.alive circle { fill: #3f51b5; stroke: #3f51b5; }
.alive text { fill: #ffffff; }
.suspected circle { fill: #fff3d6; stroke: #b26a00; stroke-dasharray: 4 2; }
.suspected text { fill: #7a4900; }
.dead circle { fill: #ffffff; stroke: #8b93a1; }
.dead path { stroke: #8b93a1; stroke-width: 2; }
circle { stroke-width: 2; }
text { font-family: system-ui, sans-serif; font-size: 13px; }
.name { fill: #37474f; stroke: #ffffff; stroke-width: 4; paint-order: stroke; }
.gone { fill: #8b93a1; stroke: none; text-decoration: line-through; }
.title { fill: #1a237e; font-weight: 600; }
.rank { font-size: 11px; text-anchor: middle; }
@media (prefers-color-scheme: dark) {
.page { fill: #14161b; }
.link { stroke: #5c6bc0; }
.lost { stroke: #363b47; }
.alive circle { fill: #7986cb; stroke: #7986cb; }
.alive text { fill: #14161b; }
.suspected circle { fill: #3a2c10; stroke: #ffb74d; }
.suspected text { fill: #ffcc80; }
.dead circle { fill: #14161b; stroke: #6b7280; }
.dead path { stroke: #6b7280; }
.name { fill: #cfd8dc; stroke: #14161b; }
.gone { fill: #8b93a1; stroke: none; }
.title { fill: #c5cae9; }
}
"""


class Peer(NamedTuple):
    name: str
    state: State = "alive"


class _Place(NamedTuple):
    x: float
    y: float
    anchor: str = "middle"
    """Of the name."""
    name_x: float = 0.0
    name_y: float = 0.0


class _Layout(NamedTuple):
    width: float
    height: float
    radius: float
    """Of a peer."""
    places: list[_Place]


def picture(topology: Topology, peers: Sequence[Peer], title: str = "") -> str:
    """Draws the peers, by rank, and who is whose neighbor. Raises ValueError."""
    size = len(peers)
    if not 1 <= size <= MOST_PEERS:
        raise ValueError(f"There are {size} peers: draw 1 to {MOST_PEERS}.")
    for peer in peers:
        if peer.state not in STATES:
            raise ValueError(f"{peer.name!r:.60} is {peer.state!r:.60}: say {', '.join(STATES)}.")
    rows, columns = grid(size)
    in_grid = topology.name == "torus" and rows > 1
    layout = _in_grid(peers, columns) if in_grid else _on_circle(peers, topology.name == "star")
    links = topology.links(size)
    note = f"{len(links)} links, too many to draw" if len(links) > MOST_LINKS else ""
    top = 40 if title else 0
    height = layout.height + top + (52 if note else 34)
    width = max(layout.width, 2 * _MARGIN + _wide(title), _LEGEND)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
            f'viewBox="0 0 {width:.0f} {height:.0f}" style="max-width:100%">',
            f"<style>{_STYLE}</style>",
            f'<rect class="page" width="{width:.0f}" height="{height:.0f}" rx="8"/>',
            f'<text class="title" x="{_MARGIN}" y="30">{_shown(title)}</text>',
            f'<g transform="translate({(width - layout.width) / 2:.1f} {top})">',
            *([] if note else _links(layout, peers, links, columns if in_grid else 0)),
            *(part for rank in range(size) for part in _peer(layout, peers[rank], rank)),
            "</g>",
            *_legend(peers, layout.height + top + 12, note),
            "</svg>\n",
        ]
    )


def _on_circle(peers: Sequence[Peer], has_hub: bool) -> _Layout:
    """From the top, clockwise."""
    radius = 14.0 if len(peers) <= MOST_NAMES else 7.0
    around = peers[1:] if has_hub and len(peers) > 2 else peers
    named = _are_named(peers)
    gap = 14 if named else 5
    wide = max(70.0, len(around) * (2 * radius + gap) / (2 * pi))
    if around is not peers and named:  # the name of the one in the middle is to be read
        wide = max(wide, _wide(_name(peers[0])) / 2 + 3 * radius)
    beside = radius + 8 + (max(_wide(_name(peer)) for peer in around) if named else 0)
    above = radius + (24 if named else 0)
    x, y = _MARGIN + beside + wide, _MARGIN + above + wide
    places = [_Place(x, y, "middle", 0, radius + 17)] if around is not peers else []
    for number in range(len(around)):
        angle = 2 * pi * number / len(around)
        right, down = sin(angle), -cos(angle)
        anchor = "middle" if abs(right) < 0.2 else "start" if right > 0 else "end"
        away = radius + (16 if anchor == "middle" and down > 0 else 8)
        places.append(
            _Place(x + wide * right, y + wide * down, anchor, away * right, away * down + 4)
        )
    return _Layout(2 * x, 2 * y, radius, places)


def _in_grid(peers: Sequence[Peer], columns: int) -> _Layout:
    named = _are_named(peers)
    radius = 14.0 if named else 7.0
    letters = max(_wide(_name(peer)) for peer in peers) if named else 0
    across, down = max(5 * radius, letters + 16), 6 * radius if named else 4 * radius
    places = [
        _Place(
            _MARGIN + across * (rank % columns + 0.5),
            _MARGIN + down * (rank // columns + 0.5),
            "start",
            radius * 0.6,
            radius + 15,
        )
        for rank in range(len(peers))
    ]
    rows = len(peers) // columns
    beyond = max(0.0, letters + radius - across / 2)  # the names of the last column
    return _Layout(
        2 * _MARGIN + across * columns + beyond, 2 * _MARGIN + down * rows, radius, places
    )


def _links(
    layout: _Layout, peers: Sequence[Peer], links: Sequence[Link], columns: int
) -> Iterator[str]:
    """`columns` of a grid; 0 without one."""
    for a, b in links:
        one, other = layout.places[a], layout.places[b]
        lost = " lost" if "dead" in (peers[a].state, peers[b].state) else ""
        if columns and abs(a - b) not in (1, columns):
            for here, there in ((one, other), (other, one)):
                x = here.x + _sign(here.x - there.x) * 2.4 * layout.radius
                y = here.y + _sign(here.y - there.y) * 2.4 * layout.radius
                yield _line(f"link round{lost}", here.x, here.y, x, y)
        else:
            yield _line(f"link{lost}", one.x, one.y, other.x, other.y)


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<path class="{kind}" d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}"/>'


def _peer(layout: _Layout, peer: Peer, rank: int) -> Iterator[str]:
    place, named = layout.places[rank], layout.radius > 10
    yield f'<g class="{peer.state}"><title>{rank}: {_shown(peer.name)}, {peer.state}</title>'
    yield from _sign_of(peer.state, place.x, place.y, layout.radius)
    if named and peer.state != "dead":
        yield f'<text class="rank" x="{place.x:.1f}" y="{place.y + 4:.1f}">{rank}</text>'
    yield "</g>"
    if named:
        kind = "name gone" if peer.state == "dead" else "name"
        yield (
            f'<text class="{kind}" x="{place.x + place.name_x:.1f}" '
            f'y="{place.y + place.name_y:.1f}" text-anchor="{place.anchor}">'
            f"{escape(_name(peer))}</text>"
        )


def _sign_of(state: State, x: float, y: float, radius: float) -> Iterator[str]:
    yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}"/>'
    if state == "dead":
        arm = radius * 0.45
        yield (
            f'<path d="M{x - arm:.1f} {y - arm:.1f}l{2 * arm:.1f} {2 * arm:.1f}'
            f'm0 {-2 * arm:.1f}l{-2 * arm:.1f} {2 * arm:.1f}"/>'
        )


def _legend(peers: Sequence[Peer], y: float, note: str) -> Iterator[str]:
    x = _MARGIN + 7.0
    for state in STATES:
        count = sum(peer.state == state for peer in peers)
        yield f'<g class="{state}">'
        yield from _sign_of(state, x, y, 7)
        yield f'</g><text class="name" x="{x + 13:.1f}" y="{y + 4.5:.1f}">{count} {state}</text>'
        x += 28 + _wide(f"{count} {state}")
    if note:
        yield f'<text class="name" x="{_MARGIN}" y="{y + 26:.1f}">{note}</text>'


def _are_named(peers: Sequence[Peer]) -> bool:
    return len(peers) <= MOST_NAMES


def _name(peer: Peer) -> str:
    name = visible(peer.name)
    return name if len(name) <= _LETTERS else f"{name[: _LETTERS - 1]}…"


def _shown(text: str) -> str:
    return escape(visible(text))


def _wide(text: str) -> float:
    """Pixels, about, and rather too many."""
    return sum(14 if ord(letter) > 0x1100 else _LETTER for letter in text)


def _sign(number: float) -> int:
    return (number > 0.5) - (number < -0.5)
