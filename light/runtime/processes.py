"""Finds the descendants of processes, and ends them, on Linux."""

from __future__ import annotations

import ctypes
import os
import signal
import struct
import time

CLEANING_TIME = 2.0
"""Seconds for the processes that remove what others leave."""
ENDING_TIME = 6.0
"""Seconds for a runtime that is asked to end, with what an object that lived on has left to do."""
_CLEANERS = (b"resource_tracker", b"torch_shm_manager")
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LANDLOCK_CREATE, _LANDLOCK_RESTRICT, _SCOPE_SIGNAL = 444, 446, 2
_LISTING = 16 * 1024  # bytes
_HAS_CHILDREN = os.path.exists(f"/proc/self/task/{os.getpid()}/children")  # by kernel


def die_with_parent(sig: int, parent: int) -> None:
    """Makes the kernel send `sig` when the parent ends; sends it now if it already has."""
    _prctl(_PR_SET_PDEATHSIG, sig)
    if os.getppid() != parent:
        os.kill(os.getpid(), sig)


def adopt_orphans() -> None:
    """Makes this process the parent of all descendants whose parents end, setsid or not.

    The first of a process namespace is that unasked, where the kernel, as gVisor's, can't be asked.
    """
    if os.getpid() != 1:
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def signal_nobody_outside() -> None:
    """Makes the kernel refuse signals of this process, and of all that it starts, to any other.

    Does nothing before Landlock of Linux 6.12, or where new privileges may be gained.
    """
    scopes = struct.pack("=3Q", 0, 0, _SCOPE_SIGNAL)  # struct landlock_ruleset_attr
    ruleset = _libc.syscall(_LANDLOCK_CREATE, scopes, len(scopes), 0)
    if ruleset >= 0:
        _libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0)
        os.close(ruleset)


class OwnChildren:
    """The children of this process, which has one thread and asks often."""

    def __init__(self) -> None:
        pid = os.getpid()
        self._file = -1
        if _HAS_CHILDREN:
            self._file = os.open(f"/proc/self/task/{pid}/children", os.O_RDONLY | os.O_CLOEXEC)

    def pids(self) -> set[int]:
        """Zombies too."""
        if self._file < 0:
            return children(os.getpid())
        os.lseek(self._file, 0, os.SEEK_SET)
        data = b""
        while more := os.read(self._file, _LISTING):
            data += more
        return set(map(int, data.split()))

    def close(self) -> None:
        """Called in a forked process, whose children are others."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


_libc = ctypes.CDLL(None, use_errno=True)  # once: loading it again costs each attempt 0.15 ms


def _prctl(option: int, argument: int) -> None:
    if _libc.prctl(option, argument, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def children(pid: int) -> set[int]:
    """Direct children, zombies too."""
    if not _HAS_CHILDREN:
        return _children_by_scan(pid)
    found: set[int] = set()
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found.update(map(int, file.read().split()))
    except (FileNotFoundError, ProcessLookupError):
        return found  # ended meanwhile
    return found


def _children_by_scan(pid: int) -> set[int]:
    """For kernels without the `children` file."""
    found = set()
    for name in os.listdir("/proc"):
        if not name.isdecimal():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                parent = int(file.read().rpartition(b")")[2].split()[1])
        except (OSError, IndexError):
            continue  # ended meanwhile
        if parent == pid:
            found.add(int(name))
    return found


def descendants(pid: int) -> set[int]:
    found: set[int] = set()
    todo = [pid]
    while todo:
        for child in children(todo.pop()) - found:
            found.add(child)
            todo.append(child)
    return found


def marked(mark: str) -> set[int]:
    """This user's processes with `mark`, `NAME=value`, in their environment."""
    found = set()
    for name in os.listdir("/proc"):
        if not name.isdecimal():
            continue
        try:
            with open(f"/proc/{name}/environ", "rb") as file:  # empty for those that have ended
                if mark.encode() in file.read().split(b"\0"):
                    found.add(int(name))
        except OSError:
            continue  # ended meanwhile, or another user's
    return found


def end_marked(mark: str, grace: float) -> None:
    """Has this user's processes with `mark` in their environment end, and kills those that have not
    after so many seconds."""
    for pid in marked(mark):
        send(pid, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while left := marked(mark):
        if time.monotonic() > deadline:
            kill_tree(left)
        time.sleep(0.05)


def _cleans_up(pid: int) -> bool:
    """Whether a process may be one that removes semaphores, shared memory and folders once all who
    use them have ended, and then ends itself: the resource tracker of multiprocessing or loky, or
    torch's."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            command = file.read()
    except OSError:
        return False  # ended meanwhile
    # It has none while it is being started, when it may become one of them.
    return not command or any(name in command for name in _CLEANERS)


def kill_tree(roots: set[int], *, let_clean_up: bool = False) -> None:
    """Ends these processes and all their descendants, except, with `let_clean_up`, those that
    remove what the others leave.

    All are stopped before the first is killed: a stopped process starts no other, and what a
    killed one leaves behind has another parent. One that is just being started is seen once its
    parent stands still.
    """
    stopped: set[int] = set()
    while True:
        tree = set(roots)
        for root in roots:
            tree |= descendants(root)
        if let_clean_up:
            tree = {pid for pid in tree if not _cleans_up(pid)}
        new = tree - stopped
        if not new:
            break
        for pid in new:
            send(pid, signal.SIGSTOP)
        _await_stop(new)
        stopped |= new
    for pid in stopped:
        send(pid, signal.SIGKILL)


def _await_stop(pids: set[int], patience: float = 0.5) -> None:
    """Waits until processes that were sent SIGSTOP stand still, or have ended; not for ever, since
    one may be another user's, or wait for a disk."""
    deadline = time.monotonic() + patience
    for pid in pids:
        while not _stands_still(pid) and time.monotonic() < deadline:
            time.sleep(0.0002)


def _stands_still(pid: int) -> bool:
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/stat", "rb") as file:
                if file.read().rpartition(b") ")[2][:1] not in b"TtZX":
                    return False
    except OSError:
        return True  # ended meanwhile
    return True


def kill_descendants(keep: frozenset[int] = frozenset(), patience: float = 5.0) -> None:
    """Ends and reaps all that this process has started, except `keep` and what is below it.

    Those that remove what the others leave have CLEANING_TIME to do so. This process must be the
    one that adopts orphans. Gives up after `patience` seconds.
    """
    start = time.monotonic()
    deadline = start + patience
    while living := children(os.getpid()) - keep:
        kill_tree(living, let_clean_up=time.monotonic() - start < CLEANING_TIME)
        reap(living)
        if time.monotonic() > deadline:  # in uninterruptible sleep: the kernel ends them later
            return


def reap(pids: set[int], patience: float = 1.0) -> None:
    """Waits for children that were killed, at most `patience` seconds."""
    deadline = time.monotonic() + patience
    pause = 0.0002
    while True:
        for pid in list(pids):
            try:
                if os.waitpid(pid, os.WNOHANG)[0]:
                    pids.discard(pid)
            except ChildProcessError:
                pids.discard(pid)
        if not pids or time.monotonic() > deadline:
            return
        time.sleep(pause)
        pause = min(2 * pause, 0.02)


def send(pid: int, sig: int) -> None:
    """Sends a signal, if the process is still there."""
    try:
        os.kill(pid, sig)
    except (ProcessLookupError, PermissionError):
        return  # ended, or became another user's, which only that user may end
