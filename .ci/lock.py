"""Writes packaging/*.lock: each package that the demo and the image install, with all its hashes.

A lock holds for Python 3.11 and later on Linux and macOS, whatever the processor. Versions stay as
they are, unless `--upgrade` is given: the same setup.cfg gives the same locks. Neither the address
of an index nor anything of this machine gets into them.
"""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESOLVER = "uv==0.13.9"
LOCKS = {"demo": ("node", "manager", "examples"), "node": ("node",)}
"""By its name: the extras that it is for. Torch is in none: only another form of it is small."""
SYSTEMS = ("linux", "darwin")
HEAD = """\
# What the {what} installs: made by `make lock` from setup.cfg, do not edit.
# pip install --require-hashes --requirement packaging/{name}.lock
"""
WHAT = {"demo": "demo", "node": "image manta/node"}


def wanted(extras: tuple[str, ...]) -> str:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lines = setup["options"]["install_requires"]
    lines += "".join(setup["options.extras_require"][extra] for extra in extras)
    return "\n".join(sorted({line for line in lines.split("\n") if line}))


def build_needs() -> str:
    """Returns what the editable installation of the demo builds with."""
    found = re.search(r"^requires = \[(.*)\]$", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert found is not None
    return found[1].replace('"', "").replace(", ", "\n")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="manta-lock-") as folder:
        place = Path(folder)
        venv.create(place / "venv", with_pip=True)
        resolver = place / "venv" / "bin" / "uv"
        pip = [place / "venv" / "bin" / "python", "-m", "pip", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", "--quiet", RESOLVER], check=True)
        environments = [f"sys_platform == '{system}'" for system in SYSTEMS]
        (place / "pyproject.toml").write_text(f"[tool.uv]\nenvironments = {environments}\n")
        for name, extras in LOCKS.items():
            _write(name, extras, place, resolver)


def _write(name: str, extras: tuple[str, ...], place: Path, resolver: Path) -> None:
    lock, draft = ROOT / "packaging" / f"{name}.lock", place / "lock"
    draft.write_text(lock.read_text() if lock.exists() else "")  # what is there is preferred
    needs = wanted(extras) + (f"\n{build_needs()}" if name == "demo" else "")
    (place / "manta").write_text(f"{needs}\n")
    command = [resolver, "pip", "compile", "manta", "--output-file", "lock", "--universal"]
    command += ["--python-version", "3.11", "--generate-hashes", "--no-emit-index-url"]
    command += ["--no-emit-find-links", "--no-header", "--quiet"]
    if name != "demo":  # the same versions in all locks
        command += ["--constraint", ROOT / "packaging" / "demo.lock"]
    subprocess.run([*command, *sys.argv[1:]], cwd=place, check=True)
    body = draft.read_text().replace("-r manta", "setup.cfg")
    body = re.sub(r"^    #   -c .*\n", "", body, flags=re.MULTILINE)
    lock.write_text(HEAD.format(what=WHAT[name], name=name) + body)


if __name__ == "__main__":
    main()
