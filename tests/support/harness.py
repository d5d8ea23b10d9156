"""A real LightService and real runtimes; the owner of the sessions is a test actor."""

from __future__ import annotations

import queue
import secrets
import textwrap
import time
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from manta.actors import Actor, ActorSystem, ChildSpec, LocalRef, Restart
from manta.node.blobs.tiered_depot import TieredDepot
from manta.node.runners.interface import Runner, RuntimeExit, RuntimeSpec
from manta.node.runners.process import ProcessRunner
from manta.node.task_server import messages as light
from manta.node.task_server import requests as ask
from manta.node.task_server.service import LightService
from manta.node.task_server.sessions import RuntimeSessions
from manta.node.task_server.streams import Line
from manta.protocol.node import Assignment, Instance, ResultEntry
from manta.protocol.spec import ModuleSpec
from manta.protocol.values import INLINE_LIMIT, BlobRef, Inline, Payload
from manta.testing.waiting import PATIENCE
from manta.transports.blobs.file_depot import FileDepot
from manta.transports.blobs.memory_depot import MemoryDepot
from manta.transports.codec.values import decode, encode

GIGABYTE = 1 << 30


class Owner(Actor):
    """A task supervisor that keeps everything in memory."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def receive(self, message: Any) -> None:
        if isinstance(message, ask.Request):
            self._node.requests.append(message.body)
            self._node.answer(message)
        else:
            self._node.events.put(message)


@dataclass(frozen=True)
class Output:
    """Lines that an attempt wrote to one stream."""

    instance: Instance
    stream: str
    lines: tuple[tuple[float, str], ...]


class Node:
    """What surrounds runtimes on a node."""

    def __init__(self, folder: Path, runner: Runner | None = None, largest: int = GIGABYTE) -> None:
        self.folder = folder
        files = FileDepot(folder / "values", sync=False)
        self.depot = TieredDepot(MemoryDepot(GIGABYTE), files, largest)
        self.is_behind = False
        """Whether who prints is to wait."""
        self.sessions = RuntimeSessions(
            self.depot, folder / "light", self._wrote, lambda _: self.is_behind
        )
        processes = ProcessRunner()
        self.launcher = processes.launcher
        self.runner = runner or processes
        self.events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.requests: list[Any] = []
        self.globals: dict[str, Payload] = {}
        self.state: dict[str, Payload] = {}
        self.results: list[tuple[str, Instance, Payload]] = []
        self.held: list[ask.Request] = []
        self.hold = False
        self.runtimes: list[Runtime] = []
        self.system = ActorSystem("node")
        self.owner = self.system.spawn(ChildSpec("owner", lambda: Owner(self)))
        self.light = self.start_service()

    def _wrote(self, instance: Instance, lines: list[Line]) -> None:
        """By way of the owner, to come in order with its events."""
        for stream, group in groupby(lines, key=lambda line: line[0]):
            output = Output(instance, stream, tuple((at, text) for _, at, text in group))
            self.owner.tell(output)

    def start_service(self) -> LocalRef:
        def create() -> LightService:
            return LightService(self.sessions)

        return self.system.spawn(ChildSpec("light", create, restart=Restart.TEMPORARY))

    def restart_service(self, pause: float = 0.0) -> None:
        self.light.stop()
        self.light.wait(PATIENCE)
        time.sleep(pause)
        self.light = self.start_service()

    def answer(self, request: ask.Request) -> None:
        if self.hold:
            self.held.append(request)
            return
        reply = request.reply
        match request.body:
            case ask.SetGlobal(tag, value):
                self.globals[tag] = value
                reply.set(None)
            case ask.GetGlobal(tag):
                reply.set(self.globals.get(tag))
            case ask.ListGlobalTags():
                reply.set(sorted(self.globals))
            case ask.SetState(key, value):
                self.state[key] = value
                reply.set(None)
            case ask.GetState(key):
                reply.set(self.state.get(key))
            case ask.AddResult(tag, value):
                self.results.append((tag, request.instance, value))
                reply.set(None)
            case ask.SelectResults(tag, iteration):
                wanted = request.instance.iteration if iteration is None else iteration
                reply.set(
                    [
                        ResultEntry("node-id", i.alias, i.index, i.iteration, i.attempt, value)
                        for name, i, value in self.results
                        if name == tag and i.iteration == wanted
                    ]
                )
            case ask.GetResources():
                reply.set(
                    {
                        "cpu_count": 2,
                        "cpu_memory": 8 * GIGABYTE,
                        "available_memory": GIGABYTE,
                        "gpu_available": False,
                        "gpu_memory": 0,
                        "disk_free": GIGABYTE,
                    }
                )
            case ask.GetPerformance():
                reply.set({"cpu_usage": 0.5, "memory_usage": 0.25, "disk_usage": 0.1})
            case ask.StopSwarm() if "refuse" in self.globals:
                reply.fail("SwarmStopped", "The swarm was stopped by its owner.")
            case _:
                reply.set(None)

    def payload(self, value: Any) -> Payload:
        data = encode(value).to_bytes()
        if len(data) <= INLINE_LIMIT:
            return Inline(data)
        return BlobRef(self.depot.put(data), len(data))

    def value(self, payload: Payload | None) -> Any:
        assert payload is not None
        if isinstance(payload, Inline):
            return decode(payload.data)
        source = self.depot.source(payload.digest)
        return decode(source.read(0, payload.size))

    def start(self, source: str | dict[str, str], entry: str = "worker.py", **spec: Any) -> Runtime:
        runtime = Runtime(self, source, entry, **spec)
        self.runtimes.append(runtime)
        return runtime

    def close(self) -> None:
        for runtime in self.runtimes:
            runtime.close()
        self.runner.close()
        self.launcher.close()
        self.system.stop(PATIENCE)
        self.sessions.close()
        self.depot.close()


class Ended:
    """An attempt's end and all that came before it."""

    def __init__(self, node: Node, event: light.AttemptExited, outputs: list[Output]) -> None:
        self.event = event
        self.error = event.error
        self.outputs = outputs
        self._node = node

    @property
    def output(self) -> Any:
        assert self.error is None, self.error
        return self._node.value(self.event.output)

    def lines(self, stream: str) -> list[str]:
        return [text for o in self.outputs if o.stream == stream for _, text in o.lines]


