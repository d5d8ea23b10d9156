"""What `manta compare` reads of a package: sources within a bound, and digests of all else."""

from __future__ import annotations

import pytest
from blake3 import blake3

from manta.apis.overviews import SwarmOverview
from manta.cli.commands.compare import _code
from manta.cli.comparing import Run, compared
from manta.node.policy.records import MOST_CODE, Code
from manta.protocol.spec import ModuleSpec, SwarmSpec
from manta.protocol.values import BlobRef


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


def test_of_files_that_are_too_long_to_compare_by_line_there_are_digests() -> None:
    lines = [f"a{number % 150}" for number in range(100_000)]
    [module] = compared(a_run(lines), a_run(lines[::-1]))["modules"]
    assert module["status"] == "changed"
    [told] = module["diff"]
    assert told.startswith("changed: m.py (too long to compare by line): ")


def a_run(lines: list[str]) -> Run:
    text = "\n".join(lines)
    swarm = SwarmOverview("5eed", "study", "lab", "ACTIVE", "", 0, None, 0.0, None, None, 1)
    package = BlobRef(blake3(text.encode()).hexdigest(), len(text))
    spec = SwarmSpec("study", (), (ModuleSpec("m", package=package),))
    return Run(swarm, spec, {}, {"m": Code({"m.py": text})}, [])
