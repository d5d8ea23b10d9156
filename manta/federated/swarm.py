"""Federated learning as a swarm that needs a worker and a strategy."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from manta.apis import checks
from manta.apis.errors import InvalidArgument
from manta.apis.module import Module
from manta.apis.swarm import Swarm
from manta.apis.task import Task
from manta.light.federated.arrays import kinds
from manta.light.federated.asynchronous import FedBuff
from manta.light.federated.described import described
from manta.light.federated.errors import BadModel
from manta.light.federated.rounds import Strategy
from manta.light.federated.stopping import StoppingRule
from manta.light.federated.tasks import MODEL, NEEDS_EACH, SETTINGS

Program = Module | str | os.PathLike[str] | Callable[..., Any]

_OURS = '''"""The {kind} of a federated swarm."""

from manta.light import federated


class {kind}(federated.{kind}):
    pass
'''


class FederatedSwarm(Swarm):
    """A swarm that trains one model on the data of many nodes, round by round.

    `worker` is a program with a class derived from `manta.light.federated.Worker`, which trains the
    model on its node; `strategy` is one of `manta.light.federated`'s, and makes the next model of
    what workers send; `model` is the first one, `{name: array}`. A round is an iteration: workers
    on all nodes that can run them, or on a random `fraction` of them; an aggregator on one node;
    with `evaluate`, a program with a class derived from `federated.Evaluator`, evaluators on all
    nodes; and, with `evaluate` or `stop`, a scheduler, which keeps the metrics of all rounds in the
    global `history` and ends the swarm once `stop` says so: `federated.Reached` or `Plateau`.

    A round fails with fewer than `min_clients` updates that can be used. `quorum` and `deadline`
    are the workers', as of any `Task`. A `Task` may stand wherever a program may, to say more of
    it; `fraction`, `quorum` and `deadline` are then its own affair. `aggregator` and `scheduler`
    replace Manta's; a strategy of your own is None here, and made by `strategy()` of your worker
    and your aggregator. The tasks are the attributes `worker`, `aggregator`, `evaluator` and
    `scheduler`; the last two may be None. Derived classes may change all of them, and `execute`.

    With `private`, no update leaves its node: workers add up what the round needs by an
    `all_reduce(private=True)`, and those publish the sum, as the result `sum`, whose nodes' owners
    let results leave, of which there must be one. It needs a strategy that `adds_up`, workers that
    exchange directly and all run at once, and the same metrics of all; nobody is left out who is
    late.

    Raises InvalidArgument, InvalidValue.
    """

    def __init__(
        self,
        worker: Program | Task,
        strategy: Strategy | None,
        model: Mapping[str, Any],
        rounds: int = 10,
        *,
        fraction: float = 1.0,
        min_clients: int = 1,
        quorum: float | Literal["alive"] | None = None,
        deadline: float | Literal["auto"] | None = None,
        evaluate: Program | Task | None = None,
        stop: StoppingRule | None = None,
        aggregator: Program | Task | None = None,
        scheduler: Program | Task | None = None,
        private: bool = False,
        seed: int | None = None,
    ) -> None:
        super().__init__(max_iteration=rounds, seed=seed)
        self.set_global(MODEL, _model(model))
        self.worker = _worker(worker, fraction, quorum, deadline)
        self.set_global(
            SETTINGS,
            {
                "strategy": _strategy(strategy, is_ours=aggregator is None),
                "min_clients": checks.integer("FederatedSwarm's min_clients", min_clients, 1),
                "stop": _stop(stop),
                "private": _private(private, strategy, self.worker),
            },
        )
        self.aggregator = _task(aggregator or _ours("Aggregator"), "any")
        self.evaluator = None if evaluate is None else _task(evaluate, "all")
        self.scheduler: Task | None = None
        if scheduler is not None or evaluate is not None or stop is not None:
            self.scheduler = _task(scheduler or _ours("Scheduler"), "any")

    def execute(self) -> Task:
        """Connects the tasks of a round."""
        last = self.aggregator(self.worker())
        if self.evaluator is not None:
            last = self.evaluator(last)
        return last if self.scheduler is None else self.scheduler(last)


def _ours(kind: str) -> Module:
    return Module(_OURS.format(kind=kind), name=kind.lower())


def _task(program: Program | Task, method: str) -> Task:
    return program if isinstance(program, Task) else Task(program, method=method)


def _worker(
    worker: Program | Task,
    fraction: float,
    quorum: float | Literal["alive"] | None,
    deadline: float | Literal["auto"] | None,
) -> Task:
    if isinstance(worker, Task):
        if fraction != 1.0 or quorum is not None or deadline is not None:
            raise InvalidArgument(
                "FederatedSwarm's worker is a Task and there is a fraction, a quorum or a deadline "
                "besides: give them to the Task (maximum= is the fraction), or give its module."
            )
        return worker
    share = checks.fraction("FederatedSwarm's fraction", fraction)
    some: dict[str, Any] = {"method": "random", "maximum": share} if share < 1 else {}
    return Task(worker, **some, quorum=quorum, deadline=deadline)


def _model(model: object) -> dict[str, Any]:
    if not isinstance(model, Mapping) or not model:
        raise InvalidArgument(
            f"FederatedSwarm's model is {checks.shown(model)}: give the first model as "
            "{name: array}, not empty; federated.adapters makes one of torch's and scikit-learn's."
        )
    try:
        kinds(model)
    except BadModel as error:
        raise InvalidArgument(f"FederatedSwarm's model: {error}") from None
    return dict(model)


def _strategy(strategy: object, *, is_ours: bool) -> dict[str, Any] | None:
    """`is_ours` if Manta's own aggregator is used, which has to be told the strategy."""
    if not isinstance(strategy, Strategy):
        if strategy is None and not is_ours:
            return None
        raise InvalidArgument(
            f"FederatedSwarm's strategy is {checks.shown(strategy)}: give one of "
            "manta.light.federated, such as FedAvg()."
        )
    if any(isinstance(one, FedBuff) for one in _within(strategy)):
        raise InvalidArgument(
            "FederatedSwarm's strategy is FedBuff, whose rounds are asynchronous, and those of a "
            "FederatedSwarm are not: give another, such as FedAvg()."
        )
    return _described("strategy", strategy)


def _private(private: bool, strategy: object, worker: Task) -> bool:
    """Raises InvalidArgument."""
    if not private:
        return False
    if isinstance(strategy, Strategy) and not strategy.adds_up:
        raise InvalidArgument(
            f"FederatedSwarm's strategy is {type(strategy).__name__}, which {NEEDS_EACH}."
        )
    if worker.quorum is not None or worker.deadline is not None:
        raise InvalidArgument(
            "FederatedSwarm has private=True and a quorum or a deadline: a sum is of all workers "
            "of a round; leave these out."
        )
    return True


def _within(strategy: object) -> Iterator[object]:
    """The strategy, and those that it rides on."""
    while strategy is not None:
        yield strategy
        strategy = getattr(strategy, "strategy", None)


def _stop(stop: object) -> dict[str, Any] | None:
    if stop is None:
        return None
    if not isinstance(stop, StoppingRule):
        raise InvalidArgument(
            f"FederatedSwarm's stop is {checks.shown(stop)}: give federated.Reached(...) or "
            "federated.Plateau(...), or a scheduler of your own."
        )
    return _described("stop", stop)


def _described(what: str, thing: object) -> dict[str, Any]:
    try:
        return described(thing)
    except TypeError as error:
        raise InvalidArgument(f"FederatedSwarm's {what}: {error}") from None
