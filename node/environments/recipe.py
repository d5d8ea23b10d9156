"""What is to be installed, by which program, and under which name it is kept. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final, NamedTuple

from manta.protocol.requirements import REQUIRE_HASHES, flaw_of, requirement_of

OF_LIGHT: Final = ("msgpack>=1.2.1",)
"""What a runtime needs itself (the extra `light`): no requirement may bring another."""
_FORMAT = "1"  # of an environment's folder; part of its name


@dataclass(frozen=True)
class Policy:
    """What a node's owner allows."""

    allow: bool = True
    index: str = ""
    """A URL, or a folder of wheels; "": what the installer takes by itself."""
    sdists: bool = False
    """Whether source distributions are built, which runs their code."""
    most_bytes: int = 20 << 30
    """Of all environments together."""

    @property
    def is_folder(self) -> bool:
        return self.index.startswith("/")


class Wanted(NamedTuple):
    """Requirements that apply here."""

    lines: tuple[str, ...]
    hashes: bool
    """Whether nothing is installed without one."""


def wanted(lines: Sequence[str]) -> Wanted | None:
    """None where markers leave nothing to install. Raises ValueError with what is wrong."""
    from packaging.markers import default_environment  # not needed to start a node

    for line in lines:
        if flaw := flaw_of(line):
            raise ValueError(flaw)
    here = {name: str(value) for name, value in default_environment().items()}
    found = []
    for line in lines:
        required = requirement_of(line)
        if required is not None and (required.marker is None or required.marker.evaluate(here)):
            found.append(line)
    hashes = REQUIRE_HASHES in lines or any("--hash" in line for line in found)
    return Wanted(tuple(found), hashes) if found else None


def key_of(wanted: Wanted, python: str, policy: Policy) -> str:
    """The name of its folder: of the same requirements, Python, machine and index."""
    parts = (_FORMAT, python, policy.index, str(policy.sdists), str(wanted.hashes), *wanted.lines)
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=32).hexdigest()


@dataclass(frozen=True)
class Places:
    """Where the installer finds what it needs."""

    environment: PurePosixPath
    """The folder that is built."""
    index: PurePosixPath | None = None
    """The index, if that is a folder."""

    @property
    def python(self) -> str:
        return str(self.environment / "bin" / "python")

    def file(self, name: str) -> str:
        return str(self.environment / BUILD / name)


BUILD: Final = ".build"
"""Within an environment, while it is built: what goes when it is."""
REQUIREMENTS, CONSTRAINTS, LOG = "requirements.txt", "constraints.txt", "log.txt"


def files(wanted: Wanted) -> dict[str, str]:
    """By name, what the installer reads. Constraints can have no hashes, and hashes allow nothing
    without one."""
    constraints = () if wanted.hashes else OF_LIGHT
    return {
        REQUIREMENTS: "".join(f"{line}\n" for line in wanted.lines),
        CONSTRAINTS: "".join(f"{line}\n" for line in constraints),
    }


def with_uv(uv: str, wanted: Wanted, policy: Policy, places: Places) -> list[str]:
    """The arguments of uv, wherever it lies."""
    program = [uv, "pip", "install", "--python", places.python, "--no-cache", "--no-config"]
    how = ["--link-mode", "copy", "--compile-bytecode", "--no-python-downloads"]
    told = ["--no-progress", "--color", "never", "--quiet"]
    return [*program, *how, *told, *_what(wanted, policy, places)]


def with_pip(python: str, wanted: Wanted, policy: Policy, places: Places) -> list[str]:
    """The arguments of the node's own pip. Its log says why it passes over a wheel."""
    program = [python, "-m", "pip", "--python", places.python, "--log", places.file(LOG)]
    told = ["--no-input", "--disable-pip-version-check", "--no-color"]
    what = _what(wanted, policy, places)
    return [*program, *told, "install", "--no-cache-dir", "--no-warn-script-location", *what]


def _what(wanted: Wanted, policy: Policy, places: Places) -> list[str]:
    found = ["-r", places.file(REQUIREMENTS), "-c", places.file(CONSTRAINTS)]
    if places.index is not None:
        found += ["--no-index", "--find-links", str(places.index)]
    if not policy.sdists:
        found += ["--only-binary", ":all:"]
    if wanted.hashes:
        found.append("--require-hashes")
    return found


def environment(policy: Policy, places: Places) -> dict[str, str]:
    """Variables for both. An index may have a password, which no list of processes should show."""
    folder = str(places.environment / BUILD)
    found = {
        "HOME": folder,
        "TMPDIR": folder,
        "PIP_CONFIG_FILE": "/dev/null",
        "LANG": "C.UTF-8",
        "PYTHONSAFEPATH": "1",
    }
    if policy.index and not policy.is_folder:
        found |= {"UV_DEFAULT_INDEX": policy.index, "PIP_INDEX_URL": policy.index}
    return found


def passed_on(environment: Mapping[str, str]) -> dict[str, str]:
    """What of the node's own environment says how the network is reached."""
    names = (
        *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"),
        *("http_proxy", "https_proxy", "no_proxy", "all_proxy"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "LD_LIBRARY_PATH"),
    )
    return {name: environment[name] for name in names if name in environment}
