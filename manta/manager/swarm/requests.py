"""Answers what users ask of one swarm: its reads at once, its changes once they are durable."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from manta.actors import Actor, Refused
from manta.manager.auth.principals import Principal
from manta.manager.auth.rights import Right
from manta.manager.context import BLOBS, Context, cluster_path
from manta.manager.errors import StoreError
from manta.manager.messages import AskStacks, FromUser, Sweep
from manta.manager.store.change import not_stored_yet
from manta.manager.swarm import plans
from manta.manager.swarm.bounds import Bounds
from manta.manager.swarm.commits import Commits, Then
from manta.manager.swarm.events import (
    GlobalSet,
    Paused,
    ResultsDeleted,
    Resumed,
    Started,
    Stopped,
    SwarmEvent,
)
from manta.manager.swarm.machine import SwarmMachine
from manta.manager.swarm.reads import queries
from manta.manager.swarm.reads.lines import Lines
from manta.manager.swarm.reads.polls import Feeds
from manta.manager.swarm.state import Attempt
from manta.manager.views import ClusterView
from manta.protocol import user
from manta.protocol.codes import Code
from manta.protocol.node import Ok
from manta.protocol.quotas import GetSwarmQuotas
from manta.protocol.states import SwarmState
from manta.protocol.values import BlobRef

RECALLED = 30.0
"""Seconds in which the cluster says whether a result is here."""
SAID = 200
"""About the bytes that a request takes which changes the swarm. A stop is always possible, and so
is what deletes."""


@dataclass
class Requests:
    """`feed` hands an event to the machine and stores it, `lacking` says which blobs are not here
    for a user to name."""

    actor: Actor
    context: Context
    view: ClusterView
    machine: SwarmMachine
    commits: Commits
    feeds: Feeds
    lines: Lines
    bounds: Bounds
    feed: Callable[[SwarmEvent, Then], None]
    lacking: Callable[[Iterable[BlobRef], Principal], list[BlobRef]]

    def answer(self, request: FromUser) -> object:
        """None if the answer comes later. Raises Refused."""
        machine, by = self.machine, request.user.name
        match request.message:
            case user.StartSwarm():
                self._expect("started", SwarmState.PENDING)
                if self.view.stopped:
                    raise Refused(
                        Code.WRONG_STATE,
                        "The cluster of this swarm is stopped; start it (manta cluster start).",
                    )
                self._carry_out(Started())
            case user.StopSwarm(force=force):
                self._expect("stopped", SwarmState.PENDING, SwarmState.ACTIVE, SwarmState.PAUSED)
                self._carry_out(Stopped(by, force))
            case user.PauseSwarm():
                self._expect("paused", SwarmState.ACTIVE)
                self._carry_out(Paused(by))
            case user.ResumeSwarm():
                self._expect("resumed", SwarmState.PAUSED)
                self._carry_out(Resumed(by))
            case user.SetGlobal(tag=tag, value=value):
                self._expect("written to", *(s for s in SwarmState if not s.final))
                if isinstance(value, BlobRef) and self.lacking((value,), request.user):
                    raise Refused(
                        Code.BLOB_MISSING, f"The value of {tag!r} was not pushed; push it again."
                    )
                if breach := self.bounds.of_global(tag, value):
                    raise breach.refusal()
                self._carry_out(GlobalSet(tag, value), Ok())
            case user.DeleteResults(tag=tag, iteration=iteration):
                count = queries.deletable(machine, tag, iteration)
                answer = user.DeletedResults(count)
                self._carry_out(ResultsDeleted(by, tag, iteration), answer)
                self.commits.when_durable(self._sweep)
            case GetSwarmQuotas():
                return self.bounds.described(self.commits.info.name)
            case user.GetSwarm():
                return self.feeds.info
            case user.ExplainSwarm():
                plan = queries.explain(machine, self.view.node_views_for(machine.data.swarm_id))
                told = tuple(notice.sentence for notice in self.feeds.situation().notices)
                plan = msgspec.structs.replace(plan, notices=told)
                plans.answer(self.actor, self.context, plan, request.user, self.actor.defer())
            case user.GetSpec():
                return user.SwarmSpecified(queries.unsigned(machine))
            case user.GetTasks(iteration=iteration, after=after):
                return queries.tasks(machine, iteration, after)
            case user.ReadStacks(task=task):
                self._read_stacks(queries.running(machine, task))
            case user.SelectGlobal(tag=tag):
                return user.SelectedGlobal(machine.global_value(tag)[0])
            case user.ListGlobalTags():
                return user.GlobalTags(machine.global_tags())
            case user.WaitSwarm() as wait:
                self.feeds.wait(wait, self.actor.defer())
            case user.RecallResult() as recall:
                queries.check_stays(machine, recall)
                reply = self.actor.defer()
                cluster = self.actor.system.ref(cluster_path(machine.data.cluster_id))
                asked = cluster.ask_future(request, timeout=RECALLED)
                self.actor.pipe(
                    asked, lambda told, error: reply.fail(error) if error else reply.set(told)
                )
            case user.ReadFeed() as read:
                queries.check_filters(machine, read, self._nodes_seen(request.user))
                if read.feed == "logs":
                    self.lines.read(read, self.actor.defer(), request.user.id)
                else:
                    self.feeds.read(read, self.actor.defer())
            case _:
                return Actor.receive(self.actor, request.message)
        return None

    def _read_stacks(self, attempt: Attempt) -> None:
        reply = self.actor.defer()

        def told(stacks: Any, error: BaseException | None) -> None:
            if error is None:
                alias = attempt.node_alias
                reply.set(user.TaskStacks(attempt.instance, alias, stacks.text))
            else:
                reply.fail(error)

        cluster = self.actor.system.ref(cluster_path(self.machine.data.cluster_id))
        message = AskStacks(attempt.node_id, attempt.instance)
        self.actor.pipe(cluster.ask_future(message, timeout=RECALLED), told)

    def _nodes_seen(self, who: Principal) -> dict[str, str]:
        """Aliases by id: of all nodes of the cluster, or without the right to see them of those
        that were ever given anything of this swarm."""
        data, aliases = self.machine.data, self.view.aliases
        if Right.NODE_READ in self.context.access.roles.rights(who, data.cluster_id):
            return aliases
        return {id_: alias for id_, alias in aliases.items() if id_ in data.given}

    def _expect(self, done: str, *states: SwarmState) -> None:
        if self.machine.state in states:
            return
        raise Refused(
            Code.WRONG_STATE,
            f"The swarm {self.commits.info.name!r} ({self.machine.data.swarm_id}) is "
            f"{self.machine.state} and cannot be {done}; only a swarm that is "
            f"{' or '.join(states)} can.",
        )

    def _carry_out(self, event: SwarmEvent, answer: object = None) -> None:
        """Answers once it is durable. Raises Refused."""
        if not isinstance(event, Stopped | ResultsDeleted):  # these make room
            if (trouble := self.commits.writer.trouble) is not None:
                raise Refused(Code.STORAGE, f"{trouble} Nothing was changed.")
            if breach := self.bounds.saying(SAID):
                raise breach.refusal()
        reply = self.actor.defer()

        def then(error: StoreError | None) -> None:
            if error is None:
                reply.set(answer or self.commits.shown)
            elif isinstance(event, Stopped):
                reply.fail(not_stored_yet(error))
            else:
                sentence = f"{error} It takes effect as soon as it can be stored."
                reply.fail(Refused(Code.STORAGE, sentence))

        self.feed(event, then)

    def _sweep(self, error: StoreError | None) -> None:
        if error is None:
            self.actor.notify(BLOBS, Sweep())
