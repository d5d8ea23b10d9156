"""Who watches a list: long polls of what changed in it, for the Gateway."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from manta.actors import Actor, ActorDead, MailboxFull, Refused, Reply, Timer
from manta.manager.auth.principals import Principal
from manta.manager.context import Context
from manta.manager.gateway.clusters import Clusters
from manta.manager.gateway.modules import Modules
from manta.manager.gateway.permits import Permits
from manta.manager.gateway.relay import Relay
from manta.manager.revisions import Revisions
from manta.protocol import clusters, pages, user, users
from manta.protocol.node import Message

T = TypeVar("T")

WatchRequest = clusters.WatchClusters | clusters.WatchNodes | user.WatchSwarms | users.WatchModules
Page = clusters.Clusters | clusters.Nodes | user.Swarms | users.Modules


@dataclass(eq=False)
class _Poll:
    message: WatchRequest
    who: Principal
    cluster_id: str | None
    reply: Reply
    expires: float
    timer: Timer | None = None  # type: ignore[type-arg]


class _Expired(msgspec.Struct, frozen=True):
    poll: _Poll


class _Look(msgspec.Struct, frozen=True):
    at: type[Message]
    """The list that changed, by the message that asks for it."""


class Watches:
    def __init__(
        self,
        actor: Actor,
        context: Context,
        permits: Permits,
        clusters_: Clusters,
        modules: Modules,
        relay: Relay,
    ) -> None:
        self._actor = actor
        self._context = context
        self._permits = permits
        self._clusters = clusters_
        self._modules = modules
        self._relay = relay
        revisions = context.revisions
        self._revisions: dict[type[Message], Revisions] = {
            clusters.WatchClusters: revisions.clusters,
            clusters.WatchNodes: revisions.nodes,
            user.WatchSwarms: revisions.swarms,
            users.WatchModules: revisions.modules,
        }
        self._waiting: dict[type[Message], list[_Poll]] = {kind: [] for kind in self._revisions}

    def open(
        self, message: WatchRequest, who: Principal, cluster_id: str | None, reply: Reply
    ) -> None:
        """Answer now if there is something to say, else when there is, or at the wait's end."""
        poll = _Poll(message, who, cluster_id, reply, self._actor.clock.now() + message.wait)
        kind = type(message)
        if not self._waiting[kind]:  # before the look: what changes after it is told
            self._listen(kind)
        if self._try(poll, last=not message.wait):
            return
        poll.timer = self._actor.after(message.wait, _Expired(poll))
        self._waiting[kind].append(poll)

    def handle(self, message: object) -> bool:
        """Whether the message was for this part."""
        match message:
            case _Look(kind):
                self._look(kind)
            case _Expired(poll):
                if poll in self._waiting[type(poll.message)]:
                    self._waiting[type(poll.message)].remove(poll)
                    self._try(poll, last=True)
            case _:
                return False
        return True

    def reveal(self, cluster_id: str) -> None:
        """Somebody may see more of this cluster now, or less."""
        revisions = self._context.revisions
        revisions.clusters.changed(cluster_id)
        revisions.swarms.changed(*self._context.cluster(cluster_id).swarms)
        revisions.nodes.changed()
        revisions.modules.changed()

    def _listen(self, kind: type[Message]) -> None:
        ref = self._actor.ref

        def on_change() -> None:
            try:
                ref.tell(_Look(kind))
            except (ActorDead, MailboxFull):
                return  # they are answered when their time is over

        self._revisions[kind].tell_next(on_change)

    def _look(self, kind: type[Message]) -> None:
        polls, self._waiting[kind] = self._waiting[kind], []
        if polls:
            self._listen(kind)
        for poll in polls:
            if not self._try(poll, last=False):
                self._waiting[kind].append(poll)
            elif poll.timer is not None:
                poll.timer.cancel()

    def _try(self, poll: _Poll, *, last: bool) -> bool:
        if poll.reply.done:
            return True  # the asker is gone
        try:
            self._permits.recheck(poll.who, poll.message, poll.cluster_id)
            page, some = self._page(poll)
        except Refused as refusal:
            poll.reply.fail(refusal)
            return True
        if some or last:
            self._relay.answer(poll.reply, page)
            return True
        poll.message = msgspec.structs.replace(poll.message, since=page.revision)
        return False

    def _page(self, poll: _Poll) -> tuple[Page, bool]:
        """What he sees of what changed; is there any?"""
        context, who = self._context, poll.who
        match poll.message:
            case clusters.WatchClusters():
                shown, revision = self._changed(poll, lambda id_: self._clusters.shown(id_, who))
                return clusters.Clusters(shown, revision=revision), bool(shown)
            case clusters.WatchNodes():
                assert poll.cluster_id is not None
                there = context.cluster(poll.cluster_id).nodes
                nodes, revision = self._changed(poll, there.get)
                return clusters.Nodes(nodes, revision=revision), bool(nodes)
            case user.WatchSwarms():
                where = [poll.cluster_id] if poll.cluster_id else self._permits.readable(who)
                tables = [context.cluster(id_).swarms for id_ in where]
                swarms, revision = self._changed(
                    poll, lambda id_: next((one[id_] for one in tables if id_ in one), None)
                )
                return user.Swarms(swarms, revision=revision), bool(swarms)
            case users.WatchModules():
                modules, revision = self._changed(poll, self._modules.info)
                return users.Modules(modules, revision=revision), bool(modules)

    def _changed(self, poll: _Poll, find: Callable[[str], T | None]) -> tuple[tuple[T, ...], str]:
        """As many as a message holds, and the revision up to which they are."""
        found: list[T] = []
        room, revision = pages.PAGE_BYTES, poll.message.since
        for key, at in self._revisions[type(poll.message)].since(revision):
            if (item := find(key)) is not None:
                room -= pages.encoded(item)
                if room < 0 and found:
                    break
                found.append(item)
            revision = at
        return tuple(found), revision
