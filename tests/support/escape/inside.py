"""Runs inside a task, as a user's module: tries to get out, and says how far it came.

`TARGETS`, which is put before this text, names what lies outside. Each probe answers "open" (it got
there), "closed" (it was refused) or "not there" (there is no such thing to be seen from here).
Whatever one opens it leaves as it was.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import socket
import subprocess
import sys
import time
from typing import Any

TARGETS: dict[str, Any] = {}
REFUSED = {
    errno.EACCES,
    errno.EAFNOSUPPORT,
    errno.ECONNREFUSED,
    errno.EHOSTUNREACH,
    errno.ENETUNREACH,
    errno.ENOSYS,
    errno.EPERM,
    errno.EROFS,
    errno.EXDEV,
}
ABSENT = {errno.ENOENT, errno.ENXIO, errno.ESRCH, errno.ENODEV, errno.ENOTDIR}
NUMBERS = {  # of x86_64 and aarch64
    "add_key": (248, 217),
    "bpf": (321, 280),
    "io_uring_setup": (425, 425),
    "keyctl": (250, 219),
    "mount": (165, 40),
    "perf_event_open": (298, 241),
    "process_vm_readv": (310, 270),
    "ptrace": (101, 117),
    "shmat": (30, 196),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
}
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long


def said(error: OSError) -> str:
    if error.errno in ABSENT:
        return "not there"
    if error.errno in REFUSED:
        return "closed"
    raise error


def attempt(what, *arguments) -> str:
    """ "open" unless it is refused."""
    try:
        what(*arguments)
    except OSError as error:
        return said(error)
    return "open"


def worst(answers) -> str:
    found = set(answers)
    return next(answer for answer in ("open", "closed", "not there") if answer in found)


def call(name: str, *arguments, absent: int | None = None) -> str:
    """A system call: any error but a refusal means that the kernel would have done it, or has
    nothing to do it with, if it is `absent`."""
    number = NUMBERS[name][platform.machine() == "aarch64"]
    wide = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    result = LIBC.syscall(ctypes.c_long(number), *wide)
    code = ctypes.get_errno()
    if result == -1 and code == absent:
        return "not there"
    return (
        "closed" if result == -1 and code in (errno.EPERM, errno.ENOSYS, errno.EACCES) else "open"
    )


def in_child(work) -> str:
    """What a probe says that would change this process."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.write(write, work().encode())
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(pid, 0)
    with os.fdopen(read, "rb") as file:
        return file.read().decode() or "closed"


def read(path: str) -> None:
    with open(path, "rb") as file:
        file.read(16)


def writable(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_APPEND))


def make(folder: str) -> None:
    path = os.path.join(folder, TARGETS["name"])
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    os.unlink(path)


def connect(address) -> None:
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family) as one:
        one.settimeout(5)
        one.connect(address if isinstance(address, str) else tuple(address))


def send_datagram(address) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.connect(tuple(address))
        for _ in range(2):  # the second hears that nobody was there to take the first
            one.send(b"x")


def through_link() -> str:
    os.symlink(TARGETS["secret"], "out")
    return attempt(read, "out")


def race() -> str:
    """A link that leads out and in by turns, as fast as can be, under an open file's name."""
    with open("inside", "w") as file:
        file.write("inside")
    os.symlink("inside", "link")
    swapping = os.fork()
    while not swapping:
        for target in (TARGETS["secret"], "inside"):
            os.symlink(target, "next")
            os.rename("next", "link")
    seen, tries, began = set(), 0, time.monotonic()
    try:
        while TARGETS["word"] not in seen and (tries < 2000 or time.monotonic() - began < 2):
            tries += 1
            try:
                with open("link") as file:
                    seen.add(file.read())
            except OSError as error:
                seen.add(said(error))
    finally:
        os.kill(swapping, 9)
        os.waitpid(swapping, 0)
    return "open" if TARGETS["word"] in seen else "closed"


def ptrace() -> str:
    seize = 0x4206  # which does not stop it
    return in_child(lambda: call("ptrace", seize, TARGETS["bystander"], 0, 0, absent=errno.ESRCH))


def process_memory() -> str:
    buffer = ctypes.create_string_buffer(8)
    ours = (ctypes.c_size_t * 2)(ctypes.addressof(buffer), 8)
    theirs = (ctypes.c_size_t * 2)(TARGETS["address"], 8)
    pid = TARGETS["daemon"]
    reads = (pid, ctypes.byref(ours), 1, ctypes.byref(theirs), 1, 0)
    return call("process_vm_readv", *reads, absent=errno.ESRCH)


def mount() -> str:
    def work() -> str:
        if call("unshare", 0x10020000) == "closed":  # CLONE_NEWUSER | CLONE_NEWNS
            return "closed"
        LIBC.mount.argtypes = [ctypes.c_char_p] * 3 + [ctypes.c_ulong, ctypes.c_char_p]
        private = LIBC.mount(b"none", b"/", None, 0x44000, None)  # MS_REC | MS_PRIVATE
        return (
            "open"
            if private == 0 and LIBC.mount(b"none", b"/proc", b"tmpfs", 0, None) == 0
            else "closed"
        )

    return in_child(work)


def status(name: str) -> str:
    with open("/proc/self/status") as file:
        return next(line.split()[1] for line in file if line.startswith(f"{name}:"))


def privileges() -> str:
    """Whether a program with the bit for it has another user's rights."""
    asks = 39  # PR_GET_NO_NEW_PRIVS
    return "closed" if LIBC.prctl(asks, 0, 0, 0, 0) == 1 else "open"


