"""What rounds share: installed packages that are warm, and nothing that these or the user drew."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Start = Callable[..., Any]

DRAWS = {
    "numpy's generator": "import numpy\nrng = numpy.random.default_rng()\ndraw = rng.random",
    "numpy's old one": "from numpy.random import RandomState\ndraw = RandomState().random_sample",
    "numpy's global one": "import numpy\nx = numpy.random.rand()\ndraw = lambda: x",
    "numpy's bits": "from numpy.random import PCG64\ndraw = PCG64().random_raw",
    "random.Random": "import random\nrng = random.Random()\ndraw = rng.random",
    "random": "from random import random\nx = random()\ndraw = lambda: x",
    "uuid4": "import uuid\nx = str(uuid.uuid4())\ndraw = lambda: x",
    "uuid1": "import uuid\nx = str(uuid.uuid1())\ndraw = lambda: x",
    "secrets": "import secrets\nx = secrets.token_hex()\ndraw = lambda: x",
    "urandom": "import os\nx = os.urandom(8)\ndraw = lambda: x",
    "tempfile": "import tempfile\nx = tempfile.mktemp()\ndraw = lambda: x",
    "multiprocessing": (
        "from multiprocessing import current_process\n"
        "x = bytes(current_process().authkey)\ndraw = lambda: x"
    ),
    "torch's generator": (
        "import torch\nrng = torch.Generator()\nrng.seed()\n"
        "draw = lambda: float(torch.rand(1, generator=rng))"
    ),
    "torch's global one": "import torch\nx = float(torch.rand(1))\ndraw = lambda: x",
    "sklearn": (
        "from sklearn.utils import check_random_state\nrng = check_random_state(None)\n"
        "draw = lambda: float(rng.rand())"
    ),
    "pandas": (
        "import pandas\nx = pandas.Series(range(1000)).sample(3).tolist()\ndraw = lambda: x"
    ),
}
PLACES = {
    "the module": ({"worker.py": "{draw}\ndef main():\n    return draw()\n"}, "worker.py"),
    "a file beside": (
        {"worker.py": "from helper import draw\ndef main():\n    return draw()\n"}
        | {"helper.py": "{draw}\n"},
        "worker.py",
    ),
    "a package": (
        {
            "fl/__init__.py": "from .work import main\n",
            "fl/work.py": "from fl.deep.draws import draw\ndef main():\n    return draw()\n",
            "fl/deep/__init__.py": "",
            "fl/deep/draws.py": "{draw}\n",
        },
        "fl",
    ),
}


def filled(files: dict[str, str], draw: str) -> dict[str, str]:
    return {name: text.replace("{draw}", draw) for name, text in files.items()}


@pytest.mark.parametrize("kind", DRAWS)
def test_what_is_drawn_while_a_module_is_imported_is_not_shared(start: Start, kind: str) -> None:
    for package in ("torch", "pandas", "sklearn"):
        if f"import {package}" in DRAWS[kind] or f"from {package}" in DRAWS[kind]:
            pytest.importorskip(package)
    files, entry = PLACES["the module"]
    runtime = start(filled(files, DRAWS[kind]), entry)
    drawn = [repr(runtime.run(iteration).output) for iteration in range(4)]
    assert len(set(drawn)) == 4


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", ["numpy's generator", "random.Random"])
def test_nor_where_a_helper_draws_it(start: Start, place: str, kind: str) -> None:
    files, entry = PLACES[place]
    runtime = start(filled(files, DRAWS[kind]), entry)
    drawn = [runtime.run(iteration).output for iteration in range(4)]
    assert len(set(drawn)) == 4


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of packages that the runtime finds as it finds those of its Python."""
    folder = tmp_path / "lib" / "site-packages"
    folder.mkdir(parents=True)
    from manta.node.runners import process

    plain = process.environment

    def environment(spec: Any) -> dict[str, str]:
        found = plain(spec)
        return found | {"PYTHONPATH": f"{found['PYTHONPATH']}:{folder}"}

    monkeypatch.setattr(process, "environment", environment)
    return folder


PACKAGE = """
import os, random, tempfile, uuid
print("imported by", os.getppid())
pid = os.getpid()
first = random.random()
uuid.uuid1()
tempfile.mktemp()
"""

