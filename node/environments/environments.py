"""Makes environments, one at a time, each once for all who ask meanwhile, and keeps them.

An environment is a virtual environment of the node's own Python: what was required, with all that
this needs, before what the node's Python has itself. It is built aside, and renamed when it is
whole. `manta.node.environments.building` says what an installer may do meanwhile.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import shutil
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Final

from manta.light.wire import interpreter
from manta.node.environments import recipe, told
from manta.node.environments.folders import Entry, Folders, foreign_in, links_in, size_of
from manta.node.environments.recipe import Policy, Wanted
from manta.node.errors import LaunchError, RequirementsError, StorageError
from manta.node.runners import selection
from manta.node.runners.paths import packages
from manta.node.state import open_to_readers, remove_folder
from manta.protocol.isolation import LIMITS
from manta.protocol.names import listed
from manta.protocol.requirements import digest_of, named
from manta.transports.errors import remedied

if TYPE_CHECKING:
    from manta.node.environments.building import Done
    from manta.node.isolation.holding import Holder

log = logging.getLogger("manta.node.environments")

_MIB = 1 << 20
_LEAST = 64 * _MIB
"""Bytes that must be left for another environment."""
_CLOSING_TIME = 10.0
_LOOK = 0.25  # seconds between looks at whether what waits for its turn is still wanted
_STOPPING = "The node is stopping, or nobody waits for it: nothing is installed any more."
MOST_PENDING: Final = 32
"""Environments that wait for their turn, with the one that is built."""
_NODE_S = "manta-node.pth"
_BY_THE_PYTHON_BESIDE = b"""#!/bin/sh
'''exec' "$(dirname -- "$(realpath -- "$0")")/python" "$0" "$@"
' '''
"""


@dataclass
class _Pending:
    """An environment that is being built."""

    done: Future[Path] = field(default_factory=Future)
    listeners: list[Callable[[str], None]] = field(default_factory=list)
    said: str = ""
    users: set[str] = field(default_factory=set)
    stop: threading.Event = field(default_factory=threading.Event)
    """Nobody wants it any more, or the node stops."""


class Environments:
    """May be used from any thread. `alias` is what errors call the node."""

    def __init__(
        self, path: Path, policy: Policy, private: Iterable[Path], alias: str, holder: Holder
    ) -> None:
        """`private`: files and folders of which no installer sees anything. `holder`: what holds
        installers, which is closed with this."""
        self._folders = Folders(path, policy.most_bytes)
        self._policy = policy
        self._private = tuple(private)
        self._alias = alias
        self._holder = holder
        self._lock = threading.Lock()
        self._pending: dict[str, _Pending] = {}
        self._threads: set[threading.Thread] = set()
        self._is_closed = False
        self._turn = threading.Lock()
        """Of the one that is built: what it may take of the disk is what the others leave."""

    @property
    def there(self) -> tuple[str, ...]:
        """Digests of the requirements of which there is one."""
        return self._folders.there if self._policy.allow else ()

    def prepare(
        self, module: str, lines: Sequence[str], user: str, tell: Callable[[str], None]
    ) -> Future[Path | None]:
        """Has what these requirements of a module name. None: nothing is to be installed here.

        It stays until `user` prepares another one or leaves. `tell` takes a sentence for the task's
        user when that takes a while, from any thread. Fails with RequirementsError, LaunchError or
        StorageError.
        """
        result: Future[Path | None] = Future()
        try:
            wanted = self._wanted(module, lines)
        except RequirementsError as error:
            result.set_exception(error)
            return result
        if wanted is None:
            self.leave(user)
            result.set_result(None)
            return result
        key = recipe.key_of(wanted, _python(), self._policy)
        self._leave(user, key)
        self._folders.use(key, user)

        def built(done: Future[Path]) -> None:
            if (problem := done.exception()) is not None:
                result.set_exception(problem)
            else:
                result.set_result(done.result())

        what, asked = f"module {module!r}", digest_of(lines)
        self._built(key, what, wanted, asked, user, tell).add_done_callback(built)
        return result

    def leave(self, user: str) -> None:
        """What is built for nobody else is given up."""
        self._leave(user)
        self._folders.leave(user)

    def _leave(self, user: str, but: str = "") -> None:
        with self._lock:
            for key, pending in self._pending.items():
                if key != but and user in pending.users:
                    pending.users.discard(user)
                    if not pending.users:
                        pending.stop.set()

    def close(self) -> None:
        """Ends what is being built, and waits for it. Idempotent."""
        with self._lock:  # nothing is begun any more
            self._is_closed = True
            for pending in self._pending.values():
                pending.stop.set()
            threads = tuple(self._threads)
        deadline = time.monotonic() + _CLOSING_TIME
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._holder.close()

    def _wanted(self, module: str, lines: Sequence[str]) -> Wanted | None:
        try:
            wanted = recipe.wanted(lines)
        except ValueError as error:
            raise RequirementsError(f"A requirement of module {module!r}: {error}.") from error
        if wanted is not None and not self._policy.allow:
            raise RequirementsError(
                f"Module {module!r} requires {listed(named(wanted.lines))}, and node "
                f"{self._alias!r} installs nothing: its owner says so (requirements.allow = "
                "false). Leave requirements out where the node's Python has them, or use another "
                "node."
            )
        return wanted

    def _built(
        self,
        key: str,
        what: str,
        wanted: Wanted,
        asked: str,
        user: str,
        tell: Callable[[str], None],
    ) -> Future[Path]:
        with self._lock:
            if (folder := self._folders.find(key)) is not None:
                there: Future[Path] = Future()
                there.set_result(folder)
                return there
            pending = self._pending.get(key)
            if pending is None or pending.stop.is_set():
                if flaw := self._too_much():
                    refused: Future[Path] = Future()
                    refused.set_exception(LaunchError(flaw))
                    return refused
                pending = self._pending[key] = _Pending()
                thread = threading.Thread(
                    target=self._build,
                    args=(key, what, wanted, asked, pending),
                    name="manta-environment",
                    daemon=True,
                )
                self._threads = {one for one in self._threads if one.is_alive()} | {thread}
                thread.start()
            pending.listeners.append(tell)
            pending.users.add(user)
            said = pending.said
        if said:
            tell(said)
        return pending.done

    def _too_much(self) -> str:
        """Why nothing more is built now, in a sentence; "" if it is."""
        if self._is_closed:
            return _STOPPING
        if len(self._pending) >= MOST_PENDING:
            return (
                f"Node {self._alias!r} has the requirements of {MOST_PENDING} modules to install "
                "already: try again later, or use another node."
            )
        return ""

    # A thread of its own.

    def _build(self, key: str, what: str, wanted: Wanted, asked: str, pending: _Pending) -> None:
        folder: Path | None = None
        problem: Exception | None = None
        try:
            with self._in_turn(what, pending):
                began = time.monotonic()
                names = listed(named(wanted.lines))
                self._say(pending, f"Node {self._alias!r} installs what {what} requires: {names}.")
                folder = self._made(key, what, wanted, asked, pending.stop)
                took = time.monotonic() - began
            self._say(pending, f"What {what} requires was installed in {took:.0f} s.")
        except OSError as error:
            problem = StorageError(f"What {what} requires can't be installed: {remedied(error)}.")
        except Exception as error:
            problem = error
        with self._lock:
            if self._pending[key] is pending:  # else it is wanted anew
                del self._pending[key]
        if folder is not None:
            pending.done.set_result(folder)
        else:
            assert problem is not None
            pending.done.set_exception(problem)

    @contextlib.contextmanager
    def _in_turn(self, what: str, pending: _Pending) -> Iterator[None]:
        """Raises LaunchError."""
        if not self._turn.acquire(blocking=False):
            waits = f"What {what} requires is installed on node {self._alias!r} once others are."
            self._say(pending, waits)
            while not self._turn.acquire(timeout=_LOOK):
                if pending.stop.is_set():
                    raise LaunchError(_STOPPING)
        try:
            yield
        finally:
            self._turn.release()

    def _say(self, pending: _Pending, sentence: str) -> None:
        log.info("%s", sentence)
        with self._lock:
            pending.said = sentence
            listeners = list(pending.listeners)
        for tell in listeners:
            tell(sentence)

    def _made(self, key: str, what: str, wanted: Wanted, asked: str, stop: threading.Event) -> Path:
        """Raises OSError, RequirementsError, LaunchError."""
        import tempfile  # dear to import, and not needed to start a node

        path = self._folders.path
        path.mkdir(mode=0o700, exist_ok=True)
        if os.statvfs(path).f_flag & os.ST_NOEXEC:
            raise LaunchError(
                f"Nothing can be installed in {path}, which is mounted noexec: no library in it "
                "could be loaded; keep the node's state elsewhere (MANTA_HOME)."
            )
        room = min(self._folders.room(), shutil.disk_usage(path).free)
        if room < _LEAST:
            raise LaunchError(
                f"There are {room / _MIB:,.0f} MiB for another environment, of "
                f"{self._policy.most_bytes / _MIB:,.0f} MiB that all may take "
                "(requirements.disk_mb): wait for tasks to end, or let there be more."
            )
        draft = Path(tempfile.mkdtemp(dir=path, prefix=".draft-"))
        try:
            self._install(draft, what, wanted, room, stop)
            _finish(draft)
            return self._folders.add(key, draft, Entry(asked, size_of(draft)))
        finally:
            remove_folder(draft)

    def _install(
        self, draft: Path, what: str, wanted: Wanted, room: int, stop: threading.Event
    ) -> None:
        import venv

        from manta.node.environments.building import Bench

        venv.EnvBuilder(symlinks=True).create(draft)
        own_links, build = links_in(draft), draft / recipe.BUILD
        build.mkdir()
        for name, text in recipe.files(wanted).items():
            (build / name).write_text(text, encoding="utf-8")
        uv = _uv()
        if uv is None and not _has_pip():
            raise LaunchError(
                f"Node {self._alias!r} has neither uv nor pip, and installs nothing: install one "
                f"of them ({sys.executable} -m ensurepip), or set requirements.allow = false."
            )
        policy = self._policy
        index = Path(policy.index) if policy.is_folder else None
        bench = Bench(self._level, draft, index, uv, self._holder)
        places = bench.places
        variables = recipe.environment(policy, places) | recipe.passed_on(os.environ)
        if uv is not None:
            program = recipe.with_uv(bench.installer, wanted, policy, places)
        else:
            program = recipe.with_pip(sys.executable, wanted, policy, places)
        done = bench.run(program, variables, room, stop)
        self._check(done, what, wanted, room, build)
        remove_folder(build)
        if foreign := foreign_in(draft, own_links):  # which only code that builds can leave
            raise RequirementsError(
                f"What {what} requires leaves {foreign[-80:]!r} behind on node {self._alias!r}, a "
                "link or something else that is no file: require what installs files alone."
            )

    def _check(self, done: Done, what: str, wanted: Wanted, room: int, build: Path) -> None:
        where = f"{what} on node {self._alias!r}"
        if done.stopped == "unwanted":
            raise LaunchError(_STOPPING)
        if done.stopped == "time":
            raise RequirementsError(
                f"What {where} requires was not installed in time, and was given up: "
                "require less, or have the node's owner set an index that is nearer "
                "(requirements.index)."
            )
        if done.stopped == "disk":
            raise RequirementsError(
                f"What {where} requires takes more than the {room / _MIB:,.0f} MiB that there are "
                "for it: require less, or let the node's owner allow more (requirements.disk_mb)."
            )
        if done.code != 0:
            here = f"Python {platform.python_version()} on {sysconfig.get_platform()}"
            log_ = _end_of_log(build)
            raise RequirementsError(
                told.sentence(where, done.said, log_, wanted, self._policy, here)
            )

    @cached_property
    def _level(self) -> selection.Local:
        """The strongest that works, whatever tasks run in: an installer is given the network."""
        found = selection.local(self._private)
        if found.level == LIMITS:
            log.warning(
                "What modules require is installed by a plain process, which can do all that this "
                "user can (%s): install bubblewrap, or set requirements.allow = false.",
                found.why,
            )
        return found


def _python() -> str:
    """What an environment is for: its Python, and what it consists of."""
    base = getattr(sys, "_base_executable", sys.executable)
    parts = (interpreter(), platform.python_version(), str(base), *_node_s_packages())
    return "\n".join(parts)


def _node_s_packages() -> list[str]:
    """What the node's Python has itself."""
    return [each for each in sys.path if PurePath(each).name in ("site-packages", "dist-packages")]