def set_user_id() -> str:
    with open("program", "w"):
        return attempt(os.chmod, "program", 0o4755)


def capabilities() -> str:
    return "open" if int(status("CapEff"), 16) else "closed"


def daemon_files(name: str) -> str:
    return attempt(read, f"/proc/{TARGETS['daemon']}/{name}")


def devices() -> str:
    nodes = ["/dev/kmsg", "/dev/mem", "/dev/port", *TARGETS["disks"]]
    made = attempt(lambda: os.mknod("device", 0o20600, os.makedev(1, 3)))
    return worst([made, *(attempt(read, path) for path in nodes if "kmsg" not in path)])


def fork_many() -> str:
    """Up to twice what it may."""
    children = []
    try:
        for _ in range(2 * TARGETS["processes"]):
            pid = os.fork()
            if not pid:
                time.sleep(10)
                os._exit(0)
            children.append(pid)
    except OSError as error:
        return said(error) if error.errno != errno.EAGAIN else "closed"
    else:
        time.sleep(2)  # for who measures
        return "open"
    finally:
        for pid in children:
            os.kill(pid, 9)
            os.waitpid(pid, 0)


def take_memory() -> str:
    """Twice what it may."""

    def work() -> str:
        taken = bytearray(2 * TARGETS["memory"])
        for at in range(0, len(taken), resource.getpagesize()):
            taken[at] = 1
        time.sleep(2)
        return "open"

    return in_child(work)


def fill_disk() -> str:
    """Twice what it may, in the only folder that it may write."""
    with open("filler", "wb") as file:
        for _ in range(2 * TARGETS["disk"] >> 20):
            file.write(os.urandom(1 << 20))
        file.flush()
        time.sleep(10)
    return "open"


def outlive() -> str:
    """A process with another session and no mark, whose runtime is killed by the task itself; the
    test looks for it."""
    code = "import time; time.sleep(600)"
    subprocess.Popen([sys.executable, "-c", code, TARGETS["name"]], env={}, start_new_session=True)
    with open(f"/proc/{os.getppid()}/stat") as file:
        runtime = int(file.read().rpartition(")")[2].split()[1])
    os.kill(runtime, 9)
    time.sleep(10)
    return "open"


def of_list(what, paths) -> str:
    return worst(attempt(what, path) for path in paths)


PROBES = {
    "tcp": lambda: attempt(connect, TARGETS["tcp"]),
    "udp": lambda: attempt(send_datagram, TARGETS["udp"]),
    "manager's ports": lambda: of_list(connect, TARGETS["manager"]),
    "node's port": lambda: of_list(connect, TARGETS["node"]),
    "engine's socket": lambda: of_list(connect, TARGETS["engine"]),
    "abstract socket": lambda: attempt(connect, "\0" + TARGETS["abstract"]),
    "another task's socket": lambda: attempt(connect, TARGETS["other socket"]),
    "read outside": lambda: attempt(read, TARGETS["secret"]),
    "link to outside": through_link,
    "race of links": race,
    "write /": lambda: attempt(make, "/"),
    "write /usr": lambda: attempt(make, "/usr"),
    "mode outside": lambda: attempt(os.chmod, TARGETS["secret"], 0o600),
    "node's key": lambda: attempt(read, TARGETS["key"]),
    "files that the node reads": lambda: of_list(writable, TARGETS["node's files"]),
    "own module": lambda: attempt(writable, __file__),
    "Python": lambda: attempt(writable, os.__file__),
    "another task's file": lambda: attempt(read, TARGETS["other file"]),
    "another task's folder": lambda: attempt(make, os.path.dirname(TARGETS["other file"])),
    "another task's process": lambda: attempt(os.kill, TARGETS["other process"], 0),
    "signal to the daemon": lambda: attempt(os.kill, TARGETS["daemon"], 0),
    "list of processes": lambda: attempt(os.stat, f"/proc/{TARGETS['daemon']}"),
    "daemon's environment": lambda: daemon_files("environ"),
    "daemon's memory": lambda: worst([daemon_files("maps"), process_memory()]),
    "own environment": lambda: "open" if TARGETS["word"] in str(os.environ) else "closed",
    "ptrace": ptrace,
    "capabilities": capabilities,
    "setuid programs": privileges,
    "setuid files": set_user_id,
    "mounts": mount,
    "devices": devices,
    "shared memory": lambda: attempt(read, f"/dev/shm/{TARGETS['shared memory']}"),
    "SysV shared memory": lambda: call("shmat", TARGETS["sysv"], 0, 0o10000, absent=errno.EINVAL),
    "kernel's settings": lambda: attempt(writable, "/proc/sys/kernel/core_pattern"),
    "control groups": lambda: of_list(writable, TARGETS["groups"]),
    "keyctl": lambda: worst([call("keyctl", 0, -2, 0), call("add_key", 0, 0, 0, 0, 0)]),
    "bpf": lambda: call("bpf", 0, 0, 0),
    "userfaultfd": lambda: in_child(lambda: call("userfaultfd", 1)),
    "io_uring": lambda: call("io_uring_setup", 0, 0),
    "perf": lambda: call("perf_event_open", 0, 0, -1, -1, 0),
    "forks": fork_many,
    "memory": take_memory,
    "disk": fill_disk,
    "outlive": outlive,
}


def main():
    answers = {}
    for name in TARGETS["probes"]:
        try:
            answers[name] = PROBES[name]()
        except Exception as error:
            answers[name] = f"failed: {error!r}"
    return answers