WORK = """
def work():
    import os, random, tempfile, uuid, lab
    name = os.path.basename(tempfile.mktemp())
    return [lab.pid, os.getpid(), name, random.random(), str(uuid.uuid1())]
"""


@pytest.mark.parametrize(
    ("source", "from_the_first"),
    [
        ("import lab\ndef main():\n    return work()\n", True),
        ("'''A task.'''\nimport os\nfrom lab import *\ndef main():\n    return work()\n", True),
        ("x = len('x')\nimport lab\ndef main():\n    return work()\n", False),
        ("def main():\n    import lab\n    return work()\n", False),
    ],
)
def test_installed_packages_are_imported_once_and_draw_anew(
    start: Start, installed: Path, source: str, from_the_first: bool
) -> None:
    (installed / "lab.py").write_text(PACKAGE)
    runtime = start(source + WORK)
    rounds = [runtime.run(iteration).output for iteration in range(4)]
    warm = [by for by, own, *_ in rounds if by != own]
    assert len(warm) == (4 if from_the_first else 3)
    assert len(set(warm)) == 1
    for column in list(zip(*rounds, strict=True))[2:]:
        assert len(set(column)) == 4


def test_a_tracker_that_a_package_started_is_not_the_rounds(start: Start, installed: Path) -> None:
    (installed / "lab.py").write_text(
        "from multiprocessing import resource_tracker\nresource_tracker.ensure_running()\n"
        "pid = resource_tracker._resource_tracker._pid\n"
    )
    runtime = start("""
        import lab
        from multiprocessing import resource_tracker
        def main():
            resource_tracker.ensure_running()
            return lab.pid, resource_tracker._resource_tracker._pid
    """)
    templates, own = zip(*(runtime.run(iteration).output for iteration in range(3)), strict=True)
    assert len(set(templates)) == 1
    assert len({*own, *templates}) == 4


def test_a_package_that_starts_a_thread_is_imported_by_each_attempt_and_said_so(
    start: Start, installed: Path
) -> None:
    (installed / "threads.py").write_text(
        "import os, threading, time\npid = os.getpid()\n"
        "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
    )
    (installed / "lab.py").write_text("import os\npid = os.getpid()\n")
    runtime = start("""
        import lab, threads
        import os, threading
        def main():
            return lab.pid == os.getpid(), threads.pid == os.getpid(), threading.active_count()
    """)
    first, *others = [runtime.run(iteration) for iteration in range(3)]
    assert [ended.output for ended in (first, *others)] == [(False, True, 2)] * 3
    (line,) = first.lines("info")
    assert line == (
        "threads is imported anew in each attempt, because importing it started a thread."
    )
    assert not [line for ended in others for line in ended.lines("info")]


def test_a_native_pool_that_is_not_known_is_imported_by_each_attempt(
    start: Start, installed: Path
) -> None:
    (installed / "pool.py").write_text(
        "import ctypes\nlibc = ctypes.CDLL(None)\nthread = ctypes.c_ulong()\n"
        "routine = ctypes.cast(libc.pause, ctypes.c_void_p)\n"
        "libc.pthread_create(ctypes.byref(thread), None, routine, None)\n"
    )
    runtime = start("import pool\ndef main():\n    return 1\n")
    first = runtime.run(0)
    assert first.output == runtime.run(1).output == 1
    assert first.lines("info") == [
        "pool is imported anew in each attempt, because importing it started a pool of native "
        "threads."
    ]


@pytest.mark.parametrize("where", ["", "def main():\n    "])
def test_a_package_that_ends_the_process_it_is_imported_in_fails_its_attempt(
    start: Start, installed: Path, where: str
) -> None:
    (installed / "bad.py").write_text("import os\nos._exit(3)\n")
    tail = "" if where else "def main():\n    pass\n"
    runtime = start(f"{where}import bad\n{tail}")
    for iteration in range(3):
        assert "exit code 3" in runtime.run(iteration).error.sentence


def test_a_package_that_only_an_attempt_can_import_is_left_to_it(
    start: Start, installed: Path
) -> None:
    """It is fine in the first attempt, and would end the template that imports it for others."""
    (installed / "odd.py").write_text(
        "import os, manta.light.context as c\n"
        "if c.usage.context is None:\n    os.kill(os.getpid(), 9)\n"
    )
    runtime = start("x = len('x')\nimport odd\ndef main():\n    return x\n")
    assert [runtime.run(iteration).output for iteration in range(4)] == [1] * 4


