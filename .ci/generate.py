"""Make the synchronous SDK from the asynchronous one: `make generate`.

With a folder as argument, write it there instead; a test compares that with the repository's.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import unasync

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "manta" / "apis" / "aio"
REPLACEMENTS = {
    "AsyncAccounts": "Accounts",
    "AsyncClient": "Client",
    "AsyncClusters": "Clusters",
    "AsyncConnection": "Connection",
    "AsyncModules": "Modules",
    "AsyncNodes": "Nodes",
    "AsyncOutputs": "Outputs",
    "AsyncQuotas": "Quotas",
    "AsyncSwarms": "Swarms",
    "AsyncUserAPI": "UserAPI",
    "aio": "sync",
}


HAND_WRITTEN = {"__init__.py", "waiting.py"}
"""Files that both forms have and that differ."""


def generate(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    sources = [source for source in SOURCE.glob("*.py") if source.name not in HAND_WRITTEN]
    unasync.unasync_files(
        list(map(str, sources)),
        [unasync.Rule(f"{SOURCE}/", f"{folder}/", additional_replacements=REPLACEMENTS)],
    )
    written = [folder / source.name for source in sources]
    for target in written:
        origin = (SOURCE / target.name).relative_to(ROOT)
        note = f"# Generated from {origin} by `make generate`: do not edit.\n"
        target.write_text(note + target.read_text())
    ruff, config = Path(sys.executable).with_name("ruff"), ROOT / "pyproject.toml"
    options = ["--quiet", "--config", str(config), *map(str, written)]
    # What is not idiomatic without async: `for x in y: yield x`, and lists made item by item.
    fixes = ["--fix", "--unsafe-fixes", "--select", "I,UP028,C416"]
    subprocess.run([ruff, "check", *fixes, *options], check=True)
    subprocess.run([ruff, "format", *options], check=True)


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else SOURCE.with_name("sync"))
