"""A runtime in a sandbox of bubblewrap's: namespaces of its own, and next to no files.

The runtime is the first process of its process namespace, so that nothing outlives it, and is not
told to have ended before all that it started has. It sees what `visible` lists, its module and
datasets, the folder of the node's socket, and its scratch folder, which alone it may write. A
filter refuses it the system calls that no task needs. The kernel ends it with bubblewrap, and that
with the daemon.

User namespaces map the node's user to itself: a node that is root has tasks that own what root
owns, without any capability. So all that they see of that is mounted read-only, /proc too.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from compileall import compile_dir
from pathlib import Path

import msgspec

from manta.light import wire
from manta.light.runtime.processes import kill_tree, send
from manta.node.errors import LaunchError
from manta.node.isolation import listen, seccomp
from manta.node.isolation.holding import Held, Holder
from manta.node.isolation.listen import CAPABILITIES
from manta.node.runners import gpus, local, visible
from manta.node.runners.interface import RuntimeExit, RuntimeHandle, RuntimeSpec
from manta.node.runners.launcher import Ended
from manta.node.runners.paths import ENVIRONMENT, MODULE, SCRATCH, SOCKET, dataset_path
from manta.protocol.isolation import BWRAP

_PROBING_TIME = 10.0
_NAMESPACES = [
    "--unshare-user",
    "--unshare-pid",
    "--unshare-net",
    "--unshare-ipc",
    "--unshare-uts",
    "--unshare-cgroup-try",
    "--as-pid-1",
    "--die-with-parent",
    "--hostname",
    "task",
]
_OF_GPUS = ("/sys", "/opt/rocm", "/etc/OpenCL")  # where drivers look them up, and what is theirs
_NO_USERS = "--disable-userns"
_SIZE = "--size"
_TMP = 64 * 1024 * 1024  # bytes of /tmp, which is in memory: TMPDIR is the scratch folder
_SIGNALLED = 128  # what bubblewrap adds to the number of a signal


class Bubblewrap(msgspec.Struct, frozen=True):
    """What this machine has, and what its version can."""

    program: str
    options: frozenset[str]
    """Those of `_NO_USERS` and `_SIZE` that it knows."""
    mounts: tuple[str, ...]
    filter: bytes
    """Of system calls: a program of the kernel's classic BPF."""

    def arguments(self, memory: int, *, listens: bool = False) -> list[str]:
        """All but what belongs to one task. `memory`: bytes of /dev/shm. `listens`: the network is
        set up from within, by what has the capabilities for that at first."""
        # Without user namespaces, the task would be in one that its network is not of. The filter
        # refuses to make any in either case.
        no_users = [_NO_USERS] if _NO_USERS in self.options and not listens else []
        return [
            *_NAMESPACES,
            *no_users,
            "--cap-drop",
            "ALL",
            *(part for name in CAPABILITIES if listens for part in ("--cap-add", name)),
            *self._memory("/tmp", _TMP),
            *self.mounts,
            "--proc",
            "/proc",
            *visible.kernel(),
            "--dev",
            "/dev",
            *self._memory("/dev/shm", memory),
            "--dir",
            SCRATCH,
        ]

    def _memory(self, path: str, size: int) -> list[str]:
        sized = [_SIZE, str(size)] if _SIZE in self.options else []
        return [*sized, "--tmpfs", path]


_LAST = ["--remount-ro", "/dev", "--remount-ro", "/"]


def find(private: Iterable[Path]) -> Bubblewrap:
    """Starts the node's Python in a sandbox, in which nothing is to be seen of `private`.

    Raises LaunchError with the reason, without a full stop, where that does not work.
    """
    program = shutil.which("bwrap")
    if program is None:
        raise LaunchError("bubblewrap is not installed (apt-get install bubblewrap)")
    said = _said([program, "--help"]).split()
    options = frozenset({_NO_USERS, _SIZE} & set(said))
    try:
        # Its network is its own, and so is what System V has of memory.
        filter = seccomp.program(internet=True, shares_ipc=False)
    except LookupError as error:
        raise LaunchError(str(error).rstrip(".")) from error
    found = Bubblewrap(program, options, tuple(visible.mounts(private)), filter)
    with contextlib.ExitStack() as handed:
        given = Given(handed)
        arguments = [*found.arguments(_TMP), *_LAST, "--seccomp", given.file(filter)]
        start = [sys.executable, "-I", "-S", "-c", ""]
        _said([program, *arguments, "--", *start], given.descriptors)
    return found


def _said(command: list[str], descriptors: Sequence[int] = ()) -> str:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PROBING_TIME,
            check=False,
            pass_fds=descriptors,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LaunchError(f"bubblewrap cannot be started ({error})") from error
    if done.returncode:
        last = (done.stderr.splitlines() or [f"exit code {done.returncode}"])[-1]
        raise LaunchError(
            f"bubblewrap cannot make a sandbox ({last}): user namespaces have to be allowed for "
            "this user (see sysctl kernel.apparmor_restrict_unprivileged_userns, "
            "kernel.unprivileged_userns_clone and user.max_user_namespaces)"
        )
    return done.stdout


