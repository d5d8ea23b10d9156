"""What of a changed configuration a running node takes over, and when."""

from __future__ import annotations

import re
from pathlib import Path

from manta.node.config import FIELDS, KEYS, NodeConfig, parse
from manta.node.config.changes import APPLIES, Changes, When, changes

PAGE = Path(__file__).parents[3] / "docs" / "node.md"
FILE = Path("/nowhere/edge.toml")


def config(text: str = "") -> NodeConfig:
    return parse(text, FILE, {})


def test_what_applies_is_a_key() -> None:
    assert APPLIES.keys() <= KEYS.keys()


def test_the_page_says_when_each_key_applies() -> None:
    section = PAGE.read_text().partition("### A changed configuration")[2].partition("\n### ")[0]
    at_once, later, *_ = (
        set(re.findall(r"`([a-z_.]+)`", row)) for row in section.splitlines() if "| `" in row
    )
    for when, keys in ((When.AT_ONCE, at_once), (When.NEXT_START, later)):
        assert keys == {path for path, one in APPLIES.items() if one is when}


def test_what_has_not_changed_is_not_told() -> None:
    before = config('[labels]\nroom = "a"\n')
    assert changes(before, config('[labels]\nroom = "a"\n')) == (before, Changes())
    assert Changes().sentence == "Nothing has changed."


def test_what_applies_after_a_restart_stays_as_it_was() -> None:
    before = config()
    text = (
        '[labels]\nroom = "a"\n[network]\nmanager_port = 7\n[resources]\n'
        'scratch_mb = 1\nreserve_cpu_percent = 50\n[identity]\nsecured_token = "other"\n'
    )
    after = config(text)
    found, told = changes(before, after)
    assert told == Changes(
        ("labels", "resources.scratch_mb"),
        ("resources.reserve_cpu_percent",),
        ("network.manager_port",),
    )
    assert told.sentence == (
        "It applies at once: labels, resources.scratch_mb; for tasks whose process starts "
        "from now on: resources.reserve_cpu_percent; after a restart: network.manager_port."
    )
    assert found.labels == {"room": "a"}
    assert found.scratch == 1 << 20
    assert found.manager_port == before.manager_port
    assert found.token == before.token
    differs = {name for name in FIELDS if getattr(found, name) != getattr(before, name)}
    assert differs == {"labels", "scratch", "reserve_cpu_percent"}
