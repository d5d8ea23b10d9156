"""Small packages that tests make, in a folder that serves as an index."""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ANY = "py3-none-any"


def wheel(
    folder: Path,
    name: str,
    version: str = "1.0",
    *,
    tag: str = ANY,
    requires: Sequence[str] = (),
    code: str = "",
    files: dict[str, bytes] | None = None,
) -> Path:
    """With `code` as the package's `__init__`, in which `say` is also a command, NAME-say."""
    folder.mkdir(exist_ok=True)
    path, about = folder / f"{name}-{version}-{tag}.whl", f"{name}-{version}.dist-info"
    wanted = "".join(f"Requires-Dist: {each}\n" for each in requires)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{name}/__init__.py", f"VERSION = {version!r}\n{code}\n")
        for where, content in (files or {}).items():
            archive.writestr(f"{name}/{where}", content)
        archive.writestr(
            f"{about}/METADATA",
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{wanted}",
        )
        archive.writestr(
            f"{about}/WHEEL",
            f"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: {tag}\n",
        )
        archive.writestr(
            f"{about}/entry_points.txt", f"[console_scripts]\n{name}-say = {name}:say\n"
        )
        archive.writestr(f"{about}/RECORD", "")
    return path


BACKEND = """
import zipfile
{code}

def build_wheel(folder, settings=None, metadata=None):
    name = "{name}-{version}-py3-none-any.whl"
    about = "{name}-{version}.dist-info"
    with zipfile.ZipFile(f"{{folder}}/{{name}}", "w") as archive:
        archive.writestr("{name}/__init__.py", "")
        archive.writestr(
            f"{{about}}/METADATA", "Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n"
        )
        archive.writestr(
            f"{{about}}/WHEEL",
            "Wheel-Version: 1.0\\nGenerator: tests\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
        )
        archive.writestr(f"{{about}}/RECORD", "")
    return name
"""


def sdist(folder: Path, name: str, version: str = "1.0", *, code: str) -> Path:
    """A source distribution whose build runs `code` first."""
    folder.mkdir(exist_ok=True)
    path, top = folder / f"{name}-{version}.tar.gz", f"{name}-{version}"
    project = (
        f'[project]\nname = "{name}"\nversion = "{version}"\n'
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    files = {
        "pyproject.toml": project,
        "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        "backend.py": BACKEND.format(code=code, name=name, version=version),
    }
    with tarfile.open(path, "w:gz") as archive:
        for where, text in files.items():
            entry = tarfile.TarInfo(f"{top}/{where}")
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """An index by HTTP on this machine's loopback, of the wheels in a folder; its URL."""
    root = folder.parent / f"{folder.name}-served" / "simple"
    for path in folder.iterdir():
        page = root / path.name.partition("-")[0]
        page.mkdir(parents=True, exist_ok=True)
        (page / path.name).write_bytes(path.read_bytes())
        links = (f'<a href="{each.name}">{each.name}</a>' for each in page.glob("*.whl"))
        (page / "index.html").write_text("<html>" + "".join(links) + "</html>")
    handler = functools.partial(_Quiet, directory=str(root.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/simple"
        finally:
            server.shutdown()
            thread.join()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass
