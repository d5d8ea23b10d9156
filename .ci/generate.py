"""Make the synchronous forms from the asynchronous ones: `make generate`.

With a folder as argument, write them there instead; a test compares these with the repository's.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import unasync

APIS = Path(__file__).parent.parent / "manta" / "apis"
NAMES = ["accounts", "connection", "listings", "modules", "outputs", "user_api"]
REPLACEMENTS = {
    "AsyncAccounts": "Accounts",
    "AsyncConnection": "Connection",
    "AsyncListings": "Listings",
    "AsyncModules": "Modules",
    "AsyncOutputs": "Outputs",
    "AsyncUserAPI": "UserAPI",
    "async_accounts": "accounts",
    "async_bridge": "bridge",
    "async_connection": "connection",
    "async_listings": "listings",
    "async_modules": "modules",
    "async_outputs": "outputs",
    "async_user_api": "user_api",
}
BOTH_APIS = '''

if TYPE_CHECKING:
    from manta.apis.async_user_api import AsyncUserAPI as AsyncUserAPI


def __getattr__(name: str) -> object:
    """The other API, which costs asyncio, where it is asked for."""
    if name == "AsyncUserAPI":
        from manta.apis import async_user_api

        return async_user_api.AsyncUserAPI
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
'''
"""`manta.apis.user_api` has both names."""


def generate(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name in NAMES:
        source, target = APIS / f"async_{name}.py", folder / f"{name}.py"
        rule = unasync.Rule(str(source), str(target), REPLACEMENTS)
        unasync.unasync_files([str(source)], [rule])
        text = target.read_text()
        note = f"`{name}.py` is generated from this file by `make generate`."
        assert note in text, f"{source} does not say that {name}.py is made from it"
        generated = f"Generated from `async_{name}.py` by `make generate`: do not edit."
        target.write_text(text.replace(note, generated) + BOTH_APIS * (name == "user_api"))
        written.append(str(target))
    ruff, config = Path(sys.executable).with_name("ruff"), APIS.parent.parent / "pyproject.toml"
    options = ["--quiet", "--config", str(config), *written]
    # What is not idiomatic without async: `for x in y: yield x`, and lists made item by item.
    fixes = ["--fix", "--unsafe-fixes", "--select", "I,UP028,C416"]
    subprocess.run([ruff, "check", *fixes, *options], check=True)
    subprocess.run([ruff, "format", *options], check=True)


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else APIS)
