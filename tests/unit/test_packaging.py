"""What is on disk, what setup.cfg finds, and what an installed Manta holds are one and the same."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import msgpack
import pytest
from setuptools import find_packages

from manta.console.extras import EXTRAS
from tests.support.pythons import PYTHONS

ROOT = Path(__file__).parents[2]

SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")
PACKAGES = find_packages(str(ROOT), include=SETUP["options.packages.find"]["include"].split())
FOLDERS = dict(
    line.split(" = ") for line in SETUP["options"]["package_dir"].strip().splitlines()
)  # of packages, on disk


def files_on_disk() -> Iterator[tuple[str, Path]]:
    """The name in an installation, and the path, of every file of the rooms."""
    for package, folder in FOLDERS.items():
        for path, folders, names in os.walk(ROOT / folder):  # follows no links
            folders[:] = [name for name in folders if name != "__pycache__"]
            for name in names:
                file = Path(path, name)
                inside = file.relative_to(ROOT / folder).as_posix()
                yield f"{package.replace('.', '/')}/{inside}", file


def test_package_list_is_what_is_on_disk() -> None:
    on_disk = {Path(name).parent for name, _ in files_on_disk() if name.endswith(".py")}
    assert sorted(PACKAGES) == sorted(str(path).replace("/", ".") for path in on_disk)


def test_packages_are_no_namespaces() -> None:
    on_disk = {name for name, _ in files_on_disk()}
    wanted = {f"{package.replace('.', '/')}/__init__.py" for package in PACKAGES}
    assert wanted - on_disk == set()


def test_links_lead_to_the_rooms() -> None:
    for folder in set(FOLDERS.values()) - {"manta"}:
        assert os.readlink(ROOT / "manta" / folder) == f"../{folder}"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel, built from a copy: a build leaves its traces in the tree."""
    source, output = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for folder in FOLDERS.values():
        unwanted = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, source / folder, symlinks=True, ignore=unwanted)
    for name in ("setup.cfg", "pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, source)
    options = ["--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", str(output)]
    pip("wheel", *options, str(source))
    (built,) = output.iterdir()
    return built


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_wheel_holds_every_file(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = [name for name in archive.namelist() if ".dist-info/" not in name]
    assert sorted(packed) == sorted(name for name, _ in files_on_disk())


def test_wheel_installs_elsewhere(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / "bin" / "python"
    pip("--python", str(python), "install", "--no-deps", "--no-index", str(wheel))
    (site,) = tmp_path.glob("venv/lib/python*/site-packages")
    for name, file in files_on_disk():
        assert (site / name).read_bytes() == file.read_bytes()
    assert {path.name for path in site.iterdir() if path.suffix != ".dist-info"} == {"manta"}
    # Nothing else is installed: the package itself needs nothing.
    run = [str(python), "-I", "-c", "import manta; print(manta.__file__)"]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str(site / "manta" / "__init__.py"), done.stderr
    assert (tmp_path / "venv" / "bin" / "manta_node").exists()


@pytest.fixture(scope="module")
def lean_site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manta, and msgpack without its C extension: all that a task's image must have."""
    site = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    (site / "msgpack").mkdir()
    for file in Path(msgpack.__file__).parent.glob("*.py"):
        shutil.copy(file, site / "msgpack")
    return site


IMPORT_LIGHT = """
import importlib, pkgutil, sys
sys.path.insert(0, sys.argv[1])
import manta.light
for module in pkgutil.walk_packages(manta.light.__path__, "manta.light."):
    if not module.name.endswith(".__main__"):
        importlib.import_module(module.name)
import msgpack
assert msgpack.Unpacker.__module__ == "msgpack.fallback"
"""


@pytest.mark.parametrize("python", PYTHONS.values(), ids=PYTHONS.keys())
def test_light_imports_with_pure_msgpack_alone(lean_site: Path, python: str) -> None:
    run = [python, "-I", "-S", "-W", "error", "-c", IMPORT_LIGHT, str(lean_site)]
    environment = {"MSGPACK_PUREPYTHON": "1"}
    done = subprocess.run(run, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_hint_and_page_installs_what_there_is() -> None:
    """`pip install` of the distribution by its name, with extras that it has."""
    name, extras = SETUP["metadata"]["name"], SETUP["options.extras_require"]
    folders = (*FOLDERS.values(), "docs", "packaging", "tests", ".ci")
    files = [file for folder in folders for file in (ROOT / folder).rglob("*") if file.is_file()]
    wrong, found = [], 0
    for file in [*files, ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "Makefile"]:
        if file.suffix in (".py", ".md", "") and "__pycache__" not in file.parts:
            hints = re.findall(
                r"pip install (?:-\S+ )*['\"]([\w.-]+)\[([\w,]+)\]", file.read_text()
            )
            found += len(hints)
            wrong += [
                (file.name, what, named)
                for what, named in hints
                if what not in (name, ".") or not set(named.split(",")) <= set(extras)
            ]
    assert wrong == [("test_documents.py", name, "cream")]
    assert found > 5


@pytest.mark.parametrize("extra", EXTRAS)
def test_what_an_extra_is_said_to_bring_it_brings(extra: str) -> None:
    provided = {
        module
        for module, names in packages_distributions().items()
        if {re.sub(r"[-_.]+", "-", name).lower() for name in names}
        & set(re.findall(r"^[\w-]+", SETUP["options.extras_require"][extra], re.MULTILINE))
    }
    assert set(EXTRAS[extra]) <= provided


WITHOUT_EXTRAS = """
import sys
for name in ("psutil", "tomli", "docker", "cryptography", "jwt", "pandas", "pyarrow"):
    sys.modules[name] = None
sys.argv = sys.argv[1:]
if sys.argv[0] == "manta_node":
    from manta.node.cli.main import main
elif sys.argv[0] == "manta.manager":
    from manta.manager.daemon import main as daemon
    main = lambda: sys.exit(daemon())
else:
    from manta.cli.main import main
main()
"""


@pytest.mark.parametrize(
    ("command", "extras"),
    [
        ("manta up --nodes 1", "node,manager"),
        ("manta_node config init x --manager-host localhost", "node"),
        ("manta_node doctor", "node"),
        ("manta.manager", "manager"),
    ],
)
def test_a_command_whose_extra_is_missing_names_it(
    command: str, extras: str, tmp_path: Path
) -> None:
    run = [sys.executable, "-c", WITHOUT_EXTRAS, *command.split()]
    done = subprocess.run(
        run,
        env={"MANTA_HOME": str(tmp_path), "PATH": os.environ["PATH"]},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 11, done.stderr
    assert f"pip install 'manta-swarm[{extras}]'" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
