"""The runtime as images get it: one folder with what a task needs of Manta, and msgpack.

It is pure Python, so that one copy serves all images, and it lies in the node's state
folder, because an engine mounts only what its machine has at that path.
"""

from __future__ import annotations

import compileall
import hashlib
import os
import shutil
from pathlib import Path
from py_compile import PycInvalidationMode

import msgpack

from manta.light import wire
from manta.node.state import open_to_readers

_TRANSPORTS = [
    "__init__.py",
    "errors.py",
    "codec/__init__.py",
    "codec/value_types.py",
    "codec/values.py",
]
_MESH = [
    *(f"mesh/{name}.py" for name in ("__init__", "aio", "client", "errors", "mesh", "process")),
    *("mesh/settings.py", "mesh/tasks.py", "mesh/words.py"),
    *("roster/__init__.py", "roster/chance.py", "roster/topologies.py"),
]
"""What joins a mesh by a process that the node begins."""


def runtime_copy(parent: Path) -> Path:
    """A folder for PYTHONPATH, in `parent`; copies of other versions are removed."""
    files = _files()
    digest = hashlib.blake2b(digest_size=8)
    for name, source in sorted(files.items()):
        digest.update(name.encode() + b"\0" + source.read_bytes())
    folder = parent / digest.hexdigest()
    if folder.is_dir():
        open_to_readers(folder)  # an earlier version made it as the umask had it
        return folder
    shutil.rmtree(parent, ignore_errors=True)
    draft = parent / "draft"
    for name, source in files.items():
        target = draft / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    # For images with the node's own Python. Others compile what they import, each time.
    compileall.compile_dir(
        draft,
        quiet=2,
        stripdir=str(draft),
        invalidation_mode=PycInvalidationMode.UNCHECKED_HASH,
    )
    open_to_readers(draft)
    os.rename(draft, folder)
    return folder


def _files() -> dict[str, Path]:
    manta = Path(wire.__file__).parents[1]
    sources = [manta / "__init__.py", *(manta / "light").rglob("*.py")]
    sources += [manta / "transports" / name for name in _TRANSPORTS]
    sources += [manta / name for name in _MESH]
    found = {f"manta/{source.relative_to(manta)}": source for source in sources}
    return found | {
        f"msgpack/{file.name}": file for file in Path(msgpack.__file__).parent.glob("*.py")
    }
