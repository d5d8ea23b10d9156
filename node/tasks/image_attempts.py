"""Attempts of an image that runs its own entry point: one container for each.

Its exit code says whether the attempt FINISHED, and what it prints are its logs. What a task would
ask Manta for, it finds in variables of its environment.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from manta.node.runners.gpus import Gpu
from manta.node.runners.interface import ImageSpec, RuntimeExit
from manta.node.task_server.messages import AttemptExited
from manta.node.task_server.sessions import TAIL
from manta.node.tasks import machine as task_machine
from manta.protocol.node import Assignment, Instance, TaskError


class ImageAttempt:
    """Keeps the container's output and reports its end; called on the container's thread."""

    def __init__(
        self,
        assignment: Assignment,
        keep_output: Callable[[Instance, list[tuple[str, float, str]]], None],
        tell: Callable[[AttemptExited | RuntimeExit], object],
    ) -> None:
        self._instance = assignment.instance
        self._keep_output = keep_output
        self._tell = tell
        self._tail: deque[str] = deque(maxlen=TAIL)
        self._began = time.monotonic()

    def on_output(self, stream: str, lines: Sequence[tuple[float, str]]) -> None:
        self._tail.extend(text for _, text in lines)
        self._keep_output(self._instance, [(stream, at, text) for at, text in lines])

    def on_exit(self, exit_: RuntimeExit) -> None:
        session, instance = exit_.session, self._instance
        if exit_.platform:
            self._tell(msgspec.structs.replace(exit_, stderr_tail=""))
            return
        error: TaskError | None = None
        if exit_.code != 0:
            name = f"{instance.alias}.{instance.index}"
            sentence = exit_.sentence or f"{name} failed: {_words(exit_.code)}"
            if exit_.image:
                sentence += f" Its image is {exit_.image}."
            error = TaskError("ImageFailed", sentence, last_lines=tuple(self._tail))
        running = time.monotonic() - self._began
        self._tell(AttemptExited(session, instance, None, error, running))


def image_spec(
    session: str,
    assignment: Assignment,
    node_alias: str,
    scratch: Path,
    datasets: dict[str, Path],
    cpu: float | None,
    *,
    gpus: tuple[Gpu, ...] = (),
) -> ImageSpec:
    """`cpu`: cores of a task that asks for none."""
    instance, resources = assignment.instance, assignment.resources
    image = assignment.module.image
    assert image is not None
    return ImageSpec(
        session=session,
        image=image,
        scratch=scratch,
        environment={
            "MANTA_SWARM_ID": instance.swarm_id,
            "MANTA_SWARM_NAME": assignment.swarm_name,
            "MANTA_TASK_ID": assignment.task_id,
            "MANTA_TASK": instance.alias,
            "MANTA_INDEX": str(instance.index),
            "MANTA_SIZE": str(assignment.size),
            "MANTA_ITERATION": str(instance.iteration),
            "MANTA_ATTEMPT": str(instance.attempt),
            "MANTA_SEED": str(assignment.seed),
            "MANTA_NODE_ID": assignment.node_id,
            "MANTA_NODE_ALIAS": node_alias,
        },
        datasets=datasets,
        cpu=resources.cpu if resources and resources.cpu else cpu,
        memory=resources.memory if resources else None,
        gpus=gpus,
        task=f"{instance.swarm_id}.{instance.alias}",
    )


def _words(code: int | None) -> str:
    if code is None:
        return "nobody knows how its container ended."
    if code < 0:
        return f"its container was ended by {task_machine.signal_name(-code)}."
    return f"its image's entry point exited with code {code}."
