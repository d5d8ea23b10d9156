"""Levels of isolation that need no container engine."""

from __future__ import annotations

import pytest

from manta.protocol.isolation import BWRAP, LANDLOCK


@pytest.fixture(params=[BWRAP, LANDLOCK])
def level(request: pytest.FixtureRequest) -> str:
    if request.param == BWRAP:
        request.getfixturevalue("bubblewrap")
    return str(request.param)
