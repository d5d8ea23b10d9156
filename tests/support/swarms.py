"""Swarms of one task, made of source text, on a cluster that a whole module of tests shares."""

from __future__ import annotations

import textwrap
from typing import Any

from manta import Module, Swarm, Task, UserAPI
from manta.apis.overviews import SwarmOverview
from manta.cli.local.cluster import CLUSTER


class One(Swarm):
    """One task, made of source text."""

    def __init__(self, code: str, *, rounds: int | None = None, **task: Any) -> None:
        super().__init__(max_iteration=rounds)
        datasets = task.pop("datasets", None)
        self.only = Task(Module(textwrap.dedent(code), name="code", datasets=datasets), **task)


def ended(api: UserAPI, swarm: Swarm, timeout: float = 60) -> SwarmOverview:
    return api.wait_swarm(api.deploy_swarm(CLUSTER, swarm), timeout=timeout)


def outputs(api: UserAPI, swarm: Swarm) -> list[Any]:
    """What the task's instances returned, by iteration and rank."""
    done = ended(api, swarm)
    told = [error.sentence for error in api.collect_errors(done)]
    assert done.status == "COMPLETED", (done.reason, told)
    return [task.output for task in api.get_tasks(done) if task.status == "FINISHED"]


def errors(api: UserAPI, swarm: Swarm) -> list[str]:
    """The sentences about a swarm that fails."""
    done = ended(api, swarm)
    assert done.status == "FAILED", done.reason
    return [error.sentence for error in api.collect_errors(done)]
