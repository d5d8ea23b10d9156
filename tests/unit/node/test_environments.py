"""What is to be installed, and what is told of what can't be: without an installer."""

from __future__ import annotations

import sys
from pathlib import Path, PurePosixPath

import pytest
from packaging.requirements import Requirement

from manta.node.environments import recipe, told
from manta.node.environments.recipe import Places, Policy, Wanted

PLACES = Places(PurePosixPath("/made"))
WANTED = Wanted(("a>=1",), hashes=False)
ROOT = Path(__file__).parents[3]


def test_the_runtime_s_own_needs_are_those_of_the_extra_light() -> None:
    lines = (ROOT / "setup.cfg").read_text().splitlines()
    at = lines.index("light =")
    assert [str(Requirement(lines[at + 1].strip()))] == list(recipe.OF_LIGHT)


def test_what_does_not_apply_here_is_left_out() -> None:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    lines = ["a; python_version < '3'", f"b; python_version == '{version}'"]
    assert recipe.wanted(lines) == Wanted((lines[1],), hashes=False)
    assert recipe.wanted(lines[:1]) is None
    with pytest.raises(ValueError, match="is an option that no requirement may have"):
        recipe.wanted(["-r x"])


def test_one_hash_demands_all() -> None:
    found = recipe.wanted(["a==1 --hash=sha256:" + "0" * 64])
    assert found is not None
    assert found.hashes
    assert recipe.files(found)[recipe.CONSTRAINTS] == ""
    assert "--require-hashes" in recipe.with_uv("uv", found, Policy(), PLACES)


def test_another_python_index_or_wish_is_another_environment() -> None:
    keys = {
        recipe.key_of(WANTED, "python", Policy()),
        recipe.key_of(WANTED, "another", Policy()),
        recipe.key_of(WANTED, "python", Policy(index="/srv")),
        recipe.key_of(WANTED, "python", Policy(sdists=True)),
        recipe.key_of(Wanted(("a>=1",), hashes=True), "python", Policy()),
        recipe.key_of(Wanted(("a>=2",), hashes=False), "python", Policy()),
    }
    assert len(keys) == 6


@pytest.mark.parametrize("program", ["uv", "pip"])
def test_an_index_is_on_no_command_line(program: str) -> None:
    policy = Policy(index="https://mirror.example/simple")
    make = recipe.with_uv if program == "uv" else recipe.with_pip
    command = make(program, WANTED, policy, PLACES)
    assert not any("mirror.example" in word for word in command)
    variables = recipe.environment(policy, PLACES)
    assert variables["UV_DEFAULT_INDEX"] == variables["PIP_INDEX_URL"] == policy.index
    assert "--only-binary" in command
    assert "--only-binary" not in make(program, WANTED, Policy(sdists=True), PLACES)


def test_what_an_installer_says_is_harmless_to_show_and_bounded() -> None:
    said = "\n".join(["Collecting a", *(f"line {n}" for n in range(50)), "\x1b[31mred", "x" * 5000])
    lines = told.last_lines(said)
    assert len(lines) == told.LAST
    assert lines[-2] == "\\x1b[31mred"
    assert all(line.isprintable() and len(line) < 400 for line in lines)


def test_the_output_of_a_build_is_told_not_where_it_is() -> None:
    log = (
        "2026-11-30T15:06:03,095   Running command Getting requirements to build wheel\n"
        "2026-11-30T15:06:04,237   the compiler is missing\n"
        "2026-11-30T15:06:04,237   ERROR: [present-rich] Getting requirements exited with 3\n"
    )
    policy = Policy(sdists=True)
    found = told.sentence("module 'm'", "See above for output.\n", log, WANTED, policy, "Python 3")
    assert "the compiler is missing See above" in found


def test_nothing_said_is_told_too() -> None:
    found = told.sentence("module 'm'", "", "", WANTED, Policy(), "Python 3")
    assert "the installer said nothing" in found
