"""A task: where, how often and after what a module runs.

A task that is called, `b(a)`, says that it runs after `a`. Calls made while a swarm's `execute()`
runs go into that run's `Wiring`, so that it can run again and again; those made before stay with
the task.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar, Token
from enum import StrEnum
from typing import Any, Literal, Self

from manta.apis import checks
from manta.apis.errors import InvalidArgument
from manta.apis.module import Module
from manta.protocol.names import is_name
from manta.protocol.outbound import PREFIX

_METHODS = ("all", "any", "random", "best_resources")
_created = itertools.count()


class Condition(StrEnum):
    """When a task starts: once the one before has finished, or with its first result."""

    FINISHED = "FINISHED"
    RESULT = "RESULT"


class Task:
    """A vertex of a swarm's graph.

    `module` is a Module, or what a Module is made of. `method` selects among the nodes that can
    run it: "all", "any", "random" (by the swarm's seed), "best_resources", or "tag-<t>" for those
    whose previous task wrote the result `<t>`. `fixed` keeps the nodes of the first iteration.
    `maximum` limits the instances: a count, a fraction of those nodes, or -1 for no limit; with
    "any" the default is 1. `replicas` sets the total number of instances instead, whatever the
    method. `specified_ids` and `excepted_ids` name nodes: overviews, ids, unique beginnings of
    ids, or aliases. `timeout` and `deadline` are seconds; with `quorum` the task is done once
    that fraction of its instances has finished, or, if it is "alive", all but those whose node is
    lost. With the `deadline` "auto" those are stopped that take much longer than the others.
    `network` is one of the swarm's networks, and where the task connects to, "outbound:HOST:PORT"
    each. `alias` defaults to the module's name.

    Raises InvalidArgument.
    """

    def __init__(
        self,
        module: Module | str | os.PathLike[str] | Callable[..., Any],
        method: str = "all",
        fixed: bool = False,
        excepted_ids: Sequence[str] | None = None,
        specified_ids: Sequence[str] | None = None,
        maximum: int | float = -1,
        gpu: bool = False,
        alias: str | None = None,
        network: str | Sequence[str] | None = None,
        class_name: str | None = None,
        replicas: int | None = None,
        resources: Mapping[str, Any] | None = None,
        datasets: str | Sequence[str] | None = None,
        priority: int = 0,
        timeout: float | None = None,
        retries: int = 0,
        quorum: float | Literal["alive"] | None = None,
        deadline: float | Literal["auto"] | None = None,
        on_disconnect: str | None = None,
        redundancy: int | None = None,
        collect: str | Sequence[str] = "all",
    ) -> None:
        self.module = _module(module)
        self._explicit_alias = checks.optional_name("Task's alias", alias)
        self.method = _method(method)
        self.fixed = checks.flag("Task's fixed", fixed)
        self.excepted_ids = _ids("Task's excepted_ids", excepted_ids)
        self.specified_ids = _ids("Task's specified_ids", specified_ids)
        self.replicas = checks.optional_integer("Task's replicas", replicas, 1, 1_000_000)
        self.maximum = _maximum(maximum)
        if self.method == "any" and self.maximum == -1 and self.replicas is None:
            self.maximum = 1
        self.gpu = checks.flag("Task's gpu", gpu)
        self.network, self.outbound = _network(network)
        self.class_name = _class_name(class_name)
        if self.class_name is None and isinstance(self.module.function, type):
            self.class_name = self.module.function.__name__
        self.resources = checks.resources("Task's resources", resources)
        self.datasets = checks.names("Task's datasets", datasets)
        self.priority = checks.integer("Task's priority", priority, -1000, 1000)
        self.timeout = None if timeout is None else checks.seconds("Task's timeout", timeout)
        self.retries = checks.integer("Task's retries", retries, 0, 1000)
        self.quorum = _quorum(quorum)
        self.deadline = _deadline(deadline)
        self.on_disconnect = checks.optional_name("Task's on_disconnect", on_disconnect)
        self.redundancy = checks.optional_integer("Task's redundancy", redundancy, 1)
        self.collect = _collect(collect)
        self._check_conflicts(_maximum(maximum))
        self.wired: dict[Task, Condition] = {}
        """The tasks it runs after, as far as calls outside of `execute()` said so."""
        self.order = next(_created)
        """Order of construction: the first of several default aliases stays unnumbered."""
        Wiring.note_created(self)

    @property
    def alias(self) -> str:
        """The alias given, else the module's name; a swarm numbers defaults that clash."""
        return self._explicit_alias or self.module.name

    @property
    def has_alias(self) -> bool:
        """Whether an alias was given; such an alias is never numbered."""
        return self._explicit_alias is not None

    def __call__(
        self,
        *after: Task | Sequence[Any] | Condition,
        condition: Condition | str = Condition.FINISHED,
    ) -> Self:
        """Makes this task run after others, or as a root; lists may be nested.

        `condition` may also be the last argument, as in `b(a, Condition.RESULT)`. Returns the
        task, to be passed to the tasks that run after it. Raises InvalidArgument.
        """
        if after and isinstance(after[-1], str) and checks.plain(after[-1]) in [*Condition]:
            *after, condition = after  # type: ignore[assignment]
        parents = flattened(after, f"Task {self.alias!r} was called with")
        how = _condition(f"The condition of task {self.alias!r}", condition)
        Wiring.note_call(self, dict.fromkeys(parents, how))
        return self

    def _check_conflicts(self, maximum: int | float) -> None:
        both = sorted(set(self.excepted_ids or ()) & set(self.specified_ids or ()))
        if both:
            raise InvalidArgument(
                f"Task {self.alias!r} has {both[0]!r} in excepted_ids and in specified_ids: "
                "leave it out of one."
            )
        if self.replicas is not None and maximum != -1:
            raise InvalidArgument(
                f"Task {self.alias!r} has replicas={self.replicas} and maximum={maximum}: "
                "replicas is the total already, leave maximum out."
            )
        if self.deadline == "auto" and self.quorum is None:
            raise InvalidArgument(
                f'Task {self.alias!r} has deadline="auto" and no quorum, so that one that is late '
                'would fail it: give quorum="alive", a fraction as quorum, or seconds as deadline.'
            )
        if self.class_name is not None and not self.module.has_program:
            raise InvalidArgument(
                f"Task {self.alias!r} has class_name={self.class_name!r}, and its module is an "
                "image alone: leave class_name out, or give the module a program."
            )

    def __repr__(self) -> str:
        return f"<Task {self.alias}>"


_OF_MODULES = ("image", "name", "version", "requirements", "include")


def task(function: Callable[..., Any] | None = None, /, **arguments: Any) -> Any:
    """Makes a Task of a function or class, as a decorator: `@task`, or `@task(datasets=["mnist"])`.

    It takes the arguments of Task, and those of Module that Task has not. Raises InvalidArgument.
    """
    of_module = {key: arguments.pop(key) for key in _OF_MODULES if key in arguments}

    def made(function: Callable[..., Any]) -> Task:
        return Task(Module(function, **of_module), **arguments)

    return made if function is None else made(function)


class Wiring:
    """Records the tasks that are created and called during one run of `execute()`."""

    _current: ContextVar[Wiring | None] = ContextVar("wiring", default=None)

    def __init__(self) -> None:
        self.after: dict[Task, dict[Task, Condition]] = {}
        self.known: dict[Task, None] = {}
        self._token: Token[Wiring | None] | None = None

    def __enter__(self) -> Wiring:
        self._token = self._current.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._token is not None
        self._current.reset(self._token)

    @classmethod
    def note_created(cls, task: Task) -> None:
        if wiring := cls._current.get():
            wiring.known[task] = None

    @classmethod
    def note_call(cls, task: Task, after: dict[Task, Condition]) -> None:
        wiring = cls._current.get()
        if wiring is None:
            task.wired.update(after)
        else:
            wiring.known[task] = None
            wiring.after.setdefault(task, {}).update(after)


def flattened(value: object, where: str) -> list[Task]:
    """Returns the tasks in nested lists, each once, in order. Raises InvalidArgument."""
    found: dict[Task, None] = {}

    def visit(item: object) -> None:
        if isinstance(item, Task):
            found[item] = None
        elif isinstance(item, list | tuple):
            for child in item:
                visit(child)
        else:
            raise InvalidArgument(
                f"{where} {checks.shown(item)}, which is not a task: give tasks or lists of tasks."
            )

    visit(value)
    return list(found)


def _module(value: object) -> Module:
    if isinstance(value, Module):
        return value
    if isinstance(value, str | os.PathLike) or (callable(value) and not isinstance(value, Task)):
        return Module(value)
    raise InvalidArgument(
        f"Task's module is {checks.shown(value)}: give a Module, a path, or a function."
    )


def _condition(where: str, value: object) -> Condition:
    try:
        return Condition(checks.text(where, value))
    except ValueError:
        raise InvalidArgument(
            f"{where} is {checks.shown(value)}: give Condition.FINISHED or Condition.RESULT."
        ) from None


def _collect(given: object) -> str | tuple[str, ...]:
    given = checks.plain(given)
    if isinstance(given, str) or given is None:
        return checks.choice("Task's collect", given, ("all", "references"))
    return checks.names("Task's collect", given) or "references"


def _method(value: object) -> str:
    value = checks.plain(value)
    if isinstance(value, str) and (
        value in _METHODS or (value.startswith("tag-") and is_name(value[4:]))
    ):
        return value
    raise InvalidArgument(
        f"Task's method is {checks.shown(value)}: "
        f'give {", ".join(map(repr, _METHODS))} or "tag-<tag of a result>".'
    )


def _ids(where: str, value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    ids = checks.identities(where, value)
    if not ids and "specified" in where:
        raise InvalidArgument(f"{where} is empty, so no node may run it: leave it out.")
    return ids


def _maximum(value: object) -> int | float:
    remedy = "give a count of 1 or more, a fraction above 0 and up to 1, or -1 for no limit"
    value = checks.plain(value)
    if isinstance(value, float) and 0 < value <= 1:
        return value
    if checks.is_integer(value) and -1 <= value <= checks.LARGEST and value != 0:
        return value
    raise InvalidArgument(f"Task's maximum is {checks.shown(value)}: {remedy}.")


def _network(value: object) -> tuple[str | None, tuple[str, ...]]:
    """The swarm's network, if it is in one, and ways out."""
    where = "Task's network"
    found = checks.names(where, value)
    ways = [name for name in found if name.startswith(PREFIX)]
    own = [name for name in found if not name.startswith(PREFIX)]
    if len(own) > 1:
        raise InvalidArgument(
            f"{where} names {', '.join(map(repr, own))}: a task is in one network of its swarm."
        )
    return (own[0] if own else None), checks.outbound(where, ways)


def _class_name(value: object) -> str | None:
    value = checks.plain(value)
    if value is None:
        return None
    if not isinstance(value, str) or not value.isidentifier():
        raise InvalidArgument(
            f"Task's class_name is {checks.shown(value)}: give the name of a class in the module."
        )
    return value


def _quorum(value: object) -> float | Literal["alive"] | None:
    value = checks.plain(value)
    if value is None:
        return None
    if isinstance(value, str) and value == "alive":
        return "alive"
    if isinstance(value, str):
        raise InvalidArgument(f'Task\'s quorum is {value!r}: give a fraction, or "alive".')
    return checks.fraction("Task's quorum", value)


def _deadline(value: object) -> float | Literal["auto"] | None:
    value = checks.plain(value)
    if value is None:
        return None
    if isinstance(value, str) and value == "auto":
        return "auto"
    if isinstance(value, str):
        raise InvalidArgument(f'Task\'s deadline is {value!r}: give seconds, or "auto".')
    return checks.seconds("Task's deadline", value)