class Runtime:
    """One session and the process behind it."""

    def __init__(
        self,
        node: Node,
        source: str | dict[str, str],
        entry: str,
        datasets: dict[str, Path] | None = None,
        cpu: float | None = 1.0,
        **spec: Any,
    ) -> None:
        self.node = node
        self.id = secrets.token_hex(8)
        module, scratch = node.folder / self.id / "module", node.folder / self.id / "scratch"
        module.mkdir(parents=True)
        scratch.mkdir()
        files = {entry: source} if isinstance(source, str) else source
        for name, text in files.items():
            file = module / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(textwrap.dedent(text))
        opened = node.sessions.open(self.id, node.system.ref("owner"))
        self.token = opened.token
        self.exits: queue.SimpleQueue[RuntimeExit] = queue.SimpleQueue()
        self.spec = RuntimeSpec(
            session=self.id,
            module_folder=module,
            socket=Path(node.sessions.path),
            token=opened.token,
            scratch=scratch,
            entry=entry,
            datasets=datasets or {},
            cpu=cpu,
            **spec,
        )
        self.handle: Any = node.runner.start(self.spec, self.exits.put)
        self.module = module
        self.outputs: list[Output] = []
        self.lives_on: bool | None = None
        """Whether the latest attempt has shown that its object lives on."""
        self.scratch = scratch

    def event(self, kind: type[Any], patience: float = PATIENCE) -> Any:
        """The next event, which must be of that kind; what a runtime says of itself may come
        before."""
        while True:
            event = self.node.events.get(timeout=patience)
            of_itself = (
                light.RuntimeReady | light.ObjectLives | light.PackagesFound | light.StacksTaken
            )
            is_early = isinstance(event, of_itself) and not isinstance(event, kind)
            is_ours = isinstance(event, Output) or event.session == self.id
            if is_ours and not is_early:
                break
        assert isinstance(event, kind), event
        return event

    def ready(self) -> light.RuntimeReady:
        event: light.RuntimeReady = self.event(light.RuntimeReady)
        return event

    def begin(
        self, iteration: int = 0, *, node_id: str = "node-id", index: int = 0, **brief: Any
    ) -> Instance:
        instance = Instance("swarm", "worker", index, iteration)
        fields: dict[str, Any] = {
            "task_id": f"worker-{iteration}",
            "size": 3,
            "seed": 7,
            "datasets": self.handle.datasets,
        }
        fields |= brief
        self.node.sessions.tell(order(self.id, instance, node_id=node_id, **fields))
        return instance

    def end(self, patience: float = PATIENCE) -> Ended:
        """Wait for the attempt that runs; with all that it printed."""
        while True:
            event = self.node.events.get(timeout=patience)
            if isinstance(event, light.AttemptExited):
                outputs, self.outputs = self.outputs, []
                return Ended(self.node, event, outputs)
            if isinstance(event, Output):
                self.outputs.append(event)
            elif isinstance(event, light.ObjectLives):
                self.lives_on = event.lives_on
            else:
                told = light.RuntimeReady | light.PackagesFound | light.StacksTaken
                assert isinstance(event, told), event

    def run(self, iteration: int = 0, **brief: Any) -> Ended:
        self.begin(iteration, **brief)
        return self.end()

    def output(self, stream: str, text: str) -> Output:
        """Wait until the attempt that runs has printed a line."""
        while True:
            event: Output = self.event(Output)
            self.outputs.append(event)
            if event.stream == stream and any(text in line for _, line in event.lines):
                return event

    def close(self) -> None:
        self.handle.kill()
        if self.node.light.is_alive:
            self.node.sessions.tell(light.CloseSession(self.id))


def order(
    session: str,
    instance: Instance,
    datasets: dict[str, str] | None = None,
    **assignment: Any,
) -> light.RunAttempt:
    fields = {"swarm_name": "", "node_id": "", "size": 1, **assignment}
    assigned = Assignment(instance, ModuleSpec("worker"), **fields)
    return light.RunAttempt(session, assigned, datasets or {})
