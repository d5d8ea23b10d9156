"""What is installed is pinned by hash, above known vulnerabilities, for a reason, and listed."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PACKAGING = ROOT / "packaging"
LOCKS = sorted(PACKAGING.glob("*.lock"))
DOCKERFILE = (PACKAGING / "image" / "Dockerfile").read_text()


def module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


AUDIT, LOCK, SBOM = (
    module(ROOT / path) for path in (".ci/audit.py", ".ci/lock.py", "packaging/sbom.py")
)
ADVISORIES = json.loads(AUDIT.ADVISORIES.read_text())


# --- locks -----------------------------------------------------------------------------------


def entries(lock: Path) -> dict[Requirement, str]:
    """Each requirement of a lock, and all that follows it."""
    found = {}
    for entry in re.split(r"\n(?=\w)", lock.read_text()):
        if not entry.startswith("#"):
            first = entry.split("\n")[0]
            found[Requirement(first.removesuffix("\\").strip())] = entry
    return found


def test_there_is_a_lock_for_each_thing_that_is_installed() -> None:
    assert {lock.stem for lock in LOCKS} == set(LOCK.LOCKS) == {"demo", "node"}
    makefile = (ROOT / "Makefile").read_text()
    assert "--require-hashes --requirement packaging/demo.lock" in makefile
    assert re.search(r"--require-hashes[^&]*--requirement /build/node.lock", DOCKERFILE)


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_package_is_pinned_with_hashes(lock: Path) -> None:
    for requirement, entry in entries(lock).items():
        assert re.fullmatch(r"==[\w.]+", str(requirement.specifier)), requirement
        assert len(re.findall(r"--hash=sha256:[0-9a-f]{64}\b", entry)) >= 1, requirement
        assert entry.count("--hash=") == len(re.findall(r"--hash=sha256:[0-9a-f]{64}\b", entry))


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_a_lock_names_no_place_and_not_torch(lock: Path) -> None:
    text = lock.read_text()
    assert not re.search(r"https?:|file:|/[a-z]+/|@ |--index|--find-links|^-", text, re.MULTILINE)
    assert "torch" not in {canonicalize_name(one.name) for one in entries(lock)}


@pytest.mark.parametrize("name", LOCK.LOCKS)
def test_a_lock_is_of_what_setup_cfg_says(name: str) -> None:
    locked = {canonicalize_name(one.name): one for one in entries(PACKAGING / f"{name}.lock")}
    wanted = list(map(Requirement, LOCK.wanted(LOCK.LOCKS[name]).split("\n")))
    if name == "demo":
        wanted.append(Requirement(LOCK.build_needs()))
    for requirement in wanted:
        (pin,) = locked[canonicalize_name(requirement.name)].specifier
        assert requirement.specifier.contains(pin.version), f"{requirement}: run `make lock`"


def test_locks_agree() -> None:
    demo, node = (AUDIT.pinned(PACKAGING / f"{name}.lock") for name in ("demo", "node"))
    assert {name: demo[name] for name in node} == node


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_what_a_locked_package_needs_is_locked(python: str, machine: str) -> None:
    """By what the packages that are installed here say; those of other versions are left out."""
    environment: dict[str, Any] = {
        **default_environment(),
        "python_version": python,
        "platform_machine": machine,
    }
    environment |= {"python_full_version": f"{python}.1", "sys_platform": "linux", "extra": ""}
    locked = {
        canonicalize_name(one.name): one
        for one in entries(PACKAGING / "demo.lock")
        if one.marker is None or one.marker.evaluate(environment)
    }
    looked_at = 0
    for name, pin in locked.items():
        (version,) = pin.specifier
        if installed(name) != version.version:
            continue
        looked_at += 1
        for line in metadata.requires(name) or ():
            need = Requirement(line)
            if need.marker is None or need.marker.evaluate(environment):
                (found,) = locked[canonicalize_name(need.name)].specifier
                assert need.specifier.contains(found.version, prereleases=True), (name, need)
    assert looked_at >= len(locked) // 4


def installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


# --- advisories ------------------------------------------------------------------------------


def test_nothing_with_a_known_vulnerability_is_locked_or_allowed() -> None:
    assert AUDIT.main() == 0


@pytest.mark.parametrize(
    ("name", "version", "advisory"),
    [
        ("PyJWT", "2.11.0", "GHSA-752w-5fwx-jx9f"),
        ("PyJWT", "2.14.0", "GHSA-x33g-cr3x-6449"),
        ("pynacl", "1.6.1", "GHSA-mrfv-m5wm-5w6w"),
        ("cryptography", "46.0.6", "GHSA-p423-j2cm-9vmq"),
        ("urllib3", "2.6.3", "GHSA-mf9v-mfxr-j63j"),
        ("msgpack", "1.2.0", "GHSA-6v7p-g79w-8964"),
    ],
)
def test_a_version_that_is_known_to_be_vulnerable_fails(
    name: str,
    version: str,
    advisory: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bad = tmp_path / "bad.lock"
    bad.write_text(f"# what\n{name}=={version} ; python_version < '4' \\\n    --hash=sha256:0\n")
    monkeypatch.setattr(AUDIT, "LOCKS", [bad])
    assert AUDIT.main() == 1
    said = capsys.readouterr().out
    assert f"bad.lock has {name.lower()} {version} is affected by {advisory}" in said


def test_a_lower_bound_that_allows_a_vulnerable_version_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(AUDIT, "requirements", lambda: iter([Requirement("pynacl>=1.5")]))
    assert AUDIT.main() == 1
    assert "setup.cfg allows pynacl 1.5 is affected by GHSA-mrfv" in capsys.readouterr().out


def test_versions_around_a_range_are_not_affected() -> None:
    one = ("PYSEC-2000-1", "0.14.0", "14.0.1")
    ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": one[1]}, {"fixed": one[2]}]}]
    package = {"ecosystem": "PyPI", "name": "Py_Arrow"}
    advisory = {"id": one[0], "affected": [{"package": package, "ranges": ranges}]}
    found = AUDIT.flaws({"py-arrow": ["0.13.9", "0.14", "14.0.0", "14.0.1"]}, [advisory])
    assert [flaw.split()[1] for flaw in found] == ["0.14", "14.0.0"]


def affecting(**affected: object) -> list[dict[str, object]]:
    package = {"ecosystem": "PyPI", "name": "package"}
    return [{"id": "PYSEC-2000-1", "affected": [{"package": package, **affected}]}]


def events(*each: str, type: str = "ECOSYSTEM") -> list[dict[str, object]]:
    pairs = (one.split() for one in each)
    return [{"type": type, "events": [{kind: at} for kind, at in pairs]}]


SEVERAL = events("introduced 0", "fixed 1.2", "introduced 2.0", "fixed 2.3", "introduced 3.1")


@pytest.mark.parametrize(
    ("affected", "versions"),
    [
        ({"ranges": SEVERAL}, {
            "0.1": "1.2 or", "1.0": "1.2 or", "1.1": "1.2 or", "2.0": "2.3 or", "2.2.9": "2.3 or",
            "3.1": "another",
        }),
        ({"ranges": events("fixed 1.2", "introduced 1.0")}, {"1.0": "1.2 or", "1.1": "1.2 or"}),
        ({"ranges": [*events("introduced 3.0"), *events("introduced 0", "fixed 1.1")]}, {
            "0.1": "1.1 or", "1.0": "1.1 or", "3.0": "another", "3.1": "another",
        }),
        ({"ranges": events("introduced 1.0", "last_affected 2.0")}, {
            "1.0": "another", "1.1": "another", "1.2": "another", "2.0": "another",
        }),
        ({"ranges": events("introduced 1.0", "last_affected 2.0", "fixed 2.2")}, {
            "1.0": "2.2", "1.1": "2.2", "1.2": "2.2", "2.0": "2.2",
        }),
        ({"versions": ["1.0", "2.2.9.0"]}, {"1.0": "another", "2.2.9": "another"}),
        ({"ranges": events("introduced 0", type="GIT"), "versions": ["3.0"]}, {"3.0": "another"}),
        ({"ranges": events("introduced c0ffee", "fixed f00d", type="GIT")}, {}),
        ({"package": {"ecosystem": "npm", "name": "package"}, "versions": ["1.0"]}, {}),
    ],
)  # fmt: skip
def test_whatever_osv_says_is_affected_is(
    affected: dict[str, object], versions: dict[str, str]
) -> None:
    there = ["0.1", "1.0", "1.1", "1.2", "2.0", "2.2.9", "2.3", "3.0", "3.1"]
    found = AUDIT.flaws({"package": there}, affecting(**affected))
    told = {flaw.split()[1]: flaw.rpartition("take ")[2] for flaw in found}
    assert {version: told[version][: len(fix)] for version, fix in versions.items()} == versions
    assert told.keys() == versions.keys()


def test_a_withdrawn_advisory_counts_no_more() -> None:
    (advisory,) = affecting(versions=["1.0"])
    withdrawn = {**advisory, "withdrawn": "2001-01-01T00:00:00Z"}
    assert list(AUDIT.flaws({"package": ["1.0"]}, [withdrawn])) == []


def test_advisories_are_as_osv_has_them() -> None:
    used = {canonicalize_name(requirement.name) for requirement in AUDIT.requirements()}
    for lock in LOCKS:
        used |= {canonicalize_name(requirement.name) for requirement in entries(lock)}
    ids = [advisory["id"] for advisory in ADVISORIES]
    assert len(ids) == len(set(ids))
    for advisory in ADVISORIES:
        assert re.fullmatch(r"GHSA(-[2-9cfghjmpqrvwx]{4}){3}|PYSEC-\d{4}-\d+", advisory["id"])
        for affected in advisory["affected"]:
            assert affected["package"]["ecosystem"] == "PyPI"
            assert affected["package"]["name"] in used
            for range_ in affected["ranges"]:
                assert range_["type"] == "ECOSYSTEM"
                kinds = [kind for event in range_["events"] for kind in event]
                assert "introduced" in kinds
                assert {*kinds} <= {"introduced", "fixed", "last_affected"}
                assert all(Version(at) for event in range_["events"] for at in event.values())


# --- reasons ---------------------------------------------------------------------------------


def test_each_dependency_has_its_reason_in_the_table() -> None:
    page = (ROOT / "docs" / "internals" / "dependencies.md").read_text()
    rows = re.findall(r"^\| ([\w-]+) \| ([\w, ]+) \| (.+) \|$", page, re.MULTILINE)
    table = {name: (places.split(", "), why) for name, places, why in rows if name != "package"}
    wanted: dict[str, set[str]] = {}
    setup = AUDIT.configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lists = {"all": setup["options"]["install_requires"], **setup["options.extras_require"]}
    for place, lines in lists.items():
        for line in lines.split("\n")[1:]:
            wanted.setdefault(canonicalize_name(Requirement(line).name), set()).add(place)
    assert {name: set(places) for name, (places, _) in table.items()} == wanted
    assert all(len(why) > 4 for _, why in table.values())


# --- the image -------------------------------------------------------------------------------


def test_the_image_is_pinned_and_runs_as_no_root() -> None:
    (base,) = re.findall(r"^ARG BASE=(\S+)$", DOCKERFILE, re.MULTILINE)
    assert re.fullmatch(r"python:3\.\d+-slim@sha256:[0-9a-f]{64}", base)
    assert re.findall(r"^FROM (.*)$", DOCKERFILE, re.MULTILINE) == ["${BASE}"]
    (user,) = re.findall(r"^USER (\d+):(\d+)$", DOCKERFILE, re.MULTILINE)
    assert user != ("0", "0")
    after = DOCKERFILE[DOCKERFILE.index("USER ") :]
    assert "RUN" not in after
    assert "curl" not in DOCKERFILE


STATUS = """Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.41-12+deb13u1
Description: GNU C Library
 more: of it