class BwrapRunner(local.LocalRunner):
    """Runs `python -m manta.light` with the node's own Python, sandboxed."""

    names: tuple[str, ...] = (BWRAP,)

    def __init__(
        self,
        found: Bubblewrap,
        holder: Holder | None = None,
        give_up: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(holder, give_up)
        self._found = found
        compile_dir(Path(wire.__file__).parent, quiet=2)  # no sandbox could keep what it compiles

    def start(self, spec: RuntimeSpec, on_exit: Callable[[RuntimeExit], None]) -> RuntimeHandle:
        """Raises LaunchError, OSError."""
        sandbox, ways = _Sandbox(self.hold(spec)), spec.outbound

        def ended(how: Ended) -> None:
            if ways is not None:
                ways.close()
            on_exit(sandbox.ended(spec.session, how))

        try:
            with contextlib.ExitStack() as handed:
                given = Given(handed)
                arguments = given.file(_nul(self._arguments(spec, sandbox, given)))
                program = [*local.runtime(None if spec.environment is None else ENVIRONMENT)]
                if ways is not None:
                    ours, theirs = socket.socketpair()
                    ways.take(ours)
                    handed.enter_context(theirs)
                    given.descriptors.append(theirs.fileno())
                    program = listen.command(theirs.fileno(), ways.inside, program)
                command = [self._found.program, "--args", arguments, *program]
                # The task's own environment is among the arguments. By its mark in this one, what a
                # sandbox consists of before it can hear of bubblewrap's end is found by `recover`.
                held = sandbox.held
                child = self.launcher.launch(
                    command if held is None else held.command(command),
                    env=local.interpreter() | ({} if held is None else held.environment),
                    cwd=Path("/"),
                    on_exit=ended,
                    descriptors=[*given.descriptors, sandbox.told],
                    request_end=sandbox.request_end,
                )
        except BaseException:
            if ways is not None:
                ways.close()
            sandbox.close()
            raise
        finally:
            os.close(sandbox.told)
        if sandbox.held is not None:
            sandbox.held.watch(child.pid)
        datasets = {name: dataset_path(name, path) for name, path in spec.datasets.items()}
        usage = local.usage_of(sandbox.held)
        return RuntimeHandle(datasets, lambda: self.launcher.end(child), usage=usage)

    def _arguments(self, spec: RuntimeSpec, sandbox: _Sandbox, given: Given) -> list[str]:
        memory = spec.memory or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
        ways = spec.outbound
        found = self._found.arguments(memory, listens=ways is not None)
        for device in gpus.devices(spec.gpus):
            found += ["--dev-bind", str(device), str(device)]
        for path in _OF_GPUS if spec.gpus else ():
            found += ["--ro-bind-try", path, path]
        for path, text in users("" if ways is None else ways.hosts).items():
            found += ["--file", given.file(text.encode()), path]
        seen = {dataset_path(name, path): path for name, path in spec.datasets.items()}
        seen |= {MODULE: spec.module_folder, SOCKET: spec.socket.parent}
        if spec.environment is not None:
            seen[ENVIRONMENT] = spec.environment
        if sandbox.held is not None and (events := sandbox.held.memory_events) is not None:
            seen[str(events)] = events
        for target, source in seen.items():
            found += ["--ro-bind", str(source.resolve()), target]
        found += ["--bind", str(spec.scratch.resolve()), SCRATCH, *_LAST]
        found += ["--seccomp", given.file(self._found.filter)]
        told = {} if sandbox.held is None else sandbox.held.environment
        for name, value in {**environment(spec), **told}.items():
            found += ["--setenv", name, value]
        # As in `process`; and not where a task may write.
        return [*found, "--chdir", str(local.SOURCES), "--json-status-fd", str(sandbox.told)]


_REACHING = (
    *(f"/etc/{name}" for name in ("ca-certificates", "gai.conf", "host.conf", "hosts")),
    *(f"/etc/{name}" for name in ("nsswitch.conf", "pki", "protocols", "resolv.conf", "services")),
    "/etc/ssl",
)
"""Of the machine, by which names are looked up and certificates checked."""


def with_network(
    found: Bubblewrap,
    shown: Mapping[str, Path],
    own: tuple[str, Path],
    variables: Mapping[str, str],
    given: Given,
) -> list[str]:
    """What is put before a program that is the node's own, and not a task's: it has the machine's
    network, sees `shown`, and may write the folder `own` alone. Both say where it sees what."""
    arguments = [*found.arguments(_TMP), "--share-net", "--clearenv"]
    for path, text in users().items():
        if path not in _REACHING:
            arguments += ["--file", given.file(text.encode()), path]
    for path in _REACHING:
        arguments += ["--ro-bind-try", path, path]
    for target, source in shown.items():
        arguments += ["--ro-bind", str(source.resolve()), target]
    arguments += ["--bind", str(own[1].resolve()), own[0], *_LAST]
    arguments += ["--seccomp", given.file(found.filter)]
    for name, value in variables.items():
        arguments += ["--setenv", name, value]
    arguments += ["--chdir", own[0]]
    return [found.program, "--args", given.file(_nul(arguments))]


def environment(spec: RuntimeSpec) -> dict[str, str]:
    """All that the runtime inherits."""
    own = {} if spec.environment is None else {"VIRTUAL_ENV": ENVIRONMENT}
    programs = [f"{where}/bin" for where in own.values()] + [str(Path(sys.executable).parent)]
    return {
        **local.environment(spec),
        **own,
        "PATH": ":".join((*programs, "/usr/local/bin", "/usr/bin", "/bin")),
        "HOME": SCRATCH,
        "TMPDIR": SCRATCH,
        "MANTA_SOCKET": f"{SOCKET}/{spec.socket.name}",
        "MANTA_MODULE": MODULE,
        "MANTA_SCRATCH": SCRATCH,
    }


def users(hosts: str = "") -> dict[str, str]:
    """What programs look up: the one user there is, and the one host, besides those of `hosts`."""
    user, group = os.getuid(), os.getgid()
    return {
        "/etc/passwd": f"task:x:{user}:{group}:task:{SCRATCH}:/bin/sh\n",
        "/etc/group": f"task:x:{group}:\n",
        "/etc/hosts": hosts + "127.0.0.1 localhost task\n::1 localhost\n",
        "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    }


def _nul(arguments: Iterable[str]) -> bytes:
    return b"".join(os.fsencode(argument) + b"\0" for argument in arguments)


class Given:
    """What bubblewrap reads from pipes, where nobody else finds it; until `undo` is closed."""

    def __init__(self, undo: contextlib.ExitStack) -> None:
        self.descriptors: list[int] = []
        self._undo = undo

    def file(self, data: bytes) -> str:
        """Returns the descriptor, as an argument. Raises OSError."""
        reads, writes = os.pipe2(os.O_CLOEXEC)
        self._undo.callback(os.close, reads)
        self.descriptors.append(reads)
        try:
            if fcntl.fcntl(writes, fcntl.F_GETPIPE_SZ) < len(data):
                fcntl.fcntl(writes, fcntl.F_SETPIPE_SZ, len(data))
            os.write(writes, data)
        finally:
            os.close(writes)
        return str(reads)


class _Sandbox:
    """What bubblewrap tells of a sandbox, in lines of JSON; for the launcher's thread."""

    def __init__(self, held: Held | None) -> None:
        self.held = held
        self._tells, self.told = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._lines = b""

    def request_end(self, process: subprocess.Popen[bytes]) -> None:
        """Ask the runtime to end. Where it does not listen yet, nothing of the task's runs: it is
        killed, since the first process of a namespace hears only what it listens to; with
        bubblewrap's processes one by one, since at first they do not end with each other."""
        pid = self._read("child-pid")
        if pid is not None and _listens(pid, process.pid):
            send(pid, signal.SIGTERM)
        else:
            kill_tree({process.pid})

    def ended(self, session: str, how: Ended) -> RuntimeExit:
        """Returns how the runtime ended, or that there was none."""
        is_made = self._read("exit-code") is not None
        try:
            return self._exit(session, how, is_made=is_made)
        finally:
            self.close()

    def _exit(self, session: str, how: Ended, *, is_made: bool) -> RuntimeExit:
        code, stderr_tail, lost = how
        if lost:
            return local.lost(session, how)
        if code > 0 and not is_made:
            last = (stderr_tail.splitlines() or [f"exit code {code}"])[-1]
            sentence = f"The task's sandbox could not be made: {last}."
            return RuntimeExit(session, code, stderr_tail, sentence, platform=True)
        code = _SIGNALLED - code if code > _SIGNALLED else code
        sentence = "" if self.held is None else self.held.verdict(code)
        return RuntimeExit(session, code, stderr_tail, sentence)

    def close(self) -> None:
        os.close(self._tells)
        if self.held is not None:
            self.held.end()

    def _read(self, name: str) -> int | None:
        with contextlib.suppress(BlockingIOError):
            while more := os.read(self._tells, 4096):
                self._lines += more
        for line in self._lines.splitlines():
            told: Mapping[str, int] = msgspec.json.decode(line)
            if name in told:
                return told[name]
        return None


def _listens(pid: int, parent: int) -> bool:
    """Whether a child of bubblewrap's has a handler for SIGTERM."""
    try:
        with open(f"/proc/{pid}/status") as file:
            fields = dict(line.split(":\t", 1) for line in file if ":\t" in line)
    except OSError:
        return False  # ended meanwhile
    caught = int(fields["SigCgt"], 16) >> (signal.SIGTERM - 1) & 1
    return int(fields["PPid"]) == parent and bool(caught)
