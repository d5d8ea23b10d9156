"""How a mesh is joined, as arguments and the environment say it."""

from __future__ import annotations

from manta.mesh import settings
from manta.mesh.settings import Keys
from manta.transports.security.keys import KEY_CHARACTERS, KeyPair


def test_keys_are_as_long_as_they_are_elsewhere() -> None:
    assert settings.KEY_CHARACTERS == KEY_CHARACTERS


def test_keys_that_can_be_read_once_are_told() -> None:
    pairs = [KeyPair.generate() for _ in range(3)]
    keys = Keys(pairs[0].secret, (pair.public for pair in pairs))
    told = settings.settings(None, (), keys, None, "full", {}).join(1.0)
    assert told["keys"] == tuple(pair.public for pair in pairs)
    assert (told["own"], told["secret"]) == (pairs[0].secret, None)
