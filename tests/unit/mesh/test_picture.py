from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import pytest

from manta.mesh.picture import MOST_LINKS, MOST_NAMES, MOST_PEERS, STATES, Peer, picture
from manta.roster.topologies import Topology

SVG = "{http://www.w3.org/2000/svg}"
TOPOLOGIES: list[Any] = ["full", "ring", "star", "torus", "random-regular:3:1", [(0, 1), (1, 2)]]


def peers(count: int, name: str = "peer-{}") -> list[Peer]:
    return [Peer(name.format(number), STATES[number % 3]) for number in range(count)]


def drawn(topology: object, there: list[Peer], title: str = "") -> ElementTree.Element:
    return ElementTree.fromstring(picture(Topology.of(topology), there, title))


def links(root: ElementTree.Element) -> list[tuple[float, ...]]:
    """Each as its four numbers; dashed ends left out."""
    return [
        tuple(map(float, re.findall(r"-?[\d.]+", path.get("d", ""))))
        for path in root.iter(f"{SVG}path")
        if "link" in path.get("class", "").split() and "round" not in path.get("class", "")
    ]


def circles(root: ElementTree.Element) -> list[tuple[float, float, float]]:
    """All but those of the legend, by rank."""
    found = [
        (float(one.get("cx", "")), float(one.get("cy", "")), float(one.get("r", "")))
        for one in root.iter(f"{SVG}circle")
    ]
    return found[: -len(STATES)]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 12, MOST_NAMES, MOST_NAMES + 1, 100])
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_every_peer_is_drawn_within_the_page_and_covers_no_other(topology: Any, size: int) -> None:
    root = drawn(topology, peers(size))
    width, height = float(root.get("width", "")), float(root.get("height", ""))
    found = circles(root)
    assert len(found) == size
    for x, y, radius in found:
        assert radius <= x <= width - radius
        assert radius <= y <= height - radius
    for rank, (x, y, radius) in enumerate(found):
        assert all((x - a) ** 2 + (y - b) ** 2 > (2 * radius) ** 2 for a, b, _ in found[:rank])


@pytest.mark.parametrize("topology", ["full", "ring", "star", "random-regular:3:1"])
def test_links_are_drawn_from_peer_to_peer(topology: str) -> None:
    root = drawn(topology, peers(8))
    places = [(x, y) for x, y, _ in circles(root)]
    expected = [(*places[a], *places[b]) for a, b in Topology.of(topology).links(8)]
    assert links(root) == expected


def test_a_torus_is_a_grid_whose_ends_go_round() -> None:
    text = picture(Topology.of("torus"), peers(12))
    places = [(x, y) for x, y, _ in circles(ElementTree.fromstring(text))]
    assert len({x for x, _ in places}) == 4
    assert len({y for _, y in places}) == 3
    assert text.count("link round") == 2 * (3 + 4)
    assert len(links(ElementTree.fromstring(text))) == 24 - 7


def test_a_torus_of_a_prime_size_is_drawn_as_the_ring_that_it_is() -> None:
    assert picture(Topology.of("torus"), peers(7)) == picture(Topology.of("ring"), peers(7))


def test_states_differ_in_shape_and_are_counted() -> None:
    text = picture(Topology.of("ring"), peers(7))
    for words in ("3 alive", "2 suspected", "2 dead"):
        assert f">{words}<" in text
    assert text.count("m0 ") == 2 + 1  # crosses, one in the legend
    assert "0: peer-0, alive" in text
    assert "2: peer-2, dead" in text
    assert "stroke-dasharray" in text
    assert "prefers-color-scheme: dark" in text


def test_names_fit_or_are_shown_when_pointed_at() -> None:
    long = "n" * 60 + "{}"
    root = drawn("ring", peers(8, long))
    shown = [one.text or "" for one in root.iter(f"{SVG}text") if "name" in one.get("class", "")]
    assert max(map(len, shown)) == 18
    assert "n" * 60 + "7, " in picture(Topology.of("ring"), peers(8, long))
    many = picture(Topology.of("ring"), peers(MOST_NAMES + 1))
    assert ">peer-1<" not in many
    assert "1: peer-1, suspected" in many


def test_names_and_title_are_text_and_nothing_else() -> None:
    evil = "<script>&\"'\x1b[31m\u202e\n"
    text = picture(Topology.of("ring"), [Peer(evil), Peer("b")], evil)
    ElementTree.fromstring(text)
    assert "<script" not in text
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_links_that_nobody_could_tell_apart_are_counted_instead() -> None:
    text = picture(Topology.of("full"), peers(202))
    assert MOST_LINKS < 202 * 201 // 2
    assert "20301 links, too many to draw" in text
    assert links(ElementTree.fromstring(text)) == []


@pytest.mark.parametrize("count", [0, MOST_PEERS + 1])
def test_nobody_and_too_many_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"There are {count} peers: draw 1 to {MOST_PEERS}"):
        picture(Topology.of("ring"), [Peer("a")] * count)


def test_a_state_that_there_is_not_is_refused() -> None:
    there: Any = [Peer("a"), ("b", "asleep")]
    there[1] = Peer(*there[1])
    with pytest.raises(ValueError, match="'b' is 'asleep': say alive, suspected, dead"):
        picture(Topology.of("ring"), there)


def test_the_same_peers_make_the_same_picture() -> None:
    first, second = (picture(Topology.of("random-regular"), peers(30), "it") for _ in range(2))
    assert first == second