def _uv() -> Path | None:
    found = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    return None if found is None else Path(found).absolute()


def _finish(draft: Path) -> None:
    """Leaves what tasks need, wherever they will see it."""
    folder = packages(draft)
    assert folder is not None  # the module venv makes it
    own = "".join(f"{each}\n" for each in _node_s_packages())
    (folder / _NODE_S).write_text(own, encoding="utf-8")
    for script in (draft / "bin").iterdir():
        if script.is_file() and not script.is_symlink():
            _make_movable(script)
    open_to_readers(draft)


def _make_movable(script: Path) -> None:
    """Has a script run by the Python beside it: it names that of where it was installed."""
    with script.open("rb") as file:
        first = file.readline(4096)
        if not first.startswith(b"#!") or b"python" not in first:
            return
        rest = file.read()
    script.write_bytes(_BY_THE_PYTHON_BESIDE + rest)


def _end_of_log(build: Path, most: int = 1 << 20) -> str:
    """The last bytes of what the installer wrote, "" if there is nothing. Follows no link, and
    waits for no pipe: code that builds may have left one there."""
    follows_none = os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        folder = os.open(build, os.O_PATH | os.O_DIRECTORY | follows_none)
        try:
            how = os.O_RDONLY | os.O_NONBLOCK | follows_none
            log_ = os.open(recipe.LOG, how, dir_fd=folder)
        finally:
            os.close(folder)
        with open(log_, "rb") as file:
            file.seek(max(0, os.fstat(log_).st_size - most))  # raises OSError for a pipe
            return file.read(most).decode(errors="replace")
    except OSError:
        return ""


def _has_pip() -> bool:
    try:
        version("pip")
    except PackageNotFoundError:
        return False
    return True
