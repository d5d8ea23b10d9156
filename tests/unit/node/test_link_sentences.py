from __future__ import annotations

import pytest

from manta.node.link import sentences as link_sentences
from manta.node.link.peer_hub import bulk_address
from manta.transports.errors import DownReason


@pytest.mark.parametrize("reason", DownReason)
def test_every_reason_has_one_sentence(reason: DownReason) -> None:
    sentence = link_sentences.down(reason, "tcp://m:1", "/etc/node.toml")
    assert sentence.endswith(".")
    assert "tcp://m:1" in sentence


def test_denied_wrong_key_unreachable_and_busy_differ() -> None:
    told = {
        link_sentences.down(reason, "a", "c")
        for reason in (
            DownReason.DENIED,
            DownReason.WRONG_KEY,
            DownReason.UNREACHABLE,
            DownReason.BUSY,
        )
    }
    assert len(told) == 4


@pytest.mark.parametrize(
    ("announced", "dialled"),
    [
        ("tcp://0.0.0.0:53", "tcp://m.lan:53"),
        ("tcp://*:53", "tcp://m.lan:53"),
        ("tcp://[::]:53", "tcp://m.lan:53"),
        ("tcp://10.0.0.7:53", "tcp://10.0.0.7:53"),
    ],
)
def test_a_bulk_plane_on_all_addresses_is_where_the_manager_is(
    announced: str, dialled: str
) -> None:
    assert bulk_address(announced, "m.lan") == dialled
