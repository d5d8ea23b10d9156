"""Runtimes and images in containers of the machine's engine, without a network.

All that a container sees of the node is mounted at fixed places: `/manta/runtime` (what a task
needs of Manta), `/manta/module`, `/manta/datasets/NAME` and `/manta/socket`, read-only, and
`/manta/scratch`. The folder of the socket is mounted, not the socket: a mounted file goes
stale when the node recreates it. Processes are those of the node's own user, so that they may read
what the node may, and the node remove what they wrote; of a node that is root they are nobody's in
particular. What else a container is denied is in `hardening`.

Containers carry the node's label, by which a daemon finds those that an earlier one left.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from manta.light import wire
from manta.node.errors import EngineError, ImageMissing, LaunchError
from manta.node.runners import gpus
from manta.node.runners.container import Container, Output
from manta.node.runners.engine import Engine, Gone
from manta.node.runners.hardening import Hardening
from manta.node.runners.interface import ImageSpec, RuntimeExit, RuntimeHandle, RuntimeSpec
from manta.node.runners.local import thread_counts
from manta.node.runners.paths import (
    ENVIRONMENT,
    MODULE,
    RUNTIME,
    SCRATCH,
    SOCKET,
    dataset_path,
    packages,
)
from manta.node.runners.pulled import Pulled
from manta.node.task_server.streams import Lines
from manta.protocol.bundle import Usage
from manta.protocol.isolation import GVISOR
from manta.protocol.machine import CUDA

if TYPE_CHECKING:
    from manta.node.outbound import Ways

log = logging.getLogger("manta.node.runners")

LABEL = "manta.node"
PATIENCE = 30.0
"""Seconds that the container of an image alone may be out of sight."""
_CLOSING_TIME = 12.0
_RECENT = 60.0  # seconds in which a container is made of an image that was prepared
_NO_PROGRAM = 127  # the exit code of an init that finds no such program
_KERNEL_FAILED = 2  # the exit code of a program in Go that can't have another thread
_WAYS = ".ways"
"""A Unix socket in the scratch folder, while a runtime with ways out begins."""
_LOG = {"max-size": "1m", "max-file": "1"}  # for `docker logs` alone: the node keeps its own


@dataclass
class _Pending:
    """An image that is being looked for, or pulled."""

    done: Future[None] = field(default_factory=Future)
    listeners: list[Callable[[str], None]] = field(default_factory=list)
    said: str = ""


class DockerRunner:
    """`node` is what this node's containers are labelled with, `alias` what errors call it.

    `default_image` is for modules that name none; `runtime` is the folder for PYTHONPATH; those of
    `pulled` are removed that there is no room for.
    """

    def __init__(
        self,
        found: Hardening,
        node: str,
        alias: str,
        default_image: str,
        runtime: Path,
        pulled: Pulled,
    ) -> None:
        """Raises EngineError for an engine of another machine."""
        self.names: tuple[str, ...] = (found.level,)
        self.trouble = ""
        self._found = found
        self._engine = Engine()
        self._node = node
        self._alias = alias
        self._default_image = default_image
        self._runtime = runtime
        self._lock = threading.Lock()
        self._pulled = pulled
        self._prepared: dict[str, float] = {}
        """When images were last prepared, whose containers may be yet to be made."""
        self._pending: dict[str, _Pending] = {}
        self._digests: dict[str, str] = {}
        """Images with their digests, by name, as they were last looked for."""
        self._containers: set[Container] = set()
        self._is_closed = False

    def runs_in_image(self, image: str | None) -> bool:
        return True

    def level(self, image: str | None) -> str:
        return self.names[0]

    def prepare(self, image: str | None, tell: Callable[[str], None]) -> Future[None]:
        """Pulls it when it is absent, once for all who ask meanwhile.

        Fails with ImageMissing or EngineError.
        """
        name = image or self._default_image
        with self._lock:
            pending = self._pending.get(name)
            if pending is None:
                pending = self._pending[name] = _Pending()
                threading.Thread(
                    target=self._fetch, args=(name, pending), name="manta-image", daemon=True
                ).start()
            pending.listeners.append(tell)
            said = pending.said
        if said:
            tell(said)
        return pending.done

    def _fetch(self, image: str, pending: _Pending) -> None:
        digested = image
        try:
            if not self._engine.has_image(image):
                began = time.monotonic()
                where = f"node {self._alias!r}"
                self._say(pending, f"The image {image!r} is not on {where}: pulling it.")
                self._engine.pull(image)
                if (contents := self._engine.contents(image)) is not None:
                    self._pulled.add(image, *contents)
                took = time.monotonic() - began
                self._say(pending, f"The image {image!r} was pulled in {took:.0f} s.")
            digested = self._engine.digested(image)
        except ImageMissing as error:
            problem: Exception | None = ImageMissing(
                f"The image {image!r} is not on node {self._alias!r} and cannot be pulled: "
                f"{error} Bring it there (docker pull, load or build), or correct the image in "
                "Module(...)."
            )
        except Exception as error:
            problem = error
        else:
            problem = None
        with self._lock:
            del self._pending[image]
            if problem is None:
                self._digests[image] = digested
                self._prepared[image] = time.monotonic()
        if problem is None:
            pending.done.set_result(None)
            self._pulled.use(image)
            self._tidy()
        else:
            pending.done.set_exception(problem)

    def _tidy(self) -> None:
        """Removes images that this node has pulled, as long as they take more than they may."""
        kept = set[str]()
        while True:
            now = time.monotonic()
            with self._lock:
                self._prepared = {
                    name: at for name, at in self._prepared.items() if now - at < _RECENT
                }
                kept |= {*self._pending, *self._prepared}
            if (found := self._pulled.next_to_go(kept)) is None:
                return
            name, id_ = found
            try:
                contents = self._engine.contents(name)
                if contents is not None and contents[0] == id_:
                    self._engine.remove_image(name)
                    log.info(
                        "The image %r, which this node has pulled, was removed: images take more "
                        "than they may (containers.images_mb).",
                        name,
                    )
            except EngineError as error:  # a container uses it
                log.info("The image %r is not removed yet: %s", name, error)
                kept.add(name)
            else:
                self._pulled.forget(name)

    def _say(self, pending: _Pending, sentence: str) -> None:
        log.info("%s", sentence)
        with self._lock:
            pending.said = sentence
            listeners = list(pending.listeners)
        for tell in listeners:
            tell(sentence)

    def start(self, spec: RuntimeSpec, on_exit: Callable[[RuntimeExit], None]) -> RuntimeHandle:
        """Raises LaunchError for what can't be mounted, and when the node is stopping; all else is
        told by `on_exit`."""
        image = spec.image or self._default_image
        seen = {RUNTIME: self._runtime, MODULE: spec.module_folder, SOCKET: spec.socket.parent}
        seen |= {} if spec.environment is None else {ENVIRONMENT: spec.environment}
        mounts = self._mounts(spec, seen)

        def options(client: Any) -> dict[str, Any]:
            return {
                **self._options(client, spec, image, mounts),
                "entrypoint": ["python3"],
                "command": ["-m", "manta.light"],
                "working_dir": RUNTIME,  # as in `process`
                "environment": environment(spec),
            }

        def ended(exit_: RuntimeExit) -> None:
            if spec.outbound is not None:
                spec.outbound.close()
            if exit_.code == _NO_PROGRAM and not exit_.sentence:
                sentence = (
                    f"The image {image!r} has no python3, which the module needs: take another, "
                    "or leave the program out to run the image's own entry point."
                )
                exit_ = msgspec.structs.replace(exit_, sentence=sentence)
            elif exit_.code == wire.UNFIT and spec.environment is not None and not exit_.sentence:
                made_for, _, here = exit_.stderr_tail.strip().partition("\n")
                sentence = (
                    f"What the module requires was installed for the node's Python ({made_for}), "
                    f"and that of the image {image!r} is another ({here}): take an image with "
                    "that Python, or one that has what is required, and leave requirements out."
                )
                exit_ = msgspec.structs.replace(exit_, stderr_tail="", sentence=sentence)
            elif exit_.code == _KERNEL_FAILED and GVISOR in self.names and not exit_.sentence:
                sentence = (
                    "The task's kernel, gVisor's, has failed: most often since the task had more "
                    f"processes and threads than it may, {self._found.processes:,}: start fewer at "
                    "a time."
                )
                exit_ = msgspec.structs.replace(exit_, sentence=sentence)
            on_exit(exit_)

        try:
            if spec.outbound is not None:
                self._open(spec.outbound, spec.scratch)
            return self._launch(spec, options, ended)
        except (LaunchError, OSError):
            if spec.outbound is not None:
                spec.outbound.close()
            raise

    def _open(self, ways: Ways, scratch: Path) -> None:
        """Where the runtime hands over the sockets at which it listens for the task. Raises
        OSError."""
        folder = os.open(scratch, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listening.bind(f"/proc/self/fd/{folder}/{_WAYS}")  # the path may be too long for one
            listening.listen(1)
            self._found.give(scratch / _WAYS)
        except OSError:
            listening.close()
            raise
        finally:
            os.close(folder)
        ways.take_at(listening, lambda: (scratch / _WAYS).unlink(missing_ok=True))

    def start_image(
        self,
        spec: ImageSpec,
        on_output: Callable[[str, Sequence[tuple[float, str]]], None],
        on_exit: Callable[[RuntimeExit], None],
    ) -> RuntimeHandle:
        """Not as the image's own user, who may be root. Raises LaunchError, as `start` does."""
        mounts = self._mounts(spec, {})
        own = {
            **gpus.environment(spec.gpus),
            **spec.environment,
            "HOME": SCRATCH,
            "TMPDIR": SCRATCH,
            "MANTA_SCRATCH": SCRATCH,
        }

        def options(client: Any) -> dict[str, Any]:
            return {**self._options(client, spec, spec.image, mounts), "environment": own}

        def pump(output: Output) -> None:
            streams = {"stdout": Lines(), "stderr": Lines()}
            for both in output:
                for (name, lines), data in zip(streams.items(), both, strict=True):
                    if data and (found := lines.feed(data) + lines.redrawn(time.monotonic())):
                        now = time.time()
                        on_output(name, [(now, line) for line in found])
            for name, lines in streams.items():
                if found := lines.rest():
                    on_output(name, [(time.time(), line) for line in found])

        return self._launch(spec, options, on_exit, pump=pump, patience=PATIENCE)

    def _mounts(self, spec: RuntimeSpec | ImageSpec, more: Mapping[str, Path]) -> list[Any]:
        """What a container sees of the node, read-only, and its scratch folder. Raises
        LaunchError."""
        from docker.types import Mount

        for name, path in spec.datasets.items():
            if not self._found.may_read(path):
                raise LaunchError(
                    f"The data set {name!r} can't be read by tasks in containers, which are user "
                    f"{self._found.user[0]}'s, on a node that is root: let others read it "
                    f"(chmod -R o+rX {path}), or run the node as the user whose it is."
                )
        seen = {dataset_path(name, path): path for name, path in spec.datasets.items()} | {**more}
        outside = self._found.outside
        mounts = [
            Mount(target, outside(source), type="bind", read_only=True)
            for target, source in seen.items()
        ]
        try:
            self._found.give(spec.scratch)
        except OSError as error:
            raise LaunchError(f"A task can't be given its scratch folder: {error}.") from error
        return [*mounts, Mount(SCRATCH, outside(spec.scratch), type="bind")]

    def _options(
        self, client: Any, spec: RuntimeSpec | ImageSpec, image: str, mounts: list[Any]
    ) -> dict[str, Any]:
        from docker.types import DeviceRequest, LogConfig

        named = [gpu.name for gpu in spec.gpus if gpu.info.kind == CUDA]
        others = gpus.devices([gpu for gpu in spec.gpus if gpu.info.kind != CUDA])
        return {
            "image": image,
            "name": f"manta-{spec.session}-{secrets.token_hex(3)}",
            "hostname": "task",
            "labels": {LABEL: self._node, "manta.task": spec.task},
            "user": ":".join(map(str, self._found.user)),
            "host_config": self._found.host_config(
                client,
                memory=spec.memory,
                cpu=spec.cpu,
                is_runtime=isinstance(spec, RuntimeSpec),
                ways=spec.outbound if isinstance(spec, RuntimeSpec) else None,
                mounts=mounts,
                device_requests=[DeviceRequest(device_ids=named, capabilities=[["gpu"]])]
                if named
                else None,
                devices=[str(path) for path in others] or None,
                group_add=sorted({str(path.stat().st_gid) for path in others}) or None,
                log_config=LogConfig(type="json-file", config=_LOG),
            ),
        }

    def _launch(
        self,
        spec: RuntimeSpec | ImageSpec,
        options: Callable[[Any], dict[str, Any]],
        on_exit: Callable[[RuntimeExit], None],
        **how: Any,
    ) -> RuntimeHandle:
        with self._lock:
            if self._is_closed:
                raise LaunchError("The node is stopping: nothing is started any more.")
            container = Container(self._engine, spec.session, options, on_exit, **how)
            self._containers = {c for c in self._containers if c.is_alive} | {container}
        datasets = {name: dataset_path(name, path) for name, path in spec.datasets.items()}
        image = spec.image or self._default_image
        limits = Usage(memory_limit=spec.memory)
        return RuntimeHandle(
            datasets, container.kill, usage=lambda: limits, image=self._digests.get(image, image)
        )

    def recover(self) -> list[str]:
        """Raises EngineError."""
        found = []
        for container in self._engine.containers(f"{LABEL}={self._node}"):
            try:
                with self._engine.errors():
                    self._engine.client.remove_container(container["Id"], v=True, force=True)
            except Gone:
                continue
            except EngineError as error:
                found.append(f"Container {container['Id'][:12]} could not be removed: {error}")
                continue
            task = container["Labels"].get("manta.task") or "a task"
            found.append(
                f"The container of {task} ({container['State']}), which the daemon before this "
                "one has left, was removed."
            )
        self._tidy()
        return found

    def close(self) -> None:
        """Idempotent."""
        with self._lock:
            self._is_closed = True
        for container in self._containers:
            container.close()
        deadline = time.monotonic() + _CLOSING_TIME
        for container in self._containers:
            if not container.join(max(0.0, deadline - time.monotonic())):
                log.error("The container of session %s could not be ended.", container.session)
        self._engine.close()


