"""The site in a real browser: nothing is missing or loaded from elsewhere, search finds."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
REQUIRED = os.environ.get("MANTA_TEST_BROWSER") == "required"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


class Server(ThreadingHTTPServer):
    """Says what was asked for in vain."""

    missed: list[str]


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass

    def send_error(self, code: int, *arguments: object, **named: object) -> None:
        self.server.missed.append(f"{code} {self.path}")  # type: ignore[attr-defined]
        super().send_error(code)


@pytest.fixture
def served(site: Path) -> Iterator[Server]:
    with Server(("127.0.0.1", 0), partial(Handler, directory=str(site))) as server:
        server.missed = []
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def served_at(server: Server, page: str) -> str:
    return f"http://127.0.0.1:{server.server_port}/{page}"


def opened(where: str, folder: Path, patience: int = 4) -> tuple[str, list[str]]:
    """The page's document once its scripts have run, and what they complained of. `patience` is in
    seconds, by the page's own clock where it does not search: that a worker does."""
    if BROWSER is None:
        assert not REQUIRED, "chromium is not installed"
        pytest.skip("chromium is not installed")
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}"]
    command += ["--enable-logging=stderr", f"--timeout={patience * 1000}", "--dump-dom", where]
    if "?" not in where:
        command.insert(-2, f"--virtual-time-budget={patience * 1000}")
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def searched(where: str, folder: Path) -> tuple[str, list[str]]:
    """What the page has found once it has found something, and what its scripts complained of."""
    found, complaints = "", list[str]()
    for patience in (4, 12, 36):  # beside other processes it may take long
        document, complaints = opened(where, folder, patience)
        found = document.partition("md-search-result__list")[2]
        if ".html" in found:
            break
    return found, complaints


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    loaded = re.compile(r'<(?:script|link|img|iframe)[^>]*(?:src|href)="?((?:https?:)?//[^" >]*)')
    for page in site.rglob("*.html"):
        assert loaded.findall(page.read_text()) == [], page
    for style in site.rglob("*.css"):
        assert not re.search(r"(?:@import|url\()\s*[\"']?https?:", style.read_text()), style


@pytest.mark.parametrize("page", ["index.html", "swarms.html", "reference/sdk.html"])
def test_a_page_loads_without_complaints(page: str, served: Server, tmp_path: Path) -> None:
    document, complaints = opened(served_at(served, page), tmp_path)
    assert "</html>" in document
    assert complaints == []
    assert served.missed == []


def test_search_finds(served: Server, tmp_path: Path) -> None:
    where = served_at(served, "index.html?q=reduce_scatter")
    found, complaints = searched(where, tmp_path)
    assert complaints == []
    assert "reference/light.html" in found


def test_search_finds_in_a_folder(site: Path, tmp_path: Path) -> None:
    where = f"{(site / 'index.html').as_uri()}?q=reduce_scatter"
    found, complaints = searched(where, tmp_path)
    assert complaints == []
    assert "reference/light.html" in found


def test_what_users_read_is_found_before_the_internals(served: Server, tmp_path: Path) -> None:
    found, _ = searched(served_at(served, "index.html?q=lease"), tmp_path)
    assert -1 < found.find("glossary.html") < found.find("internals/")