def test_what_a_module_sets_before_it_imports_a_package_is_set_for_it(
    start: Start, installed: Path
) -> None:
    (installed / "lab.py").write_text(
        "import os\nkind, path = os.environ.get('LAB_KIND'), os.environ.get('PATH')\n"
        "pid = os.getpid()\nos.environ['LAB_SET'] = '1'\n"
    )
    runtime = start("""
        import os
        early = os.environ.get("LAB_KIND")
        os.environ["LAB_KIND"] = "quiet"
        del os.environ["PATH"]
        import lab
        def main():
            warm = lab.pid != os.getpid()
            return warm, early, lab.kind, lab.path, os.environ["LAB_SET"]
    """)
    assert [runtime.run(iteration).output for iteration in range(3)] == [
        (False, None, "quiet", None, "1"),
        (True, None, "quiet", None, "1"),
        (True, None, "quiet", None, "1"),
    ]


def test_a_file_beside_the_module_is_its_own_though_a_package_has_that_name(
    start: Start, installed: Path
) -> None:
    (installed / "tools.py").write_text("whose = 'installed'\n")
    (installed / "lab.py").write_text("import tools\nwhose = tools.whose\n")
    files = {
        "worker.py": "import lab, tools, os\ndef main():\n    return tools.pid == os.getpid()\n",
        "tools.py": "import os\npid, whose = os.getpid(), 'mine'\n",
    }
    runtime = start(files)
    assert [runtime.run(iteration).output for iteration in range(3)] == [True] * 3


def test_a_module_that_is_dear_to_import_is_said_to_be_so_once(start: Start) -> None:
    source = "import time\ntime.sleep(0.6)\nCLASS"
    plain = start(source.replace("CLASS", "def main():\n    pass\n"))
    lines = [line for iteration in range(3) for line in plain.run(iteration).lines("info")]
    (line,) = lines
    assert line.startswith("Importing worker.py takes 0.")
    assert line.endswith("a class with setup() and execute().")
    living = start(source.replace("CLASS", "class Worker:\n    def execute(self):\n        pass\n"))
    assert [living.run(iteration).lines("info") for iteration in range(2)] == [[], []]


def test_a_syntax_error_in_a_file_beside_is_told_each_time(start: Start) -> None:
    runtime = start({"worker.py": "import helper\n", "helper.py": "def main(:\n"})
    for iteration in range(2):
        assert runtime.run(iteration).error.sentence.startswith(
            "Importing worker.py failed: helper.py has a syntax error in line 1"
        )


def test_a_file_that_an_attempt_has_changed_is_what_the_next_one_imports(start: Start) -> None:
    files = {
        "worker.py": """
            import helper
            from pathlib import Path
            from manta.light import World
            def main():
                Path(helper.__file__).write_text(f"x = {World().iteration} + 10_000\\n")
                return helper.x
        """,
        "helper.py": "x = 5\n",
    }
    runtime = start(files)
    assert [runtime.run(iteration).output for iteration in range(4)] == [5, 10000, 10001, 10002]


def test_what_a_template_has_rehearsed_leaves_no_trace(start: Start) -> None:
    runtime = start("""
        import gc, os, signal, sys
        from manta.light.context import usage
        def main():
            return {
                "alarm": signal.getsignal(signal.SIGALRM) == signal.SIG_DFL,
                "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
                "modules": [name for name in sys.modules if "nothing" in name],
                "path": [at for at in sys.path if "rehearsal" in at],
                "briefs": sum(type(at) is type(usage.context.brief) for at in gc.get_objects()),
                "open": len(os.listdir("/proc/self/fd")) < 14,
            }
    """)
    assert runtime.run(0).output == {
        "alarm": True,
        "blocked": [],
        "modules": [],
        "path": [],
        "briefs": 1,
        "open": True,
    }


def test_an_attempt_that_neither_logs_nor_starts_threads_does_not_pay_for_it(start: Start) -> None:
    """Each fork would copy some 200 pages for `threading` alone."""
    runtime = start(
        "import sys\n"
        "def main():\n    return [at for at in ('threading', 'logging') if at in sys.modules]\n"
    )
    assert [runtime.run(iteration).output for iteration in range(2)] == [[], []]
