"""What `manta compare` reads of a package: sources within a bound, and digests of all else."""

from __future__ import annotations

import pytest
from blake3 import blake3

from manta.cli.commands.compare import _code
from manta.node.policy.records import MOST_CODE


def test_sources_are_read_as_far_as_there_is_room() -> None:
    long = b"x" * (MOST_CODE - 1)
    found = _code({"a.py": b"1\n", "big.py": long, "b.py": b"2345", "c.bin": b"\xff", 5: b""})
    assert found is not None
    assert found.sources == {"a.py": "1\n", "b.py": "2345"}
    assert found.others == {
        "big.py": blake3(long).hexdigest(),
        "c.bin": blake3(b"\xff").hexdigest(),
    }


@pytest.mark.parametrize("package", [None, [b"x"], "text", 5])
def test_what_is_no_package_has_no_sources(package: object) -> None:
    assert _code(package) is None
