"""What tasks' libraries do works under Landlock and the filter of system calls."""

from __future__ import annotations

import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from manta.node.errors import LaunchError
from manta.node.isolation import enter, landlock
from manta.node.isolation.holding import Holder
from manta.node.runners.landlock import LandlockRunner, find
from tests.support.harness import Node

WORK = {
    "numpy": """
        import numpy
        def main():
            a = numpy.random.default_rng(1).random((400, 400))
            numpy.save("a.npy", a)
            return float(abs(numpy.load("a.npy", mmap_mode="r") @ numpy.linalg.inv(a)).sum()) > 0
    """,
    "torch": """
        import torch
        def main():
            model = torch.nn.Linear(20, 20)
            model(torch.ones(5, 20)).sum().backward()
            torch.save(model.state_dict(), "model.pt")
            torch.load("model.pt", weights_only=True)
            data = torch.utils.data.TensorDataset(torch.arange(40.0))
            loader = torch.utils.data.DataLoader(data, batch_size=4, num_workers=2)
            return float(sum(batch[0].sum() for batch in loader)) == 780.0
    """,
    "multiprocessing": """
        import multiprocessing as mp
        from multiprocessing import shared_memory
        def square(x):
            return x * x
        def main():
            found = []
            for way in ("fork", "forkserver"):
                with mp.get_context(way).Pool(2) as pool:
                    found.append(pool.map(abs, range(-3, 3)))
            with mp.Manager() as manager:
                shared = manager.dict(a=1)
                found.append(dict(shared))
            memory = shared_memory.SharedMemory(create=True, size=4096)
            again = shared_memory.SharedMemory(memory.name)
            again.buf[0] = 7
            found.append(memory.buf[0])
            again.close(); memory.close(); memory.unlink()
            queue = mp.Queue()
            queue.put(1)
            found.append(queue.get())
            return found == [[3, 2, 1, 0, 1, 2]] * 2 + [{"a": 1}, 7, 1]
    """,
    "processes": """
        import os, shutil, signal, subprocess, sys, tempfile
        from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
        def main():
            said = subprocess.run(["sh", "-c", "echo $((1 + 1)) | cat"], capture_output=True)
            with open("run.sh", "w") as file:
                file.write("#!/bin/sh\\nexit 3\\n")
            os.chmod("run.sh", 0o755)
            shutil.copy("run.sh", "copy.sh")
            code = subprocess.run(["./copy.sh"]).returncode
            command = [sys.executable, "-c", "import json; print(5)"]
            python = subprocess.run(command, capture_output=True)
            with ProcessPoolExecutor(2) as pool:
                sums = list(pool.map(sum, [[1], [2]]))
            with ThreadPoolExecutor(8) as pool:
                threads = list(pool.map(abs, range(-8, 0)))
            with tempfile.TemporaryDirectory() as folder, tempfile.NamedTemporaryFile() as file:
                shutil.make_archive(folder + "/a", "gztar", ".")
                shutil.unpack_archive(folder + "/a.tar.gz", folder)
            return [said.stdout, code, python.stdout, sums, threads] == [
                b"2\\n", 3, b"5\\n", [1, 2], [8, 7, 6, 5, 4, 3, 2, 1]]
    """,
    "asyncio": """
        import asyncio, socket, sqlite3
        async def work():
            server = await asyncio.start_unix_server(lambda r, w: w.close(), "here")
            reader, writer = await asyncio.open_unix_connection("here")
            rest = await reader.read()
            writer.close()
            server.close()
            process = await asyncio.create_subprocess_exec("true")
            await asyncio.to_thread(sum, [1])
            return rest, await process.wait()
        def main():
            with sqlite3.connect("db") as db:
                db.execute("create table a(b)")
            db.close()
            return list(asyncio.run(work())) == [b"", 0]
    """,
}


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """In a folder with a short name: libraries make sockets in folders of their own there."""
    runner = LandlockRunner(find([tmp_path]), [tmp_path], Holder(f"test-{secrets.token_hex(4)}"))
    with tempfile.TemporaryDirectory() as folder:
        node = Node(Path(folder), runner)
        yield node
        node.close()


@pytest.mark.parametrize("library", WORK)
def test_it_works(node: Node, library: str) -> None:
    if library == "torch":
        pytest.importorskip("torch")
    runtime = node.start(WORK[library])
    runtime.begin()
    ended = runtime.end(patience=55)
    assert ended.output is True, ended.lines("stderr")


def test_a_data_set_behind_a_link_is_read_and_nothing_beside_it(node: Node, tmp_path: Path) -> None:
    away = tmp_path / "away"
    away.mkdir()
    (away / "rows.csv").write_text("1,2\n")
    (away / "beside.csv").write_text("secret")
    (tmp_path / "data").symlink_to(away / "rows.csv")
    runtime = node.start(
        """
        import os
        from manta.light import Local
        def main():
            path = os.path.realpath(Local().dataset_path("rows"))
            with open(path) as file:
                rows = file.read()
            try:
                open(os.path.join(os.path.dirname(path), "beside.csv"))
            except PermissionError:
                return rows
        """,
        datasets={"rows": tmp_path / "data"},
    )
    assert runtime.run().output == "1,2\n"


def test_thousands_of_data_sets_fit(node: Node, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("1")
    many = {}
    for number in range(2000):
        path = tmp_path / f"{number}-{'x' * 80}"
        path.symlink_to("data")
        many[f"dataset-{number}"] = path
    runtime = node.start(
        """
        from manta.light import Local
        def main():
            return sum(int(Local().read_file_lines(f"dataset-{n}")[0]) for n in range(2000))
        """,
        datasets=many,
    )
    assert runtime.run().output == 2000


def test_a_data_set_that_holds_the_nodes_keys_is_refused_in_words(
    node: Node, tmp_path: Path
) -> None:
    runtime = node.start("def main():\n    pass\n", datasets={"all": tmp_path.parent})
    exit_ = runtime.exits.get(timeout=60)
    assert exit_.platform
    assert exit_.sentence.startswith("The task could not be isolated: A task is to read all of ")
    assert str(tmp_path.parent) in exit_.sentence


def test_a_kernel_that_cannot_is_named_and_so_is_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(landlock, "available", lambda: 0)
    with pytest.raises(LaunchError, match=r"no Landlock.*add landlock to lsm= on its command line"):
        find([])


def test_what_cannot_be_confined_does_not_run() -> None:
    rules = (landlock.Rule("/nowhere", landlock.READ),)
    program = [sys.executable, "-c", "print('ran')"]
    command = enter.command(program, confinement=enter.Confinement(rules, ()))
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (enter.REFUSED, "")
    assert "No such file or directory: '/nowhere'" in ended.stderr