Package: gone
Status: deinstall ok config-files
Architecture: all
Version: 1
"""


def test_a_bill_of_materials_lists_what_is_installed(tmp_path: Path) -> None:
    (tmp_path / "status").write_text(STATUS)
    (system,) = SBOM.system_packages(tmp_path / "status")
    assert system["purl"] == "pkg:deb/debian/libc6@2.41-12%2Bdeb13u1?arch=amd64"
    assert not [*SBOM.system_packages(tmp_path / "nowhere")]
    command = [sys.executable, str(PACKAGING / "sbom.py")]
    first, second = (subprocess.run(command, capture_output=True, check=True) for _ in range(2))
    assert first.stdout == second.stdout
    bill = json.loads(first.stdout)
    check(bill)
    listed = {
        (one["name"], one["version"])
        for one in bill["components"]
        if one["purl"].startswith("pkg:pypi/")
    }
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "list", "--format=json"]
    there = subprocess.run(pip, capture_output=True, check=True).stdout
    assert listed == {(canonicalize_name(one["name"]), one["version"]) for one in json.loads(there)}
    assert len(listed) > 20


def check(bill: dict[str, Any]) -> None:
    """What CycloneDX 1.5 asks of a document and its components."""
    assert (bill["bomFormat"], bill["specVersion"], bill["version"]) == ("CycloneDX", "1.5", 1)
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", bill["serialNumber"])
    references = [one["bom-ref"] for one in bill["components"]]
    assert len(references) == len(set(references))
    for one in bill["components"]:
        assert one["type"] in ("library", "platform")
        assert one["name"]
        assert one["version"]
        assert one["purl"].startswith(("pkg:pypi/", "pkg:deb/debian/", "pkg:generic/python@"))
