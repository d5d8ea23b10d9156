"""What a task in a real sandbox of bubblewrap's sees and may do, and what it does not."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from manta.node.runners.bwrap import BwrapRunner, find
from manta.node.runners.local import SOURCES
from tests.support.harness import Node


@pytest.fixture(scope="module")
def home(bubblewrap: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A node owner's, with a key."""
    home = tmp_path_factory.mktemp("owner")
    (home / ".ssh").mkdir()
    (home / ".ssh" / "id_ed25519").write_text("a key")
    return home


@pytest.fixture
def node(home: Path, tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path, BwrapRunner(find([home, Path.home(), tmp_path])))
    yield node
    node.close()


def inside(node: Node, code: str, **spec: Any) -> Any:
    """What `main` of the code returns."""
    return node.start(code, **spec).run().output


def test_only_what_a_task_needs_is_there(node: Node, home: Path, tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("1")
    other = node.start("def main():\n    open('mine', 'w').write('secret')\n", entry="other.py")
    assert other.run().output is None
    found = inside(
        node,
        """
        import os
        def main():
            seen = {path: sorted(os.listdir(path)) for path in ("/", "/manta", "/etc")}
            seen["datasets"] = os.listdir("/manta/datasets")
            seen["module"] = os.listdir("/manta/module")
            seen["scratch"] = os.listdir("/manta/scratch")
            return seen
        """,
        datasets={"data": tmp_path / "data.csv"},
    )
    assert found["/manta"] == ["datasets", "module", "scratch", "socket"]
    assert found["datasets"] == ["data.csv"]
    assert found["module"] == ["worker.py"]
    assert found["scratch"] == []
    assert {"passwd", "group", "hosts", "nsswitch.conf"} <= set(found["/etc"])
    assert not {"shadow", "ssh", "ssl", "sudoers"} & set(found["/etc"])
    assert not {"var", "run", "srv", "boot", "mnt", "media"} & set(found["/"])
    gone = [home, tmp_path, other.scratch / "mine", Path.home() / ".ssh", SOURCES / "tests"]
    code = f"import os\ndef main():\n    return [os.path.exists(p) for p in {[*map(str, gone)]}]\n"
    assert inside(node, code) == [False] * len(gone)


def test_of_what_is_above_a_folder_that_is_there_only_the_name_is(node: Node) -> None:
    """In whoever's home the node's Python is installed."""
    code = """
        import os, sys
        def main():
            above = os.path.dirname(sys.base_prefix)
            return os.path.isdir(sys.base_prefix), sorted(os.listdir(above))
        """
    is_there, beside = inside(node, code)
    assert is_there
    if sys.base_prefix != "/usr":
        assert len(beside) == 1


def test_nothing_but_scratch_tmp_and_shared_memory_is_written(node: Node) -> None:
    refused, written = inside(
        node,
        """
        import os, sys
        PLACES = ["/", "/usr", "/etc", "/dev", "/manta", "/manta/module", "/manta/socket",
                  os.path.dirname(os.__file__), sys.prefix, "/proc/sys/kernel", "/sys"]
        def main():
            refused, written = [], []
            for place in [*PLACES, "/tmp", "/dev/shm", "/manta/scratch"]:
                try:
                    with open(os.path.join(place, "new"), "w"):
                        written.append(place)
                except OSError as error:
                    refused.append(type(error).__name__)
            return refused, written
        """,
    )
    assert written == ["/tmp", "/dev/shm", "/manta/scratch"]
    assert len(refused) == 11


def test_what_it_keeps_in_memory_is_bounded(node: Node) -> None:
    found = inside(
        node,
        """
        import os
        def main():
            sizes = {}
            for place in ("/tmp", "/dev/shm"):
                found = os.statvfs(place)
                sizes[place] = found.f_blocks * found.f_frsize
            return sizes
        """,
        memory=32 * 1024 * 1024,
    )
    assert found == {"/tmp": 64 * 1024 * 1024, "/dev/shm": 32 * 1024 * 1024}


def test_nothing_of_the_kernel_s_is_changed_and_little_of_it_told(node: Node) -> None:
    """Root of a user namespace owns /proc/sys where the node is root."""
    writable, told = inside(
        node,
        """
        import os
        def main():
            writable, told = [], []
            for folder, folders, names in os.walk("/proc"):
                if folder == "/proc":
                    folders[:] = [n for n in folders if not n.isdecimal()]
                for name in names:
                    path = os.path.join(folder, name)
                    try:
                        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
                    except OSError:
                        continue
                    if os.stat(path).st_rdev == 0:
                        writable.append(path)
            for name in ("keys", "kmsg", "kcore", "timer_list", "slabinfo", "kpageflags"):
                try:
                    with open("/proc/" + name, "rb") as file:
                        told += [name] if file.read(1) else []
                except OSError:
                    continue
            return writable, told
        """,
    )
    assert (writable, told) == ([], [])


def test_it_has_no_privileges_and_gains_none(node: Node) -> None:
    fields, tried = inside(
        node,
        """
        import ctypes, os
        def main():
            with open("/proc/self/status") as file:
                fields = dict(line.split() for line in file if line.startswith(("Cap", "NoNew")))
            libc = ctypes.CDLL(None, use_errno=True)
            tried = [
                libc.mount(b"none", b"/tmp", b"tmpfs", 0, None),
                libc.unshare(0x10000000),  # another user namespace
                libc.setuid(os.getuid() + 1),
                libc.chroot(b"/tmp"),
                libc.sethostname(b"x", 1),
            ]
            return fields, tried
        """,
    )
    assert {fields[f"Cap{name}:"] for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
    assert fields["NoNewPrivs:"] == "1"
    assert set(tried) == {-1}


def test_calls_are_filtered_and_its_own_loopback_is_open(node: Node) -> None:
    """What the network and shared memory are need no filter, as they are its own."""
    answers = inside(
        node,
        """
        import ctypes, errno, os, platform, socket
        NUMBERS = {"keyctl": (250, 219), "bpf": (321, 280), "userfaultfd": (323, 282),
                   "io_uring_setup": (425, 425), "shmget": (29, 194)}
        def main():
            libc = ctypes.CDLL(None, use_errno=True)
            answers = {}
            for name, numbers in NUMBERS.items():
                number = numbers[platform.machine() == "aarch64"]
                sizes = (0, 4096, 0o1600) if name == "shmget" else (0, 0, 0)
                done = libc.syscall(number, *map(ctypes.c_long, sizes))
                answers[name] = errno.errorcode[ctypes.get_errno()] if done < 0 else "made"
            for family in (socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK, socket.AF_PACKET):
                try:
                    socket.socket(family, socket.SOCK_DGRAM).close()
                    answers[family.name] = "made"
                except OSError as error:
                    answers[family.name] = errno.errorcode[error.errno]
            return answers
        """,
    )
    assert answers == {
        "keyctl": "EPERM",
        "bpf": "EPERM",
        "userfaultfd": "EPERM",
        "io_uring_setup": "ENOSYS",
        "shmget": "made",
        "AF_INET": "made",
        "AF_INET6": "made",
        "AF_NETLINK": "EAFNOSUPPORT",
        "AF_PACKET": "EAFNOSUPPORT",
    }


def test_no_other_process_and_no_other_descriptor_is_there(node: Node) -> None:
    pids, names, descriptors = inside(
        node,
        """
        import os
        def main():
            pids = sorted(int(name) for name in os.listdir("/proc") if name.isdecimal())
            names = {open(f"/proc/{pid}/cmdline").read().split("\\0")[2] for pid in pids}
            runtime = [os.readlink(f"/proc/1/fd/{fd}") for fd in os.listdir("/proc/1/fd")
                       if os.path.lexists(f"/proc/1/fd/{fd}")]
            return pids, sorted(names), [d for d in runtime if d.startswith("/")]
        """,
    )
    assert len(pids) == 3  # the runtime, the template and the attempt
    assert pids[0] == 1
    assert names == ["manta.light"]
    own = {"/dev/null", "/memfd:manta-stacks (deleted)"}
    assert set(descriptors) <= own | {d for d in descriptors if d.startswith("/proc/1/")}


def test_the_network_is_its_own(node: Node, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket(socket.AF_UNIX) as other:
        other.bind(f"\0manta-{os.getpid()}")
        other.listen()
        found = inside(
            node,
            f"""
            import socket
            def tried(family, address):
                with socket.socket(family) as mine:
                    mine.settimeout(2)
                    return mine.connect_ex(address)
            def main():
                with socket.create_server(("127.0.0.1", 0)) as listener:
                    own = tried(socket.AF_INET, listener.getsockname())
                with open("/proc/net/dev") as file:
                    interfaces = [line.split(":")[0].strip() for line in file if ":" in line]
                return [
                    interfaces,
                    own,
                    tried(socket.AF_INET, ("127.0.0.1", {listener.getsockname()[1]})) != 0,
                    tried(socket.AF_INET, ("192.0.2.1", 9)) != 0,
                    tried(socket.AF_UNIX, "\\0manta-{os.getpid()}") != 0,
                    socket.gethostname(),
                    socket.gethostbyname(socket.gethostname()),
                ]
            """,
        )
    assert found == [["lo"], 0, True, True, True, "task", "127.0.0.1"]


def test_who_it_is(node: Node) -> None:
    found = inside(
        node,
        """
        import getpass, os, pathlib, pwd
        def main():
            entry = pwd.getpwuid(os.getuid())
            return [os.getuid(), entry.pw_name, getpass.getuser(), str(pathlib.Path.home())]
        """,
    )
    assert found == [os.getuid(), "task", "task", "/manta/scratch"]


def test_datasets_behind_links_are_there_and_what_their_links_lead_to_is_not(
    node: Node, tmp_path: Path
) -> None:
    far = tmp_path / "far"
    (far / "folder").mkdir(parents=True)
    (far / "folder" / "a.txt").write_text("a")
    (far / "secret").write_text("secret")
    (far / "folder" / "out").symlink_to(far / "secret")
    (tmp_path / "near").symlink_to(far)
    (tmp_path / "link.txt").symlink_to(tmp_path / "near" / "folder" / "a.txt")
    found = inside(
        node,
        """
        import os
        from manta.light import Local
        def main():
            local = Local()
            folder = "/manta/datasets/folder"
            return [local.read_file_lines("file"), local.list_dir("folder")[:1],
                    os.path.exists(folder + "/a.txt"), os.path.exists(folder + "/out")]
        """,
        datasets={"file": tmp_path / "link.txt", "folder": tmp_path / "near" / "folder"},
    )
    assert found == [["a"], ["a.txt"], True, False]


def test_libraries_that_compute_work(node: Node) -> None:
    pytest.importorskip("numpy")
    found = inside(
        node,
        """
        import multiprocessing, os
        import numpy as np
        def square(x):
            return x * x
        def main():
            shared = multiprocessing.Array("d", 3)  # in /dev/shm
            with multiprocessing.get_context("fork").Pool(2) as pool:
                squares = pool.map(square, range(4))
            np.save("kept.npy", np.arange(4))
            return [float(np.load("kept.npy") @ np.ones(4)), squares, len(shared), os.cpu_count()]
        """,
    )
    assert found == [6.0, [0, 1, 4, 9], 3, os.cpu_count()]


def test_torch_computes_and_loads_data_in_processes(node: Node) -> None:
    pytest.importorskip("torch")
    found = inside(
        node,
        """
        import torch
        from torch.utils.data import DataLoader, TensorDataset
        def main():
            data = TensorDataset(torch.arange(8.0))
            loaded = DataLoader(data, batch_size=4, num_workers=2)
            return sum(float(batch.sum()) for [batch] in loaded)
        """,
    )
    assert found == 28.0
