from __future__ import annotations

from importlib.metadata import version

from manta.protocol.version import VERSION


def test_the_version_is_the_distributions() -> None:
    assert version("manta-swarm") == VERSION
