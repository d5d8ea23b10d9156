"""Runs a task in this process, debugger included, as a node would but without one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from manta.apis import checks
from manta.apis.task import Task
from manta.testing.attempts import Attempt, TaskRun, brief_of, entries, through, within
from manta.testing.programs import check_task, included, loaded, outcome_of
from manta.testing.task_ending import task_ending


def run_task(
    task: Callable[..., Any] | str | os.PathLike[str],
    globals: Mapping[str, Any] | None = None,
    datasets: Mapping[str, Any] | None = None,
    results: Mapping[str, Any] | None = None,
    *,
    class_name: str | None = None,
    include: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = (),
    broadcasts: Mapping[str, Any] | None = None,
    messages: Mapping[tuple[str, str], Sequence[Any]] | None = None,
    state: Mapping[str, Any] | None = None,
    checkpoint: Any = None,
    iteration: int = 0,
    seed_: int = 0,
) -> TaskRun:
    """Run one task once, in this process, and return what it wrote.

    `task`: a class, a function, what `@task` made of one, a path of a module (a file or a package
    folder), or source text (it has a newline). A function or class runs as it is here; a function
    that could not travel as source is refused. A module can import what it could import on a node:
    what is installed, what lies beside it, and what is named in `include`, as in `Module`.
    `datasets`: paths by name, or arrays and dicts of arrays, which become files. `results`: what
    tasks before it wrote, by tag: a list of values, or a dict by node. Values go through Manta's
    encoding, so that what could not be sent fails here too. `messages` are those that it may
    receive, by (node, tag). It is the only instance of its task (rank 0 of 1) on the node
    "node-1". Exceptions of its code pass through, SystemExit too unless it says that all is well,
    as on a node. Raises TypeError for arguments that it does not take.

    What its code leaves to do is done within 10 seconds, as on a node: threads and executors are
    waited for, its exit handlers and finalizers run, and open files are written out. What is not
    done by then raises a RuntimeWarning.
    """
    if isinstance(task, Task) and task.module.function is not None:
        task = task.module.function
    check_task(task)
    class_name = checks.optional_name("run_task()'s class_name", class_name)
    iteration = checks.integer("run_task()'s iteration", iteration, 0)
    seed_ = checks.integer("run_task()'s seed_", seed_, 0)
    for name, given in (
        ("globals", globals),
        ("datasets", datasets),
        ("results", results),
        ("broadcasts", broadcasts),
        ("messages", messages),
        ("state", state),
    ):
        if given is not None and not isinstance(given, Mapping):
            raise TypeError(f"run_task() takes {name} as a dict, not a {type(given).__name__}.")
    run = TaskRun(
        globals={tag: through(value) for tag, value in (globals or {}).items()},
        state={key: through(value) for key, value in (state or {}).items()},
        checkpoint=through(checkpoint),
    )
    given = {tag: entries(tag, value, iteration) for tag, value in (results or {}).items()}
    heard = {tag: through(value) for tag, value in (broadcasts or {}).items()}
    waiting = {key: [*map(through, values)] for key, values in (messages or {}).items()}
    with tempfile.TemporaryDirectory(prefix="manta-task-") as folder:
        brief = brief_of(Path(folder), datasets or {}, iteration, seed_, class_name)
        with (
            loaded(task, Path(folder), included(include)) as program,
            within(Attempt(brief, run, given, heard, waiting)),
            task_ending() as end,
        ):
            (target,) = program.targets(class_name, 1)
            run.output = through(outcome_of(target))
            del target
            end.of(program.modules(), program.let_go)
    return run
