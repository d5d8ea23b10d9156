"""Runs an installer: in a sandbox that has the network, within bounds of time, disk and output.

It sees the node's Python, the index if that is a folder, and the draft of the environment, which
alone it may write. Where neither bubblewrap nor Landlock works it is a plain process. What it
leaves running is ended with it: a sandbox ends as a whole; elsewhere `adopt` is the parent of all
that hangs nowhere else, and a control group, where there are any, holds what has killed that.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

from manta.light.runtime.processes import kill_tree, marked
from manta.node.environments.folders import size_of
from manta.node.environments.recipe import Places
from manta.node.isolation import adopt, enter
from manta.node.isolation.holding import Held, Holder
from manta.node.isolation.landlock import OWN, READ, RUN, Rule
from manta.node.runners import bwrap
from manta.node.runners.local import SOURCES, interpreter
from manta.node.runners.paths import ENVIRONMENT, INDEX, UV
from manta.node.runners.selection import Local

SECONDS: Final = 540.0
"""A build may take so long: less than what a task is prepared in."""
OUTPUT: Final = 64 * 1024
"""Bytes of what an installer says that are kept, the last."""
_LOOK = 0.25  # seconds between looks at the disk and the clock
_MARK = "MANTA_BUILD"

_RELEASE = tuple(
    Rule(f"/etc/{name}", READ, may_lack=True)
    for name in ("debian_version", "lsb-release", "os-release")
)
"""By which pip tells an index what asks."""


class Done(NamedTuple):
    code: int
    said: str
    stopped: str = ""
    """Why it was ended: "time", "disk" or "unwanted"."""


@dataclass(frozen=True)
class Bench:
    """Where one environment is built, and how its installer is started."""

    level: Local
    draft: Path
    index: Path | None
    uv: Path | None
    holder: Holder
    """Keeps what it starts within limits, and finds what a daemon that was killed has left."""

    @property
    def places(self) -> Places:
        """Where the installer sees what it needs."""
        if self.level.sandbox is not None:
            index = None if self.index is None else PurePosixPath(INDEX)
            return Places(PurePosixPath(ENVIRONMENT), index)
        index = None if self.index is None else PurePosixPath(self.index)
        return Places(PurePosixPath(self.draft), index)

    @property
    def installer(self) -> str:
        """uv, as it is seen there."""
        return UV if self.level.sandbox is not None else str(self.uv)

    def run(
        self,
        program: Sequence[str],
        variables: Mapping[str, str],
        room: int,
        stop: threading.Event,
        seconds: float = SECONDS,
    ) -> Done:
        """`room`: bytes that the draft may have. Raises OSError."""
        held = self.holder.hold(self.draft.name, None, None)
        try:
            return self._held(held, program, variables, room, stop, seconds)
        finally:
            held.end()

    def _held(
        self,
        held: Held,
        program: Sequence[str],
        variables: Mapping[str, str],
        room: int,
        stop: threading.Event,
        seconds: float,
    ) -> Done:
        with contextlib.ExitStack() as handed:
            command, environment, descriptors = self._command(program, variables, handed)
            process = subprocess.Popen(
                held.command(command),
                env={**environment, **held.environment, _MARK: self.draft.name},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,  # pip says there why requirements do not go together
                pass_fds=descriptors,
                start_new_session=True,
            )
        held.watch(process.pid)
        try:
            done = self._watch(process, room, stop, seconds)
            verdict = held.verdict(None)
            return done._replace(said=f"{done.said}\n{verdict}") if verdict else done
        finally:
            left = marked(f"{_MARK}={self.draft.name}")
            kill_tree(left if process.poll() is not None else left | {process.pid})
            process.wait()
            assert process.stdout is not None
            process.stdout.close()

    def _command(
        self, program: Sequence[str], variables: Mapping[str, str], handed: contextlib.ExitStack
    ) -> tuple[list[str], dict[str, str], list[int]]:
        """With what it is started: its own variables may be told to bubblewrap."""
        if self.level.sandbox is not None:
            given = bwrap.Given(handed)
            shown = {INDEX: self.index, UV: self.uv}
            before = bwrap.with_network(
                self.level.sandbox,
                {target: path for target, path in shown.items() if path is not None},
                (ENVIRONMENT, self.draft),
                variables,
                given,
            )
            return [*before, "--", *program], interpreter(), given.descriptors
        confinement = self.level.confinement
        if confinement is not None:
            rules = [*confinement.rules, *_RELEASE, Rule(str(self.draft), OWN)]
            rules += [] if self.index is None else [Rule(str(self.index.resolve()), READ)]
            rules += [] if self.uv is None else [Rule(str(self.uv.resolve()), RUN)]
            confinement = confinement._replace(rules=tuple(rules), internet=True)
        # What finds Manta for who confines itself would hide from the installer what is missing.
        own = ["/usr/bin/env", "-u", "PYTHONPATH", *program]
        command = adopt.command(enter.command(own, confinement=confinement))
        return command, {**variables, "PYTHONPATH": str(SOURCES)}, []

    def _watch(
        self,
        process: subprocess.Popen[bytes],
        room: int,
        stop: threading.Event,
        seconds: float,
    ) -> Done:
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        said, stopped, deadline = b"", "", time.monotonic() + seconds
        with selectors.DefaultSelector() as ready:
            ready.register(process.stdout, selectors.EVENT_READ)
            looked = time.monotonic()
            while process.poll() is None and not stopped:
                if ready.get_map() and ready.select(_LOOK):
                    data = process.stdout.read(OUTPUT)
                    said = (said + (data or b""))[-OUTPUT:]
                    if data == b"":
                        ready.unregister(process.stdout)
                elif not ready.get_map():
                    stop.wait(_LOOK)
                if stop.is_set():
                    stopped = "unwanted"
                elif time.monotonic() > deadline:
                    stopped = "time"
                elif time.monotonic() - looked >= _LOOK:
                    looked = time.monotonic()
                    stopped = "disk" if size_of(self.draft) > room else ""
        if not stopped:
            said = (said + (process.stdout.read(OUTPUT) or b""))[-OUTPUT:]
            stopped = "disk" if size_of(self.draft) > room else ""
        return Done(process.poll() or 0, said.decode(errors="replace"), stopped)