def environment(spec: RuntimeSpec) -> dict[str, str]:
    """All that the runtime gets besides what its image sets."""
    limit = {} if spec.memory is None else {"MANTA_MEMORY": str(spec.memory)}
    path, own = RUNTIME, dict[str, str]()
    if spec.outbound is not None:
        ways = msgspec.json.encode(spec.outbound.inside).decode()
        own = {"MANTA_WAYS": ways, "MANTA_WAYS_SOCKET": f"{SCRATCH}/{_WAYS}"}
    if spec.environment is not None and (folder := packages(spec.environment)) is not None:
        # A virtual environment is of one Python; its packages serve any that is the same.
        seen = f"{ENVIRONMENT}/{folder.relative_to(spec.environment)}"
        path = f"{RUNTIME}:{seen}"
        own |= {"MANTA_PACKAGES": seen, "MANTA_INTERPRETER": wire.interpreter()}
    return {
        "LANG": "C.UTF-8",
        **limit,
        **own,
        **thread_counts(spec.cpu),
        **gpus.environment(spec.gpus),
        "HOME": SCRATCH,
        "TMPDIR": SCRATCH,
        "PYTHONPATH": path,
        "PYTHONSAFEPATH": "1",
        "MANTA_SOCKET": f"{SOCKET}/{spec.socket.name}",
        "MANTA_TOKEN": spec.token,
        "MANTA_MODULE": MODULE,
        "MANTA_ENTRY": spec.entry,
        "MANTA_SCRATCH": SCRATCH,
    }
